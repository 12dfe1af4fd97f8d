"""Callbacks: what happens between the steps and epochs of fit, with Keras' names and arguments."""

from convlet.callbacks.actions import (
    CSVLogger,
    LambdaCallback,
    LearningRateScheduler,
    SwapEMAWeights,
    TerminateOnNaN,
)
from convlet.callbacks.base import Callback, CallbackList, History
from convlet.callbacks.monitors import EarlyStopping, ModelCheckpoint, Monitor, ReduceLROnPlateau

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "Monitor",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TerminateOnNaN",
]
