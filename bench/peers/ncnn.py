"""ncnn on the CPU. It takes one image at a time: a batch is its images in turn."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from pathlib import Path

import ncnn
import numpy as np

SETTINGS = {"train": {}, "infer": {"default": {}}}

# The layers' parameters are numbered in ncnn's text format: Convolution 0 = channels, 1 = window,
# 3 = stride, 4 = pad, 5 = has a bias, 6 = count of weights; Pooling 0 = 0 max / 1 average,
# 1 = window, 2 = stride, 3 = pad, 4 = global, 5 = 1 no padding beyond the image;
# InnerProduct 0 = units, 1 = has a bias, 2 = count of weights.


def versions():
    return {"ncnn": importlib.metadata.version("ncnn")}


class _Writer:
    """The text of the layers and the bytes of the weights."""

    def __init__(self, weights):
        self.arrays, self.lines, self.data, self.blobs = iter(weights), [], [], 1
        self.lines.append("Input input 0 1 x")

    def layer(self, kind, inputs, parameters, outputs=1):
        names = [f"b{self.blobs + i}" for i in range(outputs)]
        self.blobs += outputs
        words = [kind, f"l{len(self.lines)}", str(len(inputs)), str(outputs), *inputs, *names]
        self.lines.append(" ".join([*words, *(f"{k}={v}" for k, v in parameters.items())]))
        return names

    def weights_of(self, kernel, bias):
        self.data += [b"\0\0\0\0", kernel.astype("<f4").tobytes(), bias.astype("<f4").tobytes()]

    def add(self, steps, x, shape):
        for i, step in enumerate(steps):
            kind, *rest = step
            if kind == "conv":
                norm = i + 1 < len(steps) and steps[i + 1][0] == "norm"
                x = self.convolution(x, rest, norm)
            elif kind == "relu":
                (x,) = self.layer("ReLU", [x], {})
            elif kind == "max_pool":
                size, stride, pad = rest
                (x,) = self.layer("Pooling", [x], {0: 0, 1: size, 2: stride, 3: pad, 5: 1})
            elif kind == "average":
                (x,) = self.layer("Pooling", [x], {0: 1, 4: 1})
            elif kind == "dense":
                x = self.dense(x, shape)
            elif kind == "residual":
                left, right = self.layer("Split", [x], {}, 2)
                main = self.add(rest[0], left, shape)
                side = self.add(rest[1], right, shape)
                (x,) = self.layer("BinaryOp", [main, side], {0: 0})
                (x,) = self.layer("ReLU", [x], {})
            if kind != "residual":
                from bench.networks import output_shape

                if kind == "flatten":
                    self.flattened = shape
                shape = output_shape(step, shape)
        return x

    def convolution(self, x, rest, norm):
        channels, size, stride, pad, bias = rest
        kernel = next(self.arrays)
        offset = next(self.arrays) if bias else np.zeros(channels, np.float32)
        if norm:
            gamma, beta = next(self.arrays), next(self.arrays)
            factor = (gamma / np.sqrt(1 + 1e-5)).astype(np.float32)
            kernel, offset = kernel * factor, offset * factor + beta
        self.weights_of(kernel.transpose(3, 2, 0, 1), offset)
        parameters = {0: channels, 1: size, 3: stride, 4: pad, 5: 1, 6: kernel.size}
        return self.layer("Convolution", [x], parameters)[0]

    def dense(self, x, shape):
        """ncnn flattens images in the order C,H,W; the rows of the kernel are in H,W,C."""
        kernel, bias = next(self.arrays), next(self.arrays)
        if getattr(self, "flattened", None):
            h, w, c = self.flattened
            kernel = kernel.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(h * w * c, -1)
            self.flattened = None
        self.weights_of(kernel.T, bias)
        return self.layer("InnerProduct", [x], {0: len(bias), 1: 1, 2: kernel.size})[0]


def infer(setting, network, weights, images):
    writer = _Writer(weights)
    last = writer.add(network.steps, "x", network.input_shape)
    text = "\n".join(["7767517", f"{len(writer.lines)} {writer.blobs}", *writer.lines, ""])
    net = ncnn.Net()
    net.opt.num_threads = len(os.sched_getaffinity(0))
    net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
    net.opt.use_fp16_packed = False
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "net.param").write_text(text)
        (Path(folder) / "net.bin").write_bytes(b"".join(writer.data))
        assert net.load_param(f"{folder}/net.param") == 0
        assert net.load_model(f"{folder}/net.bin") == 0
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    mats = [ncnn.Mat(image).clone() for image in channels_first]  # a Mat does not keep its array

    def run():
        rows = []
        for mat in mats:
            extractor = net.create_extractor()
            extractor.input("x", mat)
            rows.append(np.array(extractor.extract(last)[1]).ravel())
        return np.stack(rows)

    return run
