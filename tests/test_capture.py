"""Steps that a device records and replays: the same bits as steps that run kernel by kernel.

On the CPU, which records nothing, both runs are the same; with `--device simt` or `--device cuda` a
captured graph is held against launches.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import device_tests
from convlet import _core
from nets import SPARSE, Net
from reference import assert_exact

LOGITS = SPARSE | {"from_logits": True}
DEVICE = _core.op_device()
RECORDS = DEVICE != "cpu"


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


def test_what_others_launch_is_no_part_of_a_recorded_step():
    """Another thread trains a network of its own: in the emulator, in the middle of a recording."""
    rows = [5, 5, 5, 3, 3, 5]
    alone = train(rows)
    with ThreadPoolExecutor(1, initializer=_core.set_op_device, initargs=[DEVICE]) as pool:
        others = []

        def meanwhile():
            if not others:
                others.append(pool.submit(train, rows))
                if emulator:
                    others[0].result()

        emulator = device_tests.emulator()
        if emulator:
            emulator.during_capture(meanwhile)
        else:
            meanwhile()
        try:
            again = train(rows)
        finally:
            if emulator:
                emulator.during_capture(None)
        for result in (again, others[0].result()):
            for a, b in zip(alone, result, strict=True):
                assert_exact(b, a)


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


def all_state(net, state):
    slots = range(len(state.slot_names()))
    trained = [i for i, trainable in enumerate(net.trainable) if trainable]
    return [
        *(state.get(i) for i in range(len(net.parameters))),
        *(state.get_slot(slot, i) for slot in slots for i in trained),
    ]


OPTIMIZERS = [
    {"kind": "adam"},
    {"kind": "sgd", "momentum": 0.9, "average": True},
    {"kind": "rmsprop", "accumulation_steps": 3},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda spec: spec["kind"])
@pytest.mark.parametrize("behind", [2])
def test_results_may_be_taken_later(optimizer, behind):
    rows = [7, 7, 4, 7, 7, 4, 7]
    runs = []
    for late in (0, behind):
        net = small_net()
        state = net.state(optimizer)
        plan = _core.Plan(net.graph, state, "train", 7, [LOGITS], [{"kind": "sparse"}], seed=3)
        results, started = [], []
        for step, n in enumerate(rows):
            data = net.data(n, seed=step)
            rate = 0.01 / (step + 1)
            started.append(plan.start(data, [np.arange(n) % 5], learning_rate=rate))
            for array in data:
                array.fill(np.nan)  # a step has what it needs
            if step >= late:
                results.append(plan.finish(started.pop(0)))
        results += [plan.finish(step) for step in started]
        runs.append([*results, *all_state(net, state)])
    for at_once, later in zip(*runs, strict=True):
        assert_exact(later, at_once)
    assert plan.finish(len(rows)).size == 0  # taken before
    with pytest.raises(ValueError, match="expected a step that was started, got 8"):
        plan.finish(len(rows) + 1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda spec: spec["kind"])
@pytest.mark.parametrize("bad", [0, 3])
def test_steps_after_a_bad_one_have_not_happened(optimizer, bad):
    net = small_net()
    state = net.state(optimizer)
    plan = _core.Plan(net.graph, state, "train", 7, [LOGITS], seed=3)
    labels = np.arange(7) % 5
    before = all_state(net, state)
    for step in range(bad):
        plan.run(net.data(7, seed=step), [labels], learning_rate=0.01)
        before = all_state(net, state)
    x = net.data(7, seed=bad)
    x[0][3, 2, 1, 0] = np.inf
    wrong = plan.start(x, [labels], learning_rate=0.01)
    void = [
        plan.start(net.data(n, seed=step), [labels[:n]], learning_rate=0.01)
        for step, n in enumerate((4, 7, 4))
    ]
    assert not np.isfinite(plan.finish(wrong)[0])
    assert state.batches == bad
    assert not any(plan.finish(step).size for step in void)
    for old, new in zip(before, all_state(net, state), strict=True):
        assert_exact(new, old)
    assert plan.output(0).shape == (7, 5)  # of the batch that is still in memory
    assert plan.first_non_finite() == "input 'input0'"
    # Training goes on as if nothing had been.
    good = [net.data(7, seed=8), [labels]]
    result = plan.run(*good, learning_rate=0.01)
    other = _core.Plan(net.graph, fresh := net.state(optimizer), "train", 7, [LOGITS], seed=3)
    for step in range(bad):
        other.run(net.data(7, seed=step), [labels], learning_rate=0.01)
    assert_exact(result, other.run(*good, learning_rate=0.01))
    for ours, theirs in zip(all_state(net, state), all_state(net, fresh), strict=True):
        assert_exact(ours, theirs)


def test_everybody_gets_his_own_results():
    net = small_net()
    plan = _core.Plan(net.graph, net.state({"kind": "sgd"}), "test", 7, [LOGITS])
    labels = np.arange(7) % 5
    alone = [plan.run(net.data(7, seed=seed), [labels]) for seed in range(4)]
    steps = [plan.start(net.data(7, seed=seed), [labels]) for seed in range(3)]
    assert_exact(plan.run(net.data(7, seed=3), [labels]), alone[3])
    for seed in (1, 2, 0):
        assert_exact(plan.finish(steps[seed]), alone[seed])


def test_outputs_may_be_taken_later():
    net = small_net()
    plan = _core.Plan(net.graph, net.state(), "predict", 7)
    batches = [net.data(n, seed=n) for n in (7, 4, 7, 1)]
    expected = [plan.predict(data)[0] for data in batches]
    sent = _core.Outputs(DEVICE)
    for data in batches:
        plan.start(data)
        plan.send_outputs(sent)
    for wrong in (np.empty((7, 5)), np.empty((5, 7), "f").T, np.empty((4, 5), "f")):
        with pytest.raises(ValueError, match="contiguous float32 array of 140 bytes"):
            sent.take([wrong])
    for values in expected:
        out = np.empty_like(values)
        sent.take([out])
        assert_exact(out, values)
    with pytest.raises(ValueError, match="at most 0 arrays, got 1"):
        sent.take([out])


def test_graphs_are_dumped(monkeypatch, tmp_path):
    monkeypatch.setenv("CONVLET_DUMP_GRAPHS", str(tmp_path))
    train([7, 7, 7])
    files = sorted(path.name.partition("-")[2] for path in tmp_path.iterdir())
    assert files == (["train.dot"] if RECORDS else [])
    for path in tmp_path.iterdir():
        assert path.read_text().startswith("digraph")
