"""Plans: the same bits as the functional ops called one by one, fused or not, for any graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlet import _core
from nets import ACTIVATIONS, BINARY, CATEGORICAL, MSE, SPARSE, Net, cnn, snapshot
from reference import assert_exact


def labels_for(net, losses, n, seed=2):
    """A random target for each loss, of the kind that it wants."""
    rng = np.random.default_rng(seed)
    targets = []
    for loss in losses:
        shape = net.graph.shape(net.outputs[loss.get("output", 0)])
        if loss.get("integer_labels"):
            targets.append(rng.integers(0, shape[-1], (n, *shape[:-1])))
        else:
            targets.append(rng.random((n, *shape), np.float32))
    return targets


# ---------------------------------------------------------------- graphs


def every_layer():
    net = Net()
    x = net.node("scale", net.input(11, 10, 4), factor=0.5, offset=-0.25)
    x = net.conv2d(x, 8, groups=2, dilation=[2, 1], bias=False)
    x = net.batch_norm(net.node("pad2d", x, pad=[1, 2, 0, 1]), scale=False)
    x = net.conv2d(x, 16, groups=8, activation="gelu", padding="same")
    x = net.node("avg_pool2d", x, pool_size=[3, 2], stride=[2, 2], padding="same")
    x = net.node("dropout", x, rate=0.25)
    x = net.conv2d(x, 6, size=1, activation="silu")
    x = net.node("max_pool2d", x, pool_size=[3, 3], stride=[1, 2], ceil_mode=True)
    x = net.node("activation", x, activation="tanh")
    x = net.dense(x, 7, activation="sigmoid")
    a, b = net.node("global_avg_pool2d", x), net.node("global_max_pool2d", x)
    x = net.node("concatenate", a, b, axis=-1)
    net.output(net.node("log_softmax", net.dense(x, 5)))
    return net, [{**CATEGORICAL, "from_logits": True, "label_smoothing": 0.1}]


def diamond():
    """Values with several consumers: a residual block, a gate, a softmax that is also an input."""
    net = Net()
    x = net.conv2d(net.input(6, 6, 3), 4, activation="relu")
    y = net.conv2d(x, 4, padding="same", activation="relu")
    z = net.node("add", y, x, net.conv2d(y, 4, padding="same"))
    z = net.node("activation", z, activation="relu")
    gate = net.node("reshape", net.dense(net.flatten(x), 64, activation="sigmoid"), shape=[4, 4, 4])
    z = net.node("multiply", z, gate, z)
    p = net.node("softmax", net.dense(net.flatten(z), 6))
    net.output(p)
    net.output(net.dense(p, 3, activation="tanh"))
    return net, [SPARSE, {**MSE, "output": 1}]


def two_towers():
    """Two inputs through shared layers, three outputs, and a value that two losses read."""
    net = Net()
    kernel, bias = net.parameter(3, 3, 2, 4), net.parameter(4, scale=0.1)
    towers = []
    for value in (net.input(5, 5, 2), net.input(5, 5, 2)):
        y = net.node("conv2d", value, parameters=[kernel, bias], activation="relu")
        y = net.node("conv2d", y, parameters=[net.parameter(1, 1, 4, 4)], activation="gelu")
        towers.append(y)
    both = net.node("concatenate", *towers, axis=1)
    both = net.node("concatenate", both, both, axis=0)
    net.output(net.node("softmax", net.dense(both, 3)))
    flat = net.flatten(towers[0])
    net.output(net.dense(flat, 4, activation="sigmoid"))
    net.output(net.node("activation", net.dense(flat, 2), activation="sigmoid"))
    return net, [
        SPARSE,
        {**BINARY, "output": 1},
        {**MSE, "output": 1},
        {**BINARY, "output": 2, "label_smoothing": 0.2},
        {**BINARY, "output": 2, "from_logits": True},
    ]


def frozen():
    """Frozen layers below and above trainable ones, and a parameter that no loss depends on."""
    net = Net()
    image = net.input(6, 6, 2)
    kernel = net.parameter(3, 3, 2, 4, trainable=False)
    x = net.node("conv2d", image, parameters=[kernel], activation="gelu")
    x = net.batch_norm(x, training=False, epsilon=0.1)
    x = net.conv2d(x, 5, activation="relu")
    x = net.batch_norm(x, training=False, trainable=False)
    x = net.flatten(x)
    x = net.node("dense", x, parameters=[net.parameter(20, 8, trainable=False)], activation="relu")
    net.output(net.node("softmax", net.dense(x, 4)))
    net.output(net.dense(x, 3))
    return net, [SPARSE]


def attention():
    """Attention to itself, and of few tokens to others whose keys are also the values."""
    net = Net()
    tokens, others = net.input(9, 6), net.input(4, 5)
    x = net.node("attention", *(net.dense(tokens, 6) for _ in range(3)), heads=2, scale=0.4)
    memory = net.dense(others, 8, activation="tanh")
    x = net.node("attention", net.dense(x, 8), memory, memory, heads=4, causal=True)
    net.output(net.node("softmax", net.dense(net.flatten(x), 3)))
    return net, [SPARSE]


def recurrent():
    """Each recurrent layer on the last one's sequence, and one without a bias."""
    net = Net()
    x = net.recurrent("gru", net.input(5, 6), 7, return_sequences=True, go_backwards=True)
    x = net.recurrent("lstm", x, 3, return_sequences=True)
    rows = net.recurrent("simple_rnn", x, 4, go_backwards=True)
    weights = [net.parameter(3, 20), net.parameter(5, 20)]
    last = net.node("lstm", x, parameters=weights)
    x = net.node("concatenate", rows, last, axis=-1)
    net.output(net.node("softmax", net.dense(x, 3)))
    return net, [SPARSE]


def tensor_ops():
    """The ops on tensors of any shape: a squeezed gate, attention by hand, an enlarged image."""
    net = Net()
    x = net.conv2d(net.input(6, 5, 3), 8, activation="hard_swish", padding="same")
    gate = net.node("reduce", x, function="mean", axes=[0, 1], keepdims=True)
    gate = net.dense(gate, 8, activation="sigmoid")
    x = net.node("multiply", x, net.node("add", gate, x, gate))
    x = net.node("dropout", x, rate=0.25, noise="channel")
    x = net.node("upsample2d", x, size=[2, 1], interpolation="bilinear")
    top = net.node("slice", x, axis=0, begin=2, size=6)
    x = net.node(
        "binary",
        top,
        net.node("reduce", top, function="max", axes=[2], keepdims=True),
        function="subtract",
    )
    x = net.node("reshape", x, shape=[30, 8])
    y = net.node("transpose", x, permutation=[1, 0])
    scores = net.node("matmul", x, y)
    x = net.node("matmul", net.node("softmax", scores), x)
    x = net.node(
        "where",
        net.node("binary", x, gate_of(net, x), function="greater"),
        x,
        net.node("unary", x, function="abs"),
    )
    x = net.node("dropout", x, rate=0.25, noise="sample")
    x = net.node("reduce", x, function="sum", axes=[0], keepdims=False)
    net.output(net.node("softmax", net.dense(x, 4)))
    return net, [SPARSE]


def gate_of(net, x):
    """A threshold per row."""
    return net.node("reduce", x, function="mean", axes=[1], keepdims=True)


GRAPHS = {
    "recurrent": recurrent,
    "attention": attention,
    "tensor_ops": tensor_ops,
    "cnn": cnn,
    "cnn_gelu": lambda: cnn("gelu"),
    "every_layer": every_layer,
    "diamond": diamond,
    "two_towers": two_towers,
    "frozen": frozen,
}


@pytest.fixture(params=GRAPHS)
def graph(request):
    return GRAPHS[request.param]()


# ---------------------------------------------------------------- plan == chained ops


def assert_folded(got, expected):
    """A batch_norm that is folded into the weights before it changes the rounding."""
    size = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * size)


def check_against_ops(net, losses, n, batch, fuse, seed=3):
    """Outputs, losses and gradients of plans, against the ops one by one: the same bits."""
    folds = fuse and any(node[0] == "batch_norm" for node in net.nodes)
    assert_predicted = assert_folded if folds else assert_exact
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
    assert_exact(np.float32(results[1:]), np.float32([loss for loss, _, _ in answers]))
    assert results[0] == pytest.approx(sum(results[1:]), rel=1e-12)
    for i, output in enumerate(net.outputs):
        assert_exact(train.output(i), values[output])
    gradients = net.backward(values, [answer[1:] for answer in answers], seed=seed)
    for i, gradient in enumerate(gradients):
        if net.trainable[i]:
            expected = np.zeros_like(net.parameters[i]) if gradient is None else gradient
            assert_exact(state.gradient(i), expected)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(("n", "batch"), [(5, 5), (3, 5), (1, 7)])
def test_plan_equals_chained_ops(graph, n, batch, fuse):
    check_against_ops(*graph, n, batch, fuse)


def test_plan_equals_chained_ops_on_every_isa(isa):
    check_against_ops(*diamond(), 4, 4, True)


@st.composite
def random_nets(draw):
    """A random graph of images of one size, with a classifier on some of its values."""
    net = Net(draw(st.integers(0, 99)))
    values = [net.input(4, 5, draw(st.integers(1, 3))) for _ in range(draw(st.integers(1, 2)))]
    shape = net.graph.shape
    for _ in range(draw(st.integers(1, 10))):
        x = draw(st.sampled_from(values))
        same = [v for v in values if shape(v) == shape(x)]
        op = draw(
            st.sampled_from(
                ("conv2d", "conv2d", "dense", "activation", "add", "multiply", "concatenate")
                + ("scale", "dropout", "max_pool2d", "avg_pool2d", "reshape", "softmax")
                + ("batch_norm",)
            )
        )
        act = draw(st.sampled_from((None, *ACTIVATIONS)))
        options = {"activation": act} if act else {}
        if op == "conv2d":
            y = net.conv2d(x, draw(st.integers(1, 4)), padding="same", **options)
        elif op == "dense":
            y = net.dense(x, draw(st.integers(1, 4)), bias=draw(st.booleans()), **options)
        elif op == "activation":
            y = net.node(op, x, activation=act or "relu")
        elif op in ("add", "multiply"):
            y = net.node(op, x, *draw(st.lists(st.sampled_from(same), min_size=1, max_size=2)))
        elif op == "concatenate":
            y = net.node(op, x, draw(st.sampled_from(values)))
        elif op == "scale":
            y = net.node(op, x, factor=-0.5, offset=1.0)
        elif op == "dropout":
            y = net.node(op, x, rate=0.5)
        elif op == "softmax":
            y = net.node(op, x)
        elif op == "batch_norm":
            options = {
                name: draw(st.booleans()) for name in ("scale", "center", "training", "trainable")
            }
            y = net.batch_norm(x, **options)
        elif op == "reshape":
            y = net.node(op, net.node(op, x, shape=[20 * shape(x)[-1]]), shape=list(shape(x)))
        else:
            y = net.node(op, x, pool_size=[3, 2], stride=[1, 1], padding="same")
        values.append(y)
    features = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    pooled = [net.node("global_avg_pool2d", x) for x in features]
    head = net.node("concatenate", *pooled)
    net.output(net.node("softmax", net.dense(head, 4)))
    net.output(draw(st.sampled_from(values[1:] or values)))
    losses = [SPARSE]
    if draw(st.booleans()):
        losses.append({**MSE, "output": 1})
    return net, losses


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


# ---------------------------------------------------------------- the update


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
    """Ten layers of one size: prediction needs the memory of two, training of all."""
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
    assert predict.memory()["activations"] < 3.1 * image
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


def test_finite_batches_have_nothing_to_name(graph):
    net, losses = graph
    plan = _core.Plan(net.graph, net.state(), "train", 4, losses)
    results = plan.run(net.data(3), labels_for(net, losses, 3))
    outputs = [plan.output(i) for i in range(len(net.outputs))]
    assert np.isfinite(results).all()
    assert plan.first_non_finite() == ""
    for i, output in enumerate(outputs):
        assert_exact(plan.output(i), output)
