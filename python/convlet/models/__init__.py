"""Models: Sequential, Model (functional), reading them from files, and cross-validation."""

from convlet.models.classify import Prediction
from convlet.models.crossval import CrossValidation, crossval
from convlet.models.fine_tuning import fine_tune
from convlet.models.model import Model
from convlet.models.rate_finder import RateSearch, lr_find
from convlet.models.saving import load_model
from convlet.models.sequential import Sequential
from convlet.models.trainer import NonFiniteError

__all__ = [
    "CrossValidation",
    "Model",
    "NonFiniteError",
    "Prediction",
    "RateSearch",
    "Sequential",
    "crossval",
    "fine_tune",
    "load_model",
    "lr_find",
]
