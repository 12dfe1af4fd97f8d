"""Drawings of models."""

from dataclasses import dataclass, field
from typing import Any

from convlet import plotting
from convlet.layers.base import Layer, Node
from convlet.layers.core import InputLayer
from convlet.layers.operation import Operation
from convlet.layers.tracing import networks_of
from convlet.models.network import Network
from convlet.utils.layout import layout

# Sizes in inches, of texts in points.
TITLE, SMALL = 9.0, 7.0
LINE, PADDING, CHARACTER = 0.165, 0.09, 0.062
LARGEST = 30000  # pixels

# Fills by what a layer does: the first name that its class or op contains.
COLOURS = (
    (("Input",), "#e8e8e8"),
    (("Conv", "Dense", "dense", "conv", "matmul", "LSTM", "GRU", "RNN", "Attention"), "#cfe2f3"),
    (("Normalization",), "#e6dcf2"),
    (("Pool", "pool", "UpSampling"), "#d5ead7"),
    (("Add", "Multiply", "Concatenate", "add", "multiply", "concatenate", "stack"), "#fbe5cd"),
    (("Activation", "ReLU", "Softmax", "ELU", "relu", "softmax", "sigmoid", "tanh"), "#fff3cf"),
)


@dataclass
class _Box:
    """Layers that follow each other, drawn as one."""

    nodes: list[Node] = field(default_factory=list)

    @property
    def layer(self) -> Layer:
        return self.nodes[0].layer

    def lines(self, shapes: bool, names: bool, frozen: bool) -> list[tuple[str, bool]]:
        """(text, whether it is a title)."""
        result = []
        for node in self.nodes:
            mark = " (frozen)" if frozen and node.layer.weights and not node.layer.trainable else ""
            result.append((describe(node.layer) + mark, True))
            if names and node.layer.name != describe(node.layer):
                result.append((node.layer.name, False))
        if shapes:
            result.append((", ".join(_shape(shape) for shape in self.nodes[-1].shapes), False))
        return result


def plot_model(
    model: Any,
    to_file: Any = "model.png",
    show_shapes: bool = False,
    show_layer_names: bool = False,
    expand_nested: bool = False,
    dpi: int = 200,
    show_trainable: bool = False,
    *,
    compact: bool = True,
) -> None:
    """Draws the layers of a model and what flows between them.

    Args:
        to_file: ends in .svg, .png, .pdf or another format of matplotlib's. It appears whole or not
            at all.
        show_shapes: the shape of what each box makes, without the batch axis.
        show_layer_names: the names beside the kinds.
        expand_nested: the layers inside of models and of layers written with ``call``.
        dpi: pixels per inch; less where the picture would be too large.
        show_trainable: marks what is frozen.
        compact: layers that only follow one another (convolution, normalization, activation) share
            a box.

    Raises:
        ImportError: when matplotlib is missing; says how to install it.
        ValueError: for a model that is not built, or another ending.
    """
    owner = "plot_model"
    if not model.built:
        raise ValueError(
            f"{owner}: {model.owner}: expected a built model; give its input shape or data"
        )
    figure, (axes,) = plotting.new_figure(owner)
    boxes, edges = _boxes(*_calls(model, expand_nested), compact)
    texts = [box.lines(show_shapes, show_layer_names, show_trainable) for box in boxes]
    sizes = [_size(lines) for lines in texts]
    placed = layout(sizes, edges)
    width, height = placed.width + 0.4, placed.height + 0.4
    figure.set_layout_engine("none")
    figure.set_size_inches(width, height)
    axes.set_position([0, 0, 1, 1])
    axes.set(xlim=(-0.2, width - 0.2), ylim=(height - 0.2, -0.2))
    axes.axis("off")
    for points in placed.edges.values():
        _draw_edge(axes, points)
    for box, lines, size, centre in zip(boxes, texts, sizes, placed.boxes, strict=True):
        _draw_box(axes, _colour(box.layer), lines, size, centre)
    figure.set_dpi(min(dpi, LARGEST / max(width, height)))
    plotting.write(figure, to_file, owner)


def describe(layer: Any) -> str:
    """What a layer is, in a few words: "Conv2D 3x3, 64, stride 2"."""
    if isinstance(layer, Operation):
        return layer.label
    parts = []
    window = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    if window is not None:
        parts.append("x".join(map(str, window)))
    for attribute in ("filters", "units", "rate"):
        if getattr(layer, attribute, None) is not None:
            parts.append(str(getattr(layer, attribute)))
    strides = getattr(layer, "strides", None)
    if strides is not None and (window is None or strides != _usual_stride(layer, window)):
        parts.append("stride " + "x".join(map(str, dict.fromkeys(strides))))
    activation = getattr(layer, "activation", None)
    if isinstance(activation, str) and type(layer).__name__.lower() != activation:
        parts.append(activation)
    return f"{type(layer).__name__} {', '.join(parts)}".strip()


def _usual_stride(layer: Any, window: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(window) if hasattr(layer, "pool_size") else (1,) * len(window)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _calls(model: Any, expand: bool) -> tuple[list[Node], list[tuple[int, int]]]:
    """The calls to draw, each after those that it needs, and the pairs of them that are joined."""
    nodes: list[Node] = []
    edges: list[tuple[int, int]] = []

    def walk(network: Network, made: dict[tuple[int, int], int]) -> None:
        for node in network.nodes:
            sources = [made[id(t.node), t.index] for t in node.inputs]
            inner = _inside(node) if expand else None
            if inner is None:
                nodes.append(node)
                edges.extend((source, len(nodes) - 1) for source in sources)
                made |= {(id(node), i): len(nodes) - 1 for i in range(len(node.shapes))}
            else:
                begin = zip(inner.inputs, sources, strict=True)
                within = {(id(t.node), t.index): source for t, source in begin}
                walk(inner, within)
                for i, tensor in enumerate(inner.outputs):
                    made[id(node), i] = within[id(tensor.node), tensor.index]

    start: dict[tuple[int, int], int] = {}
    for tensor in model.inputs:
        start[id(tensor.node), tensor.index] = len(nodes)
        nodes.append(tensor.node)
    walk(model._network, start)
    return nodes, list(dict.fromkeys(edges))


def _inside(node: Node) -> Any:
    """What a call of a model, or of a layer written with ``call``, consists of; None for others."""
    shapes = [tensor.sample_shape for tensor in node.inputs]
    for network in networks_of(node.layer):
        if [tensor.sample_shape for tensor in network.inputs] == shapes:
            return network
    return None


def _boxes(
    nodes: list[Node], edges: list[tuple[int, int]], compact: bool
) -> tuple[list[_Box], list[tuple[int, int]]]:
    """The boxes and the edges between them: with ``compact`` a call that has no weights of its own,
    or normalizes, joins the only one that it needs, if no other needs that."""
    needs: list[list[int]] = [[] for _ in nodes]
    uses = [0] * len(nodes)
    for a, b in edges:
        needs[b].append(a)
        uses[a] += 1
    boxes: list[_Box] = []
    box_of: dict[int, int] = {}
    for i, node in enumerate(nodes):
        follows = compact and len(needs[i]) == 1 and uses[needs[i][0]] == 1 and _light(node.layer)
        if follows and not isinstance(nodes[needs[i][0]].layer, InputLayer):
            box_of[i] = box_of[needs[i][0]]
        else:
            box_of[i] = len(boxes)
            boxes.append(_Box())
        boxes[box_of[i]].nodes.append(node)
    joined = [(box_of[a], box_of[b]) for a, b in edges if box_of[a] != box_of[b]]
    return boxes, list(dict.fromkeys(joined))


def _light(layer: Any) -> bool:
    """Whether a layer is a small thing that goes with the one before it."""
    small = ("Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "Dropout", "SpatialDropout2D")
    kind = type(layer).__name__
    unary = isinstance(layer, Operation) and layer.op in ("activation", "scale", "unary", "reshape")
    return kind in small or kind.endswith("Normalization") or unary


def _colour(layer: Any) -> str:
    kind = layer.label if isinstance(layer, Operation) else type(layer).__name__
    for names, colour in COLOURS:
        if any(name in kind for name in names):
            return colour
    return "#ffffff"


def _size(lines: list[tuple[str, bool]]) -> tuple[float, float]:
    """Of a box around texts, in inches."""
    widths = [len(text) * CHARACTER * (1.12 if title else 0.85) for text, title in lines]
    return max(0.9, max(widths) + 2 * PADDING), len(lines) * LINE + 2 * PADDING


def _draw_box(
    axes: Any,
    colour: str,
    lines: list[tuple[str, bool]],
    size: tuple[float, float],
    centre: tuple[float, float],
) -> None:
    from matplotlib.patches import FancyBboxPatch

    (width, height), (x, y) = size, centre
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(
        FancyBboxPatch(
            corner, width, height, style, facecolor=colour, edgecolor="#666666", linewidth=0.7
        )
    )
    for i, (text, title) in enumerate(lines):
        axes.text(
            x,
            corner[1] + PADDING + (i + 0.5) * LINE,
            text,
            ha="center",
            va="center",
            fontsize=TITLE if title else SMALL,
            color="#111111" if title else "#555555",
        )


def _draw_edge(axes: Any, points: list[tuple[float, float]]) -> None:
    """A smooth line through the points, which leaves and arrives upright."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        middle = (y0 + y1) / 2
        if x0 == x1:
            vertices.append((x1, y1))
            codes.append(Path.LINETO)
        else:
            vertices += [(x0, middle), (x1, middle), (x1, y1)]
            codes += [Path.CURVE4] * 3
    axes.add_patch(
        FancyArrowPatch(
            path=Path(vertices, codes),
            arrowstyle="-|>",
            mutation_scale=7,
            color="#555555",
            linewidth=0.9,
            shrinkA=0,
            shrinkB=0,
        )
    )
