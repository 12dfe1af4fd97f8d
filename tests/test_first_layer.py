"""conv2d and conv2d_pool of images with one to three channels, which CUDA has kernels of their own
for: parts of a line and several lines at once, lines that are aligned and not, tails of every
kind."""

import numpy as np
import pytest

from convlet import ops
from reference import assert_exact, floats, integers
from test_conv2d_pool import check as check_pooled
from test_conv2d_pool import kernels, network
from test_products import (
    assert_exact_results,
    assert_rounded_results,
    check_conv2d,
    precision,  # noqa: F401 a fixture
)

# x, w, options
LAYERS = [
    ((3, 14, 14, 1), (3, 3, 1, 32), {}),
    ((1, 28, 28, 1), (5, 5, 1, 6), {"padding": 2}),
    ((2, 12, 12, 3), (3, 3, 3, 5), {"padding": 1}),
    ((1, 13, 31, 2), (2, 5, 2, 33), {"padding": ((1, 0), (4, 0))}),
    ((1, 4, 150, 3), (3, 3, 3, 66), {"padding": "same"}),
    ((2, 3, 261, 1), (1, 7, 1, 8), {"stride": (1, 2), "padding": 3}),
    ((1, 32, 36, 3), (7, 7, 3, 64), {"padding": 3, "stride": 2}),
    ((1, 30, 25, 3), (4, 3, 3, 97), {"padding": (3, 1), "stride": (2, 1), "dilation": (2, 1)}),
    ((0, 16, 16, 3), (3, 3, 3, 8), {}),
]


@pytest.mark.parametrize(("x", "w", "options"), LAYERS)
def test_small_integers(precision, x, w, options):  # noqa: F811
    if x[0]:
        check_conv2d(integers, assert_exact_results, x, w, options)
        return
    empty, weight = integers(*x), integers(*w)
    y = ops.conv2d(empty, weight, **options)
    assert y.shape[0] == 0
    assert_exact(ops.conv2d_backward_weight(y, empty, w[:2], **options), np.zeros_like(weight))


@pytest.mark.parametrize(("x", "w", "options"), [LAYERS[i] for i in (1, 4, 6)])
def test_floats(precision, x, w, options):  # noqa: F811
    check_conv2d(floats, assert_rounded_results(precision), x, w, options)


@pytest.mark.parametrize("c", [1, 2, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_reaches_just_its_windows(c, value):
    """Also where a thread brings values that no weight belongs to."""
    w, dy = np.ones((2, 3, c, 5), np.float32), np.ones((1, 12, 11, 5), np.float32)
    for place in ((0, 0), (5, 6), (12, 12)):
        x = np.ones((1, 13, 13, c), np.float32)
        x[0, place[0], place[1], c - 1] = value
        y = ops.conv2d(x, w)
        rows, columns = np.mgrid[:12, :11]
        inside = (
            (rows <= place[0])
            & (place[0] <= rows + 1)
            & (columns <= place[1])
            & (place[1] <= columns + 2)
        )
        assert_exact(np.isfinite(y), np.broadcast_to(~inside[None, ..., None], y.shape))
        dw = ops.conv2d_backward_weight(dy, x, (2, 3))
        taps = np.ones((2, 3, c, 5), bool)
        for r in range(2):
            for s in range(3):
                h, v = place[0] - r, place[1] - s
                taps[r, s, c - 1] = not (0 <= h < 12 and 0 <= v < 11)
        assert_exact(np.isfinite(dw), taps)


@pytest.mark.parametrize(
    "case",
    [
        (2, 14, 14, 1, 8, 3, 2, {}),
        (1, 18, 32, 3, 33, 3, 2, {"padding": "same"}),
        (1, 5, 141, 3, 20, 2, (2, 2), {}),
        (1, 19, 20, 2, 64, 5, (4, 1), {"stride": [2, 1]}),
        (1, 17, 35, 3, 4, 3, (1, 4), {"padding": "same"}),
    ],
)
def test_pooled(precision, case):  # noqa: F811
    assert "conv2d_pool" in kernels(network(*case))
    check_pooled(case, exact=True)
