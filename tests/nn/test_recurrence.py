import functools

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxrnn import nn
from flaxrnn.errors import ConfigError
from flaxrnn.nn import cells, layers, recurrence

B, T, D, H = 4, 7, 5, 3
LAYERS = list(cells.CELLS)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_forward(p, x, steps):
    """One text [T, D] in float64; returns outputs [T, H], final (c, h), and what backward needs."""
    H = p["recurrent_kernel"].shape[0]
    c, h = np.zeros(H), np.zeros(H)
    outputs, saved = np.zeros((len(x), H)), []
    for t in steps:
        z = x[t] @ p["kernel"] + h @ p["recurrent_kernel"] + p["bias"]
        i, f, o = (sigmoid(z[k * H : (k + 1) * H]) for k in (0, 1, 3))
        g = np.tanh(z[2 * H : 3 * H])
        c_new = f * c + i * g
        saved.append((t, c, h, i, f, g, o, c_new))
        c, h = c_new, o * np.tanh(c_new)
        outputs[t] = h
    return outputs, (c, h), saved


def lstm_backward(p, x, saved, d_outputs, d_c, d_h):
    """Back-propagation through time, written out; gradients of kernel, recurrent, bias and x."""
    H = p["recurrent_kernel"].shape[0]
    grads = {name: np.zeros_like(value) for name, value in p.items()}
    d_x = np.zeros_like(x)
    d_c, d_h = d_c.copy(), d_h.copy()
    for t, c, h, i, f, g, o, c_new in reversed(saved):
        d_h = d_h + d_outputs[t]
        tanh_c = np.tanh(c_new)
        d_c = d_c + d_h * o * (1 - tanh_c**2)
        d_z = np.concatenate(
            [
                d_c * g * i * (1 - i),
                d_c * c * f * (1 - f),
                d_c * i * (1 - g**2),
                d_h * tanh_c * o * (1 - o),
            ]
        )
        grads["kernel"] += np.outer(x[t], d_z)
        grads["recurrent_kernel"] += np.outer(h, d_z)
        grads["bias"] += d_z
        d_x[t] = p["kernel"] @ d_z
        d_h = p["recurrent_kernel"] @ d_z
        d_c = d_c * f
    assert len(d_c) == H
    return grads, d_x


@pytest.mark.parametrize("implementation", ["scan", "fused"])
@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_equals_a_float64_reference_with_all_gradients(reverse, implementation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, T, D))
    lengths = np.array([7, 1, 4, 6])
    layer = nn.LSTM(H, reverse=reverse, implementation=implementation)
    with jax.enable_x64(True):
        variables = jax.jit(layer.init)(jax.random.key(0), jnp.array(x), jnp.array(lengths))
        params = jax.tree.map(
            lambda p: np.asarray(p, np.float64) + 0.1 * rng.normal(size=p.shape),
            variables["params"],
        )
        weights = rng.normal(size=(B, T, H)), rng.normal(size=(B, H)), rng.normal(size=(B, H))

        def loss(params, x):
            outputs, (c, h) = layer.apply({"params": params}, x, jnp.array(lengths))
            score = (outputs * weights[0]).sum() + (c * weights[1]).sum() + (h * weights[2]).sum()
            return score, (outputs, c, h)

        gradients = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        (d_params, d_x), (outputs, c, h) = gradients(params, jnp.array(x))

    want = {name: np.zeros_like(value) for name, value in params.items()}
    for b in range(B):
        order = range(lengths[b])[::-1] if reverse else range(lengths[b])
        out, (c_b, h_b), saved = lstm_forward(params, x[b], order)
        np.testing.assert_allclose(outputs[b], out, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(c[b], c_b, rtol=1e-10)
        np.testing.assert_allclose(h[b], h_b, rtol=1e-10)
        grads, d_x_b = lstm_backward(
            params, x[b], saved, weights[0][b], weights[1][b], weights[2][b]
        )
        np.testing.assert_allclose(d_x[b], d_x_b, rtol=1e-9, atol=1e-12)
        for name, value in grads.items():
            want[name] += value
    for name, value in want.items():
        np.testing.assert_allclose(d_params[name], value, rtol=1e-9, atol=1e-12)


def step_numpy(cell, p, h, x):
    z, u = x @ p["kernel"] + p["bias"], h @ p["recurrent_kernel"]
    if cell == "simple":
        return np.tanh(z + u)
    reset, update = sigmoid(z[:H] + u[:H]), sigmoid(z[H : 2 * H] + u[H : 2 * H])
    new = np.tanh(z[2 * H :] + reset * (u[2 * H :] + p["recurrent_bias"]))
    return update * h + (1 - update) * new


@pytest.mark.parametrize("cell", ["simple", "gru"])
def test_other_cells_equal_their_equations(cell):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, T, D))
    layer = cells.CELLS[cell](H)
    params = jax.jit(layer.init)(jax.random.key(0), jnp.array(x))["params"]
    params = jax.tree.map(lambda p: np.asarray(p) + 0.3 * rng.normal(size=p.shape), params)
    outputs, (last,) = jax.jit(layer.apply)({"params": params}, jnp.array(x))
    h = np.zeros(H)
    for t in range(T):
        h = step_numpy(cell, params, h, x[0, t])
        np.testing.assert_allclose(outputs[0, t], h, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(last[0], h, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("implementation", ["scan", "fused"])
@pytest.mark.parametrize("cell", list(cells.CELLS))
def test_a_text_in_two_parts_equals_the_whole(cell, implementation):
    """In outputs, carry and gradients, where the second part begins with the carry of the first."""
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(B, T, D)), jnp.float32)
    lengths = jnp.array([7, 1, 4, 6])
    layer = cells.CELLS[cell](H, implementation=implementation)
    params = jax.jit(layer.init)(jax.random.key(0), x)["params"]

    def whole(params):
        outputs, carry = layer.apply({"params": params}, x, lengths)
        return (outputs**2).sum() + carry[0].sum(), (outputs, carry)

    def parts(params):
        first, carry = layer.apply({"params": params}, x[:, :3], jnp.minimum(lengths, 3))
        rest = jnp.maximum(lengths - 3, 0)
        second, carry = layer.apply({"params": params}, x[:, 3:], rest, carry)
        outputs = jnp.concatenate([first, second], axis=1)
        return (outputs**2).sum() + carry[0].sum(), (outputs, carry)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.jit(jax.grad(whole, has_aux=True))(params),
        jax.jit(jax.grad(parts, has_aux=True))(params),
    )


class Minimal(recurrence.Recurrent):
    """Says nothing of its backward pass."""

    num_gates = 2

    @staticmethod
    def pointwise(carry, z, u):
        (h,) = carry
        keep, new = jnp.split(z + u, 2, axis=-1)
        keep = jax.nn.sigmoid(keep)
        return (keep * h + (1 - keep) * jnp.tanh(new),)


@pytest.mark.parametrize(("seed", "reverse"), [(0, False), (1, True), (2, False)])
@pytest.mark.parametrize("cls", [*cells.CELLS.values(), Minimal])
def test_fused_equals_scan(cls, reverse, seed):
    """Outputs, carries and all gradients; over arrays and tables, with and without recomputing."""
    rng = np.random.default_rng(seed)
    batch, time, inputs, features = rng.integers(1, 12, 4)
    lengths = None if seed == 0 else rng.integers(1, time + 1, batch)
    table = rng.normal(size=(7 if seed % 2 else 200, inputs)).astype(np.float32)
    ids = rng.integers(0, len(table), (batch, time))
    weights = rng.normal(size=(batch, time, features)).astype(np.float32)
    params = jax.jit(cls(features).init)(jax.random.key(0), table[ids], lengths)
    params = jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype("f"), params)

    @functools.partial(jax.jit, static_argnums=(0, 1, 2))
    @functools.partial(jax.grad, argnums=(3, 4), has_aux=True)
    def gradient(implementation, recompute, look_up, params, table):
        layer = cls(features, reverse=reverse, implementation=implementation, recompute=recompute)
        x = recurrence.EmbeddingLookup(table, ids) if look_up else table[ids]
        outputs, carry = layer.apply(params, x, lengths)
        score = (outputs * weights).sum() + sum((c * c).sum() for c in carry)
        return score, (outputs, carry)

    reference = gradient("scan", 0, False, params, table)
    for implementation, recompute, look_up in [
        ("scan", 0, True),
        ("fused", 0, True),
        ("fused", 0, False),
        ("fused", 4, True),
    ]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max()),
            gradient(implementation, recompute, look_up, params, table),
            reference,
        )


def test_recompute_takes_less_memory():
    x = jnp.zeros((8, 1024, 16))
    layers = {k: nn.LSTM(32, recompute=k) for k in (0, 32)}
    params = jax.jit(layers[0].init)(jax.random.key(0), x)

    def temporary_bytes(layer):
        gradient = jax.jit(jax.grad(lambda params: layer.apply(params, x)[1][1].sum()))
        return gradient.lower(params).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(layers[32]) < 0.35 * temporary_bytes(layers[0])


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("kind", ["forward", "reverse", "bidirectional"])
def test_masked_equals_unpadded(cell, kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, T, D)).astype(np.float32)
    lengths = np.array([7, 1, 4, 7])
    cls = cells.CELLS[cell]
    layer = {
        "forward": lambda: cls(H),
        "reverse": lambda: cls(H, reverse=True),
        "bidirectional": lambda: recurrence.Bidirectional(cls, H, recompute=3),
    }[kind]()
    params = jax.jit(layer.init)(jax.random.key(1), x, lengths)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, x, lengths):
        outputs, carry = layer.apply(params, x, lengths)
        return (outputs**2).sum() + sum((c**3).sum() for c in carry), (outputs, carry)

    grad, (outputs, carry) = gradient(params, x, lengths)
    alone = []
    for b, n in enumerate(lengths):
        row = x[b : b + 1, :n]
        grad_alone, (out, last) = gradient(params, row, None)
        np.testing.assert_allclose(outputs[b, :n], out[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(outputs[b, n:], 0)
        for got, want in zip(carry, last, strict=True):
            np.testing.assert_allclose(got[b], want[0], rtol=1e-5, atol=1e-6)
        alone.append(grad_alone)
    total = jax.tree.map(lambda *g: sum(g), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grad, total)


@pytest.mark.parametrize("cell", LAYERS)
def test_padding_gets_no_gradient_and_may_hold_anything(cell):
    x = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
    lengths = np.array([7, 1, 4, 6])
    layer = cells.CELLS[cell](H)
    params = jax.jit(layer.init)(jax.random.key(1), x, lengths)
    outside = np.arange(T)[None, :] >= lengths[:, None]
    apply = jax.jit(layer.apply)
    d_x = jax.jit(jax.grad(lambda x: (apply(params, x, lengths)[0] ** 2).sum()))(x)
    assert not np.asarray(d_x)[outside].any()
    other = np.where(outside[..., None], np.float32(1e6), x)
    np.testing.assert_array_equal(apply(params, x, lengths)[0], apply(params, other, lengths)[0])


@pytest.mark.parametrize("implementation", recurrence.IMPLEMENTATIONS)
def test_lstm_equals_that_of_flax(implementation):
    """Outputs, carry and gradients, with the same weights."""
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(B, T, D)), jnp.float32)
    lengths = jnp.array([7, 1, 4, 6])
    ours = nn.LSTM(H, implementation=implementation)
    params = jax.jit(ours.init)(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype("f"), params)
    theirs = flax.linen.RNN(flax.linen.OptimizedLSTMCell(H))

    def as_flax(params):
        split = {name: jnp.split(array, 4, axis=-1) for name, array in params.items()}
        cell = {}
        for k, gate in enumerate("ifgo"):
            cell[f"i{gate}"] = {"kernel": split["kernel"][k]}
            cell[f"h{gate}"] = {"kernel": split["recurrent_kernel"][k], "bias": split["bias"][k]}
        return {"cell": cell}

    def score(outputs, carry):
        mask = jnp.arange(T)[None, :, None] < lengths[:, None, None]
        outputs = jnp.where(mask, outputs, 0)
        return (outputs**2).sum() + sum((c**3).sum() for c in carry), (outputs, carry)

    def run_ours(params, x):
        return score(*ours.apply({"params": params}, x, lengths))

    def run_theirs(params, x):
        variables = {"params": as_flax(params)}
        carry, outputs = theirs.apply(variables, x, seq_lengths=lengths, return_carry=True)
        return score(outputs, carry)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.jit(jax.grad(run_ours, argnums=(0, 1), has_aux=True))(params, x),
        jax.jit(jax.grad(run_theirs, argnums=(0, 1), has_aux=True))(params, x),
    )


@pytest.mark.parametrize("cell", cells.CELLS.values())
def test_hand_written_backward_equals_the_gradient_of_pointwise(cell):
    rng = np.random.default_rng(0)
    draw = lambda width: jnp.array(rng.normal(size=(B, width)), jnp.float32)  # noqa: E731
    carry = tuple(draw(H) for _ in range(cell.num_states))
    d_carry = tuple(draw(H) for _ in range(cell.num_states))
    z, u = draw(cell.num_gates * H), draw(cell.num_gates * H)

    @jax.jit
    def both(carry, z, u):
        _, gradients = jax.vjp(cell.pointwise, carry, z, u)
        _, residuals = cell.forward(carry, z, u)
        return cell.backward(d_carry, residuals), gradients(d_carry)

    got, want = both(carry, z, u)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
    if cell.shared_gradient:
        np.testing.assert_array_equal(want[1], want[2])


@pytest.mark.parametrize("implementation", recurrence.IMPLEMENTATIONS)
def test_dropout_of_recurrent_weights_is_one_mask_for_all_texts_and_steps(implementation):
    x = jnp.array(np.random.default_rng(0).normal(size=(B, T, D)), jnp.float32)
    layer = nn.GRU(8, implementation=implementation, dropout=0.5)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    key = jax.random.key(1)
    kernel = variables["params"]["recurrent_kernel"]
    dropped = layers.Dropout(0.5).apply({}, kernel[None], key[None])[0]
    assert 0.3 < float((dropped == 0).mean()) < 0.7
    replaced = {"params": {**variables["params"], "recurrent_kernel": dropped}}
    apply, plain = jax.jit(layer.apply), nn.GRU(8, implementation=implementation)
    np.testing.assert_allclose(
        apply(variables, x, None, None, key)[0], apply(replaced, x)[0], rtol=1e-6
    )
    np.testing.assert_array_equal(apply(variables, x)[0], jax.jit(plain.apply)(variables, x)[0])


def test_an_implementation_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="implementation: 'scna' not in"):
        nn.LSTM(H, implementation="scna").init(jax.random.key(0), jnp.ones((B, T, D)))


def test_initial_values_are_those_of_keras():
    params = jax.jit(nn.LSTM(50).init)(jax.random.key(0), jnp.zeros((1, 2, 40)))["params"]
    limit = np.sqrt(6 / (40 + 200))
    kernel = np.asarray(params["kernel"])
    assert 0.98 * limit < np.abs(kernel).max() <= limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.03)
    recurrent = np.asarray(params["recurrent_kernel"])
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(50), atol=1e-5)
    np.testing.assert_array_equal(params["bias"], np.repeat([0, 1, 0, 0], 50))


@pytest.mark.parametrize("cell", LAYERS)
def test_composes_with_jit_vmap_and_grad(cell):
    x = np.random.default_rng(0).normal(size=(2, B, T, D)).astype(np.float32)
    layer = cells.CELLS[cell](H)
    params = jax.jit(layer.init)(jax.random.key(1), x[0])
    run = jax.jit(lambda x: layer.apply(params, x)[0])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(run))(x), np.stack([run(x[0]), run(x[1])]), rtol=1e-5, atol=1e-6
    )


def test_a_layer_of_ones_own_is_found_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "own_cell.py").write_text(
        "from flaxrnn.nn import recurrence\n"
        "class Plain(recurrence.Recurrent):\n"
        "    num_gates = 1\n"
        "    pointwise = staticmethod(lambda carry, z, u: (z + u,))\n"
    )
    (tmp_path / "broken_cell.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    layer = cells.get_cell("own_cell:Plain")
    assert issubclass(layer, recurrence.Recurrent)
    assert layer is cells.get_cell("own_cell:Plain")
    (tmp_path / "wrong_cell.py").write_text(
        "from flaxrnn.nn import Recurrent\n"
        "class Wide(Recurrent):\n"
        "    num_gates = 2\n"
        "    pointwise = staticmethod(lambda carry, z, u: (z + u,))\n"
        "class Bare(Recurrent):\n"
        "    num_gates = 1\n"
        "    pointwise = staticmethod(lambda carry, z, u: z + carry)\n"
        "class Biased(Recurrent):\n"
        "    num_gates = 1\n"
        "    init_bias = lambda self, key, shape: __import__('jax').numpy.zeros(7)\n"
        "    pointwise = staticmethod(lambda carry, z, u: (z + u,))\n"
        "class Narrow(Recurrent):\n"
        "    num_gates = 1\n"
        "    pointwise = staticmethod(lambda carry, z, u: (z + u,))\n"
        "    forward = classmethod(lambda cls, carry, z, u: ((z + u,), (z,)))\n"
        "    backward = classmethod(lambda cls, d, saved: (d, saved[0][:, :2], saved[0]))\n"
    )
    for name, problem in [
        ("wrong_cell:Wide", "wrong_cell:Wide: pointwise must return a tuple of 1 arrays"),
        ("wrong_cell:Bare", "wrong_cell:Bare: pointwise fails: "),
        ("wrong_cell:Biased", "wrong_cell:Biased: a layer of it fails: "),
        ("wrong_cell:Narrow", "wrong_cell:Narrow: a layer of it fails: "),
        ("nowhere:Plain", "nowhere cannot be imported: No module named 'nowhere'"),
        ("broken_cell:Plain", "broken_cell cannot be imported: division by zero"),
        ("own_cell:Other", "own_cell has no subclass of Recurrent named 'Other'"),
        ("collections:Counter", "collections has no subclass of Recurrent named 'Counter'"),
        ("own_cell:recurrence", "own_cell has no subclass of Recurrent named 'recurrence'"),
    ]:
        with pytest.raises(ConfigError, match=f"model.cell: {problem}"):
            cells.get_cell(name)
