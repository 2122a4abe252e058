"""Times training steps of several seeds: in turn, all in one program, and spread over the devices.

    python -m benchmarks.seeds

The mission's two models on random full-length tokens, each seed with a state and rows of its own.
"in turn" is what a single run does: each batch is spread over all devices, one seed after the
other. "vmapped" is one program whose arrays have an axis of seeds, each batch spread as before.
"spread" gives whole seeds to each device, which exchanges nothing, and computes its own in turn.
The choices take turns. On a machine that is shared, compare the time of all cores ("cpu"), not that
on the clock ("wall"). Writes benchmarks/results/seeds-DEVICE.json.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from benchmarks import peers, throughput
from configs import imdb, reuters
from flaxrnn.data import batching
from flaxrnn.nn import models
from flaxrnn.runtime import devices
from flaxrnn.training import optimizers, steps
from flaxrnn.training.trainer import STEPS_PER_DISPATCH

MODELS = {"reuters": (reuters, 20, 100), "imdb": (imdb, 40, 500)}  # config, batch, length
COUNTS = (1, 2, 4)
EVERYWHERE = PartitionSpec()


def in_turn(train_steps: Callable, mesh: Mesh, states: list, texts: Any, rows: list) -> Callable:
    """A dispatch a seed, as the training loop runs it."""
    batch = len(rows[0][0].rows)
    chunks = [
        devices.shard(_chunk(batches, batch, mesh.size), mesh, steps.CHUNK) for batches in rows
    ]
    states, texts = devices.shard((states, texts), mesh, EVERYWHERE)
    wrapped = steps.in_parallel(train_steps, mesh, EVERYWHERE, donate=True)
    program = devices.compiled(wrapped, states[0], texts, chunks[0])

    def run() -> None:
        for seed, chunk in enumerate(chunks):
            states[seed], sums = program(states[seed], texts, chunk)
            jax.block_until_ready(sums)

    return run


def vmapped(train_steps: Callable, mesh: Mesh, states: list, texts: Any, rows: list) -> Callable:
    """One program: an axis of seeds before all axes of states, rows and weights."""
    batch = len(rows[0][0].rows)
    chunks = [_chunk(batches, batch, mesh.size) for batches in rows]
    chunk = chunks[0]._replace(
        rows=np.stack([chunk.rows for chunk in chunks]),
        weights=np.stack([chunk.weights for chunk in chunks]),
    )
    lie = steps.CHUNK._replace(
        rows=PartitionSpec(None, None, "data"), weights=PartitionSpec(None, None, "data")
    )
    over_seeds = jax.vmap(
        functools.partial(train_steps, axis="data"),
        in_axes=(0, None, batching.BatchGroup(0, 0, *[None] * 3)),
    )
    return _at_once(over_seeds, mesh, EVERYWHERE, lie, states, texts, chunk)


def spread(train_steps: Callable, mesh: Mesh, states: list, texts: Any, rows: list) -> Callable:
    """One program: an axis of seeds that lies over the devices."""
    batch = len(rows[0][0].rows)
    chunk = jax.tree.map(lambda *some: np.stack(some), *[_chunk(b, batch, 1) for b in rows])
    mesh = Mesh(mesh.devices[: len(states)], ("data",))

    def each(states: Any, texts: Any, chunks: batching.BatchGroup) -> Any:
        return jax.lax.map(lambda one: train_steps(one[0], texts, one[1]), (states, chunks))

    own = PartitionSpec("data")
    return _at_once(each, mesh, own, own, states, texts, chunk)


def _at_once(
    function: Callable,
    mesh: Mesh,
    own: Any,
    lie: Any,
    states: list,
    texts: Any,
    chunk: batching.BatchGroup,
) -> Callable:
    state = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *states)
    arguments = [
        devices.shard(tree, mesh, spec)
        for tree, spec in ((state, own), (texts, EVERYWHERE), (chunk, lie))
    ]
    wrapped = jax.jit(
        jax.shard_map(
            function, mesh=mesh, in_specs=(own, EVERYWHERE, lie), out_specs=own, check_vma=False
        ),
        donate_argnums=(0,),
    )
    program = devices.compiled(wrapped, *arguments)

    def run() -> None:
        arguments[0], sums = program(*arguments)
        jax.block_until_ready(sums)

    return run


LAYOUTS = {"in turn": in_turn, "vmapped": vmapped, "spread": spread}


def _chunk(batches: list[batching.Batch], batch_size: int, size: int) -> batching.BatchGroup:
    (chunk,) = batching.group_batches(batches, batch_size, STEPS_PER_DISPATCH, size)
    return chunk


def build(name: str, layout: str, count: int) -> Callable:
    """A call that trains `count` seeds of a model for a dispatch."""
    module, batch, length = MODELS[name]
    config = module.get_config()
    texts = {"model": name, "batch": batch * STEPS_PER_DISPATCH, "length": length}
    tokens, labels = peers.arrays(texts)
    lengths = np.full(len(tokens), length, np.int32)
    model = models.build(config.model, config.data.num_words, 46 if name == "reuters" else 2)
    optimizer = optimizers.adam(config.train.learning_rate, "constant", 1)
    states = [
        jax.tree.map(jax.numpy.copy, steps.init_state(model, optimizer, seed))
        for seed in range(count)
    ]
    rows = [
        batching.batches(
            np.random.default_rng(seed).permutation(len(tokens)), lengths, (length,), batch
        )
        for seed in range(count)
    ]
    train_steps = functools.partial(
        steps.train_steps,
        model=model,
        optimizer=optimizer,
        averaging=config.train.averaging,
        buckets=(length,),
    )
    arrays = {"tokens": tokens.astype(np.uint16), "lengths": lengths, "labels": labels}
    return LAYOUTS[layout](train_steps, devices.make_mesh(batch), states, arrays, rows)


def time_model(name: str, rounds: int) -> list[dict[str, Any]]:
    """Times every layout and number of seeds, in turns: on the clock, and of all cores."""
    choices = [(layout, count) for count in COUNTS for layout in LAYOUTS]
    runs = {choice: build(name, *choice) for choice in choices}
    times: dict[tuple[str, int], list[tuple[float, float]]] = {choice: [] for choice in choices}
    for _ in range(rounds + 1):  # the first is a warm-up
        for choice, run in runs.items():
            began = time.perf_counter(), time.process_time()
            run()
            ended = time.perf_counter(), time.process_time()
            steps_done = STEPS_PER_DISPATCH * choice[1]
            times[choice].append(
                tuple(1e3 * (b - a) / steps_done for a, b in zip(began, ended, strict=True))
            )
    print(f"\n{name}, B={MODELS[name][1]}: a step of one seed, and over that in turn")
    rows = []
    for layout, count in choices:
        row: dict[str, Any] = {"model": name, "seeds": count, "layout": layout}
        for i, what in enumerate(("wall", "cpu")):
            some = [each[i] for each in times[layout, count][1:]]
            base = [each[i] for each in times["in turn", count][1:]]
            ratios = [a / b for a, b in zip(some, base, strict=True)]
            row[what] = {
                "median_ms": statistics.median(some),
                "quartiles_ms": statistics.quantiles(some, n=4)[::2],
                "over_in_turn": statistics.median(ratios),
                "quartiles_over_in_turn": statistics.quantiles(ratios, n=4)[::2],
            }
        rows.append(row)
        shown = [
            "{median_ms:7.2f} {0} ms, {over_in_turn:.3f} ({1:.3f}-{2:.3f})".format(
                what, *row[what]["quartiles_over_in_turn"], **row[what]
            )
            for what in ("wall", "cpu")
        ]
        print(f"  {count} seeds {layout:8} {'   '.join(shown)}", flush=True)
    return rows


def main() -> None:
    """Times both models."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu", help="part of the result file's name")
    arguments = parser.parse_args()
    devices.use_all_cores()
    devices.enable_compilation_cache(None)
    rows = [row for name in arguments.models for row in time_model(name, arguments.rounds)]
    record = {**throughput.provenance(), "rounds": arguments.rounds, "rows": rows}
    path = throughput.RESULTS / f"seeds-{arguments.device}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
