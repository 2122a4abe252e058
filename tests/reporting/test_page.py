"""The page of a run: what it shows, that texts stay texts, and that a browser opens it quietly."""

import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest

from flaxrnn.data import batching, ragged
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.reporting import page

ATTACK = "<script>console.error('x')</script> & \"quoted\""
NAMES = [f"class-{i:02d}" for i in range(44)] + [ATTACK, "unseen"]


def run_of(classes, epochs=7, **changes):
    """A made-up run: what `page.render` is given."""
    rng = np.random.default_rng(0)
    names = NAMES[-classes:]
    confusion = np.diag(rng.integers(1, 900, classes)).astype(float)
    confusion[rng.integers(0, classes, 90), rng.integers(0, classes, 90)] += 7
    confusion[-1] = 0  # a class without texts, as in reuters_clean
    history = [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "train_accuracy": 1 - 0.5 / epoch,
            "val_loss": 2.2 / min(epoch, 4) + 0.1 * epoch,
            "val_accuracy": 0.8 - 0.3 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    seconds = {"startup": 1.0, "compile": 2.0, "train": 30.0, "input": 0.5, "eval": 2.0}
    result = {
        "task": "reuters",
        "dataset": "reuters_topics/keras/1.0.0",
        "data_source": "real",
        "seed": 3,
        "parameters": 130_862,
        "epochs": epochs,
        "best_epoch": min(4, epochs),
        "test_loss": 1.0647,
        "test_accuracy": 0.7386,
        "test_macro_f1": 0.2801,
        "test_examples": int(confusion.sum()),
        "skipped_steps": 0,
        "seconds": {**seconds, "test": 1.0, "total": 36.2},
        "train_examples_per_second": 5_419.2,
        "train_tokens_per_second": 528_021.9,
        "buckets": [61, 150],
        "resident": True,
        "memory": {"peak_rss_mib": 612.3, "peak_device_mib": None},
        "devices": ["cpu:0 cpu", "cpu:1 cpu"],
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "commit": None,
        "command": f"train.py --config configs/reuters.py --workdir {ATTACK}",
        **changes,
    }
    details = page.Details(
        label_names=names,
        confusion=confusion,
        mistakes=[
            page.Mistake(f"{ATTACK} and so on " + "word " * 90, classes - 2, classes - 1, 0.98765),
            page.Mistake("short", classes - 1, classes - 2, 0.5),
        ],
        config={"task": "reuters", "data.manual_dir": ATTACK, "train.averaging": True},
        summary=f"a summary {ATTACK}",
    )
    return result, history, details


class Outline(HTMLParser):
    """Counts elements, and keeps their attributes and the text in them."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.attributes, self.open, self.text = Counter(), [], [], ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("meta", "link", "path", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements[tag] += 1
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if tag != "circle":
            assert self.open.pop() == tag

    def handle_data(self, content):
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += content


@pytest.mark.parametrize("classes", [2, 46])
def test_page_shows_the_run(classes):
    result, history, details = run_of(classes)
    outline = Outline(page.render(result, history, details))
    assert outline.open == []
    assert outline.elements["svg"] == 2
    assert outline.elements["circle"] == 4 * len(history)
    assert outline.elements["table"] == 3
    # Three tables: classes, confusion and time, whose last row is the total.
    assert outline.elements["td"] == classes * 5 + classes**2 + 2 * 8
    shown = " ".join(outline.text.split())
    for value in ("0.7386", "1.0647", "0.2801", "5,419", "130,862", "98.77%", "reuters_topics"):
        assert value in shown
    assert "epoch 4, validation: loss 0.9500" in shown
    assert "SYNTHETIC" not in shown
    for name in details.label_names:
        assert outline.text.count(name) >= 3


def test_bars_of_time_fill_the_whole():
    shown = page.render(*run_of(2))
    bar = re.search('<div class="time">(.*?)</div>', shown)[1]
    shares = [float(share) for share in re.findall(r"--share:([\d.]+)", bar)]
    assert sum(shares) == pytest.approx(1, abs=1e-3)


def test_synthetic_corpus_is_named_on_top():
    shown = page.render(*run_of(2, data_source="synthetic"))
    assert shown.index("SYNTHETIC corpus") < shown.index("test accuracy")


@pytest.mark.parametrize("classes", [2, 46])
def test_labels_texts_and_commands_stay_text(classes):
    shown = page.render(*run_of(classes))
    outline = Outline(shown)
    assert outline.elements["script"] == 1
    assert ATTACK not in shown
    assert outline.text.count(ATTACK) == 9
    titles = [value for _, name, value in outline.attributes if name == "title"]
    assert any(ATTACK in title for title in titles)


def test_page_asks_for_nothing():
    shown = page.render(*run_of(46))
    outline = Outline(shown)
    asking = ("src", "srcset", "href", "xlink:href", "data", "action", "poster")
    assert [a for a in outline.attributes if a[1] in asking] == [("link", "href", "data:,")]
    assert not re.search(r"https?://|url\(|@import|fetch\(|import\(", shown)


def test_one_epoch_and_losses_that_are_not_finite_are_drawn():
    result, history, details = run_of(2, epochs=1)
    assert page.render(result, history, details).count("<circle") == 4
    history[0] = dict.fromkeys(history[0], float("nan")) | {"epoch": 1}
    shown = page.render(result, history, details)
    assert "<circle" not in shown
    assert not re.search(r'(points|d|x|y)="[^"]*nan', shown)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.24, 0.35), (1.2, 3.9), (5, 7_000)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = page._ticks(low, high)
    assert 3 <= len(ticks) <= 7
    assert low <= ticks[0]
    assert ticks[-1] <= high
    assert all(len(f"{tick:g}") <= 5 for tick in ticks)


def test_mistakes_are_the_most_confident_ones_as_the_model_read_them():
    words = Vocabulary(["good", "bad"])
    ids = np.array([1, 4, 1, 5, 2, 1, 4, 5, 1, 5, 5], np.int32)
    texts = ragged.RaggedTexts(ids, np.array([0, 2, 5, 8, 11]), np.array([0, 1, 0, 1], np.int32))
    rows = {"test": np.array([1, 2, 3])}
    training_data = batching.TrainingData(texts, texts.lengths, "post", (3,), rows)
    predicted, probability = np.array([0, 1, 1]), np.array([0.6, 0.9, 0.99])
    assert page.mistakes(training_data, words, predicted, probability) == [
        page.Mistake("good bad", 0, 1, 0.9),
        page.Mistake("bad ?", 1, 0, 0.6),
    ]
    assert page.mistakes(training_data, words, np.array([1, 0, 1]), probability) == []


def test_no_mistake_is_said():
    result, history, details = run_of(2)
    details.mistakes.clear()
    assert "None: every text" in page.render(result, history, details)


# What a browser says of itself once it has run the page, for the test to read in its DOM.
_PROBE = """<script>
const column = n => [...document.querySelectorAll(".classes tbody tr")].map(
  row => row.cells[n].textContent);
const heads = document.querySelectorAll(".classes button");
const found = {requests: performance.getEntriesByType("resource").length, first: column(4)};
heads[3].click(); found.f1 = column(3);
heads[3].click(); found.f1Rising = column(3);
heads[0].click(); found.names = column(0);
document.querySelectorAll(".confusion td")[1].click();
found.readout = document.querySelector(".readout").textContent;
found.wider = document.documentElement.scrollWidth - innerWidth;
document.body.dataset.found = encodeURIComponent(JSON.stringify(found));
</script></body>"""


@pytest.mark.parametrize("classes", [2, 46])
def test_a_browser_opens_it_without_error_or_request(classes, tmp_path):
    if not shutil.which("chromium"):
        pytest.skip("needs the browser: there is no chromium on PATH")
    path = tmp_path / "report.html"
    path.write_text(page.render(*run_of(classes)).replace("</body>", _PROBE), "utf-8")
    browser = subprocess.run(
        [
            "chromium",
            *("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run").split(),
            *("--disable-background-networking --disable-component-update --disable-sync").split(),
            *("--enable-logging=stderr --v=0 --window-size=600,800 --dump-dom").split(),
            f"--user-data-dir={tmp_path / 'browser'}",
            "--host-resolver-rules=MAP * ~NOTFOUND",  # the browser's own requests stay here, too
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "CONSOLE" not in browser.stderr

    found = json.loads(unquote(re.search('data-found="([^"]*)"', browser.stdout)[1]))
    assert found["requests"] == 0
    assert found["wider"] <= 0  # tables scroll in their own boxes
    support = [int(count.replace(",", "")) for count in found["first"]]
    assert support == sorted(support, reverse=True)
    f1 = [float(value) for value in found["f1"]]
    assert f1 == sorted(f1, reverse=True)
    assert [float(value) for value in found["f1Rising"]] == sorted(f1)
    assert found["names"] == sorted(found["names"])
    assert found["readout"].startswith("true ")
