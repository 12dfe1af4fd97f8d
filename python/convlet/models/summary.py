"""A model as a table."""

from typing import Any

from convlet.layers.core import InputLayer


def summary(model: Any, line_length: int | None, batch_size: int, show_trainable: bool) -> str:
    """The text that Model.summary prints."""
    titles = ["Layer (type)", "Output shape", "Params"]
    connected = not _is_chain(model)
    titles += ["Connected to"] if connected else []
    titles += ["Trainable"] if show_trainable else []
    rows = []
    for layer in model.layers:
        row = [f"{layer.name} ({type(layer).__name__})", _shape(model, layer)]
        row.append(f"{layer.count_params():,}" if layer.built else "not built")
        if connected:
            row.append(_sources(model, layer))
        if show_trainable:
            row.append("yes" if layer.trainable else "no")
        rows.append(row)
    lines = [f'Model: "{model.name}"', *_table(titles, rows, line_length)]
    if not model.built:
        lines.append("Not built yet: the shape of the input is not known.")
        return "\n".join(lines)
    total = model.count_params()
    trainable = sum(v.size for v in model.trainable_weights)
    lines.append(
        f"Parameters: {total:,} ({_mb(4 * total)}); trainable {trainable:,}, "
        f"not trainable {total - trainable:,}"
    )
    lines.append(_memory(model, batch_size))
    return "\n".join(lines)


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


def _nodes_of(model: Any, layer: Any) -> list[Any]:
    if isinstance(layer, InputLayer):
        return [layer.start().node]
    return [node for node in model.nodes_in_order if node.layer is layer]


def _shape(model: Any, layer: Any) -> str:
    nodes = _nodes_of(model, layer)
    shapes = [str(tensor.shape) for node in nodes[:1] for tensor in node.outputs]
    return ", ".join(shapes) if shapes else "?"


def _sources(model: Any, layer: Any) -> str:
    names = [tensor.name for node in _nodes_of(model, layer) for tensor in node.inputs]
    return ", ".join(names)


def _table(titles: list[str], rows: list[list[str]], line_length: int | None) -> list[str]:
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    if line_length is not None:  # the last column takes what is left
        widths[-1] = max(len(titles[-1]), line_length - sum(widths[:-1]) - 2 * (len(widths) - 1))
    numbers = titles.index("Params")

    def line(cells: list[str]) -> str:
        aligned = [
            cell.rjust(width) if i == numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [line(titles), rule, *(line(row) for row in rows), rule]
