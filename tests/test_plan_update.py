"""The end of a plan's training step: the count of steps, clipping, penalties, the optimizer."""

import numpy as np
import pytest

from convlet import _core
from nets import MSE, SPARSE, Net, cnn
from plan_graphs import frozen, labels_for
from reference import assert_exact


def dropout_net():
    net = Net()
    x = net.node("dropout", net.dense(net.input(30), 40, activation="relu"), rate=0.5)
    net.output(net.node("softmax", net.dense(x, 4)))
    return net


def test_dropout_is_new_in_each_step_and_absent_outside_training():
    net = dropout_net()
    x, y = net.data(8), labels_for(net, [SPARSE], 8)
    state = net.state()

    def train(seed):
        state.updates = 0
        plan = _core.Plan(net.graph, state, "train", 8, [SPARSE], seed=seed)
        return [plan.run(x, y)[0] for _ in range(3)]

    first = train(1)
    assert len(set(first)) == 3
    assert train(1) == first
    assert train(2) != first
    test = _core.Plan(net.graph, state, "test", 8, [SPARSE])
    assert test.run(x, y)[0] == test.run(x, y)[0]
    assert "dropout" not in [step["kernel"] for step in test.steps()]


OPTIMIZERS = [
    {"kind": "sgd", "momentum": 0.9, "nesterov": True},
    {"kind": "rmsprop", "centered": True, "momentum": 0.5},
    {"kind": "adam", "weight_decay": 0.01},
]


@pytest.mark.parametrize("spec", OPTIMIZERS, ids=lambda spec: spec["kind"])
def test_update_is_the_optimizer_on_each_trainable_parameter(spec):
    net, losses = frozen()
    state = net.state(spec)
    plan = _core.Plan(net.graph, state, "train", 5, losses)
    data, targets = net.data(5), labels_for(net, losses, 5)
    slots = len(state.slot_names())
    for t in (1, 2, 3):
        before = [state.get(i) for i in range(len(net.parameters))]
        states = [
            [state.get_slot(slot, i) for slot in range(slots)] if net.trainable[i] else []
            for i in range(len(net.parameters))
        ]
        plan.run(data, targets, learning_rate=0.01)
        assert state.updates == t
        for i, p in enumerate(before):
            if net.trainable[i]:
                _core.optimizer_update(spec, 0.01, t, p, state.gradient(i), states[i])
                for slot in range(slots):
                    assert_exact(state.get_slot(slot, i), states[i][slot])
            assert_exact(state.get(i), p)


@pytest.mark.parametrize("clip", ["clip_norm", "global_clip_norm"])
def test_gradients_are_clipped_by_norm(clip):
    net, losses = cnn()
    data, targets = net.data(5), labels_for(net, losses, 5)
    parameters = range(len(net.parameters))
    state = net.state()
    _core.Plan(net.graph, state, "train", 5, losses).run(data, targets)
    free = [state.gradient(i).astype(np.float64) for i in parameters]
    norms = [np.linalg.norm(g) for g in free]
    if clip == "global_clip_norm":
        norms = [np.sqrt(np.square(norms).sum())] * len(free)
    limit = 0.5 * max(norms)
    state = net.state({"kind": "sgd", clip: limit})
    _core.Plan(net.graph, state, "train", 5, losses).run(data, targets)
    for i in parameters:
        expected = free[i] * min(1.0, limit / norms[i])
        np.testing.assert_allclose(state.gradient(i), expected, rtol=1e-5, atol=1e-8)


def test_regularizers_count_in_every_mode_that_has_a_total():
    net = Net()
    kernel = net.parameter(3, 4, l1=0.1, l2=0.01)
    lonely = net.parameter(5, l2=0.5)  # no loss depends on it
    net.parameter(5, l2=0.5, trainable=False)
    net.output(net.node("dense", net.input(3), parameters=[kernel]))
    w, v = (net.parameters[i].astype(np.float64) for i in (kernel, lonely))
    penalty = 0.1 * np.abs(w).sum() + 0.01 * (w**2).sum() + 0.5 * (v**2).sum()
    x, t = net.data(4), labels_for(net, [MSE], 4)
    state = net.state()
    for mode in ("test", "train"):
        plan = _core.Plan(net.graph, state, mode, 4, [MSE])
        for _ in range(2):  # gradients must not pile up from step to step
            total, loss = plan.run(x, t)
            assert total - loss == pytest.approx(penalty, rel=1e-6)
    np.testing.assert_allclose(state.gradient(lonely), v, rtol=1e-6)


def test_plans_of_every_mode_share_one_state():
    net, losses = cnn()
    state = net.state({"kind": "adam"})
    plans = {mode: _core.Plan(net.graph, state, mode, 8, losses) for mode in ("train", "test")}
    plans["predict"] = _core.Plan(net.graph, state, "predict", 8)
    del net.graph
    x = np.random.default_rng(1).standard_normal((8, 9, 9, 3)).astype(np.float32)
    y = np.arange(8)
    totals = [plans["train"].run([x], [y], learning_rate=0.01)[0] for _ in range(30)]
    assert totals[-1] < 0.2 * totals[0]
    assert plans["test"].run([x], [y])[0] < totals[-1]
    assert (plans["predict"].predict([x])[0].argmax(1) == y).all()
    assert state.updates == 30
    state.set_optimizer({"kind": "sgd"})  # a plan follows its state's optimizer
    before = [state.get(i) for i in range(len(net.parameters))]
    plans["train"].run([x], [y], learning_rate=0.5)
    for i, p in enumerate(before):
        assert_exact(state.get(i), p - np.float32(0.5) * state.gradient(i))
