"""Arrays of other libraries: memory is shared both ways, and what cannot be shared is refused."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from calls import CALLS, call, f32
from convlet import devices, ops
from convlet._interop import borrow

ARRAYS = [(op, name) for op, (arrays, _) in CALLS.items() for name in arrays]


def pointer(array):
    if isinstance(array, torch.Tensor):
        return array.data_ptr()
    return array.__array_interface__["data"][0]


def results(value):
    return value if isinstance(value, tuple) else (value,)


def assert_same(got, expected):
    for a, b in zip(results(got), results(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


class Foreign:
    """An array of some other library: it has DLPack and the array API's namespace, nothing else."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        return self.array.__dlpack__()

    def __array_namespace__(self):
        return self

    @staticmethod
    def from_dlpack(array):
        return Foreign(array)


class TestNumpy:
    def test_results_are_numpy_arrays_that_own_their_memory(self):
        for op in CALLS:
            for result in results(call(op)):
                assert type(result) in (np.ndarray, np.float32)
                if isinstance(result, np.ndarray):
                    assert result.dtype == np.float32
                    assert result.flags.c_contiguous
                    assert result.flags.writeable

    def test_a_contiguous_array_is_not_copied(self):
        x = f32(3, 4)
        assert borrow("op", None, x=x)[0] is x

    def test_a_scalar_loss_is_a_number(self):
        for op in ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"):
            assert type(call(op)) is np.float32
            loss, gradient = call(op, return_grad=True)
            assert type(loss) is np.float32
            assert type(gradient) is np.ndarray

    @pytest.mark.parametrize(("op", "name"), ARRAYS)
    def test_any_memory_layout(self, op, name):
        expected, array = call(op), CALLS[op][0][name][0]
        spread = np.repeat(array, 2, axis=-1)[..., ::2]
        turned = np.ascontiguousarray(array.T).T
        reversed_ = np.ascontiguousarray(array[::-1])[::-1]
        memory = bytearray(array.nbytes + 1)
        unaligned = np.frombuffer(memory, array.dtype, array.size, offset=1).reshape(array.shape)
        unaligned[...] = array
        read_only = array.copy()
        read_only.flags.writeable = False
        for view in (spread, turned, reversed_, unaligned, read_only):
            before = view.copy()
            assert_same(call(op, **{name: view}), expected)
            np.testing.assert_array_equal(view, before)

    def test_a_broadcast_input(self):
        np.testing.assert_array_equal(
            ops.add(np.broadcast_to(np.float32(1), (3, 4)), f32(3, 4)), f32(3, 4) + 1
        )

    def test_subclasses_and_objects_with_an_array_interface(self):
        class Holder:
            def __init__(self, array):
                self.__array_interface__ = array.__array_interface__
                self.array = array

        class Subclass(np.ndarray):
            pass

        x = f32(3, 4)
        for form in (Holder(x), x.view(Subclass), x.view(np.memmap)):
            result = ops.relu(form)
            assert type(result) is np.ndarray
            np.testing.assert_array_equal(result, x)
        assert ops.tanh(np.float32(0)).shape == ()


class TestTorch:
    @pytest.mark.parametrize("op", list(CALLS))
    def test_every_op_takes_and_gives_tensors(self, op):
        arrays, _ = CALLS[op]
        got = call(op, **{name: torch.from_numpy(array) for name, (array, _) in arrays.items()})
        for result in results(got):
            assert isinstance(result, torch.Tensor)
            assert not result.requires_grad
        assert_same(got, call(op))

    @pytest.mark.parametrize("shape", [(3, 4), (1,), ()])
    def test_memory_is_shared_both_ways(self, shape):
        x = torch.rand(shape)
        array, out, give = borrow("op", None, x=x)
        assert out is None
        assert pointer(array) == pointer(x)
        back = give(array)
        assert isinstance(back, torch.Tensor)
        assert pointer(back) == pointer(x)

    def test_out_is_the_tensor_itself(self):
        x, out = torch.randn(5, 7), torch.empty(5, 7)
        before = pointer(out)
        assert ops.relu(x, out=out) is out
        assert pointer(out) == before
        assert torch.equal(out, torch.relu(x))
        assert ops.relu(x, out=x) is x
        assert torch.equal(x, out)

    def test_strided_tensors(self):
        x, w = torch.randn(2, 4, 6, 5), torch.randn(7, 4, 3, 3)  # NCHW, KCRS
        got = ops.conv2d(x.permute(0, 2, 3, 1), w.permute(2, 3, 1, 0))
        expected = ops.conv2d(
            x.permute(0, 2, 3, 1).contiguous(), w.permute(2, 3, 1, 0).contiguous()
        )
        assert torch.equal(got, expected)
        with pytest.raises(ValueError, match="relu: expected out to be C-contiguous, got strides"):
            ops.relu(torch.randn(4, 3), out=torch.empty(3, 4).T)

    def test_a_scalar_loss_is_a_tensor_without_axes(self):
        loss, gradient = ops.softmax_cross_entropy(
            torch.randn(3, 5), torch.tensor([0, 4, 2]), return_grad=True
        )
        assert isinstance(loss, torch.Tensor)
        assert loss.shape == ()
        assert gradient.shape == (3, 5)

    def test_the_first_array_decides(self):
        x, w = f32(2, 5), f32(5, 3)
        assert isinstance(ops.dense(torch.from_numpy(x), w), torch.Tensor)
        assert isinstance(ops.dense(x, torch.from_numpy(w)), np.ndarray)
        out = torch.empty(2, 3)
        assert ops.dense(x, w, out=out) is out

    def test_a_tensor_that_requires_grad(self):
        x = torch.rand(3, requires_grad=True)
        with pytest.raises(ValueError, match=r"relu: expected x without .* pass x\.detach\(\)"):
            ops.relu(x)
        with pytest.raises(ValueError, match=r"relu: expected out without"):
            ops.relu(x.detach(), out=torch.empty(3, requires_grad=True))
        assert torch.equal(ops.relu(x.detach()), x)
        with torch.no_grad():  # nothing is lost where torch records nothing
            assert torch.equal(ops.relu(x), x)
            assert torch.equal(ops.relu(torch.nn.Parameter(torch.ones(2))), torch.ones(2))

    def test_the_op_in_a_torch_model_of_the_docs(self):
        page = (Path(__file__).parents[1] / "docs/extending.md").read_text()
        code = next(
            b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "autograd" in b
        )
        names = {}
        exec(code, names)
        x = torch.randn(2, 3, 9, 8).to(memory_format=torch.channels_last).requires_grad_()
        w = torch.randn(5, 3, 3, 3).requires_grad_()
        dy = torch.randn(2, 5, 5, 4)
        got = torch.autograd.grad(names["conv2d"](x, w, stride=2, padding=1), (x, w), dy)
        expected = torch.autograd.grad(F.conv2d(x, w, stride=2, padding=1), (x, w), dy)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)

    def test_tensors_that_no_array_can_share(self):
        for x in (torch.ones(3, dtype=torch.bfloat16), torch.ones(3).to_sparse()):
            with pytest.raises(TypeError, match=f"relu: expected x .* got a torch .*{x.dtype}"):
                ops.relu(x)
        with pytest.raises(TypeError, match="expected x of dtype float32, got float64"):
            ops.relu(torch.ones(3, dtype=torch.float64))

    def test_a_tensor_elsewhere(self):
        with pytest.raises(ValueError, match=r"relu: expected x in the memory of .* got .* meta"):
            ops.relu(torch.ones(3, device="meta"))


class TestDLPack:
    def test_memory_is_shared_both_ways(self):
        x = f32(3, 4)
        array, _, give = borrow("op", None, x=Foreign(x))
        assert pointer(array) == pointer(x)
        back = give(array)
        assert isinstance(back, Foreign)
        assert back.array is array

    @pytest.mark.parametrize("op", list(CALLS))
    def test_every_op_takes_and_gives_the_library_s_arrays(self, op):
        arrays, _ = CALLS[op]
        got = call(op, **{name: Foreign(array) for name, (array, _) in arrays.items()})
        for a, b in zip(results(got), results(call(op)), strict=True):
            assert isinstance(a, Foreign)
            np.testing.assert_array_equal(a.array, b)

    def test_another_device(self):
        with pytest.raises(ValueError, match=r"add: expected b in the memory of.* device 8"):
            ops.add(f32(3), Foreign(f32(3), device=(8, 0)))

    def test_cuda_arrays_where_there_is_no_gpu(self, monkeypatch):
        monkeypatch.setattr(devices, "why_not_cuda", lambda: "there is no GPU")

        class Cuda:
            __cuda_array_interface__ = {"stream": 1}

            def __array_namespace__(self):
                return np

        for x in (Foreign(f32(3), device=(2, 0)), Cuda()):
            with pytest.raises(
                ValueError, match="relu: x is in a GPU's memory, .* there is no GPU"
            ):
                ops.relu(x)

    def test_a_producer_that_cannot_export(self):
        class Broken(Foreign):
            dtype = "bfloat16"

            def __dlpack__(self, **options):
                raise BufferError("no such dtype")

        with pytest.raises(TypeError, match=r"relu: expected x .* of dtype bfloat16"):
            ops.relu(Broken(f32(3)))

    def test_a_library_without_from_dlpack(self):
        class Silent:
            def __dlpack_device__(self):
                return 1, 0

        with pytest.raises(TypeError, match=r"expected x of a library with from_dlpack.*Silent"):
            ops.relu(Silent())


class TestThreads:
    def test_ops_run_in_many_python_threads(self):
        inputs = [f32(4, 9, 9, 3) * i for i in range(8)]
        weight = f32(3, 3, 3, 17)
        expected = [ops.conv2d(x, weight) for x in inputs]
        got = [None] * len(inputs)

        def work(i):
            for _ in range(20):
                got[i] = ops.conv2d(inputs[i], weight)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_other_python_threads_run_meanwhile(self):
        """An op of some GFLOP leaves the interpreter free."""
        x, weight = f32(1200, 1100), f32(1100, 1000)
        worker = threading.Thread(target=ops.dense, args=(x, weight))
        worker.start()
        turns = 0
        while worker.is_alive():
            turns += 1
        assert turns > 1000
