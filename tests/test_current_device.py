"""A thread that has chosen another GPU, as by `torch.cuda.set_device(1)`: states, data sets, plans
and ops run on convlet's all the same, and the thread's choice is what it was after each call.

Only with --device simt (device_tests.py): the emulator has two GPUs."""

import numpy as np
import pytest

import device_tests
from calls import f32
from convlet import _core, ops
from cuda_like import DEVICE, Cupy
from nets import SPARSE, Net
from reference import assert_exact
from test_launch_errors import forget


@pytest.fixture
def emulator():
    emulator = device_tests.emulator()
    yield emulator
    emulator.refuse_launch(0)
    emulator.set_device(0)


def train(called):
    """Everything that a model does on a device; called() after each call."""
    net = Net()
    y = net.conv2d(net.input(5, 5, 2), 3, activation="relu")
    y = net.node("dropout", net.flatten(y), rate=0.25)
    net.output(net.dense(y, 4))
    state = net.state({"kind": "adam"})
    called()
    plan = _core.Plan(net.graph, state, "train", 3, [SPARSE | {"from_logits": True}])
    called()
    labels, results = np.arange(5) % 4, []
    for _ in range(3):  # launched, recorded, replayed
        results.append(plan.run(net.data(3), [labels[:3]], learning_rate=0.1))
        called()
    data = _core.Dataset(DEVICE, net.data(5), [labels])
    called()
    data.set_order(np.arange(5)[::-1])
    data.set_weights(0, np.linspace(0.5, 1, 5, dtype=np.float32))
    called()
    started = [plan.start_from(data, first, 2, learning_rate=0.1) for first in (0, 2, 0)]
    called()
    results += [plan.finish(step) for step in started]
    assert plan.first_non_finite() == ""
    called()
    prediction = _core.Plan(net.graph, state, "predict", 3)
    outputs, y = _core.Outputs(DEVICE), np.empty((3, 4), np.float32)
    prediction.start(net.data(3))
    prediction.send_outputs(outputs)
    outputs.take([y])
    called()
    results += [y, prediction.predict(net.data(3))[0], prediction.output(0)]
    state.set(0, state.get(0) * 2)
    results += [state.get(0), state.get_slot(0, 0), state.gradient(0)]
    called()
    assert _core.free_memory(DEVICE) > 0
    called()
    return results


def test_training_is_the_same(emulator):
    expected = train(lambda: None)
    allocations = emulator.allocations()
    emulator.set_device(1)

    def called():
        assert emulator.device() == 1

    results = train(called)
    while results:
        assert_exact(results.pop(), expected[len(results)])
    called()
    assert emulator.allocations() == allocations  # what is freed is found there


def test_each_step_from_another_device(emulator):
    """Steps and memory that were made while the thread had chosen convlet's, and the other way."""
    net = Net()
    net.output(net.dense(net.input(6), 4))
    results = []
    for devices in ([0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 1, 0]):
        state = net.state({"kind": "sgd"})
        plan = _core.Plan(net.graph, state, "train", 3, [SPARSE | {"from_logits": True}])
        for device in devices:
            emulator.set_device(device)
            plan.run(net.data(3), [np.arange(3)], learning_rate=0.1)
            assert emulator.device() == device
        results.append(state.get(0))
        del plan, state
    assert_exact(results[1], results[0])
    assert_exact(results[2], results[0])


def test_ops(emulator):
    library = Cupy(emulator.stream().number)
    x, theirs = f32(3, 70000), library.asarray(f32(3, 70000))
    emulator.set_device(1)
    for argument in (x, theirs):
        y = ops.softmax(ops.relu(argument))
        assert emulator.device() == 1
    assert_exact(y.memory.numpy(), ops.softmax(ops.relu(x)))


def test_errors(emulator):
    net = Net()
    net.output(net.dense(net.input(6), 4))
    state = net.state({"kind": "sgd"})
    plan = _core.Plan(net.graph, state, "train", 3, [SPARSE | {"from_logits": True}])
    emulator.set_device(1)
    for launch in (1, 3):
        emulator.refuse_launch(launch)
        with pytest.raises(ValueError, match="a kernel could not be launched"):
            plan.run(net.data(3), [np.arange(3)], learning_rate=0.1)
        assert emulator.device() == 1
        forget()
    with pytest.raises(ValueError, match="not enough memory"):
        large = _core.Graph()
        large.parameter("w", (1 << 19, 1 << 19))
        _core.State(large, DEVICE)
    assert emulator.device() == 1
    with pytest.raises(ValueError, match="expected a row"):
        _core.Dataset(DEVICE, net.data(3)).set_order(np.array([7]))
    assert emulator.device() == 1
