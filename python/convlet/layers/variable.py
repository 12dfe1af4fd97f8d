"""Variable: a weight of a layer, wherever its newest value lives."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlet.initializers import Initializer
from convlet.ops.dispatch import Symbolic, no_value, traced
from convlet.regularizers import L1L2
from convlet.utils.seeds import next_seed

F32 = NDArray[np.float32]

# Held while a value moves, so that two models that share a layer can run in two threads.
_moving = threading.Lock()


class Variable(Symbolic):
    """A float32 weight. In a layer's ``call`` it is an operand of ``convlet.ops``.

    Its value has one home at a time: this object, or the ``_core.State`` of the model that used it
    last. Models that share a layer take the value over from each other, so they never see different
    weights. The initial value is computed when it is first needed.

    Args:
        name: "kernel", "bias", ...
        shape: as the user sees it.
        graph_shape: as the graph's op wants it, with the same elements in the same order.
        constant: it is part of the model's description, which saves it; never trained.
    """

    moves = 0  # how often any variable has found a new home

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Initializer,
        regularizer: L1L2 | None = None,
        trainable: bool = True,
        graph_shape: Sequence[int] | None = None,
        constant: bool = False,
    ):
        self.name = name
        self.shape: tuple[int, ...] = tuple(shape)
        self.graph_shape = self.shape if graph_shape is None else tuple(graph_shape)
        self.initializer = initializer
        self.regularizer = regularizer
        self.trainable = trainable
        self.constant = constant
        self._seed = 0 if constant else next_seed()
        self._value: F32 | None = None
        self._state: Any = None  # the home, when it is a _core.State
        self._parameter = -1

    @property
    def size(self) -> int:
        """How many elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def state(self) -> Any:
        """The state that holds the value, or None."""
        return self._state

    def numpy(self) -> F32:
        """A copy of the value."""
        with _moving:
            return self._read().copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if traced() is not None:  # its value of the moment would become a constant of the model
            raise no_value(self, "numpy")
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if traced() is not None:
            return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)
        values = [x.numpy() if isinstance(x, Variable) else x for x in inputs]
        return getattr(ufunc, method)(*values, **kwargs)

    def assign(self, value: ArrayLike) -> None:
        """Replaces the value; ValueError unless the shapes are equal."""
        array = np.asarray(value, np.float32)
        if array.shape != self.shape:
            raise ValueError(
                f"{self.name}: expected a value of shape {self.shape}, got {array.shape}"
            )
        with _moving:
            if self._state is None:
                self._value = np.array(array, order="C")
            else:
                self._state.set(
                    self._parameter, np.ascontiguousarray(array).reshape(self.graph_shape)
                )

    def move_to(self, state: Any, parameter: int) -> None:
        """Makes parameter ``parameter`` of ``state`` the home of the value."""
        with _moving:
            if self._state is not state:
                state.set(parameter, self._read().reshape(self.graph_shape))
                self._state, self._parameter, self._value = state, parameter, None
                Variable.moves += 1

    def _read(self) -> F32:
        if self._state is not None:
            return self._state.get(self._parameter).reshape(self.shape)
        if self._value is None:
            self._value = np.ascontiguousarray(self.initializer(self.shape, self._seed), np.float32)
        return self._value

    def __repr__(self) -> str:
        return f"<Variable {self.name} {self.shape}>"
