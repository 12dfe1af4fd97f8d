"""Fashion-MNIST: 70,000 pictures of clothes, 28x28 grey (Zalando Research, MIT licence)."""

from __future__ import annotations

from os import PathLike

from convlet.datasets.published import Parts, load_idx

_NAMES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
CLASS_NAMES = _NAMES.split(",")
URL = "https://github.com/zalandoresearch/fashion-mnist/tree/master/data/fashion"


def load_data(path: str | PathLike[str] | None = None) -> Parts:
    """((x_train, y_train), (x_test, y_test)): x uint8 (N,28,28) in 0..255, y uint8 (N,).

    path: the folder with the four published IDX files, as .gz or unpacked; None looks in
    $CONVLET_DATA/fashion_mnist, by default ~/.convlet/datasets/fashion_mnist.
    Raises FileNotFoundError that says what to download and where to put it, ValueError that names a
    broken file.
    """
    return load_idx("fashion_mnist", URL, path)
