"""Tasks by name, and custom datasets, named by `module:Builder`."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

import flaxrnn
from flaxrnn.data import corpora, tokenizers
from flaxrnn.datasets import registry
from flaxrnn.errors import ConfigError, DataError


class Notes(tfds.core.GeneratorBasedBuilder):
    """Four notes to train on, and two to test on whose words train does not have."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES = {  # noqa: RUF012
        "text": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["up", "down"]),
    }
    NOTES = {"train": ["“Oil” rose", "oil fell"] * 2, "test": ["Gas rose", "gas fell"]}  # noqa: RUF012

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(notes) for split, notes in self.NOTES.items()}

    def _generate_examples(self, notes):
        for i, note in enumerate(notes):
            yield i, {"text": note, "label": ["up", "down"][i % 2]}


class Variants(Notes):
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("plain", "odd")]  # noqa: RUF012


class Stars(Notes):
    FEATURES = {"text": tfds.features.Text(), "stars": np.int64}  # noqa: RUF012


class Number(Notes):
    FEATURES = {**Notes.FEATURES, "label": np.int64}  # noqa: RUF012


class TrainOnly(Notes):
    NOTES = {"train": Notes.NOTES["train"]}  # noqa: RUF012


class Latin(Notes):
    NOTES = {**Notes.NOTES, "test": [b"caf\xe9"]}  # noqa: RUF012


class Unlabelled(Notes):
    def _generate_examples(self, notes):
        for i, note in enumerate(notes):
            yield i, {"text": note, "label": -1}


class Mistaken(Notes):
    def _generate_examples(self, notes):
        for i, note in enumerate(notes):
            yield i, {"text": note * 100, "label": "sideways"}


class NoFile(Notes):
    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(open("/no/such/file"))}


class Manual(Notes):
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put notes.txt\nthere"

    def _split_generators(self, dl_manager):
        notes = (dl_manager.manual_dir / "notes.txt").read_text().splitlines()
        return {split: self._generate_examples(notes) for split in ("train", "test")}


def load(name, tmp_path, source="auto", **options):
    return corpora.load_corpus(f"test_registry:{name}", source, str(tmp_path / "data"), **options)


@pytest.mark.parametrize("source", ["auto", "real"])
def test_custom_dataset(source, tmp_path, monkeypatch):
    corpus = load("Notes", tmp_path, source)
    assert (corpus.name, corpus.synthetic) == ("notes/1.0.0", False)
    assert corpus.label_names == ["up", "down"]
    assert corpus.vocabulary.words == ["oil", "rose", "fell"]  # of train; “ and ” separate words
    assert [ids.tolist() for ids in corpus.test.texts()] == [[1, 2, 5], [1, 2, 6]]
    assert corpus.test.labels.tolist() == [0, 1]

    monkeypatch.setattr(tokenizers.Tokenizer, "__call__", lambda *_: pytest.fail("a text was read"))
    again = load("Notes", tmp_path, source)
    np.testing.assert_array_equal(again.train.ids, corpus.train.ids)


def test_custom_dataset_in_the_format_of_keras(tmp_path):
    (x_train, y_train), (x_test, _) = flaxrnn.load_data(
        "test_registry:Notes", maxlen=4, data_dir=str(tmp_path)
    )
    assert x_train[:2].tolist() == [[0, 1, 4, 5], [0, 1, 4, 6]]
    assert y_train.tolist() == [0, 1, 0, 1]
    assert x_test.shape == (2, 4)


def test_cache_follows_the_content_of_a_dataset(tmp_path, monkeypatch):
    load("Notes", tmp_path)
    monkeypatch.setattr(Notes, "NOTES", {**Notes.NOTES, "train": ["it rained", "it froze"]})
    assert load("Notes", tmp_path).vocabulary.words[0] == "oil"  # still the prepared dataset
    shutil.rmtree(tmp_path / "data" / "notes")
    assert load("Notes", tmp_path).vocabulary.words == ["it", "rained", "froze"]


def test_damaged_dataset_of_a_default_config_is_prepared_again(tmp_path, capsys):
    first = load("Variants", tmp_path)
    assert first.name == "variants/plain/1.0.0"
    (file,) = (tmp_path / "data").glob("variants/plain/1.0.0/*train*")
    file.write_bytes(file.read_bytes()[:-1])
    np.testing.assert_array_equal(load("Variants", tmp_path).train.ids, first.train.ids)
    assert f"{file.name} is damaged; preparing it again" in capsys.readouterr().err


def test_builder_may_read_the_manual_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAXRNN_MANUAL_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"notes\.txt"):
        load("Manual", tmp_path)
    (tmp_path / "notes.txt").write_text("it rained\nit froze")
    assert load("Manual", tmp_path).vocabulary.words == ["it", "rained", "froze"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Stars", "has no feature 'label' of type ClassLabel; it has text, stars"),
        ("Number", "has no feature 'label' of type ClassLabel; it has text, label"),
        ("TrainOnly", "has no split 'test'; it has train"),
        ("Latin", "has a text that is not UTF-8"),
        ("Unlabelled", "has a text without a label in train"),
        ("Mistaken", "cannot be prepared: RuntimeError: Failed to .* …; KeyError: 'sideways'"),
        ("NoFile", "cannot be prepared: FileNotFoundError: .*'/no/such/file'"),
        ("Manual", "cannot be prepared: AssertionError: Manual directory .* does not exist"),
    ],
)  # fmt: skip
def test_mistake_in_a_builder_is_one_line(name, message, tmp_path, monkeypatch):
    monkeypatch.delenv("FLAXRNN_MANUAL_DIR", raising=False)
    with pytest.raises(DataError, match=f"^task: test_registry:{name} {message}") as caught:
        load(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("task", "source", "message"),
    [
        (
            "mnist",
            "auto",
            "task: 'mnist' is not one of reuters, reuters_clean, imdb, brackets, text",
        ),
        ("no_such:Builder", "auto", "task: no_such cannot be imported: No module named 'no_such'"),
        (
            "test_registry:Other",
            "auto",
            "task: test_registry has no subclass of GeneratorBasedBuilder named 'Other'",
        ),
        (
            "test_registry:load",
            "auto",
            "task: test_registry has no subclass of GeneratorBasedBuilder named 'load'",
        ),
        (
            "test_registry:Notes",
            "synthetic",
            "data.source: must be auto or real with task=test_registry:Notes, which has no synth",
        ),
    ],
)
def test_impossible_task_is_refused_in_one_line(task, source, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        corpora.load_corpus(task, source, str(tmp_path))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_names_are_those_of_the_tasks():
    assert [registry.get_task(name).name for name in registry.TASKS] == [*registry.TASKS]
