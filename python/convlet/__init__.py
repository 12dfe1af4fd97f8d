"""convlet: train and serve image classifiers with a few MB of hand-written kernels.

``import convlet as keras`` runs the usual Keras image-classification scripts. The import itself
loads the compiled module only; every other one, numpy too, is loaded when it is first used.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from convlet import _core

__version__: str = _core.__version__

if TYPE_CHECKING:
    from convlet import (
        applications,
        callbacks,
        data,
        datasets,
        initializers,
        layers,
        losses,
        metrics,
        models,
        ops,
        optimizers,
        preprocessing,
        regularizers,
        utils,
    )
    from convlet.layers import Input
    from convlet.models import (
        Model,
        NonFiniteError,
        Prediction,
        Sequential,
        crossval,
        fine_tune,
        load_model,
        lr_find,
    )
    from convlet.utils import set_random_seed

_SUBMODULES = (
    "applications",
    "callbacks",
    "data",
    "datasets",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "preprocessing",
    "regularizers",
    "utils",
)
_HOMES = {
    "Input": "layers",
    "Model": "models",
    "NonFiniteError": "models",
    "Prediction": "models",
    "Sequential": "models",
    "crossval": "models",
    "fine_tune": "models",
    "load_model": "models",
    "lr_find": "models",
    "set_random_seed": "utils",
}

__all__ = [
    "Input",
    "Model",
    "NonFiniteError",
    "Prediction",
    "Sequential",
    "__version__",
    "applications",
    "callbacks",
    "crossval",
    "data",
    "datasets",
    "fine_tune",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "lr_find",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "preprocessing",
    "regularizers",
    "set_random_seed",
    "utils",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return _import_module(f"convlet.{name}")
    if name in _HOMES:
        value = getattr(_import_module(f"convlet.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'convlet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
