"""MNIST: 70,000 handwritten digits, 28x28 grey (Y. LeCun, C. Cortes, C. Burges)."""

from __future__ import annotations

from os import PathLike

from convlet.datasets.published import Parts, load_idx

CLASS_NAMES = [str(digit) for digit in range(10)]
URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"


def load_data(path: str | PathLike[str] | None = None) -> Parts:
    """((x_train, y_train), (x_test, y_test)): x uint8 (N,28,28) in 0..255, y uint8 (N,).

    path: the folder with the four published IDX files, as .gz or unpacked; None looks in
    $CONVLET_DATA/mnist, by default ~/.convlet/datasets/mnist.
    Raises FileNotFoundError that says what to download and where to put it, ValueError that names a
    broken file.
    """
    return load_idx("mnist", URL, path)
