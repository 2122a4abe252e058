import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxrnn.data import splitting, tokenizers
from flaxrnn.inference import formats
from flaxrnn.inference.predictions import Prediction
from flaxrnn.inference.predictor import EncodedText
from flaxrnn.runtime import terminal

TOP = [("pos", 0.75), ("neg", 0.25)]


def prediction(text, attributions=None, top=TOP, note=None):
    _, spans = tokenizers.KERAS.locate(text)
    ids = np.array([1, *[4] * (len(spans) - 1), 2][: len(spans) + 1], np.int32)
    weights = None if attributions is None else np.array(attributions, np.float32)
    encoded = EncodedText(text, spans, ids, len(spans), text, None)
    return Prediction(3, encoded, note, top if spans else [], weights)


def test_json_line_has_the_same_keys_for_every_text():
    lines = [
        formats.json_line(prediction("Good film!", [0.5, -1e-9]), top=2, explain=True),
        formats.json_line(prediction(" .,", [], note="no words"), top=2, explain=True),
    ]
    full, empty = map(json.loads, lines)
    assert full == {
        "index": 3,
        "label": "pos",
        "probability": 0.75,
        "unknown": 0.5,
        "words": 2,
        "words_read": 2,
        "note": None,
        "top": [{"label": "pos", "probability": 0.75}, {"label": "neg", "probability": 0.25}],
        "explanation": [{"word": "Good", "weight": 0.5}, {"word": "film", "weight": 0.0}],
    }
    assert empty == {
        **dict.fromkeys(("label", "probability", "unknown")),
        "index": 3,
        "words": 0,
        "words_read": 0,
        "note": "no words",
        "top": [],
        "explanation": [],
    }
    plain = json.loads(formats.json_line(prediction("平", top=TOP[:1]), top=1, explain=False))
    assert full.keys() - plain.keys() == {"top", "explanation"}


def test_legend_says_that_attributions_are_means():
    table = formats.Table(["neg"], explain=True, columns=90, colour=False, members=3)
    assert table.header().endswith("mean of 3 runs; + for the label, - against")


def test_table_fits_the_terminal():
    table = formats.Table(["neg", "pos"], explain=False, columns=70, colour=False)
    header = table.header()
    assert header.split() == ["index", "label", "probability", "unknown", "text"]
    first, second = table.row(prediction("Good \x1b[2J film " + "很" * 80)).splitlines()
    assert first.split()[:5] == ["3", "pos", "0.7500", "0.20", "Good"]
    assert first[header.index("text") :].startswith("Good [2J film 很")
    assert first.endswith("很…")
    assert terminal.width(first) <= 70
    assert second.split() == ["neg", "0.2500"]
    assert table.row(prediction("?!", note="no words")).split() == [
        "3",
        "-",
        "-",
        "-",
        "(no",
        "words)",
    ]
    assert "(the last 2 of 3) good" in table.row(prediction("good", note="the last 2 of 3"))


def test_wide_labels_keep_the_columns_aligned():
    table = formats.Table(["很好看", "a"], explain=False, columns=80, colour=False)
    rows = [table.header(), table.row(prediction("good", top=[("很好看", 1.0), ("a", 0.0)]))]
    rows = "\n".join(rows).splitlines()
    ends = {terminal.width(re.split(r"(?<=0000)|(?<=probability)", row)[0]) for row in rows}
    assert len(ends) == 1


@pytest.mark.parametrize("colour", [True, False])
def test_words_that_mattered_are_highlighted(colour):
    table = formats.Table(["neg", "pos"], explain=True, columns=80, colour=colour)
    shown = table.row(prediction("Good film, bad plot", [1.0, 0.05, -0.5, 0.15]))
    assert ("green: for the label, red: against" in table.header()) == colour
    assert ("+ for the label, - against" in table.header()) != colour
    if colour:
        found = re.findall("\x1b\\[30;48;5;(\\d+)m(\\w+)\x1b\\[0m", shown)
        assert [(int(shade), word) for shade, word in found] == [
            (formats.GREENS[3], "Good"),  # with a probability of 0.75, the shades are paler
            (formats.REDS[1], "bad"),
            (formats.GREENS[0], "plot"),
        ]
    else:
        assert "        Good(+1.00) film, bad(-0.50) plot(+0.15)" in shown.splitlines()


@given(st.text(max_size=200), st.data())
def test_any_text_is_shown_without_control_characters(text, data):
    count = len(splitting.tokenize(text))
    weights = data.draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count))
    table = formats.Table(["neg", "pos"], explain=True, columns=80, colour=True)
    shown = table.row(prediction(text, weights))
    assert all(c.isprintable() or c in "\x1b\n" for c in shown)


HOSTILE = ["\x1b[2Jneg", "pos\n0  neg  1.0000", "\u202egnp", "\x9b31m", "\ud800"]


@pytest.mark.parametrize("label", HOSTILE)
def test_a_label_is_shown_and_not_obeyed(label):
    table = formats.Table(["neg", label], explain=False, columns=80, colour=False)
    one = prediction("Good film", [1.0, 0.5], top=[(label, 0.75)])
    assert table.row(one).isprintable()
    assert terminal.width(table.header().split("probability")[0]) == terminal.width(
        table.row(one).split("     0.7500")[0]
    )
    line = formats.json_line(one, top=1, explain=True)
    assert line.isprintable()
    assert json.loads(line)["label"] == label
