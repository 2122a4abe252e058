import re

import pytest
from helpers import ROOT
from ml_collections import ConfigDict

from configs import default, imdb, language_model, reuters, tagging
from configs import text as text_config
from flaxrnn import config as config_lib
from flaxrnn.data import corpora, tokenizers
from flaxrnn.datasets import registry
from flaxrnn.errors import ConfigError
from flaxrnn.nn import models, recurrence
from flaxrnn.training import optimizers

VARIANTS = ["", "keras", "fast", "demo"]


def test_default_and_fields_list_the_same():
    assert sorted(config_lib.flatten(default.get_config())) == sorted(config_lib.FIELDS)


def test_choices_are_those_of_the_code():
    def choices(name):
        return re.split(", ", config_lib.FIELDS[name].allowed.removeprefix("one of "))

    assert choices("task")[:-2] == [*registry.TASKS, *registry.WITHOUT_BUILDER]
    assert choices("data.tokenizer") == list(tokenizers.TOKENIZERS)
    assert choices("data.source") == list(corpora.SOURCES)
    assert choices("model.target") == list(models.TARGETS)
    assert choices("model.cell")[:-2] == list(recurrence.LAYERS)
    assert choices("model.pooling") == list(models.POOLINGS)
    assert choices("train.schedule") == list(optimizers.SCHEDULES)
    assert choices("model.recurrence") == list(recurrence.WAYS)


def test_every_field_is_read():
    code = "".join(path.read_text() for path in (ROOT / "flaxrnn").rglob("*.py"))
    code = code.replace((ROOT / "flaxrnn/config.py").read_text(), "")
    for name in config_lib.FIELDS:
        group, _, key = name.rpartition(".")
        # The model group is handed to TextModel as it is.
        used = rf"self\.{key}\b" if group == "model" else rf"\.{key}\b"
        assert re.search(used, code), name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("module", [reuters, imdb])
def test_shipped_configs_are_valid(module, variant):
    config_lib.check(module.get_config(variant))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", "mnist", "task: 'mnist' must be one of reuters, reuters_clean, imdb"),
        ("seed", -1, "seed: -1 must be a whole number of at least 0"),
        ("train.batch_size", 0, "train.batch_size: 0 must be a whole number of at least 1"),
        ("train.batch_size", True, "train.batch_size: True must be a whole number"),
        ("data.maxlen", -5, "data.maxlen: -5 must be a whole number of at least 1"),
        ("data.num_words", 3, "data.num_words: 3 must be a whole number of at least 4"),
        ("data.validation_fraction", 1.0, "data.validation_fraction: 1.0 must be a number above"),
        ("data.validation_fraction", 0.0, "data.validation_fraction: 0.0 must be a number above"),
        ("data.source", "web", "data.source: 'web' must be one of auto, real, synthetic"),
        ("model.dropout", 1.5, "model.dropout: 1.5 must be a number from 0 to below 1"),
        ("model.dropout", float("nan"), "model.dropout: nan must be"),
        ("model.pooling", "first", "model.pooling: 'first' must be one of last, max, mean, att"),
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
        config_lib.check(ConfigDict(tree))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "data.path: missing; name a file, a folder or a TFDS dataset"),
        ({"data.path": ""}, "data.path: '' must be the path of a file or folder, or a TFDS name"),
        ({"data.path": "a.csv", "task": "imdb"}, "data.path: must be unset with task=imdb"),
        ({"data.path": "a.csv", "data.source": "synthetic"}, "data.source: must be auto or real"),
        ({"data.path": "a.csv", "data.label_field": "text"}, "data.text_field: must differ from"),
        ({"data.text_field": ""}, "data.text_field: '' must be the name of a column"),
        ({"data.tokenizer": "bpe"}, "data.tokenizer: 'bpe' must be one of words, characters, sub"),
        ({"data.test_fraction": 1.0}, "data.test_fraction: 1.0 must be a number above 0 and below"),
    ],
)
def test_own_texts_name_what_they_need(changes, message):
    config = text_config.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_lib.check(config)
    config = text_config.get_config()
    config.data.path = "reviews.csv"
    config_lib.check(config)


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (language_model, {"model.bidirectional": True}, "model.bidirectional: must be False with"),
        (language_model, {"model.conv_filters": 8}, "model.conv_filters: must be 0 with model.tar"),
        (tagging, {"data.padding": "pre"}, "data.padding: must be post with model.target=tags"),
        (tagging, {"data.source": "real"}, "data.source: must be auto or synthetic with task=bra"),
        (tagging, {"data.tokenizer": "words"}, "data.tokenizer: must be characters with task=bra"),
        (tagging, {"model.target": "label"}, "model.target: must be tags or next with task=bracke"),
        (tagging, {"task": "imdb"}, "model.target: must be label or next with task=imdb"),
        (tagging, {"model.target": "all"}, "model.target: 'all' must be one of label, tags, next"),
    ],
)
def test_outputs_per_token_name_what_they_need(module, changes, message):
    config = module.get_config()
    config_lib.check(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_lib.check(config)


def test_tags_may_be_read_in_both_directions():
    config = tagging.get_config()
    config.model.bidirectional = True
    config_lib.check(config)


def test_unknown_field_is_named_with_the_nearest_known_one():
    config = default.get_config()
    with config.unlocked():
        config.train.learning_rte = 1.0
    with pytest.raises(ConfigError, match=r"train\.learning_rte: .*mean train\.learning_rate\?"):
        config_lib.check(config)


def test_missing_field_is_named():
    config = default.get_config()
    del config.model.cell
    with pytest.raises(ConfigError, match=r"model\.cell: missing"):
        config_lib.check(config)
