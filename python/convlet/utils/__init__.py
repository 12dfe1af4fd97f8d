"""Small helpers: seeds, one-hot labels, images from folders, and drawings of models."""

from importlib import import_module

from convlet.utils.numeric import to_categorical
from convlet.utils.seeds import set_random_seed

__all__ = ["image_dataset_from_directory", "plot_model", "set_random_seed", "to_categorical"]

# Loaded when they are used: they need parts of convlet that need this package.
_LATER = {
    "image_dataset_from_directory": "convlet.utils.image_dataset",
    "plot_model": "convlet.utils.drawing",
}


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'convlet.utils' has no attribute {name!r}")
