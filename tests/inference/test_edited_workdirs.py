"""Whatever is edited or exchanged in a workdir is named in one line, and not used."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
from helpers import WORDS, korean, saved_seeds, saved_workdir, shrink, write_csv

import flaxrnn
from configs import imdb
from configs import text as text_config
from flaxrnn import compare
from flaxrnn.errors import FlaxrnnError, WorkdirError
from flaxrnn.runtime import files
from flaxrnn.training import seal

pytestmark = pytest.mark.usefixtures("no_plots")

DEEP = "[" * 5_000 + "]" * 5_000


def with_field(name, value):
    """An edit of one field of config.json, given with dots."""

    def edit(text):
        content = json.loads(text)
        group, _, key = name.rpartition(".")
        (content[group] if group else content)[key] = value
        return json.dumps(content)

    return edit


def with_key(key, value):
    def edit(text):
        return json.dumps({**json.loads(text), key: value})

    return edit


# Of a workdir without a seal: file → its new content, or how it is edited.
CONTENTS = ["", "{", "null", "3", '"text"', "[1, 2", DEEP, "\x00", '{"a": 1}x', "[" * 30 + "]" * 30]
EDITS = [
    *(("config.json", content) for content in [*CONTENTS, "[]"]),
    *(("labels.json", content) for content in [*CONTENTS, "{}", "[]", "[1, 2]", '["a", null]']),
    *(("vocabulary.json", content) for content in [*CONTENTS, "[]", "{}"]),
    *(
        ("config.json", with_field(*change))
        for change in [
            ("data", 3),
            ("data", "maxlen"),
            ("data", [1]),
            ("data.maxlen", "20"),
            ("data.maxlen", 0),
            ("data.maxlen", 1.5),
            ("data.maxlen", None),
            ("data.maxlen", {"a": 1}),
            ("data.maxlen", [20]),
            ("data.padding", "left"),
            ("data.padding", ["post"]),
            ("data.tokenizer", {}),
            ("seed", {"a": {"b": 1}}),
            ("seed", True),
            ("model.hidden_size", 6),
            ("model.hidden_size", -5),
            ("model.cell", "lstm\x1b[31m"),
            ("model.cell", ["lstm"]),
            ("model.conv_filters", 7),
            ("model.target", "label "),
            ("train.eval_batch_size", 0),
            ("model.unknown", 1),
            ("unknown", 1),
            ("unknown" * 1_000, 1),
            ("model.word_ngrams", 2),
        ]
    ),
    ("labels.json", '["neg", "pos", "more"]'),
    ("labels.json", '["neg"]' * 2),
    ("labels.json", '[["neg"], "pos"]'),
    *(
        ("vocabulary.json", with_key(*change))
        for change in [
            ("words", 3),
            ("words", "abc"),
            ("words", WORDS[1:]),
            ("words", [1, 2]),
            ("words", None),
            ("words", {"a": 1}),
            ("tokenizer", 3),
            ("tokenizer", {}),
            ("tokenizer", {"kind": "other", "model": ""}),
            ("tokenizer", {"kind": ["words"], "model": ""}),
            ("tokenizer", {"kind": "words", "model": 1}),
            ("tokenizer", {"kind": "subword", "model": "eA=="}),
            ("tokenizer", {"kind": "subword", "model": ""}),
            ("tokenizer", {"kind": "words", "model": "!!"}),
        ]
    ),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited") / "run"
    return saved_workdir(folder, shrink(imdb.get_config()), ["neg", "pos"])


def edit(path, new):
    path.write_text(new(path.read_text()) if callable(new) else new)


def assert_one_line(error, *words):
    message = str(error)
    assert error.exit_code == 2
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("i", range(len(EDITS)))
def test_a_file_of_another_shape_is_one_line(i, original, tmp_path):
    name, new = EDITS[i]
    folder = shutil.copytree(original, tmp_path / "run")
    edit(folder / name, new)
    with pytest.raises(FlaxrnnError) as refused:
        flaxrnn.load(folder)
    assert_one_line(refused.value)


RESULT = {
    "dataset": "x",
    "seconds": {"startup": 1, "compile": 1, "total": 2},
    "parameters": 1,
    "epochs": 1,
    "test_accuracy": 0.5,
}
ROW = {"epoch": 1, "seconds": 1, "val_accuracy": 0.5}
COMPARED = [
    *(("result.json", content) for content in [*CONTENTS, "[]", "{}"]),
    *(("metrics.jsonl", content) for content in [*CONTENTS[1:], "[]", json.dumps(ROW)[1:]]),
    *(
        ("result.json", with_key(*change))
        for change in [
            ("seconds", 3),
            ("seconds", {}),
            ("seconds", {"startup": "a", "compile": "b", "total": 1}),
            ("seconds", {"startup": 1, "compile": 1, "total": [1]}),
            ("parameters", "many"),
            ("parameters", 10**400),
            ("epochs", {}),
            ("test_accuracy", [0.9]),
            ("test_accuracy", "high"),
        ]
    ),
    ("metrics.jsonl", json.dumps({**ROW, "seconds": "1s"})),
    ("metrics.jsonl", json.dumps({**ROW, "val_accuracy": {}})),
    ("config.json", with_field("train.monitor", ["loss"])),
    ("config.json", with_field("train.monitor", "x\x1b[2J")),
    ("config.json", with_field("seed", [1])),
    ("config.json", with_field("data", 1)),
]


@pytest.mark.parametrize("i", range(len(COMPARED)))
def test_comparing_leaves_an_edited_run_out(i, original, tmp_path):
    name, new = COMPARED[i]
    folder = shutil.copytree(original, tmp_path / "run")
    (folder / "result.json").write_text(json.dumps(RESULT))
    (folder / "metrics.jsonl").write_text(json.dumps(ROW))
    assert compare.read(folder).curves[0].score == 0.5
    edit(folder / name, new)
    with pytest.raises(WorkdirError) as refused:
        compare.main([str(folder)])
    assert_one_line(refused.value, str(folder))


@pytest.mark.parametrize(
    "new",
    [
        *CONTENTS,
        "{}",
        '{"members": "seed-0"}',
        '{"members": [0]}',
        '{"members": [["seed-0"]]}',
        '{"members": ["../../seed-0"]}',
        '{"members": ["/etc"]}',
        '{"members": ["seed-0/../../x"]}',
        '{"members": ["seed-0"], "ensemble": 3}',
    ],
)
def test_a_record_of_seeds_names_their_folders_only(new, tmp_path):
    folder = saved_seeds(tmp_path / "run", shrink(imdb.get_config()), ["neg", "pos"])
    edit(folder / "seeds.json", new)
    for read in (flaxrnn.load, compare.read):
        with pytest.raises(WorkdirError) as refused:
            read(folder)
        assert_one_line(refused.value, "seeds.json")


# A workdir with a seal


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with n-grams, and one of the same shape with other labels and words."""
    folder = tmp_path_factory.mktemp("sealed")
    swap = {"긍정": "부정", "부정": "긍정", "중립": "중립"}
    rows = {"one": korean(120), "other": [(text, swap[label]) for text, label in korean(120)]}
    found = {}
    for name in rows:
        write_csv(folder / f"{name}.csv", rows[name])
        config = shrink(text_config.get_config(), epochs=1, cell="simple")
        config.data.update({"path": str(folder / f"{name}.csv"), "num_words": 100})
        config.data.data_dir = str(folder / "data")
        flaxrnn.train(config, folder / name)
        found[name] = (config, folder / name)
    return found


SEALED = [
    ("labels.json", lambda text: json.dumps(json.loads(text)[::-1])),
    ("labels.json", lambda text: text.replace("\\uae0d", "\\uae0e")),
    ("vocabulary.json", lambda text: text.replace("훌", "출")),
    ("vocabulary.json", lambda text: text + " "),
    ("vocabulary.json", None),
    ("config.json", with_field("data.maxlen", 19)),
    ("config.json", with_field("data.padding", "pre")),
    ("config.json", with_field("train.eval_batch_size", 8)),
    ("config.json", with_field("model.pooling", "max")),
    ("ngrams/checksums.json", lambda text: text + " "),
]


@pytest.mark.parametrize("i", range(len(SEALED)))
def test_an_edited_file_is_named(i, finished, tmp_path):
    name, new = SEALED[i]
    folder = shutil.copytree(finished["one"][1], tmp_path / "run")
    assert flaxrnn.load(folder).predict(["영화"])
    if new is None:
        (folder / name).unlink()
    else:
        edit(folder / name, new)
        assert (folder / name).read_text() != (finished["one"][1] / name).read_text()
    with pytest.raises(WorkdirError) as refused:
        flaxrnn.load(folder)
    assert_one_line(refused.value, f"--workdir: {folder / name} is not the one", "restore it")


@pytest.mark.parametrize("name", ["config.json", "ngrams", "checkpoints"])
def test_an_exchanged_part_is_named(name, finished, tmp_path):
    """Of a run of the same shape, whose words and weights fit: only the seal tells."""
    folder = shutil.copytree(finished["one"][1], tmp_path / "run")
    other = finished["other"][1] / name
    if other.is_dir():
        shutil.rmtree(folder / name)
        shutil.copytree(other, folder / name)
    else:
        shutil.copy(other, folder / name)
    with pytest.raises(WorkdirError, match="is not the one that the weights were trained with"):
        flaxrnn.load(folder)


def test_workdirs_of_earlier_versions_have_no_seal(finished, tmp_path):
    folder = shutil.copytree(finished["one"][1], tmp_path / "run")
    unseal(folder)
    assert flaxrnn.load(folder).predict(["영화"])
    config, _ = finished["one"]
    (folder / "result.json").unlink()
    flaxrnn.train(config, folder)


def unseal(folder):
    for step in (folder / "checkpoints").iterdir():
        contents = {p.name: p.read_bytes() for p in step.iterdir() if p.name != files.CHECKSUMS}
        progress = json.loads(contents["progress.json"])
        del progress["seal"]
        files.write_folder(step, {**contents, "progress.json": json.dumps(progress).encode()})


def test_a_resumed_run_restores_what_the_texts_give(finished, tmp_path, capsys):
    config, original = finished["one"]
    folder = shutil.copytree(original, tmp_path / "run")
    for name in ("labels.json", "vocabulary.json"):
        (folder / name).write_text("[]")
    (folder / "result.json").unlink()
    flaxrnn.train(config, folder)
    assert capsys.readouterr().err.count("was changed; restored") == 2
    for name in ("labels.json", "vocabulary.json"):
        assert (folder / name).read_bytes() == (original / name).read_bytes()
    edit(folder / "config.json", lambda text: text + " ")
    with pytest.raises(WorkdirError, match=r"config\.json is not the one"):
        flaxrnn.train(config, folder)


@pytest.mark.parametrize("writes", range(5))
def test_a_stop_between_two_writes_leaves_a_workdir_that_goes_on(
    writes, tiny_corpus, tmp_path, monkeypatch
):
    """Config, vocabulary, labels, then the checkpoint that seals them, then the reports."""
    config = shrink(imdb.get_config(), epochs=1)
    flaxrnn.train(config, tmp_path / "alone")
    done = []

    def replace(*arguments):
        if len(done) == writes:
            raise KeyboardInterrupt
        os.replace(*arguments)
        done.append(arguments)

    with monkeypatch.context() as patched:
        patched.setattr(files, "os", SimpleNamespace(**{**vars(os), "replace": replace}))
        with pytest.raises(KeyboardInterrupt):
            flaxrnn.train(config, tmp_path / "run")
    flaxrnn.train(config, tmp_path / "run")
    flaxrnn.load(tmp_path / "run")
    for name in ("config.json", "labels.json", "vocabulary.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert seal.take(tmp_path / "run") == seal.take(tmp_path / "alone")


def test_each_checkpoint_seals_all_that_its_weights_belong_to(finished):
    _, folder = finished["one"]
    for step in (folder / "checkpoints").iterdir():
        progress = json.loads((step / "progress.json").read_text())
        assert progress["seal"] == seal.take(folder)
        assert len(progress["seal"]) == 4
