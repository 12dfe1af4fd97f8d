"""A correct call of every functional op, for the tests that go through all of them."""

import numpy as np

from convlet import ops


def f32(*shape):
    """Uniform random numbers in [0.1, 0.9), which suit every argument."""
    return np.random.default_rng([*shape, 1]).uniform(0.1, 0.9, shape).astype(np.float32)


# op: ({array: (value, layout, or None where any rank will do)}, {option: value}).
CALLS = {
    "conv2d": (
        {"x": (f32(2, 5, 5, 4), "(N,H,W,C)"), "weight": (f32(3, 3, 4, 6), "(R,S,C/groups,K)")}
        | {"bias": (f32(6), "(K,)")},
        {},
    ),
    "conv2d_backward_input": (
        {"dy": (f32(2, 3, 3, 6), "(N,P,Q,K)"), "weight": (f32(3, 3, 4, 6), "(R,S,C/groups,K)")},
        {"input_shape": (2, 5, 5, 4)},
    ),
    "conv2d_backward_weight": (
        {"dy": (f32(2, 3, 3, 6), "(N,P,Q,K)"), "x": (f32(2, 5, 5, 4), "(N,H,W,C)")},
        {"kernel_size": 3},
    ),
    "conv2d_backward_bias": ({"dy": (f32(2, 3, 3, 6), "(N,P,Q,K)")}, {}),
    "dense": (
        {"x": (f32(2, 5), "(N,I)"), "weight": (f32(5, 6), "(I,O)"), "bias": (f32(6), "(O,)")},
        {},
    ),
    "dense_backward": (
        {"dy": (f32(2, 6), "(N,O)"), "x": (f32(2, 5), "(N,I)"), "weight": (f32(5, 6), "(I,O)")},
        {},
    ),
    "max_pool2d": ({"x": (f32(2, 6, 6, 4), "(N,H,W,C)")}, {}),
    "max_pool2d_backward": (
        {"dy": (f32(2, 3, 3, 4), "(N,P,Q,C)"), "x": (f32(2, 6, 6, 4), "(N,H,W,C)")},
        {},
    ),
    "avg_pool2d": ({"x": (f32(2, 6, 6, 4), "(N,H,W,C)")}, {}),
    "avg_pool2d_backward": (
        {"dy": (f32(2, 3, 3, 4), "(N,P,Q,C)")},
        {"input_shape": (2, 6, 6, 4)},
    ),
    "softmax_cross_entropy": (
        {
            "logits": (f32(2, 5), "(N,C)"),
            "labels": (np.zeros(2, np.int64), None),
            "class_weight": (f32(5), "(C,)"),
        },
        {},
    ),
    "sigmoid_cross_entropy": ({"logits": (f32(2, 5), None), "targets": (f32(2, 5), None)}, {}),
    "mean_squared_error": ({"pred": (f32(2, 5), None), "target": (f32(2, 5), None)}, {}),
    "reshape": ({"x": (f32(2, 5), None)}, {"newshape": (-1, 1, 5)}),
    "expand_dims": ({"x": (f32(2, 5), None)}, {"axis": 1}),
    "squeeze": ({"x": (f32(2, 1, 5), None)}, {}),
    "dropout": ({"x": (f32(2, 5), None)}, {"seed": 1}),
    "attention": (
        {"q": (f32(2, 5, 6), "(N,T,H*D)"), "k": (f32(2, 4, 6), "(N,S,H*D)")}
        | {"v": (f32(2, 4, 8), "(N,S,H*E)")},
        {"heads": 2},
    ),
    "attention_backward": (
        {"dy": (f32(2, 5, 8), "(N,T,H*E)"), "q": (f32(2, 5, 6), "(N,T,H*D)")}
        | {"k": (f32(2, 4, 6), "(N,S,H*D)"), "v": (f32(2, 4, 8), "(N,S,H*E)")},
        {"heads": 2},
    ),
    "softmax": ({"x": (f32(2, 5), None)}, {}),
    "log_softmax": ({"x": (f32(2, 5), None)}, {}),
    "softmax_backward": ({"dy": (f32(2, 5), None), "y": (f32(2, 5), None)}, {}),
    "log_softmax_backward": ({"dy": (f32(2, 5), None), "y": (f32(2, 5), None)}, {}),
    "where": (
        {"condition": (f32(2, 5), None), "a": (f32(2, 5), None), "b": (f32(2, 5), None)},
        {},
    ),
    "transpose": ({"x": (f32(2, 5, 3), None)}, {"axes": (0, 2, 1)}),
    "matmul": ({"a": (f32(2, 3, 4), None), "b": (f32(2, 4, 5), None)}, {}),
    "one_hot": ({"labels": (np.array([1, 3]), None)}, {"num_classes": 5}),
    "upsample2d": ({"x": (f32(2, 3, 4, 5), "(N,H,W,C)")}, {}),
    "upsample2d_backward": ({"dy": (f32(2, 6, 8, 5), "(N,P,Q,C)")}, {}),
}
CHANNELS = {name: (f32(4), "(C,)") for name in ("gamma", "beta", "mean", "var")}
CALLS["batch_norm"] = ({"x": (f32(2, 3, 3, 4), None), **CHANNELS}, {})
del CHANNELS["beta"]
CALLS["layer_norm"] = (
    {"x": (f32(2, 3, 3, 4), None), "gamma": (f32(3, 4), None), "beta": (f32(3, 4), None)},
    {"axes": 2},
)
CALLS["group_norm"] = (
    {"x": (f32(2, 3, 3, 4), None), "gamma": (f32(4), None), "beta": (f32(4), None)},
    {"groups": 2},
)
CALLS["instance_norm"] = (CALLS["group_norm"][0], {})
for name in ("layer_norm", "group_norm", "instance_norm"):
    given, options = CALLS[name]
    arrays = {"dy": (f32(2, 3, 3, 4), None), "x": given["x"], "gamma": given["gamma"]}
    CALLS[f"{name}_backward"] = (arrays, options)
CALLS["batch_norm_backward"] = (
    {"dy": (f32(2, 3, 3, 4), None), "x": (f32(2, 3, 3, 4), None), **CHANNELS},
    {},
)
for name, gates, bias in (
    ("simple_rnn", "U", "(U,)"),
    ("lstm", "4*U", "(4*U,)"),
    ("gru", "3*U", "(2,3*U)"),
):
    columns = 3 * (int(gates[0]) if gates[0].isdigit() else 1)
    sequence = {
        "x": (f32(2, 5, 4), "(N,T,I)"),
        "kernel": (f32(4, columns), f"(I,{gates})"),
        "recurrent_kernel": (f32(3, columns), f"(U,{gates})"),
        "bias": (f32(2, columns) if name == "gru" else f32(columns), bias),
    }
    CALLS[name] = (sequence, {})
    CALLS[f"{name}_backward"] = ({"dy": (f32(2, 3), "(N,U)"), **sequence}, {})
BINARY = (
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "greater"),
    *("greater_equal", "less", "less_equal", "equal", "not_equal"),
)
UNARY = (
    *("exp", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "negative", "reciprocal", "sign"),
)
REDUCE = ("sum", "mean", "max", "min")
for name in BINARY:
    CALLS[name] = ({"a": (f32(2, 5), None), "b": (f32(2, 5), None)}, {})
for name in UNARY:
    CALLS[name] = ({"x": (f32(2, 5), None)}, {})
for name in REDUCE:
    CALLS[name] = ({"x": (f32(2, 5), None)}, {"axis": 1})
for name in ("relu", "sigmoid", "tanh", "relu6", "leaky_relu", "elu", "selu", "softplus"):
    CALLS[name] = ({"x": (f32(2, 5), None)}, {})
    CALLS[f"{name}_backward"] = ({"dy": (f32(2, 5), None), "y": (f32(2, 5), None)}, {})
for name in ("gelu", "silu", "hard_sigmoid", "hard_swish"):
    CALLS[name] = ({"x": (f32(2, 5), None)}, {})
    CALLS[f"{name}_backward"] = ({"dy": (f32(2, 5), None), "x": (f32(2, 5), None)}, {})


def call(op, **replaced):
    """The op's correct call with some of its arguments replaced."""
    arrays, options = CALLS[op]
    arguments = {name: array for name, (array, _) in arrays.items()} | options | replaced
    return getattr(ops, op)(**arguments)
