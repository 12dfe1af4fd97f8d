"""Small libraries with arrays in the memory of the tests' device, made as torch, CuPy and JAX make
theirs: what convlet.ops sees of them is the same, so all that it does with them can be tested in
the emulator. (The libraries themselves are in test_cuda_libraries.py, for a machine with a GPU.)

A library has asarray(numpy array), numpy(array), own(value) (whether value is an array of its), and
`stream`, the number of the stream that it works on.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from convlet import _core

DEVICE = _core.op_device()


def _memory(stream, shape, dtype):
    return _core.DeviceArray.own(DEVICE, stream, tuple(shape), str(np.dtype(dtype)), None)


class Library:
    """What the libraries without tensors have in common."""

    def __init__(self, stream):
        self.stream = stream

    def concatenate(self, arrays, axis):
        return self.asarray(np.concatenate([self.numpy(a) for a in arrays], axis))

    def stack(self, arrays, axis):
        return self.asarray(np.stack([self.numpy(a) for a in arrays], axis))

    def own(self, value):
        return isinstance(value, self.Array)


class Cupy(Library):
    """Arrays that name their stream in __cuda_array_interface__."""

    name = "cupy"

    class Array:
        def __init__(self, library, memory, shape=None, strides=None, offset=0):
            self.library, self.memory, self.strides = library, memory, strides
            self.offset = offset
            self.shape = memory.shape if shape is None else shape
            self.dtype = np.dtype(memory.dtype)
            self.typestr, self.read_only, self.mask = self.dtype.str, False, None

        @property
        def __cuda_array_interface__(self):
            return {
                "shape": self.shape,
                "typestr": self.typestr,
                "data": (self.memory.pointer + self.offset, self.read_only),
                "strides": self.strides,
                "stream": self.library.stream,
                "mask": self.mask,
                "version": 3,
            }

        def __array_namespace__(self):
            return self.library

        def reshape(self, shape):
            return type(self)(self.library, self.memory, tuple(shape))

    def asarray(self, values):
        array = self.empty(values.shape, values.dtype)
        array.memory.copy_from(np.ascontiguousarray(values))
        return array

    def empty(self, shape, dtype):
        return self.Array(self, _memory(self.stream, shape, dtype))

    def numpy(self, array):
        values = array.memory.numpy()
        if array.strides is None:
            return values.reshape(array.shape)
        return np.lib.stride_tricks.as_strided(values, array.shape, array.strides)

    def transposed(self, array):
        """The same memory with its axes reversed."""
        strides = tuple(np.empty(array.shape, array.dtype).strides)
        return self.Array(self, array.memory, array.shape[::-1], strides[::-1])

    def rows(self, array, begin, end):
        """A part of the same memory."""
        row = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        shape = (end - begin, *array.shape[1:])
        return self.Array(self, array.memory, shape, offset=begin * row)

    def ascontiguousarray(self, array):
        return self.asarray(np.ascontiguousarray(self.numpy(array)))


class Jax(Library):
    """Arrays that have DLPack alone, whose stream only the library knows."""

    name = "jax"

    class Array:
        def __init__(self, library, memory, shape=None):
            self.library, self.memory = library, memory
            self.shape = memory.shape if shape is None else shape

        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, *, stream=None, **options):
            return self.memory.__dlpack__(stream=stream)

        def __array_namespace__(self):
            return self.library

        def reshape(self, shape):
            return type(self)(self.library, self.memory, tuple(shape))

    def asarray(self, values):
        memory = _memory(self.stream, values.shape, values.dtype)
        memory.copy_from(np.ascontiguousarray(values))
        return self.Array(self, memory)

    def from_dlpack(self, other):
        capsule = other.__dlpack__(stream=self.stream)
        return self.Array(self, _core.DeviceArray.from_capsule(capsule, DEVICE, self.stream, None))

    def numpy(self, array):
        return array.memory.numpy().reshape(array.shape)


class Torch:
    """A module like torch, with the tensors that it has on a GPU."""

    name = "torch"
    strided = "strided"

    def __init__(self, stream):
        self.stream, self.library = stream, Cupy(stream)
        self.float32, self.uint8, self.int64 = "float32", "uint8", "int64"
        self.cuda = SimpleNamespace(
            current_stream=lambda device: SimpleNamespace(cuda_stream=self.stream)
        )
        self.recording = True

    class Tensor:
        layout = "strided"

        def __init__(self, torch, array, index=0):
            self.torch, self.array = torch, array
            self.device = SimpleNamespace(type="cuda", index=index)
            self.dtype, self.shape = f"torch.{array.dtype}", array.shape
            self.requires_grad = False

        def data_ptr(self):
            return self.array.memory.pointer + self.array.offset

        def stride(self):
            return [step // 4 for step in self.array.strides or ()]

        def is_contiguous(self):
            return self.array.strides is None

        def contiguous(self):
            if self.is_contiguous():
                return self
            return type(self)(self.torch, self.torch.library.ascontiguousarray(self.array))

        def reshape(self, shape):
            return type(self)(self.torch, self.array.reshape(shape))

        def __array_namespace__(self):
            return self.torch

        def float(self):
            values = self.torch.library.numpy(self.array).astype(np.float32)
            return self.torch.asarray(values)

    def is_grad_enabled(self):
        return self.recording

    def empty(self, shape, *, dtype, device):
        assert device.type == "cuda"
        return self.Tensor(self, self.library.empty(shape, dtype))

    def asarray(self, values):
        return self.Tensor(self, self.library.asarray(values))

    def transposed(self, tensor):
        return self.Tensor(self, self.library.transposed(tensor.array))

    def rows(self, tensor, begin, end):
        return self.Tensor(self, self.library.rows(tensor.array, begin, end))

    def numpy(self, tensor):
        return self.library.numpy(tensor.array)

    def concatenate(self, tensors, axis):
        return self.Tensor(self, self.library.concatenate([t.array for t in tensors], axis))

    def stack(self, tensors, axis):
        return self.Tensor(self, self.library.stack([t.array for t in tensors], axis))

    def own(self, value):
        return isinstance(value, self.Tensor)
