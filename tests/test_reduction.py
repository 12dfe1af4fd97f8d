"""The kernels that go over all parameters, seen through plans.

l1 and l2 penalties and their gradients, clipping, the search for a value that is not finite.
"""

import numpy as np
import pytest

from convlet import _core
from reference import assert_exact, floats

SIZES = [(1, 1), (3, 5), (19, 31), (99, 66), (257, 300)]


class Model:
    """y = x @ w without bias, loss = mean((y - 0)^2), SGD."""

    def __init__(self, shape, l1=0.0, l2=0.0, **optimizer):
        graph = _core.Graph()
        self.kernel = graph.parameter("w", shape, True, l1, l2)
        value = graph.input("x", (shape[0],))
        graph.output(graph.node("dense", "dense", [value], [self.kernel], {"activation": ""}))
        self.state = _core.State(graph)
        self.state.set_optimizer({"kind": "sgd", **optimizer})
        self.w = floats(*shape)
        self.state.set(self.kernel, self.w)
        self.plan = _core.Plan(
            graph, self.state, "train", 4, [{"kind": "mean_squared_error", "output": 0}]
        )
        self.x, self.target = floats(4, shape[0], seed=1), floats(4, shape[1], seed=2)

    def run(self, learning_rate=0.0):
        """[total, loss]"""
        return self.plan.run([self.x], [self.target], learning_rate=learning_rate)

    def gradient(self):
        """Of the loss alone, in float64."""
        x, w = self.x.astype(np.float64), self.w.astype(np.float64)
        return x.T @ (x @ w - self.target) * 2 / self.target.size


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("l1,l2", [(0.1, 0.0), (0.0, 0.2), (0.1, 0.2)])
def test_penalty(isa, shape, l1, l2):
    model = Model(shape, l1, l2)
    model.w.flat[0] = 0
    model.state.set(model.kernel, model.w)
    total, loss = model.run()
    w = model.w.astype(np.float64)
    a1, a2 = float(np.float32(l1)), float(np.float32(l2))
    penalty = a1 * np.abs(w).sum() + a2 * (w**2).sum()
    assert total - loss == pytest.approx(penalty, rel=1e-6, abs=1e-6)
    expected = model.gradient() + a1 * np.sign(w) + 2 * a2 * w
    scale = np.abs(expected).max()
    np.testing.assert_allclose(model.state.gradient(model.kernel), expected, atol=2e-6 * scale)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("setting", ["clip_norm", "global_clip_norm"])
def test_clipping(isa, shape, setting):
    free = Model(shape)
    gradient = free.gradient()
    norm = np.sqrt((gradient**2).sum())
    for share in (0.25, 1.5):
        model = Model(shape, **{setting: share * norm})
        model.run(learning_rate=1.0)
        step = model.w - model.state.get(model.kernel).astype(np.float64)
        expected = gradient * min(1.0, share)
        np.testing.assert_allclose(step, expected, atol=3e-6 * max(np.abs(model.w).max(), norm))


def test_a_zero_gradient_is_not_clipped_to_nan():
    model = Model((3, 5), clip_norm=1.0)
    model.x[:] = 0
    model.run(learning_rate=1.0)
    assert_exact(model.state.get(model.kernel), model.w)


def test_same_bits_for_any_number_of_threads():
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            model = Model((257, 300), 0.1, 0.2, global_clip_norm=0.5)
            totals = [model.run(0.01) for _ in range(3)]
            results.append((np.array(totals), model.state.get(model.kernel)))
    finally:
        _core.set_num_threads(before)
    for totals, w in results[1:]:
        assert_exact(totals, results[0][0])
        assert_exact(w, results[0][1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", SIZES)
def test_the_first_value_that_is_not_finite(isa, shape, value):
    for position in {0, shape[0] * shape[1] // 2, shape[0] * shape[1] - 1}:
        model = Model(shape)
        model.run()
        assert model.plan.first_non_finite() == ""
        model.w.flat[position] = value
        model.state.set(model.kernel, model.w)
        model.run()
        assert model.plan.first_non_finite() == "parameter 'w'"
