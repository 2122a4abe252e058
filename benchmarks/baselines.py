"""The chapter's two models in flaxrnn and in the frameworks it is compared with.

Each framework is a function that takes a `Case` and returns its `Workload`: a call that computes
one training step or one inference pass and waits for the result. Each runs in a separate process,
see `benchmarks.throughput`: Keras fixes its backend on import, and every framework has its own
thread pool.

    python -m benchmarks.baselines PyTorch      reads a case as JSON, then one line per timing
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from benchmarks.cases import Case, Workload, config_for, random_batch, short_texts, words_of


def flaxrnn(case: Case) -> Workload:
    """This package, as its training loop runs it: many steps per dispatch."""
    import jax

    from flaxrnn.inference import folding, predictor, programs
    from flaxrnn.runtime import devices

    devices.initialize()
    saved = _untrained(case)
    model = saved.model
    if case.mode == "serve":
        texts, service = short_texts(case), predictor.TextPredictor(saved)
        return Workload(lambda: service.predict(texts))
    mesh = devices.make_mesh(case.batch)
    tokens, labels = random_batch(case)
    lengths = np.full(len(tokens), tokens.shape[1], np.int32)
    if case.mode == "infer":
        variables = folding.fold(model, saved.members[0])
        variables = devices.shard(variables, mesh, jax.sharding.PartitionSpec())
        forward = programs.predict_program(model, mesh)
        return Workload(lambda: np.asarray(forward(variables, tokens, lengths)))
    texts = {"tokens": tokens.astype(np.uint16), "lengths": lengths, "labels": labels}
    return _flaxrnn_training(case, saved.config.train, model, mesh, texts)


def _untrained(case: Case) -> Any:
    """The case's model with initial parameters, as if read from a workdir."""
    import jax

    from flaxrnn.data.vocabulary import Vocabulary
    from flaxrnn.inference.saved import SavedModel
    from flaxrnn.nn import models

    config = config_for(case)
    label_names = [f"label{i}" for i in range(46 if case.model == "reuters" else 2)]
    model = models.build(config.model, config.data.num_words, len(label_names))
    params = models.init_params(model, jax.random.key(0))
    return SavedModel(model, (params,), Vocabulary(words_of(case)), label_names, config, None)


def _flaxrnn_training(case: Case, settings: Any, model: Any, mesh: Any, texts: Any) -> Workload:
    import functools

    import jax

    from flaxrnn.data import batching
    from flaxrnn.runtime import devices
    from flaxrnn.training import optimizers, parallel, steps, trainer

    optimizer = optimizers.adam(settings.learning_rate)
    state = jax.tree.map(jax.numpy.copy, steps.init_state(model, optimizer, 0))
    replicated = jax.sharding.PartitionSpec()
    state, texts = devices.shard((state, texts), mesh, replicated)
    count = trainer.STEPS_PER_DISPATCH
    batches = [batching.Batch(0, np.arange(case.batch))] * count
    (group,) = batching.group_batches(batches, case.batch, count, mesh.size)
    group = devices.shard(group, mesh, parallel.GROUP_SPEC)
    stop = devices.shard(np.zeros(mesh.size, np.int32), mesh, parallel.STOP_SPEC)
    train_steps = functools.partial(
        steps.train_steps,
        model=model,
        optimizer=optimizer,
        averaging=settings.averaging,
        buckets=(case.length,),
    )
    train_steps = parallel.in_parallel(
        train_steps, mesh, replicated, parallel.STOP_SPEC, donate=True
    )

    def run() -> None:
        nonlocal state
        state, sums = train_steps(state, texts, group, stop)
        jax.block_until_ready(sums)

    def hlo() -> str:
        return train_steps.lower(state, texts, group, stop).compile().as_text()

    return Workload(run, count, hlo)


def flax(case: Case) -> Workload:
    """Flax's nn.RNN and OptimizedLSTMCell, with optax."""
    import flax.linen as nn
    import jax
    import optax

    class Model(nn.Module):
        @nn.compact
        def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
            if case.model == "reuters":
                x = nn.Embed(1_000, 100)(tokens)
            else:
                x = nn.Embed(5_000, 100)(tokens)
                x = nn.Dropout(0.5, deterministic=not train)(x)
                x = nn.relu(nn.Conv(64, (5,), padding="VALID")(x))
                x = nn.max_pool(x, (4,), (4,))
            x = nn.RNN(nn.OptimizedLSTMCell(case.hidden))(x)[:, -1]
            return nn.Dense(46 if case.model == "reuters" else 1)(x)

    tokens, labels = random_batch(case)
    model, optimizer = Model(), optax.adam(1e-3)
    params = model.init(jax.random.key(0), tokens, train=False)
    if case.mode == "infer":
        forward = jax.jit(lambda params: model.apply(params, tokens, train=False))
        return Workload(lambda: forward(params).block_until_ready())

    def loss(params: Any, key: jax.Array) -> jax.Array:
        logits = model.apply(params, tokens, train=True, rngs={"dropout": key})
        if case.model == "reuters":
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels).mean()

    @jax.jit
    def step(params: Any, opt_state: Any, key: jax.Array) -> tuple:
        value, gradients = jax.value_and_grad(loss)(params, key)
        updates, opt_state = optimizer.update(gradients, opt_state)
        return optax.apply_updates(params, updates), opt_state, jax.random.split(key)[0], value

    carry = (params, optimizer.init(params), jax.random.key(1))

    def run() -> None:
        nonlocal carry
        *carry, value = step(*carry)
        value.block_until_ready()

    return Workload(run)


def torch(case: Case) -> Workload:
    """PyTorch's nn.LSTM."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            reuters = case.model == "reuters"
            self.embed = nn.Embedding(1_000 if reuters else 5_000, 100)
            self.conv = None if reuters else nn.Conv1d(100, 64, 5)
            self.lstm = nn.LSTM(100 if reuters else 64, case.hidden, batch_first=True)
            self.dense = nn.Linear(case.hidden, 46 if reuters else 1)

        def forward(self, tokens: Any) -> Any:
            x = self.embed(tokens)
            if self.conv is not None:
                x = nn.functional.dropout(x, 0.5, self.training)
                x = nn.functional.relu(self.conv(x.transpose(1, 2)))
                x = nn.functional.max_pool1d(x, 4).transpose(1, 2)
            _, (h, _) = self.lstm(x)
            return self.dense(h[0])

    tokens, labels = (torch.from_numpy(a).long() for a in random_batch(case))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens, labels, model = tokens.to(device), labels.to(device), Model().to(device)
    sync = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    if case.mode == "infer":
        model.eval()

        def infer() -> None:
            with torch.inference_mode():
                model(tokens)
            sync()

        return Workload(infer)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def run() -> None:
        optimizer.zero_grad()
        logits = model(tokens)
        if case.model == "reuters":
            loss = nn.functional.cross_entropy(logits, labels)
        else:
            loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        loss.backward()
        optimizer.step()
        sync()

    return Workload(run)


def chapter_model(task: str) -> Any:
    """The Keras model of the chapter's script for "reuters" or "imdb", not compiled."""
    from keras import Sequential, layers

    if task == "reuters":
        return Sequential(
            [
                layers.Embedding(1_000, 100),
                layers.LSTM(100, activation="tanh"),
                layers.Dense(46, activation="softmax"),
            ]
        )
    return Sequential(
        [
            layers.Embedding(5_000, 100),
            layers.Dropout(0.5),
            layers.Conv1D(64, 5, padding="valid", activation="relu", strides=1),
            layers.MaxPooling1D(pool_size=4),
            layers.LSTM(55),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def keras(case: Case) -> Workload:
    """The chapter's model in Keras, on the backend named by KERAS_BACKEND."""
    model = chapter_model(case.model)
    losses = {"reuters": "sparse_categorical_crossentropy", "imdb": "binary_crossentropy"}
    model.compile(loss=losses[case.model], optimizer="adam")
    tokens, labels = random_batch(case)
    if case.mode == "infer":
        return Workload(lambda: model.predict_on_batch(tokens))
    return Workload(lambda: model.train_on_batch(tokens, labels))


def onnx_runtime(case: Case) -> Workload:
    """ONNX Runtime: the plain graph of the model, or an export of it with its own tokenizer."""
    import tempfile

    import onnxruntime

    if case.mode == "serve":
        from flaxrnn import export
        from flaxrnn.inference import loader
        from flaxrnn.runtime import files

        folder = files.expand(tempfile.mkdtemp(), "") / "exported"
        files.write_folder(folder, export.contents_of(_untrained(case), "onnx"))
        texts, classify = short_texts(case), loader.load(folder)
        return Workload(lambda: classify(texts))
    from benchmarks import onnx_models

    session = onnxruntime.InferenceSession(onnx_models.build(case))
    inputs = {"tokens": random_batch(case)[0]}
    return Workload(lambda: session.run(None, inputs))


class Framework(NamedTuple):
    """An implementation of the chapter's models."""

    build: Callable[[Case], Workload]
    packages: tuple[str, ...]  # reported with their versions; "a|b": either of them
    keras_backend: str = ""
    modes: tuple[str, ...] = ("train", "infer")


FRAMEWORKS = {
    "flaxrnn": Framework(flaxrnn, ("flaxrnn", "jax"), modes=("train", "infer", "serve")),
    "flax nn.RNN": Framework(flax, ("flax", "jax")),
    "PyTorch": Framework(torch, ("torch",)),
    "Keras/TensorFlow": Framework(keras, ("keras", "tensorflow|tensorflow-cpu"), "tensorflow"),
    "Keras/JAX": Framework(keras, ("keras", "jax"), "jax"),
    "Keras/torch": Framework(keras, ("keras", "torch"), "torch"),
    "ONNX Runtime": Framework(onnx_runtime, ("onnxruntime", "onnx"), modes=("infer", "serve")),
}


def versions(name: str) -> dict[str, str] | None:
    """Versions of the packages that a framework needs; None if one is not installed."""
    found = {}
    for alternatives in FRAMEWORKS[name].packages:
        for package in alternatives.split("|"):
            try:
                found[package] = metadata.version(package)
                break
            except metadata.PackageNotFoundError:
                continue
        else:
            return None
    return found


def main() -> None:
    """Times one framework for another process.

    Reads a case as JSON and answers "ready" after a warm-up; then answers each number of steps with
    the mean seconds per step.
    """
    framework = FRAMEWORKS[sys.argv[1]]
    os.environ["KERAS_BACKEND"] = framework.keras_backend or "tensorflow"
    answers, sys.stdout = sys.stdout, sys.stderr  # frameworks print to stdout
    workload = framework.build(Case(**json.loads(sys.stdin.readline())))
    for _ in range(3):
        workload.run()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        calls = -(-int(line) // workload.steps)
        start = time.perf_counter()
        for _ in range(calls):
            workload.run()
        seconds = (time.perf_counter() - start) / calls / workload.steps
        print(seconds, file=answers, flush=True)


if __name__ == "__main__":
    main()
