import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from flaxrnn import datasets
from flaxrnn.data import corpora, tokenizers
from flaxrnn.datasets import archive, reuters_topics, synthetic
from flaxrnn.errors import DataError

REUTERS, IMDB = datasets.TASKS["reuters"], datasets.TASKS["imdb"]
UNREACHABLE = "http://127.0.0.1:9/archive.tar.gz"


@pytest.fixture
def no_web(monkeypatch):
    """Makes every download address one that refuses connections."""
    for name, task in datasets.TASKS.items():
        changed = datasets.Task(**{**vars(task), "url": UNREACHABLE})
        monkeypatch.setitem(datasets.TASKS, name, changed)


def write_archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def examples(builder, split):
    return list(builder.as_data_source(split))


# The real corpora, on the real archives.


def test_reuters_is_exactly_that_of_keras(data_dir, manual_dir):
    builder = datasets.prepare(REUTERS, "real", data_dir, manual_dir)
    train, test = examples(builder, "train"), examples(builder, "test")
    assert (len(train), len(test)) == (8_982, 2_246)
    labels = [e["label"] for e in train]
    assert labels[:20] == [3, 4, 3, 4, 4, 4, 4, 3, 3, 16, 3, 3, 4, 4, 19, 8, 16, 3, 3, 21]
    counts = {
        "train": np.bincount(labels, minlength=46).tolist(),
        "test": np.bincount([e["label"] for e in test], minlength=46).tolist(),
    }
    assert counts == synthetic.TOPIC_COUNTS
    assert counts["train"][3:5] == [3159, 1949]  # earn, acq

    (x_train, y_train), (x_test, _) = corpora.load_data(
        "reuters", source="real", data_dir=data_dir, manual_dir=manual_dir
    )
    assert y_train[:20].tolist() == labels[:20]
    assert x_train[0][3:12].tolist() == [8, 43, 10, 447, 5, 25, 207, 270, 5]
    assert x_train[0][12] == 3124
    lengths = [len(x) for x in (*x_train, *x_test)]
    assert round(np.mean(lengths), 2) == 145.96
    assert np.median(lengths) == 95
    corpus = corpora.load_corpus("reuters", "real", data_dir, manual_dir)
    assert len(corpus.vocabulary) == 30_978
    (x_1000, _), _ = corpora.load_data(
        "reuters", num_words=1000, source="real", data_dir=data_dir, manual_dir=manual_dir
    )
    assert x_1000[0][:12].tolist() == [1, 2, 2, 8, 43, 10, 447, 5, 25, 207, 270, 5]


def test_clean_reuters_has_no_body_twice(data_dir, manual_dir):
    builder = datasets.prepare(datasets.TASKS["reuters_clean"], "real", data_dir, manual_dir)
    train, test = examples(builder, "train"), examples(builder, "test")
    assert (len(train), len(test)) == (8_077, 2_020)
    bodies = [b" ".join(e["text"].split()) for e in (*train, *test)]
    assert all(bodies)
    assert len(set(bodies)) == len(bodies)


def test_imdb_splits_and_vocabulary(data_dir, manual_dir):
    builder = datasets.prepare(IMDB, "real", data_dir, manual_dir)
    assert {s: info.num_examples for s, info in builder.info.splits.items()} == {
        "train": 25_000,
        "test": 25_000,
        "unsupervised": 50_000,
    }
    corpus = corpora.load_corpus("imdb", "real", data_dir, manual_dir)
    assert len(corpus.vocabulary) == 88_582
    assert np.bincount(corpus.train.labels).tolist() == [12_500, 12_500]
    assert np.bincount(corpus.test.labels).tolist() == [12_500, 12_500]
    assert np.median(corpus.train.lengths) == 178  # with the start id
    # The last quarter is the validation split: its labels must be mixed.
    assert 3_000 < corpus.train.labels[-6_250:].sum() < 3_250
    assert {e["label"] for e in builder.as_data_source("unsupervised")} == {-1}


# The scan.


def story(topics, body, new_id=1):
    body = f"<BODY>{body}</BODY>" if body is not None else ""
    topics = "".join(f"<D>{t}</D>" for t in topics)
    return f'<REUTERS NEWID="{new_id}">\n<TOPICS>{topics}</TOPICS>\n<TEXT>{body}</TEXT></REUTERS>\n'


def test_scan_takes_the_first_topic_and_skips_stories_without_one():
    sgml = story(["oil", "gas"], "first") + story([], "second") + story(["tin"], "third")
    assert reuters_topics.scan(sgml, own_body=False) == [("oil", "first"), ("tin", "third")]


def test_scan_of_a_story_without_a_body():
    sgml = story(["oil"], None) + story(["tin"], "second") + story(["gas"], None)
    assert reuters_topics.scan(sgml, own_body=False) == [
        ("oil", "second"),
        ("tin", "second"),
        ("gas", ""),
    ]
    assert reuters_topics.scan(sgml, own_body=True) == [("tin", "second")]


# The twins.


@pytest.mark.parametrize("task", ["reuters", "imdb"])
def test_twin_resembles_the_real_corpus(task, data_dir):
    corpus = corpora.load_corpus(task, "synthetic", data_dir)
    median, mean, words = {"reuters": (95, 146, 30_979), "imdb": (178, 239, 88_584)}[task]
    assert corpus.synthetic
    assert abs(np.median(corpus.train.lengths) / median - 1) < 0.1
    assert abs(np.mean(corpus.train.lengths) / mean - 1) < 0.05
    assert abs(len(corpus.vocabulary) / words - 1) < 0.05
    sizes = {"reuters": (8_982, 2_246), "imdb": (25_000, 25_000)}[task]
    assert (len(corpus.train), len(corpus.test)) == sizes
    if task == "reuters":
        for split in ("train", "test"):
            counts = np.bincount(getattr(corpus, split).labels, minlength=46).tolist()
            assert counts == synthetic.TOPIC_COUNTS[split]
    else:
        assert np.bincount(corpus.train.labels).tolist() == [12_500, 12_500]
    # Zipf: the most frequent thousand words cover about as much as in English text.
    share = np.mean(corpus.train.ids < 1_000)
    assert 0.6 < share < 0.85


def test_twin_is_deterministic():
    def generate():
        lengths = np.array([40, 10, 200])
        stream = synthetic._background(np.random.default_rng(0), 31_000, lengths.sum())
        return list(synthetic._texts(synthetic._words(31_000), stream, lengths))

    assert generate() == generate()
    words = synthetic._words(90_000)
    assert len(set(words)) == 90_000
    assert all(tokenizers.tokenize(w) == [w] for w in words[:1000])


# Sources and their faults.


def test_auto_without_archive_or_network_is_synthetic_within_15_s(data_dir, no_web, tmp_path):
    began = time.monotonic()
    builder = datasets.prepare(datasets.TASKS["reuters"], "auto", data_dir, str(tmp_path))
    if "synthetic" not in builder.name:  # an earlier test prepared the real one
        builder = datasets.prepare(datasets.TASKS["reuters"], "auto", str(tmp_path), str(tmp_path))
    assert datasets.is_synthetic(builder)
    assert time.monotonic() - began < 15


def test_a_download_that_is_no_archive_is_refused_and_not_kept(tmp_path, monkeypatch):
    server = serve(b"<html>Please log in</html>")
    url = f"http://127.0.0.1:{server.server_port}/a.tar.gz"
    task = datasets.Task(**{**vars(datasets.TASKS["reuters"]), "url": url})
    monkeypatch.delenv(datasets.MANUAL_DIR_VARIABLE, raising=False)
    try:
        with pytest.raises(DataError, match="found one that breaks off"):
            datasets.prepare(task, "auto", str(tmp_path))
    finally:
        server.shutdown()
        server.server_close()
    assert not list(tmp_path.rglob("*.tar.gz*"))


def test_a_manual_dir_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match=r"data\.manual_dir: there is no folder .*nope"):
        datasets.prepare(REUTERS, "auto", str(tmp_path), str(tmp_path / "nope"))


def test_real_never_falls_back(no_web, tmp_path):
    with pytest.raises(DataError, match=r"no aclImdb_v1\.tar\.gz in .*data\.manual_dir"):
        datasets.prepare(datasets.TASKS["imdb"], "real", str(tmp_path), str(tmp_path))


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_CONNECT_SECONDS", 0.3)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # accepts, answers nothing
    try:
        began = time.monotonic()
        assert not datasets._reachable(f"http://127.0.0.1:{server.server_port}/")
        assert time.monotonic() - began < 2
    finally:
        server.server_close()


def serve(content, announced=None):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(announced or len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_download_is_complete_or_absent(tmp_path):
    content = os.urandom(300_000)
    for announced, good in ((None, True), (400_000, False)):
        server = serve(content, announced)
        path = tmp_path / "a.tar.gz"
        path.unlink(missing_ok=True)
        url = f"http://127.0.0.1:{server.server_port}/a.tar.gz"
        if good:
            datasets._download(url, path)
            assert path.read_bytes() == content
        else:
            with pytest.raises(DataError, match="download failed"):
                datasets._download(url, path)
        assert [p.name for p in tmp_path.iterdir()] == (["a.tar.gz"] if good else [])
        server.shutdown()
        server.server_close()


def damaged_archives(folder):
    """Archives that are truncated, foreign, incomplete or not archives at all."""
    good = {
        f"reut2-{i:03d}.sgm": story(["oil"], os.urandom(2_000).hex()).encode() for i in range(22)
    }
    path = folder / reuters_topics.ARCHIVE
    write_archive(path, good)
    whole = path.read_bytes()
    write_archive(path, {"README": b"x"})
    foreign = path.read_bytes()
    write_archive(path, dict(list(good.items())[:21]))
    incomplete = path.read_bytes()
    return path, {
        "truncated": (whole[: len(whole) // 2], "breaks off"),
        "damaged": (whole[:5000] + os.urandom(100) + whole[5100:], "breaks off|found"),
        "foreign": (foreign, "found 0 of 22"),
        "incomplete": (incomplete, "found 21 of 22"),
        "no archive": (b"<html>Not found</html>", "breaks off"),
        "empty": (b"", "breaks off|found 0"),
    }


@pytest.mark.parametrize("source", ["auto", "real"])
def test_bad_archive_is_one_clear_line_and_leaves_nothing(tmp_path, no_web, source):
    manual = tmp_path / "manual"
    manual.mkdir()
    path, cases = damaged_archives(manual)
    for content, message in cases.values():
        path.write_bytes(content)
        root = tmp_path / "data"
        with pytest.raises(DataError, match=message) as caught:
            datasets.prepare(datasets.TASKS["reuters"], source, str(root), str(manual))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        left = {p.name for p in root.rglob("*") if p.is_file()}
        assert left <= {".lock", "metadata.json"}  # of the builder config, not of the data


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("reut2-000.sgm", tarfile.SYMTYPE, "reut2-000.sgm is no plain file"),
        ("reut2-000.sgm", tarfile.LNKTYPE, "reut2-000.sgm is no plain file"),
        ("reut2-000.sgm", tarfile.CHRTYPE, "reut2-000.sgm is no plain file"),
        ("/tmp/reut2-000.sgm", tarfile.REGTYPE, "/tmp/reut2-000.sgm lies outside of it"),
        ("a/../../reut2-000.sgm", tarfile.REGTYPE, "reut2-000.sgm lies outside of it"),
    ],
)
def test_hostile_archive_is_refused_and_nothing_written(tmp_path, no_web, name, kind, message):
    path = tmp_path / reuters_topics.ARCHIVE
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match=f"{path}: refused: .*{message}"):
        datasets.prepare(datasets.TASKS["reuters"], "real", str(tmp_path / "data"), str(tmp_path))
    left = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert left <= {path.name, ".lock", "metadata.json"}


@pytest.mark.parametrize("where", ["a member", "members between", "a header"])
def test_archive_that_inflates_without_end_is_refused(tmp_path, monkeypatch, where):
    monkeypatch.setattr(archive, "_MOST_BYTES", 10_000_000)
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for i in range(20):
            info = tarfile.TarInfo("x.txt" if where == "a member" else f"y{i}")
            info.size = 1_000_000
            if where == "a header":
                info.pax_headers = {"comment": "x" * 1_000_000}
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match="unpacks to more than 10 MiB"):
        archive.read_members(path, re.compile(r"x\.txt"))


PREPARE = """
import sys
from flaxrnn import datasets
builder = datasets.prepare(datasets.TASKS["reuters"], "synthetic", sys.argv[1])
assert builder.info.splits["train"].num_examples == 8982
assert len(list(builder.as_data_source("test"))) == 2246
"""


def start(tmp_path):
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
    )


def test_a_preparation_killed_midway_ends_in_a_good_dataset(tmp_path):
    process = start(tmp_path)
    while not list(tmp_path.glob("*/incomplete.*")):  # it is at work
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.glob("*/incomplete.*"))
    process = start(tmp_path)
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert not list(tmp_path.glob("*/incomplete.*"))


def test_two_preparations_at_once_end_in_one_good_dataset(tmp_path):
    processes = [start(tmp_path) for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert "".join(errors).count("Preparing") == 1
