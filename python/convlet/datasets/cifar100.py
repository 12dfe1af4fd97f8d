"""CIFAR-100: 60,000 colour pictures, 32x32, of 100 kinds in 20 groups (A. Krizhevsky, 2009)."""

from __future__ import annotations

from os import PathLike

from convlet.datasets.published import CifarArchive, Parts, load_cifar

_NAMES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
    plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES = _NAMES.split()
ARCHIVE = CifarArchive(
    name="cifar100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    train=("train.bin",),
    test=("test.bin",),
    label_classes=(20, 100),
    label_keys=(b"coarse_labels", b"fine_labels"),
)
LABEL_BYTES = {"coarse": 0, "fine": 1}


def load_data(label_mode: str = "fine", path: str | PathLike[str] | None = None) -> Parts:
    """((x_train, y_train), (x_test, y_test)): x uint8 (N,32,32,3) in 0..255, y uint8 (N,1).

    label_mode: "fine" (100 classes) or "coarse" (20 groups).
    path: the published cifar-100-binary.tar.gz or cifar-100-python.tar.gz, or the
    folder with it or with its files.
    None looks in $CONVLET_DATA/cifar100, by default ~/.convlet/datasets/cifar100, and
    fetches there what is missing, with its checksum ($CONVLET_OFFLINE forbids that, $CONVLET_MIRROR
    is another place to fetch from).
    Raises FileNotFoundError that says what to download and where to put it, ValueError that names a
    broken file or another label_mode.
    """
    if label_mode not in LABEL_BYTES:
        raise ValueError(
            f"cifar100: expected label_mode in {sorted(LABEL_BYTES)}, got {label_mode!r}"
        )
    return load_cifar(ARCHIVE, path, LABEL_BYTES[label_mode])
