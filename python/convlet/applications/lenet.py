"""LeNet-5: LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document
Recognition, 1998."""

from convlet.applications.start import Scale, Shape, first_layers
from convlet.layers import AveragePooling2D, Conv2D, Dense, Flatten
from convlet.models import Sequential


def lenet(
    input_shape: Shape = (32, 32, 1),
    classes: int = 10,
    *,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Sequential:
    """LeNet-5 in its usual form: tanh, average pooling, every map connected; 61,706 parameters.

    Images below 32x32, such as MNIST's 28x28, get two pixels of zeros on every side, as in the
    paper.
    """
    first = first_layers("lenet", input_shape, classes, scale)
    padding = "same" if min(input_shape[:2]) < 32 else "valid"
    return Sequential(
        [
            *first,
            Conv2D(6, 5, padding=padding, activation="tanh", name="c1"),
            AveragePooling2D(name="s2"),
            Conv2D(16, 5, activation="tanh", name="c3"),
            AveragePooling2D(name="s4"),
            Flatten(),
            Dense(120, activation="tanh", name="c5"),
            Dense(84, activation="tanh", name="f6"),
            Dense(classes, activation=classifier_activation, name="output"),
        ],
        name="lenet",
    )
