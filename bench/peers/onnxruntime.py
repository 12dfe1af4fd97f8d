"""ONNX Runtime on the CPU, all optimisations on."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
from bench.peers.onnx_graph import serialize

SETTINGS = {"train": {}, "infer": {"default": {}}}


def versions():
    return {"onnxruntime": onnxruntime.__version__}


def infer(setting, network, weights, images):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(
        serialize(network, weights, len(images)), options, ["CPUExecutionProvider"]
    )
    feed = {"x": np.ascontiguousarray(images.transpose(0, 3, 1, 2))}
    return lambda: session.run(None, feed)[0]
