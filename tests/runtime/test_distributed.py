"""Several devices and processes give the losses, order and counts of a single device."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, korean, python, weights, write_csv

from flaxrnn.errors import ConfigError, ProcessError
from flaxrnn.runtime import distributed

CASES = [  # of benchmarks/peers.py
    "other field",
    "SIGKILL of 0, reading",
    "SIGTERM of 1, compiling",
    "SIGSTOP of 1, training",
]
LOSSES = """
import contextlib, itertools, json, sys
import jax
from configs import imdb
from flaxrnn.data import batching, corpora
from flaxrnn.nn import models
from flaxrnn.runtime import distributed
from flaxrnn.config import parse
from flaxrnn.training import optimizers, steps, trainer

folder, memory, *flags = sys.argv[1:]
address, process_id = flags or (None, None)
distributed.initialize(address, address and 2, address and int(process_id))
together = contextlib.ExitStack()
together.enter_context(distributed.fail_fast())
config = imdb.get_config()
config.model.update(embedding_size=8, conv_filters=6, hidden_size=5)
corpus = corpora.load_corpus("reuters", "synthetic", folder)
training_data = batching.prepare_data(
    corpus, num_words=200, maxlen=30, padding="post", max_padding=0.1, validation="train",
    validation_fraction=0.1,
)
model = models.build(parse(config).model, 200, 46)
optimizer = optimizers.adam(1e-3)
trainer.STEPS_PER_DISPATCH = 1
train = trainer.Trainer(
    training_data, model, optimizer, averaging=True, batch_size=64, eval_batch_size=100,
    device_memory=float(memory), seed=0,
)
state = train.replicate(jax.tree.map(jax.numpy.copy, steps.init_state(model, optimizer, 0)))
train.compile(state)
losses = []
for state, sums in itertools.islice(train.epoch(state, 1), 50):
    losses.append(float(sums["loss"]))
sums, found = train.evaluate(state.average, "test")
counts = sums["class_counts"][1]
if distributed.is_primary():
    print(json.dumps({
        "devices": jax.device_count(), "losses": losses, "counts": list(counts),
        "probability": found["probability"].tolist(),
    }))
together.close()
"""


@pytest.fixture(scope="module", autouse=True)
def peers(data_dir):
    """The cases, in processes that mostly wait: beside all tests before the one that asks."""
    command = ["-m", "benchmarks.peers", "--hurry", f"--data_dir={data_dir}", "--only", *CASES]
    with subprocess.Popen(  # not by the fork server: JAX is to be imported with another setting
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def free_address():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return f"localhost:{found.getsockname()[1]}"


def start(*command, devices, **env):
    env |= {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*python(), "-u", *map(str, command)],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(*arguments, devices, flags=((),), variables=({},)):
    started = [
        start("-c", LOSSES, *arguments, *given, devices=devices, **env)
        for given, env in zip(flags, variables, strict=True)
    ]
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), ended
    return json.loads(ended[0][0].splitlines()[-1])


def open_mpi(rank):
    """The variables by which Open MPI tells a process its rank."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{4096 * (os.getpid() % 4096)}.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
    }


def test_losses_order_and_counts_do_not_depend_on_devices_and_processes(data_dir):
    """With dropout, convolution and buckets; with texts resident on the devices and streamed; with
    processes that are given their place and two that detect it."""
    one = losses(data_dir, 1024, devices=1)
    assert len(one["losses"]) == 50
    assert sum(one["counts"]) == 2_246
    address = free_address()
    given = {"flags": [(address, 0), (address, 1)], "variables": [{}, {}]}
    detected = {"flags": [(), ()], "variables": [open_mpi(0), open_mpi(1)]}
    for devices, memory, processes in [(8, 1024, {}), (2, 1024, given), (2, 0, detected)]:
        other = losses(data_dir, memory, devices=devices, **processes)
        assert other["devices"] == (4 if processes else 8)
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
        np.testing.assert_allclose(other["probability"], one["probability"], rtol=1e-3)
        assert other["counts"] == one["counts"]


SMALL = [
    "--config=configs/reuters.py",
    "--config.data.source=synthetic",
    "--config.data.maxlen=30",
    "--config.model.hidden_size=8",
    "--config.train.batch_size=64",
    "--config.train.baseline=False",
    "--config.train.explain=False",
]


def train(workdir, data_dir, epochs, devices, *more):
    flags = [f"--workdir={workdir}", f"--config.data.data_dir={data_dir}"]
    return start(
        "train.py", *SMALL, *flags, f"--config.train.epochs={epochs}", *more, devices=devices
    )


def train_on_two(workdir, data_dir, epochs, devices):
    address = free_address()
    return [
        train(
            workdir,
            data_dir,
            epochs,
            devices,
            f"--coordinator={address}",
            "--num_processes=2",
            f"--process_id={i}",
        )
        for i in range(2)
    ]


def wait_for_epoch(process):
    for line in process.stdout:
        if line.startswith("epoch "):
            return
    pytest.fail(process.stderr.read())


def history(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [[row["train_loss"], row["val_loss"]] for row in rows]


def test_a_run_resumes_on_other_devices_and_processes(data_dir, tmp_path):
    straight = train(tmp_path / "straight", data_dir, 7, 1)
    straight.communicate(timeout=120)
    both = train_on_two(tmp_path / "moved", data_dir, 7, 1)
    wait_for_epoch(both[0])
    both[1].send_signal(signal.SIGTERM)  # to one of them only: both stop at the same step
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [128 + signal.SIGTERM] * 2
    assert all("SIGTERM: saved after step" in error for error in errors)
    four = train(tmp_path / "moved", data_dir, 7, 4)
    wait_for_epoch(four)
    four.send_signal(signal.SIGINT)
    assert "SIGINT: saved after step" in four.communicate(timeout=60)[1]
    assert four.returncode == 128 + signal.SIGINT
    one = train(tmp_path / "moved", data_dir, 7, 1)
    assert "Resuming" in one.communicate(timeout=120)[0]
    moved = history(tmp_path / "moved")
    assert len(moved) == 7
    np.testing.assert_allclose(moved, history(tmp_path / "straight"), rtol=1e-3)


def test_two_processes_share_the_n_gram_classifier(data_dir, tmp_path):
    """The primary process fits it; the others are sent the scores."""
    path = write_csv(tmp_path / "reviews.csv", korean(120))
    flags = [
        "--config=configs/text.py",
        f"--config.data.path={path}",
        f"--config.data.data_dir={data_dir}",
        "--config.data.num_words=100",
        "--config.model.hidden_size=8",
        "--config.train.batch_size=8",
        "--config.train.epochs=2",
        "--config.train.baseline=False",
        "--config.train.explain=False",
    ]
    address = free_address()
    alone = [start("train.py", *flags, f"--workdir={tmp_path / 'alone'}", devices=2)]
    both = [
        start(
            "train.py",
            *flags,
            f"--workdir={tmp_path / 'both'}",
            f"--coordinator={address}",
            "--num_processes=2",
            f"--process_id={i}",
            devices=1,
        )
        for i in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in alone + both]
    assert [process.returncode for process in alone + both] == [0] * 3, ended
    np.testing.assert_allclose(history(tmp_path / "both"), history(tmp_path / "alone"), rtol=1e-4)
    blends = [weights(tmp_path / name)["blend"]["weights"] for name in ("alone", "both")]
    np.testing.assert_allclose(*blends, rtol=1e-2)
    assert "n-grams of words" not in ended[2][1]


def test_the_other_process_ends_in_one_line_whatever_happens_to_one(peers):
    """Some of the cases of the benchmark, with short waits for a process that is silent."""
    output, errors = peers.communicate(timeout=120)
    assert peers.returncode == 0, output + errors
    assert f"{len(CASES)} of {len(CASES)} passed" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:1", None, 0), "--num_processes: missing"),
        ((None, 2, None), "--coordinator: missing"),
        (("localhost", 2, 0), "--coordinator: 'localhost' must be HOST:PORT"),
        (("", 2, 0), "--coordinator: '' must be HOST:PORT"),
        (("localhost:1", 0, 0), "--num_processes: 0 must be at least 1"),
        (("localhost:1", 2, 2), "--process_id: 2 must be at least 0 and less than --num_processes"),
    ],
)
def test_invalid_flags_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        distributed.initialize(*arguments)


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_waits_says_for_whom_and_gives_up(index, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(distributed, "_JOIN_SECONDS", 0.5)
    address = free_address()
    awaited = "process 1" if index == 0 else f"process 0 at {address} (Connection refused)"
    with pytest.raises(ProcessError) as error:
        distributed.initialize(address, 2, index)
    assert str(error.value) == f"process {index} of 2: waited 0.5 s for {awaited}"
    assert capsys.readouterr().err == f"process {index} of 2: waiting for {awaited} …\n"


def test_a_port_that_is_in_use_is_named():
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        message = rf"--coordinator: process 0 cannot listen on port {port} \(Address already in use"
        with pytest.raises(ConfigError, match=message):
            distributed.initialize(f"localhost:{port}", 2, 0)


def test_without_a_cluster_there_is_one_process():
    alone = start(
        "-c",
        "from flaxrnn.runtime import distributed; distributed.initialize(None, None, None)",
        devices=1,
    )
    assert alone.communicate(timeout=60) == ("", "")
    assert alone.returncode == 0
    assert distributed.is_primary()
    assert distributed.broadcast({"a": [1.5, None]}) == {"a": [1.5, None]}
