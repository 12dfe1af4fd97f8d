"""MNIST: 70,000 handwritten digits, 28x28 grey (Y. LeCun, C. Cortes, C. Burges)."""

from __future__ import annotations

from os import PathLike

from convlet.datasets.published import Parts, load_idx

CLASS_NAMES = [str(digit) for digit in range(10)]
URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MD5 = (  # of train images, train labels, test images, test labels
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)


def load_data(path: str | PathLike[str] | None = None) -> Parts:
    """((x_train, y_train), (x_test, y_test)): x uint8 (N,28,28) in 0..255, y uint8 (N,).

    path: the folder with the four published IDX files, as .gz or unpacked.
    None looks in $CONVLET_DATA/mnist, by default ~/.convlet/datasets/mnist, and
    fetches there what is missing, with its checksum ($CONVLET_OFFLINE forbids that, $CONVLET_MIRROR
    is another place to fetch from).
    Raises FileNotFoundError that says what to download and where to put it, ValueError that names a
    broken file.
    """
    return load_idx("mnist", URL, MD5, path)
