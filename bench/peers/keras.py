"""TensorFlow with Keras layers: a step or a call under tf.function, under XLA, and a step by Keras'
`fit` and train_on_batch; bfloat16 by Keras' policy mixed_bfloat16.

Keras' `fit` as people write it is in `bench epoch`.
"""

from __future__ import annotations

import time

import keras
import tensorflow as tf
from bench.peers import BATCHES_OF_EPOCH, KEEP, precision_of

SETTINGS = {
    "train": {
        "function": {},
        "function keep": KEEP,
        "xla keep": KEEP,
        "fit keep": KEEP,
        "train_on_batch keep": KEEP,
        "function bfloat16 keep": KEEP,
    },
    "infer": {
        "function": {},
        "function keep": KEEP,
        "xla keep": KEEP,
        "function bfloat16 keep": KEEP,
    },
}


def versions():
    return {"tensorflow": tf.__version__, "keras": keras.__version__}


def _build(steps, x, made):
    """made gets the layers with weights, in the order of the description."""

    def layer(new, x):
        made.append(new)
        return new(x)

    layers = keras.layers
    for step in steps:
        kind, *rest = step
        if kind == "conv":
            channels, size, stride, pad, bias = rest
            if pad:
                x = layers.ZeroPadding2D(pad)(x)
            x = layer(layers.Conv2D(channels, size, strides=stride, use_bias=bias), x)
        elif kind == "norm":
            x = layer(layers.BatchNormalization(momentum=0.9, epsilon=1e-5), x)
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
            x = layer(layers.Dense(rest[0]), x)
        elif kind == "residual":
            both = [_build(part, x, made) for part in rest]
            x = layers.ReLU()(layers.Add()(both))
    return x


def model_of(network, weights, setting):
    # The setting is the process's own.
    mixed = precision_of(setting) == "bfloat16"
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else "float32")
    image = keras.Input(network.input_shape)
    made = []
    model = keras.Model(image, _build(network.steps, image, made))
    arrays = iter(weights)
    for layer in made:
        for variable in layer.trainable_variables:
            variable.assign(next(arrays))
    assert next(arrays, None) is None
    return model


def train(setting, network, weights, images, labels):
    model = model_of(network, weights, setting)
    if network.optimizer == "adam":
        optimizer = keras.optimizers.Adam(network.learning_rate, epsilon=1e-7)
    else:
        optimizer = keras.optimizers.SGD(network.learning_rate, momentum=0.9)
    if setting.startswith(("fit", "train_on_batch")):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        if setting.startswith("fit"):
            return _fit(model, images, labels)
        return lambda: float(model.train_on_batch(images, labels))
    optimizer.build(model.trainable_variables)
    x, y = tf.constant(images), tf.constant(labels)

    @tf.function(jit_compile=setting.startswith("xla"))
    def update(x, y):
        with tf.GradientTape() as tape:
            logits = tf.cast(model(x, training=True), tf.float32)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            )
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return lambda: float(update(x, y))


def _fit(model, images, labels):
    """A step by `fit`, from a tf.data.Dataset; its times are those of steps within an epoch."""
    data = tf.data.Dataset.from_tensors((images, labels))
    epoch = data.repeat(BATCHES_OF_EPOCH)

    def step():
        return model.fit(data, verbose=0).history["loss"][0]

    def epochs(seconds, least):
        ends = []
        until = time.perf_counter() + seconds

        def end(*_):
            ends.append(time.perf_counter())
            model.stop_training = len(ends) > least and ends[-1] > until

        watch = keras.callbacks.LambdaCallback(on_epoch_end=end)
        model.fit(epoch, epochs=10**6, verbose=0, callbacks=[watch])
        # The first epoch has the start of `fit` in it.
        pairs = zip(ends, ends[1:], strict=False)
        return [1e3 * (after - before) / BATCHES_OF_EPOCH for before, after in pairs]

    step.times = epochs
    return step


def infer(setting, network, weights, images):
    model, x = model_of(network, weights, setting), tf.constant(images)
    forward = tf.function(
        lambda x: tf.cast(model(x, training=False), tf.float32), jit_compile="xla" in setting
    )
    return lambda: forward(x).numpy()
