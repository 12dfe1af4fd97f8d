"""Where an op tells values from descriptions: called on arrays it computes, called on symbolic
tensors or on weights it adds a node to the model that is being described."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

# The layer whose call() is being traced.
_traced: ContextVar[Any] = ContextVar("convlet_traced", default=None)

# The ops that take symbolic tensors.
NAMES = (
    *("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "where"),
    *("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"),
    *("exp", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "negative", "reciprocal", "sign"),
    *("relu", "sigmoid", "tanh", "gelu", "silu", "relu6", "leaky_relu", "elu", "selu", "softplus"),
    *("hard_sigmoid", "hard_swish", "softmax", "log_softmax", "one_hot"),
    *("sum", "mean", "max", "min", "matmul", "dense", "conv2d"),
    *("max_pool2d", "avg_pool2d", "upsample2d"),
    *("reshape", "expand_dims", "squeeze", "transpose", "concatenate", "stack"),
)

# What numpy calls for ``array + tensor`` and the like, and the op that does it.
_UFUNCS = {
    np.add: "add",
    np.subtract: "subtract",
    np.multiply: "multiply",
    np.true_divide: "divide",
    np.power: "power",
    np.matmul: "matmul",
    np.greater: "greater",
    np.greater_equal: "greater_equal",
    np.less: "less",
    np.less_equal: "less_equal",
}


@contextmanager
def tracing(layer: Any) -> Iterator[None]:
    """While the call() of a user's layer runs, which describes a part of a model."""
    token = _traced.set(layer)
    try:
        yield
    finally:
        _traced.reset(token)


def traced() -> Any:
    """The layer whose call() is being traced; None when none is."""
    return _traced.get()


class Symbolic:
    """Base of what describes a value without having one. Python's operators on it are ops."""

    shape: tuple[int | None, ...]

    @property
    def ndim(self) -> int:
        """How many axes, the batch axis included."""
        return len(self.shape)

    def __add__(self, other: Any) -> Any:
        return _op("add")(self, other)

    def __radd__(self, other: Any) -> Any:
        return _op("add")(other, self)

    def __sub__(self, other: Any) -> Any:
        return _op("subtract")(self, other)

    def __rsub__(self, other: Any) -> Any:
        return _op("subtract")(other, self)

    def __mul__(self, other: Any) -> Any:
        return _op("multiply")(self, other)

    def __rmul__(self, other: Any) -> Any:
        return _op("multiply")(other, self)

    def __truediv__(self, other: Any) -> Any:
        return _op("divide")(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _op("divide")(other, self)

    def __pow__(self, other: Any) -> Any:
        return _op("power")(self, other)

    def __rpow__(self, other: Any) -> Any:
        return _op("power")(other, self)

    def __matmul__(self, other: Any) -> Any:
        return _op("matmul")(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return _op("matmul")(other, self)

    def __gt__(self, other: Any) -> Any:
        return _op("greater")(self, other)

    def __ge__(self, other: Any) -> Any:
        return _op("greater_equal")(self, other)

    def __lt__(self, other: Any) -> Any:
        return _op("less")(self, other)

    def __le__(self, other: Any) -> Any:
        return _op("less_equal")(self, other)

    def __neg__(self) -> Any:
        return _op("negative")(self)

    def __abs__(self) -> Any:
        return _op("abs")(self)

    def __getitem__(self, key: Any) -> Any:
        from convlet.ops import symbolic

        return symbolic.getitem(self, key)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and ufunc in _UFUNCS and not kwargs:
            return _op(_UFUNCS[ufunc])(*inputs)
        raise no_value(self, f"numpy.{ufunc.__name__}")


def no_value(described: Symbolic, what: str, hint: str = "") -> TypeError:
    """The error for what needs the numbers that a description does not have."""
    return TypeError(
        f"{described!r} describes a model and has no values, which {what} needs: use layers and "
        f"convlet.ops{hint}"
    )


def _op(name: str) -> Callable[..., Any]:
    from convlet import ops

    return getattr(ops, name)


def _is_symbolic(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, Symbolic):
            return True
        if isinstance(value, (list, tuple)) and any(isinstance(v, Symbolic) for v in value):
            return True
    return False


def describes(function: Function) -> Function:
    """Makes an op of arrays one of symbolic tensors too: those are handled by the function of the
    same name in ``convlet.ops.symbolic``."""

    @functools.wraps(function)
    def op(*args: Any, **kwargs: Any) -> Any:
        if _is_symbolic(args) or (kwargs and _is_symbolic(kwargs.values())):
            from convlet.ops import symbolic

            return symbolic.FORMS[function.__name__](*args, **kwargs)
        return function(*args, **kwargs)

    return op  # type: ignore[return-value]
