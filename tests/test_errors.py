"""Bad arguments of functional ops: one error, before any kernel runs, that names the op, the
argument, what was expected and what came."""

import inspect

import numpy as np
import pytest

from calls import BINARY, CALLS, REDUCE, UNARY, call, f32
from convlet import ops

ACTIVATIONS = [
    op
    for op in CALLS
    if getattr(ops, op).__module__ == "convlet.ops.activation" and not op.endswith("_backward")
]
ARRAYS = [(op, name) for op, (arrays, _) in CALLS.items() for name in arrays]
LAYOUTS = [(op, name) for op, name in ARRAYS if CALLS[op][0][name][1]]
NORMALIZATIONS = [op for op in CALLS if op.removesuffix("_backward").endswith("_norm")]
OPTIONAL = ("bias", "class_weight", "gamma", "beta")
WITH_OUT = [op for op in CALLS if "out" in inspect.signature(getattr(ops, op)).parameters]


OPERANDS = ("a", "b", "condition")


def fails(exception, op, *parts, **replaced):
    """The call raises the exception, one line `op...: expected ..., got ...` with all the parts."""
    with pytest.raises(exception) as caught:
        call(op, **replaced)
    text = str(caught.value)
    assert type(caught.value) is exception
    assert text.startswith((f"{op}: expected ", f"{op}: x "))
    assert "expected " in text
    assert "\n" not in text
    assert " got " in text
    for part in parts:
        assert part in text, text


def test_the_table_has_every_op():
    of_lists = {"concatenate", "stack"}  # tests/test_custom_layers.py
    assert set(CALLS) | of_lists == set(ops.__all__)
    for op in CALLS:
        call(op)


@pytest.mark.parametrize(("op", "name"), ARRAYS)
@pytest.mark.parametrize("value", [[[1.0]], 3, "x", {}], ids=["list", "int", "str", "dict"])
def test_not_an_array(op, name, value):
    if value == 3 and getattr(ops, op).__module__ == "convlet.ops.arithmetic" and name in OPERANDS:
        return  # a number will do
    fails(TypeError, op, name, "float32", type(value).__name__, **{name: value})


@pytest.mark.parametrize(("op", "name"), [(o, n) for o, n in ARRAYS if n not in OPTIONAL])
def test_none_for_a_required_array(op, name):
    fails(TypeError, op, name, "NoneType", **{name: None})


@pytest.mark.parametrize(("op", "name"), ARRAYS)
@pytest.mark.parametrize(
    "dtype", ["float64", "float16", ">f4", "int8", "bool", "complex64", "O", "U3", "f4,f4", "M8[s]"]
)
def test_dtype(op, name, dtype):
    array = CALLS[op][0][name][0]
    wrong = np.zeros(array.shape, dtype)
    if (op, name, dtype) == ("where", "condition", "bool"):
        return  # the one array that may be
    fails(TypeError, op, name, "float32", str(wrong.dtype), **{name: wrong})


def test_masked_array():
    fails(TypeError, "relu", "x", "masked", x=np.ma.masked_array(f32(3), [True, False, False]))


@pytest.mark.parametrize(("op", "name"), LAYOUTS)
def test_rank(op, name):
    array, layout = CALLS[op][0][name]
    more, fewer = array[None], array[0]
    for wrong in (more, np.asarray(fewer)):
        shape = str(wrong.shape).replace(" ", "")
        fails(ValueError, op, name, layout, shape, **{name: wrong})


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_needs_an_axis(op):
    fails(ValueError, op, "x", "()", x=f32())
    fails(ValueError, op, "x", "(3,0)", x=f32(3, 0))


def test_too_many_axes():
    fails(ValueError, "relu", "x", "8 axes", x=f32(*[1] * 9))


@pytest.mark.parametrize(
    ("op", "name", "array", "parts"),
    [
        ("conv2d", "weight", f32(3, 3, 5, 6), ["C", "(2,5,5,4)", "(3,3,5,6)"]),
        ("conv2d", "weight", f32(7, 3, 4, 6), ["x", "window", "(5,5)", "(7,3)"]),
        ("conv2d", "weight", f32(0, 3, 4, 6), ["at least 1", "(0,3,4,6)"]),
        ("conv2d", "weight", f32(3, 3, 4, 0), ["at least 1", "(3,3,4,0)"]),
        ("conv2d", "x", f32(2, 0, 5, 4), ["H", "(2,0,5,4)"]),
        ("conv2d", "x", f32(2, 5, 5, 0), ["C", "(2,5,5,0)"]),
        ("conv2d", "bias", f32(5), ["(K,)", "(6,)", "(5,)"]),
        ("conv2d_backward_input", "dy", f32(2, 3, 4, 6), ["(2,3,3,6)", "(2,3,4,6)"]),
        ("conv2d_backward_input", "dy", f32(1, 3, 3, 6), ["(2,3,3,6)", "(1,3,3,6)"]),
        ("conv2d_backward_input", "weight", f32(3, 3, 3, 6), ["(2,5,5,4)", "(3,3,3,6)"]),
        ("conv2d_backward_weight", "dy", f32(2, 3, 4, 6), ["(2,3,3,6)", "(2,3,4,6)"]),
        ("conv2d_backward_weight", "x", f32(3, 5, 5, 4), ["dy", "(3,3,3,6)", "(2,3,3,6)"]),
        ("conv2d_backward_bias", "dy", f32(2, 3, 3, 0), ["(2,3,3,0)"]),
        ("dense", "weight", f32(4, 6), ["I=5", "(4,6)"]),
        ("dense", "weight", f32(5, 0), ["O >= 1", "(5,0)"]),
        ("dense", "x", f32(2, 0), ["I >= 1", "(2,0)"]),
        ("dense", "bias", f32(5), ["(O,)", "(6,)", "(5,)"]),
        ("dense_backward", "dy", f32(2, 7), ["(2,6)", "(2,7)"]),
        ("dense_backward", "dy", f32(3, 6), ["dy", "(2,6)", "(3,6)"]),
        ("dense_backward", "x", f32(2, 4), ["(2,4)", "I=4", "(5,6)"]),
        ("max_pool2d", "x", f32(2, 1, 6, 4), ["window", "H=1"]),
        ("max_pool2d", "x", f32(2, 6, 0, 4), ["W", "(2,6,0,4)"]),
        ("avg_pool2d", "x", f32(2, 6, 1, 4), ["window", "W=1"]),
        ("max_pool2d_backward", "dy", f32(2, 3, 2, 4), ["(2,3,3,4)", "(2,3,2,4)"]),
        ("avg_pool2d_backward", "dy", f32(2, 2, 3, 4), ["(2,3,3,4)", "(2,2,3,4)"]),
        ("softmax_cross_entropy", "logits", f32(2, 0), ["C >= 1", "(2,0)"]),
        ("softmax_cross_entropy", "labels", np.zeros(3, np.int64), ["(2,)", "(3,)"]),
        ("softmax_cross_entropy", "labels", np.zeros((2, 1), np.int64), ["(2,)", "(2,1)"]),
        ("softmax_cross_entropy", "labels", f32(2, 4), ["(2,5)", "(2,4)"]),
        ("softmax_cross_entropy", "class_weight", f32(4), ["(C,)", "(5,)", "(4,)"]),
        ("sigmoid_cross_entropy", "targets", f32(2, 1), ["logits", "(2,5)", "(2,1)"]),
        ("mean_squared_error", "target", f32(10), ["pred", "(2,5)", "(10,)"]),
        ("relu_backward", "dy", f32(5, 2), ["(2,5)", "(5,2)"]),
        ("gelu_backward", "dy", f32(10), ["(2,5)", "(10,)"]),
        ("softmax_backward", "dy", f32(2, 6), ["(2,5)", "(2,6)"]),
        ("log_softmax_backward", "dy", f32(3, 5), ["(2,5)", "(3,5)"]),
        ("attention", "k", f32(2, 4, 5), ["H*D=6", "(2,5,6)", "(2,4,5)"]),
        ("attention", "k", f32(3, 4, 6), ["N=2", "(2,5,6)", "(3,4,6)"]),
        ("attention", "v", f32(2, 3, 8), ["S=4", "(2,4,6)", "(2,3,8)"]),
        ("attention", "q", f32(2, 0, 6), ["at least 1", "(2,0,6)"]),
        ("attention", "v", f32(2, 4, 7), ["heads", "heads=2", "7 columns"]),
        ("attention_backward", "dy", f32(2, 5, 6), ["(2,5,8)", "(2,5,6)"]),
        ("batch_norm", "x", f32(), ["C >= 1", "()"]),
        ("batch_norm", "x", f32(2, 0), ["C >= 1", "(2,0)"]),
        ("batch_norm", "gamma", f32(3), ["(C,)", "(4,)", "(3,)"]),
        ("batch_norm", "var", f32(5), ["(C,)", "(4,)", "(5,)"]),
        ("batch_norm_backward", "dy", f32(2, 3, 4), ["(2,3,3,4)", "(2,3,4)"]),
        ("batch_norm_backward", "mean", f32(1), ["(C,)", "(4,)", "(1,)"]),
        ("lstm", "kernel", f32(5, 12), ["I=4", "(2,5,4)", "(5,12)"]),
        ("lstm", "kernel", f32(4, 10), ["(I,4*U)", "(4,10)"]),
        ("gru", "recurrent_kernel", f32(3, 12), ["(U,3*U)", "(3,9)", "(3,12)"]),
        ("gru", "bias", f32(1, 9), ["(2,9)", "(1,9)"]),
        ("simple_rnn", "bias", f32(4), ["(U,)", "(3,)", "(4,)"]),
        ("simple_rnn", "x", f32(2, 0, 4), ["T >= 1", "(2,0,4)"]),
        ("lstm_backward", "dy", f32(2, 4), ["(N,U)", "(2,3)", "(2,4)"]),
        ("add", "x", f32(2, 4), ["broadcast", "(2,5)", "(2,4)"]),
        ("where", "x", f32(3, 5), ["broadcast", "(2,5)", "(3,5)"]),
        ("matmul", "b", f32(2, 3, 4), ["4 of a (2,3,4)", "3 of b (2,3,4)"]),
        ("matmul", "b", f32(3, 4, 5), ["leading", "(2,3,4)", "(3,4,5)"]),
        ("matmul", "a", f32(3, 4), ["rank", "(3,4)", "(2,4,5)"]),
        ("matmul", "a", f32(2, 0, 4), ["at least 1", "(2,0,4)"]),
        ("one_hot", "labels", np.array([1, 5]), ["[0,5)", "5 at position 1"]),
        ("one_hot", "labels", np.array([[1, -1]]), ["-1 at position 1"]),
        ("one_hot", "labels", np.float32([0.5]), ["0.5 at position 0"]),
        ("upsample2d_backward", "dy", f32(2, 3, 4, 1), ["multiples", "(2,2)", "(2,3,4,1)"]),
        ("max", "x", f32(2, 0), ["at least one value along axis 1", "(2,0)"]),
        ("layer_norm", "x", f32(3), ["axes", "rank", "(3,)"]),
        ("layer_norm", "x", f32(2, 0, 4), ["at least 1", "(2,0,4)"]),
        ("layer_norm", "gamma", f32(4), ["(3,4)", "(4,)"]),
        ("layer_norm_backward", "dy", f32(2, 3, 4), ["(2,3,3,4)", "(2,3,4)"]),
        ("group_norm", "x", f32(4), ["(N,...,C)", "(4,)"]),
        ("group_norm", "x", f32(2, 0, 4), ["at least 1", "(2,0,4)"]),
        ("group_norm", "x", f32(2, 3), ["groups", "C=3", "2"]),
        ("group_norm", "beta", f32(3), ["(4,)", "(3,)"]),
        ("instance_norm", "x", f32(2, 0), ["C >= 1", "(2,0)"]),
        ("instance_norm", "x", f32(), ["(N,...,C)", "()"]),
        ("instance_norm_backward", "gamma", f32(4, 1), ["(4,)", "(4,1)"]),
    ],
)
def test_shape(op, name, array, parts):
    name, given = (name, name) if name in CALLS[op][0] else ("x", [*CALLS[op][0]][-1])
    fails(ValueError, op, *([name] if name != "x" else []), *parts, **{given: array})


@pytest.mark.parametrize(
    ("labels", "ignore_index", "parts"),
    [
        (np.array([0, 5]), None, ["[0,5)", "labels[1]=5"]),
        (np.array([-1, 0]), None, ["[0,5)", "labels[0]=-1"]),
        (np.array([-1, -2]), -1, ["[0,5)", "labels[1]=-2"]),
        (np.array([2**31, 0]), None, ["labels[0]=2147483648"]),
        (np.array([1, 255], np.uint8), None, ["labels[1]=255"]),
        (np.array([-(2**31), 1], np.int32), None, ["labels[0]=-2147483648"]),
    ],
)
def test_labels_out_of_range(labels, ignore_index, parts):
    fails(ValueError, "softmax_cross_entropy", *parts, labels=labels, ignore_index=ignore_index)


CONV = ("conv2d", "conv2d_backward_input", "conv2d_backward_weight")
POOL = ("max_pool2d", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward")
MAX_POOL = POOL[:2]
LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error")
HUGE = (2**31, 2**47, 2**62, 2**63 - 1, 2**63, 10**30)


def options():
    """(op, option, value, exception) for every option and every kind of bad value."""
    for ops_, name in (
        (CONV + POOL, "stride"),
        (CONV + MAX_POOL, "dilation"),
        ((*POOL, "conv2d_backward_weight"), "pool_size"),
    ):
        for op in ops_:
            option = "kernel_size" if name == "pool_size" and op in CONV else name
            for value in (True, 1.5, "2", (1, 2, 3), (1, 2.0), [None, 1], np.float32(1), b"2"):
                yield op, option, value, TypeError
            for value in (0, -1, (1, 0), (-3, 1), -(2**63), -(10**30)):
                yield op, option, value, ValueError
    for op in CONV + POOL:
        for value in (
            None,
            True,
            1.5,
            (1,),
            (1, 2, 3),
            ((1, 2), (3, 4), 5),
            ((1, 2, 3), 1),
            (1, "1"),
        ):
            yield op, "padding", value, TypeError
        for value in (-1, (1, -1), ((0, 0), (0, -2)), "full", "SAME", ""):
            yield op, "padding", value, ValueError
    for op in CONV:
        for value in (True, 1.0, "1", None, (1, 1)):
            yield op, "groups", value, TypeError
        for value in (0, -1, 3, *HUGE):
            yield op, "groups", value, ValueError
    for op in ("conv2d", "dense"):
        yield op, "activation", 3, TypeError
        yield op, "activation", "softmax", ValueError
    for op in POOL:
        yield op, "padding", 2, ValueError  # more than half the window
        yield op, "ceil_mode", 1, TypeError
    yield "avg_pool2d", "count_include_pad", "yes", TypeError
    yield "avg_pool2d_backward", "count_include_pad", None, TypeError
    for op in ("conv2d_backward_input", "avg_pool2d_backward"):
        for value in (5, "2554", None, (2, 5.0, 5, 4), f32(4)):
            yield op, "input_shape", value, TypeError
        for value in ((2, 5, 5), (2, 5, 5, 4, 1), (-1, 5, 5, 4), (2, 0, 5, 4), (2, 10**30, 5, 4)):
            yield op, "input_shape", value, ValueError
        yield op, "input_shape", (2**40, 2**40, 2**40, 4), ValueError
        yield op, "input_shape", (2, 2**62, 5, 4), ValueError
    for op in LOSSES:
        yield op, "reduction", None, TypeError
        yield op, "reduction", "average", ValueError
        yield op, "return_grad", 1, TypeError
    for op in LOSSES[:2]:
        for value in (-0.1, 1.1, float("nan"), float("inf"), 10**400):
            yield op, "label_smoothing", value, ValueError
        for value in ("0.1", None, True, [0.1]):
            yield op, "label_smoothing", value, TypeError
    yield "softmax_cross_entropy", "ignore_index", 1.0, TypeError
    yield "softmax_cross_entropy", "ignore_index", 10**30, ValueError
    for op in ("attention", "attention_backward"):
        for value in (0, -1, 4, *HUGE):
            yield op, "heads", value, ValueError
        for value in (None, 2.0, True, "2"):
            yield op, "heads", value, TypeError
        for value in (float("nan"), float("inf"), 1e39, 10**400):
            yield op, "scale", value, ValueError
        for value in ("1", True, [1.0]):
            yield op, "scale", value, TypeError
        for value in (None, 1, "yes"):
            yield op, "causal", value, TypeError
    for op in NORMALIZATIONS:
        yield op, "epsilon", "1e-3", TypeError
        for value in (0, -1e-3, 1e-60, 1e60, float("nan")):
            yield op, "epsilon", value, ValueError
    for op in ("batch_norm", "batch_norm_backward"):
        yield op, "training", 1, TypeError
    for op, option in (("layer_norm", "axes"), ("group_norm", "groups")):
        for name in (op, f"{op}_backward"):
            for value in (1.0, None, "1"):
                yield name, option, value, TypeError
            for value in (0, -1, 5, *HUGE):
                yield name, option, value, ValueError
    yield "batch_norm", "momentum", None, TypeError
    for value in (-0.1, 1.1, float("nan")):
        yield "batch_norm", "momentum", value, ValueError
    for op in ("simple_rnn", "lstm", "gru"):
        for name in (op, f"{op}_backward"):
            for value in (None, 1, "yes"):
                yield name, "return_sequences", value, TypeError
                yield name, "go_backwards", value, TypeError
    for op in REDUCE:
        for value in ("1", 1.5, True, [None]):
            yield op, "axis", value, TypeError
        for value in (2, -3, (0, 5), 2**62):
            yield op, "axis", value, ValueError
        yield op, "keepdims", 1, TypeError
    yield "sum", "axis", (1, 1), ValueError
    for value in ("10", (0.0, 1, 2), True):
        yield "transpose", "axes", value, TypeError
    for value in ((0, 1), (0, 1, 3), (0, 1, 1), (0, 1, 2, 3)):
        yield "transpose", "axes", value, ValueError
    yield "matmul", "transpose_a", 1, TypeError
    yield "one_hot", "num_classes", 2.0, TypeError
    for value in (0, -1, 2**25):
        yield "one_hot", "num_classes", value, ValueError
    for op in ("upsample2d", "upsample2d_backward"):
        for value in (1.5, "2", (1, 2, 3), True):
            yield op, "size", value, TypeError
        for value in (0, -1, (2, 0), 2**60):
            yield op, "size", value, ValueError
        yield op, "interpolation", 1, TypeError
        yield op, "interpolation", "bicubic", ValueError
    yield "dropout", "noise", 3, TypeError
    yield "dropout", "noise", "row", ValueError
    for value in (-0.1, 1.0, 2, float("nan")):
        yield "dropout", "rate", value, ValueError
    for value in ("0.5", None, True):
        yield "dropout", "rate", value, TypeError
    for value in (-1, 2**64):
        yield "dropout", "seed", value, ValueError
        yield "dropout", "step", value, ValueError
    yield "dropout", "seed", 1.0, TypeError
    yield "dropout", "step", None, TypeError


@pytest.mark.parametrize(("op", "option", "value", "exception"), list(options()))
def test_option(op, option, value, exception):
    # An input_shape that is a shape is called what it is, the shape of x.
    name = "x" if option == "input_shape" else option
    fails(exception, op, name, **{option: value})


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("op", CONV + POOL)
def test_sizes_that_would_overflow(op, size):
    """Sums and products of sizes never wrap: a call is refused, or its result is small."""
    window = {"kernel_size": size} if op == "conv2d_backward_weight" else {}
    if op in POOL:
        window = {"pool_size": size}
    everything = [{"padding": ((size, size), (size, size))}, {"stride": size}]
    if size >= 2**47:
        everything.append({"stride": (1, size), "padding": size})
    if op in CONV + MAX_POOL:
        everything += [{"dilation": size}, {"dilation": size, "padding": size}]
    if window:
        everything += [window, window | {"padding": size // 2}, window | {"padding": "same"}]
    for arguments in everything:
        try:
            result = call(op, **arguments)
        except (ValueError, MemoryError) as error:
            assert isinstance(error, MemoryError) or str(error).startswith(op)
        else:
            assert result.size < 10**4


def bad_outs(op):
    good = call(op)
    readonly = np.zeros_like(good)
    readonly.flags.writeable = False
    yield ValueError, np.zeros((*good.shape, 1), np.float32), "shape"
    yield ValueError, np.zeros((2, *good.shape), np.float32)[0][..., :0], "shape"
    yield ValueError, readonly, "read-only"
    yield ValueError, np.zeros((*good.shape, 2), np.float32)[..., 0], "C-contiguous"
    yield TypeError, np.zeros(good.shape, np.float64), "float64"
    yield TypeError, np.zeros(good.shape, ">f4"), ">f4"
    yield TypeError, good.tolist(), "list"


@pytest.mark.parametrize("op", WITH_OUT)
def test_out(op):
    for exception, out, part in bad_outs(op):
        fails(exception, op, "out", part, out=out)


# The input that `out` may be, where an op allows it.
IN_PLACE = {
    **dict.fromkeys((*ACTIVATIONS, "dropout", "softmax", "log_softmax"), ("x",)),
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm", "instance_norm"), ("x",)),
    **{op: ("dy",) for op in CALLS if op.endswith("_backward") and "pool" not in op},
    **dict.fromkeys(UNARY, ("x",)),
    **dict.fromkeys(BINARY, ("a", "b")),
    "where": ("condition", "a", "b"),
    "upsample2d_backward": (),
}


@pytest.mark.parametrize("op", WITH_OUT)
def test_out_that_shares_memory_with_an_input(op):
    """Refused, or, where the op allows it, the same result as without."""
    arrays, _ = CALLS[op]
    shape = call(op).shape
    size = int(np.prod(shape))
    for name, (array, _) in arrays.items():
        memory = np.linspace(0.1, 0.9, max(size, array.size) + 1, dtype=np.float32)
        given = memory[: array.size].reshape(array.shape)
        exactly, shifted = memory[:size].reshape(shape), memory[1 : size + 1].reshape(shape)
        fails(ValueError, op, "out", name, **{name: given, "out": shifted})
        if name in IN_PLACE.get(op, ()):
            expected = call(op, **{name: given.copy()})
            assert call(op, **{name: given, "out": exactly}) is exactly
            np.testing.assert_array_equal(exactly, expected)
        else:
            fails(ValueError, op, "out", name, **{name: given, "out": exactly})


@pytest.mark.parametrize("op", WITH_OUT)
def test_out_is_written_and_returned(op):
    expected = call(op)
    out = np.full_like(expected, 7)
    assert call(op, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("op", [op for op in CALLS if op not in LOSSES])
def test_an_empty_batch(op):
    """N = 0 is no error: results per sample are empty, those summed over the batch are zero."""
    arrays, options_ = CALLS[op]
    replaced = {
        name: array[:0]
        if name in ("x", "dy", "y", "a", "b", "condition", "labels", "logits", "q", "k", "v")
        else array
        for name, (array, _) in arrays.items()
    }
    if "input_shape" in options_:
        replaced["input_shape"] = (0, *options_["input_shape"][1:])
    full, empty = call(op), call(op, **replaced)
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (full, empty)), strict=True):
        per_sample = op.endswith(("backward_weight", "backward_bias")) or a.shape == b.shape
        assert b.shape == (a.shape if per_sample else (0, *a.shape[1:]))
        assert not b.any()


def test_losses_of_an_empty_batch():
    """As in torch: the mean of nothing is NaN, its sum 0."""
    empty = {
        "softmax_cross_entropy": {"logits": f32(0, 5), "labels": np.zeros(0, np.int64)},
        "sigmoid_cross_entropy": {"logits": f32(0, 5), "targets": f32(0, 5)},
        "mean_squared_error": {"pred": f32(0, 5), "target": f32(0, 5)},
    }
    for op, arrays in empty.items():
        loss, gradient = call(op, return_grad=True, **arrays)
        assert np.isnan(loss)
        assert gradient.shape == (0, 5)
        assert call(op, reduction="sum", **arrays) == 0
        assert call(op, reduction="none", **arrays).shape[0] == 0
