"""`python -m flaxrnn.generate` on a tiny untrained model."""

import pytest
from helpers import loaded, saved_workdir, shrink

from configs import reuters
from flaxrnn import generate
from flaxrnn.errors import ConfigError


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = shrink(reuters.get_config(), target="next")
    return saved_workdir(tmp_path_factory.mktemp("generate") / "run", config, ["a", "b"])


def test_each_text_is_continued_on_a_line(workdir, capsys):
    texts = ["the good", "", "film"]
    generate.main(["--workdir", str(workdir), "--length", "7", "--seed", "3", *texts])
    lines = capsys.readouterr().out.splitlines()
    assert lines == loaded(workdir).generate(texts, length=7, seed=3)
    assert [line.startswith(text) for line, text in zip(lines, texts, strict=True)] == [True] * 3


def test_a_prompt_stays_as_it_is_spelled(workdir):
    for text in ("The GOOD film's", "A unicorn, ", "Oil!"):
        (whole,) = loaded(workdir).generate([text], length=7, seed=3)
        assert whole.startswith(text.rstrip())
        (lower,) = loaded(workdir).generate([text.lower()], length=7, seed=3)
        assert whole[len(text.rstrip()) :] == lower[len(text.rstrip()) :] != ""
    (end,) = loaded(workdir).generate(["Film " * 30], length=1, seed=3)
    assert end.startswith("Film " * 10)  # of the part that was read
    assert loaded(workdir).generate("the", length=7) == loaded(workdir).generate(["the"], length=7)


def test_a_prompt_of_characters_stays_as_it_is_spelled(tmp_path):
    config = shrink(reuters.get_config(), target="next")
    model = loaded(saved_workdir(tmp_path / "run", config, ["a", "b"], tokenizer="characters"))
    for text, shown in (("The FILM  of\nÉ", "The FILM of É"), ("İST GOOD", "i̇ST GOOD")):
        assert model.generate([text], length=3)[0].startswith(shown)


def test_temperature_and_seed_decide_what_is_generated(workdir, capsys):
    def run(*flags):
        generate.main(["--workdir", str(workdir), *flags, "the", "a"])
        return capsys.readouterr().out

    assert run("--temperature", "9") != run("--temperature", "9", "--seed", "1")
    assert run("--temperature", "0") == run("--temperature", "0", "--seed", "1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--length", "0"], "--length: 0 must be a whole number of at least 1"),
        (["--temperature", "-1"], "--temperature: -1.0 must be a number of at least 0"),
        (["--temperature", "inf"], "--temperature: inf must be"),
        (["--seed", "-1"], "--seed: -1 must be a whole number from 0"),
        (["--lengths", "1"], "--lengths"),
    ],
)
def test_invalid_flags_are_named(flags, message):
    with pytest.raises(ConfigError, match=message):
        generate.main(["--workdir", "nowhere", *flags, "the"])


def test_a_classifier_cannot_generate(imdb_workdir):
    with pytest.raises(ConfigError, match=r"model\.target: must be next for this"):
        generate.main(["--workdir", str(imdb_workdir), "the"])
