import jax.numpy as jnp
import numpy as np
import pytest

from flaxrnn.errors import ConfigError
from flaxrnn.training import optimizers


def test_warmup_linear_rises_and_falls_to_zero():
    optimizer = optimizers.build("adam", 0.1, "warmup_linear", 20)
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
    optimizer = optimizers.build("custom_optimizer:sgd", 0.5, "constant", 1)
    updates, _ = optimizer.update({"w": jnp.ones(1)}, optimizer.init({"w": jnp.ones(1)}))
    assert updates["w"] == -0.5
    for name, problem in [
        ("nothing", "custom_optimizer:nothing must return an optax.GradientTransformation"),
        ("absent", "custom_optimizer has no function or class named 'absent'"),
    ]:
        with pytest.raises(ConfigError, match=f"train.optimizer: {problem}"):
            optimizers.build(f"custom_optimizer:{name}", 0.5, "constant", 1)
