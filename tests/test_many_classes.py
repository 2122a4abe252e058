"""Thousands of classes: a run without a flag ends, and nothing grows with their square."""

import dataclasses
import json
import time
import tracemalloc

import numpy as np
from helpers import finished_run, shrink, write_csv

import flaxrnn
from configs import text as text_config
from flaxrnn.reporting import page
from flaxrnn.training import intervals, metrics


def test_a_run_of_2_000_classes(tmp_path, no_plots, capsys):
    rows = [(f"w{i} v{i % 7} {end}", f"c{i}") for i in range(2_000) for end in "abcd"]
    config = shrink(text_config.get_config(), epochs=1, cell="simple")
    config.data.path = str(write_csv(tmp_path / "many.csv", rows))
    config.data.data_dir = str(tmp_path / "data")
    config.data.num_words = 3_000
    config.train.update({"batch_size": 100, "explain": True})
    result = flaxrnn.train(config, tmp_path / "run")
    assert "model.word_ngrams: 0, chosen for 2,000 classes\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert not (tmp_path / "run" / "ngrams").exists()
    content = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert len(content) < 2_000_000
    assert "Listed are the 1,000 most frequent of 2,000 classes." in content
    assert content.count('<p class="words">') > 10


def test_what_follows_the_training_of_20_000_classes_is_quick_and_small(no_plots):
    classes, texts = 20_000, 60_000
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(classes, size=(2, texts))
    tracemalloc.start()
    begin = time.perf_counter()
    low, high = intervals.of_macro_f1(labels, predicted, classes)
    result, history, details = finished_run()
    details = dataclasses.replace(
        details,
        label_names=[f"class {i}" for i in range(classes)],
        class_scores=metrics.class_scores(*metrics.class_totals(labels, predicted, classes)),
        confusion=metrics.confusion(labels, predicted),
    )
    content = page.render(result, history, details)
    seconds, (_, peak) = time.perf_counter() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 <= low < high < 0.01
    assert len(content) < 2_000_000
    assert peak < 100_000_000  # bytes; a matrix of the classes takes 3.2 GB
    assert seconds < 60
