"""Losses that a graph computes itself, in a plan: kind "value"."""

import numpy as np
import pytest

from convlet import _core
from reference import floats


def squared_error(shape=(5,), keep=False, **loss):
    """A graph whose dense output has the loss mean((y - t)^2), and the spec of that loss."""
    graph = _core.Graph()
    x = graph.input("x", (7,))
    w = graph.parameter("w", (7, 5))
    y = graph.node("dense", "dense", [x], [w], {"activation": "tanh"})
    graph.output(y)
    t = graph.target("truth", shape)
    difference = graph.node("add", "difference", [y, graph.node("scale", "s", [t], (), NEGATIVE)])
    value = graph.node("multiply", "square", [difference, difference])
    if keep:
        graph.output(value)
    return graph, {"kind": "value", "value": value, "target": t} | loss


NEGATIVE = {"factor": -1.0}
BUILT_IN = {"kind": "mean_squared_error"}


def state_of(graph):
    state = _core.State(graph)
    state.set(0, floats(7, 5, seed=1))
    state.set_optimizer({"kind": "sgd"})
    return state


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 2.0, 0.5, 3.0, 1.0]])
@pytest.mark.parametrize("fuse", [True, False])
def test_it_is_the_built_in_loss(fuse, weights):
    x, t = floats(6, 7), floats(6, 5, seed=2)
    weights = [None if weights is None else np.float32(weights)]
    results = []
    for built_in in (True, False):
        graph, spec = squared_error(weight=0.7)
        spec = BUILT_IN | {"weight": 0.7} if built_in else spec
        state = state_of(graph)
        plan = _core.Plan(graph, state, "train", 6, [spec], fuse=fuse)
        values = [plan.run([x], [t], weights, learning_rate=0.3) for _ in range(5)]
        results.append((np.array(values), state.get(0), state.gradient(0)))
        test = _core.Plan(graph, state, "test", 6, [spec], fuse=fuse)
        results[-1] += (test.run([x], [t], weights),)
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-7)


def test_a_forecast_computes_no_loss():
    """Nodes that no output needs have no steps, and no part in what is fused."""
    graph, spec = squared_error()
    state = state_of(graph)
    kernels = [s["kernel"] for s in _core.Plan(graph, state, "predict", 4).steps()]
    assert kernels == ["dense"]
    (y,) = _core.Plan(graph, state, "predict", 4).predict([floats(4, 7)])
    np.testing.assert_allclose(y, np.tanh(floats(4, 7) @ floats(7, 5, seed=1)), rtol=1e-5)
    trained = _core.Plan(graph, state, "train", 4, [spec])
    assert [s["kernel"] for s in trained.steps() if s["name"] == "loss"][0] == "elementwise_loss"


def test_targets_of_any_shape_and_dtype():
    graph = _core.Graph()
    y = graph.node("dense", "dense", [graph.input("x", (7,))], [graph.parameter("w", (7, 5))])
    graph.output(y)
    t = graph.target("label", ())
    rows = graph.node("reshape", "column", [t], (), {"shape": [1]})
    joined = graph.node("concatenate", "joined", [y, rows], (), {"axis": 0})
    value = graph.node("multiply", "square", [joined, joined])
    state = state_of(graph)
    plan = _core.Plan(graph, state, "test", 3, [{"kind": "value", "value": value, "target": t}])
    x, labels = floats(3, 7), np.array([3, 0, 2])
    expected = np.concatenate([x @ floats(7, 5, seed=1), labels[:, None]], 1)
    for dtype in ("int64", "int32", "uint8", "float32", "float64"):
        total, loss = plan.run([x], [labels.astype(dtype)])
        assert total == loss == pytest.approx((expected**2).mean(), rel=1e-6)


def test_the_first_value_that_is_not_finite():
    graph, spec = squared_error()
    state = state_of(graph)
    plan = _core.Plan(graph, state, "train", 2, [spec])
    before = state.get(0)
    t = floats(2, 5)
    t[1, 2] = np.inf
    assert not np.isfinite(plan.run([floats(2, 7)], [t], learning_rate=0.1)[0])
    assert plan.first_non_finite() == "targets of output 'dense'"
    np.testing.assert_array_equal(state.get(0), before)
    t[1, 2] = 1e30
    assert plan.run([floats(2, 7)], [t], learning_rate=0.1)[0] == np.inf
    assert plan.first_non_finite() == "layer 'square'"


def test_errors():
    graph, spec = squared_error()
    state = state_of(graph)

    def plan(mode="train", metrics=(), **changed):
        return _core.Plan(graph, state, mode, 2, [spec | changed], list(metrics))

    with pytest.raises(ValueError, match=r"losses\[0\] \(value\): there is no value 99"):
        plan(value=99)
    with pytest.raises(ValueError, match="expected a target of this graph, got value 0"):
        plan(target=0)
    with pytest.raises(ValueError, match="none of from_logits, label_smoothing"):
        plan(from_logits=True)
    with pytest.raises(ValueError, match="the loss of output 0 takes targets"):
        plan(metrics=[{"kind": "sparse"}])
    with pytest.raises(ValueError, match=r"expected samples of shape \(5,\)"):
        plan().run([floats(2, 7)], [floats(2, 4)], learning_rate=0.1)
    leaking, _ = squared_error(keep=True)
    with pytest.raises(ValueError, match="an output depends on the target 'truth', which only its"):
        _core.Plan(leaking, state_of(leaking), "predict", 2)
    other = _core.Graph()
    with pytest.raises(ValueError, match="target 'truth': expected positive sizes"):
        other.target("truth", (0,))
