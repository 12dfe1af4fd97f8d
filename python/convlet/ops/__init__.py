"""Functional operations on arrays: what the layers of a model compute, one call at a time.

Arrays are numpy, torch or of any library with DLPack, in the CPU's memory or in that of a GPU that
convlet can use, there on the stream that their library works on (docs/cuda.md). Their memory is
used as it is; only an array that is not C-contiguous is copied. The result is an array of the
library of the first argument. Every array but labels is float32, and so is all arithmetic unless
the ``precision`` of a product says otherwise.

Letters mean the same everywhere: images are (N,H,W,C), weights (R,S,C,K), outputs (N,P,Q,K); `dy`
is the gradient of some scalar with respect to y, and an op's backward turns it into dx, dw, db. An
empty batch (N = 0) is allowed. `out`, where an op takes it, is a C-contiguous float32 array of the
result's shape, which is written and returned; it may not share memory with an input unless the op
says so.

Each op raises TypeError for an argument of a wrong type or dtype and ValueError for a wrong rank,
shape or value, before it computes anything; the message names the op, the argument, what it
expected and what it got. Results are the same bits for any number of threads.

Called on symbolic tensors (what ``convlet.Input`` and layers give) the ops named in
``dispatch.NAMES`` describe the same computation for a model, whose plan runs and differentiates it.
docs/extending.md shows layers and losses made of them.
"""

from convlet.ops import dispatch as _dispatch
from convlet.ops.activation import (
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    hard_sigmoid,
    hard_sigmoid_backward,
    hard_swish,
    hard_swish_backward,
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu6,
    relu6_backward,
    relu_backward,
    selu,
    selu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    softplus,
    softplus_backward,
    tanh,
    tanh_backward,
)
from convlet.ops.arithmetic import (
    abs,
    add,
    divide,
    equal,
    exp,
    greater,
    greater_equal,
    less,
    less_equal,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    reciprocal,
    rsqrt,
    sign,
    sqrt,
    square,
    subtract,
    where,
)
from convlet.ops.elementwise import (
    dropout,
    log_softmax,
    log_softmax_backward,
    softmax,
    softmax_backward,
)
from convlet.ops.linear import (
    conv2d,
    conv2d_backward_bias,
    conv2d_backward_input,
    conv2d_backward_weight,
    dense,
    dense_backward,
)
from convlet.ops.loss import mean_squared_error, sigmoid_cross_entropy, softmax_cross_entropy
from convlet.ops.normalization import (
    batch_norm,
    batch_norm_backward,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
)
from convlet.ops.pool2d import avg_pool2d, avg_pool2d_backward, max_pool2d, max_pool2d_backward
from convlet.ops.sequence import (
    attention,
    attention_backward,
    gru,
    gru_backward,
    lstm,
    lstm_backward,
    simple_rnn,
    simple_rnn_backward,
)
from convlet.ops.shaping import concatenate, expand_dims, reshape, squeeze, stack
from convlet.ops.tensor import (
    matmul,
    max,
    mean,
    min,
    one_hot,
    sum,
    transpose,
    upsample2d,
    upsample2d_backward,
)

__all__ = [
    "abs",
    "add",
    "attention",
    "attention_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "concatenate",
    "conv2d",
    "conv2d_backward_bias",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "dense",
    "dense_backward",
    "divide",
    "dropout",
    "elu",
    "elu_backward",
    "equal",
    "exp",
    "expand_dims",
    "gelu",
    "gelu_backward",
    "greater",
    "greater_equal",
    "group_norm",
    "group_norm_backward",
    "gru",
    "gru_backward",
    "hard_sigmoid",
    "hard_sigmoid_backward",
    "hard_swish",
    "hard_swish_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log_softmax",
    "log_softmax_backward",
    "lstm",
    "lstm_backward",
    "matmul",
    "max",
    "max_pool2d",
    "max_pool2d_backward",
    "maximum",
    "mean",
    "mean_squared_error",
    "min",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "one_hot",
    "power",
    "reciprocal",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "reshape",
    "rsqrt",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_cross_entropy",
    "sign",
    "silu",
    "silu_backward",
    "simple_rnn",
    "simple_rnn_backward",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softplus",
    "softplus_backward",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "subtract",
    "sum",
    "tanh",
    "tanh_backward",
    "transpose",
    "upsample2d",
    "upsample2d_backward",
    "where",
]

for _name in _dispatch.NAMES:
    globals()[_name] = _dispatch.describes(globals()[_name])
