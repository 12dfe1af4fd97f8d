"""What ``training`` means in the call of a layer."""

from typing import Any

import numpy as np

from convlet.layers import arguments


class Training:
    """What a traced ``call`` is given for ``training``: to be passed on to other layers."""

    def __bool__(self) -> bool:
        raise TypeError(
            "training has no value here: one plan is made of call() for training and inference. "
            "Pass it on to layers that know the difference (Dropout, BatchNormalization)"
        )

    def __eq__(self, other: Any) -> bool:
        return bool(self)

    __hash__ = object.__hash__


TRAINING = Training()


def keeps_training(owner: str, training: Any) -> bool:
    """Whether a call with this ``training`` is as the model is run: None, or what a traced call()
    passes on. False is for inference always; ValueError for True."""
    if training is None or training is TRAINING:
        return True
    if isinstance(training, (bool, np.bool_)) and not training:
        return False
    raise arguments.expected(
        owner, "training", "None (as the model is run) or False (always as in inference)", training
    )
