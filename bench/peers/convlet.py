"""convlet, by its Keras-style API."""

from __future__ import annotations

import os
import time

import numpy as np
from bench.peers import BATCHES_OF_EPOCH, precision_of

import convlet
from convlet import Input, Model, _core, callbacks, layers, losses, optimizers

_ALL = {s: {} for s in ("default", "bfloat16", "cuda", "cuda tf32", "cuda bfloat16")}
SETTINGS = {"train": _ALL | {"winograd": {}}, "infer": _ALL}


def versions():
    return {"convlet": convlet.__version__}


def gpu():
    """The device of the settings with "cuda"; in tests that is the emulator."""
    library = os.environ.get("CONVLET_SIMT_LIBRARY")
    if not library:
        return "cuda"
    name = _core.load_device(library)
    _core.set_op_device(name)
    return name


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
    device = gpu() if "cuda" in setting.split() else "cpu"
    winograd = "always" if "winograd" in setting.split() else "inference"
    return {"device": device, "precision": precision_of(setting), "winograd": winograd}


class _EndsOfEpochs(callbacks.Callback):
    """When each epoch ended; training ends after `seconds` and at least `least` epochs."""

    def __init__(self, seconds, least):
        super().__init__()
        self.until, self.least, self.times = time.perf_counter() + seconds, least, []

    def on_epoch_end(self, epoch, logs=None):
        self.times.append(time.perf_counter())
        if len(self.times) > self.least and self.times[-1] > self.until:
            self.model.stop_training = True


def train(setting, network, weights, images, labels):
    model = model_of(network, weights, **_options(setting))

    def step():
        return float(model.train_on_batch(images, labels))

    def epochs(seconds, least):
        """The time of a step in each epoch of `fit`, the first one apart."""
        x = np.concatenate([images] * BATCHES_OF_EPOCH)
        y = np.concatenate([labels] * BATCHES_OF_EPOCH)
        ends = _EndsOfEpochs(seconds, least)
        model.fit(x, y, batch_size=len(images), epochs=10**6, verbose=0, callbacks=[ends])
        return list(1e3 * np.diff(ends.times) / BATCHES_OF_EPOCH)

    if "cuda" in setting.split():
        step.times = epochs
    return step


def infer(setting, network, weights, images):
    model = model_of(network, weights, **_options(setting))
    return lambda: model.predict_on_batch(images)
