"""The single ops of torch in float64: the reference."""

from __future__ import annotations

import torch
from bench.peers import torch_ops
from bench.peers.torch import versions

__all__ = ["SETTINGS", "op", "versions"]

SETTINGS = {"ops": {"default": {}}}


def op(setting, case, arrays):
    return torch_ops.op(setting, case, arrays, torch.float64)
