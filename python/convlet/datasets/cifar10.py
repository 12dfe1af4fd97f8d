"""CIFAR-10: 60,000 colour pictures of ten kinds of things, 32x32 (A. Krizhevsky, 2009)."""

from __future__ import annotations

from os import PathLike

from convlet.datasets.published import CifarArchive, Parts, load_cifar

_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
CLASS_NAMES = _NAMES.split()
ARCHIVE = CifarArchive(
    name="cifar10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    label_classes=(10,),
    label_keys=(b"labels",),
)


def load_data(path: str | PathLike[str] | None = None) -> Parts:
    """((x_train, y_train), (x_test, y_test)): x uint8 (N,32,32,3) in 0..255, y uint8 (N,1).

    path: the published cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or the
    folder with it or with its files.
    None looks in $CONVLET_DATA/cifar10, by default ~/.convlet/datasets/cifar10, and
    fetches there what is missing, with its checksum ($CONVLET_OFFLINE forbids that, $CONVLET_MIRROR
    is another place to fetch from).
    Raises FileNotFoundError that says what to download and where to put it, ValueError that names a
    broken file.
    """
    return load_cifar(ARCHIVE, path)
