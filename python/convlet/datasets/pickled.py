"""Read the pickle files of CIFAR's python version without running a pickle.

A pickle is a program that may call anything. This reads its instructions with pickletools and
carries out the few that build dicts, lists, tuples, numbers, texts and uint8 arrays; every other
one, and every other name, is an error.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class _Name:
    """A name that the file asks for; nothing is imported."""

    text: str


@dataclass
class _Array:
    """An array on its way: numpy makes an empty one and then sets its state."""

    values: Any = None


@dataclass
class _Dtype:
    code: str


_MARK = object()
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "BINFLOAT")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")  # of Python 2: bytes
_BYTES = ("BINBYTES", "SHORT_BINBYTES")
_UNICODE = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE")
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(data: bytes, path: Path) -> Any:
    """The object in the content of a file; texts of Python 2 are bytes, as with Keras.

    Raises ValueError that names the file when it is broken or holds more than plain data.
    """
    try:
        return _Machine().run(data)
    except ValueError as error:
        raise ValueError(f"{path}: not a plain pickle: {error}; download it again") from None
    except Exception as error:  # a broken file can be wrong in any way
        raise ValueError(f"{path}: broken: {type(error).__name__}; download it again") from None


class _Machine:
    """The stack and the memo of the pickle protocol."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for code, argument, _ in pickletools.genops(data):
            if code.name == "STOP":
                (result,) = self.stack
                return result
            self.step(code.name, argument)
        raise ValueError("it has no end")

    def step(self, name: str, argument: Any) -> None:
        push, pop = self.stack.append, self.stack.pop
        if name in ("PROTO", "FRAME"):
            pass
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _NUMBERS or name in _UNICODE or name in _BYTES:
            push(argument)
        elif name in _TEXTS:
            push(argument.encode("latin-1"))
        elif name == "MARK":
            push(_MARK)
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            push([] if name == "EMPTY_LIST" else {})
        elif name == "LIST":
            push(self.since_mark())
        elif name == "TUPLE":
            push(tuple(self.since_mark()))
        elif name in _TUPLES:
            push(tuple([pop() for _ in range(_TUPLES[name])][::-1]))
        elif name in ("APPEND", "APPENDS"):
            items = [pop()] if name == "APPEND" else self.since_mark()
            self.top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            self.set_items(name)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self.memo[argument])
        elif name == "GLOBAL":
            push(_Name(argument))
        elif name == "STACK_GLOBAL":
            member, module = pop(), pop()
            push(_Name(f"{module} {member}"))
        elif name == "REDUCE":
            arguments, function = pop(), pop()
            push(_call(function, arguments))
        elif name == "BUILD":
            _build(pop(), self.stack[-1])
        else:
            raise ValueError(f"it uses {name}")

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {kind.__name__} was expected")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def set_items(self, name: str) -> None:
        items = (
            [self.stack.pop(), self.stack.pop()][::-1] if name == "SETITEM" else self.since_mark()
        )
        if name == "DICT":
            self.stack.append({})
        self.top(dict).update(zip(items[::2], items[1::2], strict=True))


def _call(function: Any, arguments: Any) -> Any:
    text = function.text if isinstance(function, _Name) else ""
    if text in _RECONSTRUCT:
        return _Array()
    if text == "numpy dtype" and arguments[0] in ("u1", b"u1"):
        return _Dtype("u1")
    if text == "_codecs encode" and arguments[1:] == ("latin1",):
        return arguments[0].encode("latin-1")
    raise ValueError(f"it calls {text or 'an object'}")


def _build(state: Any, target: Any) -> None:
    if isinstance(target, _Dtype):
        return  # of one byte: there is no order of bytes to set
    if not isinstance(target, _Array):
        raise ValueError("it sets the state of an object")
    _, shape, dtype, fortran, content = state
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
        raise ValueError("an array of uint8 was expected")
    target.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def array_of(value: Any) -> np.ndarray:
    """The numpy array of what `read_pickle` gave for one; ValueError for anything else."""
    if not isinstance(value, _Array) or value.values is None:
        raise ValueError("an array was expected")
    return value.values
