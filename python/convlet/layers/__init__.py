"""Layers, with Keras' names, arguments and defaults. Images are (N, H, W, C)."""

from convlet.layers.activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from convlet.layers.attention import MultiHeadAttention
from convlet.layers.base import Layer, SymbolicTensor
from convlet.layers.convolution import Conv2D, DepthwiseConv2D
from convlet.layers.core import Dense, Input, InputLayer, Rescaling
from convlet.layers.dropout import Dropout, SpatialDropout2D, StochasticDepth
from convlet.layers.input_normalization import Normalization
from convlet.layers.layer_scale import LayerScale
from convlet.layers.merging import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    maximum,
    minimum,
    multiply,
    subtract,
)
from convlet.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    InstanceNormalization,
    LayerNormalization,
)
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
from convlet.layers.reshaping import (
    Cropping2D,
    Flatten,
    Permute,
    Reshape,
    UpSampling2D,
    ZeroPadding2D,
)
from convlet.layers.separable import SeparableConv2D
from convlet.layers.tokens import ClassToken, FirstToken, PatchEmbedding, PositionEmbedding

# Keras' second names.
Convolution2D = Conv2D
MaxPool2D = MaxPooling2D
SeparableConvolution2D = SeparableConv2D
AvgPool2D = AveragePooling2D
GlobalAvgPool2D = GlobalAveragePooling2D
GlobalMaxPool2D = GlobalMaxPooling2D

__all__ = [
    "Activation",
    "Add",
    "Average",
    "AveragePooling2D",
    "AvgPool2D",
    "BatchNormalization",
    "Bidirectional",
    "ClassToken",
    "Concatenate",
    "Conv2D",
    "Convolution2D",
    "Cropping2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "ELU",
    "FirstToken",
    "Flatten",
    "GRU",
    "GlobalAveragePooling2D",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GlobalMaxPooling2D",
    "GroupNormalization",
    "Input",
    "InputLayer",
    "LSTM",
    "InstanceNormalization",
    "Layer",
    "LayerNormalization",
    "LayerScale",
    "LeakyReLU",
    "MaxPool2D",
    "MaxPooling2D",
    "MultiHeadAttention",
    "Maximum",
    "Minimum",
    "Multiply",
    "Normalization",
    "PatchEmbedding",
    "Permute",
    "PositionEmbedding",
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
    "SeparableConv2D",
    "SimpleRNN",
    "Softmax",
    "SpatialDropout2D",
    "StochasticDepth",
    "Subtract",
    "SymbolicTensor",
    "UpSampling2D",
    "ZeroPadding2D",
    "add",
    "average",
    "concatenate",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]

# Every layer that a saved model may contain, by class name. Nothing else can be loaded.
REGISTRY: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Activation,
        Add,
        Average,
        AveragePooling2D,
        BatchNormalization,
        Bidirectional,
        ClassToken,
        Concatenate,
        Conv2D,
        Cropping2D,
        Dense,
        DepthwiseConv2D,
        Dropout,
        ELU,
        FirstToken,
        Flatten,
        GRU,
        GlobalAveragePooling2D,
        GlobalMaxPooling2D,
        GroupNormalization,
        InputLayer,
        LSTM,
        InstanceNormalization,
        LayerNormalization,
        LayerScale,
        LeakyReLU,
        MaxPooling2D,
        MultiHeadAttention,
        Maximum,
        Minimum,
        Multiply,
        Normalization,
        Operation,
        PatchEmbedding,
        Permute,
        PositionEmbedding,
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
        SeparableConv2D,
        SimpleRNN,
        Softmax,
        SpatialDropout2D,
        StochasticDepth,
        Subtract,
        UpSampling2D,
        ZeroPadding2D,
    )
}
