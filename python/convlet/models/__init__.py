"""Models: Sequential, Model (functional), and reading them from files."""

from convlet.models.classify import Prediction
from convlet.models.fine_tuning import fine_tune
from convlet.models.model import Model
from convlet.models.rate_finder import RateSearch, lr_find
from convlet.models.saving import load_model
from convlet.models.sequential import Sequential
from convlet.models.trainer import NonFiniteError

__all__ = [
    "Model",
    "NonFiniteError",
    "Prediction",
    "RateSearch",
    "Sequential",
    "fine_tune",
    "load_model",
    "lr_find",
]
