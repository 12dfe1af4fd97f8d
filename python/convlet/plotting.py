"""Figures as files. matplotlib is loaded when the first one is drawn, and needs no screen."""

import io
from pathlib import Path
from typing import Any

from convlet.utils.files import write_whole


def new_figure(owner: str, panels: int = 1) -> tuple[Any, list[Any]]:
    """A figure with panels side by side, and these.

    Raises:
        ImportError: when matplotlib cannot be loaded; says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"{owner}: needs matplotlib: pip install 'convlet[plots]' ({error})"
        ) from None
    figure = Figure(figsize=(5.5 * panels, 4), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def write(figure: Any, path: Any, owner: str) -> None:
    """Writes a figure in the format of the path's ending; the file appears whole or not at all.

    Raises:
        ValueError: for an ending that matplotlib does not know.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(
            f"{owner}: path: expected a name that ends in one of {sorted(known)}, got {str(path)!r}"
        )
    data = io.BytesIO()
    figure.savefig(data, format=kind)
    write_whole(path, data.getvalue())
