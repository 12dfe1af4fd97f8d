"""torch in float64: not a peer but the reference that every result is checked against."""

from __future__ import annotations

import numpy as np
from bench.peers import torch as peer

SETTINGS = {"train": {"default": {}}, "infer": {"default": {}}}
versions = peer.versions


def _double(network, weights, images):
    import torch

    model = peer.model_of(network, weights).double()
    return model, torch.from_numpy(images).double().permute(0, 3, 1, 2)


def train(setting, network, weights, images, labels):
    import torch

    model, x = _double(network, weights, images)
    y = torch.from_numpy(labels)
    if network.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), network.learning_rate)
    else:
        optimizer = torch.optim.SGD(model.parameters(), network.learning_rate, momentum=0.9)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def infer(setting, network, weights, images):
    import torch

    model, x = _double(network, weights, images)
    model.eval()
    with torch.inference_mode():
        logits = model(x).numpy().astype(np.float32)
    return lambda: logits
