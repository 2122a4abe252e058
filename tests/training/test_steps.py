import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import imdb, reuters
from flaxrnn.config import parse
from flaxrnn.data import batching, ragged
from flaxrnn.nn import cells, models
from flaxrnn.training import metrics, optimizers, parallel, steps, trainer


def setup(config, batch_size=4, maxlen=24, seed=0):
    classes = {"reuters": 46, "imdb": 2}[config.task]
    model = models.build(parse(config).model, config.data.num_words, classes)
    optimizer = optimizers.adam(config.train.learning_rate)
    rng = np.random.default_rng(seed)
    lengths = rng.integers(9, maxlen + 1, batch_size)
    inside = np.arange(maxlen) < lengths[:, None]
    batch = {
        "tokens": np.where(inside, rng.integers(1, config.data.num_words, inside.shape), 0),
        "lengths": lengths,
        "labels": rng.integers(0, classes, batch_size),
        "weights": np.ones(batch_size, np.float32),
    }
    step = functools.partial(
        steps.train_step, model=model, optimizer=optimizer, averaging=True, buckets=(maxlen,)
    )

    @jax.jit
    def one_step(state, batch):
        state, sums, finite = step(state, batch)
        return state, {**sums, "finite": finite}

    return model, steps.init_state(model, optimizer, seed), batch, one_step


def many_steps(model, buckets=(24,)):
    return functools.partial(
        steps.train_steps,
        model=model,
        optimizer=optimizers.adam(1e-3),
        averaging=True,
        buckets=buckets,
    )


def texts_of(batch):
    return {name: jnp.array(batch[name]) for name in ("tokens", "lengths", "labels")}


def assert_same_gradients(a, b):
    """Of two states: Adam's first moments."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
        a.opt_state[0].mu,
        b.opt_state[0].mu,
    )


def rms(tree):
    leaves = jax.tree.leaves(tree)
    return float(np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for x in leaves)
                         / sum(x.size for x in leaves)))  # fmt: skip


GOLDEN = {
    "reuters": {
        "loss": 3.826216,
        "parameters": 0.05226447,
        "first_moment": 0.001774358,
        "update": 0.0006555103,
    },
    "imdb": {
        "loss": 0.6958610,
        "parameters": 0.03550740,
        "first_moment": 0.0004798371,
        "update": 0.0003269554,
    },
}


@pytest.mark.parametrize("config", [reuters, imdb])
def test_golden_step(config):
    """Change the figures only together with a change that is meant to change the numerics:
    initial values, the model, the loss, or the optimizer."""
    config = config.get_config()
    config.model.dropout = 0.0  # its random bits are JAX' own business
    _, state, batch, step = setup(config)
    new, sums = step(state, batch)
    got = {
        "loss": float(sums["loss"]) / 4,
        "parameters": rms(state.params),
        "first_moment": rms(new.opt_state[0].mu) * 10,  # the gradient
        "update": rms(jax.tree.map(lambda a, b: a - b, new.params, state.params)),
    }
    assert got == pytest.approx(GOLDEN[config.task], rel=1e-4)


@pytest.mark.parametrize("config", [reuters, imdb])
def test_rows_without_weight_are_invisible(config):
    config = config.get_config()
    config.model.dropout = 0.0
    _, state, batch, step = setup(config)
    wide = {k: np.concatenate([v, v[:2]]) for k, v in batch.items()}
    wide["weights"][4:] = 0
    (narrow_state, narrow), (wide_state, wide) = step(state, batch), step(state, wide)
    for name in narrow:
        np.testing.assert_allclose(narrow[name], wide[name], rtol=1e-5)
    assert_same_gradients(narrow_state, wide_state)


def test_step_follows_the_gradient_of_the_mean_loss():
    model, state, batch, step = setup(reuters.get_config())

    def mean_loss(params):
        logits = models.logits(model, params, batch["tokens"], batch["lengths"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()

    grads = jax.jit(jax.grad(mean_loss))(state.params)
    new, _ = step(state, batch)
    grads, old, new = jax.device_get((grads, state.params, new.params))

    # Adam's first step: learning rate times the sign of the gradient, where it is not tiny.
    def check(p, q, g):
        clear = np.abs(g) > 1e-5
        np.testing.assert_allclose((q - p)[clear], -1e-3 * np.sign(g)[clear], rtol=0.05, atol=1e-7)

    jax.tree.map(check, old, new, grads)


def test_training_fits_a_batch():
    _, state, batch, step = setup(imdb.get_config())
    losses = []
    for _ in range(60):
        state, sums = step(state, batch)
        losses.append(float(sums["loss"]))
    assert losses[-1] < 0.1 * losses[0]
    assert int(state.step) == 60


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_step_that_is_not_finite_changes_nothing(poison):
    _, state, batch, step = setup(reuters.get_config())
    bad = {**batch, "weights": np.array([1, poison, 1, 1], np.float32)}
    new, sums = step(state, bad)
    assert not sums["finite"]
    assert int(new.step) == 1
    for old, kept in zip(
        jax.tree.leaves((state.params, state.opt_state)),
        jax.tree.leaves((new.params, new.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(old, kept)


def test_init_and_steps_are_a_pure_function_of_the_seed():
    model, _, batch, step = setup(imdb.get_config())

    def run(seed):
        state, _ = step(steps.init_state(model, optimizers.adam(1e-3), seed), batch)
        return state.params["embed"]["embedding"]

    np.testing.assert_array_equal(run(5), run(5))
    assert (run(5) != run(6)).any()


def test_average_is_that_of_late_steps():
    _, state, batch, step = setup(reuters.get_config())
    bias = lambda tree: np.asarray(tree["dense"]["bias"], np.float64)  # noqa: E731
    want = 0.0
    for t in range(1, 21):
        state, _ = step(state, batch)
        want = want + 9 / (t + 8) * (bias(state.params) - want)
    np.testing.assert_allclose(bias(state.average), want, rtol=1e-4, atol=1e-7)
    assert (bias(state.average) != bias(state.params)).all()


def test_evaluation_counts_every_row_once():
    model, state, batch, _ = setup(reuters.get_config())
    evaluate = jax.jit(functools.partial(steps.evaluate, model=model, buckets=(15, 24)))
    batches = batching.batches(np.arange(4), batch["lengths"], (15, 24), 3)
    assert {b.bucket for b in batches} == {1}  # one text is short, and does not fill a batch
    total = 0
    for group in batching.group_batches(batches, 3, steps=2):
        sums, _ = evaluate(state.params, texts_of(batch), group)
        total += sums["class_counts"]
    np.testing.assert_array_equal(total[1], np.bincount(batch["labels"], minlength=46))
    assert total[2].sum() == 4


@pytest.mark.parametrize(("config", "device_memory"), [(reuters, 1.0), (imdb, 0.0)])
def test_evaluation_on_two_devices_gives_each_text_its_prediction(config, device_memory):
    """In the order of the split, texts streamed or resident, of two lengths, in several chunks."""
    config = config.get_config()
    count = 40 * trainer.STEPS_PER_DISPATCH
    model, state, batch, _ = setup(config, batch_size=count)
    offsets = np.append(0, np.cumsum(batch["lengths"]))
    ids = batch["tokens"][np.arange(24) < batch["lengths"][:, None]]
    texts = ragged.RaggedTexts(ids, offsets, batch["labels"])
    rows = {"train": np.arange(9), "test": np.arange(5, count)}
    training_data = batching.TrainingData(texts, batch["lengths"], "post", (17, 24), rows)
    optimizer = optimizers.adam(1e-3)
    run = trainer.Trainer(
        training_data,
        model,
        optimizer,
        averaging=False,
        batch_size=16,
        eval_batch_size=15,
        device_memory=device_memory,
        seed=0,
    )
    # Large weights, so that no text is undecided.
    state = state.replace(average=jax.tree.map(lambda p: 4 * p, state.params))
    sums, found = run.evaluate(run.replicate(state.average), "test")
    assert run.resident == bool(device_memory)

    logits = models.logits(model, state.average, batch["tokens"], batch["lengths"])
    want = np.asarray(model.head.probabilities(logits))[5:]
    assert len(set(found["predicted"])) > 1
    np.testing.assert_allclose(found["probability"], want.max(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(found["predicted"], want.argmax(axis=1))
    assert (found["predicted"] == batch["labels"][5:]).sum() == sums["accuracy"]


@pytest.mark.parametrize("config", [reuters, imdb])
@pytest.mark.parametrize("devices", [1, 2])
def test_many_steps_at_once_on_any_devices_equal_one_by_one(config, devices):
    """Batches of 3 rows on 1 or 2 devices, of two lengths; dropout, a group that is not full."""
    config = config.get_config()
    model, state, batch, step = setup(config, batch_size=7)
    texts, buckets = texts_of(batch), (17, 24)
    rows = {"train": np.arange(7)}
    training_data = batching.TrainingData(None, batch["lengths"], "post", buckets, rows)
    batches = training_data.epoch_batches(3, seed=0, epoch=1)
    assert {b.bucket for b in batches} == {0, 1}
    losses, one_by_one = 0.0, state
    for _, rows in batches:
        weights = (np.arange(3) < len(rows)).astype(np.float32)
        chosen = {name: array[np.resize(rows, 3)] for name, array in texts.items()}
        one_by_one, sums = step(one_by_one, {**chosen, "weights": weights})
        losses += float(sums["loss"])

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
    many = parallel.in_parallel(
        many_steps(model, buckets),
        mesh,
        jax.sharding.PartitionSpec(),
        parallel.STOP_SPEC,
        donate=False,
    )
    stop = np.zeros(devices, np.int32)
    total, at_once = 0.0, state
    for group in batching.group_batches(batches, 3, steps=2, devices=devices):
        at_once, sums = many(at_once, texts, group, stop)
        assert sums["first_nonfinite_step"] == steps.NO_STEP
        total += float(sums["loss"])
    np.testing.assert_allclose(total, losses, rtol=1e-5)
    assert int(at_once.step) == int(one_by_one.step) == 3
    assert_same_gradients(at_once, one_by_one)


def test_first_step_that_is_not_finite_is_numbered():
    model, state, batch, _ = setup(reuters.get_config())
    group = next(
        batching.group_batches([batching.Batch(0, np.array([i])) for i in range(4)], 1, steps=4)
    )
    group.weights[2] = np.nan
    _, sums = jax.jit(many_steps(model))(state, texts_of(batch), group, np.array([0, 15]))
    assert {
        name: int(sums[name])
        for name in ("first_nonfinite_step", "nonfinite_steps", "stop", "count")
    } == {
        "first_nonfinite_step": 3,
        "nonfinite_steps": 1,
        "stop": 15,
        "count": 3,
    }


def build_trainer(model, rate=1e-3, **options):
    config = reuters.get_config()
    config.train.learning_rate = rate
    _, _, batch, _ = setup(config)
    offsets = np.append(0, np.cumsum(batch["lengths"]))
    ids = batch["tokens"][np.arange(24) < batch["lengths"][:, None]]
    texts = ragged.RaggedTexts(ids, offsets, batch["labels"])
    rows = {"train": np.arange(4), "val": np.arange(4)}
    return trainer.Trainer(
        batching.TrainingData(texts, batch["lengths"], "post", (24,), rows),
        model,
        optimizers.build(parse(config).train, steps=9),
        averaging=True,
        batch_size=4,
        eval_batch_size=4,
        device_memory=1.0,
        seed=0,
        **options,
    )


@pytest.mark.parametrize(("precision", "written"), [("default", "DEFAULT"), ("high", "HIGH")])
def test_both_programs_of_a_run_multiply_with_its_precision(precision, written, monkeypatch):
    model, state, _, _ = setup(reuters.get_config())
    run = build_trainer(model, precision=precision)
    lowered = []
    monkeypatch.setattr(
        "flaxrnn.runtime.devices.compiled",
        lambda program, *arguments: lowered.append(program.lower(*arguments).as_text()),
    )
    run.compile(run.replicate(state))
    assert len(lowered) == 2
    for text in lowered:
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert products
        assert all(f"precision = [{written}, {written}]" in line for line in products)


def producers(jaxpr, variable):
    """Names of the primitives that a variable of a jaxpr is computed by."""
    made_by = {out: equation for equation in jaxpr.eqns for out in equation.outvars}
    found, pending = set(), [variable]
    while pending:
        equation = made_by.pop(pending.pop(), None)
        if equation is not None:
            found.add(equation.primitive.name)
            pending += [v for v in equation.invars if not isinstance(v, jax.extend.core.Literal)]
    return found


def test_the_signal_is_exchanged_after_the_gradients():
    model, state, batch, _ = setup(reuters.get_config())
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    batches = [batching.Batch(0, np.arange(4))]
    group = next(batching.group_batches(batches, 4, steps=1, devices=2))
    program = parallel.in_parallel(
        many_steps(model), mesh, jax.sharding.PartitionSpec(), parallel.STOP_SPEC, donate=False
    )
    traced = program.trace(state, texts_of(batch), group, np.zeros(2, np.int32))
    (sharded,) = traced.jaxpr.eqns
    jaxpr = sharded.params["jaxpr"]
    (exchange,) = (e for e in jaxpr.eqns if e.primitive.name.startswith("pmax"))
    assert "while" in producers(jaxpr, exchange.invars[0])


def test_equal_runs_share_their_programs(monkeypatch):
    def programs(**options):
        config = parse(reuters.get_config()).model
        run = build_trainer(models.build(config, vocab_size=1_000, num_labels=46), **options)
        return run._train, run._evaluate

    first = programs()
    assert programs() == first
    assert programs(rate=1e-4)[0] != first[0]
    assert programs(shards=2) != first

    class Changed(cells.LSTM):
        """As a notebook has it, whose cell was edited and run again."""

    with monkeypatch.context() as patch:
        patch.setitem(cells.CELLS, "lstm", Changed)
        assert programs() != first
    assert programs() == first
    metric = metrics.Metric("new", "new", lambda *_: jnp.float32(0))
    monkeypatch.setitem(metrics.METRICS, "new", metric)
    assert programs() != first


def test_a_copied_state_is_not_taken_by_a_step():
    model, state, _, _ = setup(reuters.get_config())
    run = build_trainer(model)
    again = run.replicate(run.replicate(state))
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(again)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), run.replicate(state))
    leaves = jax.tree.leaves(run.replicate(state))
    buffers = [shard.data.unsafe_buffer_pointer() for x in leaves for shard in x.addressable_shards]
    assert len(set(buffers)) == len(buffers)
