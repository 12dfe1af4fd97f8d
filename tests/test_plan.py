"""Plans: the same bits as the functional ops called one by one, fused or not, for any graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlet import _core
from nets import BINARY, CATEGORICAL, MSE, SPARSE, Net, cnn, snapshot
from plan_graphs import GRAPHS, diamond, labels_for, random_nets
from reference import assert_exact


@pytest.fixture(params=GRAPHS)
def graph(request):
    return GRAPHS[request.param]()


# ---------------------------------------------------------------- plan == chained ops


def assert_rounded(got, expected):
    """A batch_norm that is folded into the weights before it changes the rounding; a pooling in the
    kernel of a convolution, or zeros before it that are its padding, the order of its sums."""
    size = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * size)


def check_against_ops(net, losses, n, batch, fuse, seed=3):
    """Outputs, losses and gradients of plans, against the ops one by one: the same bits."""
    ops = [node[0] for node in net.nodes] if fuse else []
    assert_trained = assert_rounded if "pad2d" in ops else assert_exact
    assert_predicted = assert_rounded if "batch_norm" in ops else assert_trained
    inputs, targets = net.data(n), labels_for(net, losses, n)
    state = net.state()
    predicted = _core.Plan(net.graph, state, "predict", batch, fuse=fuse).predict(inputs)
    values = net.forward(inputs)
    for got, output in zip(predicted, net.outputs, strict=True):
        assert_predicted(got, values[output])

    test = _core.Plan(net.graph, state, "test", batch, losses, fuse=fuse)
    results = test.run(inputs, targets)
    for i, output in enumerate(net.outputs):
        assert_predicted(test.output(i), values[output])
    expected = [net.loss(values, *pair)[0] for pair in zip(losses, targets, strict=True)]
    assert_predicted(np.float32(results[1:]), np.float32(expected))

    train = _core.Plan(net.graph, state, "train", batch, losses, fuse=fuse, seed=seed)
    results = train.run(inputs, targets, learning_rate=0.0)
    values = net.forward(inputs, train=True, seed=seed)
    answers = [net.loss(values, *pair) for pair in zip(losses, targets, strict=True)]
    assert_trained(np.float32(results[1:]), np.float32([loss for loss, _, _ in answers]))
    assert results[0] == pytest.approx(sum(results[1:]), rel=1e-12)
    for i, output in enumerate(net.outputs):
        assert_trained(train.output(i), values[output])
    pools = any(step["kernel"] == "conv2d_pool" for step in train.steps())
    assert_gradient = assert_rounded if pools else assert_trained
    gradients = net.backward(values, [answer[1:] for answer in answers], seed=seed)
    for i, gradient in enumerate(gradients):
        if net.trainable[i]:
            expected = np.zeros_like(net.parameters[i]) if gradient is None else gradient
            assert_gradient(state.gradient(i), expected)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(("n", "batch"), [(5, 5), (3, 5), (1, 7)])
def test_plan_equals_chained_ops(graph, n, batch, fuse):
    check_against_ops(*graph, n, batch, fuse)


def test_plan_equals_chained_ops_on_every_isa(isa):
    check_against_ops(*diamond(), 4, 4, True)


@settings(max_examples=60)
@given(random_nets(), st.integers(1, 3), st.booleans())
def test_random_graphs_equal_chained_ops(graph, n, fuse):
    check_against_ops(*graph, n, 3, fuse)


def test_fusion_saves_steps_and_keeps_what_the_backward_needs():
    def forward_kernels(fuse, mode, activation):
        net, losses = cnn(activation)
        losses = [] if mode == "predict" else losses
        plan = _core.Plan(net.graph, net.state(), mode, 4, losses, fuse=fuse)
        return [s["kernel"] for s in plan.steps() if s["name"] == "forward"]

    for mode in ("predict", "test", "train"):
        assert forward_kernels(False, mode, "relu").count("activation") == 3
        assert forward_kernels(True, mode, "relu").count("activation") == 0
    assert forward_kernels(True, "predict", "gelu").count("activation") == 0
    # The gradient of gelu needs its input, which a fused step does not store.
    assert forward_kernels(True, "train", "gelu").count("activation") == 3
    assert "softmax" in forward_kernels(True, "predict", "relu")
    assert "softmax" not in forward_kernels(True, "train", "relu")


def test_probabilities_that_are_zero_or_one_keep_loss_and_gradient():
    for kind, last in ((SPARSE, "softmax"), (BINARY, "sigmoid")):
        net = Net()
        x = net.dense(net.input(2), 2, bias=False)
        name = {"activation": last} if last == "sigmoid" else {}
        net.output(net.node("softmax" if last == "softmax" else "activation", x, **name))
        net.parameters[0] = np.array([[-500, 500], [0, 0]], np.float32)
        state = net.state()
        plan = _core.Plan(net.graph, state, "train", 1, [kind])
        target = np.array([0]) if last == "softmax" else np.array([[1, 0]], np.float32)
        loss = plan.run([np.ones((1, 2), np.float32)], [target])[0]
        assert loss == pytest.approx(1000 if last == "softmax" else 500)
        assert np.abs(state.gradient(0)[0]).max() >= 0.5


# ---------------------------------------------------------------- the whole plan's gradient


def test_finite_differences_of_the_total():
    """d total / d parameter along a random direction, with every weight, penalty and smoothing."""
    net = Net(4)
    shared = net.parameter(3, 3, 2, 3, l2=0.01)
    image = net.input(6, 6, 2)
    x = net.node("conv2d", image, parameters=[shared], activation="tanh")
    y = net.node("conv2d", image, parameters=[shared], activation="silu")
    x = net.node(
        "multiply",
        net.node("avg_pool2d", x, pool_size=[2, 2]),
        net.node("avg_pool2d", y, pool_size=[2, 2]),
    )
    x = net.flatten(x)
    dense = [net.parameter(12, 5, l1=0.02, l2=0.003), net.parameter(5, scale=0.1)]
    # Away from the kink of |p|.
    net.parameters[dense[0]] += 0.01 * np.sign(net.parameters[dense[0]])
    z = net.node("dense", x, parameters=dense, activation="gelu")
    net.output(net.node("softmax", net.dense(z, 4)))
    net.output(net.dense(x, 3, activation="sigmoid"))
    net.output(net.dense(z, 2))
    losses = [
        {**SPARSE, "label_smoothing": 0.1, "weight": 0.7},
        {**BINARY, "output": 1, "weight": 2.0},
        {**MSE, "output": 2, "weight": 0.25},
    ]
    n, rng = 7, np.random.default_rng(5)
    data, targets = net.data(n), labels_for(net, losses, n)
    weights = [rng.random(n, np.float32), None, rng.random(n, np.float32)]
    state = net.state()
    _core.Plan(net.graph, state, "train", n, losses).run(data, targets, weights)
    test = _core.Plan(net.graph, state, "test", n, losses)
    for i, values in enumerate(net.parameters):
        direction = np.sign(rng.standard_normal(values.shape)).astype(np.float32)
        h = np.float32(2**-9)
        totals = []
        for sign in (1, -1):
            state.set(i, values + sign * h * direction)
            totals.append(test.run(data, targets, weights)[0])
        state.set(i, values)
        measured = (totals[0] - totals[1]) / (2 * h)
        computed = float((state.gradient(i).astype(np.float64) * direction).sum())
        assert measured == pytest.approx(computed, rel=1e-3, abs=2e-4)


def test_losses_weights_and_metrics_against_their_formulas():
    net = Net()
    image = net.input(3)
    net.output(net.node("softmax", net.dense(image, 4)))
    net.output(net.dense(image, 2, activation="sigmoid"))
    net.output(net.node("softmax", net.dense(image, 5)))
    losses = [{**SPARSE, "weight": 3.0}, {**BINARY, "output": 1}, {**CATEGORICAL, "output": 2}]
    metrics = [
        {"kind": "sparse"},
        {"kind": "binary", "output": 1},
        {"kind": "categorical", "output": 2},
    ]
    n = 19
    data, (sparse, binary, categorical) = net.data(n), labels_for(net, losses, n)
    binary = (binary > 0.5).astype(np.float32)
    w = np.random.default_rng(6).random(n, np.float32)
    plan = _core.Plan(net.graph, net.state(), "test", 32, losses, metrics)
    results = plan.run(data, [sparse, binary, categorical], [w, None, w])
    p, q, r = (plan.output(i).astype(np.float64) for i in range(3))
    expected = [
        np.mean(-w * np.log(p[np.arange(n), sparse])),
        np.mean(-binary * np.log(q) - (1 - binary) * np.log(1 - q)),
        np.mean(-w * (categorical * np.log(r)).sum(1)),
    ]
    np.testing.assert_allclose(results[1:4], expected, rtol=1e-5)
    assert results[0] == pytest.approx(3 * results[1] + results[2] + results[3], rel=1e-12)
    accuracies = [
        np.mean(p.argmax(1) == sparse),
        np.mean((q > 0.5) == binary),
        np.mean(r.argmax(1) == categorical.argmax(1)),
    ]
    np.testing.assert_allclose(results[4:], accuracies, rtol=1e-12)


def test_labels_for_every_position():
    """An output with more axes than classes: one label, and one share of the loss, per position."""
    net = Net()
    net.output(net.node("softmax", net.conv2d(net.input(4, 3, 2), 5, size=1)))
    n = 3
    (x,), (labels,) = net.data(n), labels_for(net, [SPARSE], n)
    plan = _core.Plan(net.graph, net.state(), "test", n, [SPARSE], [{"kind": "sparse"}])
    total, loss, accuracy = plan.run([x], [labels])
    p = plan.output(0).astype(np.float64)
    picked = np.take_along_axis(p, labels[..., None], -1)
    assert loss == total == pytest.approx(-np.log(picked).mean(), rel=1e-5)
    assert accuracy == pytest.approx((p.argmax(-1) == labels).mean())


# ---------------------------------------------------------------- batches


def test_inputs_of_any_dtype_and_chosen_rows():
    net = Net()
    net.output(net.dense(net.input(6), 3))
    plan = _core.Plan(net.graph, net.state(), "predict", 8)
    rows = np.random.default_rng(0).integers(0, 200, (50, 6))
    indices = np.array([49, 0, 7, 7, 31])
    expected = plan.predict([rows[indices].astype(np.float32)])[0]
    for dtype in (np.uint8, np.int32, np.int64, np.float64, np.float32):
        assert_exact(plan.predict([rows.astype(dtype)], indices=indices)[0], expected)
    assert plan.predict([rows[:0].astype(np.float32)])[0].shape == (0, 3)


def test_targets_follow_the_indices_and_take_every_form():
    net, losses = cnn()
    state = net.state()
    plan = _core.Plan(net.graph, state, "test", 8, losses, [{"kind": "sparse"}])
    (x,), (y,) = net.data(20), labels_for(net, losses, 20)
    w = np.random.default_rng(1).random(20, np.float32)
    indices = np.array([3, 19, 0, 11, 11])
    expected = plan.run([x[indices]], [y[indices]], [w[indices]])
    for labels in (y, y[:, None], y.astype(np.int32), y.astype(np.uint8)):
        np.testing.assert_array_equal(plan.run([x], [labels], [w], indices=indices), expected)
    net = Net()
    net.output(net.dense(net.input(2), 1))
    plan = _core.Plan(net.graph, net.state(), "test", 4, [MSE])
    x, t = net.data(4)[0], np.array([[3], [0], [1], [2]])
    np.testing.assert_array_equal(plan.run([x], [t]), plan.run([x], [t.astype(np.float32)]))


def test_one_plan_runs_every_batch_size_any_number_of_times():
    net, losses = diamond()
    state = net.state()
    plan = _core.Plan(net.graph, state, "test", 13, losses)
    x, targets = net.data(13), labels_for(net, losses, 13)
    for n in [13, *range(1, 14), 5, 13]:
        got = plan.run([v[:n] for v in x], [t[:n] for t in targets])
        fresh = _core.Plan(net.graph, state, "test", n, losses)
        np.testing.assert_array_equal(got, fresh.run([v[:n] for v in x], [t[:n] for t in targets]))


def test_results_do_not_depend_on_threads_changed_between_runs(graph):
    net, losses = graph
    data, targets = net.data(6), labels_for(net, losses, 6)
    state = net.state({"kind": "sgd"})
    plan = _core.Plan(net.graph, state, "train", 6, losses, seed=1)
    before, seen = _core.num_threads(), []
    try:
        for threads in (1, 2, 5, 1):
            _core.set_num_threads(threads)
            results = plan.run(data, targets)
            trained = [i for i, trainable in enumerate(net.trainable) if trainable]
            state.updates = 0
            seen.append((results.tobytes(), *(state.gradient(i).tobytes() for i in trained)))
    finally:
        _core.set_num_threads(before)
    assert len(set(seen)) == 1


# ---------------------------------------------------------------- memory


def assert_well_placed(plan):
    blocks, memory = plan.blocks(), plan.memory()
    for i, a in enumerate(blocks):
        assert a["offset"] >= 0
        assert a["offset"] % 64 == 0
        assert a["first"] <= a["last"]
        for b in blocks[:i]:
            together = a["first"] <= b["last"] and b["first"] <= a["last"]
            apart = (
                a["offset"] + a["bytes"] <= b["offset"] or b["offset"] + b["bytes"] <= a["offset"]
            )
            assert apart or not together
    arena = max(b["offset"] + b["bytes"] for b in blocks)
    assert arena == memory["activations"] + memory["workspace"]
    assert memory["live_set"] <= memory["activations"]


@settings(max_examples=30)
@given(random_nets(), st.sampled_from(("predict", "test", "train")), st.booleans())
def test_nothing_alive_shares_memory(graph, mode, fuse):
    net, losses = graph
    losses = [] if mode == "predict" else losses
    assert_well_placed(_core.Plan(net.graph, net.state(), mode, 3, losses, fuse=fuse))


def test_memory_is_reused_and_reported():
    """Ten layers of one size: prediction needs the memory of two and of the weights that it has
    packed, training of all."""
    net = Net()
    x = net.input(16, 16, 8)
    for _ in range(10):
        x = net.conv2d(x, 8, padding="same", activation="relu")
    net.output(net.node("softmax", net.dense(net.node("global_avg_pool2d", x), 3)))
    state = net.state({"kind": "adam"})
    image = 4 * 16 * 16 * 16 * 8  # bytes of a batch of 16
    predict = _core.Plan(net.graph, state, "predict", 16)
    assert_well_placed(predict)
    # The input is kept for first_non_finite.
    packed = 10 * 4 * 9 * 8 * 16  # bytes, when a vector holds 16 channels
    assert predict.memory()["activations"] < 3.1 * image + packed
    assert predict.memory()["gradients"] == predict.memory()["optimizer"] == 0
    train = _core.Plan(net.graph, state, "train", 16, [SPARSE])
    assert_well_placed(train)
    memory = train.memory()
    assert 11 * image < memory["activations"] < 13.1 * image
    assert memory["live_set"] == memory["activations"]
    elements = sum(p.size for p in net.parameters)
    assert 4 * elements <= memory["parameters"] <= 4 * elements + 64 * len(net.parameters)
    assert memory["gradients"] == memory["parameters"]
    assert memory["optimizer"] == 2 * memory["parameters"]


def test_in_place_steps_take_over_the_memory_of_their_input():
    def activations(layers):
        net = Net()
        x = net.input(4096)
        for _ in range(layers):
            x = net.node("activation", x, activation="tanh")
        net.output(x)
        return _core.Plan(net.graph, net.state(), "predict", 8).memory()["activations"]

    assert activations(1) == activations(6)


# ---------------------------------------------------------------- values that are not finite


def nan_net():
    net = Net()
    x = net.conv2d(net.input(4, 4, 1), 2, activation="relu")
    x = net.dense(net.flatten(x), 3, activation="tanh")
    net.output(net.dense(x, 2))
    return net


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        ("input", np.nan, "input 'input0'"),
        ("kernel", np.nan, "parameter 'p0'"),
        ("bias", -np.inf, "parameter 'p5'"),
        ("last layer", 3e38, "layer 'dense3'"),
        ("target", np.nan, "targets of output 'dense3'"),
        ("weight", np.inf, "sample weights of output 'dense3'"),
        ("target", 3e38, "loss of output 'dense3'"),
    ],
)
def test_a_total_that_is_not_finite_stops_before_the_update(where, value, named, fuse):
    net = nan_net()
    (x,), (t,) = net.data(3), labels_for(net, [MSE], 3)
    w = np.ones(3, np.float32)
    {
        "input": lambda: x.__setitem__((1, 2, 2, 0), value),
        "kernel": lambda: net.parameters[0].__setitem__((0, 0, 0, 1), value),
        "bias": lambda: net.parameters[5].__setitem__(1, value),
        "last layer": lambda: [net.parameters[i].fill(value) for i in (3, 4)],
        "target": lambda: t.__setitem__((2, 0), value),
        "weight": lambda: w.__setitem__(1, value),
    }[where]()
    state = net.state({"kind": "adam"})
    plan = _core.Plan(net.graph, state, "train", 4, [MSE], fuse=fuse)
    before = snapshot(state, len(net.parameters))
    assert not np.isfinite(plan.run([x], [t], [w], learning_rate=0.1)[0])
    assert plan.first_non_finite() == named
    assert state.updates == 0
    for old, new in zip(before, snapshot(state, len(net.parameters)), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("why", ["workspace", "optimizer"])
def test_memory_is_not_placed_anew_under_a_bad_step(why):
    """A step that needs other memory comes while a bad one is under way."""
    net = Net()
    net.output(net.dense(net.input(512), 4))
    loss = SPARSE | {"from_logits": True}
    state = net.state({"kind": "adam"})
    # On a GPU the sum of 512 terms is cut into parts where the rows are few: a workspace that grows
    # from 2 rows to 4, and that the largest batch does not have.
    plan = _core.Plan(net.graph, state, "train", 33000, [loss])
    before = snapshot(state, len(net.parameters))
    (x,) = net.data(2)
    x[1, 7] = np.nan
    bad = plan.start([x], [np.arange(2)], learning_rate=0.1)
    if why == "optimizer":
        state.set_optimizer({"kind": "adam"})
    void = plan.start(net.data(4), [np.arange(4)], learning_rate=0.1)
    assert len(plan.finish(void)) == 0
    assert np.isnan(plan.finish(bad)[0])
    assert plan.first_non_finite() == "input 'input0'"
    assert state.batches == 0
    for old, new in zip(before, snapshot(state, len(net.parameters)), strict=True):
        np.testing.assert_array_equal(old, new)
    other = net.state({"kind": "adam"})
    expected = _core.Plan(net.graph, other, "train", 4, [loss])
    results = [p.run(net.data(4), [np.arange(4)], learning_rate=0.1) for p in (plan, expected)]
    assert_exact(*results)
    for i in range(len(net.parameters)):
        assert_exact(state.get(i), other.get(i))


def test_finite_batches_have_nothing_to_name(graph):
    net, losses = graph
    plan = _core.Plan(net.graph, net.state(), "train", 4, losses)
    results = plan.run(net.data(3), labels_for(net, losses, 3))
    outputs = [plan.output(i) for i in range(len(net.outputs))]
    assert np.isfinite(results).all()
    assert plan.first_non_finite() == ""
    for i, output in enumerate(outputs):
        assert_exact(plan.output(i), output)
