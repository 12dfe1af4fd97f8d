"""Products of matrices and their gradients, and one-hot labels, against torch and numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convlet import _core, ops
from graph_gradients import assert_graph_like_torch
from nets import Net
from reference import AWKWARD, assert_exact, assert_like_torch, floats, integers

BOTH = [(False, False), (False, True), (True, False), (True, True)]


def operands(make, batch, m, k, n, ta, tb):
    return (
        make(*batch, *((k, m) if ta else (m, k))),
        make(*batch, *((n, k) if tb else (k, n)), seed=1),
    )


def product(ta, tb):
    return lambda a, b: (a.mT if ta else a) @ (b.mT if tb else b)


@pytest.mark.parametrize(("ta", "tb"), BOTH)
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(n, n, n) for n in AWKWARD] + [(1, 700, 3), (250, 8, 300), (5, 1, 2), (64, 64, 64)],
)
def test_sizes(isa, m, k, n, ta, tb):
    a, b = operands(integers, (3,), m, k, n, ta, tb)
    y = ops.matmul(a, b, transpose_a=ta, transpose_b=tb)
    assert_like_torch(y, product(ta, tb), (a, b), exact=True)


@given(
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 70),
    st.sampled_from(BOTH),
)
def test_any_shape(batch, m, k, n, transposed):
    a, b = operands(integers, batch, m, k, n, *transposed)
    y = ops.matmul(a, b, transpose_a=transposed[0], transpose_b=transposed[1])
    assert_exact(y, product(*transposed)(torch.from_numpy(a), torch.from_numpy(b)).numpy())


@pytest.mark.parametrize(("ta", "tb"), BOTH)
def test_accuracy(isa, ta, tb):
    a, b = operands(floats, (2, 2), 50, 300, 31, ta, tb)
    y = ops.matmul(a, b, transpose_a=ta, transpose_b=tb)
    assert_like_torch(y, product(ta, tb), (a, b), atol=2e-6)


def test_same_bits_for_any_number_of_threads():
    a, b = floats(9, 260, 70), floats(9, 70, 99, seed=1)
    before = _core.num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            results.append(ops.matmul(a, b))
    finally:
        _core.set_num_threads(before)
    assert_exact(results[1], results[0])
    assert_exact(results[2], results[0])


@pytest.mark.parametrize(("ta", "tb"), BOTH)
@pytest.mark.parametrize("lead", [(), (4,)])
def test_in_a_plan(ta, tb, lead):
    a, b = operands(floats, (3, *lead), 5, 7, 19, ta, tb)
    assert_graph_like_torch(
        lambda net, a, b: net.node("matmul", a, b, transpose_a=ta, transpose_b=tb),
        product(ta, tb),
        (a, b),
    )


def test_errors_name_the_node_and_the_shapes():
    net = Net()
    a, b, c = net.input(4, 3), net.input(4, 5), net.input(3)
    with pytest.raises(ValueError, match=r"matmul0: .*inner sizes.*3 of a .* and 4 of b"):
        net.node("matmul", a, b)
    with pytest.raises(ValueError, match=r"matmul0: matmul expected samples of at least 2 axes"):
        net.node("matmul", c, c)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4)])
def test_one_hot(isa, shape, dtype):
    labels = np.random.default_rng(0).integers(0, 19, shape).astype(dtype)
    y = ops.one_hot(labels, 19)
    assert_exact(y, np.eye(19, dtype=np.float32)[labels.astype(int)])


def test_one_hot_of_more_classes_than_a_byte_holds():
    assert ops.one_hot(np.uint8([255]), 300)[0].argmax() == 255


def test_one_hot_in_a_plan():
    """What is no class gives zeros; nothing flows back."""
    labels = np.float32([[0, 2], [3, -1], [1.5, np.nan], [4, 1e20]])
    assert_graph_like_torch(
        lambda net, x: net.node("one_hot", x, classes=5),
        lambda x: (x[..., None] == torch.arange(5)).to(x.dtype) + 0 * x.nan_to_num()[..., None],
        (labels,),
        exact=True,
    )
