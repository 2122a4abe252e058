"""Strict process settings, and the corpora that tests share."""

import atexit
import os
import shutil
import signal
import tempfile

# For all processes of the tests, and before JAX. Most of their time would be XLA's: it compiles as
# fast as it can, and compiled programs are shared, but never in the user's folder.
COMPILE_FAST = (
    "--xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)
# A program that another process is still writing is compiled once more.
TORN = "ignore:Error reading persistent compilation cache entry"
if "PYTEST_XDIST_WORKER" not in os.environ:
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {COMPILE_FAST}"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"])
    os.environ["PYTHONWARNINGS"] = f"{os.environ.get('PYTHONWARNINGS', '')},{TORN}".lstrip(",")

# A shell has SIGINT ignored by what it starts in the background; the tests send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import forkserver
import jax
import numpy as np
import pytest
from helpers import WORDS, saved_workdir, shrink
from hypothesis import HealthCheck, settings

from configs import imdb, reuters
from flaxrnn.data import corpora, ragged
from flaxrnn.data.vocabulary import FIRST_WORD, Vocabulary
from flaxrnn.datasets import imdb_sentiment, reuters_topics, synthetic
from flaxrnn.datasets.preparation import MANUAL_DIR_VARIABLE

settings.register_profile(
    "suite",
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", TORN)


@pytest.fixture(scope="module")
def both_count():
    """Lets network and n-grams count alike, for texts that the n-grams all get right.

    The network would get no weight there.
    """
    from flaxrnn.training import calibration  # SciPy takes long to import

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_NGRAMS_ALONE", np.ones(2))
        yield


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Prepared datasets, made once for all processes of the tests, never in the user's folder."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return str(shared / "tensorflow_datasets")


@pytest.fixture
def few_texts(monkeypatch):
    """Makes the synthetic Reuters a corpus of 230 texts, for who prepares it."""
    counts = {"train": [4] * 46, "test": [1] * 46}
    monkeypatch.setattr(synthetic, "TOPIC_COUNTS", counts)


@pytest.fixture
def no_plots(monkeypatch):
    """Leaves out the plots of a run, which take longer than its training."""
    forkserver.leave_out_plots(monkeypatch.setattr)


@pytest.fixture
def manual_dir():
    """The folder of the real archives; without it the test is skipped."""
    folder = os.environ.get(MANUAL_DIR_VARIABLE)
    if not folder:
        pytest.skip(f"needs the real archives: set {MANUAL_DIR_VARIABLE} to their folder")
    return folder


@pytest.fixture(scope="session")
def imdb_workdir(tmp_path_factory):
    """A workdir that can predict two classes; tests must not change it."""
    config = shrink(imdb.get_config())
    config.train.update({"batch_size": 6, "eval_batch_size": 17})
    return saved_workdir(tmp_path_factory.mktemp("workdirs") / "imdb", config, ["neg", "pos"])


@pytest.fixture(scope="session")
def reuters_workdir(tmp_path_factory):
    """As `imdb_workdir`, with three classes and padding that is read as text."""
    config = shrink(reuters.get_config("keras"))
    config.train.update({"batch_size": 6, "eval_batch_size": 17})
    labels = ["earn", "acq", "grain"]
    return saved_workdir(tmp_path_factory.mktemp("workdirs") / "reuters", config, labels)


def tiny_split(rng, n, classes):
    """Texts of 1 to 30 tokens whose label is said by their last token."""
    labels = rng.integers(0, classes, n).astype(np.int32)
    lengths = rng.integers(1, 30, n)
    offsets = np.append(0, np.cumsum(lengths))
    ids = rng.integers(FIRST_WORD, FIRST_WORD + len(WORDS), offsets[-1]).astype(np.int32)
    ids[offsets[1:] - 1] = FIRST_WORD + labels % len(WORDS)
    return ragged.RaggedTexts(ids, offsets, labels)


@pytest.fixture
def tiny_corpus(monkeypatch):
    """Replaces every corpus by a tiny one, synthetic to the loop, with the task's classes."""
    asked = []

    def load_corpus(task, source="auto", data_dir=None, manual_dir=None, **options):
        asked.append((task, source))
        rng = np.random.default_rng(0)
        labels = {"reuters": reuters_topics.LABELS, "imdb": imdb_sentiment.LABELS}
        names = labels[task]
        return corpora.Corpus(
            name=f"tiny_{task}",
            synthetic=True,
            label_names=names,
            vocabulary=Vocabulary(WORDS),
            train=tiny_split(rng, 50, len(names)),
            test=tiny_split(rng, 23, len(names)),
        )

    monkeypatch.setattr(corpora, "load_corpus", load_corpus)
    return asked
