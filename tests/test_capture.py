"""Steps that a device records and replays: the same bits as steps that run kernel by kernel.

On the CPU, which records nothing, both runs are the same; with `--device simt` or `--device cuda` a
captured graph is held against launches.
"""

import numpy as np
import pytest

from convlet import _core
from nets import SPARSE, Net
from reference import assert_exact

RECORDS = _core.op_device() != "cpu"


def small_net():
    net = Net()
    y = net.conv2d(net.input(6, 6, 3), 8, padding="same", activation="relu")
    y = net.batch_norm(y)
    y = net.node("max_pool2d", y, pool_size=[2, 2])
    y = net.node("dropout", net.flatten(y), rate=0.3)
    net.output(net.dense(y, 5))
    return net


def train(rows, accumulation=1):
    """Losses and parameters after a step with each number of rows."""
    net = small_net()
    state = net.state({"kind": "adam", "accumulation_steps": accumulation})
    loss = SPARSE | {"from_logits": True}
    plan = _core.Plan(net.graph, state, "train", 7, [loss], seed=3)
    losses = []
    for step, n in enumerate(rows):
        labels = np.arange(n) % 5
        losses.append(plan.run(net.data(n, seed=step), [labels], learning_rate=0.01 / (step + 1)))
    return [*losses, *(state.get(i) for i in range(len(net.parameters)))]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_captured_is_uncaptured(monkeypatch, accumulation):
    rows = [7, 7, 7, 4, 7, 4, 4, 7]
    monkeypatch.setenv("CONVLET_CAPTURE", "0")
    launched = train(rows, accumulation)
    monkeypatch.setenv("CONVLET_CAPTURE", "1")
    for a, b in zip(launched, train(rows, accumulation), strict=True):
        assert_exact(a, b)


def test_prediction_replays(monkeypatch):
    net = small_net()
    state = net.state()
    plan = _core.Plan(net.graph, state, "predict", 4)
    first = plan.predict(net.data(4))[0]
    for _ in range(2):
        assert_exact(plan.predict(net.data(4))[0], first)
    # New weights reach a recorded step.
    state.set(len(net.parameters) - 1, np.ones(5, np.float32))
    assert (plan.predict(net.data(4))[0] != first).any()


def test_a_loss_that_is_not_finite_changes_nothing():
    net = small_net()
    state = net.state({"kind": "adam"})
    plan = _core.Plan(net.graph, state, "train", 7, [SPARSE | {"from_logits": True}])
    labels = np.arange(7) % 5
    for _ in range(3):
        plan.run(net.data(7), [labels], learning_rate=0.01)
    before = [state.get(i) for i in range(len(net.parameters))]
    slots = [state.get_slot(0, 0), state.get_slot(1, 0)]
    bad = net.data(7)
    bad[0][3, 2, 1, 0] = np.nan
    assert not np.isfinite(plan.run(bad, [labels], learning_rate=0.01)[0])
    for i, values in enumerate(before):
        assert_exact(state.get(i), values)
    for slot, values in enumerate(slots):
        assert_exact(state.get_slot(slot, 0), values)
    assert plan.first_non_finite() == "input 'input0'"
    assert np.isfinite(plan.run(net.data(7), [labels], learning_rate=0.01)[0])


def test_graphs_are_dumped(monkeypatch, tmp_path):
    monkeypatch.setenv("CONVLET_DUMP_GRAPHS", str(tmp_path))
    train([7, 7, 7])
    files = sorted(path.name.partition("-")[2] for path in tmp_path.iterdir())
    assert files == (["backward.dot", "forward.dot"] if RECORDS else [])
    for path in tmp_path.iterdir():
        assert path.read_text().startswith("digraph")
