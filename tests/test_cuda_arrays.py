"""convlet.ops on CUDA arrays of other libraries: results of the same library, without a copy
through the host and without a wait; errors; and whose memory lives how long.

Only with --device simt (device_tests.py)."""

import gc
import sys

import numpy as np
import pytest

import device_tests
from calls import CALLS, call, f32
from convlet import _core, ops
from cuda_like import DEVICE, Cupy, Jax, Torch

MADE = {"cupy": Cupy, "jax": Jax, "torch": Torch}
# The host looks at the labels: an error names the position of a wrong one.
WAITING = {"softmax_cross_entropy", "one_hot"}
# What their library does.
MOVING = {"reshape", "expand_dims", "squeeze", "concatenate", "stack"}


@pytest.fixture
def stream():
    """A stream that runs nothing before somebody waits for it."""
    made = device_tests.emulator().stream()
    made.set_lazy(True)
    return made


@pytest.fixture(params=list(MADE))
def library(request, stream, monkeypatch):
    made = MADE[request.param](stream.number)
    if request.param == "torch":
        monkeypatch.setitem(sys.modules, "torch", made)
    return made


def convlets():
    """convlet's own stream."""
    return device_tests.emulator().stream(_core.own_stream(DEVICE))


def results(value):
    return value if isinstance(value, tuple) else (value,)


def arguments(library, op):
    return {name: library.asarray(np.array(array)) for name, (array, _) in CALLS[op][0].items()}


def assert_same(library, got, expected):
    for a, b in zip(results(got), results(expected), strict=True):
        assert library.own(a)
        np.testing.assert_array_equal(library.numpy(a), b)


class TestEveryOp:
    @pytest.mark.parametrize("op", list(CALLS))
    def test_gives_the_library_s_arrays_without_a_wait(self, library, stream, op):
        given = arguments(library, op)
        before = stream.waits(), convlets().waits()
        got = call(op, **given)
        if op not in MOVING | WAITING:
            assert (stream.waits(), convlets().waits()) == before
        assert_same(library, got, call(op))

    @pytest.mark.parametrize("name", ["concatenate", "stack"])
    def test_joining(self, library, name):
        a, b = f32(2, 3), f32(2, 3) + 1
        got = getattr(ops, name)([library.asarray(a), library.asarray(b)], 1)
        assert_same(library, got, getattr(ops, name)([a, b], 1))

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    @pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
    def test_losses_with_their_gradient(self, library, loss, reduction):
        """On the device the sum of the rows is a float's, on the host a double's."""
        z, t = f32(7, 5), f32(7, 5)
        second = "labels" if loss == "softmax_cross_entropy" else "targets"
        function = getattr(ops, loss)
        expected = function(z, t, reduction=reduction, return_grad=True)
        given = {"logits": library.asarray(z), second: library.asarray(t)}
        got = function(**given, reduction=reduction, return_grad=True)
        assert library.own(got[0])
        np.testing.assert_allclose(library.numpy(got[0]), expected[0], rtol=3e-7)
        np.testing.assert_array_equal(library.numpy(got[1]), expected[1])

    def test_a_loss_of_nothing(self, library):
        empty = library.asarray(f32(0, 5))
        for reduction, expected in (("mean", np.nan), ("sum", 0.0)):
            got = ops.mean_squared_error(empty, empty, reduction=reduction)
            np.testing.assert_array_equal(library.numpy(got), np.float32(expected))
        ignored = library.asarray(np.zeros(3, np.int64))
        loss = ops.softmax_cross_entropy(library.asarray(f32(3, 5)), ignored, ignore_index=0)
        assert np.isnan(library.numpy(loss))

    def test_a_label_out_of_range(self, library):
        labels = library.asarray(np.array([0, 7, 2]))
        with pytest.raises(ValueError, match=r"expected labels in \[0,5\) .* labels\[1\]=7"):
            ops.softmax_cross_entropy(library.asarray(f32(3, 5)), labels)

    def test_empty_batches(self, library):
        x, w = library.asarray(f32(0, 5, 5, 4)), library.asarray(f32(3, 3, 4, 6))
        assert library.numpy(ops.conv2d(x, w)).shape == (0, 3, 3, 6)
        dw = ops.conv2d_backward_weight(library.asarray(f32(0, 3, 3, 6)), x, 3)
        np.testing.assert_array_equal(library.numpy(dw), np.zeros((3, 3, 4, 6)))

    @pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
    @pytest.mark.parametrize(
        "op",
        [
            *("conv2d", "conv2d_backward_input", "conv2d_backward_weight"),
            *("dense", "dense_backward", "matmul"),
        ],
    )
    def test_precisions(self, library, op, precision):
        got = call(op, **arguments(library, op), precision=precision)
        assert_same(library, got, call(op, precision=precision))
        exact = results(call(op))[0]
        assert not np.array_equal(library.numpy(results(got)[0]), exact)

    def test_numbers_and_conditions(self, library):
        x = f32(3, 4)
        assert_same(library, ops.multiply(library.asarray(x), 2), 2 * x)
        assert_same(library, ops.subtract(1.5, library.asarray(x)), np.float32(1.5) - x)
        if library.name == "torch":
            condition = library.asarray((x > 0.5).astype(np.uint8))
            condition.dtype = "torch.bool"
            got = ops.where(condition, library.asarray(x), 0)
            assert_same(library, got, np.where(x > 0.5, x, 0))


class TestOut:
    def test_out_is_written(self, library, stream):
        x, out = library.asarray(f32(3, 4) - 0.5), library.asarray(np.zeros((3, 4), np.float32))
        if library.name == "jax":
            with pytest.raises(TypeError, match=r"relu: expected no out, as .*Array cannot be"):
                ops.relu(x, out=out)
            return
        stream.run()
        before = stream.waits()
        assert ops.relu(x, out=out) is out
        assert ops.relu(x, out=x) is x
        assert stream.waits() == before
        for array in (out, x):
            np.testing.assert_array_equal(library.numpy(array), np.maximum(f32(3, 4) - 0.5, 0))

    @pytest.mark.parametrize("library", ["cupy", "torch"], indirect=True)
    def test_layouts(self, library):
        """Inputs of any layout, results in C order alone."""
        x = library.transposed(library.asarray(f32(5, 3)))
        assert_same(library, ops.negative(x), -f32(5, 3).T)
        out = library.transposed(library.asarray(f32(5, 3)))
        with pytest.raises(ValueError, match="relu: expected out to be C-contiguous, got strides"):
            ops.relu(library.asarray(f32(3, 5)), out=out)

    @pytest.mark.parametrize("library", ["cupy", "torch"], indirect=True)
    def test_a_part_of_the_input_s_memory(self, library):
        x = library.asarray(f32(4, 3))
        with pytest.raises(ValueError, match="relu: expected out to be x itself or apart"):
            ops.relu(library.rows(x, 0, 2), out=library.rows(x, 1, 3))

    def test_read_only(self, stream):
        library = Cupy(stream.number)
        out = library.asarray(f32(3))
        out.read_only = True
        with pytest.raises(ValueError, match="relu: expected out to be writeable"):
            ops.relu(library.asarray(f32(3)), out=out)


class TestErrors:
    def test_memory_of_the_host_and_of_the_gpu(self, library):
        x, w = f32(2, 5), f32(5, 3)
        for given in ((library.asarray(x), w), (x, library.asarray(w))):
            with pytest.raises(ValueError, match=r"dense: expected all arrays in one place, got"):
                ops.dense(*given)
        with pytest.raises(ValueError, match=r"got out in the memory of the host and x in that"):
            ops.relu(library.asarray(x), out=np.empty_like(x))
        with pytest.raises(ValueError, match=r"stack: expected all arrays in one place, got xs\[1"):
            ops.stack([library.asarray(x), x])

    def test_dtypes(self, library):
        for dtype in ("float64", "int64", "uint8"):
            x = library.asarray(np.zeros(3, dtype))
            with pytest.raises(TypeError, match=f"relu: expected x of dtype float32, got {dtype}"):
                ops.relu(x)
            with pytest.raises(TypeError, match="reshape: expected x to be a float32 array"):
                ops.reshape(x, (3, 1))
        with pytest.raises(ValueError, match=r"conv2d: expected x \(N,H,W,C\), got shape \(3,\)"):
            ops.conv2d(library.asarray(f32(3)), library.asarray(f32(3, 3, 1, 1)))

    def test_another_gpu(self, stream, monkeypatch):
        torch = Torch(stream.number)
        monkeypatch.setitem(sys.modules, "torch", torch)
        x = Torch.Tensor(torch, torch.library.asarray(f32(3)), index=1)
        with pytest.raises(ValueError, match=r"relu: expected x on GPU 0.* got it on GPU 1"):
            ops.relu(x)

    def test_two_libraries_and_two_streams(self, stream):
        a, b = Cupy(stream.number), Jax(stream.number)
        with pytest.raises(ValueError, match="add: expected arrays of one library on one stream"):
            ops.add(a.asarray(f32(3)), b.asarray(f32(3)))
        other = Cupy(device_tests.emulator().stream().number)
        with pytest.raises(ValueError, match="add: .* got another one for b than for a"):
            ops.add(a.asarray(f32(3)), other.asarray(f32(3)))

    def test_gradients_that_would_be_lost(self, stream, monkeypatch):
        torch = Torch(stream.number)
        monkeypatch.setitem(sys.modules, "torch", torch)
        x = torch.asarray(f32(3))
        x.requires_grad = True
        with pytest.raises(ValueError, match="relu: expected x without requires_grad"):
            ops.relu(x)
        torch.recording = False
        assert_same(torch, ops.relu(x), f32(3))

    def test_arrays_that_cannot_be_taken(self, stream):
        library = Cupy(stream.number)
        masked = library.asarray(f32(3))
        masked.mask = masked
        with pytest.raises(TypeError, match="relu: expected x to be a plain array, got a masked"):
            ops.relu(masked)
        swapped = library.asarray(f32(3))
        swapped.typestr = ">f4"
        with pytest.raises(TypeError, match="relu: expected x of dtype float32, got >f4"):
            ops.relu(swapped)
        silent = Cupy(None).Array(Cupy(None), library.asarray(f32(3)).memory)
        with pytest.raises(TypeError, match="relu: expected x to have DLPack, or a stream"):
            ops.relu(silent)
        elsewhere = library.asarray(f32(3))
        elsewhere.memory = type("Memory", (), {"pointer": 4096, "shape": (3,)})()
        with pytest.raises(ValueError, match="relu: expected x on GPU 0, got an array elsewhere"):
            ops.relu(elsewhere)

        class Broken(Jax.Array):
            def __dlpack__(self, **options):
                raise BufferError("no such dtype")

        with pytest.raises(TypeError, match="relu: expected x .* exports, got no such dtype"):
            ops.relu(Broken(Jax(stream.number), library.asarray(f32(3)).memory))


class TestMemory:
    def test_nothing_is_left(self, library, stream):
        """Inputs may go as soon as the op returns, workspace and results go in order."""
        emulator = device_tests.emulator()
        gc.collect()
        before = emulator.allocations()
        x, w = library.asarray(f32(2, 9, 9, 5)), library.asarray(f32(3, 3, 5, 7))
        y = ops.conv2d(x, w)
        del x
        y = ops.relu(y)
        dw = ops.conv2d_backward_weight(y, library.asarray(f32(2, 9, 9, 5)), 3)
        del y
        np.testing.assert_allclose(
            library.numpy(dw),
            ops.conv2d_backward_weight(
                ops.relu(ops.conv2d(f32(2, 9, 9, 5), f32(3, 3, 5, 7))), f32(2, 9, 9, 5), 3
            ),
        )
        del dw, w
        stream.run()
        ops.relu(library.asarray(f32(1)))  # what has been kept goes with the next op
        stream.run()
        gc.collect()
        ops.relu(library.asarray(f32(1)))
        stream.run()
        gc.collect()
        assert emulator.allocations() <= before + 2

    def test_an_array_by_dlpack_is_kept_until_it_has_been_read(self, stream):
        """Its library may give the memory to others as soon as the capsule is gone."""
        library, emulator = Jax(stream.number), device_tests.emulator()
        elsewhere = Jax(emulator.stream().number)
        x = Jax.Array(library, elsewhere.asarray(f32(1000)).memory)
        convlets().set_lazy(True)
        try:
            before = emulator.allocations()
            y = ops.relu(x)
            del x
            assert emulator.allocations() == before + 1
            np.testing.assert_array_equal(library.numpy(y), f32(1000))
        finally:
            convlets().set_lazy(False)
        del y
        stream.run()
        ops.relu(library.asarray(f32(1)))
        stream.run()
        assert emulator.allocations() <= before + 1

    def test_a_capsule_that_nobody_uses(self, stream):
        emulator = device_tests.emulator()
        before = emulator.allocations()
        capsule = Jax(stream.number).asarray(f32(3)).memory.__dlpack__(stream=-1)
        del capsule
        gc.collect()
        stream.run()
        assert emulator.allocations() == before


class TestCapture:
    def test_ops_can_be_captured(self, stream):
        """A graph reads what the arrays hold when it is replayed."""
        library = Cupy(stream.number)
        stream.set_lazy(False)
        x, w = library.asarray(f32(2, 6, 6, 4)), library.asarray(f32(3, 3, 4, 6))
        y = library.empty((2, 4, 4, 6), "float32")
        stream.begin_capture()
        ops.conv2d(x, w, activation="relu", out=y)
        ops.multiply(y, 2.0, out=y)
        graph = stream.end_capture()
        for factor in (1, 3):
            x.memory.copy_from(factor * f32(2, 6, 6, 4))
            stream.replay(graph)
            expected = 2 * ops.conv2d(factor * f32(2, 6, 6, 4), f32(3, 3, 4, 6), activation="relu")
            np.testing.assert_array_equal(library.numpy(y), expected)

    def test_numbers_of_the_host_cannot(self, stream):
        library = Cupy(stream.number)
        stream.set_lazy(False)
        x, labels = library.asarray(f32(3)), library.asarray(np.zeros(2, np.int64))
        stream.begin_capture()
        with pytest.raises(ValueError, match="cannot be part of a captured graph, as numbers"):
            ops.dropout(x, seed=1)
        with pytest.raises(ValueError, match="cannot be part of a captured graph, as values"):
            ops.one_hot(labels, 3)
        stream.end_capture()
