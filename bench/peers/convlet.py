"""convlet, by its Keras-style API."""

from __future__ import annotations

from bench.peers import precision_of

import convlet
from convlet import Input, Model, layers, losses, optimizers

_ALL = {s: {} for s in ("default", "bfloat16", "cuda", "cuda tf32", "cuda bfloat16")}
SETTINGS = {"train": _ALL, "infer": _ALL}


def versions():
    return {"convlet": convlet.__version__}


def _build(steps, x):
    for step in steps:
        kind, *rest = step
        if kind == "conv":
            channels, size, stride, pad, bias = rest
            if pad:
                x = layers.ZeroPadding2D(pad)(x)
            x = layers.Conv2D(channels, size, strides=stride, use_bias=bias)(x)
        elif kind == "norm":
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        elif kind == "relu":
            x = layers.ReLU()(x)
        elif kind == "max_pool":
            size, stride, pad = rest
            # relu came before: a padding of zeros never wins over a value that is not negative.
            x = layers.ZeroPadding2D(pad)(x) if pad else x
            x = layers.MaxPooling2D(size, strides=stride)(x)
        elif kind == "average":
            x = layers.GlobalAveragePooling2D()(x)
        elif kind == "flatten":
            x = layers.Flatten()(x)
        elif kind == "dense":
            x = layers.Dense(rest[0])(x)
        elif kind == "residual":
            main, shortcut = rest
            x = layers.ReLU()(layers.Add()([_build(main, x), _build(shortcut, x)]))
    return x


def model_of(network, weights, **options):
    """The network with these weights; options of compile."""
    image = Input(network.input_shape)
    model = Model(image, _build(network.steps, image))
    optimizer = (
        optimizers.Adam(network.learning_rate)
        if network.optimizer == "adam"
        else optimizers.SGD(network.learning_rate, momentum=0.9)
    )
    model.compile(optimizer, losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    # In the order of the calls, which is the order of the description.
    arrays = iter(weights)
    seen = set()
    for node in model.nodes_in_order:
        for variable in node.layer.trainable_weights:
            if id(variable) not in seen:
                seen.add(id(variable))
                variable.assign(next(arrays))
    assert next(arrays, None) is None
    return model


def _options(setting):
    """What the words of a setting mean to compile."""
    device = "cuda" if "cuda" in setting.split() else "cpu"
    return {"device": device, "precision": precision_of(setting)}


def train(setting, network, weights, images, labels):
    model = model_of(network, weights, **_options(setting))
    return lambda: float(model.train_on_batch(images, labels))


def infer(setting, network, weights, images):
    model = model_of(network, weights, **_options(setting))
    return lambda: model.predict_on_batch(images)
