"""Optimizer: what all optimizers share."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convlet.optimizers import schedules
from convlet.optimizers.schedules import LearningRateSchedule

Rate = float | LearningRateSchedule | Callable[[int], float]


class Optimizer:
    """Base.

    Args:
        learning_rate: a number, a schedule of ``convlet.optimizers.schedules``, or any function
            from the number of updates made so far to a rate.
        weight_decay: p -= learning_rate * weight_decay * p before the update (decoupled).
        clipnorm: the gradient of each weight is scaled down to at most this norm.
        clipvalue: each element of the gradients is limited to [-clipvalue, clipvalue].
        global_clipnorm: all gradients together are scaled down to at most this norm.
        use_ema: keeps a running average of the trainable weights, which becomes the weights at the
            end of fit. ``callbacks.SwapEMAWeights`` evaluates with it before that.
        ema_momentum: m in average = m * average + (1 - m) * weight after each update; the first one
            sets average = weight.
        ema_overwrite_frequency: the weights become the average after every so many updates.
        gradient_accumulation_steps: the update is made once for so many batches, with the mean of
            their gradients. Batches that are left at the end of an epoch count for the next one.

    Raises:
        ValueError: for a number out of its range, for more than one of the clips, and for what
            convlet does not have (loss scaling, amsgrad).
    """

    kind: str
    default_rate = 0.001

    def __init__(
        self,
        learning_rate: Rate | None = None,
        *,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **others: Any,
    ):
        self.name = type(self).__name__ if name is None else name
        for argument, value in others.items():
            if argument not in ("loss_scale_factor", "amsgrad"):
                raise TypeError(f"{self.name}: unexpected argument {argument!r}")
            if value not in (None, False):
                raise ValueError(
                    f"{self.name}: {argument}: expected {None if value is not True else False}, "
                    f"got {value!r}: convlet does not have it"
                )
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {argument: value for argument, value in clips.items() if value is not None}
        if len(given) > 1:
            raise ValueError(
                f"{self.name}: expected one of clipnorm, clipvalue and global_clipnorm, got {given}"
            )
        self.weight_decay = self._number("weight_decay", weight_decay or 0.0)
        self.clipnorm = self._number("clipnorm", clipnorm, optional=True)
        self.clipvalue = self._number("clipvalue", clipvalue, optional=True)
        self.global_clipnorm = self._number("global_clipnorm", global_clipnorm, optional=True)
        self.use_ema = bool(use_ema)
        self.ema_momentum = self._number("ema_momentum", ema_momentum)
        if self.ema_momentum > 1:
            raise ValueError(
                f"{self.name}: ema_momentum: expected a number in [0, 1], got {ema_momentum!r}"
            )
        self.ema_overwrite_frequency = self._count(
            "ema_overwrite_frequency", ema_overwrite_frequency, least=1
        )
        self.gradient_accumulation_steps = self._count(
            "gradient_accumulation_steps", gradient_accumulation_steps, least=2
        )
        self._exempt: list[str] = []  # regular expressions of weights without weight decay
        self._exempt_variables: list[Any] = []
        self._state: Any = None  # of the model that is being trained
        self._rate: Any = None
        self._set_rate(self.default_rate if learning_rate is None else learning_rate)

    def _number(
        self, argument: str, value: Any, below: float = math.inf, optional: bool = False
    ) -> Any:
        if optional and value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise ValueError(f"{self.name}: {argument}: expected a number, got {value!r}")
        if not 0 <= value < below or (optional and value == 0):
            limits = f"in [0, {below:g})" if below < math.inf else f"{'>' if optional else '>='} 0"
            raise ValueError(f"{self.name}: {argument}: expected a number {limits}, got {value!r}")
        return float(value)

    def _count(self, argument: str, value: Any, least: int) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(
                f"{self.name}: {argument}: expected None or an integer of at least {least}, "
                f"got {value!r}"
            )
        return int(value)

    # The learning rate.

    def _set_rate(self, value: Any) -> None:
        if isinstance(value, dict):
            cls = schedules.NAMES.get(value.get("class", ""))
            if cls is None:
                raise ValueError(
                    f"{self.name}: learning_rate: expected a schedule of "
                    f"{sorted(schedules.NAMES)}, got {value!r}"
                )
            value = cls(**value.get("config", {}))
        if callable(value):
            self._rate = value
        else:
            self._rate = self._number("learning_rate", value)

    @property
    def iterations(self) -> int:
        """How many updates the model that this optimizer trains has had."""
        return 0 if self._state is None else int(self._state.updates)

    @property
    def learning_rate(self) -> float:
        """The rate of the next update. It can be set at any time, unless it follows a schedule."""
        return float(self._rate(self.iterations)) if callable(self._rate) else self._rate

    @learning_rate.setter
    def learning_rate(self, value: Rate) -> None:
        if isinstance(self._rate, LearningRateSchedule):
            raise TypeError(
                f"{self.name}: learning_rate: it follows a {type(self._rate).__name__}; "
                "compile with a number to set it by hand"
            )
        self._set_rate(value)

    lr = learning_rate

    # Weight decay.

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Exempts weights from weight decay: ``exclude_from_weight_decay(var_names=["bias"])``.

        Args:
            var_list: weights of layers, such as ``layer.bias``.
            var_names: regular expressions that are searched for in the names of the weights, which
                are "<layer>/<weight>": "bias", "gamma|beta", "^dense/".

        Raises:
            ValueError: once the optimizer has begun to train a model, and when training begins if
                a name fits no weight of it.
        """
        if self._state is not None:
            raise ValueError(
                f"{self.name}: exclude_from_weight_decay: expected to be called before the model "
                "is trained"
            )
        if isinstance(var_names, str):
            raise ValueError(
                f"{self.name}: exclude_from_weight_decay: var_names: expected a list of strings, "
                f"got {var_names!r}"
            )
        self._exempt += [str(name) for name in var_names or []]
        self._exempt_variables += list(var_list or [])

    @property
    def exempt_from_weight_decay(self) -> list[str]:
        """Regular expressions of the names of the weights that are exempt."""
        return list(self._exempt)

    def decays(self, name: str, variable: Any) -> bool:
        """Whether weight decay applies to a weight."""
        if any(variable is exempt for exempt in self._exempt_variables):
            self._exempt_variables = [v for v in self._exempt_variables if v is not variable]
            self._exempt.append(f"^{re.escape(name)}$")
        return not any(re.search(pattern, name) for pattern in self._exempt)

    def check_exclusions(self, names: Sequence[str]) -> None:
        """ValueError unless everything that is exempt is among the weights of these names."""
        idle = [p for p in self._exempt if not any(re.search(p, name) for name in names)]
        if idle or self._exempt_variables:
            raise ValueError(
                f"{self.name}: exclude_from_weight_decay: expected weights among {list(names)}, "
                f"got {idle or self._exempt_variables}"
            )

    def average_is_due(self, batches: int) -> bool:
        """Whether after so many batches the weights shall become their running average."""
        frequency = self.ema_overwrite_frequency
        if not self.use_ema or frequency is None:
            return False
        return batches % (frequency * (self.gradient_accumulation_steps or 1)) == 0

    # The plan's side.

    def bind(self, state: Any) -> None:
        """Tells the state which update it shall make; its momenta become zero."""
        state.set_optimizer(
            self.spec()
            | {
                "weight_decay": self.weight_decay,
                "clip_norm": self.clipnorm or 0.0,
                "clip_value": self.clipvalue or 0.0,
                "global_clip_norm": self.global_clipnorm or 0.0,
                "accumulation_steps": self.gradient_accumulation_steps or 1,
                "average": self.use_ema,
                "average_momentum": self.ema_momentum,
            }
        )
        self._state = state

    def spec(self) -> dict[str, Any]:
        """The plan's description of the update, without what every optimizer has."""
        raise NotImplementedError

    # Saving.

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments. A learning rate that is a plain function cannot be written
        down: the rate of the moment stands for it."""
        rate: Any = self.learning_rate
        if type(self._rate).__name__ in schedules.NAMES:
            rate = {"class": type(self._rate).__name__, "config": self._rate.get_config()}
        return {
            "learning_rate": rate,
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "clipvalue": self.clipvalue,
            "global_clipnorm": self.global_clipnorm,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "name": self.name,
        }

    @property
    def rate_is_writable(self) -> bool:
        """Whether get_config holds the learning rate exactly."""
        return not callable(self._rate) or type(self._rate).__name__ in schedules.NAMES
