"""Launches that fail, as one does that asks a GPU for more than it has: always an error, never a
result that a kernel is missing from.

Only with --device simt (device_tests.py)."""

from contextlib import suppress

import numpy as np
import pytest

import device_tests
from calls import f32
from convlet import _core, ops
from cuda_like import DEVICE, Cupy, Jax
from nets import SPARSE, Net
from reference import assert_exact


@pytest.fixture
def refuse():
    emulator = device_tests.emulator()
    yield emulator.refuse_launch
    emulator.refuse_launch(0)


def forget():
    """What the other kernels met in memory that the missing one would have written."""
    with suppress(ValueError):
        _core.wait(DEVICE)
    device_tests.findings()


class Training:
    def __init__(self):
        self.net = Net()
        y = self.net.conv2d(self.net.input(5, 5, 2), 3, activation="relu")
        self.net.output(self.net.dense(self.net.flatten(y), 4))
        self.state = self.net.state({"kind": "sgd", "momentum": 0.9})
        self.plan = _core.Plan(
            self.net.graph, self.state, "train", 3, [SPARSE | {"from_logits": True}]
        )

    def step(self):
        return self.plan.run(self.net.data(3), [np.arange(3)], learning_rate=0.1)

    def parameters(self):
        return [self.state.get(i) for i in range(len(self.net.parameters))]


def test_a_launch_of_a_step(refuse):
    """Whichever it is."""
    for launch in range(1, 100):
        training = Training()
        refuse(launch)
        try:
            training.step()
        except ValueError as error:
            assert "a kernel could not be launched" in str(error)
            forget()
        else:
            break
    assert 10 < launch < 100


def test_a_launch_of_a_step_that_is_recorded(refuse):
    """No graph is kept, and the step can be asked for again."""
    expected = Training()
    for _ in range(3):
        expected.step()
    for launch in range(1, 100):
        training = Training()
        training.step()
        refuse(launch)
        try:
            training.step()
        except ValueError as error:
            assert "a kernel could not be launched" in str(error)
            forget()
        else:
            break
        for _ in range(2):
            training.step()
        for a, b in zip(training.parameters(), expected.parameters(), strict=True):
            assert_exact(a, b)
    assert 10 < launch < 100


def test_an_op(refuse):
    refuse(1)
    with pytest.raises(ValueError, match="a kernel could not be launched"):
        ops.relu(f32(3))
    assert_exact(ops.relu(f32(3)), f32(3))


def test_an_op_on_a_library_s_stream(refuse):
    x = Cupy(device_tests.emulator().stream().number).asarray(f32(3))
    refuse(1)
    with pytest.raises(ValueError, match="a kernel could not be launched"):
        ops.relu(x)
    assert_exact(ops.relu(x).memory.numpy(), f32(3))


def test_work_that_is_not_done_is_no_error():
    """CUDA keeps the answer "not ready" like an error."""
    stream = device_tests.emulator().stream()
    stream.set_lazy(True)
    library = Jax(stream.number)
    x = library.asarray(f32(3))
    for _ in range(4):  # each asks whether the arrays of those before have been read
        y = ops.relu(x)
    assert_exact(library.numpy(y), f32(3))
