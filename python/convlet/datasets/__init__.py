"""Data sets by name, each with Keras' `load_data()`: digits ships inside the package, the others
are
read from the published files."""

from convlet.datasets import cifar10, cifar100, digits, fashion_mnist, mnist

__all__ = ["cifar10", "cifar100", "digits", "fashion_mnist", "mnist"]
