"""Plans and graphs refuse what does not fit, name it, and stay usable."""

import numpy as np
import pytest

from convlet import _core
from nets import CATEGORICAL, MSE, SPARSE, Net, cnn, snapshot
from reference import assert_exact


def simple():
    net = Net()
    net.output(net.node("softmax", net.dense(net.input(3), 4)))
    net.output(net.dense(net.inputs[0], 1))
    return net, [SPARSE, {**MSE, "output": 1}]


X = np.zeros((6, 3), np.float32)
Y = np.zeros(6, np.int64)
T = np.zeros((6, 1), np.float32)
BAD_BATCHES = {
    "expected 1 inputs, got 2": {"inputs": [X, X]},
    "expected 2 targets, got 1": {"targets": [Y]},
    "expected 2 sample weights, got 1": {"weights": [np.ones(6, np.float32)]},
    r"input 'input0'.*\(3,\).*\(6,4\)": {"inputs": [np.zeros((6, 4), np.float32)]},
    r"targets\[0\].*expected 6 rows.*got 5": {"targets": [Y[:5], T]},
    r"targets\[0\].*of row 4 is 4, expected.*\[0,4\)": {"targets": [[0, 0, 0, 0, 4, 9], T]},
    r"targets\[0\].*of row 1 is -1": {"targets": [[0, -1, 0, 0, 0, 0], T]},
    r"targets\[0\].*shape \(\).*\(6,2\)": {"targets": [np.zeros((6, 2), np.int64), T]},
    r"targets\[0\].*integer labels.*float32": {"targets": [Y.astype(np.float32), T]},
    r"targets\[1\].*\(1,\).*\(6,\)": {"targets": [Y, T[:, 0]]},
    r"indices\[1\] is 6, expected a row of \[0,6\)": {"indices": np.array([0, 6])},
    r"indices\[0\] is -1": {"indices": np.array([-1])},
    "at most 8 rows, got 9": {"indices": np.zeros(9, np.int64)},
    "at least one row": {"indices": np.zeros(0, np.int64)},
    "finite learning rate": {"learning_rate": float("nan")},
    "at least 0, got -1": {"learning_rate": -1.0},
}


@pytest.mark.parametrize("message", BAD_BATCHES)
def test_bad_batches_are_refused_before_anything_runs(message):
    net, losses = simple()
    state = net.state()
    plan = _core.Plan(net.graph, state, "train", 8, losses)
    good = {"inputs": [X + 1], "targets": [Y, T], "learning_rate": 0.5}
    plan.run(**good)
    before, output = snapshot(state, 4), plan.output(0)
    bad = dict(BAD_BATCHES[message])
    if "targets" in bad:
        bad["targets"] = [np.asarray(target) for target in bad["targets"]]
    with pytest.raises((ValueError, TypeError), match=message):
        plan.run(**good | bad)
    assert state.updates == 1
    for old, new in zip(before, snapshot(state, 4), strict=True):
        assert_exact(new, old)
    assert_exact(plan.output(0), output)
    plan.run(**good)  # the plan is as good as before
    assert state.updates == 2


BAD_PLANS = {
    "train needs at least one loss": {"mode": "train", "losses": []},
    "mode predict takes no losses": {"mode": "predict"},
    "batch of at least 1, got 0": {"batch": 0},
    "there is no output 2": {"losses": [{**SPARSE, "output": 2}]},
    "softmax_cross_entropy.*got 'hinge'": {"losses": [{"kind": "hinge"}]},
    r"label_smoothing in \[0,1\], got 2": {"losses": [{**SPARSE, "label_smoothing": 2.0}]},
    "'dense2' is not made by a softmax.*from_logits": {"losses": [{**SPARSE, "output": 1}]},
    "integer labels belong to softmax": {"losses": [{**MSE, "integer_labels": True}]},
    "output 1 has no loss": {"losses": [SPARSE], "metrics": [{"kind": "binary", "output": 1}]},
    "use the sparse accuracy": {"losses": [SPARSE], "metrics": [{"kind": "categorical"}]},
    "use the categorical or binary": {"losses": [CATEGORICAL], "metrics": [{"kind": "sparse"}]},
    'expected precision "float32", "tf32" or "bfloat16", got "half"': {
        "losses": [SPARSE],
        "precision": "half",
    },
    'precision "tf32" cannot be had on the CPU': {"losses": [SPARSE], "precision": "tf32"},
}


@pytest.mark.parametrize("message", BAD_PLANS)
def test_bad_plans_are_refused(message):
    net, losses = simple()
    options = {"mode": "test", "batch": 4, "losses": losses} | BAD_PLANS[message]
    with pytest.raises(ValueError, match=message):
        _core.Plan(net.graph, net.state(), **options)


def test_plans_need_outputs_an_optimizer_and_their_own_state():
    net, losses = simple()
    bare = _core.State(net.graph)
    with pytest.raises(ValueError, match="needs an optimizer"):
        _core.Plan(net.graph, bare, "train", 4, losses)
    other, _ = cnn()
    with pytest.raises(ValueError, match="the graph has 8 parameters.*made for 4"):
        _core.Plan(other.graph, bare, "predict", 4)
    empty = _core.Graph()
    empty.input("x", (2,))
    with pytest.raises(ValueError, match="no outputs"):
        _core.Plan(empty, _core.State(empty), "predict", 4)


def test_a_plan_too_large_for_any_memory_is_refused():
    net = Net()
    net.output(net.conv2d(net.input(224, 224, 3), 64))
    for batch in (10**6, 10**9, 2**62):
        with pytest.raises(ValueError, match="memory|too large|at most 2"):
            _core.Plan(net.graph, net.state(), "predict", batch)


IMAGE, KERNEL = 0, 0  # ids in the graph that the test below makes
BAD_NODES = {
    "unknown op 'conv3d'.*conv2d, dense": ("conv3d", [IMAGE], [], {}),
    "expected 1 inputs, got 2": ("softmax", [IMAGE, IMAGE], [], {}),
    "expected at least 2 inputs, got 1": ("add", [IMAGE], [], {}),
    "expected 1 to 2 parameters, got 0": ("conv2d", [IMAGE], [], {}),
    "no attribute 'strides'.*stride": ("conv2d", [IMAGE], [KERNEL], {"strides": [1, 1]}),
    "'stride'.*2 integers, got 3": ("conv2d", [IMAGE], [KERNEL], {"stride": [1, 1, 1]}),
    "'padding' or 'pad', got both": (
        "conv2d",
        [IMAGE],
        [KERNEL],
        {"padding": "same", "pad": [0, 0, 0, 0]},
    ),
    "relu.*got.*swish9": ("conv2d", [IMAGE], [KERNEL], {"activation": "swish9"}),
    "no value 7": ("softmax", [7], [], {}),
    "no parameter 9": ("conv2d", [IMAGE], [9], {}),
    r"C/groups=3 to match.*got weight \(3,3,5,4\)": ("conv2d", [IMAGE], [1], {}),
    r"bias of shape \(4,\), got \(3,3,3,4\)": ("conv2d", [IMAGE], [KERNEL, KERNEL], {}),
    r"samples of shape \(H,W,C\), got \(7,\)": ("max_pool2d", [1], [], {"pool_size": [2, 2]}),
    "'pool_size' is missing": ("avg_pool2d", [IMAGE], [], {}),
    r"rate in \[0,1\), got 1": ("dropout", [IMAGE], [], {"rate": 1.0}),
    "shape of 192 elements": ("reshape", [IMAGE], [], {"shape": [5]}),
    "positive sizes, got -1": ("reshape", [IMAGE], [], {"shape": [-1]}),
    "multiply: expected shapes that broadcast together": ("multiply", [IMAGE, 1], [], {}),
    "differ in axis": ("concatenate", [IMAGE, 1], [], {}),
    "expected an axis": ("concatenate", [IMAGE, IMAGE], [], {"axis": 3}),
    "at least 0, got -2": ("pad2d", [IMAGE], [], {"pad": [0, 0, -2, 0]}),
    "'factor' is missing": ("scale", [IMAGE], [], {}),
}


@pytest.mark.parametrize("message", BAD_NODES)
def test_bad_nodes_are_refused_and_named(message):
    graph = _core.Graph()
    assert graph.input("image", (8, 8, 3)) == IMAGE
    graph.input("vector", (7,))
    assert graph.parameter("kernel", (3, 3, 3, 4)) == KERNEL
    graph.parameter("other", (3, 3, 5, 4))
    op, inputs, parameters, attributes = BAD_NODES[message]
    with pytest.raises((ValueError, TypeError), match=message) as error:
        graph.node(op, "layer7", inputs, parameters, attributes)
    assert str(error.value).startswith("layer7: ")
    with pytest.raises(ValueError, match="positive sizes"):
        graph.input("empty", (3, 0))
    with pytest.raises(ValueError, match="there is no value 2"):
        graph.output(2)
