"""The chapter's two models as plain ONNX graphs of one shape, with random weights, unmasked."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.cases import Case, config_for


def build(case: Case) -> bytes:
    """The model of a case: tokens int32 [B, T] → probabilities float32 [B, C]."""
    config, random = config_for(case), np.random.default_rng(0)
    model, nodes, weights = config.model, [], []

    def weight(*shape: int) -> str:
        name = f"weight_{len(weights)}"
        values = random.uniform(-0.05, 0.05, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    def add(operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"{operator}_{len(nodes)}_{i}" for i in range(outputs)]
        nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names[-1]

    D, H = model.embedding_size, model.hidden_size
    x = add("Gather", weight(config.data.num_words, D), "tokens")
    if model.conv_filters:
        kernel = weight(model.conv_filters, D, model.conv_width), weight(model.conv_filters)
        x = add("Relu", add("Conv", add("Transpose", x, perm=(0, 2, 1)), *kernel))
        size = [model.conv_pool]
        x, D = add("MaxPool", x, kernel_shape=size, strides=size), model.conv_filters
        x = add("Transpose", x, perm=(2, 0, 1))
    else:
        x = add("Transpose", x, perm=(1, 0, 2))
    kernels = weight(1, 4 * H, D), weight(1, 4 * H, H), weight(1, 8 * H)
    h = add("LSTM", x, *kernels, outputs=2, hidden_size=H)
    outputs = 46 if case.model == "reuters" else 1
    logits = add("Gemm", add("Flatten", add("Transpose", h, perm=(1, 0, 2))), weight(H, outputs))
    probabilities = add("Softmax", logits) if outputs > 1 else add("Sigmoid", logits)
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT32, (case.batch, case.length))]
    output = helper.make_tensor_value_info(probabilities, TensorProto.FLOAT, (case.batch, outputs))
    graph = helper.make_graph(nodes, case.model, inputs, [output], weights)
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
