"""A classifier as an ONNX model, for those who have no JAX.

It takes and returns what the program of `stablehlo.lower` does: tokens int32 [B, T], lengths int32
[B] and, of a model with n-grams, their scores float32 [B, outputs] → probabilities float32 [B, C].

Shapes: B batch, T time, D input features, H hidden features, G gates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flaxrnn.config import ModelConfig
from flaxrnn.data.vocabulary import PAD
from flaxrnn.errors import ConfigError
from flaxrnn.inference.saved import SavedModel
from flaxrnn.nn import heads, models

_OPSET, _IR_VERSION = 18, 9  # of ONNX 1.14, 2023, for older runtimes, too
# The operator of each cell, its own settings, and where it has our gates.
_CELLS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "simple": ("RNN", {}, (0,)),
    "lstm": ("LSTM", {}, (0, 3, 1, 2)),  # i, f, g, o → i, o, f, g
    "gru": ("GRU", {"linear_before_reset": 1}, (1, 0, 2)),  # r, s, n → s, r, n
}


class _Graph:
    """Nodes and constants; the names of values are numbers."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or those of several.

        Args:
            operator: Of ONNX.
            *inputs: Names; arrays and numbers become constants, an int one of int32.
            outputs: How many there are.
            **attributes: Of the operator.
        """
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        found = [f"{operator}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, names, found, **attributes))
        return found[0] if outputs == 1 else found

    def _constant(self, value: Any) -> str:
        array = np.asarray(value, np.int32 if isinstance(value, int) else None)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def column(self, x: Any) -> str:
        """[N] → [N, 1]."""
        return self.add("Unsqueeze", x, np.array([1]))


def build(saved: SavedModel) -> bytes:
    """Writes a classifier as an ONNX model; see the module's docstring.

    Raises:
        ConfigError: Its head or its cell cannot be written as ONNX.
    """
    _check(saved)
    graph, config = _Graph(), saved.config.model
    maxlen, padding = saved.config.data.maxlen, saved.config.data.padding
    ids, lengths = _clipped(graph, maxlen, padding, models.shortest_text(config))
    members = []
    for params in saved.members:
        logits = _logits(graph, config, params, ids, lengths)
        if saved.model.has_scores:
            network, ngrams = np.asarray(params["blend"]["weights"])
            of_ngrams = graph.add("Mul", "scores", ngrams)
            logits = graph.add("Add", graph.add("Mul", logits, network), of_ngrams)
        members.append(_probabilities(graph, saved.model, logits))
    graph.nodes.append(helper.make_node("Mean", members, ["probabilities"]))

    def value(name: str, kind: int, *shape: Any) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [value("tokens", TensorProto.INT32, "batch", "length")]
    inputs.append(value("lengths", TensorProto.INT32, "batch"))
    if saved.model.has_scores:
        inputs.append(value("scores", TensorProto.FLOAT, "batch", saved.model.num_outputs))
    classes = max(2, saved.model.num_outputs)
    output = value("probabilities", TensorProto.FLOAT, "batch", classes)
    proto = helper.make_graph(graph.nodes, "classifier", inputs, [output], graph.constants)
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(
        proto, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="flaxrnn"
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _check(saved: SavedModel) -> None:
    if type(saved.model.head) not in (heads.LabelHead, heads.LabelsHead):
        raise ConfigError(
            "--format: onnx is for models of model.target=label or labels; this one was trained"
            f" with model.target={saved.config.model.target}"
        )
    if saved.model.num_features:
        raise ConfigError("--format: onnx is for models with model.ratio_ngrams=0")
    if saved.config.model.cell not in _CELLS:
        raise ConfigError(
            f"--format: onnx has no operator for model.cell={saved.config.model.cell}, only for"
            f" {', '.join(_CELLS)}; --format=stablehlo has any cell"
        )


def _clipped(graph: _Graph, maxlen: int, padding: str, shortest: int) -> tuple[str, str]:
    """The last `maxlen` tokens of each text, padded as in training, and the lengths to read."""
    add = graph.add
    kept = add("Min", "lengths", maxlen)
    length = add("Cast", add("Shape", "tokens", start=1, end=2), to=TensorProto.INT32)
    length = add("Max", add("Min", add("Squeeze", length), maxlen), shortest)
    position: Any = add("Range", 0, maxlen if padding == "pre" else length, 1)
    position = add("Unsqueeze", position, np.array([0]))  # in the text that is kept
    if padding == "pre":
        position = add("Sub", position, graph.column(add("Sub", maxlen, kept)))
    inside = add("Less", position, graph.column(kept))
    inside = add("And", inside, add("GreaterOrEqual", position, 0))
    source = add("Add", position, graph.column(add("Sub", "lengths", kept)))
    source = add("Where", inside, source, 0)
    ids = add("Where", inside, add("GatherElements", "tokens", source, axis=1), PAD)
    if padding == "pre":
        return ids, add("Add", add("Mul", kept, 0), maxlen)
    return ids, add("Max", kept, shortest)


def _logits(graph: _Graph, config: ModelConfig, params: Any, ids: str, lengths: str) -> str:
    """The logits of the network, [B, outputs]."""
    add, table = graph.add, np.asarray(params["embed"]["embedding"])
    if config.conv_filters:
        kernel = np.transpose(params["conv"]["kernel"], (2, 1, 0))  # [F, E, K]
        x = add("Transpose", add("Gather", table, ids), perm=(0, 2, 1))
        x = add("Relu", add("Conv", x, kernel, np.asarray(params["conv"]["bias"])))
        size = [config.conv_pool]
        x = add("MaxPool", x, kernel_shape=size, strides=size)
        x = add("Transpose", x, perm=(0, 2, 1))
        lengths = add("Div", add("Sub", lengths, config.conv_width - 1), config.conv_pool)
    else:
        x = add("Gather", table, ids)
    x, pieces = _segments(graph, x, lengths, config.segment)
    x = add("Transpose", x, perm=(1, 0, 2))
    last = ""
    for i in range(config.layers):
        x, last = _recurrent(graph, config, params[f"{config.cell}_{i}"], x, pieces)
    if config.pooling != "last":
        x = add("Transpose", x, perm=(1, 0, 2))
        if config.segment:  # the segments of a text follow one another
            width = config.hidden_size * (2 if config.bidirectional else 1)
            batch = add("Shape", ids, start=0, end=1)
            x = add("Reshape", x, add("Concat", batch, np.array([-1, width]), axis=0))
        last = _pool(graph, config.pooling, params.get("pool"), x, lengths)
    return add("Gemm", last, *(np.asarray(params["dense"][name]) for name in ("kernel", "bias")))


def _segments(graph: _Graph, x: str, lengths: str, size: int) -> tuple[str, str]:
    """Cuts texts into segments that are read one by one; see `models.segments`.

    A segment past the end of its text is read as if it had one token; `_pool` leaves it out.
    """
    if not size:
        return x, lengths
    add = graph.add
    batch, length, width = (add("Shape", x, start=i, end=i + 1) for i in range(3))
    steps = np.array([size])
    count = add("Div", add("Add", length, steps - 1), steps)
    missing = add("Sub", add("Mul", count, steps), length)
    x = add("Pad", x, add("Concat", np.zeros(4, int), missing, np.zeros(1, int), axis=0))
    x = add("Reshape", x, add("Concat", add("Mul", batch, count), steps, width, axis=0))
    begins = add("Range", 0, add("Cast", add("Squeeze", count), to=TensorProto.INT32), 1)
    valid = add("Sub", graph.column(lengths), add("Mul", begins, size))
    return x, add("Reshape", add("Clip", valid, 1, size), np.array([-1]))


def _recurrent(
    graph: _Graph, config: ModelConfig, params: Any, x: str, lengths: str
) -> tuple[str, str]:
    """A recurrent layer: [T, B, D] → outputs [T, B, H] and the last ones [B, H], H of both ways."""
    operator, attributes, order = _CELLS[config.cell]
    H, names = config.hidden_size, ("forward", "backward")
    layers = [params[name] for name in names] if config.bidirectional else [params]

    def gates(array: Any) -> np.ndarray:  # [..., G·H] → [G·H, ...], in the operator's order
        parts = np.split(np.asarray(array).T, len(order))
        return np.concatenate([parts[i] for i in order])

    def recurrent_bias(layer: Any) -> np.ndarray:
        bias = np.zeros(len(order) * H, np.float32)
        bias[len(bias) - len(layer.get("recurrent_bias", ())) :] = layer.get("recurrent_bias", ())
        return gates(bias)

    y, y_h = graph.add(
        operator,
        x,
        np.stack([gates(layer["kernel"]) for layer in layers]),
        np.stack([gates(layer["recurrent_kernel"]) for layer in layers]),
        np.stack([np.concatenate([gates(la["bias"]), recurrent_bias(la)]) for la in layers]),
        lengths,
        outputs=2,
        hidden_size=H,
        direction="bidirectional" if config.bidirectional else "forward",
        **attributes,
    )
    y = graph.add("Transpose", y, perm=(0, 2, 1, 3))  # [T, B, directions, H]
    y_h = graph.add("Transpose", y_h, perm=(1, 0, 2))
    width = len(layers) * H
    return (
        graph.add("Reshape", y, np.array([0, 0, width])),
        graph.add("Reshape", y_h, np.array([0, width])),
    )


def _pool(graph: _Graph, kind: str, params: Any, x: str, lengths: str) -> str:
    """Outputs [B, T, H] and lengths [B] → [B, H], or [B, 2H]; see `layers.Pool`."""
    add, axis = graph.add, np.array([1])
    steps = add("Cast", add("Squeeze", add("Shape", x, start=1, end=2)), to=TensorProto.INT32)
    mask = add("Unsqueeze", add("Range", 0, steps, 1), np.array([0]))
    mask = add("Unsqueeze", add("Less", mask, graph.column(lengths)), np.array([2]))
    lowest = np.float32(-np.inf)
    if kind == "attention":
        attend = np.asarray(params["attend"]["kernel"]), np.asarray(params["attend"]["bias"])
        hidden = add("Tanh", add("Add", add("MatMul", x, attend[0]), attend[1]))
        scores = add("MatMul", hidden, np.asarray(params["score"]["kernel"]))
        shares = add("Softmax", add("Where", mask, scores, lowest), axis=1)
        return add("ReduceSum", add("Mul", shares, x), axis, keepdims=0)
    pooled = []
    if kind in ("max", "max_mean"):
        pooled.append(add("ReduceMax", add("Where", mask, x, lowest), axis, keepdims=0))
    if kind in ("mean", "max_mean"):
        total = add("ReduceSum", add("Where", mask, x, np.float32(0)), axis, keepdims=0)
        count = add("Cast", graph.column(lengths), to=TensorProto.FLOAT)
        pooled.append(add("Div", total, count))
    return pooled[0] if len(pooled) == 1 else add("Concat", *pooled, axis=1)


def _probabilities(graph: _Graph, model: models.TextModel, logits: str) -> str:
    if model.head.several:
        return graph.add("Sigmoid", logits)
    if model.num_outputs > 1:
        return graph.add("Softmax", logits, axis=1)
    positive = graph.add("Sigmoid", logits)
    return graph.add("Concat", graph.add("Sub", np.float32(1), positive), positive, axis=1)
