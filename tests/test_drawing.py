"""Layouts of graphs, and models drawn to files."""

import itertools
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import convlet
from convlet import layers
from convlet.utils import plot_model
from convlet.utils.layout import SIDE_GAP, layout
from test_custom_layers import Net


def residual():
    x = convlet.Input((8, 8, 4), name="image")
    y = layers.Conv2D(4, 3, padding="same")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(4, 3, padding="same")(y)
    return convlet.Model(x, layers.ReLU()(layers.Add()([x, y])))


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 9))
    edges = [
        (a, b)
        for a, b in itertools.combinations(range(count), 2)
        if b == a + 1 or draw(st.booleans())
    ]
    side = st.floats(0.5, 3.0)
    return [(draw(side), draw(side)) for _ in range(count)], edges


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_no_boxes_touch_and_edges_point_down(graph):
    sizes, edges = graph
    placed = layout(sizes, edges)
    for (i, (x0, y0)), (j, (x1, y1)) in itertools.combinations(enumerate(placed.boxes), 2):
        apart_x = abs(x0 - x1) - (sizes[i][0] + sizes[j][0]) / 2
        apart_y = abs(y0 - y1) - (sizes[i][1] + sizes[j][1]) / 2
        assert apart_x > SIDE_GAP - 1e-6 or apart_y > 1e-6
    for (w, h), (x, y) in zip(sizes, placed.boxes, strict=True):
        assert w / 2 - 1e-6 <= x <= placed.width - w / 2 + 1e-6
        assert h / 2 - 1e-6 <= y <= placed.height - h / 2 + 1e-6
    assert set(placed.edges) == set(edges)
    for (a, b), points in placed.edges.items():
        assert points[0] == (placed.boxes[a][0], placed.boxes[a][1] + sizes[a][1] / 2)
        assert points[-1] == (placed.boxes[b][0], placed.boxes[b][1] - sizes[b][1] / 2)
        heights = [y for _, y in points]
        assert heights == sorted(heights)


def test_chains_are_straight_and_blocks_do_not_drift():
    sizes = [(1.0, 0.5)] * 8
    chain = layout(sizes, [(i, i + 1) for i in range(7)])
    assert len({x for x, _ in chain.boxes}) == 1
    edges = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (2, 4), (4, 5), (5, 6), (4, 6), (6, 7)]
    blocks = layout(sizes, edges)
    joins = [blocks.boxes[i][0] for i in (0, 2, 4, 6, 7)]
    np.testing.assert_allclose(joins, joins[0], atol=1e-6)


def test_crossings_are_undone():
    # Two pairs that cross when the boxes stay in the order of their numbers.
    placed = layout([(1.0, 1.0)] * 5, [(0, 1), (0, 2), (1, 4), (2, 3)])
    x = [x for x, _ in placed.boxes]
    assert (x[1] < x[2]) == (x[4] < x[3])


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_drawing_is_written(tmp_path, ending):
    path = tmp_path / f"model.{ending}"
    residual().plot(path)
    assert path.stat().st_size > 2000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if ending == "png":
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.shape[0] > 200
        assert (pixels == (0xCF, 0xE2, 0xF3)).all(-1).any()  # a convolution's fill


def texts(path):
    """The texts of an SVG, which matplotlib writes as comments beside the outlines."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def test_what_a_drawing_says(tmp_path):
    path = tmp_path / "model.svg"
    plot_model(residual(), path)
    assert texts(path)[:2] == ["InputLayer", "Conv2D 3x3, 4"]
    assert "BatchNormalization" in texts(path)
    assert "8 x 8 x 4" not in texts(path)
    model = residual()
    model.layers[1].trainable = False
    plot_model(model, path, show_shapes=True, show_layer_names=True, show_trainable=True)
    for text in ("8 x 8 x 4", "image", "conv2d_1", "Conv2D 3x3, 4 (frozen)"):
        assert text in texts(path)
    plot_model(model, path, compact=False)
    assert len(texts(path)) == len(model.layers)


def test_layers_inside_layers(tmp_path):
    model = Net()
    model.build((None, 8, 8, 1))
    path = tmp_path / "model.svg"
    model.plot(path)
    assert "Residual" in texts(path)
    model.plot(path, expand_nested=True)
    assert "Residual" not in texts(path)
    assert texts(path).count("add") == 2
    outer = convlet.Sequential([layers.Input((8, 8, 1)), model, layers.Softmax()])
    outer.plot(path, expand_nested=True)
    assert texts(path).count("Conv2D 3x3, 6") == 4


def test_errors(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="plot_model: .*expected a built model"):
        plot_model(convlet.Sequential([layers.Dense(3)]), tmp_path / "m.png")
    with pytest.raises(ValueError, match="plot_model: path: expected a name that ends in one of"):
        plot_model(residual(), tmp_path / "m.txt")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plot_model: needs matplotlib: pip install 'convlet\["):
        plot_model(residual(), tmp_path / "m.png")
    assert list(tmp_path.iterdir()) == []
