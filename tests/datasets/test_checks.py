import pytest
from helpers import load_custom, write_csv

from flaxrnn.datasets import checks, splits
from flaxrnn.datasets.parsing import Example


def find(*rows):
    """Findings in examples like "text:label:split"."""
    examples = [Example(*row.split(":")) for row in rows]
    keys = [example.text for example in examples]
    parts = splits.split_examples(examples, keys, "a.csv", 0.5, 0)
    return checks.find_suspicious(examples, keys, parts)


GIVEN = ["a:up:train", "b:down:train", "c:up:test", "d:down:test"]


def test_nothing_is_suspicious():
    assert find(*GIVEN) == []
    assert find("a:up:", "a:up:", "b:down:", "b:down:", "c:up:", "d:down:") == []


@pytest.mark.parametrize(
    ("rows", "finding"),
    [
        (["a:up:test", "b:up:test", "b:down:test"],
         "Copies of training texts: 3 of 5 test texts, 1 of them with another label"),
        (["a:up:validation"], "Copies of training texts: 1 of 1 validation texts"),
        (["x:spam:train", "y:spam:train"],
         "Without a test text: 'spam' (2); the test scores do not judge such a class."),
        (["x:Unsup:train", "y:Unsup:test"], "Class 'Unsup' (2 texts) looks like texts without"),
        (["x:up,spoiler:train", "y:up,spoiler:test"],
         "Several labels per text? Each is learned as a class of its own: 'up,spoiler' (2); set"
         " data.label_separator=',' to learn them one by one."),
        (["x:UP:train", "y:UP:test"],
         "Classes that differ in case or spaces only: 'up' (2), 'UP' (2)"),
    ],
)  # fmt: skip
def test_what_is_suspicious_is_said_with_its_number(rows, finding):
    (found,) = find(*GIVEN, *rows)
    assert found.startswith(finding)


def test_a_comma_alone_is_no_second_label():
    assert find(*GIVEN, "x:oil, crude:train", "y:oil, crude:test") == []


def test_findings_are_printed_each_time(tmp_path, capsys):
    rows = [("good a", "up", "train"), ("good, A!", "down", "test"), ("bad", "down", "train"),
            ("good", "up", "dev"), ("so", "unsup", "train"), ("la", "unsup", "train")]  # fmt: skip
    path = write_csv(tmp_path / "a.csv", rows, ("text", "label", "split"))
    for _ in range(2):
        load_custom(path, tmp_path)
        assert capsys.readouterr().err.splitlines() == [
            "a.csv: 4 texts to train on, 1 to validate on, 1 to test, 3 classes: down, unsup, up;"
            " repeated texts: 1, 1 of them with another label",
            "warning: a.csv: Copies of training texts: 1 of 1 test texts, 1 of them with another"
            " label.",
            "warning: a.csv: Without a test text: 'unsup' (2), 'up' (1); the test scores do not"
            " judge such a class.",
            "warning: a.csv: Class 'unsup' (2 texts) looks like texts without a label: leave it"
            " out, or it is learned as a class.",
        ]


def test_texts_that_repeat_are_counted(tmp_path, capsys):
    other = ", 1 of them with another label"
    rows = [(f"text {i}", "up" if i % 2 else "down") for i in range(20)]
    for more, repeats in (
        ([], ""),
        ([("Text 1!", "up"), ("text 1", "up")], "; repeated texts: 2"),
        ([("text 1", "up"), ("text 3", "down")], f"; repeated texts: 2{other}"),
    ):
        load_custom(write_csv(tmp_path / "a.csv", rows + more), tmp_path, test_fraction=0.1)
        assert capsys.readouterr().err.endswith(f"2 classes: down, up{repeats}\n")
