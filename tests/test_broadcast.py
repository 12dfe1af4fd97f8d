"""Arithmetic and comparisons with broadcasting, and where, against torch."""

import operator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import device_tests
from calls import BINARY
from convlet import _core, ops
from graph_gradients import assert_graph_like_torch
from nets import Net
from reference import AWKWARD, assert_exact, assert_like_torch, floats, integers

TORCH = {
    "add": torch.add,
    "subtract": torch.subtract,
    "multiply": torch.multiply,
    "divide": torch.divide,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "power": torch.pow,
    "greater": lambda a, b: (a > b).to(a.dtype),
    "greater_equal": lambda a, b: (a >= b).to(a.dtype),
    "less": lambda a, b: (a < b).to(a.dtype),
    "less_equal": lambda a, b: (a <= b).to(a.dtype),
    "equal": lambda a, b: (a == b).to(a.dtype),
    "not_equal": lambda a, b: (a != b).to(a.dtype),
}
DIFFERENTIABLE = BINARY[:7]
SHAPES = [
    *[((n,), (n,)) for n in AWKWARD],
    ((), ()),
    ((0, 5), (5,)),
    ((3, 5, 17), (17,)),
    ((17,), (3, 5, 17)),
    ((2, 4, 3, 31), (2, 1, 1, 31)),
    ((2, 1, 1, 31), (2, 4, 3, 1)),
    ((6, 1), (1, 9)),
    ((5, 3, 8), (5, 3, 1)),
    ((5, 3, 8), (5, 1, 8)),
    ((), (4, 66)),
    ((2, 1, 3, 1, 2, 1, 2, 1), (1, 3, 1, 2, 1, 3, 1, 19)),
]


# CUDA's powf errs by up to 4 ulp (CUDA C++ Programming Guide, "Mathematical Functions"), the
# CPU's and torch's by less than 1.
POWER_ERROR = 4 * 2.0**-23 if device_tests.device() == "cuda" else 0.0


def tolerance(name, *results):
    """For results of this size and gradients, which multiply a power by other numbers."""
    largest = max(np.abs(x[np.isfinite(x)]).max(initial=0) for x in results)
    return 1e-5 + (2 * POWER_ERROR * float(largest) if name == "power" else 0.0)


def check(name, a, b):
    y = getattr(ops, name)(a, b)
    exact = name not in ("divide", "power")
    if name not in DIFFERENTIABLE:
        assert_exact(y, TORCH[name](torch.from_numpy(a), torch.from_numpy(b)).numpy())
        return
    dy = integers(*y.shape, seed=5)
    gradients = {side: _core.binary_backward(name, side, dy, a, b) for side in (0, 1)}
    atol = tolerance(name, y, *gradients.values())
    assert_like_torch(y, TORCH[name], (a, b), dy=dy, gradients=gradients, exact=exact, atol=atol)


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("name", BINARY)
def test_shapes(isa, name, a, b):
    a, b = integers(*a), integers(*b, seed=1)
    if name in ("divide", "power"):
        for array in (a, b):
            np.add(np.abs(array), 1, out=array)
    check(name, a, b)


@st.composite
def pairs(draw):
    y = draw(st.lists(st.integers(0, 5), max_size=4))
    shapes = []
    for _ in range(2):
        own = [size if draw(st.booleans()) else 1 for size in y]
        shapes.append(own[draw(st.integers(0, len(own))) :] if draw(st.booleans()) else own)
    return shapes


@given(pairs(), st.sampled_from(BINARY))
def test_any_shapes(shapes, name):
    a, b = integers(*shapes[0], low=1), integers(*shapes[1], low=1, seed=1)
    check(name, a, b)


@given(pairs(), pairs())
def test_shapes_that_do_not_broadcast(one, other):
    a, b = one[0], other[1]
    try:
        expected = np.broadcast_shapes(tuple(a), tuple(b))
    except ValueError:
        with pytest.raises(ValueError, match="add: expected shapes that broadcast together"):
            ops.add(integers(*a), integers(*b))
    else:
        assert ops.add(integers(*a), integers(*b)).shape == expected


@pytest.mark.parametrize("name", ["divide", "power"])
def test_accuracy(isa, name):
    a, b = np.abs(floats(40, 99)) + 0.1, floats(99, seed=1)
    check(name, a, b)


def test_power_at_its_corners(isa):
    a = np.float32([0, 0, 0, 2, -2, -2, np.nan, np.nan, np.inf, 1, 0])
    b = np.float32([0, 2, -1, 0, 3, 0.5, 0, 1, 2, np.nan, 1])
    y = ops.power(a, b)
    expected = torch.pow(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(y, expected, rtol=POWER_ERROR, atol=0)
    finite = np.array([0, 1, 3, 10])  # zero to the power of zero, and a zero base
    a, b = a[finite], b[finite]
    dy = np.ones_like(a)
    gradients = {side: _core.binary_backward("power", side, dy, a, b) for side in (0, 1)}
    assert_like_torch(None, torch.pow, (a, b), dy=dy, gradients=gradients)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_nan_and_ties(isa, name):
    a = np.float32([np.nan, 1, np.nan, 2, -0.0, np.inf] * 3)
    b = np.float32([1, np.nan, np.nan, 2, 0.0, -np.inf] * 3)
    got = getattr(ops, name)(a, b)
    assert_exact(got, TORCH[name](torch.from_numpy(a), torch.from_numpy(b)).numpy())
    check(name, np.float32([2, 3, 1]), np.float32([2, 1, 3]))


@pytest.mark.parametrize("name", BINARY)
def test_nan_in_comparisons(isa, name):
    if name in DIFFERENTIABLE:
        return
    a = np.float32([np.nan, 1, np.nan, np.inf])
    b = np.float32([1, np.nan, np.nan, np.inf])
    check(name, a, b)


def test_non_contiguous_and_torch():
    a, b = integers(6, 8)[::2, 1::3], integers(3, 3, seed=1).T
    assert_exact(ops.add(a, b), a + b)
    result = ops.multiply(torch.ones(2, 3), torch.full((3,), 2.0))
    assert isinstance(result, torch.Tensor)
    assert result.tolist() == [[2.0] * 3] * 2


def test_out_may_be_the_operand_of_its_shape_only():
    a, b = integers(4, 5), integers(5, seed=1)
    expected = a * b
    assert ops.multiply(a, b, out=a) is a
    assert_exact(a, expected)
    memory = np.zeros(20, np.float32)
    small, large = memory[:5], memory.reshape(4, 5)
    with pytest.raises(ValueError, match="multiply: expected out to be apart from b"):
        ops.multiply(a, small, out=large)


def test_same_bits_for_any_number_of_threads(threads):
    a, b = floats(300, 7, 31), floats(300, 1, 31, seed=1)
    before = _core.num_threads()
    _core.set_num_threads(1)
    expected = ops.power(np.abs(a), b), ops.add(a, b)
    _core.set_num_threads(before)
    assert_exact(ops.power(np.abs(a), b), expected[0])
    assert_exact(ops.add(a, b), expected[1])


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (2, 3), (2, 3)),
        ((4, 1), (3, 1, 17), (17,)),
        ((5,), (), (2, 5)),
        ((0, 3), (3,), ()),
    ],
)
def test_where(isa, shapes):
    c, a, b = (integers(*shape, low=-1, high=1, seed=i) for i, shape in enumerate(shapes))
    assert_exact(ops.where(c, a, b), np.where(c, a, b).astype(np.float32))
    assert_exact(ops.where(c != 0, a, b), np.where(c, a, b).astype(np.float32))
    assert (
        ops.where(np.float32(np.nan).reshape(1), a[..., :1] * 0 + 1 if a.ndim else a, b).size >= 0
    )


# ---------------------------------------------------------------- in a plan

SAMPLES = [
    ((5,), (5,)),
    ((4, 3, 7), (7,)),
    ((1, 1, 7), (4, 3, 7)),
    ((4, 1, 7), (1, 3, 1)),
    ((4, 3, 7), (4, 3, 1)),
]


def aligned(function):
    """torch's function of batches whose samples broadcast."""

    def of_batches(*batches):
        rank = max(b.ndim for b in batches)
        return function(*(b.reshape(len(b), *[1] * (rank - b.ndim), *b.shape[1:]) for b in batches))

    return of_batches


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize(("a", "b"), SAMPLES)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_in_a_plan(name, a, b, n):
    a, b = np.abs(floats(n, *a)) + 0.2, np.abs(floats(n, *b, seed=1)) + 0.2
    if name in ("add", "multiply"):
        build = lambda net, *values: net.node(name, *values)  # noqa: E731
    else:
        build = lambda net, *values: net.node("binary", *values, function=name)  # noqa: E731
    atol = tolerance(name, np.float32([200]))  # more than the sizes of a gradient's terms together
    assert_graph_like_torch(build, aligned(TORCH[name]), (a, b), atol=atol)


@pytest.mark.parametrize("name", ["add", "multiply"])
def test_several_operands(name):
    inputs = [floats(3, *shape, seed=i) for i, shape in enumerate([(4, 1), (5,), (4, 5), (1, 1)])]
    function = {"add": operator.add, "multiply": operator.mul}[name]
    assert_graph_like_torch(
        lambda net, *values: net.node(name, *values, values[0]),
        aligned(lambda a, b, c, d: function(function(function(function(a, b), c), d), a)),
        inputs,
    )


def test_where_in_a_plan():
    c, a, b = integers(4, 3, 1, low=0, high=1), floats(4, 3, 5), floats(4, 5, seed=1)
    assert_graph_like_torch(
        lambda net, *values: net.node("where", *values),
        aligned(lambda c, a, b: torch.where(c != 0, a, b)),
        (c, a, b),
    )


def test_comparisons_pass_no_gradient():
    a, b = integers(4, 3), integers(4, 3, seed=1)
    assert_graph_like_torch(
        lambda net, a, b: net.node("multiply", a, net.node("binary", a, b, function="greater")),
        lambda a, b: a * (a > b),
        (a, b),
        exact=True,
    )


def test_errors_name_the_node_and_the_shapes():
    for op, options in (("add", {}), ("binary", {"function": "power"}), ("multiply", {})):
        net = Net()
        values = net.input(4, 3), net.input(5, 3)
        with pytest.raises(
            ValueError, match=rf"{op}0: {op}: expected shapes that .*\(4,3\).*\(5,3\)"
        ):
            net.node(op, *values, **options)
    net = Net()
    with pytest.raises(ValueError, match="binary0: expected function to be one of add, .* 'mod'"):
        net.node("binary", net.input(3), net.input(3), function="mod")
