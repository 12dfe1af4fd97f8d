"""Which convolutions take the kernels of sm_90a: in the emulator, which counts by kernel."""

import pytest

import device_tests
from convlet import _core
from reference import floats
from test_products import conv2d_results

KERNEL = "sm90::product_kernel<"


@pytest.fixture
def names(monkeypatch):
    """A function that runs all passes of a convolution and gives the names of the kernels."""
    monkeypatch.setenv("CONVLET_SM90", "1")
    _core.set_op_precision("bfloat16")
    device_tests.set_options(count=True)

    def run(x, w, **options):
        conv2d_results(floats(*x), floats(*w, seed=1), options, floats)
        return [name for name in device_tests.emulator().counts() if KERNEL in name]

    yield run
    device_tests.set_options()
    _core.set_op_precision("float32")


def test_many_channels(names):
    found = names((1, 5, 5, 64), (3, 3, 64, 99), padding=1, stride=2)
    # Forward, the gradient of the input and that of the weights.
    assert len(found) == 3
    for problem in ("ImageProduct<true>", "ImageProduct<false>", "WeightProduct"):
        assert any(problem in name for name in found)


@pytest.mark.parametrize(
    "x,w,options",
    [
        ((1, 5, 5, 63), (1, 1, 63, 64), {}),
        ((1, 5, 5, 64), (1, 1, 64, 63), {}),
        ((1, 3, 3, 128), (1, 1, 64, 128), {"groups": 2}),
        ((1, 20, 3, 64), (1, 1, 64, 64), {"stride": (9, 1)}),
        ((1, 1, 300, 64), (1, 2, 64, 64), {"dilation": (1, 256)}),
        ((1, 3, 3, 64), (1, 1, 64, 64), {"padding": (129, 0)}),
    ],
)
def test_others(names, x, w, options):
    assert names(x, w, **options) == []


def test_unless_asked_for(names, monkeypatch):
    monkeypatch.delenv("CONVLET_SM90")
    assert names((1, 5, 5, 64), (3, 3, 64, 64)) == []
