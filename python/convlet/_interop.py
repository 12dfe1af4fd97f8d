"""Arrays of other libraries for ops and back, without a copy where memory can be shared.

On the CPU they become numpy arrays, on a GPU a DeviceArray (_cuda_arrays.py). No library is
imported here: whoever passes a torch tensor has imported torch already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from convlet import _core

Array = Any  # numpy.ndarray, torch.Tensor, or any other array with DLPack

_DLPACK_CPU, _DLPACK_CUDA = 1, 2  # kDLCPU and kDLCUDA of dlpack.h

Give = Callable[[np.ndarray], Any]


def borrow(op: str, out: Any, **arguments: Any) -> tuple[Any, ...]:
    """The arguments and `out` as arrays that share their memory, and how to give the result.

    The arrays are numpy's, or DeviceArrays where the memory is a GPU's. Returns (array, ...,
    out_array, give): one array per argument, None where it is None. give(y) is `out` if the caller
    passed one, else y as an array of the library of the first argument that is an array. What is
    no array is passed on, for the op to name its type.

    Raises TypeError or ValueError for an array that no numpy array can share (a dtype that numpy
    lacks, a masked array), one on a device that cannot be used, and a torch tensor whose gradients
    would be lost.
    """
    taken = []
    give: Give | None = None
    for name, value in arguments.items():
        array, own = _as_numpy(op, name, value)
        taken.append(array)
        if give is None and value is not None:
            give = own
    if out is None:
        return *taken, None, give
    return *taken, _as_numpy(op, "out", out)[0], lambda y: out


def _as_numpy(op: str, name: str, value: Any) -> tuple[Any, Give]:
    """The array of one argument, and what makes an array of its library out of a numpy array."""
    if type(value) is np.ndarray or value is None:
        return value, _itself
    if isinstance(value, _core.DeviceArray):
        return value, _itself
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{op}: expected {name} to be a plain array, got a masked array")
    if isinstance(value, np.ndarray):
        return value, _itself
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return _from_torch(op, name, value, torch)
    if hasattr(value, "__dlpack_device__"):
        return _from_dlpack(op, name, value)
    if hasattr(value, "__cuda_array_interface__"):
        from convlet import _cuda_arrays

        if _cuda_arrays.stream_of(value) is None:
            raise TypeError(
                f"{op}: expected {name} to have DLPack, or a stream in its "
                f"__cuda_array_interface__ (version 3), got {type(value).__qualname__}"
            )
        return _cuda_arrays.of_interface(op, name, value, 0), _owner
    if hasattr(value, "__array_interface__"):
        return np.asarray(value), _itself
    return value, _itself


def _itself(array: np.ndarray) -> np.ndarray:
    return array


def _owner(array: Any) -> Any:
    return array.owner


def _wrong_device(op: str, name: str, got: str) -> ValueError:
    return ValueError(f"{op}: expected {name} in the memory of the CPU or of a CUDA GPU, got {got}")


def _no_numpy_form(op: str, name: str, value: Any) -> TypeError:
    kind = f"{type(value).__module__.partition('.')[0]} array"
    return TypeError(
        f"{op}: expected {name} to be a dense array of a dtype that numpy has, got a {kind} "
        f"of dtype {getattr(value, 'dtype', 'unknown')}"
    )


def _from_torch(op: str, name: str, value: Any, torch: Any) -> tuple[Any, Give]:
    if value.device.type not in ("cpu", "cuda"):
        raise _wrong_device(op, name, f"a tensor on {value.device}; {name}.cpu() copies it")
    if value.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{op}: expected {name} without requires_grad, as torch cannot follow its gradient "
            f"through convlet, got a tensor that requires it; pass {name}.detach() or use "
            f"torch.no_grad()"
        )
    if value.device.type == "cuda":
        from convlet import _cuda_arrays

        return _cuda_arrays.of_torch(op, name, value, torch), _owner
    try:
        return (value.detach() if value.requires_grad else value).numpy(), torch.from_numpy
    except (TypeError, RuntimeError) as error:  # bfloat16 and other dtypes; sparse layouts
        raise _no_numpy_form(op, name, value) from error


def _from_dlpack(op: str, name: str, value: Any) -> tuple[Any, Give]:
    device_type, index = value.__dlpack_device__()
    if device_type not in (_DLPACK_CPU, _DLPACK_CUDA):
        raise _wrong_device(op, name, f"an array on DLPack device {int(device_type)}")
    if device_type == _DLPACK_CUDA:
        from convlet import _cuda_arrays

        if _cuda_arrays.stream_of(value) is not None:
            return _cuda_arrays.of_interface(op, name, value, index), _owner
    # The array API's way to an array's library, else the package that its type comes from.
    if hasattr(value, "__array_namespace__"):
        library = value.__array_namespace__()
    else:
        library = sys.modules.get(type(value).__module__.partition(".")[0])
    give = getattr(library, "from_dlpack", None)
    if give is None:
        raise TypeError(
            f"{op}: expected {name} of a library with from_dlpack, got {type(value).__qualname__}"
        )
    if device_type == _DLPACK_CUDA:
        return _cuda_arrays.of_dlpack(op, name, value, index), give
    try:
        return np.from_dlpack(value), give
    except (TypeError, RuntimeError, BufferError) as error:
        raise _no_numpy_form(op, name, value) from error
