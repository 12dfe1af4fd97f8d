"""OpenVINO on the CPU, set up for latency. bfloat16 is its default where the CPU has it."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import openvino
from bench.peers.onnx_graph import serialize

SETTINGS = {"train": {}, "infer": {"float32": {}, "bfloat16": {}}}


def versions():
    return {"openvino": importlib.metadata.version("openvino")}


def infer(setting, network, weights, images):
    core = openvino.Core()
    model = core.read_model(serialize(network, weights, len(images)))
    precision = {"float32": "f32", "bfloat16": "bf16"}[setting]
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(model, "CPU", options).create_infer_request()
    feed = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return lambda: request.infer({"x": feed})["y"]
