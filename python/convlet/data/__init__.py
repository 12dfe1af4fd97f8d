"""From files and arrays to what a model takes: preprocessing, sources, splits, batches."""

from convlet.data.augmentation import Augmentation, AugmentedBatches
from convlet.data.dataset import ImageDataset
from convlet.data.mixing import CutMix, MixUp, RandomChoice
from convlet.data.preprocessing import Preprocessing
from convlet.data.sampling import BalancedSampler, balanced_weights
from convlet.data.source import Source, Task
from convlet.data.sources import open_source
from convlet.data.split import assign_parts, stratified_split

__all__ = [
    "Augmentation",
    "AugmentedBatches",
    "BalancedSampler",
    "CutMix",
    "ImageDataset",
    "MixUp",
    "Preprocessing",
    "RandomChoice",
    "Source",
    "Task",
    "assign_parts",
    "balanced_weights",
    "open_source",
    "stratified_split",
]
