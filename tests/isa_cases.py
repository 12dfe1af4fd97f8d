"""Every op on awkward shapes, computed by one instruction set's kernels and by the baseline's.

Needs numpy only, so that it also runs inside an emulated machine (tests/emulated): `python
isa_cases.py avx512` compares, prints one line per family and exits with 1 on a mismatch. The name
avx512bf16 compares the products of precision bfloat16 with emulated ones.
"""

import sys
from functools import partial

import numpy as np

from convlet import Input, Model, Sequential, _core, layers, ops, optimizers, regularizers
from convlet.models import NonFiniteError
from convlet.utils import set_random_seed

CONVOLUTIONS = [
    # N, H, W, C, K, R, S, stride, padding, dilation, groups
    (1, 7, 9, 3, 5, 3, 3, 1, 1, 1, 1),
    (2, 8, 8, 16, 64, 3, 3, 1, 1, 1, 1),
    (2, 9, 7, 17, 66, 3, 3, 2, 1, 1, 1),
    (1, 12, 5, 32, 99, 1, 1, 1, 0, 1, 1),
    (2, 6, 6, 64, 130, 3, 3, 1, 0, 1, 1),
    (1, 11, 11, 4, 33, 5, 3, 2, 2, 1, 1),
    (2, 10, 10, 6, 12, 3, 3, 1, 2, 2, 3),
    (2, 9, 9, 19, 19, 3, 3, 1, 1, 1, 19),
    (1, 9, 9, 20, 40, 3, 3, 2, 1, 1, 20),
    (1, 7, 10, 37, 37, 3, 3, 1, 1, 1, 37),
    (1, 9, 10, 70, 70, 5, 5, 2, 2, 1, 70),
    (3, 5, 5, 1, 31, 3, 3, 1, 1, 1, 1),
    (1, 10, 10, 2, 16, 7, 7, 1, 3, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1),
]
MATRICES = [(1, 1, 1), (3, 17, 19), (33, 99, 66), (7, 2100, 31), (1, 300, 130), (64, 64, 64)]
POOLS = [
    {"pool_size": 2},
    {"pool_size": 3, "stride": 2, "padding": 1},
    {"pool_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
]
ACTIVATIONS = (
    *("relu", "sigmoid", "tanh", "gelu", "silu", "relu6", "leaky_relu", "elu", "selu", "softplus"),
    *("hard_sigmoid", "hard_swish"),
)
SHAPES = [
    ((7, 19), (7, 19)),
    ((3, 5, 17), (17,)),
    ((2, 4, 3, 31), (2, 1, 1, 31)),
    ((6, 1), (1, 9)),
    ((5, 3, 8), (5, 3, 1)),
]
ROWS = [(1, 1), (5, 17), (33, 10), (3, 1000), (7, 31)]
ATTENTIONS = [
    # N, T, S, heads, columns of q and v per head, causal
    (1, 1, 1, 1, 1, 1, False),
    (2, 5, 7, 2, 3, 4, False),
    (1, 70, 300, 1, 17, 33, False),
    (2, 99, 66, 3, 16, 64, True),
]
FAMILIES = (
    "conv2d",
    "prepared_conv2d",
    "conv2d_pool",
    "dense",
    "pool2d",
    "activation",
    "loss",
    "optimizer",
    "dropout",
    "attention",
    "augment",
    "normalization",
    "recurrent",
    "tensor",
    "resize",
    "training",
)


def cases(family):
    """Yields (name, function, exact): functions of no arguments that return arrays. They are equal
    in every bit where exact is True; otherwise as far as rounding goes, to 1e-6 of the largest
    value (False) or to the share that exact says."""
    rng = np.random.default_rng(0)

    def integers(*shape):
        return rng.integers(-4, 5, shape).astype(np.float32)

    def floats(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    yield from globals()[f"_{family}"](integers, floats, rng)


def _conv2d(integers, floats, rng):
    for case in CONVOLUTIONS:
        n, h, w, c, k, r, s, stride, padding, dilation, groups = case
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        x, weight, bias = integers(n, h, w, c), integers(r, s, c // groups, k), integers(k)
        dy = integers(*ops.conv2d(x, weight, bias, **options).shape)
        xf = floats(n, h, w, c)
        yield (
            f"forward {case}",
            partial(ops.conv2d, x, weight, bias, activation="relu", **options),
            True,
        )
        yield (
            f"gelu {case}",
            partial(ops.conv2d, xf, weight, bias, activation="gelu", **options),
            False,
        )
        yield (
            f"input {case}",
            partial(ops.conv2d_backward_input, dy, weight, x.shape, **options),
            True,
        )
        yield (
            f"weight {case}",
            partial(ops.conv2d_backward_weight, dy, x, (r, s), **options),
            True,
        )
        yield f"bias {case}", partial(ops.conv2d_backward_bias, dy), True


# The transforms round more than the plain sum does (docs/performance.md).
WINOGRAD_ROUNDING = 4e-6


def _prepared_conv2d(integers, floats, rng):
    """By plans: weights are prepared there only."""
    for n, h, w, c, k in ((1, 8, 8, 32, 32), (3, 9, 17, 33, 66), (2, 19, 10, 99, 130)):
        graph = _core.Graph()
        values = [graph.input("x", (h, w, c)), graph.input("residual", (h, w, k))]
        parameters = [graph.parameter("w", (3, 3, c, k)), graph.parameter("b", (k,))]
        y = graph.node("conv2d", "conv", values[:1], parameters, {"padding": "same"})
        y = graph.node("add", "add", [y, values[1]])
        graph.output(graph.node("activation", "act", [y], [], {"activation": "relu"}))
        state = _core.State(graph)
        for winograd, numbers in ((False, integers), (True, floats)):
            state.set(0, numbers(3, 3, c, k))
            state.set(1, numbers(k))
            inputs = [numbers(n, h, w, c), numbers(n, h, w, k)]
            plan = _core.Plan(graph, state, "predict", n, winograd=winograd)
            yield (
                f"winograd {winograd} {(h, w, c, k)}",
                partial(_predicted, plan, inputs),
                WINOGRAD_ROUNDING if winograd else True,
            )
        yield (
            f"winograd, gradients {(h, w, c, k)}",
            _winograd_gradients(floats(3, 3, c, k), floats(n, h, w, c), floats(n, h, w, k)),
            WINOGRAD_ROUNDING,
        )


def _predicted(plan, inputs):
    return plan.predict(inputs)[0]


def _winograd_gradients(weight, x, target):
    """A function for the gradients of |conv2d(x + p, weight) - target|^2 with p = 0."""
    graph = _core.Graph()
    ids = [graph.parameter("p", x.shape[1:]), graph.parameter("w", weight.shape)]
    p = graph.node("parameter", "zeros", [], ids[:1])
    y = graph.node("add", "sum", [graph.input("x", x.shape[1:]), p])
    graph.output(graph.node("conv2d", "conv", [y], ids[1:], {"padding": "same"}))
    state = _core.State(graph)
    state.set(1, weight)
    state.set_optimizer({"kind": "sgd"})
    loss = {"kind": "mean_squared_error", "weight": float(target.size)}
    plan = _core.Plan(graph, state, "train", len(x), [loss], winograd=True)

    def gradients():
        plan.run([x], [target])
        return tuple(state.gradient(i) for i in ids)

    return gradients


def _conv2d_pool(integers, floats, rng):
    """Steps with the kernels of pooled convolutions, which only plans call: an odd number of
    windows; filters for one vector, some, a panel, and more."""
    for channels, filters in ((1, 32), (2, 5), (3, 17), (3, 33), (3, 64), (16, 130)):
        x, y = floats(5, 9, 12, channels), floats(5, 3)
        yield f"{channels} to {filters}", partial(_pooled, filters, x, y), False


def _pooled(filters, x, y):
    set_random_seed(0)
    convolution = layers.Conv2D(filters, 3, activation="relu")
    head = [layers.MaxPooling2D(), layers.Flatten(), layers.Dense(3)]
    model = Sequential([Input(x.shape[1:]), convolution, *head])
    model.compile("sgd", "mse")
    model.fit(x, y, batch_size=5, verbose=0)
    return (*model.get_weights(), model.predict(x, verbose=0))


def _dense(integers, floats, rng):
    for n, i, o in MATRICES:
        x, weight, bias, dy = integers(n, i), integers(i, o), integers(o), integers(n, o)
        yield f"forward {(n, i, o)}", partial(ops.dense, x, weight, bias), True
        yield f"backward {(n, i, o)}", partial(ops.dense_backward, dy, x, weight), True


def _pool2d(integers, floats, rng):
    for channels in (1, 3, 10, 16, 17, 31, 64):
        x = floats(2, 9, 7, channels)
        x[0, 0, 0, 0] = np.nan
        for options in POOLS:
            name = f"{channels} channels {options}"
            dy = integers(*ops.max_pool2d(x, **options).shape)
            yield f"max {name}", partial(ops.max_pool2d, x, **options), True
            yield f"max backward {name}", partial(ops.max_pool2d_backward, dy, x, **options), True
            yield f"average {name}", partial(ops.avg_pool2d, x, **options), False
            yield (
                f"average backward {name}",
                partial(ops.avg_pool2d_backward, dy, x.shape, **options),
                False,
            )


def _activation(integers, floats, rng):
    for shape in ROWS:
        x = 10 * floats(*shape)
        special = x.copy()
        unusual = np.array([np.inf, -np.inf, np.nan, -0.0, 1e-40], dtype=np.float32)
        special.flat[: unusual.size] = unusual[: special.size]
        for name in ACTIVATIONS:
            op = getattr(ops, name)
            yield f"{name} {shape}", partial(op, x), False
            yield f"{name} of special values {shape}", partial(op, special), False
            yield f"{name} backward {shape}", partial(_activation_backward, name, x), False
        dy, y = floats(*shape), ops.softmax(x)
        yield f"softmax {shape}", partial(ops.softmax, x), False
        yield f"softmax backward {shape}", partial(ops.softmax_backward, dy, y), False
        yield f"log_softmax {shape}", partial(ops.log_softmax, x), False
        yield f"log_softmax backward {shape}", partial(ops.log_softmax_backward, dy, -x), False


def _activation_backward(name, x):
    return getattr(ops, f"{name}_backward")(x[::-1].copy(), x)


def _loss(integers, floats, rng):
    for shape in ROWS:
        x, t = 10 * floats(*shape), rng.random(shape, dtype=np.float32)
        labels = rng.integers(0, shape[1], shape[0])
        weight = np.linspace(0.5, 2, shape[1], dtype=np.float32)
        options = {"return_grad": True}
        yield f"softmax {shape}", partial(ops.softmax_cross_entropy, x, labels, **options), False
        yield (
            f"softmax, weighted and smoothed {shape}",
            partial(
                ops.softmax_cross_entropy,
                x,
                labels,
                class_weight=weight,
                label_smoothing=0.1,
                **options,
            ),
            False,
        )
        yield f"sigmoid {shape}", partial(ops.sigmoid_cross_entropy, x, t, **options), False
        focal = options | {"focal_gamma": 2.0}
        for name, target in (("integers", labels), ("probabilities", t)):
            yield (
                f"focal {name} {shape}",
                partial(ops.softmax_cross_entropy, x, target, label_smoothing=0.1, **focal),
                False,
            )
        balanced = partial(ops.sigmoid_cross_entropy, x, t, focal_alpha=0.25, **focal)
        yield f"focal sigmoid {shape}", balanced, False
        yield f"squared {shape}", partial(ops.mean_squared_error, x, t, **options), False


def _optimizer(integers, floats, rng):
    for kind, slots in (("sgd", 1), ("rmsprop", 2), ("adam", 2)):
        spec = {"kind": kind} if kind == "adam" else {"kind": kind, "momentum": 0.9}
        for size in (1, 31, 1000):
            before, gradient = floats(size), floats(size)

            yield f"{kind} {size}", partial(_update, spec, slots, before, gradient), False
            clipped = spec | {"clip_value": 0.5}
            name = f"{kind} clipped {size}"
            yield name, partial(_update, clipped, slots, before, gradient), False


def _update(spec, slots, before, gradient):
    p, state = before.copy(), [np.zeros_like(before) for _ in range(slots)]
    _core.optimizer_update(spec, 0.01, 3, p, gradient, state)
    return (p, *state)


def _dropout(integers, floats, rng):
    for shape in ROWS:
        x = floats(*shape)
        yield f"{shape}", partial(_core.dropout, x, 0.3, 7, 5, 2, "element", None), True


def _tensor(integers, floats, rng):
    for a, b in SHAPES:
        x, y = integers(*a), integers(*b)
        for name in ("add", "multiply", "maximum", "greater_equal", "equal"):
            yield f"{name} {a} {b}", partial(getattr(ops, name), x, y), True
        z = floats(*np.broadcast_shapes(a, b))
        for name in ("divide", "power", "minimum"):
            p, q = np.abs(floats(*a)) + 0.1, np.abs(floats(*b)) + 0.1
            yield f"{name} {a} {b}", partial(getattr(ops, name), p, q), False
            for side in (0, 1):
                backward = partial(_core.binary_backward, name, side, z, p, q)
                yield f"{name} backward {side} {a} {b}", backward, False
        yield f"where {a} {b}", partial(ops.where, x, x, y), True
    for shape in ((1,), (5, 17), (3, 4, 31), (2, 3, 66, 10), (9, 1000)):
        x = np.abs(floats(*shape)) + 0.1
        for name in ("exp", "log", "log1p", "sqrt", "rsqrt", "square", "reciprocal"):
            yield f"{name} {shape}", partial(getattr(ops, name), x), False
            yield f"{name} backward {shape}", partial(_core.unary_backward, name, x, x, None), False
        for axis in range(-1, len(shape)):
            axes = tuple(range(len(shape))) if axis < 0 else axis
            for name in ("sum", "mean"):
                yield f"{name} {shape} {axis}", partial(getattr(ops, name), x, axes), False
            for name in ("max", "min"):
                yield f"{name} {shape} {axis}", partial(getattr(ops, name), x, axes), True
            yield f"max backward {shape} {axis}", partial(_max_backward, x, axis), True
        yield f"transpose {shape}", partial(ops.transpose, x), True
    for b, m, k, n in ((1, 1, 1, 1), (3, 5, 17, 31), (2, 66, 300, 19), (5, 33, 8, 99)):
        for ta in (False, True):
            for tb in (False, True):
                left = integers(*((b, k, m) if ta else (b, m, k)))
                right = integers(*((b, n, k) if tb else (b, k, n)))
                product = partial(ops.matmul, left, right, transpose_a=ta, transpose_b=tb)
                yield f"matmul {(b, m, k, n, ta, tb)}", product, True
    for c in (1, 3, 17, 64):
        x, dy = floats(2, 3, 5, c), floats(2, 6, 15, c)
        for way in ("nearest", "bilinear"):
            options = {"size": (2, 3), "interpolation": way}
            yield f"{way} {c}", partial(ops.upsample2d, x, **options), False
            yield f"{way} backward {c}", partial(ops.upsample2d_backward, dy, **options), False
    for classes in (1, 10, 99):
        labels = rng.integers(0, classes, 66)
        yield f"one_hot {classes}", partial(_core.one_hot, labels, classes, None), True
    for noise in ("channel", "sample"):
        x = floats(3, 5, 4, 66)
        yield f"dropout {noise}", partial(_core.dropout, x, 0.3, 7, 5, 2, noise, None), True


def _max_backward(x, axis):
    axes = list(range(x.ndim)) if axis < 0 else [axis]
    y = _core.reduce("max", x, axes, True, None)
    return _core.reduce_backward("max", y, x, y, axes)


def _attention(integers, floats, rng):
    for n, t, s, heads, d, e, causal in ATTENTIONS:
        q, k, v = floats(n, t, heads * d), floats(n, s, heads * d), floats(n, s, heads * e)
        dy = floats(n, t, heads * e)
        dropped = (heads, None, causal, 0.3, 7, 5, 2)
        name = f"{(n, t, s, heads, d, e, causal)}"
        yield (
            f"forward {name}",
            partial(ops.attention, q, k, v, heads=heads, causal=causal),
            False,
        )
        yield f"dropped {name}", partial(_core.attention, q, k, v, *dropped, None), False
        yield f"backward {name}", partial(_core.attention_backward, dy, q, k, v, *dropped), False


def _augment(integers, floats, rng):
    geometry = {"rotation_low": -30.0, "rotation_high": 30.0, "zoom_h_low": 0.7, "zoom_w_low": 0.7}
    colour = {"brightness_low": 0.5, "contrast_low": 0.5, "channel_shift_high": 9.0}
    for channels in (1, 2, 3, 4, 6):
        for height, width in ((1, 1), (1, 19), (17, 5), (40, 33)):
            x = rng.integers(0, 256, (3, height, width, channels)).astype(np.uint8)
            for fill in ("constant", "nearest", "reflect", "wrap"):
                name = f"{channels} channels of {height}x{width}, {fill}"
                for kind, settings in (("geometry", geometry), ("colour", geometry | colour)):
                    call = partial(_augment_call, settings | {"fill": fill}, x)
                    yield f"{kind} {name}", call, False
                shifts = {"shift_h_low": -9, "shift_h_whole": 1, "flip_horizontal": 0.5}
                yield f"shift {name}", partial(_augment_call, shifts | {"fill": fill}, x), True


def _augment_call(settings, x):
    return _core.augment(settings, x, None, None, 3, 5, 0, None, None, "float32", None)


def _normalization(integers, floats, rng):
    for shape in [*ROWS, (300, 66), (2, 5, 5, 130)]:
        x, dy = 3 * floats(*shape) + 5, floats(*shape)
        arrays = [rng.random(shape[-1], dtype=np.float32) for _ in range(4)]
        gamma, _, *moments = arrays
        for training in (True, False):
            name, options = f"{shape} training={training}", {"training": training}
            yield f"batch_norm {name}", partial(_batch_norm, x, arrays, training), False
            yield (
                f"batch_norm backward {name}",
                partial(ops.batch_norm_backward, dy, x, gamma, *moments, **options),
                False,
            )

    for shape, axes, groups in (((7, 31), 1, 1), ((3, 5, 17, 12), 3, 4), ((2, 40, 40, 66), 1, 66)):
        x, dy = 3 * floats(*shape) + 5, floats(*shape)
        for name, parameter, options in (
            ("layer_norm", shape[len(shape) - axes :], {"axes": axes}),
            ("group_norm", shape[-1:], {"groups": groups}),
        ):
            gamma, beta = floats(*parameter), floats(*parameter)
            forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")
            yield f"{name} {shape}", partial(forward, x, gamma, beta, **options), False
            yield f"{name} backward {shape}", partial(backward, dy, x, gamma, **options), False


def _batch_norm(x, arrays, training):
    gamma, beta, mean, var = (a.copy() for a in arrays)
    return ops.batch_norm(x, gamma, beta, mean, var, training=training), mean, var


def _recurrent(integers, floats, rng):
    for cell, gates in (("simple_rnn", 1), ("lstm", 4), ("gru", 3)):
        for n, t, i, units in ((1, 1, 1, 1), (3, 5, 4, 17), (50, 3, 19, 33), (2, 9, 31, 66)):
            x, dy = floats(n, t, i), floats(n, t, units)
            kernel, recurrent = floats(i, gates * units) / i**0.5, floats(units, gates * units)
            bias = floats(2, 3 * units) if cell == "gru" else floats(gates * units)
            arguments = (x, kernel, recurrent / np.float32(units**0.5), bias, True, t % 2 == 0)
            name = f"{cell} {(n, t, i, units)}"
            yield f"forward {name}", partial(_core.recurrent, cell, *arguments, None), False
            yield f"backward {name}", partial(_core.recurrent_backward, cell, dy, *arguments), False


def _resize(integers, floats, rng):
    for size in ((1, 1), (2, 3), (19, 66), (99, 31)):
        for to in ((1, 1), (5, 17), (40, 33)):
            for channels in (1, 3):
                x = rng.integers(0, 256, (*size, channels)).astype(np.uint8)
                yield f"{size} {to} {channels}", partial(_resized, x, to), True


def _resized(x, to):
    y = np.empty((*to, x.shape[2]), np.uint8)
    _core.resize_bilinear(x, y)
    return y


def _training(integers, floats, rng):
    """Whole steps, with the kernels that only plans call."""
    x, y = rng.integers(0, 256, (33, 12, 12, 3)).astype(np.uint8), rng.integers(0, 5, 33)
    weights = [weight.copy() for weight in _network().get_weights()]
    for name, options in (  # small steps where a tiny gradient's sign decides the change
        ("adam", {"learning_rate": 1e-5, "clipnorm": 0.5, "use_ema": True}),
        ("sgd", {"learning_rate": 1e-2, "momentum": 0.9, "global_clipnorm": 0.5}),
        ("rmsprop", {"learning_rate": 1e-6, "clipvalue": 0.1, "gradient_accumulation_steps": 2}),
    ):
        yield name, partial(_fit, name, options, weights, x, y), False
    yield "a value that is not finite", _fit_nan, True


def _network():
    image = Input((12, 12, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
    x = layers.Conv2D(17, 3, kernel_regularizer=regularizers.L1L2(1e-3, 1e-2))(x)
    left = layers.ReLU()(layers.BatchNormalization()(x))
    right = layers.Conv2D(17, 3, padding="same", activation="tanh")(layers.ZeroPadding2D(1)(left))
    x = layers.Concatenate()([layers.Add()([left, layers.Cropping2D(1)(right)]), left])
    x = layers.MaxPooling2D()(layers.Conv2D(19, 3, activation="relu")(x))
    x = layers.Dropout(0.25)(x)
    x = layers.Dense(31, activation="gelu")(layers.Flatten()(x))
    return Model(image, layers.Dense(5, activation="softmax")(x))


def _fit(name, options, weights, x, y):
    set_random_seed(0)
    model = _network()
    model.set_weights(weights)
    optimizer = optimizers.get({"class": name, "config": options})
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    return (*history.values(), model.predict(x, verbose=0))


def _fit_nan():
    """The letters of the error, which names the first value that is not finite."""
    model = Sequential([Input((4, 4, 3)), layers.Conv2D(5, 3), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    x = np.zeros((7, 4, 4, 3), np.float32)
    x[6, 3, 3, 2] = np.nan
    try:
        model.fit(x, np.zeros((7, 2), np.float32), verbose=0)
    except NonFiniteError as error:
        return np.frombuffer(str(error).encode(), np.uint8)
    raise AssertionError("a loss of NaN was taken")


def differences(isa, family, choose=_core.set_isa):
    """The names of the cases whose results differ, and how many cases there were.

    ``choose(name)`` makes ops use the kernels called so.
    """
    wrong, count = [], 0
    before = _core.isa()
    try:
        for name, function, exact in cases(family):
            results = []
            for chosen in ("baseline", isa):
                choose(chosen)
                result = function()
                results.append(result if isinstance(result, tuple) else (result,))
            count += 1
            if not all(_agree(a, b, exact) for a, b in zip(*results, strict=True)):
                wrong.append(name)
    finally:
        _core.set_isa(before)
    return wrong, count


def _agree(expected, got, exact):
    expected, got = np.asarray(expected), np.asarray(got)
    if exact is True:
        return np.array_equal(expected, got, equal_nan=True)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    return np.allclose(got, expected, rtol=1e-5, atol=(exact or 1e-6) * largest, equal_nan=True)


def choose_bfloat16(name):
    """Makes ops use emulated ("baseline") or native products of precision bfloat16."""
    _core.set_bfloat16("emulated" if name == "baseline" else "native")
    _core.set_op_precision("bfloat16")


def main(isa):
    failed = False
    bfloat16 = isa == "avx512bf16"
    for family in ("conv2d", "dense") if bfloat16 else FAMILIES:
        wrong, count = differences(isa, family, choose_bfloat16 if bfloat16 else _core.set_isa)
        failed = failed or bool(wrong)
        print(f"{isa} {family}: {count} cases, {len(wrong)} differ", *wrong, sep="\n  ", flush=True)
    print("FAILED" if failed else f"{isa} agrees with baseline", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
