"""transpose and slice: values are moved, never changed."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlet import _core, ops
from graph_gradients import assert_graph_like_torch
from nets import Net
from reference import AWKWARD, assert_exact, floats


@pytest.mark.parametrize("order", [o for rank in range(5) for o in permutations(range(rank))])
def test_every_order(isa, order):
    x = floats(*(3, 17, 5, 9)[: len(order)])
    assert_exact(ops.transpose(x, order), x.transpose(order).copy())


@pytest.mark.parametrize("rows", AWKWARD)
@pytest.mark.parametrize("columns", AWKWARD)
def test_matrices(isa, rows, columns):
    x = floats(rows, columns)
    assert_exact(ops.transpose(x), np.ascontiguousarray(x.T))


@given(st.lists(st.integers(0, 9), max_size=6), st.randoms())
def test_any_shape(shape, random):
    order = list(range(len(shape)))
    random.shuffle(order)
    x = floats(*shape)
    assert_exact(ops.transpose(x, order), x.transpose(order).copy())
    assert_exact(ops.transpose(x, [a - len(shape) for a in order]), ops.transpose(x, order))


def test_same_bits_for_any_number_of_threads(threads):
    x = floats(40, 31, 70)
    assert _core.num_threads() == threads
    assert_exact(ops.transpose(x, (2, 0, 1)), np.ascontiguousarray(x.transpose(2, 0, 1)))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_in_a_plan(order):
    batch_order = [0, *(a + 1 for a in order)]
    assert_graph_like_torch(
        lambda net, x: net.node("transpose", x, permutation=list(order)),
        lambda x: x.permute(batch_order).contiguous(),
        (floats(3, 4, 5, 9),),
        exact=True,
    )


@pytest.mark.parametrize(
    ("axis", "begin", "size"), [(0, 0, 4), (0, 1, 2), (1, 4, 1), (2, 3, 5), (2, 0, 1)]
)
def test_slice_in_a_plan(axis, begin, size):
    assert_graph_like_torch(
        lambda net, x: net.node("slice", x, axis=axis, begin=begin, size=size),
        lambda x: x.narrow(axis + 1, begin, size).contiguous(),
        (floats(3, 4, 5, 9),),
        exact=True,
    )


def test_errors_name_the_node():
    net = Net()
    x = net.input(4, 5)
    for options, message in (
        ({"axis": 2, "begin": 0, "size": 1}, r"slice0: slice expected an axis of samples \(4,5\)"),
        ({"axis": 1, "begin": 3, "size": 3}, r"begin \+ size <= 5 .*got begin 3 and size 3"),
        ({"axis": 1, "begin": -1, "size": 2}, "begin >= 0.*got begin -1"),
        ({"axis": 1, "begin": 0, "size": 0}, "size >= 1.*got begin 0 and size 0"),
        ({"axis": 0, "begin": 2**62, "size": 2**62}, "begin"),
    ):
        with pytest.raises(ValueError, match=message):
            net.node("slice", x, **options)
    with pytest.raises(ValueError, match=r"transpose0: expected each of the 2 axes .* got \(0,0\)"):
        net.node("transpose", x, permutation=[0, 0])
