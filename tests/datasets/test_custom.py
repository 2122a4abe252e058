"""Texts of one's own: every kind of source and tokenizer, and the mistakes in them."""

import csv
import itertools
import json
import os
import shutil
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import run

import flaxrnn
from configs import language_model
from configs import text as text_config
from flaxrnn import datasets
from flaxrnn.data import batching, corpora, tokenizers
from flaxrnn.data.vocabulary import FIRST_WORD, UNKNOWN, Vocabulary
from flaxrnn.datasets import custom
from flaxrnn.errors import ConfigError, DataError, WorkdirError

THINGS = ["영화", "음식", "서비스", "배우", "음악", "이야기", "화면", "자막"]
WHERE = ["어제 본", "이번에 만난", "친구와 함께한", "기대했던", "처음 접한", "소문난"]
SAYS = {
    "긍정": ["정말 훌륭했어요", "최고였습니다!", "아주 좋았다", "또 만나고 싶어요"],
    "부정": ["너무 지루했어요", "최악이었습니다…", "정말 별로였다", "돈이 아까워요"],
    "중립": ["그저 그랬어요", "보통이었습니다.", "나쁘지는 않다", "딱히 할 말이 없어요"],
}


def korean(n=360):
    """Texts in three classes, one in ten of which is said in no other text's words."""
    rng = np.random.default_rng(0)
    rows = [
        (f"{where} {thing}, {what}", label)
        for label, says in SAYS.items()
        for where, thing, what in itertools.product(WHERE, THINGS, says)
    ]
    return [rows[i] for i in rng.permutation(len(rows))[:n]]


def write_csv(path, rows, header=("text", "label"), encoding="utf-8", **options):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, **options).writerows([header, *rows])
    return path


def load(path, tmp_path, tokenizer="words", num_words=500, **fields):
    texts = corpora.CustomTexts(str(path), **fields)
    folder = str(tmp_path / "data")
    return corpora.load_corpus(
        "text", data_dir=folder, tokenizer=tokenizer, num_words=num_words, own=texts
    )


def texts_of(split, corpus):
    return [corpus.vocabulary.decode(ids) for ids in split.texts()]


def everything(corpus):
    """Decoded text and class of every example, in no order."""
    return sorted(
        (shown, corpus.label_names[label])
        for split in (corpus.train, corpus.test)
        for shown, label in zip(texts_of(split, corpus), split.labels, strict=True)
    )


def small_config(path, tmp_path, tokenizer="words"):
    config = text_config.get_config()
    config.data.update({"path": str(path), "data_dir": str(tmp_path / "data")})
    config.data.update({"tokenizer": tokenizer, "num_words": 300, "maxlen": 40, "max_padding": 1.0})
    config.model.update({"embedding_size": 16, "hidden_size": 16})
    config.train.update({"epochs": 8, "learning_rate": 0.01})
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
    assert "SYNTHETIC" not in capsys.readouterr().out

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


def test_a_loaded_vocabulary_gives_the_ids_of_the_run(tmp_path):
    texts = [row for row, _ in korean()]
    for kind in ("keras", "words", "characters", "subword"):
        tokenizer = tokenizers.Tokenizer(kind)
        if kind == "subword":
            tokenizer = tokenizers.Tokenizer.learn(texts, 200)
        vocabulary = Vocabulary.build(map(tokenizer, texts), tokenizer)
        vocabulary.save(tmp_path / "v.json")
        again = Vocabulary.load(tmp_path / "v.json")
        assert again.tokenizer == tokenizer
        for raw in (*texts[:5], "An UNSEEN café, don't!"):
            assert again.encode(again.tokenizer(raw)) == vocabulary.encode(tokenizer(raw))
    (tmp_path / "v.json").write_text('{"tokenizer": {"kind": "odd", "model": ""}, "words": []}')
    with pytest.raises(WorkdirError, match="no tokenizer is called 'odd'"):
        Vocabulary.load(tmp_path / "v.json")


def test_words_of_any_script():
    assert tokenizers.words("It\u2019s GOOD,\u3000“정말”　좋다。\u200b¡Sí! 5€") == [
        "it's", "good", "정말", "좋다", "sí", "5",
    ]  # fmt: skip
    assert tokenizers.words("좋아요😍❤️굿") == ["좋아요", "😍", "❤", "굿"]
    assert tokenizers.words("हिन्दी\u00a0में") == ["हिन्दी", "में"]
    assert tokenizers.words(unicodedata.normalize("NFD", "한국")) == ["한국"]
    assert tokenizers.Tokenizer("characters")(" 가  A\n!") == ["가", " ", "a", " ", "!"]
    assert tokenizers.words("\n …") == tokenizers.Tokenizer("characters")("\n ") == []


def test_subwords_share_pieces_and_stay_within_the_vocabulary():
    texts = [row for row, _ in korean()]
    tokenizer = tokenizers.Tokenizer.learn(texts, 150)
    vocabulary = Vocabulary.build(map(tokenizer, texts), tokenizer)
    assert 60 < len(vocabulary) <= 150 - FIRST_WORD
    assert "".join(tokenizer("최고였어요")).removeprefix("▁") == "최고였어요"
    assert UNKNOWN not in vocabulary.encode(tokenizer("최고였어요"))  # not a word of any text
    assert tokenizer("") == []
    assert tokenizers.Tokenizer.learn(texts, 150) == tokenizer
    with pytest.raises(DataError, match=r"data\.num_words: 20 is too few .* at least \d+"):
        tokenizers.Tokenizer.learn(texts, 20)
    needed = [row for row, _ in korean(40)]
    with pytest.raises(DataError) as caught:
        tokenizers.Tokenizer.learn(needed, 20)
    tokenizers.Tokenizer.learn(needed, int(str(caught.value).split()[-1]))


def test_subword_without_sentencepiece_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigError, match=r"pip install 'flaxrnn\[subword\]'"):
        tokenizers.Tokenizer.learn(["a b"], 50)


def test_tokenizer_is_read_for_the_book_s_corpora_too(tmp_path, monkeypatch):
    rows = [{"text": b"Oil\xc2\xa0prices ROSE!", "label": 0}, {"text": b"Oil fell", "label": 1}]
    features = {"label": SimpleNamespace(names=["up", "down"])}
    builder = SimpleNamespace(
        info=SimpleNamespace(full_name="tiny/1.0.0", features=features),
        data_dir=tmp_path / "tiny" / "1.0.0",
        as_data_source=lambda split: rows * 50,
    )
    monkeypatch.setattr(datasets, "prepare", lambda *_: builder)
    found = {}
    for _ in range(2):  # from the cache, too
        for kind in tokenizers.TOKENIZERS:
            corpus = corpora.load_corpus("reuters", tokenizer=kind, num_words=40)
            found[kind] = corpus.vocabulary
        assert found["words"].tokenizer.kind == "keras"  # to which U+00A0 is no space
        assert found["words"].words == ["oil\u00a0prices", "rose", "oil", "fell"]
        assert max(map(len, found["characters"].words)) == 1
        assert "".join(found["subword"].tokenizer("oil fell")) == "▁oil▁fell"
        builder.as_data_source = lambda split: pytest.fail("a text was read")
    assert len(list(tmp_path.glob("encoded/*"))) == 3


# Sources


ROWS = [
    (f"{a} {b}", "up" if a == "good" else "down") for a in ("good", "bad") for b in "abcdefghij"
]


def test_every_kind_of_source_gives_the_same_texts(tmp_path):
    write_csv(tmp_path / "a.csv", ROWS)
    write_csv(tmp_path / "bom.CSV", ROWS, encoding="utf-8-sig", lineterminator="\n")
    write_csv(tmp_path / "a.tsv", ROWS, delimiter="\t")
    write_csv(tmp_path / "columns.csv", [(7, y, x) for x, y in ROWS], ("id", " kind", "body "))
    lines = [json.dumps({"label": label, "text": raw}) for raw, label in ROWS]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "", ""]))
    for i, (raw, label) in enumerate(ROWS):
        folder = tmp_path / "folder" / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(raw)
    (tmp_path / "folder" / ".git").mkdir()
    shutil.copytree(tmp_path / "folder", tmp_path / "only" / "train")
    for name in ("a.csv", "bom.CSV", "a.tsv", "a.jsonl", "folder", "only"):
        corpus = load(tmp_path / name, tmp_path)
        assert corpus.name == name
        assert corpus.label_names == ["down", "up"]
        assert everything(corpus) != []
        assert len(corpus.test) == 2
        known = {word for shown in texts_of(corpus.train, corpus) for word in shown.split()}
        assert set(corpus.vocabulary.words) == known  # and none that only the test has
        assert Counter(label for _, label in everything(corpus)) == {"up": 10, "down": 10}
    corpus = load(tmp_path / "columns.csv", tmp_path, text_field="body", label_field="kind")
    assert everything(corpus) == everything(load(tmp_path / "a.csv", tmp_path))


def test_texts_of_any_length_and_with_line_breaks(tmp_path):
    rows = [('one\ntwo, "three"', "a"), ("x " * 100_000, "a"), ("y", "b"), ("z", "b")] * 2
    corpus = load(write_csv(tmp_path / "a.csv", rows), tmp_path, test_fraction=0.2)
    assert ("one two three", "a") in everything(corpus)
    assert max(corpus.train.lengths) == 100_001
    (tmp_path / "b.tsv").write_text('text\tlabel\n"so\ta\nit\'s "so\ta\nno\tb\noh\tb\n')
    assert ("it's so", "a") in everything(load(tmp_path / "b.tsv", tmp_path, test_fraction=0.3))


def test_splits_of_the_source_are_kept(tmp_path):
    rows = [(raw, label, "test" if raw[-1] in "abc" else "train") for raw, label in ROWS]
    write_csv(tmp_path / "a.csv", rows, ("text", "label", "split"))
    lines = [json.dumps({"text": t, "label": y, "split": s}) for t, y, s in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for i, (raw, label, split) in enumerate(rows):
        folder = tmp_path / "folder" / split / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(raw)
    for name in ("a.csv", "a.jsonl", "folder"):
        corpus = load(tmp_path / name, tmp_path)
        assert (len(corpus.train), len(corpus.test)) == (14, 6)
        assert sorted(corpus.vocabulary.words) == sorted(["good", "bad", *"defghij"])
        assert set(texts_of(corpus.test, corpus)) == {"good ?", "bad ?"}


class TinyNotes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=name) for name in ("plain", "unlabelled", "broken")
    ]

    def _info(self):
        label = tfds.features.ClassLabel(names=["up", "down"])
        features = tfds.features.FeaturesDict({"note": tfds.features.Text(), "kind": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        if self.builder_config.name == "broken":
            raise ModuleNotFoundError("No module named 'tensorflow'")
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        hidden = split == "test" and self.builder_config.name == "unlabelled"
        for i, (raw, label) in enumerate(ROWS):
            yield i, {"note": f"{raw} {split}", "kind": -1 if hidden else label}


def test_tfds_dataset_by_name(tmp_path, capfd):
    fields = {"text_field": "note", "label_field": "kind"}
    corpus = load("tiny_notes", tmp_path, **fields)
    assert corpus.name == "tiny_notes/plain/1.0.0"
    assert corpus.label_names == ["down", "up"]
    assert (len(corpus.train), len(corpus.test)) == (20, 20)
    corpus = load("tiny_notes/unlabelled", tmp_path, **fields)
    assert (len(corpus.train), len(corpus.test)) == (18, 2)
    for name, wanted in (
        ("tiny_notes", r"data\.text_field: tiny_notes has no feature 'text', it has note, kind"),
        ("tiny_notes/broken", r"tiny_notes/broken cannot be had here without TensorFlow: No mod"),
        ("tiny_nots", r"data\.path: there is no file, no folder and no TFDS dataset tiny_nots"),
    ):
        with pytest.raises(DataError, match=wanted) as caught:
            load(name, tmp_path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_without_classes_any_texts_do(tmp_path, capsys):
    """For a language model: lines, files, or a table whose labels are not looked at."""
    write_csv(tmp_path / "a.csv", [(raw,) for raw, _ in ROWS], ("text",))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": raw}) for raw, _ in ROWS))
    (tmp_path / "a.txt").write_text("\n \n".join(raw for raw, _ in ROWS))
    for i, (raw, label) in enumerate(ROWS):
        folder = tmp_path / "folder" / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(raw)
    for name in ("a.csv", "a.jsonl", "a.txt", "folder"):
        corpus = load(tmp_path / name, tmp_path, label_field=None)
        assert corpus.label_names == [""]
        assert (len(corpus.train), len(corpus.test)) == (18, 2)
        assert set(corpus.vocabulary.words) <= {"good", "bad", *"abcdefghij"}
    told = ": 18 texts to train on, 2 to test\n"
    assert capsys.readouterr().err == f"a.csv{told}a.jsonl{told}a.txt{told}folder{told}"
    (tmp_path / "one.txt").write_text("alone")
    with pytest.raises(DataError, match=r"one\.txt: there is a single text, not two"):
        load(tmp_path / "one.txt", tmp_path, label_field=None)
    with pytest.raises(DataError, match=r"a\.txt must end in \.csv, \.tsv or \.jsonl, or be a"):
        load(tmp_path / "a.txt", tmp_path)


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


# Splits


def test_test_and_validation_are_stratified_by_the_seed_alone(tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"a": 300, "b": 90, "c": 30}
    rows = [(f"{label} {i}", label) for label in sizes for i in range(sizes[label])]
    path = write_csv(tmp_path / "a.csv", rows)  # sorted by class
    corpus = load(path, tmp_path, test_fraction=0.2)
    training_data = batching.prepare_data(
        corpus,
        num_words=500,
        maxlen=5,
        padding="post",
        max_padding=1.0,
        validation="train",
        validation_fraction=0.25,
    )
    parts = {name: training_data.texts.take(rows) for name, rows in training_data.rows.items()}
    for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        counts = np.bincount(parts[split].labels)
        assert sum(counts) == 420 * share
        np.testing.assert_allclose(counts, np.array([300, 90, 30]) * share, atol=1)

    def test_texts(seed):
        corpus = load(path, tmp_path, seed=seed)
        return everything(corpus), [*corpus.train.ids], Counter(corpus.test.labels.tolist())

    first = test_texts(3)
    (tmp_path / "data").rename(tmp_path / "elsewhere")  # not from the cache
    assert test_texts(3) == first
    assert test_texts(4)[1] != first[1]
    assert test_texts(4)[2] == first[2]
    order = custom.stratified_order([label for _, label in rows], int(rng.integers(100)))
    assert sorted(order) == list(range(420))


# Cache


def test_changed_file_is_read_anew_and_an_unchanged_one_is_not(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", ROWS)
    first = load(path, tmp_path)
    stamp = path.stat()
    with monkeypatch.context() as patch:
        patch.setattr(custom.csv, "reader", lambda *_, **__: pytest.fail("the file was parsed"))
        again = load(path, tmp_path)
        np.testing.assert_array_equal(first.train.ids, again.train.ids)
        assert again.label_names == first.label_names
        assert again.vocabulary.words == first.vocabulary.words
    for options in (
        {"seed": 1},
        {"test_fraction": 0.5},
        {"tokenizer": "characters"},
        {"tokenizer": "subword", "num_words": 30},
        {"tokenizer": "subword", "num_words": 31},
    ):
        with monkeypatch.context() as patch:
            patch.setattr(custom.csv, "reader", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                load(path, tmp_path, **options)
        load(path, tmp_path, **options)
    with pytest.raises(DataError, match="has a single text"):
        load(path, tmp_path, text_field="label", label_field="text")
    path.write_text(path.read_text().replace("good", "fine"), newline="\r\n")  # as long, and as old
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size
    changed = load(path, tmp_path)
    assert "fine" in changed.vocabulary.words
    assert "good" not in changed.vocabulary.words


def test_damaged_cache_is_made_anew(tmp_path):
    path = write_csv(tmp_path / "a.csv", korean(60))
    first = load(path, tmp_path, "subword", 200)
    (file,) = tmp_path.glob("data/encoded/text-*/arrays.safetensors")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = load(path, tmp_path, "subword", 200)
    np.testing.assert_array_equal(first.train.ids, again.train.ids)
    assert again.vocabulary.tokenizer == first.vocabulary.tokenizer
    assert file.read_bytes() != content


# Mistakes


GOOD = "text,label\ngood a,up\ngood b,up\nbad a,down\nbad b,down\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "data.path: a.csv is empty"),
        ("a.csv", "\ufeff\n \n", "data.path: a.csv is empty"),
        ("a.jsonl", " \n", "data.path: a.jsonl is empty"),
        ("a.csv", "text,label\n", "data.path: a.csv has a header, but no row below it"),
        ("a.csv", "text,stars\nx,1\n", "data.label_field: a.csv has no column 'label', it has"),
        ("a.csv", "body,label\nx,1\n", "data.text_field: a.csv has no column 'text', it has"),
        ("a.csv", GOOD + "alone\n", "data.path: a.csv: line 6: 1 fields, but the header has 2"),
        ("a.csv", GOOD + "a,b,up\n", "data.path: a.csv: line 6: 3 fields, but the header has 2"),
        ("a.csv", GOOD + '"x\ny",up\nx\n', "data.path: a.csv: line 8: 1 fields, but"),
        ("a.csv", GOOD + '"open,up\nx,up\n', "data.path: a.csv: line 6: a quotation mark opens"),
        ("a.csv", GOOD + '"a"b,up\n', "data.path: a.csv: line 6: ',' expected after '\"'"),
        ("a.csv", GOOD + "x, \n", "data.path: a.csv: line 6: label is empty"),
        ("a.csv", GOOD + "x\0y,up\n", "data.path: a.csv: line 6: byte 54 is NUL, which no"),
        ("a.csv", GOOD.encode() + b"\xc1\xc1,up\n", "a.csv: line 6: byte 53 (0xc1) is not UTF-8"),
        (
            "a.csv",
            b"\xef\xbb\xbf" + GOOD.encode() + b"ab\xff,up\n",
            "data.path: a.csv: line 6: byte 58 (0xff) is not UTF-8; save it as UTF-8",
        ),
        ("a.csv", GOOD.encode("utf-16"), "data.path: a.csv: line 1: byte 0 (0xff) is not UTF-8"),
        ("a.csv", GOOD.replace("down", "up"), "a.csv: texts of two classes are needed; all"),
        ("a.csv", "text,label\n.,up\n", "a.csv: texts of two classes are needed; none is left"),
        ("a.csv", GOOD + "x,odd\n", "data.path: a.csv: the class 'odd' has a single text, not two"),
        ("a.csv", GOOD, "data.test_fraction: 0.1 of 4 texts leaves none to test with"),
        ("a.csv", "text,label,split\nx,up,dev\n", "line 2: split must be train or test, not 'dev'"),
        (
            "a.csv",
            "text,label,split\na,up,train\nb,up,train\nc,down,train\nd,down,train\n",
            "data.path: a.csv: no text is in the split test",
        ),
        (
            "a.csv",
            "text,label,split\na,up,train\nb,up,train\nc,down,test\nd,down,test\n",
            "data.path: a.csv: the class 'down' has no text in train",
        ),
        ("a.jsonl", '{"text": "x"}\n', "data.label_field: a.jsonl: line 1 has no key 'label'"),
        ("a.jsonl", "\n{nope}\n", "data.path: a.jsonl: line 2: no JSON (Expecting property name"),
        ("a.jsonl", "[1]\n", "data.path: a.jsonl: line 1: must be an object with keys"),
        ("a.jsonl", '{"text": 5, "label": "a"}', "line 1: text must be a string, not 5"),
        ("a.jsonl", '{"text": "x", "label": 1.5}', "label must be a string or a whole number"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}', "line 1: half a surrogate pair"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1, "split": "train"}\n{"text": "b", "label": 1}\n'
            '{"text": "a", "label": 2}\n{"text": "b", "label": 2}\n',
            "data.path: a.jsonl: some texts are in a split, others in none",
        ),
        ("a.xlsx", "PK", "data.path: a.xlsx must end in .csv, .tsv or .jsonl, or be a folder"),
        ("up/a.txt", b"\xff", "data.path: {folder}/up/a.txt: line 1: byte 0 (0xff) is not UTF-8"),
        ("up/a.csv", "", "data.path: {folder}/up holds no .txt file"),
        ("up/a.txt", "x", "texts of two classes are needed; all have the same, 'up'"),
        (".hidden/a.txt", "x", "data.path: {folder} holds no folder; it must have one"),
        ("train/a.txt", "x", "data.path: {folder}/train holds no folder; it must have one of"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_source_is_named(name, content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    asked = name if path.parent == tmp_path else tmp_path
    with pytest.raises(DataError) as caught:
        load(asked, tmp_path / "elsewhere")
    assert message.format(folder=tmp_path) in str(caught.value)
    assert str(caught.value).startswith("data.")
    assert "\n" not in str(caught.value)


def test_what_is_read_is_told_and_empty_texts_are_left_out(tmp_path, capsys):
    path = write_csv(tmp_path / "a.csv", [*ROWS, ("", "up"), (" … ", "odd"), ("\u200b", "up")])
    told = ": 18 texts to train on, 2 to test, 2 classes: down, up"
    for _ in range(2):  # also from the cache
        corpus = load(path, tmp_path)
        assert len(corpus.train) + len(corpus.test) == 20
        assert capsys.readouterr().err == f"a.csv{told}; 3 without a word left out\n"
    load(write_csv(tmp_path / "b.csv", ROWS), tmp_path)
    assert capsys.readouterr().err == f"b.csv{told}\n"


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
        load(path, tmp_path)


def test_load_corpus_asks_for_the_path():
    with pytest.raises(ConfigError, match=r"data\.path: missing"):
        flaxrnn.load_data("text")
    with pytest.raises(ConfigError, match=r"data\.tokenizer: 'bpe' is not one of words, char"):
        corpora.load_corpus("imdb", tokenizer="bpe")
