"""conv2d in bfloat16 by the instructions of sm_90a, which are off unless asked for: 64 channels or
more on both sides take them."""

import pytest

from convlet import _core
from reference import floats, integers
from test_products import assert_exact_results, assert_rounded_results, check_conv2d


@pytest.fixture(autouse=True)
def sm90(monkeypatch):
    monkeypatch.setenv("CONVLET_SM90", "1")
    _core.set_op_precision("bfloat16")
    yield
    _core.set_op_precision("float32")


@pytest.mark.parametrize(
    "x,w,options",
    [
        ((2, 5, 6, 64), (3, 3, 64, 72), {"padding": 1}),
        ((2, 7, 8, 66), (3, 3, 66, 130), {"padding": 1, "stride": 2}),
        ((1, 5, 6, 99), (2, 3, 99, 65), {"stride": (1, 3), "dilation": (2, 1), "padding": 3}),
    ],
)
@pytest.mark.parametrize("make", [integers, floats])
def test_conv2d(make, x, w, options):
    check = assert_exact_results if make is integers else assert_rounded_results("bfloat16")
    check_conv2d(make, check, x, w, options)
