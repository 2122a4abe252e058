"""What several test files share."""

import atexit
import contextlib
import csv
import functools
import io
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

import flaxrnn
from flaxrnn.config import parse
from flaxrnn.data import corpora, tokenizers
from flaxrnn.data.profile import Profile
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.inference import predictor, saved
from flaxrnn.nn import models
from flaxrnn.reporting import page, report
from flaxrnn.training import checkpoint, metrics
from flaxrnn.training.confidence import Confidence

ROOT = Path(__file__).parents[1]
# Not compiled as one program, every operation would be by itself.
init_params = jax.jit(models.init_params, static_argnums=0)
logits = jax.jit(models.logits, static_argnums=0)
WORDS = ["the", "a", "of", "and", "good", "bad", "not", "very", "film", "plot", "oil", "grain"]
RESULT = {
    "task", "dataset", "data_source", "seed", "parameters", "epochs", "best_epoch",
    "refit", "val_loss",
    "val_accuracy", "val_macro_f1", "test_loss", "test_accuracy", "test_macro_f1",
    "test_accuracy_interval", "test_macro_f1_interval", "largest_class_accuracy", "test_examples",
    "temperature", "test_calibration_error", "skipped_steps", "seconds",
    "train_examples_per_second", "train_tokens_per_second", "buckets", "resident", "memory",
    "devices", "versions", "commit", "command", "warnings",
}  # fmt: skip


def shrink(config, epochs=2, **model):
    config.data.maxlen = 20
    config.data.num_words = 16
    config.data.max_padding = 0.5  # few lengths to compile
    config.data.validation_fraction = 0.2
    config.model.update({"embedding_size": 6, "hidden_size": 5, **model})
    config.model.conv_filters = min(config.model.conv_filters, 4)
    config.train.update({"batch_size": 8, "eval_batch_size": 7, "epochs": epochs})
    config.train.baseline = config.train.explain = False
    return config


@contextlib.contextmanager
def compiled_as_for_users():
    """For runs that train for so long that it pays; see `COMPILE_FAST` in conftest.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XLA_FLAGS", raising=False)  # where flaxrnn's own options are missing
        yield


def weights(workdir):
    (params,) = saved.load(workdir).members
    return params


def saved_workdir(folder, config, label_names, tokenizer="keras", seed=0):
    """What a run leaves for predictions, with random parameters that tell texts apart."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "labels.json").write_text(json.dumps(label_names))
    Vocabulary(WORDS, tokenizers.Tokenizer(tokenizer)).save(folder / "vocabulary.json")
    model = models.build(parse(config).model, config.data.num_words, len(label_names))
    shapes = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    checkpoint.write_weights(folder / "checkpoints", params)
    return folder


def saved_model(config, label_names, seeds=(0,), tokenizer="keras", classifier=None):
    """What is read from a workdir of runs with random parameters; see `saved_workdir`."""
    parsed = parse(config)
    model = models.build(parsed.model, config.data.num_words, len(label_names))
    shapes = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    members = []
    for rng in map(np.random.default_rng, seeds):
        members.append(
            jax.tree.map(lambda x, rng=rng: rng.normal(size=x.shape).astype(np.float32), shapes)
        )
    vocabulary = Vocabulary(WORDS, tokenizers.Tokenizer(tokenizer))
    return saved.SavedModel(model, tuple(members), vocabulary, label_names, parsed, classifier)


def saved_seeds(folder, config, label_names, seeds=(0, 1)):
    """What `train.py --seeds` leaves for predictions; see `saved_workdir`."""
    folder.mkdir()
    for seed in seeds:
        run = saved_workdir(saved.folder_of_seed(folder, seed), config, label_names, seed=seed)
        (run / "result.json").write_text("{}")
    record = {"members": [f"seed-{seed}" for seed in seeds]}
    (folder / saved.SEEDS).write_text(json.dumps(record))
    return folder


def train_until_killed(config, workdir, epochs=1):
    """Trains until a run of so many epochs is killed, just after the last one was reported."""
    reported = report.Report.epoch

    def killed(self, history, *arguments):
        reported(self, history, *arguments)
        if len(history) == epochs:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report.Report, "epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            flaxrnn.train(config, workdir)


loaded = functools.cache(predictor.load)


def start_forkserver(environment):
    """Starts a server of commands; returns what to write in place of `python`."""
    script = ROOT / "tests" / "forkserver.py"
    path = Path(tempfile.mkdtemp()) / "socket"
    server = subprocess.Popen(
        [sys.executable, script, "serve", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the tests
    )

    def stop():
        server.stdin.close()
        server.wait()
        shutil.rmtree(path.parent)

    atexit.register(stop)
    while not path.exists():
        assert server.poll() is None, "the forkserver does not start"
        time.sleep(0.01)
    return [sys.executable, "-IS", str(script), str(path)]


@functools.cache
def python():
    """`python` for commands that need not import the libraries anew; see forkserver.py."""
    return start_forkserver(os.environ)


def run(*arguments, cwd=ROOT, env=None, prefix=()):
    """`train.py` in a process of its own."""
    return subprocess.run(
        [*prefix, sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


# A class name and text that would do harm where HTML is not escaped.
ATTACK = "<script>console.error('x')</script> & \"quoted\""


PROFILE = Profile(
    texts={"train": 1_234, "val": 137, "test": 150},
    classes={ATTACK: 900, "unseen": 621},
    tokenizer="words",
    median_length=12.5,
    longest=4_321,
    maxlen=256,
    cut=0.0625,
    num_words=8_000,
    unknown={"train": 0.01, "test": 0.125},
    scripts={"Hangul": 0.9, "Latin": 0.0991, "Greek": 0.0009},
)


def finished_run(classes=2, epochs=7, **changes):
    """A made-up run with hostile texts: result, history and details, as reports are given them."""
    rng = np.random.default_rng(0)
    confusion = np.diag(rng.integers(1, 900, classes))
    confusion[rng.integers(0, classes, 90), rng.integers(0, classes, 90)] += 7
    confusion[-1] = 0  # a class without texts, as in reuters_clean
    history = [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "train_accuracy": 1 - 0.5 / epoch,
            "val_loss": 2.2 / min(epoch, 4) + 0.1 * epoch,
            "val_accuracy": 0.8 - 0.3 / epoch,
            "val_macro_f1": 0.4 - 0.2 / epoch,
            "skipped_steps": 0,
            "train_examples_per_second": 5_419.2,
            "seconds": 4.25,
        }
        for epoch in range(1, epochs + 1)
    ]
    best = history[min(4, epochs) - 1]
    seconds = {
        "startup": 1.0,
        "ngrams": 0.0,
        "compile": 2.0,
        "train": 30.0,
        "input": 0.5,
        "eval": 2.0,
    }
    result = {
        "task": "reuters",
        "dataset": "reuters_topics/keras/1.0.0",
        "data_source": "real",
        "seed": 3,
        "parameters": 130_862,
        "epochs": epochs,
        "best_epoch": best["epoch"],
        "refit": False,
        "val_loss": best["val_loss"],
        "val_accuracy": best["val_accuracy"],
        "val_macro_f1": best["val_macro_f1"],
        "test_loss": 1.0647,
        "test_accuracy": 0.7386,
        "test_macro_f1": 0.2801,
        "test_accuracy_interval": [0.7201, 0.7563],
        "test_macro_f1_interval": [0.2510, 0.3092],
        "largest_class_accuracy": 0.3619,
        "test_examples": int(confusion.sum()),
        "temperature": 1.0,
        "test_calibration_error": 0.1,
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
        "warnings": [],
        **changes,
    }
    details = page.Details(
        label_names=[*(f"class-{i:02d}" for i in range(classes - 2)), ATTACK, "unseen"],
        class_scores=metrics.class_scores(
            np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
        ),
        confusion=np.stack([*np.nonzero(confusion), confusion[confusion > 0]], axis=1),
        mistakes=[
            page.Mistake(f"{ATTACK} and so on " + "word " * 90, classes - 2, classes - 1, 0.98765),
            page.Mistake("short", classes - 1, classes - 2, 0.5),
        ],
        confidence=Confidence(rng.uniform(0.3, 1, 500), rng.random(500) < 0.7),
        config={"task": "reuters", "data.manual_dir": ATTACK, "train.averaging": True},
        summary=f"a summary {ATTACK}",
        profile=PROFILE,
    )
    return result, history, details


def events(folder):
    """The TensorBoard events in the files of a folder, in order."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:  # length, checksum, event, checksum
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


# Archives, and a server of them


def write_archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


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


# Custom texts


ROWS = [
    (f"{a} {b}", "up" if a == "good" else "down") for a in ("good", "bad") for b in "abcdefghij"
]
THINGS = ["영화", "음식", "서비스", "배우", "음악", "이야기", "화면", "자막"]
WHERE = ["어제 본", "이번에 만난", "친구와 함께한", "기대했던", "처음 접한", "소문난"]
SAYS = {
    "긍정": ["정말 훌륭했어요", "최고였습니다!", "아주 좋았다", "또 만나고 싶어요"],
    "부정": ["너무 지루했어요", "최악이었습니다…", "정말 별로였다", "돈이 아까워요"],
    "중립": ["그저 그랬어요", "보통이었습니다.", "나쁘지는 않다", "딱히 할 말이 없어요"],
}


def korean(n=360):
    """Texts in three classes, one in ten of which has words that no other text has."""
    rng = np.random.default_rng(0)
    rows = [
        (f"{where} {thing}, {what}", label)
        for label, says in SAYS.items()
        for where, thing, what in itertools.product(WHERE, THINGS, says)
    ]
    return [rows[i] for i in rng.permutation(len(rows))[:n]]


def write_csv(path, rows, header=("text", "label"), encoding="utf-8", **options):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, **options).writerows([header, *rows])
    return path


def load_custom(path, tmp_path, tokenizer="words", num_words=500, **fields):
    texts = corpora.CustomTexts(str(path), **fields)
    folder = str(tmp_path / "data")
    return corpora.load_corpus(
        "text", data_dir=folder, tokenizer=tokenizer, num_words=num_words, custom=texts
    )


def texts_of(split, corpus):
    return [corpus.vocabulary.decode(ids) for ids in split.texts()]


def everything(corpus):
    """Decoded text and class of every example, in no order."""
    return sorted(
        (shown, corpus.label_names[label])
        for split in (corpus.train, corpus.test)
        for shown, label in zip(texts_of(split, corpus), split.labels, strict=True)
    )


def write_keras_file(path, weights, described):
    """Writes HDF5 weights, as a `.keras` file together with how the model is described."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps(described))
            archive.writestr("model.weights.h5", weights)
    else:
        path.write_bytes(weights)
    return path
