"""Graphs for the tests of plans, fixed and drawn at random, and targets for their losses."""

import numpy as np
from hypothesis import strategies as st

from nets import ACTIVATIONS, BINARY, CATEGORICAL, MSE, SPARSE, Net, cnn


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
