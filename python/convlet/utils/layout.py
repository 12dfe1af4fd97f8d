"""Where to draw the boxes of a graph whose edges all point down: in layers, with few crossings and
straight edges (Sugiyama, Tagawa & Toda 1981)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

SWEEPS = 12
SIDE_GAP, LAYER_GAP = 0.35, 0.45
EDGE_WIDTH = 0.25  # the room that an edge takes where it passes a layer
BOX_WEIGHT = 6.0  # how much more a box resists being moved aside than an edge around it


@dataclass
class Layout:
    """boxes: the centre of each box; y grows downwards. edges: by (from, to), the points that an
    edge goes through, from the bottom of one box to the top of the other."""

    boxes: list[tuple[float, float]]
    edges: dict[tuple[int, int], list[tuple[float, float]]]
    width: float = 0.0
    height: float = 0.0


@dataclass
class _Graph:
    """The boxes, and a place in each layer that an edge passes; all edges join neighbour layers."""

    widths: list[float]
    layer: list[int]
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)
    chains: dict[tuple[int, int], list[int]] = field(default_factory=dict)


def layout(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """Places boxes of these sizes (width, height), which are numbered so that each edge leads to a
    larger number."""
    graph = _layered(sizes, edges)
    order = _ordered(graph)
    x = _aligned(graph, order)
    heights = [0.0] * len(order)
    for box, (_, height) in enumerate(sizes):
        heights[graph.layer[box]] = max(heights[graph.layer[box]], height)
    middles, y = [], 0.0
    for height in heights:
        middles.append(y + height / 2)
        y += height + LAYER_GAP
    left = min(x[i] - graph.widths[i] / 2 for i in range(len(x)))
    boxes = [(x[i] - left, middles[graph.layer[i]]) for i in range(len(sizes))]
    paths = {}
    for (a, b), chain in graph.chains.items():
        points = [(boxes[a][0], boxes[a][1] + sizes[a][1] / 2)]
        for i in chain:
            half = heights[graph.layer[i]] / 2
            points += [(x[i] - left, middles[graph.layer[i]] + s * half) for s in (-1, 1)]
        points.append((boxes[b][0], boxes[b][1] - sizes[b][1] / 2))
        paths[a, b] = points
    right = max(x[i] + graph.widths[i] / 2 for i in range(len(x)))
    return Layout(boxes, paths, right - left, y - LAYER_GAP)


def _layered(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> _Graph:
    """Each box in the layer below the lowest that it needs; sources sink to what needs them."""
    count = len(sizes)
    layer = [0] * count
    for a, b in sorted(edges, key=lambda edge: edge[1]):
        layer[b] = max(layer[b], layer[a] + 1)
    needed = {b for _, b in edges}
    for box in range(count):
        uses = [layer[b] for a, b in edges if a == box]
        if box not in needed and uses:
            layer[box] = min(uses) - 1
    graph = _Graph([width for width, _ in sizes], layer)
    for a, b in dict.fromkeys(edges):
        chain = []
        for level in range(layer[a] + 1, layer[b]):
            chain.append(len(graph.layer))
            graph.layer.append(level)
            graph.widths.append(EDGE_WIDTH)
        graph.chains[a, b] = chain
    graph.above = [[] for _ in graph.layer]
    graph.below = [[] for _ in graph.layer]
    for (a, b), chain in graph.chains.items():
        path = [a, *chain, b]
        for upper, lower in zip(path, path[1:], strict=False):
            graph.below[upper].append(lower)
            graph.above[lower].append(upper)
    return graph


def _ordered(graph: _Graph) -> list[list[int]]:
    """The boxes of each layer from left to right: sorted by the mean place of their neighbours,
    down and up again, and the order with the fewest crossings is kept."""
    order: list[list[int]] = [[] for _ in range(max(graph.layer) + 1)]
    for i, level in enumerate(graph.layer):
        order[level].append(i)
    best, fewest = [list(level) for level in order], _crossings(graph, order)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        neighbours = graph.above if down else graph.below
        for level in order if down else order[::-1]:
            place = {i: k for row in order for k, i in enumerate(row)}
            mean = {
                i: sum(place[j] for j in neighbours[i]) / len(neighbours[i])
                if neighbours[i]
                else place[i]
                for i in level
            }
            level.sort(key=lambda i: mean[i])
        crossings = _crossings(graph, order)
        if crossings < fewest:
            best, fewest = [list(level) for level in order], crossings
    return best


def _crossings(graph: _Graph, order: list[list[int]]) -> int:
    place = {i: k for row in order for k, i in enumerate(row)}
    total = 0
    for row in order:
        ends = [place[j] for i in row for j in sorted(graph.below[i], key=lambda j: place[j])]
        total += sum(a > b for k, a in enumerate(ends) for b in ends[k + 1 :])
    return total


def _aligned(graph: _Graph, order: list[list[int]]) -> list[float]:
    """The x of each box: as near to those above it, and in the sweeps up to those below it, as the
    order and the gaps allow. The last sweep goes down, so that chains are straight."""
    weight = [BOX_WEIGHT] * len(graph.layer)
    for (a, _), chain in graph.chains.items():
        for i in chain:
            # An edge that leaves a fork gives way; one that ends a branch stands for the branch.
            weight[i] = 1.0 if len(graph.below[a]) > 1 else BOX_WEIGHT
    x = [0.0] * len(graph.layer)
    for sweep in range(2 * SWEEPS + 1):
        down = sweep % 2 == 0
        neighbours = graph.above if down else graph.below
        for row in order if down else order[::-1]:
            wanted = []
            for i in row:
                near = neighbours[i]
                total = sum(weight[j] for j in near)
                wanted.append(sum(weight[j] * x[j] for j in near) / total if near else x[i])
            placed = _apart([graph.widths[i] for i in row], wanted, [weight[i] for i in row])
            for i, at in zip(row, placed, strict=True):
                x[i] = at
    return x


def _apart(
    widths: Sequence[float], wanted: Sequence[float], weights: Sequence[float]
) -> list[float]:
    """The places nearest to the wanted ones (weighted least squares) that keep the order and the
    gaps: an isotonic regression of what is left when the least distances are taken off."""
    offsets = [0.0]
    for a, b in zip(widths, widths[1:], strict=False):
        offsets.append(offsets[-1] + (a + b) / 2 + SIDE_GAP)
    blocks: list[tuple[float, float, int]] = []  # mean, weight and count of those that touch
    for want, offset, own in zip(wanted, offsets, weights, strict=True):
        block = (want - offset, own, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, weight, count = blocks.pop()
            total = weight + block[1]
            block = ((mean * weight + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    places = [mean for mean, _, count in blocks for _ in range(count)]
    return [place + offset for place, offset in zip(places, offsets, strict=True)]
