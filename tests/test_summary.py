"""Model.summary."""

import re

import pytest

import convlet
from convlet import applications, layers
from convlet.models.work import flops
from test_custom_layers import Net


def text_of(model, **options):
    lines = []
    model.summary(print_fn=lines.append, **options)
    return lines[0]


# Published multiplications of one 224 x 224 image, torchvision's documentation, in GFLOP / 2.
@pytest.mark.parametrize(("name", "giga"), [("resnet18", 1.81), ("mobilenet_v2", 0.30)])
def test_arithmetic_is_as_published(name, giga):
    total, _ = flops(getattr(applications, name)())
    assert total / 2e9 == pytest.approx(giga, rel=0.01)


def test_arithmetic_of_every_kind():
    inputs = convlet.Input((6, 8))
    x = layers.LSTM(5, return_sequences=True)(inputs)
    y = layers.MultiHeadAttention(2, 3)(x, x)
    z = layers.Dense(4)(layers.Flatten()(y))
    model = convlet.Model(inputs, z)
    lstm = 6 * (8 * 20 + 5 * 20)
    attention = 3 * 6 * 5 * 6 + 6 * 6 * (6 + 6) + 6 * 6 * 5
    assert flops(model)[0] == 2 * (lstm + attention + 30 * 4)
    product = convlet.Model([inputs], convlet.ops.matmul(inputs, inputs, transpose_b=True))
    assert flops(product)[0] == 2 * 6 * 6 * 8


def test_a_table_keeps_to_its_width():
    model = applications.resnet18_cifar(input_shape=(32, 32, 3), classes=10)
    for width in (70, 80, 100):
        text = text_of(model, line_length=width)
        assert max(len(line) for line in text.splitlines()[1:-3]) <= width
        assert re.search(r"^conv1 \(Conv2D\) .* 1,728 +3\.54 ", text, re.M)
    assert "Arithmetic: 1,111 MFLOP per sample, forward" in text


def test_nested_layers_and_frozen_ones():
    model = Net()
    model.build((None, 8, 8, 1))
    assert "Trainable" not in text_of(model)
    assert re.search(
        r"^residual \(Residual\) +\(None, 6, 6, 6\) +660 +0\.05$", text_of(model), re.M
    )
    nested = text_of(model, expand_nested=True)
    assert re.search(r"^  conv2d_1 \(Conv2D\) +\(None, 6, 6, 6\) +330 ", nested, re.M)
    assert re.search(r"^  add \(ops\.add\) +\(None, 6, 6, 6\) +0$", nested, re.M)
    model.blocks[0].trainable = False
    frozen = text_of(model)
    assert re.search(r"^residual \(Residual\) .* frozen$", frozen, re.M)
    assert re.search(r"^residual_1 \(Residual\) .* yes$", frozen, re.M)
    assert "not trainable 660" in frozen
