"""JAX on the CPU, the whole step under one jit; in bfloat16 with float32 master weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from bench.peers import KEEP, precision_of

_ALL = {"jit": {}, "jit keep": KEEP, "jit bfloat16 keep": KEEP}
SETTINGS = {"train": _ALL, "infer": _ALL}


def versions():
    return {"jax": jax.__version__}


def _forward(steps, x, arrays, training):
    for step in steps:
        kind, *rest = step
        if kind == "conv":
            _, _, stride, pad, bias = rest
            x = jax.lax.conv_general_dilated(
                x,
                next(arrays),
                (stride, stride),
                [(pad, pad)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = x + next(arrays) if bias else x
        elif kind == "norm":
            gamma, beta = next(arrays), next(arrays)
            wide = x.astype(jnp.float32)
            mean = wide.mean((0, 1, 2)) if training else 0.0
            variance = wide.var((0, 1, 2)) if training else 1.0
            y = (wide - mean) * (gamma * jax.lax.rsqrt(variance + 1e-5)) + beta
            x = y.astype(x.dtype)
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "max_pool":
            size, stride, pad = rest
            x = jax.lax.reduce_window(
                x,
                -jnp.inf,
                jax.lax.max,
                (1, size, size, 1),
                (1, stride, stride, 1),
                [(0, 0), (pad, pad), (pad, pad), (0, 0)],
            )
        elif kind == "average":
            x = x.mean((1, 2))
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "dense":
            x = x @ next(arrays) + next(arrays)
        elif kind == "residual":
            main = _forward(rest[0], x, arrays, training)
            x = jax.nn.relu(main + _forward(rest[1], x, arrays, training))
    return x


def _logits(network, setting, x, parameters, training):
    if precision_of(setting) == "bfloat16":
        parameters = [p.astype(jnp.bfloat16) for p in parameters]
        x = x.astype(jnp.bfloat16)
    logits = _forward(network.steps, x, iter(parameters), training)
    return logits.astype(jnp.float32)


def _update(network, parameters, gradients, state):
    rate = network.learning_rate
    if network.optimizer == "sgd":
        state = [0.9 * v + g for v, g in zip(state, gradients, strict=True)]
        return [p - rate * v for p, v in zip(parameters, state, strict=True)], state
    count, means, squares = state
    count = count + 1
    means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients, strict=True)]
    squares = [0.999 * s + 0.001 * g * g for s, g in zip(squares, gradients, strict=True)]
    rate = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    moved = [
        p - rate * m / (jnp.sqrt(s) + 1e-8)
        for p, m, s in zip(parameters, means, squares, strict=True)
    ]
    return moved, (count, means, squares)


def train(setting, network, weights, images, labels):
    x, y = jnp.asarray(images), jnp.asarray(labels)
    parameters = [jnp.asarray(a) for a in weights]
    zeros = [jnp.zeros_like(p) for p in parameters]
    state = zeros if network.optimizer == "sgd" else (jnp.float32(0), zeros, zeros)

    def loss_of(parameters, x, y):
        logits = _logits(network, setting, x, parameters, True)
        return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()

    @jax.jit
    def update(parameters, state, x, y):
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        return loss, *_update(network, parameters, gradients, state)

    def step():
        nonlocal parameters, state
        loss, parameters, state = update(parameters, state, x, y)
        return float(loss)

    return step


def infer(setting, network, weights, images):
    x, parameters = jnp.asarray(images), [jnp.asarray(a) for a in weights]
    forward = jax.jit(lambda p, x: _logits(network, setting, x, p, False))
    return lambda: jax.device_get(forward(parameters, x))
