"""Data sets that know their classes and their preprocessing, and models that remember them.

A data set's `preprocessing` is None where no Preprocessing describes how its files become x.
"""

from typing import Any


def is_dataset(data: Any) -> bool:
    """Whether data is like convlet.data.ImageDataset."""
    return hasattr(data, "aligned_to") and hasattr(data, "preprocessing")


def matched(model: Any, data: Any, owner: str) -> Any:
    """The data set with its labels in the order of the model's classes.

    Raises ValueError when the classes do not match by name, or when its images are prepared in
    another way than those that the model learned from.
    """
    known, here = model.preprocessing, data.preprocessing
    if known is not None and here is not None and known != here and not _is_cropped(data):
        raise ValueError(
            f"{owner}: x: expected images prepared as the model's, {known}, got {here}; set "
            "model.preprocessing where the change is meant"
        )
    if model.class_names is None or len(model.outputs) > 1:
        return data
    return data.aligned_to(model.class_names)


def remember(model: Any, data: Any) -> None:
    """Class names and preprocessing of what a model learns from go with it."""
    if model.preprocessing is None and data.preprocessing is not None:
        if _is_cropped(data):
            raise ValueError(
                f"fit: x: an augmentation crops {data.preprocessing.input_shape} to "
                f"{data.example.shape[1:]}: set model.preprocessing to what predict is to do with "
                "whole images"
            )
        model.preprocessing = data.preprocessing
    if model.class_names is None and data.class_names is not None and len(model.outputs) == 1:
        model.class_names = data.class_names


def _is_cropped(data: Any) -> bool:
    """Whether an augmentation gives images of another size, so that the preprocessing of the data
    is not the model's."""
    return data.example.shape[1:] != data.preprocessing.input_shape
