"""Layers, with Keras' names, arguments and defaults. Images are (N, H, W, C)."""

from convlet.layers.activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from convlet.layers.attention import MultiHeadAttention
from convlet.layers.base import Layer, SymbolicTensor
from convlet.layers.convolution import Conv2D, DepthwiseConv2D
from convlet.layers.core import Dense, Dropout, Input, InputLayer, Rescaling
from convlet.layers.input_normalization import Normalization
from convlet.layers.merging import Add, Concatenate, Multiply, add, concatenate, multiply
from convlet.layers.normalization import BatchNormalization
from convlet.layers.operation import Operation
from convlet.layers.pooling import (
    AveragePooling2D,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    MaxPooling2D,
)
from convlet.layers.random import (
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomTranslation,
    RandomZoom,
)
from convlet.layers.recurrent import GRU, LSTM, Bidirectional, SimpleRNN
from convlet.layers.reshaping import Flatten, Reshape, ZeroPadding2D

# Keras' second names.
Convolution2D = Conv2D
MaxPool2D = MaxPooling2D
AvgPool2D = AveragePooling2D
GlobalAvgPool2D = GlobalAveragePooling2D
GlobalMaxPool2D = GlobalMaxPooling2D

__all__ = [
    "Activation",
    "Add",
    "AveragePooling2D",
    "AvgPool2D",
    "BatchNormalization",
    "Bidirectional",
    "Concatenate",
    "Conv2D",
    "Convolution2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "ELU",
    "Flatten",
    "GRU",
    "GlobalAveragePooling2D",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GlobalMaxPooling2D",
    "Input",
    "InputLayer",
    "LSTM",
    "Layer",
    "LeakyReLU",
    "MaxPool2D",
    "MaxPooling2D",
    "MultiHeadAttention",
    "Multiply",
    "Normalization",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
    "ReLU",
    "Rescaling",
    "Reshape",
    "SimpleRNN",
    "Softmax",
    "SymbolicTensor",
    "ZeroPadding2D",
    "add",
    "concatenate",
    "multiply",
]

# Every layer that a saved model may contain, by class name. Nothing else can be loaded.
REGISTRY: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Activation,
        Add,
        AveragePooling2D,
        BatchNormalization,
        Bidirectional,
        Concatenate,
        Conv2D,
        Dense,
        DepthwiseConv2D,
        Dropout,
        ELU,
        Flatten,
        GRU,
        GlobalAveragePooling2D,
        GlobalMaxPooling2D,
        InputLayer,
        LSTM,
        LeakyReLU,
        MaxPooling2D,
        MultiHeadAttention,
        Multiply,
        Normalization,
        Operation,
        RandomBrightness,
        RandomContrast,
        RandomCrop,
        RandomFlip,
        RandomRotation,
        RandomTranslation,
        RandomZoom,
        ReLU,
        Rescaling,
        Reshape,
        SimpleRNN,
        Softmax,
        ZeroPadding2D,
    )
}
