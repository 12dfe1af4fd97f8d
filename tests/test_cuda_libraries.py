"""convlet.ops on the CUDA arrays of torch, CuPy and JAX themselves, those that are installed.

Only with --device cuda (device_tests.py); test_cuda_arrays.py has the same in the emulator."""

import importlib.util
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from calls import CALLS, call, f32
from convlet import ops


def libraries():
    found = []
    if torch.cuda.is_available():
        found.append(
            SimpleNamespace(
                name="torch",
                asarray=lambda values: torch.from_numpy(np.array(values)).cuda(),
                numpy=lambda tensor: tensor.cpu().numpy(),
                own=lambda value: isinstance(value, torch.Tensor) and value.is_cuda,
            )
        )
    if importlib.util.find_spec("cupy"):
        import cupy

        found.append(
            SimpleNamespace(
                name="cupy",
                asarray=cupy.asarray,
                numpy=cupy.asnumpy,
                own=lambda value: isinstance(value, cupy.ndarray),
            )
        )
    if importlib.util.find_spec("jax"):
        # The tests of other processes need memory, too.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax

        if jax.default_backend() == "gpu":
            jax.config.update("jax_enable_x64", True)
            found.append(
                SimpleNamespace(
                    name="jax",
                    asarray=jax.numpy.asarray,
                    numpy=np.asarray,
                    own=lambda value: isinstance(value, jax.Array),
                )
            )
    return found


@pytest.mark.parametrize("op", list(CALLS))
def test_every_op_gives_the_library_s_arrays(op):
    for library in libraries():
        arrays = {name: library.asarray(array) for name, (array, _) in CALLS[op][0].items()}
        got, expected = call(op, **arrays), call(op)
        if not isinstance(expected, tuple):
            got, expected = (got,), (expected,)
        for a, b in zip(got, expected, strict=True):
            assert library.own(a), library.name
            np.testing.assert_allclose(library.numpy(a), b, rtol=3e-7, err_msg=library.name)


def test_a_stream_of_torch_s():
    """The op follows what the stream has got, and the stream's next work follows the op."""
    x, w = f32(64, 33, 33, 16), f32(3, 3, 16, 32)
    expected = ops.conv2d(2 * x, w)
    side = torch.cuda.Stream()
    for _ in range(20):
        with torch.cuda.stream(side):
            given = torch.from_numpy(x).cuda(non_blocking=True) * 2
            y = ops.conv2d(given, torch.from_numpy(w).cuda(non_blocking=True))
            del given
            other = torch.full_like(y, 7.0)  # may take the memory that is free
            copy = y + 0
        side.synchronize()
        np.testing.assert_array_equal(copy.cpu().numpy(), expected)
        assert (other == 7).all()


def test_torch_can_capture_ops():
    x, w = torch.from_numpy(f32(8, 9, 9, 4)).cuda(), torch.from_numpy(f32(3, 3, 4, 8)).cuda()
    ops.conv2d(x, w)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = ops.conv2d(x, w, activation="relu")
    for factor in (1, 3):
        x.copy_(factor * torch.from_numpy(f32(8, 9, 9, 4)))
        graph.replay()
        expected = ops.conv2d(factor * f32(8, 9, 9, 4), f32(3, 3, 4, 8), activation="relu")
        np.testing.assert_array_equal(y.cpu().numpy(), expected)
