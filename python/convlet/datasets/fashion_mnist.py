"""Fashion-MNIST: 70,000 pictures of clothes, 28x28 grey (Zalando Research, MIT licence)."""

from __future__ import annotations

from os import PathLike

from convlet.datasets.published import Parts, load_idx

_NAMES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
CLASS_NAMES = _NAMES.split(",")
URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
MD5 = (  # of train images, train labels, test images, test labels
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)


def load_data(path: str | PathLike[str] | None = None) -> Parts:
    """((x_train, y_train), (x_test, y_test)): x uint8 (N,28,28) in 0..255, y uint8 (N,).

    path: the folder with the four published IDX files, as .gz or unpacked.
    None looks in $CONVLET_DATA/fashion_mnist, by default ~/.convlet/datasets/fashion_mnist, and
    fetches there what is missing, with its checksum ($CONVLET_OFFLINE forbids that, $CONVLET_MIRROR
    is another place to fetch from).
    Raises FileNotFoundError that says what to download and where to put it, ValueError that names a
    broken file.
    """
    return load_idx("fashion_mnist", URL, MD5, path)
