"""Values at the edges of every field, and paths of every kind: one line that names the culprit."""

import os

import pytest
from helpers import shrink

import flaxrnn
from configs import imdb
from flaxrnn import compare, export, from_keras, generate, predict, seeds
from flaxrnn.config import FIELDS, parse
from flaxrnn.data import vectors
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.datasets import custom, preparation
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import ConfigError, FlaxrnnError, OutOfMemoryError

NUMBERS = [name for name, field in FIELDS.items() if field.type in (int, float)]
# Those that have a range, unlike the powers of two of shards.
WHOLE = [n for n in NUMBERS if FIELDS[n].type is int and n != "train.shards"]
SIZES = [
    ("model.hidden_size", 10**8),
    ("model.hidden_size", 10**6),
    ("model.embedding_size", 10**8),
    ("model.conv_filters", 10**8),
    ("train.batch_size", 10**9),
    ("train.eval_batch_size", 2**31 - 1),
]


@pytest.mark.parametrize("value", [2**31, 2**32, 2**63, 10**400])
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_beyond_all_need_is_refused(name, value):
    if value <= FIELDS[name].most:
        value = FIELDS[name].most + 1
    config = imdb.get_config().to_dict()
    group, _, key = name.rpartition(".")
    (config[group] if group else config)[key] = value
    with pytest.raises(ConfigError) as refused:
        parse(config)
    assert str(refused.value) == f"{name}: {value} must be at most {FIELDS[name].most:,}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, "1", True])
@pytest.mark.parametrize("name", [name for name in NUMBERS if FIELDS[name].type is float])
def test_a_number_that_is_none_is_refused(name, value):
    config = imdb.get_config().to_dict()
    group, _, key = name.rpartition(".")
    config[group][key] = value
    with pytest.raises(ConfigError, match=f"^{name}: .* must be ") as refused:
        parse(config)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(("name", "value"), SIZES)
def test_what_cannot_fit_is_refused_before_it_is_allocated(name, value, tiny_corpus, tmp_path):
    config = shrink(imdb.get_config())
    config.update_from_flattened_dict({name: value})
    with pytest.raises(OutOfMemoryError, match=rf"lower {name}.*: at least [\d,.]+ GiB are needed"):
        flaxrnn.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_many_seeds_or_tokens_are_refused():
    with pytest.raises(ConfigError, match="--seeds: 1000000000 must be at most 1,000"):
        seeds.train(imdb.get_config(), 10**9)
    config = shrink(imdb.get_config())
    config.seed = 2**32 - 1
    with pytest.raises(ConfigError, match="--seeds: the last seed, 4294967296, must be at most"):
        seeds.train(config, 2)
    with pytest.raises(ConfigError, match="--length: 1000000000 must be at most 1,000,000"):
        generate.main(["--workdir", "x", "--length", str(10**9), "a"])


NOBODY = "~there-is-no-such-user/x"
USES = {
    "--workdir": [
        lambda path: flaxrnn.train(shrink(imdb.get_config()), path),
        lambda path: seeds.train(shrink(imdb.get_config()), 1, path),
        flaxrnn.load,
        lambda path: predict.main(["--workdir", str(path), "a"]),
        lambda path: from_keras.convert("x", imdb.get_config("keras"), path),
    ],
    "--out": [lambda path: export.main(["--workdir", "x", "--out", str(path)])],
    "WEIGHTS": [lambda path: from_keras.convert(path, imdb.get_config("keras"), "x")],
    "data.path": [
        lambda path: custom.find_source(str(path), Fields("text", "label"), Format()).read()
    ],
    "data.data_dir": [lambda path: preparation.data_root(str(path))],
    "data.vectors": [lambda path: vectors.read(str(path), Vocabulary(["a"]), 2)],
}


@pytest.mark.parametrize("field", USES)
def test_a_home_that_does_not_exist_is_named(field):
    for use in USES[field]:
        with pytest.raises(ConfigError) as refused:
            use(NOBODY)
        assert str(refused.value).startswith(f"{field}: {NOBODY}: there is no such user")


PLACES = {
    "missing": lambda folder: folder / "missing",
    "too long": lambda folder: folder / ("x" * 300),
    "a file": lambda folder: folder / "file",
    "below a file": lambda folder: folder / "file" / "below",
    "a pipe": lambda folder: folder / "pipe",
    "a loop": lambda folder: folder / "loop",
    "a device": lambda _: "/dev/null",
    "nothing": lambda _: "",
    "below /proc": lambda _: "/proc/flaxrnn/x",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_path_of_another_kind_is_one_line(place, tmp_path, monkeypatch, tiny_corpus):
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    path = PLACES[place](tmp_path)
    for field in ("--workdir", "WEIGHTS", "data.path", "data.vectors"):
        for use in USES[field][2:] if field == "--workdir" else USES[field]:
            if use is USES["--workdir"][-1] and place in ("missing", "nothing"):
                continue  # a folder to write, which may be new
            with pytest.raises((FlaxrnnError, OSError)) as refused:
                use(path)
            if isinstance(refused.value, OSError):  # which the commands report by the path
                assert str(refused.value.filename).startswith(str(path))
            else:
                assert "\n" not in str(refused.value)
                assert refused.value.exit_code == 2
    with pytest.raises((FlaxrnnError, OSError)):
        compare.main([str(path)])
