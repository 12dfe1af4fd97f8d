"""tinygrad on the CPU, the step under its own jit."""

from __future__ import annotations

import importlib.metadata

from tinygrad import Tensor, TinyJit, dtypes, nn

# Its optimizers insist on TRAINING.
SETTINGS = {"train": {"jit": {"TRAINING": "1"}}, "infer": {"jit": {}}}


def versions():
    return {"tinygrad": importlib.metadata.version("tinygrad")}


def _forward(steps, x, arrays, training):
    """x is (N,C,H,W); kernels are (K,C,R,S)."""
    for step in steps:
        kind, *rest = step
        if kind == "conv":
            _, _, stride, pad, bias = rest
            kernel = next(arrays)
            x = x.conv2d(kernel, next(arrays) if bias else None, stride=stride, padding=pad)
        elif kind == "norm":
            gamma, beta = next(arrays), next(arrays)
            if training:
                mean = x.mean((0, 2, 3))
                inverse = x.var((0, 2, 3), correction=0).add(1e-5).rsqrt()
            else:
                mean, inverse = Tensor.zeros(x.shape[1]), Tensor.full(x.shape[1], 1.00001**-0.5)
            x = x.batchnorm(gamma, beta, mean, inverse)
        elif kind == "relu":
            x = x.relu()
        elif kind == "max_pool":
            size, stride, pad = rest
            x = x.max_pool2d((size, size), stride, padding=pad)
        elif kind == "average":
            x = x.mean((2, 3))
        elif kind == "flatten":
            x = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)
        elif kind == "dense":
            x = x.matmul(next(arrays)).add(next(arrays))
        elif kind == "residual":
            main = _forward(rest[0], x, arrays, training)
            x = (main + _forward(rest[1], x, arrays, training)).relu()
    return x


def _tensors(weights):
    return [Tensor(a.transpose(3, 2, 0, 1).copy() if a.ndim == 4 else a).realize() for a in weights]


def train(setting, network, weights, images, labels):
    parameters = _tensors(weights)
    for parameter in parameters:
        parameter.requires_grad = True
    x = Tensor(images.transpose(0, 3, 1, 2).copy()).realize()
    y = Tensor(labels.astype("int32"), dtype=dtypes.int32).realize()
    if network.optimizer == "adam":
        optimizer = nn.optim.Adam(parameters, network.learning_rate)
    else:
        optimizer = nn.optim.SGD(parameters, network.learning_rate, momentum=0.9)

    @TinyJit
    def update():
        optimizer.zero_grad()
        logits = _forward(network.steps, x, iter(parameters), True)
        loss = logits.sparse_categorical_crossentropy(y).backward()
        return loss.realize(*optimizer.schedule_step())

    return lambda: update().item()


def infer(setting, network, weights, images):
    parameters, x = _tensors(weights), Tensor(images.transpose(0, 3, 1, 2).copy()).realize()
    forward = TinyJit(lambda x: _forward(network.steps, x, iter(parameters), False).realize())
    return lambda: forward(x).numpy()
