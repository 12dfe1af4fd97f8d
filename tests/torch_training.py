"""Trains a model and its twin in torch from the same weights on the same batches.

torch in float64 is the truth and torch in float32 says how far rounding may lead away from it, so a
wrong gradient, statistic or update shows as a curve that leaves both.
"""

import copy

import numpy as np
import torch

import device_tests
from convlet import losses, optimizers

torch.set_num_threads(1)  # its spinning threads would get in the way of convlet's


def copy_weights(model, module):
    """Gives the torch module the weights of the model: the layers that have some, in their order.
    Knows Conv2d, Linear, BatchNorm2d, LayerNorm and GroupNorm."""
    ours = [layer for layer in model.layers if layer.weights]
    theirs = [m for m in module.modules() if getattr(m, "weight", None) is not None]
    assert len(ours) == len(theirs), ([layer.name for layer in ours], theirs)
    for layer, twin in zip(ours, theirs, strict=True):
        weight, *others = (torch.from_numpy(w) for w in layer.get_weights())
        if isinstance(twin, torch.nn.Conv2d):
            weight = weight.permute(3, 2, 0, 1)
        elif isinstance(twin, torch.nn.Linear):
            weight = weight.T
        names = ("weight", "bias", "running_mean", "running_var")
        found = [tensor for name in names if (tensor := getattr(twin, name, None)) is not None]
        assert len(found) == 1 + len(others), f"{layer.owner} and {twin}"
        for tensor, value in zip(found, (weight, *others), strict=True):
            assert tensor.shape == value.shape, f"{layer.owner} and {twin}"
            tensor.data.copy_(value)


def train_in_torch(module, x, y, steps, batch, loss, optimizer, dtype):
    """The losses of the steps; the module is left as it was."""
    module = copy.deepcopy(module).to(dtype).train()
    update = optimizer([p for p in module.parameters() if p.requires_grad])
    curve = []
    for step in range(steps):
        rows = batch_rows(step, batch, len(x))
        images, targets = torch.from_numpy(x[rows]), torch.from_numpy(y[rows])
        targets = targets.to(dtype) if targets.is_floating_point() else targets.long()
        value = loss(module(images.to(dtype)), targets)
        update.zero_grad()
        value.backward()
        update.step()
        curve.append(value.item())
    return np.array(curve)


def batch_rows(step, batch, count):
    """The rows of a step's batch: round and round."""
    return np.arange(step * batch, (step + 1) * batch) % count


def assert_trains_alike(
    model,
    module,
    x,
    y,
    *,
    steps=None,
    batch=8,
    loss=None,
    torch_loss=torch.nn.functional.cross_entropy,
    optimizer=None,
    torch_optimizer=None,
    rtol=1e-4,
):
    """Steps of both: at every one |loss - loss64| <= 4 max|loss32 - loss64| + rtol * |loss64|.

    Args:
        model: uncompiled, ends in logits.
        module: a torch module with the same weights (see copy_weights) that takes x as it is
            (N, H, W, C) and returns what the model returns.
        steps: None is 50, or 15 in the emulator, where one takes up to half a second.
        y: integer labels for the default loss (cross-entropy on logits).
        optimizer, torch_optimizer: ours, and a function of the parameters that makes torch's; SGD
            with learning rate 0.05 and momentum 0.9 when None.
    """
    model.compile(
        optimizer or optimizers.SGD(0.05, momentum=0.9),
        loss or losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    steps = steps or (15 if device_tests.device() == "simt" else 50)
    torch_optimizer = torch_optimizer or (lambda p: torch.optim.SGD(p, 0.05, momentum=0.9))
    arguments = (x, y, steps, batch, torch_loss, torch_optimizer)
    curve64 = train_in_torch(module, *arguments, torch.float64)
    curve32 = train_in_torch(module, *arguments, torch.float32)
    curve = []
    for step in range(steps):
        rows = batch_rows(step, batch, len(x))
        curve.append(float(np.ravel(model.train_on_batch(x[rows], y[rows]))[0]))
    assert np.ptp(curve64) > 1e-2 * abs(curve64[0]), "training must move the loss"
    allowed = 4 * np.abs(curve32 - curve64).max() + rtol * np.abs(curve64)
    difference = np.abs(np.array(curve) - curve64)
    worst = int((difference - allowed).argmax())
    assert (difference <= allowed).all(), (
        f"step {worst}: loss {curve[worst]:.7g}, torch {curve32[worst]:.7g} in float32 and "
        f"{curve64[worst]:.7g} in float64"
    )
