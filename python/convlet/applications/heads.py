"""Several heads on the features of one network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convlet.applications.start import Scale, Shape
from convlet.layers import Dense
from convlet.models import Model


def multi_task(
    network: Callable[..., Model],
    input_shape: Shape,
    tasks: Mapping[str, int],
    *,
    scale: Scale = 1.0,
) -> Model:
    """One of these networks with a softmax head for each task in place of its last dense layer.

    Args:
        network: one of the functions of convlet.applications, such as resnet18.
        tasks: {name of the output: number of its classes}.
        scale: as the networks take it.

    Returns:
        A Model whose outputs bear the names of the tasks; compile takes one loss for all, or a dict
        by these names.

    Raises:
        ValueError: for a network that does not end in a dense layer (nin), or no tasks.
    """
    if not tasks:
        raise ValueError("multi_task: tasks: expected at least one, got none")
    one = network(input_shape, 2, scale=scale, classifier_activation=None)
    last: Any = one.outputs[0].node
    if not isinstance(last.layer, Dense):
        raise ValueError(
            f"multi_task: network: expected one that ends in a dense layer, got {one.name}, "
            f"which ends in {type(last.layer).__name__}"
        )
    features = last.inputs[0]
    heads = {
        name: Dense(classes, activation="softmax", name=name)(features)
        for name, classes in tasks.items()
    }
    return Model(one.inputs, heads, name=one.name)
