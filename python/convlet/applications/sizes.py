"""The sizes of image that each network takes. Imports nothing: the command line reads it too."""

# The smallest side that leaves every layer at least one cell; 1 for networks that are not listed.
SMALLEST = {
    "alexnet": 63,
    "cifar_cnn": 18,
    "cifar_small": 10,
    "convnext_tiny": 32,
    "densenet121": 29,
    "googlenet": 15,
    "img224": 10,
    "inception_v3": 75,
    "lenet": 12,
    "mnist_cnn": 18,
    "vgg11": 32,
    "vgg16": 32,
}
