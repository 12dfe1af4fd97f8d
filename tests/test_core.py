"""Graph, State and Plan as the compiled module gives them: bad arguments and shared use."""

import re
import sys
import threading

import numpy as np
import pytest

from calls import CALLS, call, f32
from convlet import _core

LOSS = {"kind": "softmax_cross_entropy", "integer_labels": True, "from_logits": True}


def make_graph():
    """x (4,) -> dense (3,)."""
    graph = _core.Graph()
    x = graph.input("x", (4,))
    kernel = graph.parameter("dense/kernel", (4, 3))
    bias = graph.parameter("dense/bias", (3,), False)
    graph.output(graph.node("dense", "dense", [x], [kernel, bias], {}))
    return graph


@pytest.fixture
def graph():
    return make_graph()


@pytest.fixture
def state(graph):
    state = _core.State(graph)
    state.set(0, f32(4, 3))
    return state


@pytest.fixture
def training(graph, state):
    state.set_optimizer({"kind": "sgd", "momentum": 0.9})
    return _core.Plan(graph, state, "train", 8, [LOSS], [{"kind": "sparse"}])


class TestGraph:
    def test_shapes(self, graph):
        assert graph.shape(0) == (4,)
        assert graph.shape(1) == (3,)
        assert graph.parameter_shape(0) == (4, 3)

    @pytest.mark.parametrize("index", [-1, 2, 2**31 - 1])
    def test_ids_out_of_range(self, graph, index):
        with pytest.raises(ValueError, match=r"Graph.shape: expected an index in \[0,2\), got"):
            graph.shape(index)
        with pytest.raises(ValueError, match=r"Graph.parameter_shape: expected .* \[0,2\), got"):
            graph.parameter_shape(index)
        with pytest.raises(ValueError, match=str(index)):
            graph.output(index)
        with pytest.raises(ValueError, match=r"new"):
            graph.node("dense", "new", [index], [0], {})
        with pytest.raises(ValueError, match=r"new"):
            graph.node("dense", "new", [0], [index], {})

    @pytest.mark.parametrize("value", [None, object(), 2**63, "x" * 3, [1.5], [None], [2**63], {}])
    def test_attributes(self, value):
        graph = _core.Graph()
        x = graph.input("image", (8, 8, 3))
        kernel = graph.parameter("conv/kernel", (3, 3, 3, 5))
        with pytest.raises((TypeError, ValueError), match="conv.*stride"):
            graph.node("conv2d", "conv", [x], [kernel], {"stride": value})

    def test_attributes_of_numpy_types(self):
        graph = _core.Graph()
        x = graph.input("image", (8, 8, 3))
        kernel = graph.parameter("conv/kernel", (3, 3, 3, 6))
        attributes = {"stride": [np.int64(2), np.int32(2)], "padding": "same", "groups": np.int8(1)}
        assert graph.shape(graph.node("conv2d", "conv", [x], [kernel], attributes)) == (4, 4, 6)


class TestState:
    def test_set_and_get(self, state):
        np.testing.assert_array_equal(state.get(0), f32(4, 3))
        state.set(0, np.asfortranarray(f32(4, 3) * 2))
        np.testing.assert_array_equal(state.get(0), f32(4, 3) * 2)

    @pytest.mark.parametrize("index", [-1, 2])
    def test_ids_out_of_range(self, state, index):
        for use in (state.get, state.gradient, lambda i: state.set(i, f32(4, 3))):
            with pytest.raises(ValueError, match=rf"State\.\w+: expected .* \[0,2\), got {index}"):
                use(index)

    def test_wrong_values(self, state):
        with pytest.raises(ValueError, match=r"State.set: .*dense/kernel.* \(4,3\), got \(3,4\)"):
            state.set(0, f32(3, 4))
        with pytest.raises(TypeError, match="State.set: expected values of dtype float32, got"):
            state.set(0, np.zeros((4, 3)))

    def test_gradients_and_slots_that_are_not_there(self, state):
        with pytest.raises(ValueError, match="State.gradient: .* got dense/kernel"):
            state.gradient(0)
        with pytest.raises(ValueError, match=r"State.get_slot: expected a slot in \[0,0\), got 0"):
            state.get_slot(0, 0)
        state.set_optimizer({"kind": "adam"})
        assert len(state.slot_names()) == 2
        with pytest.raises(ValueError, match=r"State.set_slot: expected a slot in \[0,2\), got 2"):
            state.set_slot(2, 0, f32(4, 3))
        with pytest.raises(ValueError, match="expected a trainable parameter, got dense/bias"):
            state.get_slot(0, 1)

    @pytest.mark.parametrize(
        ("spec", "exception"),
        [
            ({"kind": "lion"}, ValueError),
            ({"kind": "sgd", "mometum": 0.9}, ValueError),
            ({"kind": "sgd", "momentum": 1.5}, ValueError),
            ({"kind": "sgd", "momentum": "0.9"}, TypeError),
            ({"kind": "adam", "epsilon": -1.0}, ValueError),
            ({"kind": "adam", "clip_norm": -1.0}, ValueError),
            ({"kind": "adam", "clip_norm": float("nan")}, ValueError),
        ],
    )
    def test_optimizer(self, state, spec, exception):
        with pytest.raises(exception, match=r"(optimizer|sgd|adam): (expected .* got|unknown)"):
            state.set_optimizer(spec)

    def test_device(self, graph):
        with pytest.raises(ValueError, match='State: expected device .* got "tpu"'):
            _core.State(graph, "tpu")

    def test_cuda_without_a_gpu(self, graph):
        try:
            _core.device_description("cuda")
        except ValueError as error:
            reason = str(error).partition(": ")[2]
            with pytest.raises(ValueError, match=f"State: {re.escape(reason)}"):
                _core.State(graph, "cuda")
        else:
            assert _core.State(graph, "cuda").get(0).dtype == np.float32

    def test_an_array_of_a_gpu(self, graph, state):
        there = _core.DeviceArray("cpu", 0, 0, "float32", (1,), None, True, None, None)
        message = "expected .* in the memory of the host, got an array in a GPU's"
        with pytest.raises(ValueError, match=f"State.set: {message}"):
            state.set(0, there)
        with pytest.raises(ValueError, match=rf"Plan.predict: {message}"):
            _core.Plan(graph, state, "predict", 4).predict([there])
        with pytest.raises(ValueError, match=f"Dataset: {message}"):
            _core.Dataset("cpu", [there])

    def test_updates(self, state):
        state.updates = 5
        assert state.updates == 5
        state.set_optimizer({"kind": "sgd", "accumulation_steps": 3})
        for count in (-1, 2**63 // 3 + 1):
            with pytest.raises(ValueError, match="State.updates: .* updates of 3 batches"):
                state.updates = count
        assert state.updates == 0


class TestPlan:
    labels = np.array([0, 1, 2, 0])

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            (("dream", 8), "Plan: expected mode .* got"),
            (("predict", 0), "batch"),
            (("train", 8, [{"kind": "hinge"}]), "hinge"),
            (("train", 8, [LOSS | {"from_logit": 1}]), "unknown setting of a loss"),
            (("train", 8, [LOSS | {"output": 1}]), "output"),
            (("train", 8, [LOSS], [{"kind": "f1"}]), "Plan: expected metric .* got"),
            (("train", 8, [LOSS], [{"kind": "sparse", "top": 5}]), "unknown setting of a metric"),
        ],
    )
    def test_options(self, graph, state, arguments, match):
        state.set_optimizer({"kind": "sgd"})
        with pytest.raises(ValueError, match=match):
            _core.Plan(graph, state, *arguments)

    def test_the_state_of_another_graph(self, graph):
        other = _core.Graph()
        other.output(other.input("x", (4,)))
        with pytest.raises(ValueError, match=r"2 parameters.* 0"):
            _core.Plan(graph, _core.State(other), "predict", 8)

    def test_a_graph_that_grows_later(self, graph, state):
        plan = _core.Plan(graph, state, "predict", 8)
        graph.output(graph.node("activation", "relu", [1], [], {"activation": "relu"}))
        assert len(plan.predict([f32(2, 4)])) == 1

    def test_run(self, training):
        total, loss, accuracy = training.run([f32(4, 4)], [self.labels], learning_rate=0.1)
        assert total == loss
        assert 0 <= accuracy <= 1

    @pytest.mark.parametrize(
        ("changed", "exception", "match"),
        [
            ({"inputs": []}, ValueError, "input"),
            ({"inputs": [f32(4, 4), f32(4, 4)]}, ValueError, "inputs"),
            ({"inputs": [f32(4, 5)]}, ValueError, r"x.*\(4,\).*\(4,5\)"),
            ({"inputs": [f32(9, 4)]}, ValueError, "8 rows, got 9"),
            ({"inputs": [f32()]}, ValueError, r"inputs\[0\].*\(\)"),
            ({"inputs": [np.zeros((4, 4), "c8")]}, TypeError, r"inputs\[0\] of dtype .*complex64"),
            ({"inputs": [[1.0] * 4]}, TypeError, r"inputs\[0\].*list"),
            ({"targets": []}, ValueError, "targets, got 0"),
            ({"targets": [labels[:3]]}, ValueError, "targets.*4.*3"),
            ({"targets": [f32(4)]}, TypeError, "targets.*integer.*float32"),
            ({"targets": [labels + 1]}, ValueError, r"targets.*3.*\[0,3\)"),
            ({"weights": [f32(3)]}, ValueError, r"weights\[0\].*\(4,\), got \(3,\)"),
            ({"weights": [np.ones(4)]}, TypeError, r"weights\[0\].*float32, got float64"),
            ({"weights": [f32(4), None]}, ValueError, "weights, got 2"),
            ({"indices": np.array([0, 4])}, ValueError, r"indices\[1\] is 4.*\[0,4\)"),
            ({"indices": np.array([-1])}, ValueError, r"indices\[0\] is -1"),
            ({"indices": np.array([0], np.int32)}, TypeError, "indices of dtype int64, got int32"),
            ({"indices": np.zeros((1, 1), np.int64)}, ValueError, r"indices \(n,\), got"),
            ({"learning_rate": float("nan")}, ValueError, "learning rate"),
            ({"learning_rate": -0.1}, ValueError, "learning rate"),
        ],
    )
    def test_a_batch_that_does_not_fit(self, training, state, changed, exception, match):
        arguments = {"inputs": [f32(4, 4)], "targets": [self.labels]} | {"learning_rate": 0.1}
        before = state.get(0)
        with pytest.raises(exception, match=match):
            training.run(**arguments | changed)
        np.testing.assert_array_equal(state.get(0), before)
        assert state.updates == 0

    def test_indices_and_any_memory_layout(self, graph, state):
        plan = _core.Plan(graph, state, "predict", 8)
        x = f32(6, 4)
        (expected,) = plan.predict([x])
        rows = np.array([5, 0, 5])
        (picked,) = plan.predict([x], rows)
        np.testing.assert_array_equal(picked, expected[rows])
        (turned,) = plan.predict([np.asfortranarray(x)])
        np.testing.assert_array_equal(turned, expected)
        (none,) = plan.predict([x], np.zeros(0, np.int64))
        assert none.shape == (0, 3)

    def test_output(self, graph, state):
        plan = _core.Plan(graph, state, "predict", 8)
        with pytest.raises(ValueError, match="output"):
            plan.output(0)
        (expected,) = plan.predict([f32(5, 4)])
        np.testing.assert_array_equal(plan.output(0), expected)
        with pytest.raises(ValueError, match=r"Plan.output: expected an index in \[0,1\), got 1"):
            plan.output(1)

    def test_plans_outlive_what_they_were_made_of(self):
        graph = make_graph()
        state = _core.State(graph)
        plan = _core.Plan(graph, state, "predict", 8)
        del graph, state
        assert plan.predict([f32(5, 4)])[0].shape == (5, 3)

    def test_threads_that_share_a_state_take_turns(self, graph, state):
        plans = [_core.Plan(graph, state, "predict", 8) for _ in range(2)]
        x = [f32(n, 4) for n in range(1, 9)]
        expected = [plans[0].predict([rows])[0] for rows in x]
        wrong = []

        def work(i):
            for _ in range(200):
                (y,) = plans[i % 2].predict([x[i]])
                if not np.array_equal(y, expected[i]):
                    wrong.append(i)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(len(x))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not wrong


class TestReferences:
    """No call keeps or loses a reference to its arguments, whether it succeeds or fails."""

    @pytest.mark.parametrize("op", list(CALLS))
    def test_ops(self, op):
        arrays = {name: array for name, (array, _) in CALLS[op][0].items()}
        before = {name: sys.getrefcount(array) for name, array in arrays.items()}
        for _ in range(10):
            call(op, **arrays)
            for name in arrays:
                with pytest.raises(TypeError):
                    call(op, **arrays | {name: "not an array"})
        assert {name: sys.getrefcount(array) for name, array in arrays.items()} == before

    def test_plans(self, training):
        x, labels, weights = f32(4, 4), np.array([0, 1, 2, 0]), f32(4)
        before = [sys.getrefcount(a) for a in (x, labels, weights)]
        for _ in range(10):
            training.run([x], [labels], [weights], learning_rate=0.1)
            with pytest.raises(ValueError, match="targets"):
                training.run([x], [labels, labels], [weights], learning_rate=0.1)
        assert [sys.getrefcount(a) for a in (x, labels, weights)] == before
