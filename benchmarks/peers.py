"""The mission's two models in flaxrnn and in what its users could pick instead.

Each peer is a function (spec) → a call that runs one training step, or one inference pass, and
waits for it. They run as processes of their own, see `benchmarks.throughput`, because Keras fixes
its backend at import and every framework brings its own threads:

    python -m benchmarks.peers torch      reads a spec as JSON, then a line for each timing
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

Spec = dict[str, Any]  # model, batch, length, hidden, mode


def arrays(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Random full-length tokens and labels."""
    rng = np.random.default_rng(0)
    words, classes = {"reuters": (1_000, 46), "imdb": (5_000, 2)}[spec["model"]]
    tokens = rng.integers(1, words, (spec["batch"], spec["length"])).astype(np.int32)
    return tokens, rng.integers(0, classes, spec["batch"]).astype(np.int32)


def flops(spec: Spec) -> float:
    """Floating-point operations of the matrix products of a forward pass, nothing folded."""
    settings = config_of(spec).model
    return spec["batch"] * spec["length"] * flops_a_token(settings)


def flops_a_token(settings: Any) -> float:
    """Of a config's model group, per token; the output layer, a few in a thousand, left out."""
    inputs, steps, convolution = settings.embedding_size, 1.0, 0.0
    if settings.conv_filters:
        convolution = 2.0 * settings.conv_width * inputs * settings.conv_filters
        inputs, steps = settings.conv_filters, 1 / settings.conv_pool
    directions = 2 if settings.bidirectional else 1
    hidden = settings.hidden_size
    return convolution + steps * directions * 2.0 * (inputs + hidden) * 4 * hidden


def config_of(spec: Spec) -> Any:
    """The config of a spec's model, with its hidden size."""
    from configs import imdb, reuters

    config = {"reuters": reuters, "imdb": imdb}[spec["model"]].get_config()
    config.model.hidden_size = spec["hidden"]
    return config


def flaxrnn(spec: Spec) -> Callable[[], Any]:
    """This package, as its training loop runs it: the mean step of a dispatch of many."""
    import functools

    import jax

    from flaxrnn.data import batching
    from flaxrnn.inference import programs
    from flaxrnn.nn import models
    from flaxrnn.runtime import devices
    from flaxrnn.training import optimizers, steps, trainer

    config = config_of(spec)
    classes = 46 if spec["model"] == "reuters" else 2
    model = models.build(config.model, config.data.num_words, classes)
    tokens, labels = arrays(spec)
    lengths = np.full(len(tokens), tokens.shape[1], np.int32)
    devices.use_all_cores()
    mesh = devices.make_mesh(spec["batch"])
    if spec["mode"] == "infer":
        params = models.init_params(model, jax.random.key(0))
        forward = programs.predict_program(model, mesh)
        return lambda: forward(params, tokens, lengths).block_until_ready()
    optimizer = optimizers.adam(config.train.learning_rate, "constant", 1)
    state = jax.tree.map(jax.numpy.copy, steps.init_state(model, optimizer, 0))
    everywhere = jax.sharding.PartitionSpec()
    texts = {"tokens": tokens.astype(np.uint16), "lengths": lengths, "labels": labels}
    state, texts = devices.shard((state, texts), mesh, everywhere)
    batches = [batching.Batch(0, np.arange(spec["batch"]))] * trainer.STEPS_PER_DISPATCH
    (chunk,) = batching.group_batches(batches, spec["batch"], trainer.STEPS_PER_DISPATCH, mesh.size)
    train_steps = functools.partial(
        steps.train_steps,
        model=model,
        optimizer=optimizer,
        averaging=config.train.averaging,
        buckets=(spec["length"],),
    )
    train_steps = steps.in_parallel(train_steps, mesh, everywhere, donate=True)
    chunk = devices.shard(chunk, mesh, steps.CHUNK)

    def run() -> None:
        nonlocal state
        state, sums = train_steps(state, texts, chunk)
        jax.block_until_ready(sums)

    def program() -> str:
        return train_steps.lower(state, texts, chunk).compile().as_text()

    run.steps = trainer.STEPS_PER_DISPATCH  # type: ignore[attr-defined]
    run.program = program  # type: ignore[attr-defined]
    return run


def flax(spec: Spec) -> Callable[[], Any]:
    """Flax's own nn.RNN with its OptimizedLSTMCell, and optax."""
    import flax.linen as nn
    import jax
    import optax

    class Model(nn.Module):
        @nn.compact
        def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
            if spec["model"] == "reuters":
                x = nn.Embed(1_000, 100)(tokens)
            else:
                x = nn.Embed(5_000, 100)(tokens)
                x = nn.Dropout(0.5, deterministic=not train)(x)
                x = nn.relu(nn.Conv(64, (5,), padding="VALID")(x))
                x = nn.max_pool(x, (4,), (4,))
            x = nn.RNN(nn.OptimizedLSTMCell(spec["hidden"]))(x)[:, -1]
            return nn.Dense(46 if spec["model"] == "reuters" else 1)(x)

    tokens, labels = arrays(spec)
    model, optimizer = Model(), optax.adam(1e-3)
    params = model.init(jax.random.key(0), tokens, train=False)
    if spec["mode"] == "infer":
        forward = jax.jit(lambda params: model.apply(params, tokens, train=False))
        return lambda: forward(params).block_until_ready()

    def loss(params: Any, key: jax.Array) -> jax.Array:
        logits = model.apply(params, tokens, train=True, rngs={"dropout": key})
        if spec["model"] == "reuters":
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
        *carry, value = step(*carry)  # type: ignore[assignment]
        value.block_until_ready()

    return run


def torch(spec: Spec) -> Callable[[], Any]:
    """PyTorch's nn.LSTM."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            reuters = spec["model"] == "reuters"
            self.embed = nn.Embedding(1_000 if reuters else 5_000, 100)
            self.conv = None if reuters else nn.Conv1d(100, 64, 5)
            self.lstm = nn.LSTM(100 if reuters else 64, spec["hidden"], batch_first=True)
            self.dense = nn.Linear(spec["hidden"], 46 if reuters else 1)

        def forward(self, tokens: Any) -> Any:
            x = self.embed(tokens)
            if self.conv is not None:
                x = nn.functional.dropout(x, 0.5, self.training)
                x = nn.functional.relu(self.conv(x.transpose(1, 2)))
                x = nn.functional.max_pool1d(x, 4).transpose(1, 2)
            _, (h, _) = self.lstm(x)
            return self.dense(h[0])

    tokens, labels = (torch.from_numpy(a).long() for a in arrays(spec))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens, labels, model = tokens.to(device), labels.to(device), Model().to(device)
    sync = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    if spec["mode"] == "infer":
        model.eval()

        def infer() -> None:
            with torch.inference_mode():
                model(tokens)
            sync()

        return infer
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def run() -> None:
        optimizer.zero_grad()
        logits = model(tokens)
        if spec["model"] == "reuters":
            loss = nn.functional.cross_entropy(logits, labels)
        else:
            loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        loss.backward()
        optimizer.step()
        sync()

    return run


def chapter_model(task: str) -> Any:
    """The model of the chapter's script on "reuters" or "imdb", in Keras, not compiled."""
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


def keras(spec: Spec) -> Callable[[], Any]:
    """Keras, on the backend that KERAS_BACKEND names: the chapter's own models."""
    model = chapter_model(spec["model"])
    losses = {"reuters": "sparse_categorical_crossentropy", "imdb": "binary_crossentropy"}
    model.compile(loss=losses[spec["model"]], optimizer="adam")
    tokens, labels = arrays(spec)
    if spec["mode"] == "infer":
        return lambda: model.predict_on_batch(tokens)
    return lambda: model.train_on_batch(tokens, labels)


PEERS: dict[str, tuple[Callable[[Spec], Callable[[], Any]], str, tuple[str, ...]]] = {
    # name: (function, Keras backend, packages whose versions are reported)
    "flaxrnn": (flaxrnn, "", ("flaxrnn", "jax")),
    "flax nn.RNN": (flax, "", ("flax", "jax")),
    "PyTorch": (torch, "", ("torch",)),
    "Keras/TensorFlow": (keras, "tensorflow", ("keras", "tensorflow|tensorflow-cpu")),
    "Keras/JAX": (keras, "jax", ("keras", "jax")),
    "Keras/torch": (keras, "torch", ("keras", "torch")),
}


def versions(name: str) -> dict[str, str] | None:
    """Versions of the packages a peer needs; None where one is not installed."""
    found = {}
    for alternatives in PEERS[name][2]:
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
    """Serves one peer: a spec comes in, "ready" goes out; counts come in, seconds go out."""
    function, backend, _ = PEERS[sys.argv[1]]
    os.environ["KERAS_BACKEND"] = backend or "tensorflow"
    answers, sys.stdout = sys.stdout, sys.stderr  # frameworks print
    run = function(json.loads(sys.stdin.readline()))
    steps = getattr(run, "steps", 1)
    for _ in range(3):
        run()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        calls = -(-int(line) // steps)
        began = time.perf_counter()
        for _ in range(calls):
            run()
        print((time.perf_counter() - began) / calls / steps, file=answers, flush=True)


if __name__ == "__main__":
    main()
