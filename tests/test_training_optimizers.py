"""Optimizers, learning rates and clipping in whole training runs, against torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convlet import Sequential, layers, optimizers
from reference import floats

torch.set_num_threads(1)  # torch's spinning threads would get in the way of convlet's


def test_learning_rates():
    schedules = optimizers.schedules
    decay = schedules.ExponentialDecay(0.1, 10, 0.5)
    assert [decay(s) for s in (0, 10, 5)] == pytest.approx([0.1, 0.05, 0.1 * 0.5**0.5])
    stairs = schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True)
    assert [stairs(s) for s in (0, 9, 10, 25)] == pytest.approx([0.1, 0.1, 0.05, 0.025])
    steps = schedules.PiecewiseConstantDecay([5, 8], [1.0, 0.5, 0.1])
    assert [steps(s) for s in (0, 5, 6, 8, 9)] == [1.0, 1.0, 0.5, 0.5, 0.1]
    cosine = schedules.CosineDecay(0.0, 10, alpha=0.1, warmup_target=1.0, warmup_steps=4)
    assert [cosine(s) for s in (0, 2, 4, 9, 14, 99)] == pytest.approx([0, 0.5, 1, 0.55, 0.1, 0.1])
    for make, message in [
        (lambda: schedules.PiecewiseConstantDecay([5], [1.0]), "values: expected one more than"),
        (lambda: schedules.PiecewiseConstantDecay([5, 5], [1, 1, 1]), "rising steps"),
        (lambda: schedules.CosineDecay(-1, 10), "expected a learning rate >= 0"),
        (lambda: schedules.CosineDecay(1, 0), "decay_steps: expected a positive integer"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_the_learning_rate_of_a_step():
    model = Sequential([layers.Dense(1, use_bias=False, input_shape=(1,))])
    x = y = np.ones((1, 1), np.float32)

    def first_step(rate, before=0):
        model.set_weights([[[0.0]]])
        model.compile(optimizers.SGD(rate), "mse")
        for _ in range(before):
            model.train_on_batch(x, y)
        model.set_weights([[[0.0]]])
        model.train_on_batch(x, y)
        return model.get_weights()[0].item() / 2  # the gradient of (w - 1)^2 at 0 is -2

    assert first_step(0.25) == 0.25
    assert first_step(lambda step: 0.1 * (step + 1), before=2) == pytest.approx(0.3)
    schedule = optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.125])
    assert first_step(schedule, before=1) == 0.5
    assert first_step(schedule, before=2) == 0.125
    with pytest.raises(TypeError, match="learning_rate: it follows a PiecewiseConstantDecay"):
        model.optimizer.learning_rate = 1.0
    first_step(0.25)
    model.optimizer.learning_rate = 0.0
    before = model.get_weights()[0]
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.get_weights()[0], before)
    assert model.optimizer.learning_rate == model.optimizer.lr == 0.0


@pytest.mark.parametrize(
    ("optimizer", "reference"),
    [
        (optimizers.SGD(), {"kind": torch.optim.SGD, "lr": 0.01}),
        (
            optimizers.SGD(0.05, momentum=0.9, nesterov=True),
            {"kind": torch.optim.SGD, "lr": 0.05, "momentum": 0.9, "nesterov": True},
        ),
        (
            optimizers.RMSprop(epsilon=1e-8),
            {"kind": torch.optim.RMSprop, "lr": 0.001, "alpha": 0.9, "eps": 1e-8},
        ),
        (
            optimizers.AdamW(epsilon=1e-12),
            {"kind": torch.optim.AdamW, "lr": 0.001, "weight_decay": 0.004, "eps": 1e-12},
        ),
    ],
    ids=["sgd", "nesterov", "rmsprop", "adamw"],
)
def test_optimizers_as_in_torch(optimizer, reference):
    x, y = floats(8, 5), floats(8, 3, seed=1)
    model = Sequential([layers.Dense(3, input_shape=(5,))])
    model.compile(optimizer, "mse")
    w, b = (torch.tensor(a, requires_grad=True) for a in model.get_weights())
    kind = reference["kind"]
    peer = kind([w, b], **{k: v for k, v in reference.items() if k != "kind"})
    for _ in range(10):
        model.train_on_batch(x, y)
        peer.zero_grad()
        F.mse_loss(torch.from_numpy(x) @ w + b, torch.from_numpy(y)).backward()
        peer.step()
    for ours, theirs in zip(model.get_weights(), (w, b), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("which", ["clipnorm", "global_clipnorm"])
def test_clipping(which):
    x, y = floats(8, 5), 100 * floats(8, 3, seed=1)
    model = Sequential([layers.Dense(3, input_shape=(5,))])
    model.compile(optimizers.SGD(1.0), "mse")
    start = model.get_weights()
    model.train_on_batch(x, y)
    gradients = [a - b for a, b in zip(start, model.get_weights(), strict=True)]
    norms = [np.linalg.norm(g) for g in gradients]
    assert min(norms) > 1
    if which == "global_clipnorm":
        norms = [np.linalg.norm(norms)] * 2
    model.set_weights(start)
    model.compile(optimizers.SGD(1.0, **{which: 0.5}), "mse")
    model.train_on_batch(x, y)
    for a, b, g, norm in zip(start, model.get_weights(), gradients, norms, strict=True):
        np.testing.assert_allclose(a - b, g * 0.5 / norm, rtol=1e-3, atol=1e-6)
