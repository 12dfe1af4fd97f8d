"""A reference network as an ONNX model, for the peers that only infer."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class _Writer:
    """Collects nodes and initializers; batch normalisation is folded into the convolution before
    it (mean 0, variance 1, as in a fresh network), which every one of these peers would do."""

    def __init__(self, weights):
        self.arrays, self.nodes, self.tensors = iter(weights), [], []

    def constant(self, array):
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def add(self, steps, x):
        """Writes the steps; x is (N,C,H,W)."""
        for i, step in enumerate(steps):
            kind, *rest = step
            if kind == "conv":
                norm = i + 1 < len(steps) and steps[i + 1][0] == "norm"
                x = self.convolution(x, rest, norm)
            elif kind == "relu":
                x = self.node("Relu", x)
            elif kind == "max_pool":
                size, stride, pad = rest
                x = self.node(
                    "MaxPool", x, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[pad] * 4
                )
            elif kind == "average":
                x = self.node("Flatten", self.node("GlobalAveragePool", x))
            elif kind == "flatten":
                x = self.node("Flatten", self.node("Transpose", x, perm=[0, 2, 3, 1]))
            elif kind == "dense":
                kernel, bias = next(self.arrays), next(self.arrays)
                x = self.node("Gemm", x, self.constant(kernel), self.constant(bias))
            elif kind == "residual":
                main = self.add(rest[0], x)
                x = self.node("Relu", self.node("Add", main, self.add(rest[1], x)))
        return x

    def convolution(self, x, rest, norm):
        _, size, stride, pad, bias = rest
        kernel = next(self.arrays)
        offset = next(self.arrays) if bias else np.zeros(kernel.shape[3], np.float32)
        if norm:
            gamma, beta = next(self.arrays), next(self.arrays)
            factor = (gamma / np.sqrt(1 + 1e-5)).astype(np.float32)
            kernel, offset = kernel * factor, offset * factor + beta
        inputs = [x, self.constant(kernel.transpose(3, 2, 0, 1)), self.constant(offset)]
        return self.node(
            "Conv", *inputs, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[pad] * 4
        )


def serialize(network, weights, batch):
    """The bytes of an ONNX model: "x" (batch,C,H,W) -> logits "y"."""
    writer = _Writer(weights)
    result = writer.add(network.steps, "x")
    writer.nodes.append(helper.make_node("Identity", [result], ["y"]))
    h, w, c = network.input_shape
    graph = helper.make_graph(
        writer.nodes,
        network.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, c, h, w])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, network.classes])],
        writer.tensors,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
