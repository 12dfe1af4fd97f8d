"""A model as a table."""

import shutil
import sys
import textwrap
from dataclasses import dataclass
from typing import Any

from convlet.layers.core import InputLayer
from convlet.layers.operation import Operation
from convlet.layers.tracing import networks_of
from convlet.models.network import Network
from convlet.models.work import flops

WIDTH = 110  # where there is no terminal

# Which columns give way where the table is too wide, and down to what.
GIVING_WAY = (
    *(("Layer (type)", 36), ("Connected to", 24), ("Layer (type)", 24), ("Output shape", 16)),
    *(("Connected to", 12), ("Layer (type)", 12)),
)


@dataclass
class _Table:
    """The columns of a summary that it has."""

    connected: bool
    trainable: bool
    nested: bool
    work: dict[int, int]

    @property
    def titles(self) -> list[str]:
        titles = ["Layer (type)", "Output shape", "Params", "MFLOP"]
        titles += ["Connected to"] if self.connected else []
        return titles + (["Trainable"] if self.trainable else [])

    def rows(self, network: Network, layers: list[Any], indent: str = "") -> list[list[str]]:
        """The layers of a network, and with ``nested`` theirs below them."""
        rows = []
        for layer in layers:
            nodes = [node for node in network.nodes if node.layer is layer]
            if isinstance(layer, InputLayer):
                nodes = [layer.start().node]
            row = [
                f"{indent}{layer.name} ({kind(layer)})",
                ", ".join(dict.fromkeys(str(t.shape) for node in nodes for t in node.outputs)),
                f"{layer.count_params():,}" if layer.built else "not built",
                _mflop(self.work.get(id(layer), 0)),
            ]
            if self.connected:
                row.append(", ".join(tensor.name for node in nodes for tensor in node.inputs))
            if self.trainable:
                row.append("" if not layer.weights else "yes" if layer.trainable else "frozen")
            rows.append(row)
            for inner in networks_of(layer)[:1] if self.nested else []:
                inside = [part for part in inner.layers if not isinstance(part, InputLayer)]
                rows += self.rows(inner, inside, indent + "  ")
        return rows


def kind(layer: Any) -> str:
    """What a layer is: its class, or the op that it stands for."""
    return f"ops.{layer.label}" if isinstance(layer, Operation) else type(layer).__name__


def summary(
    model: Any,
    line_length: int | None,
    batch_size: int,
    show_trainable: bool,
    expand_nested: bool,
) -> str:
    """The text that Model.summary prints."""
    total, work = flops(model) if model.built else (0, {})
    frozen = any(layer.weights and not layer.trainable for layer in model.layers)
    table = _Table(not _is_chain(model), show_trainable or frozen, expand_nested, work)
    layers = model.network_layers if table.connected else model.layers
    rows = table.rows(model._network, layers)
    width = _terminal_width() if line_length is None else line_length
    lines = [f'Model: "{model.name}"', *_lines(table.titles, rows, width)]
    if not model.built:
        lines.append("Not built yet: the shape of the input is not known.")
        return "\n".join(lines)
    count = model.count_params()
    trainable = sum(v.size for v in model.trainable_weights)
    lines.append(
        f"Parameters: {count:,} ({_mb(4 * count)}); trainable {trainable:,}, "
        f"not trainable {count - trainable:,}"
    )
    lines.append(f"Arithmetic: {_mflop(total) or 0} MFLOP per sample, forward")
    lines.append(_memory(model, batch_size))
    return "\n".join(lines)


def _terminal_width() -> int:
    return shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH


def _memory(model: Any, batch_size: int) -> str:
    engine = model._engine()
    parts = []
    modes = (("training", "train"),) if model.compiled and engine.trains else ()
    for title, mode in (*modes, ("inference", "predict")):
        memory = engine.new_plan(mode, batch_size).memory()
        needed = ("parameters", "activations", "workspace")
        if mode == "train":
            needed += ("gradients", "optimizer")
        parts.append(f"{title} {_mb(sum(memory[name] for name in needed))}")
    return f"Memory at batch size {batch_size}: {', '.join(parts)}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _mflop(flop: int) -> str:
    """Millions; nothing for 0."""
    if flop == 0:
        return ""
    if flop < 1e4:
        return "<0.01"
    return f"{flop / 1e6:,.0f}" if flop >= 1e8 else f"{flop / 1e6:.{1 if flop >= 1e7 else 2}f}"


def _is_chain(model: Any) -> bool:
    """Whether each layer takes just what the one before it made."""
    if not model.built:
        return True
    previous = model.inputs[0].node
    for node in model.nodes_in_order:
        if [tensor.node for tensor in node.inputs] != [previous]:
            return False
        previous = node
    return len(model.inputs) == 1


def _lines(titles: list[str], rows: list[list[str]], limit: int) -> list[str]:
    """The table; where it would be wider than ``limit`` its columns of texts are wrapped."""
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    numbers = [titles.index("Params"), titles.index("MFLOP")]
    for column, least in GIVING_WAY:
        if column in titles:
            excess = sum(widths) + 2 * (len(widths) - 1) - limit
            i = titles.index(column)
            widths[i] = min(widths[i], max(least, widths[i] - max(0, excess)))
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def lines(cells: list[str]) -> list[str]:
        wrapped = [_wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
        height = max(map(len, wrapped))
        result = []
        for k in range(height):
            parts = [column[k] if k < len(column) else "" for column in wrapped]
            aligned = [
                part.rjust(width) if i in numbers else part.ljust(width)
                for i, (part, width) in enumerate(zip(parts, widths, strict=True))
            ]
            result.append("  ".join(aligned).rstrip())
        return result

    body = [line for row in rows for line in lines(row)]
    return [*lines(titles), rule, *body, rule]


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width``; those after the first are indented."""
    if len(text) <= width:
        return [text]
    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(
        text.lstrip(), width, initial_indent=indent, subsequent_indent=indent + "  "
    )
