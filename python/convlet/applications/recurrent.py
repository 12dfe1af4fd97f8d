"""Recurrent classifiers, which read an image row by row: Hochreiter and Schmidhuber, Long
Short-Term Memory, 1997; Cho and others, Learning Phrase Representations using RNN Encoder-Decoder,
arXiv:1406.1078."""

from typing import Any

from convlet.applications.start import Scale, Shape, first_layers
from convlet.layers import GRU, LSTM, Dense, Reshape
from convlet.models import Sequential


def lstm_classifier(
    input_shape: Shape = (28, 28, 1),
    classes: int = 10,
    *,
    units: int = 128,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """An LSTM over the rows of the image; its state after the last one is classified."""
    first = first_layers("lstm_classifier", input_shape, classes, scale)
    chain = _over_rows(LSTM(units), input_shape, classes, classifier_activation)
    return Sequential(first + chain, name="lstm_classifier")


def gru_classifier(
    input_shape: Shape = (28, 28, 1),
    classes: int = 10,
    *,
    units: int = 128,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """A GRU over the rows of the image; its state after the last one is classified."""
    first = first_layers("gru_classifier", input_shape, classes, scale)
    chain = _over_rows(GRU(units), input_shape, classes, classifier_activation)
    return Sequential(first + chain, name="gru_classifier")


def _over_rows(
    recurrent: Any, input_shape: Shape, classes: int, classifier_activation: str | None
) -> list[Any]:
    height, width, channels = input_shape
    return [
        Reshape((height, width * channels)),
        recurrent,
        Dense(classes, activation=classifier_activation),
    ]
