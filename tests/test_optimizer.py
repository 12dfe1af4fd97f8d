"""One update by each optimizer, against torch.optim and against Keras' formulas in float64."""

import numpy as np
import pytest
import torch

from convlet import _core
from reference import AWKWARD, assert_exact, floats, integers

SPECS = {
    "sgd": {"kind": "sgd"},
    "momentum": {"kind": "sgd", "momentum": 0.9},
    "nesterov": {"kind": "sgd", "momentum": 0.9, "nesterov": True},
    "sgd_decay": {"kind": "sgd", "momentum": 0.5, "weight_decay": 0.1},
    "rmsprop": {"kind": "rmsprop"},
    "rmsprop_momentum": {"kind": "rmsprop", "rho": 0.8, "momentum": 0.9},
    "rmsprop_centered": {"kind": "rmsprop", "centered": True},
    "rmsprop_all": {"kind": "rmsprop", "centered": True, "momentum": 0.5, "weight_decay": 0.01},
    "adam": {"kind": "adam"},
    "adam_other": {"kind": "adam", "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
    "adamw": {"kind": "adam", "weight_decay": 0.1},
}
SLOTS = {
    "sgd": 0,
    "momentum": 1,
    "nesterov": 1,
    "sgd_decay": 1,
    "rmsprop": 1,
    "rmsprop_momentum": 2,
    "rmsprop_centered": 2,
    "rmsprop_all": 3,
    "adam": 2,
    "adam_other": 2,
    "adamw": 2,
}


def keras_update(spec, lr, t, p, g, state):
    """One update in float64; p and state change in place."""
    momentum, rho = spec.get("momentum", 0.0), spec.get("rho", 0.9)
    epsilon = spec.get("epsilon", 1e-7)
    p -= lr * spec.get("weight_decay", 0.0) * p
    if spec["kind"] == "sgd":
        if not momentum:
            p -= lr * g
            return
        state[0][:] = momentum * state[0] - lr * g
        p += momentum * state[0] - lr * g if spec.get("nesterov") else state[0]
    elif spec["kind"] == "rmsprop":
        state[0][:] = rho * state[0] + (1 - rho) * g**2
        variance = state[0]
        if spec.get("centered"):
            state[1][:] = rho * state[1] + (1 - rho) * g
            variance = variance - state[1] ** 2
        d = lr * g / (np.sqrt(variance) + epsilon)
        if momentum:
            state[-1][:] = momentum * state[-1] + d
            d = state[-1]
        p -= d
    else:
        beta_1, beta_2 = spec.get("beta_1", 0.9), spec.get("beta_2", 0.999)
        state[0] += (1 - beta_1) * (g - state[0])
        state[1] += (1 - beta_2) * (g**2 - state[1])
        alpha = lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        p -= alpha * state[0] / (np.sqrt(state[1]) + epsilon)


def run(name, p, gradients, lr):
    """The parameters and the state after an update with each gradient."""
    p = p.copy()
    state = [np.zeros_like(p) for _ in range(SLOTS[name])]
    for t, g in enumerate(gradients, 1):
        _core.optimizer_update(SPECS[name], lr, t, p, g, state)
    return p, state


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("n", [0, *AWKWARD, 5000])
def test_formula(isa, name, n):
    lr = 0.01
    start = floats(n)
    gradients = [floats(n, seed=seed) for seed in range(1, 11)]
    p, state = run(name, start, gradients, lr)

    exact, exact_state = start.astype(np.float64), [np.zeros(n) for _ in range(SLOTS[name])]
    for t, g in enumerate(gradients, 1):
        keras_update(SPECS[name], lr, t, exact, g.astype(np.float64), exact_state)
    # Where the centered variance nearly cancels, float32 keeps few of its digits.
    tolerance = 2e-4 if "centered" in SPECS[name] else 3e-6
    np.testing.assert_allclose(p, exact, rtol=0, atol=tolerance)
    for got, expected in zip(state, exact_state, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=tolerance)


# torch's formula is the same where epsilon does not matter and where its learning rate stays put.
@pytest.mark.parametrize(
    "name,optimizer",
    [
        ("sgd", lambda p, lr: torch.optim.SGD(p, lr)),
        ("momentum", lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)),
        ("nesterov", lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True)),
        ("rmsprop", lambda p, lr: torch.optim.RMSprop(p, lr, alpha=0.9, eps=1e-7)),
        (
            "rmsprop_centered",
            lambda p, lr: torch.optim.RMSprop(p, lr, alpha=0.9, eps=1e-7, centered=True),
        ),
        (
            "rmsprop_momentum",
            lambda p, lr: torch.optim.RMSprop(p, lr, alpha=0.8, eps=1e-7, momentum=0.9),
        ),
        ("adam", lambda p, lr: torch.optim.Adam(p, lr, eps=1e-9)),
        ("adamw", lambda p, lr: torch.optim.AdamW(p, lr, eps=1e-9, weight_decay=0.1)),
    ],
)
def test_torch(name, optimizer):
    lr, n = 0.01, 317
    start = floats(n)
    # Gradients of one sign and size keep the centered variance away from rounding.
    gradients = [floats(n, seed=seed) + np.float32(0.1) for seed in range(1, 21)]
    p, _ = run(name, start, gradients, lr)

    expected = torch.from_numpy(start.copy()).requires_grad_()
    theirs = optimizer([expected], lr)
    for g in gradients:
        expected.grad = torch.from_numpy(g)
        theirs.step()
    tolerance = 1e-3 if name == "rmsprop_centered" else 1e-5
    np.testing.assert_allclose(p, expected.detach().numpy(), rtol=0, atol=tolerance)


def test_integers_are_exact(isa):
    p, g = integers(19, high=9), integers(19, seed=1)
    expected = p - np.float32(0.5) * g
    _core.optimizer_update({"kind": "sgd"}, 0.5, 1, p, g, [])
    assert_exact(p, expected)


def test_first_adam_step_is_the_learning_rate(isa):
    """Kingma and Ba's remark: bias correction makes the first step lr, whatever the gradient."""
    g = np.array([1e-2, -1e4, 3.0, -1.0, 1e10], np.float32)
    p = np.zeros_like(g)
    _core.optimizer_update({"kind": "adam"}, 0.25, 1, p, g, [np.zeros_like(g), np.zeros_like(g)])
    np.testing.assert_allclose(p, -0.25 * np.sign(g), rtol=4e-3)


@pytest.mark.parametrize("name", ["rmsprop_centered", "rmsprop_all"])
def test_centered_variance_is_never_negative(isa, name):
    g = np.full(37, np.float32(1 / 3))
    p, _ = run(name, np.zeros_like(g), [g] * 300, 1e-9)
    assert np.isfinite(p).all()


@pytest.mark.parametrize("name", SPECS)
def test_nan_gradient_shows(name):
    g = floats(19)
    g[7] = np.nan
    p, _ = run(name, floats(19, seed=1), [g], 0.1)
    assert np.flatnonzero(np.isnan(p)).tolist() == [7]


@pytest.mark.parametrize("name", SPECS)
def test_same_bits_for_any_number_of_threads(name):
    n = 70_001
    start, gradients = floats(n), [floats(n, seed=seed) for seed in (1, 2)]
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            results.append(run(name, start, gradients, 0.01))
    finally:
        _core.set_num_threads(before)
    for p, state in results[1:]:
        assert_exact(p, results[0][0])
        for got, expected in zip(state, results[0][1], strict=True):
            assert_exact(got, expected)


@pytest.mark.parametrize(
    "setting,value,message",
    [
        ("momentum", 1.0, r"sgd: expected momentum in \[0,1\), got 1"),
        ("momentum", -0.5, r"sgd: expected momentum in \[0,1\), got -0.5"),
        ("rho", 1.5, r"rmsprop: expected rho in \[0,1\), got 1.5"),
        ("beta_1", float("nan"), r"adam: expected beta_1 in \[0,1\), got nan"),
        ("beta_2", 1.0, r"adam: expected beta_2 in \[0,1\), got 1"),
        ("epsilon", 0.0, r"adam: expected epsilon > 0, got 0"),
        ("epsilon", float("inf"), r"adam: expected epsilon > 0, got inf"),
        ("weight_decay", -1.0, r"adam: expected weight_decay >= 0, got -1"),
    ],
)
def test_settings_out_of_range(setting, value, message):
    kind = message.split(":")[0]
    p = floats(3)
    with pytest.raises(ValueError, match=message):
        _core.optimizer_update({"kind": kind, setting: value}, 0.1, 1, p, floats(3), [p.copy()])


def test_wrong_number_of_slots():
    p = floats(3)
    with pytest.raises(ValueError, match="expected 2 arrays of state, got 0"):
        _core.optimizer_update({"kind": "adam"}, 0.1, 1, p, floats(3), [])
