"""Models: Sequential, Model (functional), and reading them from files."""

from convlet.models.classify import Prediction
from convlet.models.fine_tuning import fine_tune
from convlet.models.model import Model
from convlet.models.saving import load_model
from convlet.models.sequential import Sequential
from convlet.models.trainer import NonFiniteError

__all__ = ["Model", "NonFiniteError", "Prediction", "Sequential", "fine_tune", "load_model"]
