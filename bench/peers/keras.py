"""TensorFlow with Keras layers: a step or a call under tf.function, under XLA, and Keras' own step.

Keras' `fit` as people write it is in `bench epoch`.
"""

from __future__ import annotations

import keras
import tensorflow as tf
from bench.peers import KEEP

SETTINGS = {
    "train": {
        "function": {},
        "function keep": KEEP,
        "xla keep": KEEP,
        "train_on_batch keep": KEEP,
    },
    "infer": {"function": {}, "function keep": KEEP, "xla keep": KEEP},
}


def versions():
    return {"tensorflow": tf.__version__, "keras": keras.__version__}


def _build(steps, x):
    layers = keras.layers
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
            x = layers.ZeroPadding2D(pad)(x) if pad else x
            x = layers.MaxPooling2D(size, strides=stride)(x)
        elif kind == "average":
            x = layers.GlobalAveragePooling2D()(x)
        elif kind == "flatten":
            x = layers.Flatten()(x)
        elif kind == "dense":
            x = layers.Dense(rest[0])(x)
        elif kind == "residual":
            x = layers.ReLU()(layers.Add()([_build(rest[0], x), _build(rest[1], x)]))
    return x


def model_of(network, weights):
    image = keras.Input(network.input_shape)
    model = keras.Model(image, _build(network.steps, image))
    arrays = iter(weights)
    for operation in model.operations:  # in the order of the calls
        for variable in operation.trainable_variables:
            variable.assign(next(arrays))
    assert next(arrays, None) is None
    return model


def train(setting, network, weights, images, labels):
    model = model_of(network, weights)
    if network.optimizer == "adam":
        optimizer = keras.optimizers.Adam(network.learning_rate, epsilon=1e-7)
    else:
        optimizer = keras.optimizers.SGD(network.learning_rate, momentum=0.9)
    if setting.startswith("train_on_batch"):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        return lambda: float(model.train_on_batch(images, labels))
    optimizer.build(model.trainable_variables)
    x, y = tf.constant(images), tf.constant(labels)

    @tf.function(jit_compile=setting.startswith("xla"))
    def update(x, y):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            )
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return lambda: float(update(x, y))


def infer(setting, network, weights, images):
    model, x = model_of(network, weights), tf.constant(images)
    forward = tf.function(lambda x: model(x, training=False), jit_compile="xla" in setting)
    return lambda: forward(x).numpy()
