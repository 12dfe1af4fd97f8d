"""From files and arrays to what a model takes: preprocessing, sources of samples, splits."""

from convlet.data.preprocessing import Preprocessing
from convlet.data.shift import ShiftedBatches
from convlet.data.sources import Source, open_source
from convlet.data.split import assign_parts, stratified_split

__all__ = [
    "Preprocessing",
    "ShiftedBatches",
    "Source",
    "assign_parts",
    "open_source",
    "stratified_split",
]
