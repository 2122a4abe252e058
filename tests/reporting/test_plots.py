"""The training curves, as PNG and as SVG."""

import math
import re
import struct
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import finished_run

from flaxrnn.reporting import plots
from flaxrnn.training.confidence import Confidence
from flaxrnn.training.metrics import METRICS


def tooltips(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("title")]


def test_svg_names_every_point_and_the_best_epoch():
    result, history, _ = finished_run(epochs=200)
    svg = plots.curves_svg(history, result["best_epoch"], METRICS["loss"])
    assert len(tooltips(svg)) == 400
    assert "epoch 4, validation: loss 0.9500" in tooltips(svg)
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("text")]
    assert {"loss (nats)", "training", "validation", "best epoch 4: 0.9500"} < set(texts)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == (
        "loss (nats) by epoch in training and validation; best epoch 4, validation loss 0.9500"
    )


def test_svg_is_small_deterministic_and_refers_only_to_itself():
    _, history, _ = finished_run()
    svg, again = (plots.curves_svg(history, 4, METRICS["accuracy"]) for _ in range(2))
    assert svg == again
    assert len(svg) < 15_000
    assert not re.search(r"http|url\(|<style|font-family|#[0-9a-f]{6}\b", svg)
    ids = {element.get("id") for element in ElementTree.fromstring(svg).iter("path")}
    assert set(re.findall('href="#([^"]*)"', svg)) <= ids
    # Nothing else has an id: two plots on a page would share it.
    assert svg.count(' id="') == len(ids - {None})


def test_one_epoch_and_values_that_are_not_finite():
    _, history, _ = finished_run(epochs=1)
    assert len(tooltips(plots.curves_svg(history, 1, METRICS["loss"]))) == 2
    for value in (math.nan, math.inf):
        history[0]["val_loss"] = value
        svg = plots.curves_svg(history, 1, METRICS["loss"])
        assert tooltips(svg) == ["epoch 1, training: loss 2.0000"]
        assert f"best epoch 1: {value}" in svg
        assert not re.search(r'(points|d|x|y)="[^"]*(nan|inf)', svg)


def test_epochs_around_one_without_a_finite_value_are_connected():
    _, history, _ = finished_run(epochs=3)
    history[1]["train_loss"] = math.nan
    svg = plots.curves_svg(history, 3, METRICS["loss"])
    line = re.search('d="([^"]*)" style="fill: none; stroke: var.--blue', svg)[1]
    assert re.sub("[^A-Z]", "", line) == "ML"


@pytest.mark.parametrize("source", ["real", "synthetic"])
def test_png_has_a_panel_per_metric(source, tmp_path):
    result, history, _ = finished_run(data_source=source)
    path = tmp_path / "curves.png"
    plots.save_curves(history, result, path)
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert (width, height) == (2 * 550, 374)
    with pytest.raises(OSError, match="No such file"):
        plots.save_curves(history, result, tmp_path / "nowhere" / "curves.png")


def test_confidence_is_drawn_with_a_tooltip_per_point():
    confidence = Confidence(np.array([0.95, 0.85, 0.55]), np.array([True, False, True]))
    svg = plots.reliability_svg(confidence)
    assert tooltips(svg) == [
        "1 texts of probability 0.550: 100.0% right",
        "1 texts of probability 0.850: 0.0% right",
        "1 texts of probability 0.950: 100.0% right",
    ]
    svg = plots.coverage_svg(confidence)
    assert tooltips(svg)[1] == "threshold 0.850: 66.7% get a label, 50.0% of those are right"
    assert not re.search(r"http|url\(|<style|#[0-9a-f]{6}\b", svg)
