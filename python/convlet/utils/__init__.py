"""Small helpers: seeds and one-hot labels."""

from convlet.utils.numeric import to_categorical
from convlet.utils.seeds import set_random_seed

__all__ = ["set_random_seed", "to_categorical"]
