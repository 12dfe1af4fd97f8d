"""Optimizers, with Keras' names, arguments and defaults. They describe an update; the plan applies
it (formulas in csrc/ops/optimizer.h) and the model's state keeps the momenta."""

from typing import Any

from convlet.optimizers import schedules
from convlet.optimizers.base import Optimizer, Rate
from convlet.optimizers.schedules import LearningRateSchedule


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
    name, config, exempt = identifier, {}, []
    if isinstance(identifier, dict):
        name, config = identifier.get("class"), identifier.get("config", {})
        exempt = identifier.get("exempt_from_weight_decay", [])
    if isinstance(name, str) and name.lower() in NAMES:
        optimizer = NAMES[name.lower()](**config)
        if exempt:
            optimizer.exclude_from_weight_decay(var_names=exempt)
        return optimizer
    raise ValueError(
        f"optimizer: expected one of {sorted(NAMES)} or an object of convlet.optimizers, "
        f"got {identifier!r}"
    )


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """{"class", "config"}, from which ``get`` makes it again; "exempt_from_weight_decay" too where
    weights are."""
    entry = {"class": type(optimizer).__name__, "config": optimizer.get_config()}
    exempt = optimizer.exempt_from_weight_decay
    return entry | ({"exempt_from_weight_decay": exempt} if exempt else {})


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
