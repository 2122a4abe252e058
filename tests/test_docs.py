"""Every Python and shell block of the documentation runs, on tiny corpora in a temporary folder.

The blocks of a page run in order in one folder, where `train.py` and the configs get the values in
`SHORT`. A Python block that begins with a comment `# NAME.py` is also saved under that name. A
block that cannot run has `<!-- not run: why -->` on the line before it.
"""

import functools
import json
import os
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import forkserver
import pytest
import tensorflow_datasets as tfds
from helpers import ROOT, start_forkserver

from flaxrnn.datasets import (
    download,
    imdb_sentiment,
    preparation,
    registry,
    reuters_topics,
    synthetic,
)

pytestmark = pytest.mark.timeout(900)  # the first test waits for all pages

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *NOTEBOOKS]
TRANSLATIONS = {  # the Korean page → the English one
    ROOT / "README.ko.md": ROOT / "README.md",
    ROOT / "docs/ko/tutorial.md": ROOT / "docs/tutorial.md",
    ROOT / "docs/ko/own-data.md": ROOT / "docs/howto/own-data.md",
    ROOT / "docs/ko/runs.md": ROOT / "docs/howto/runs.md",
}
RUN = ("python", "sh")
SHOWN = ("text", "{toctree}", "{literalinclude}", "{eval-rst}")
# Of every config, and once more of every `train.py`, whatever flags it has: little to train, and
# few different programs to compile, all of them small.
SHORT = {
    "train.epochs": 1,
    "train.batch_size": 20,
    "train.learning_rate": 0.01,
    "train.schedule": "constant",
    "train.averaging": False,
    "train.baseline": False,
    "train.explain": False,
    "data.num_words": 1000,
    "data.maxlen": 50,
    "data.max_padding": 1.0,
    "model.embedding_size": 16,
    "model.hidden_size": 16,
    "model.bidirectional": False,
    "model.pooling": "last",
    "model.segment": 0,
    "model.ngram_fit": "quick",
}
CONFIG = """
from shipped import {name} as shipped

def get_config(*variant):
    config = shipped.get_config(*variant)
    config.update_from_flattened_dict({short})
    return config
"""


class Block(NamedTuple):
    line: int
    language: str
    code: str
    reason: str | None  # why it is not run


def blocks(path):
    """The fenced blocks of a page; of a notebook, a single one of all its code."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        return [Block(1, "python", "\n\n".join(code), None)]
    found, text = [], path.read_text("utf-8")
    pattern = r"(?ms)^(?:<!-- not run: ([^\n]+) -->\n)?^```([^\n]*)\n(.*?)^```$"
    for match in re.finditer(pattern, text):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, match[2], match[3], match[1]))
    assert text.count("```") == 2 * len(found), f"{path}: unclosed or indented fence"
    return found


def page_id(path):
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def tiny_data_dir(tmp_path_factory):
    """All corpora, real and synthetic, prepared from a few generated texts."""
    folder = tmp_path_factory.mktemp("tiny")
    counts = {"train": [3] * 46, "test": [1] * 46}
    with pytest.MonkeyPatch.context() as patch:

        def reuters(builder, dl_manager):
            def examples(split):
                for key, example in synthetic.SyntheticReutersTopics._generate_examples(
                    None, split
                ):
                    yield key, {**example, "position": key}

            return {split: examples(split) for split in counts}

        def imdb(builder, dl_manager):
            make = synthetic.SyntheticImdbSentiment._generate_examples
            return {split: make(None, split, 0, n) for split, n in (("train", 120), ("test", 40))}

        patch.setattr(synthetic, "TOPIC_COUNTS", counts)
        patch.setattr(reuters_topics.ReutersTopics, "_split_generators", reuters)
        patch.setattr(imdb_sentiment.ImdbSentiment, "_split_generators", imdb)
        patch.setattr(synthetic.SyntheticImdbSentiment, "_split_generators", imdb)
        patch.setattr(download, "reachable", lambda url: False)
        for name in ("reuters", "imdb"):
            task = registry.TASKS[name]
            preparation.prepare(task, "synthetic", str(folder))
            builder = task.builder(data_dir=folder, config=task.config, file_format="array_record")
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=folder)
            )
    return folder


@pytest.fixture(scope="module")
def environment(tiny_data_dir):
    """Of all blocks, without what differs by page."""
    return {
        **os.environ,
        "TFDS_DATA_DIR": str(tiny_data_dir),
        "PYTHONWARNINGS": "ignore",
        "MPLBACKEND": "agg",
        forkserver.NO_PLOTS: "1",
    }


def run(path, folder, environment, python):
    """Runs the blocks of a page; returns a description of the first failure, or None."""
    for name in ("train.py", "benchmarks", "examples"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "shipped").symlink_to(ROOT / "configs")
    (folder / "configs").mkdir()
    for config in (ROOT / "configs").glob("*.py"):
        target = folder / "configs" / config.name
        if config.stem in ("__init__", "default"):
            target.symlink_to(config)
        else:
            target.write_text(CONFIG.format(name=config.stem, short=SHORT))
    texts = [
        f'"{word}, {end}",{label}\n'
        for label, word in (("good", "joy"), ("bad", "bore"))
        for end in "what a day it is to be at the sea or on some hill".split()
    ]
    (folder / "reviews.csv").write_text("text,label\n" + "".join(texts))
    both = texts[0].replace("good", '"good,bad"')
    (folder / "news.csv").write_text("text,label\n" + "".join([*texts, both, "rain,\n"]))
    (folder / "more.txt").write_text("What a joy of a day!\nA bore of a day.\n" * 5)
    (folder / "poems.txt").write_text("The sea is wide\nA hill is high\n" * 20)
    (folder / "bin").mkdir()
    command = folder / "bin" / "python"
    flags = " ".join(f"--config.{name}={value}" for name, value in SHORT.items())
    short = f'[ "$1" = train.py ] && set -- "$@" {flags}'
    command.write_text(f'#!/bin/sh\n{short}\nexec {shlex.join(python)} "$@"\n')
    command.chmod(0o755)
    environment = {
        **environment,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{folder}:{ROOT}",
    }
    for block in to_run(path):
        if saved := re.match(r"# (\w+\.py)\n", block.code):
            (folder / saved[1]).write_text(block.code)
        shell = (
            ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [str(command), "-c"]
        )
        done = subprocess.run(
            [*shell, block.code],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            place = f"{page_id(path)}, line {block.line}"
            return f"{place}: exit code {done.returncode}\n{block.code}\n{done.stdout[-3000:]}"
    return None


def to_run(path):
    """The blocks of a page that run; none of a translation."""
    found = [] if path in TRANSLATIONS else blocks(path)
    return [block for block in found if block.language in RUN and not block.reason]


RUNNABLE = sorted(filter(to_run, PAGES), key=lambda path: -len(to_run(path)))  # the longest first


@pytest.fixture(scope="module")
def outcomes(environment, tmp_path_factory):
    """Runs all pages, one per core at a time; page → failure or None."""
    folders = [tmp_path_factory.mktemp(path.stem) for path in RUNNABLE]
    run_in = functools.partial(run, environment=environment, python=start_forkserver(environment))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(RUNNABLE, pool.map(run_in, RUNNABLE, folders), strict=True))


@pytest.mark.parametrize("path", RUNNABLE, ids=page_id)
def test_blocks_run(path, outcomes):
    assert outcomes[path] is None, outcomes[path]


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_every_block_says_what_it_is(path):
    for block in blocks(path):
        where = f"{page_id(path)}, line {block.line}"
        known = block.language.partition(" ")[0] in (*RUN, *SHOWN)
        assert known, f"{where}: unknown language {block.language!r}"
        assert block.language in RUN or not block.reason, (
            f"{where}: `not run` before a block that never runs"
        )


@pytest.mark.parametrize(("translation", "path"), TRANSLATIONS.items(), ids=page_id)
def test_translations_say_what_the_english_pages_say(translation, path):
    def code(path):  # without comments
        return [
            (block.language, [re.sub(r"\s*#.*", "", line) for line in block.code.splitlines()])
            for block in blocks(path)
            if block.language in RUN
        ]

    def figures(path):
        return set(re.findall(r"\d+(?:[.,]\d+)+", path.read_text("utf-8")))

    def outline(path):  # its headings by level, and its tables, as columns of each row
        text = re.sub(r"(?ms)^```.*?^```$", "", path.read_text("utf-8"))
        rows = re.findall(r"(?m)^\|.*\|$", text)
        return re.findall(r"(?m)^#+(?= )", text), [row.count("|") for row in rows]

    assert code(translation) == code(path)
    assert figures(translation) == figures(path)
    assert outline(translation) == outline(path)


@pytest.mark.parametrize(("translation", "path"), TRANSLATIONS.items(), ids=page_id)
def test_translations_and_english_pages_begin_with_links_to_each_other(translation, path):
    for page, name, other in ((path, "한국어", translation), (translation, "English", path)):
        link = os.path.relpath(other, page.parent)
        assert page.read_text("utf-8").splitlines()[2] == f"[{name}]({link})"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=page_id)
def test_notebooks_have_no_outputs(path):
    book = json.loads(path.read_text("utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    cells = book["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})
