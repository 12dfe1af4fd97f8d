"""Small helpers: seeds, one-hot labels, and images from folders."""

from convlet.utils.numeric import to_categorical
from convlet.utils.seeds import set_random_seed

__all__ = ["image_dataset_from_directory", "set_random_seed", "to_categorical"]


def __getattr__(name: str) -> object:
    # Loaded when it is used: it needs convlet.data, which needs the seeds of this package.
    if name == "image_dataset_from_directory":
        from convlet.utils.image_dataset import image_dataset_from_directory

        return image_dataset_from_directory
    raise AttributeError(f"module 'convlet.utils' has no attribute {name!r}")
