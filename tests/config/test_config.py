import dataclasses
import re
import sys

import pytest
from helpers import ROOT, shrink
from ml_collections import ConfigDict

from configs import default, imdb, reuters, tagging
from configs import text as text_config
from flaxrnn import config as config_lib
from flaxrnn import loop
from flaxrnn.config import Config, DataConfig, ModelConfig, TrainConfig
from flaxrnn.data import corpora, tokenizers
from flaxrnn.datasets import registry
from flaxrnn.errors import ConfigError
from flaxrnn.nn import cells, heads, layers, recurrence
from flaxrnn.training import optimizers

VARIANTS = ["", "keras", "fast", "best", "demo"]


def test_choices_are_those_of_the_code():
    def choices(name):
        allowed = config_lib.FIELDS[name].allowed.removeprefix("one of ")
        return set(allowed.partition(", or a custom ")[0].split(", "))

    assert choices("task") == {*registry.TASKS, *registry.WITHOUT_BUILDER}
    assert choices("data.tokenizer") == {"auto", *tokenizers.TOKENIZERS}
    assert choices("data.source") == set(corpora.SOURCES)
    assert choices("model.target") == set(heads.HEADS)
    assert choices("model.cell") == set(cells.CELLS)
    assert choices("model.pooling") == set(layers.POOLINGS)
    assert choices("model.recurrence") == set(recurrence.IMPLEMENTATIONS)
    assert choices("train.optimizer") == set(optimizers.OPTIMIZERS)
    assert choices("train.schedule") == set(optimizers.SCHEDULES)


def test_the_documentation_lists_every_field():
    assert config_lib.to_markdown() in (ROOT / "docs/config.md").read_text("utf-8")


def test_every_field_is_read(tmp_path, data_dir, monkeypatch):
    """By the code of the package, in one run that uses all of them."""
    read = set()

    def record(group, prefix):
        names = {field.name for field in dataclasses.fields(group)}

        def getattribute(self, name):
            code = sys._getframe(1).f_code.co_filename
            if name in names and "flaxrnn/" in code and "flaxrnn/config/" not in code:
                read.add(f"{prefix}{name}")
            return object.__getattribute__(self, name)

        monkeypatch.setattr(group, "__getattribute__", getattribute)

    groups = (("", Config), ("data.", DataConfig), ("model.", ModelConfig), ("train.", TrainConfig))
    for prefix, group in groups:
        record(group, prefix)
    rows = [f"{word} film {i},{word}" for i, word in enumerate(("good", "bad") * 20)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    config = shrink(text_config.get_config(), epochs=1, dropout=0.1, conv_filters=2)
    config.data.update({"path": str(tmp_path / "reviews.csv"), "data_dir": data_dir})
    config.train.schedule = "constant"  # whose end patience decides
    loop.train_and_evaluate(config, tmp_path / "run")
    assert read - {"data", "model", "train"} == set(config_lib.FIELDS)


def test_configs_of_earlier_versions_are_completed():
    saved = default.get_config().to_dict()
    del saved["train"]["optimizer"]
    saved["train"]["schedule"] = "one_cycle"
    saved["model"]["recurrence"] = "auto"
    saved["seed"] = 7
    parsed = config_lib.parse(config_lib.with_defaults(saved))
    assert (parsed.seed, parsed.train.optimizer) == (7, "adam")
    assert (parsed.train.schedule, parsed.model.recurrence) == ("warmup_linear", "fused")
    saved["train"]["unknown"] = 1
    with pytest.raises(ConfigError, match=r"train\.unknown: there is no such field"):
        config_lib.parse(config_lib.with_defaults(saved))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("module", [reuters, imdb])
def test_shipped_configs_are_valid(module, variant):
    config_lib.parse(module.get_config(variant))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", "mnist", "task: 'mnist' must be one of reuters, reuters_clean, imdb"),
        ("seed", -1, "seed: -1 must be a whole number of at least 0"),
        ("train.batch_size", -1, "train.batch_size: -1 must be a whole number of at least 0"),
        ("train.batch_size", True, "train.batch_size: True must be a whole number"),
        ("data.maxlen", -5, "data.maxlen: -5 must be a whole number of at least 1"),
        ("data.num_words", 3, "data.num_words: 3 must be a whole number of at least 4"),
        ("data.validation_fraction", 1.0, "data.validation_fraction: 1.0 must be a number above"),
        ("data.validation_fraction", 0.0, "data.validation_fraction: 0.0 must be a number above"),
        ("data.source", "web", "data.source: 'web' must be one of auto, real, synthetic"),
        ("model.dropout", 1.5, "model.dropout: 1.5 must be a number from 0 to below 1"),
        ("model.dropout", float("nan"), "model.dropout: nan must be"),
        ("model.pooling", "first", "model.pooling: 'first' must be one of last, max, mean, max"),
        ("model.bidirectional", 1, "model.bidirectional: 1 must be True or False"),
        ("train.learning_rate", 0.0, "train.learning_rate: 0.0 must be a number above 0"),
        ("train.epochs", 2.5, "train.epochs: 2.5 must be a whole number"),
        ("train.patience", "5", "train.patience: '5' must be a whole number"),
    ],
)
def test_impossible_values_name_field_and_what_is_allowed(field, value, message):
    tree = default.get_config().to_dict()
    group, _, key = field.rpartition(".")
    (tree[group] if group else tree)[key] = value
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_lib.parse(ConfigDict(tree))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "data.path: missing; name a file, a folder or a TFDS dataset"),
        ({"data.path": ""}, "data.path: '' must be the path of a file or folder, or the name of"),
        ({"data.path": "a.csv", "task": "imdb"}, "data.path: must be unset with task=imdb"),
        ({"data.path": "a.csv", "data.source": "synthetic"}, "data.source: must be auto or real"),
        ({"data.path": "a.csv", "data.label_field": "text"}, "data.text_field: must differ from"),
        ({"data.path": None, "data.test_path": "a.csv", "task": "imdb"},
         "data.test_path: must be unset with task=imdb; it belongs to task=text"),
        ({"data.encoding": "hex"}, "data.encoding: 'hex' must be the name of a Python text encod"),
        ({"data.delimiter": ";;"}, "data.delimiter: ';;' must be a single character, or tab"),
        ({"data.rare_classes": "merge"}, "data.rare_classes: 'merge' must be one of error, drop"),
        ({"data.text_field": ""}, "data.text_field: '' must be the name of a column"),
        ({"data.tokenizer": "bpe"}, "data.tokenizer: 'bpe' must be one of words, characters, sub"),
        ({"data.test_fraction": 1.0}, "data.test_fraction: 1.0 must be a number above 0 and below"),
    ],
)  # fmt: skip
def test_own_texts_name_what_they_need(changes, message):
    config = text_config.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_lib.parse(config)
    config = text_config.get_config()
    config.data.path = "reviews.csv"
    config_lib.parse(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.source": "real"}, "data.source: must be auto or synthetic with task=brackets"),
        ({"data.tokenizer": "words"}, "data.tokenizer: must be characters with task=brackets"),
        ({"model.target": "all"}, "model.target: 'all' must be one of label, labels, tags, next"),
    ],
)
def test_brackets_name_what_they_need(changes, message):
    config = tagging.get_config()
    config_lib.parse(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_lib.parse(config)


def test_unknown_field_is_named_with_the_nearest_known_one():
    config = default.get_config()
    with config.unlocked():
        config.train.learning_rte = 1.0
    with pytest.raises(ConfigError, match=r"train\.learning_rte: .*mean train\.learning_rate\?"):
        config_lib.parse(config)


def test_missing_field_is_named():
    config = default.get_config()
    del config.model.cell
    with pytest.raises(ConfigError, match=r"model\.cell: missing"):
        config_lib.parse(config)
