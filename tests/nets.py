"""Graphs for the tests of plans, and the same computed op by op with the functional ops.

`Net` builds a `_core.Graph` with random parameters and remembers what it built, so that `forward`
and `backward` can do with `convlet.ops` what a plan does in one call: gradients that reach a value
or a parameter from several places are added in the order of a plan (losses first, then nodes
backwards).
"""

import numpy as np

from convlet import _core, ops

NEEDS_INPUT = ("gelu", "silu", "hard_sigmoid", "hard_swish")
# "leaky_relu" is left out: as an attribute it has Keras' slope, as an op torch's.
ACTIVATIONS = (
    *("relu", "sigmoid", "tanh", "relu6", "elu", "selu", "softplus"),
    *NEEDS_INPUT,
)


SPARSE = {"kind": "softmax_cross_entropy", "integer_labels": True}
CATEGORICAL = {"kind": "softmax_cross_entropy"}
BINARY = {"kind": "binary_cross_entropy"}
MSE = {"kind": "mean_squared_error"}


class Net:
    def __init__(self, seed=0):
        self.graph = _core.Graph()
        self.rng = np.random.default_rng(seed)
        self.inputs, self.outputs, self.nodes = [], [], []
        self.parameters, self.trainable = [], []

    def input(self, *shape):
        value = self.graph.input(f"input{len(self.inputs)}", shape)
        self.inputs.append(value)
        return value

    def parameter(self, *shape, scale=None, **options):
        """A new parameter's id; its values are normal with variance 2 / fan-in, or `scale`."""
        fan_in = int(np.prod(shape[:-1])) or 1
        scale = np.sqrt(2 / fan_in) if scale is None else scale
        self.parameters.append((scale * self.rng.standard_normal(shape)).astype(np.float32))
        self.trainable.append(options.get("trainable", True))
        return self.graph.parameter(f"p{len(self.parameters) - 1}", shape, **options)

    def node(self, op, *inputs, parameters=(), **attributes):
        name = f"{op}{len(self.nodes)}"
        value = self.graph.node(op, name, inputs, parameters, attributes)
        self.nodes.append((op, inputs, parameters, attributes, value))
        return value

    def conv2d(self, x, channels, size=3, groups=1, bias=True, **attributes):
        c = self.graph.shape(x)[-1]
        parameters = [self.parameter(size, size, c // groups, channels)]
        if bias:
            parameters.append(self.parameter(channels, scale=0.1))
        return self.node("conv2d", x, parameters=parameters, groups=groups, **attributes)

    def dense(self, x, units, bias=True, **attributes):
        parameters = [self.parameter(self.graph.shape(x)[-1], units)]
        if bias:
            parameters.append(self.parameter(units, scale=0.1))
        return self.node("dense", x, parameters=parameters, **attributes)

    def batch_norm(self, x, scale=True, center=True, trainable=True, **attributes):
        c = self.graph.shape(x)[-1]
        parameters = []
        for name, there in (("gamma", scale), ("beta", center), ("mean", True), ("var", True)):
            if there:
                train = trainable and name in ("gamma", "beta")
                parameters.append(self.parameter(c, scale=0.3, trainable=train))
                self.parameters[-1] += name in ("gamma", "var")
        np.abs(self.parameters[-1], out=self.parameters[-1])
        attributes |= {"scale": scale, "center": center}
        return self.node("batch_norm", x, parameters=parameters, **attributes)

    def recurrent(self, op, x, units, **attributes):
        columns = {"simple_rnn": 1, "lstm": 4, "gru": 3}[op] * units
        parameters = [
            self.parameter(self.graph.shape(x)[-1], columns),
            self.parameter(units, columns),
            self.parameter(*((2, columns) if op == "gru" else (columns,)), scale=0.1),
        ]
        return self.node(op, x, parameters=parameters, **attributes)

    def normalize(self, op, x, scale=True, center=True, **attributes):
        """layer_norm or group_norm."""
        shape = self.graph.shape(x)
        shape = shape[-attributes.get("axes", 1) :] if op == "layer_norm" else shape[-1:]
        parameters = [self.parameter(*shape, scale=0.5) for _ in range(scale + center)]
        attributes |= {"scale": scale, "center": center}
        return self.node(op, x, parameters=parameters, **attributes)

    def flatten(self, x):
        return self.node("reshape", x, shape=[int(np.prod(self.graph.shape(x)))])

    def output(self, value):
        self.graph.output(value)
        self.outputs.append(value)
        return value

    def state(self, optimizer=None):
        state = _core.State(self.graph)
        for i, values in enumerate(self.parameters):
            state.set(i, values)
        state.set_optimizer(optimizer or {"kind": "sgd"})
        return state

    def data(self, n, seed=1):
        """A random array for each input."""
        rng = np.random.default_rng(seed)
        return [
            rng.standard_normal((n, *self.graph.shape(value))).astype(np.float32)
            for value in self.inputs
        ]

    # ------------------------------------------------------------ op by op

    def forward(self, inputs, *, train=False, seed=0, step=0):
        """{value: array}; what the activation of a conv2d or dense reads is at (value, "z")."""
        values = dict(zip(self.inputs, inputs, strict=True))
        for op, node_inputs, parameters, attributes, value in self.nodes:
            x = [values[i] for i in node_inputs]
            p = [self.parameters[i] for i in parameters]
            activation = attributes.get("activation")
            if op == "dropout":
                rate = attributes["rate"] if train else 0.0
                noise = attributes.get("noise", "element")
                y = _core.dropout(x[0], rate, seed, step, value, noise, None) if rate else x[0]
            elif op == "batch_norm":
                y = batch_norm(x, p, attributes, train)
            else:
                y = FORWARD[op](x, p, attributes)
            if op in ("conv2d", "dense") and activation:
                values[value, "z"] = y
                y = getattr(ops, activation)(y)
            values[value] = y
        return values

    def loss(self, values, spec, target):
        """(the loss, the value that its gradient belongs to, that gradient)."""
        output = self.outputs[spec.get("output", 0)]
        kind, logits = spec["kind"], spec.get("from_logits", False)
        smoothing = spec.get("label_smoothing", 0.0)
        made_by = [node for node in self.nodes if node[-1] == output]
        op, node_inputs, _, attributes, _ = made_by[0] if made_by else (None, (), (), {}, output)
        key = output
        if kind == "softmax_cross_entropy":
            if not logits:
                assert op == "softmax"
                key = node_inputs[0]
            z = values[key]
            rows = z.reshape(-1, z.shape[-1])
            t = target.reshape(-1) if spec.get("integer_labels") else target.reshape(rows.shape)
            loss, dz = ops.softmax_cross_entropy(
                rows, t, label_smoothing=smoothing, return_grad=True
            )
            return loss, key, dz.reshape(z.shape)
        if kind == "binary_cross_entropy" and (logits or attributes.get("activation") == "sigmoid"):
            kind = "sigmoid_cross_entropy"
            if not logits:
                key = (output, "z") if op in ("conv2d", "dense") else node_inputs[0]
        loss, dz = _core.elementwise_loss(kind, values[key], target, smoothing, "mean", True)
        return loss, key, dz

    def needs_gradient(self):
        needs = set()
        for _, inputs, parameters, _, value in self.nodes:
            if any(self.trainable[p] for p in parameters) or needs.intersection(inputs):
                needs |= {value, (value, "z")}
        return needs

    def backward(self, values, gradients, *, seed=0, step=0):
        """The gradient of each parameter (None where there is none), from [(value, gradient)]."""
        needs = self.needs_gradient()
        d, dp = {}, [None] * len(self.parameters)

        def add(table, key, share):
            table[key] = share if table[key] is None else ops.add(table[key], share)

        for key, gradient in gradients:
            if key in needs:
                d.setdefault(key, None)
                add(d, key, gradient)
        for op, inputs, parameters, attributes, value in reversed(self.nodes):
            dy = d.get(value)
            activation = attributes.get("activation")
            if op in ("conv2d", "dense") and activation:
                if dy is not None:
                    other = values[(value, "z") if activation in NEEDS_INPUT else value]
                    share = getattr(ops, f"{activation}_backward")(dy, other)
                    d.setdefault((value, "z"), None)
                    add(d, (value, "z"), share)
                dy = d.get((value, "z"))
            if dy is None:
                continue
            x = [values[i] for i in inputs]
            p = [self.parameters[i] for i in parameters]
            if op == "dropout":
                rate = attributes["rate"]
                noise = attributes.get("noise", "element")
                dx = _core.dropout(dy, rate, seed, step, value, noise, None) if rate else dy
                dxs, dps = [dx], []
            else:
                dxs, dps = BACKWARD[op](dy, x, p, values[value], attributes)
            for i, share in zip(parameters, dps, strict=True):
                if self.trainable[i]:
                    add(dp, i, share)
            for i, share in zip(inputs, dxs, strict=True):
                if i in needs:
                    d.setdefault(i, None)
                    add(d, i, share)
        return dp


def conv_options(attributes):
    options = {k: attributes[k] for k in ("stride", "dilation", "groups") if k in attributes}
    for key in ("stride", "dilation"):
        if key in options:
            options[key] = tuple(options[key])
    options["padding"] = attributes.get("padding", "valid")
    if "pad" in attributes:
        top, bottom, left, right = attributes["pad"]
        options["padding"] = ((top, bottom), (left, right))
    return options


def pool_options(attributes):
    options = {"pool_size": tuple(attributes["pool_size"])}
    options |= {k: attributes[k] for k in ("ceil_mode", "count_include_pad") if k in attributes}
    if "stride" in attributes:
        options["stride"] = tuple(attributes["stride"])
    return options | {"padding": attributes.get("padding", "valid")}


def dense_forward(x, p, attributes):
    x = x[0]
    bias = p[1] if len(p) > 1 else None
    y = ops.dense(x.reshape(-1, x.shape[-1]), p[0], bias)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def dense_backward(dy, x, p, y, attributes):
    x = x[0]
    dx, dw, db = ops.dense_backward(dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]), p[0])
    return [dx.reshape(x.shape)], [dw, db][: len(p)]


def conv2d_backward(dy, x, p, y, attributes):
    options = conv_options(attributes)
    dx = ops.conv2d_backward_input(dy, p[0], x[0].shape, **options)
    dw = ops.conv2d_backward_weight(dy, x[0], p[0].shape[:2], **options)
    return [dx], [dw, ops.conv2d_backward_bias(dy)][: len(p)]


def batch_norm_arguments(p, attributes):
    """(gamma, beta, moving mean, moving variance), None for what a node does not have."""
    p = list(p)
    gamma = p.pop(0) if attributes["scale"] else None
    beta = p.pop(0) if attributes["center"] else None
    return gamma, beta, *(moving.copy() for moving in p)


def batch_norm(x, p, attributes, train):
    options = {"training": train and attributes.get("training", True)}
    options |= {k: attributes[k] for k in ("momentum", "epsilon") if k in attributes}
    return ops.batch_norm(x[0], *batch_norm_arguments(p, attributes), **options)


def batch_norm_backward(dy, x, p, y, attributes):
    gamma, _, *moving = batch_norm_arguments(p, attributes)
    options = {"training": attributes.get("training", True)}
    options |= {k: attributes[k] for k in ("epsilon",) if k in attributes}
    dx, dgamma, dbeta = ops.batch_norm_backward(dy, x[0], gamma, *moving, **options)
    gradients = [dgamma] * attributes["scale"] + [dbeta] * attributes["center"]
    return [dx], [*gradients, None, None]


def affine(p, attributes):
    """(gamma, beta) of layer_norm and group_norm, and the options of the op."""
    p = list(p)
    gamma = p.pop(0) if attributes["scale"] else None
    options = {k: attributes[k] for k in ("axes", "groups", "epsilon") if k in attributes}
    return (gamma, p[0] if p else None), options


def affine_forward(op):
    def forward(x, p, attributes):
        arrays, options = affine(p, attributes)
        return op(x[0], *arrays, **options)

    return forward


def affine_backward(op):
    def backward(dy, x, p, y, attributes):
        (gamma, _), options = affine(p, attributes)
        dx, dgamma, dbeta = op(dy, x[0], gamma, **options)
        return [dx], [dgamma] * attributes["scale"] + [dbeta] * attributes["center"]

    return backward


def multiply_backward(dy, x, p, y, attributes):
    shares = []
    for i in range(len(x)):
        share = dy
        for j, other in enumerate(x):
            if j != i:
                share = ops.multiply(share, other)
        shares.append(_core.binary_backward("add", 0, share, x[i], share))
    return shares, []


def binary_backward(dy, x, p, y, attributes):
    function = attributes["function"]
    return [_core.binary_backward(function, side, dy, *x) for side in (0, 1)], []


def unary_backward(dy, x, p, y, attributes):
    function = attributes["function"]
    from_output = function in ("exp", "sqrt", "rsqrt", "reciprocal")
    return [_core.unary_backward(function, dy, y if from_output else x[0], None)], []


def batch_axes(axes):
    return [axis + 1 for axis in axes]


def transpose_backward(dy, x, p, y, attributes):
    return [ops.transpose(dy, np.argsort([0, *batch_axes(attributes["permutation"])]).tolist())], []


def slice_of(x, attributes):
    index = [slice(None)] * x.ndim
    index[attributes["axis"] + 1] = slice(
        attributes["begin"], attributes["begin"] + attributes["size"]
    )
    return tuple(index)


def slice_backward(dy, x, p, y, attributes):
    dx = np.zeros_like(x[0])
    dx[slice_of(dx, attributes)] = dy
    return [dx], []


def where_backward(dy, x, p, y, attributes):
    zeros = np.zeros_like(dy)
    return [zeros, ops.where(x[0], dy, zeros), ops.where(x[0], zeros, dy)], []


def matmul_backward(dy, x, p, y, attributes):
    a, b = x
    return [ops.matmul(dy, b, transpose_b=True), ops.matmul(a, dy, transpose_a=True)], []


def upsample_options(attributes):
    return {"size": tuple(attributes["size"]), "interpolation": attributes["interpolation"]}


def activation_backward(dy, x, p, y, attributes):
    name = attributes["activation"]
    return [getattr(ops, f"{name}_backward")(dy, x[0] if name in NEEDS_INPUT else y)], []


def attention_options(attributes):
    return {key: attributes[key] for key in ("heads", "scale", "causal") if key in attributes}


def recurrent_options(attributes):
    assert not attributes.get("aligned")
    names = ("return_sequences", "go_backwards")
    return {key: attributes[key] for key in names if key in attributes}


def recurrent_forward(name):
    return lambda x, p, a: getattr(ops, name)(x[0], *p, **recurrent_options(a))


def recurrent_backward(name):
    def backward(dy, x, p, y, attributes):
        op = getattr(ops, f"{name}_backward")
        dx, *dp = op(dy, x[0], *p, **recurrent_options(attributes))
        return [dx], dp[: len(p)]

    return backward


def chain(op, x):
    total = x[0]
    for other in x[1:]:
        total = op(total, other)
    return total


def axis_of(attributes):
    axis = attributes.get("axis", -1)
    return axis if axis < 0 else axis + 1


def concatenate_backward(dy, x, p, y, attributes):
    axis = axis_of(attributes)
    ends = np.cumsum([value.shape[axis] for value in x])[:-1]
    return [np.ascontiguousarray(part) for part in np.split(dy, ends, axis)], []


def pad(x, attributes):
    top, bottom, left, right = attributes["pad"]
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def crop(dy, x, attributes):
    top, _, left, _ = attributes["pad"]
    return np.ascontiguousarray(dy[:, top : top + x.shape[1], left : left + x.shape[2]])


def global_pool(op, x):
    return op(x, x.shape[1:3])[:, 0, 0]


FORWARD = {
    "conv2d": lambda x, p, a: ops.conv2d(x[0], *p, **conv_options(a)),
    "dense": dense_forward,
    "max_pool2d": lambda x, p, a: ops.max_pool2d(x[0], **pool_options(a)),
    "avg_pool2d": lambda x, p, a: ops.avg_pool2d(x[0], **pool_options(a)),
    "global_max_pool2d": lambda x, p, a: global_pool(ops.max_pool2d, x[0]),
    "global_avg_pool2d": lambda x, p, a: global_pool(ops.avg_pool2d, x[0]),
    "activation": lambda x, p, a: getattr(ops, a["activation"])(x[0]),
    "softmax": lambda x, p, a: ops.softmax(x[0]),
    "layer_norm": affine_forward(ops.layer_norm),
    "group_norm": affine_forward(ops.group_norm),
    "log_softmax": lambda x, p, a: ops.log_softmax(x[0]),
    "reshape": lambda x, p, a: x[0].reshape(len(x[0]), *a["shape"]),
    "add": lambda x, p, a: chain(ops.add, x),
    "multiply": lambda x, p, a: chain(ops.multiply, x),
    "scale": lambda x, p, a: np.float32(a["factor"]) * x[0] + np.float32(a.get("offset", 0)),
    "concatenate": lambda x, p, a: np.concatenate(x, axis_of(a)),
    "pad2d": lambda x, p, a: pad(x[0], a),
    "attention": lambda x, p, a: ops.attention(*x, **attention_options(a)),
    **{name: recurrent_forward(name) for name in ("simple_rnn", "lstm", "gru")},
    "binary": lambda x, p, a: _core.binary(a["function"], *x, None),
    "unary": lambda x, p, a: _core.unary(a["function"], x[0], None),
    "where": lambda x, p, a: ops.where(*x),
    "reduce": lambda x, p, a: _core.reduce(
        a["function"], x[0], batch_axes(a["axes"]), a["keepdims"], None
    ),
    "transpose": lambda x, p, a: ops.transpose(x[0], [0, *batch_axes(a["permutation"])]),
    "slice": lambda x, p, a: np.ascontiguousarray(x[0][slice_of(x[0], a)]),
    "matmul": lambda x, p, a: ops.matmul(*x),
    "upsample2d": lambda x, p, a: ops.upsample2d(x[0], **upsample_options(a)),
}

# (dy, inputs, parameters, y, attributes) -> (gradients of the inputs, of the parameters)
BACKWARD = {
    "conv2d": conv2d_backward,
    "dense": dense_backward,
    "max_pool2d": lambda dy, x, p, y, a: (
        [ops.max_pool2d_backward(dy, x[0], **pool_options(a))],
        [],
    ),
    "avg_pool2d": lambda dy, x, p, y, a: (
        [ops.avg_pool2d_backward(dy, x[0].shape, **pool_options(a))],
        [],
    ),
    "global_max_pool2d": lambda dy, x, p, y, a: (
        [ops.max_pool2d_backward(dy[:, None, None], x[0], x[0].shape[1:3])],
        [],
    ),
    "global_avg_pool2d": lambda dy, x, p, y, a: (
        [ops.avg_pool2d_backward(dy[:, None, None], x[0].shape, x[0].shape[1:3])],
        [],
    ),
    "activation": activation_backward,
    "batch_norm": batch_norm_backward,
    "layer_norm": affine_backward(ops.layer_norm_backward),
    "group_norm": affine_backward(ops.group_norm_backward),
    "softmax": lambda dy, x, p, y, a: ([ops.softmax_backward(dy, y)], []),
    "log_softmax": lambda dy, x, p, y, a: ([ops.log_softmax_backward(dy, y)], []),
    "reshape": lambda dy, x, p, y, a: ([dy.reshape(x[0].shape)], []),
    "add": lambda dy, x, p, y, a: (
        [_core.binary_backward("add", 0, dy, value, dy) for value in x],
        [],
    ),
    "multiply": multiply_backward,
    "scale": lambda dy, x, p, y, a: ([np.float32(a["factor"]) * dy], []),
    "concatenate": concatenate_backward,
    "pad2d": lambda dy, x, p, y, a: ([crop(dy, x[0], a)], []),
    "attention": lambda dy, x, p, y, a: (
        ops.attention_backward(dy, *x, **attention_options(a)),
        [],
    ),
    **{name: recurrent_backward(name) for name in ("simple_rnn", "lstm", "gru")},
    "binary": binary_backward,
    "unary": unary_backward,
    "where": where_backward,
    "reduce": lambda dy, x, p, y, a: (
        [_core.reduce_backward(a["function"], dy, x[0], y, batch_axes(a["axes"]))],
        [],
    ),
    "transpose": transpose_backward,
    "slice": slice_backward,
    "matmul": matmul_backward,
    "upsample2d": lambda dy, x, p, y, a: (
        [ops.upsample2d_backward(dy, **upsample_options(a))],
        [],
    ),
}


def cnn(activation="relu"):
    net = Net()
    x = net.conv2d(net.input(9, 9, 3), 6, activation=activation, padding="same")
    x = net.node("max_pool2d", x, pool_size=[2, 2])
    x = net.conv2d(x, 5, stride=[2, 1], pad=[1, 0, 2, 1], activation=activation)
    x = net.dense(net.flatten(x), 17, activation=activation)
    net.output(net.node("softmax", net.dense(x, 10)))
    return net, [SPARSE]


def snapshot(state, count):
    slots = range(len(state.slot_names()))
    return [state.get(i) for i in range(count)] + [
        state.get_slot(slot, i) for slot in slots for i in range(count)
    ]
