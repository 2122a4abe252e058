"""Custom texts: every kind of source, and a run on them."""

import json
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import ROWS, everything, korean, load_custom, run, texts_of, write_csv

import flaxrnn
from configs import language_model
from configs import text as text_config
from flaxrnn.config import DataConfig
from flaxrnn.datasets.reading import Format
from flaxrnn.errors import DataError
from flaxrnn.training.texts import prepare_data


def small_config(path, tmp_path, tokenizer="words"):
    config = text_config.get_config()
    config.data.update({"path": str(path), "data_dir": str(tmp_path / "data")})
    config.data.update({"tokenizer": tokenizer, "num_words": 300, "maxlen": 40, "max_padding": 1.0})
    config.model.update({"embedding_size": 16, "hidden_size": 16})
    config.train.update({"epochs": 8, "learning_rate": 0.01, "explain": False})
    return config


@pytest.mark.parametrize("tokenizer", ["words", "characters", "subword"])
def test_korean_csv_is_learned_and_predicted(tokenizer, tmp_path, capsys):
    path = write_csv(tmp_path / "reviews.csv", korean())
    result = flaxrnn.train(small_config(path, tmp_path, tokenizer), tmp_path / "run")
    assert result["task"] == "text"
    assert result["dataset"] == "reviews.csv"
    assert result["data_source"] == "real"
    assert result["test_examples"] == 36
    assert result["test_accuracy"] > 0.9
    assert result["baseline"]["test_accuracy"] > 0.9
    shown = capsys.readouterr().out
    assert "SYNTHETIC" not in shown
    before, after = shown.split("compiling…\n")
    assert "  classes     3: " in before
    assert "  scripts     Hangul 100%\n" in before
    assert "(data.num_words=300)\n" in before
    assert "\n  mistakes    " in after
    assert after.endswith(f"flaxrnn.predict --workdir {tmp_path / 'run'} 'A new text.'\n")
    assert "Hangul 100%" in (tmp_path / "run" / "report.html").read_text("utf-8")

    kept = json.loads((tmp_path / "run" / "vocabulary.json").read_text("utf-8"))
    assert kept["tokenizer"]["kind"] == tokenizer
    classifier = flaxrnn.load(tmp_path / "run")
    assert classifier.label_names == ["긍정", "부정", "중립"]
    asked = [
        "어제 본 자막, 최고였습니다!",
        "소문난 음식, 정말 별로였다",
        "기대했던 배우, 나쁘지는 않다",
    ]
    assert classifier.predict(asked)[0] == ["긍정", "부정", "중립"]
    apart = [unicodedata.normalize("NFD", asked[0])]
    np.testing.assert_array_equal(classifier.predict(apart)[1], classifier.predict(asked[:1])[1])


def test_every_kind_of_source_gives_the_same_texts(tmp_path):
    write_csv(tmp_path / "a.csv", ROWS)
    write_csv(tmp_path / "bom.CSV", ROWS, encoding="utf-8-sig", lineterminator="\n")
    write_csv(tmp_path / "a.tsv", ROWS, delimiter="\t")
    write_csv(tmp_path / "columns.csv", [(7, y, x) for x, y in ROWS], ("id", " kind", "body "))
    lines = [json.dumps({"label": label, "text": raw}) for raw, label in ROWS]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "", ""]))
    write_folder(tmp_path / "folder", ROWS)
    (tmp_path / "folder" / ".git").mkdir()
    shutil.copytree(tmp_path / "folder", tmp_path / "only" / "train")
    for name in ("a.csv", "bom.CSV", "a.tsv", "a.jsonl", "folder", "only"):
        corpus = load_custom(tmp_path / name, tmp_path)
        assert corpus.name == name
        assert corpus.label_names == ["down", "up"]
        assert everything(corpus) != []
        assert len(corpus.test) == 2
        known = {word for shown in texts_of(corpus.train, corpus) for word in shown.split()}
        assert set(corpus.vocabulary.words) == known  # and none that only the test has
        assert Counter(label for _, label in everything(corpus)) == {"up": 10, "down": 10}
    corpus = load_custom(tmp_path / "columns.csv", tmp_path, text_field="body", label_field="kind")
    assert everything(corpus) == everything(load_custom(tmp_path / "a.csv", tmp_path))


def test_folders_as_other_systems_leave_them(tmp_path):
    write_folder(tmp_path / "plain", ROWS)
    shutil.copytree(tmp_path / "plain", tmp_path / "upper")
    shutil.copytree(tmp_path / "plain", tmp_path / "bare")
    shutil.copytree(tmp_path / "plain" / "up", tmp_path / "upper" / "__MACOSX")
    for path in (tmp_path / "upper").rglob("*.txt"):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")  # of macOS
        path.rename(path.with_suffix(".TXT"))
    (tmp_path / "upper" / "up" / "README").write_text("not a text")
    for path in (tmp_path / "bare").rglob("*.txt"):
        path.rename(path.with_suffix(""))
    expected = everything(load_custom(tmp_path / "plain", tmp_path))
    assert len(expected) == 20
    for name in ("upper", "bare"):
        assert everything(load_custom(tmp_path / name, tmp_path)) == expected
    unlabelled = load_custom(tmp_path / "upper", tmp_path, label_field=None)
    assert len(everything(unlabelled)) == 20
    (tmp_path / "plain" / "up" / "0.txt").rename(tmp_path / "plain" / "up" / "0.doc")
    assert len(everything(load_custom(tmp_path / "plain", tmp_path))) == 19


def write_folder(root, rows):
    """One file per text; a row has a text, a class and, perhaps, a split."""
    for i, (raw, label, *split) in enumerate(rows):
        folder = root.joinpath(*split, label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(raw)


@pytest.mark.parametrize("validation", ["val", "validation", "dev", " Valid "])
def test_splits_of_the_source_are_kept(validation, tmp_path):
    splits = {"a": "test", "b": "test", "c": validation}
    rows = [(raw, label, splits.get(raw[-1], "train")) for raw, label in ROWS]
    write_csv(tmp_path / "a.csv", rows, ("text", "label", "split"))
    lines = [json.dumps({"text": t, "label": y, "split": s}) for t, y, s in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    write_folder(tmp_path / "folder", [(t, y, s.strip()) for t, y, s in rows])
    for name in ("train", "test", validation):
        write_csv(
            tmp_path / f"{name}.csv",
            [row for row in rows if row[2] == name],
            "text label x".split(),
        )
    apart = {"test_path": str(tmp_path / "test.csv")}
    apart["validation_path"] = str(tmp_path / f"{validation}.csv")
    for name, paths in [("a.csv", {}), ("a.jsonl", {}), ("folder", {}), ("train.csv", apart)]:
        corpus = load_custom(tmp_path / name, tmp_path, **paths)
        assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (14, 2, 4)
        assert sorted(corpus.vocabulary.words) == sorted(["good", "bad", *"defghij"])
        assert set(texts_of(corpus.validation, corpus)) == {"good ?", "bad ?"}
        data = prepare_data(corpus, DataConfig(num_words=500, validation="stratified"), seed=0)
        assert [len(data.rows[split]) for split in ("train", "val", "test")] == [14, 2, 4]
        for split, texts in (("val", corpus.validation), ("test", corpus.test)):
            np.testing.assert_array_equal(data.texts.take(data.rows[split]).ids, texts.ids)
        data = prepare_data(corpus, DataConfig(num_words=500, validation="test"), seed=0)
        np.testing.assert_array_equal(data.rows["val"], data.rows["test"])


def test_without_a_test_split_of_its_own_it_is_drawn_from_train(tmp_path, capsys):
    rows = [(raw, label, "val" if raw[-1] == "c" else "train") for raw, label in ROWS]
    write_folder(tmp_path / "folder", rows)
    (tmp_path / "folder" / "notes").mkdir()
    corpus = load_custom(tmp_path / "folder", tmp_path)
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (16, 2, 2)
    assert set(texts_of(corpus.validation, corpus)) == {"good ?", "bad ?"}
    assert f"warning: {tmp_path / 'folder'}: not read: notes\n" in capsys.readouterr().err


def test_a_folder_in_another_encoding(tmp_path):
    for label, text in (("a", "좋다"), ("b", "별로")):
        for i in range(6):
            path = tmp_path / "folder" / label / f"{i}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{text} {i}".encode("cp949"))
    with pytest.raises(DataError, match=r"0\.txt: line 1: byte 0 .*data\.encoding \(cp949 fits\)"):
        load_custom(tmp_path / "folder", tmp_path)
    corpus = load_custom(tmp_path / "folder", tmp_path, format=Format("cp949"))
    assert {"좋다", "별로"} <= set(corpus.vocabulary.words)


def test_files_of_splits_are_named_in_errors(tmp_path):
    path = write_csv(
        tmp_path / "a.csv", [(*row, "test") for row in ROWS], ("text", "label", "split")
    )
    for paths, message in [
        ({"test_path": str(path)}, r"data\.test_path: a\.csv has texts in the split test, too"),
        ({"validation_path": "b.csv"}, r"data\.validation_path: there is no file or folder b\.csv"),
        ({"validation_path": str(write_csv(tmp_path / "c.csv", [("x", "")]))},
         r"data\.validation_path: .*c\.csv: line 2: label is empty"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=message):
            load_custom(path, tmp_path, **paths)


class TinyNotes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=name)
        for name in ("plain", "unlabelled", "validated", "broken")
    ]

    def _info(self):
        label = tfds.features.ClassLabel(names=["up", "down"])
        features = tfds.features.FeaturesDict({"note": tfds.features.Text(), "kind": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        if self.builder_config.name == "broken":
            raise ModuleNotFoundError("No module named 'tensorflow'")
        splits = ["train", "test"]
        if self.builder_config.name == "validated":
            splits = ["train", "validation", "validation_of_others"]
        return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split):
        hidden = split == "test" and self.builder_config.name == "unlabelled"
        for i, (raw, label) in enumerate(ROWS):
            yield i, {"note": f"{raw} {split}", "kind": -1 if hidden else label}


def test_tfds_dataset_by_name(tmp_path, capfd):
    fields = {"text_field": "note", "label_field": "kind"}
    corpus = load_custom("tiny_notes", tmp_path, **fields)
    assert corpus.name == "tiny_notes/plain/1.0.0"
    assert corpus.label_names == ["down", "up"]
    assert (len(corpus.train), len(corpus.test)) == (20, 20)
    corpus = load_custom("tiny_notes/unlabelled", tmp_path, **fields)
    assert (len(corpus.train), len(corpus.test)) == (18, 2)
    assert "not read" not in capfd.readouterr().err
    corpus = load_custom("tiny_notes/validated", tmp_path, **fields)
    told = "warning: tiny_notes/validated: not read: validation_of_others\n"
    assert told in capfd.readouterr().err
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (18, 20, 2)
    for name, wanted in (
        ("tiny_notes", r"data\.text_field: tiny_notes has no feature 'text'; it has note, kind"),
        ("tiny_notes/broken", r"broken cannot be used without TensorFlow: ModuleNotFoundE"),
        ("tiny_notes/plan", r"tiny_notes has no config plan; it has plain, unlabelled, valida"),
        ("tiny_nots", r"data\.path: there is no file, no folder and no TFDS dataset tiny_nots"),
    ):
        with pytest.raises(DataError, match=wanted) as caught:
            load_custom(name, tmp_path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_without_classes_any_texts_do(tmp_path, capsys):
    """For a language model: lines, files, or a table whose labels are not looked at."""
    write_csv(tmp_path / "a.csv", [(raw,) for raw, _ in ROWS], ("text",))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": raw}) for raw, _ in ROWS))
    (tmp_path / "a.txt").write_text("\n \n".join(raw for raw, _ in ROWS))
    write_folder(tmp_path / "folder", ROWS)
    for name in ("a.csv", "a.jsonl", "a.txt", "folder"):
        corpus = load_custom(tmp_path / name, tmp_path, label_field=None)
        assert corpus.label_names == [""]
        assert (len(corpus.train), len(corpus.test)) == (18, 2)
        assert set(corpus.vocabulary.words) <= {"good", "bad", *"abcdefghij"}
    told = ": 18 texts to train on, 2 to test\n"
    assert capsys.readouterr().err == f"a.csv{told}a.jsonl{told}a.txt{told}folder{told}"
    (tmp_path / "one.txt").write_text("alone")
    with pytest.raises(DataError, match=r"one\.txt: there is a single text, not two"):
        load_custom(tmp_path / "one.txt", tmp_path, label_field=None)
    with pytest.raises(DataError, match=r"a\.txt: line 1: has no class; write __label__CLASS"):
        load_custom(tmp_path / "a.txt", tmp_path)


def test_lines_train_a_language_model(tmp_path):
    (tmp_path / "a.txt").write_text("ab ab ab ab\nba ba ba ba\n" * 100)
    config = language_model.get_config("text")
    config.data.update({"path": str(tmp_path / "a.txt"), "data_dir": str(tmp_path / "data")})
    config.model.update({"embedding_size": 8, "hidden_size": 32})
    config.train.update({"epochs": 15, "batch_size": 8, "learning_rate": 0.02})
    result = flaxrnn.train(config, tmp_path / "run")
    ids = 7  # of two letters and the space, and the special ones: not of data.num_words
    assert result["parameters"] == 8 * ids + (8 + 32 + 1) * 4 * 32 + (32 + 1) * ids
    assert result["test_accuracy"] > 0.9  # the first letter of a text cannot be known
    texts = flaxrnn.load(tmp_path / "run").generate(["a", "b"], temperature=0)
    assert texts == ["ab ab ab ab", "ba ba ba ba"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", "PK", "data.path: a.xlsx must end in .csv, .tsv, .json, .jsonl, .txt or .par"),
        ("a.csv", "", "data.path: a.csv is empty"),
        ("up/a.txt", b"\xff", "data.path: {folder}/up/a.txt: line 1: byte 0 (0xff) is not UTF-8"),
        ("up/a.csv", "", "data.path: {folder}/up holds no .txt file"),
        ("up/a.txt", "x", "texts of two classes are needed; all have the same, 'up'"),
        (".hidden/a.txt", "x", "data.path: {folder} holds no folder; it must have one"),
        ("train/a.txt", "x", "data.path: {folder}/train holds no folder; it must have one"),
    ],
)  # fmt: skip
def test_mistake_in_a_source_is_named(name, content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    asked = name if path.parent == tmp_path else tmp_path
    with pytest.raises(DataError) as caught:
        load_custom(asked, tmp_path / "elsewhere")
    assert message.format(folder=tmp_path) in str(caught.value)
    assert str(caught.value).startswith("data.")
    assert "\n" not in str(caught.value)


def test_a_mistaken_command_is_one_line_and_leaves_no_workdir(tmp_path):
    command = ["--config", "configs/text.py", f"--workdir={tmp_path / 'runs' / 'a'}"]
    done = run(*command, f"--config.data.path={tmp_path / 'b.csv'}")
    assert done.returncode == 2
    assert done.stderr == f"error: data.path: there is no file or folder {tmp_path / 'b.csv'}\n"
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


def test_unreadable_file_is_named(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", ROWS)

    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(DataError, match=r"data\.path: .*a\.csv cannot be read \(Permission den"):
        load_custom(path, tmp_path)
