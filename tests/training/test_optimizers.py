import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from flaxrnn.config import parse
from flaxrnn.errors import ConfigError
from flaxrnn.training import optimizers


def build(steps, train_embedding=True, **changes):
    config = default.get_config()
    config.train.update(changes)
    return optimizers.build(parse(config).train, steps, train_embedding)


def test_warmup_linear_rises_and_falls_to_zero():
    optimizer = build(20, learning_rate=0.1, schedule="warmup_linear")
    params = {"w": jnp.zeros(1)}
    state, moved = optimizer.init(params), []
    for _ in range(20):
        updates, state = optimizer.update({"w": jnp.ones(1)}, state)
        moved.append(-float(updates["w"][0]))  # Adam's step is the rate, where gradients are equal
    assert moved[0] == pytest.approx(0.05, rel=1e-4)
    assert moved[2] == pytest.approx(max(moved)) == pytest.approx(0.1, rel=1e-4)
    assert (np.diff(moved[2:]) < 0).all()
    assert moved[-1] == pytest.approx(0.1 / 18, rel=1e-4)


def test_an_optimizer_of_your_own_is_found_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "custom_optimizer.py").write_text(
        "import optax\nsgd = optax.sgd\ndef nothing(rate):\n    return rate\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    optimizer = build(1, optimizer="custom_optimizer:sgd", learning_rate=0.5)
    updates, _ = optimizer.update({"w": jnp.ones(1)}, optimizer.init({"w": jnp.ones(1)}))
    assert updates["w"] == -0.5
    for name, problem in [
        ("nothing", "custom_optimizer:nothing must return an optax.GradientTransformation"),
        ("absent", "custom_optimizer has no function or class named 'absent'"),
    ]:
        with pytest.raises(ConfigError, match=f"train.optimizer: {problem}"):
            build(1, optimizer=f"custom_optimizer:{name}")


def test_an_optimizer_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_optimizer.py").write_text("def make(rate):\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="broken_optimizer:make fails: division by zero"):
        build(1, optimizer="broken_optimizer:make")


def test_warmup_cosine_rises_and_falls_to_zero():
    rate = optimizers.warmup_cosine(0.1, 20)
    rates = [float(rate(step)) for step in range(20)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[2] == max(rates) == pytest.approx(0.1)
    assert (np.diff(rates[2:]) < 0).all()
    assert rates[11] == pytest.approx(0.05)  # half of the way down
    assert float(rate(20)) == pytest.approx(0, abs=1e-9)


def test_weight_decay_spares_embeddings_and_biases():
    params = {
        "embed": {"embedding": jnp.ones((2, 2))},
        "lstm_0": {"kernel": jnp.ones((2, 8)), "recurrent_kernel": jnp.ones((2, 8))},
        "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    }
    optimizer = build(1, optimizer="adamw", weight_decay=0.1, learning_rate=0.5)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        decays = path[-1].key in ("kernel", "recurrent_kernel")
        np.testing.assert_allclose(update, -0.05 if decays else 0, err_msg=str(path))


def test_clipping_bounds_the_global_norm():
    """Of the gradient, before Adam's moments are taken."""
    params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    grads = {"a": jnp.full(3, 3.0), "b": jnp.full(4, 4.0)}
    norm = float(optax.tree.norm(grads))
    for clip, factor in ((1.0, 1 / norm), (100.0, 1.0)):
        optimizer = build(1, clip_norm=clip)
        _, state = optimizer.update(grads, optimizer.init(params), params)
        moment = state[1][0].mu
        np.testing.assert_allclose(moment["a"], 0.1 * factor * grads["a"], rtol=1e-5)


def test_a_fixed_embedding_has_no_state_and_is_left_out_of_clipping():
    optimizer = build(1, train_embedding=False, clip_norm=1.0, optimizer="adamw")
    params = {"embed": {"embedding": jnp.ones((7, 2))}, "dense": {"kernel": jnp.ones((3, 2))}}
    state = optimizer.init(params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    assert (3, 2) in shapes
    assert (7, 2) not in shapes
    zero = jnp.zeros((7, 2))
    grads = {"embed": {"embedding": zero}, "dense": {"kernel": jnp.full((3, 2), 5.0)}}
    updates, _ = optimizer.update(grads, state, params)
    np.testing.assert_array_equal(updates["embed"]["embedding"], zero)
    assert (updates["dense"]["kernel"] < 0).all()
