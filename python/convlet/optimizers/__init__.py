"""Optimizers, with Keras' names, arguments and defaults. They describe an update; the plan applies
it (formulas in csrc/ops/optimizer.h) and the model's state keeps the momenta."""

import math
from collections.abc import Callable
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
        global_clipnorm: all gradients together are scaled down to at most this norm.

    Raises:
        ValueError: for a number out of its range, and for what convlet does not have (clipvalue,
            use_ema, loss scaling, gradient accumulation).
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
        name: str | None = None,
        **others: Any,
    ):
        self.name = type(self).__name__ if name is None else name
        for argument, value in {"clipvalue": clipvalue, **others}.items():
            known = argument in ("clipvalue", "loss_scale_factor", "gradient_accumulation_steps")
            known = known or argument.startswith("ema_") or argument in ("use_ema", "amsgrad")
            if not known:
                raise TypeError(f"{self.name}: unexpected argument {argument!r}")
            if value not in (None, False) and argument not in ("ema_momentum",):
                raise ValueError(
                    f"{self.name}: {argument}: expected {None if value is not True else False}, "
                    f"got {value!r}: convlet does not have it (clipnorm and global_clipnorm it has)"
                )
        if clipnorm is not None and global_clipnorm is not None:
            raise ValueError(
                f"{self.name}: expected clipnorm or global_clipnorm, got both "
                f"({clipnorm!r} and {global_clipnorm!r})"
            )
        self.weight_decay = self._number("weight_decay", weight_decay or 0.0)
        self.clipnorm = self._number("clipnorm", clipnorm, optional=True)
        self.global_clipnorm = self._number("global_clipnorm", global_clipnorm, optional=True)
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

    def bind(self, state: Any) -> None:
        """Tells the state which update it shall make; its momenta become zero."""
        spec = self.spec()
        spec["weight_decay"] = self.weight_decay
        spec["clip_norm"] = self.clipnorm or 0.0
        spec["global_clip_norm"] = self.global_clipnorm or 0.0
        state.set_optimizer(spec)
        self._state = state

    def spec(self) -> dict[str, Any]:
        """The plan's description of the update, without what every optimizer has."""
        raise NotImplementedError

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
            "global_clipnorm": self.global_clipnorm,
            "name": self.name,
        }

    @property
    def rate_is_writable(self) -> bool:
        """Whether get_config holds the learning rate exactly."""
        return not callable(self._rate) or type(self._rate).__name__ in schedules.NAMES


class SGD(Optimizer):
    """v = momentum * v - lr * g;  p += v, or with nesterov p += momentum * v - lr * g."""

    kind = "sgd"
    default_rate = 0.01

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.momentum = self._number("momentum", momentum, below=1)
        self.nesterov = bool(nesterov)

    def spec(self) -> dict[str, Any]:
        return {"kind": "sgd", "momentum": self.momentum, "nesterov": self.nesterov}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"momentum": self.momentum, "nesterov": self.nesterov}


class RMSprop(Optimizer):
    """v = rho * v + (1 - rho) * g^2;  p -= lr * g / (sqrt(v) + epsilon)."""

    kind = "rmsprop"

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.rho = self._number("rho", rho, below=1)
        self.momentum = self._number("momentum", momentum, below=1)
        self.epsilon = self._number("epsilon", epsilon)
        self.centered = bool(centered)

    def spec(self) -> dict[str, Any]:
        return {
            "kind": "rmsprop",
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }


class Adam(Optimizer):
    """Kingma & Ba 2015, with epsilon outside the bias correction ("epsilon hat") as in Keras."""

    kind = "adam"

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, amsgrad=amsgrad, **kwargs)
        self.beta_1 = self._number("beta_1", beta_1, below=1)
        self.beta_2 = self._number("beta_2", beta_2, below=1)
        self.epsilon = self._number("epsilon", epsilon)

    def spec(self) -> dict[str, Any]:
        return {
            "kind": "adam",
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, **kwargs)


NAMES: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "sgd": SGD,
}


def get(identifier: Any) -> Optimizer:
    """The optimizer for a name, a {"class", "config"} dict or an Optimizer; ValueError
    otherwise."""
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        return identifier()
    name, config = identifier, {}
    if isinstance(identifier, dict):
        name, config = identifier.get("class"), identifier.get("config", {})
    if isinstance(name, str) and name.lower() in NAMES:
        return NAMES[name.lower()](**config)
    raise ValueError(
        f"optimizer: expected one of {sorted(NAMES)} or an object of convlet.optimizers, "
        f"got {identifier!r}"
    )


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """{"class", "config"}, from which ``get`` makes it again."""
    return {"class": type(optimizer).__name__, "config": optimizer.get_config()}


__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "LearningRateSchedule",
    "Optimizer",
    "RMSprop",
    "get",
    "schedules",
    "serialize",
]
