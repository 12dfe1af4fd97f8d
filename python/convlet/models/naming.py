"""The names of classes and the thresholds of labels that a model carries."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convlet.layers import arguments


def listed_names(model: Any, names: Any) -> Any:
    """Class names as a model keeps them: a list, or {output name: list}. ValueError unless they are
    different strings and, once the model is built, as many as its outputs tell apart."""
    if not isinstance(names, dict):
        listed = _listed(model, "class_names", names)
        if model.built:
            _check_count(model, "class_names", 0, listed)
        return listed
    listed = {
        output: _listed(model, f"class_names[{output!r}]", value) for output, value in names.items()
    }
    if model.built:
        for output, value in listed.items():
            where = f"class_names[{output!r}]"
            _check_count(model, where, _output(model, "class_names", output), value)
    return listed


def check_names(model: Any) -> None:
    """The same for names that were set before the model was built."""
    if model.class_names is not None:
        listed_names(model, model.class_names)


def _listed(model: Any, argument: str, names: Any) -> list[str]:
    listed = [] if isinstance(names, str) else list(names)
    if not all(isinstance(name, str) for name in listed) or len(set(listed)) != len(listed):
        raise arguments.expected(model.owner, argument, "different strings", names)
    if len(listed) < 2:
        raise arguments.expected(model.owner, argument, "two names or more", names)
    return listed


def _check_count(model: Any, argument: str, output: int, names: Sequence[str]) -> None:
    size = model.outputs[output].sample_shape[-1]
    classes = 2 if size == 1 else size
    if len(names) != classes:
        what = f"{classes} names for the output {model.outputs[output].shape}"
        raise arguments.expected(model.owner, argument, what, names)


def _output(model: Any, argument: str, name: str) -> int:
    if name not in model.output_names:
        what = f"names of outputs {model.output_names}"
        raise arguments.expected(model.owner, argument, what, name)
    return model.output_names.index(name)


def listed_thresholds(model: Any, values: Any) -> Any:
    """Thresholds as a model keeps them: a list with one for each label, or {output name: list}.
    ValueError unless the model is built and they are in [0, 1] and as many as the labels."""
    if not model.built:
        raise ValueError(f"{model.owner}: thresholds: expected a built model")
    if isinstance(values, dict):
        return {
            name: _thresholds(model, f"thresholds[{name!r}]", _output(model, "thresholds", name), v)
            for name, v in values.items()
        }
    return _thresholds(model, "thresholds", 0, values)


def _thresholds(model: Any, argument: str, output: int, values: Any) -> list[float]:
    count = model.outputs[output].sample_shape[-1]
    array = np.asarray(values, np.float64)
    if array.ndim == 0:
        array = np.full(count, array)
    if array.shape != (count,) or not ((array >= 0) & (array <= 1)).all():
        what = f"numbers in [0, 1], one or {count}"
        raise arguments.expected(model.owner, argument, what, values)
    return [float(value) for value in array]
