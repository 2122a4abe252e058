"""report.html shows the run, escapes its texts, and opens in a browser without errors."""

import dataclasses
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from helpers import ATTACK, finished_run

from flaxrnn.data import batching, ragged
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.reporting import page


class Outline(HTMLParser):
    """Counts elements, and collects their attributes and text."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.attributes, self.open, self.text = Counter(), [], [], ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements[tag] += 1
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, content):
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += content


@pytest.mark.parametrize("classes", [2, 46])
def test_page_shows_the_run(classes):
    result, history, details = finished_run(classes)
    outline = Outline(page.render(result, history, details))
    assert outline.open == []
    assert outline.elements["svg"] == 4
    assert outline.elements["table"] == 4
    # The tables of classes, confusion, coverage and time; the last row of time is the total.
    assert outline.elements["td"] == classes * 5 + classes**2 + 3 * 7 + 2 * 9
    shown = " ".join(outline.text.split())
    assert "1,234 to train on" in shown
    assert "unseen (621)" in shown
    for value in ("0.7386", "1.0647", "0.2801", "5,419", "130,862", "98.77%", "reuters_topics"):
        assert value in shown
    assert "epoch 4, validation: loss 0.9500" in shown
    assert "SYNTHETIC" not in shown
    for name in details.label_names:
        assert outline.text.count(name) >= 3


def test_many_classes_show_the_pairs_that_are_confused_most():
    result, history, details = finished_run(2_000)
    names, confusion = details.label_names, details.confusion
    wrong = confusion[confusion[:, 0] != confusion[:, 1]]
    wrong = np.append(wrong, [[3, 5, 800], [5, 3, 700]], axis=0)
    details = dataclasses.replace(details, confusion=wrong)
    details.class_scores["support"][3] = 1_000
    content = page.render(result, history, details)
    assert len(content) < 2_000_000
    name = "<bdi>(.*)</bdi>"
    row = f"<tr><th scope=.row.>{name}</th><th>{name}</th><td>(.*)</td><td>(.*)</td>"
    pairs = re.findall(row, content)
    assert pairs[0] == (names[3], names[5], "800", "80%")
    assert pairs[1][:3] == (names[5], names[3], "700")
    assert len(pairs) == min(100, len(wrong))
    assert "Listed are the 1,000 most frequent of 2,000 classes." in content
    assert Outline(content).open == []


def test_time_bars_add_up_to_the_total():
    shown = page.render(*finished_run(2))
    bar = re.search('<div class="time">(.*?)</div>', shown)[1]
    shares = [float(share) for share in re.findall(r"--share:([\d.]+)", bar)]
    assert sum(shares) == pytest.approx(1, abs=1e-3)


def test_synthetic_corpus_is_announced_above_the_figures():
    shown = page.render(*finished_run(2, data_source="synthetic"))
    assert shown.index("SYNTHETIC corpus") < shown.index("test accuracy")


def test_warnings_are_above_the_figures():
    shown = page.render(*finished_run(2, warnings=["Too <few> texts."]))
    assert shown.index("Too &lt;few&gt; texts.") < shown.index("test accuracy")


@pytest.mark.parametrize("classes", [2, 46])
def test_labels_texts_and_commands_are_escaped(classes):
    shown = page.render(*finished_run(classes))
    outline = Outline(shown)
    assert outline.elements["script"] == 1
    assert ATTACK not in shown
    assert outline.text.count(ATTACK) == 9
    titles = [value for _, name, value in outline.attributes if name == "title"]
    assert any(ATTACK in title for title in titles)


def test_page_loads_nothing():
    content = page.render(*finished_run(46))
    outline = Outline(content)
    loading = ("src", "srcset", "href", "xlink:href", "data", "action", "poster")
    loaded = {a for a in outline.attributes if a[1] in loading and not a[2].startswith("#")}
    assert loaded == {("link", "href", "data:,")}
    assert not re.search(r"https?://|url\(|@import|fetch\(|import\(", content)


def test_every_variable_of_the_style_is_defined():
    content = page.render(*finished_run(2))
    used = set(re.findall(r"var\((--[\w-]+)\)", content))
    assert {"--blue", "--orange", "--ink", "--soft", "--line"} < used
    assert used <= set(re.findall(r"(--[\w-]+):", content))


def test_mistakes_are_the_most_confident_ones_as_the_model_reads_them():
    words = Vocabulary(["good", "bad"])
    ids = np.array([1, 4, 1, 5, 2, 1, 4, 5, 1, 5, 5], np.int32)
    texts = ragged.RaggedTexts(ids, np.array([0, 2, 5, 8, 11]), np.array([0, 1, 0, 1], np.int32))
    rows = {"test": np.array([1, 2, 3])}
    training_data = batching.TrainingData(texts, texts.lengths, "post", (3,), rows)
    predicted, probability = np.array([0, 1, 1]), np.array([0.6, 0.9, 0.99])
    assert page.mistakes(training_data, words, predicted, probability) == [
        page.Mistake("good bad", 0, 1, 0.9, row=2),
        page.Mistake("bad ?", 1, 0, 0.6, row=1),
    ]
    assert page.mistakes(training_data, words, np.array([1, 0, 1]), probability) == []


def test_each_mistake_names_the_words_that_decided_in_it():
    result, history, details = finished_run(2)
    assert 'class="words"' not in page.render(result, history, details)
    first = dataclasses.replace(details.mistakes[0], words=("awful", ATTACK))
    details = dataclasses.replace(details, mistakes=[first, details.mistakes[1]])
    shown = page.render(result, history, details)
    (words,) = re.findall('<p class="words">(.*)</p>', shown)
    assert words.startswith("<bdi>awful</bdi>, <bdi>&lt;script&gt;")
    assert "the words that spoke most for the predicted class" in shown


def test_scores_are_shown_with_their_intervals_and_the_largest_class():
    shown = page.render(*finished_run(2))
    assert re.search(r"<b>0.7386</b> [\d,]+ texts; 95%: 0.7201 to 0.7563<", shown)
    assert "<b>0.2801</b> mean over classes; 95%: 0.2510 to 0.3092<" in shown
    assert "<dt>largest class</dt><dd><b>0.3619</b> accuracy of always" in shown
    older = finished_run(2)
    for name in ("test_accuracy_interval", "test_macro_f1_interval", "largest_class_accuracy"):
        del older[0][name]
    assert "95%" not in page.render(*older).partition("<section>")[0]


def test_page_of_a_run_without_mistakes():
    result, history, details = finished_run(2)
    details.mistakes.clear()
    assert "None: every text" in page.render(result, history, details)


def browse(content, folder):
    """Opens a page in a browser; its DOM, after scripts, and what the browser logged."""
    if not shutil.which("chromium"):
        pytest.skip("needs a browser: there is no chromium on PATH")
    path = folder / "report.html"
    path.write_text(content, "utf-8")
    browser = subprocess.run(
        [
            "chromium",
            *("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run").split(),
            *("--disable-background-networking --disable-component-update --disable-sync").split(),
            *("--enable-logging=stderr --v=0 --window-size=600,800 --dump-dom").split(),
            f"--user-data-dir={folder / 'browser'}",
            "--host-resolver-rules=MAP * ~NOTFOUND",  # the browser's own requests fail, too
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return browser.stdout, browser.stderr


# Uses the page as a reader would, and leaves what it sees in the DOM.
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
found.line = getComputedStyle(document.querySelector("svg path[style*=blue]")).stroke;
document.body.dataset.found = encodeURIComponent(JSON.stringify(found));
</script></body>"""


@pytest.mark.parametrize("classes", [2, 46])
def test_browser_opens_it_without_errors_or_requests(classes, tmp_path):
    content = page.render(*finished_run(classes)).replace("</body>", _PROBE)
    dom, log = browse(content, tmp_path)
    assert "CONSOLE" not in log
    found = json.loads(unquote(re.search('data-found="([^"]*)"', dom)[1]))
    assert found["requests"] == 0
    assert found["wider"] <= 0  # tables scroll in their own boxes
    assert found["line"] == "rgb(36, 99, 201)"  # the curves use the colours of the page
    support = [int(count.replace(",", "")) for count in found["first"]]
    assert support == sorted(support, reverse=True)
    f1 = [float(value) for value in found["f1"]]
    assert f1 == sorted(f1, reverse=True)
    assert [float(value) for value in found["f1Rising"]] == sorted(f1)
    assert found["names"] == sorted(found["names"])
    assert found["readout"].startswith("true ")


def test_page_of_a_language_model_has_no_classes_and_no_errors(tmp_path):
    result, history, details = finished_run()
    details = dataclasses.replace(
        details, confusion=None, mistakes=None, confidence=None, unit="tokens"
    )
    content = page.render(result, history, details)
    assert f"{result['test_examples']:,} tokens" in content
    assert re.findall("<h2>(.*)</h2>", content) == [
        "Data", "Training", "Time", "Model", "Config", "Provenance"
    ]  # fmt: skip
    _, log = browse(content, tmp_path)
    assert "CONSOLE" not in log


def test_text_of_the_users_keeps_its_direction_to_itself():
    """An override of the direction would turn the rest of the line around."""
    override, escape = "\u202eevil", "a\x1b[2J\x00b"
    result, history, details = finished_run(2, dataset=override, warnings=[override])
    details = dataclasses.replace(
        details,
        label_names=[override, escape],
        mistakes=[page.Mistake(f"{override} {escape}", 0, 1, 0.9)],
        config={"data.path": override},
    )
    rendered = page.render(result, history, details)
    for control in "\u202e\x1b\x00":
        assert control not in rendered
    for shown in (r"\u202eevil", r"a\x1b[2J\x00b"):
        assert f"<bdi>{shown}</bdi>" in rendered
    outline = Outline(rendered)
    assert outline.open == []
    # dataset, warning, the data, two classes, the rows and columns of their confusion, one mistake
    # of which text and two classes are shown, and config and provenance.
    pairs = len(details.config) + len(page._provenance(result))
    assert outline.elements["bdi"] == 2 + len(details.profile.describe()) + 2 + 4 + 3 + pairs
