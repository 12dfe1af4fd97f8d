"""CUDA arrays of other libraries for ops: where their memory is, and in which stream's order.

Kernels run on the stream that the library works on, so its work before and after the op is in order
without a wait:

- torch: its current stream, its allocator.
- a library whose arrays name a stream in ``__cuda_array_interface__`` (version 3, as CuPy's do):
  that stream, and ``library.empty`` for results.
- any other with DLPack (JAX): convlet's own stream, which DLPack puts after the work that makes the
  array, and the library's after the op. Such libraries let nobody else write their arrays, so the
  results are memory of convlet's, which goes back when the library is done with it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from convlet import _core
from convlet._core import DeviceArray

_usable: set[str] = set()  # devices that have been found to work


def device_for(op: str, name: str, index: int) -> str:
    """The device for an array on GPU `index`; ValueError where there is none."""
    chosen = _core.op_device()
    device = "cuda" if chosen == "cpu" else chosen
    if index != 0:
        raise ValueError(
            f"{op}: expected {name} on GPU 0, the one that convlet uses (CUDA_VISIBLE_DEVICES "
            f"chooses it), got it on GPU {index}"
        )
    if device == "cuda" and device not in _usable:
        from convlet.devices import why_not_cuda

        reason = why_not_cuda()
        if reason:
            raise ValueError(
                f"{op}: {name} is in a GPU's memory, and CUDA cannot be used: {reason}"
            )
        _usable.add(device)
    return device


def library_of(array: Any) -> Any:
    """The package that the array's type comes from."""
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules.get(type(array).__module__.partition(".")[0])


# ---------------------------------------------------------------- torch


def of_torch(op: str, name: str, tensor: Any, torch: Any) -> DeviceArray:
    """`tensor` is on a GPU and needs no gradient."""
    device = device_for(op, name, tensor.device.index)
    if tensor.layout != torch.strided:
        raise TypeError(f"{op}: expected {name} to be a dense tensor, got layout {tensor.layout}")
    if name != "out":
        tensor = tensor.contiguous()
    return _torch_array(torch, device, torch.cuda.current_stream(tensor.device).cuda_stream, tensor)


def _torch_array(torch: Any, device: str, stream: int, tensor: Any) -> DeviceArray:
    return DeviceArray(
        device,
        stream,
        tensor.data_ptr(),
        str(tensor.dtype).removeprefix("torch."),
        tuple(tensor.shape),
        None if tensor.is_contiguous() else tuple(tensor.stride()),
        True,
        tensor,
        _empty_torch,
    )


def _empty_torch(like: DeviceArray, shape: tuple[int, ...], dtype: str) -> DeviceArray:
    torch = sys.modules["torch"]
    tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=like.owner.device)
    return _torch_array(torch, like.device, like.stream, tensor)


# ---------------------------------------------------------------- __cuda_array_interface__


def stream_of(array: Any) -> int | None:
    """The stream that the array names, if it does."""
    described = getattr(array, "__cuda_array_interface__", None)
    return described.get("stream") if isinstance(described, dict) else None


def of_interface(op: str, name: str, array: Any, index: int) -> DeviceArray:
    """An array that names its stream."""
    device = device_for(op, name, index)
    library = library_of(array)
    if not hasattr(library, "empty") or not hasattr(library, "ascontiguousarray"):
        raise TypeError(
            f"{op}: expected {name} of a library with empty and ascontiguousarray, got "
            f"{type(array).__qualname__}"
        )
    described = array.__cuda_array_interface__
    if described.get("mask") is not None:
        raise TypeError(f"{op}: expected {name} to be a plain array, got a masked array")
    if name != "out" and described.get("strides") is not None:
        array = library.ascontiguousarray(array)
    taken = _interface_array(device, array)
    if np.prod(taken.shape) and not _core.sees(device, taken.pointer):
        raise ValueError(f"{op}: expected {name} on GPU 0, got an array elsewhere")
    return taken


def _interface_array(device: str, array: Any) -> DeviceArray:
    described = array.__cuda_array_interface__
    dtype = np.dtype(described["typestr"])
    pointer, read_only = described["data"]
    return DeviceArray(
        device,
        described["stream"],
        pointer,
        dtype.name if dtype.isnative else str(dtype),
        tuple(described["shape"]),
        described.get("strides"),
        not read_only,
        array,
        _empty_like_interface,
    )


def _empty_like_interface(like: DeviceArray, shape: tuple[int, ...], dtype: str) -> DeviceArray:
    return _interface_array(like.device, library_of(like.owner).empty(shape, dtype=dtype))


# ---------------------------------------------------------------- DLPack


def of_dlpack(op: str, name: str, array: Any, index: int) -> DeviceArray:
    """An array of a library that keeps its streams to itself."""
    device = device_for(op, name, index)
    if name == "out":
        raise TypeError(
            f"{op}: expected no out, as {type(array).__qualname__} cannot be written by others"
        )
    stream = _core.own_stream(device)
    try:
        capsule = array.__dlpack__(stream=stream)
    except (TypeError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"{op}: expected {name} to be an array that its library exports, got {error}"
        ) from error
    taken = DeviceArray.from_capsule(capsule, device, stream, empty_dlpack)
    if taken.strides is not None:
        raise ValueError(
            f"{op}: expected {name} to be C-contiguous, got strides {taken.strides} for shape "
            f"{taken.shape}"
        )
    return taken


def empty_dlpack(like: DeviceArray, shape: tuple[int, ...], dtype: str) -> DeviceArray:
    """An array of convlet's own, which a library takes by DLPack."""
    return DeviceArray.own(like.device, like.stream, shape, dtype, empty_dlpack)
