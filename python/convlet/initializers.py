"""Initial values of weights, with Keras' names, formulas and defaults.

The scaled ones follow Glorot & Bengio 2010 and He et al. 2015. fan_in and fan_out of a kernel are
the sizes of its last two axes times the product of the others (Keras' rule for every layer).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet.utils.seeds import generator

F32 = NDArray[np.float32]

# The standard deviation of a unit normal that is cut at two standard deviations.
_TRUNCATED_STDDEV = 0.87962566103423978


class Initializer:
    """Base: ``initializer(shape, seed) -> float32 array``. ``seed`` is the weight's own seed, drawn
    from the root seed; an initializer made with a seed of its own ignores it."""

    def __init__(self, seed: int | None = None):
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer))):
            raise ValueError(
                f"{type(self).__name__}: seed: expected an integer or None, got {seed!r}"
            )
        self.seed = None if seed is None else int(seed)

    def __call__(self, shape: Sequence[int], seed: int = 0) -> F32:
        rng = generator(abs(seed if self.seed is None else self.seed))
        return self.values(tuple(shape), rng)

    def values(self, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
        raise NotImplementedError(f"{type(self).__name__} must define values(shape, rng)")

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


class Constant(Initializer):
    """Every element is ``value``."""

    def __init__(self, value: float = 0.0):
        super().__init__()
        self.value = float(value)

    def values(self, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
        return np.full(shape, self.value, np.float32)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value}


class Zeros(Constant):
    """Every element is 0."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def get_config(self) -> dict[str, Any]:
        return {}


class Ones(Constant):
    """Every element is 1."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def get_config(self) -> dict[str, Any]:
        return {}


def _uniform(shape: tuple[int, ...], low: float, high: float, rng: np.random.Generator) -> F32:
    values = rng.random(shape, np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values


def _truncated_normal(shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    values = rng.standard_normal(shape, np.float32).reshape(-1)
    outside = np.flatnonzero(np.abs(values) > 2)
    while outside.size:
        values[outside] = rng.standard_normal(outside.size, np.float32)
        outside = outside[np.abs(values[outside]) > 2]
    return values.reshape(shape)


class RandomUniform(Initializer):
    """Uniform in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None):
        super().__init__(seed)
        self.minval, self.maxval = float(minval), float(maxval)

    def values(self, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
        return _uniform(shape, self.minval, self.maxval, rng)


class RandomNormal(Initializer):
    """Normal with the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        super().__init__(seed)
        self.mean, self.stddev = float(mean), float(stddev)

    def values(self, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
        return rng.standard_normal(shape, np.float32) * np.float32(self.stddev) + np.float32(
            self.mean
        )


class TruncatedNormal(RandomNormal):
    """Normal, redrawn where it falls more than two standard deviations from the mean."""

    def values(self, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
        return _truncated_normal(shape, rng) * np.float32(self.stddev) + np.float32(self.mean)


class VarianceScaling(Initializer):
    """Variance scale / n, with n = fan_in, fan_out or their mean (mode "fan_avg").

    distribution: "truncated_normal", "untruncated_normal" or "uniform" (limit sqrt(3 scale / n)).
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ):
        super().__init__(seed)
        if not scale > 0:
            raise ValueError(f"VarianceScaling: scale: expected a positive number, got {scale!r}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(
                f"VarianceScaling: mode: expected 'fan_in', 'fan_out' or 'fan_avg', got {mode!r}"
            )
        if distribution not in ("truncated_normal", "untruncated_normal", "uniform"):
            raise ValueError(
                "VarianceScaling: distribution: expected 'truncated_normal', 'untruncated_normal' "
                f"or 'uniform', got {distribution!r}"
            )
        self.scale, self.mode, self.distribution = float(scale), mode, distribution

    def values(self, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return _uniform(shape, -limit, limit, rng)
        stddev = math.sqrt(variance)
        if self.distribution == "untruncated_normal":
            return rng.standard_normal(shape, np.float32) * np.float32(stddev)
        return _truncated_normal(shape, rng) * np.float32(stddev / _TRUNCATED_STDDEV)


def fans(shape: Sequence[int]) -> tuple[float, float]:
    """(fan_in, fan_out) of a weight of this shape."""
    if len(shape) == 0:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


class _Named(VarianceScaling):
    """A VarianceScaling with its three choices made."""

    choices: tuple[float, str, str]

    def __init__(self, seed: int | None = None):
        super().__init__(*self.choices, seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


class GlorotUniform(_Named):
    """Uniform with limit sqrt(6 / (fan_in + fan_out))."""

    choices = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Named):
    """Truncated normal with standard deviation sqrt(2 / (fan_in + fan_out))."""

    choices = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Named):
    """Uniform with limit sqrt(6 / fan_in)."""

    choices = (2.0, "fan_in", "uniform")


class HeNormal(_Named):
    """Truncated normal with standard deviation sqrt(2 / fan_in)."""

    choices = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Named):
    """Uniform with limit sqrt(3 / fan_in)."""

    choices = (1.0, "fan_in", "uniform")


class LecunNormal(_Named):
    """Truncated normal with standard deviation sqrt(1 / fan_in)."""

    choices = (1.0, "fan_in", "truncated_normal")


class Orthogonal(Initializer):
    """gain times a random orthogonal matrix (Saxe et al. 2014): the rows or the columns, whichever
    are fewer, are orthonormal. All axes but the last together are the rows."""

    def __init__(self, gain: float = 1.0, seed: int | None = None):
        super().__init__(seed)
        self.gain = float(gain)

    def values(self, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: expected a weight of at least 2 axes, got shape {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        normal = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(normal)
        q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)  # uniform over the orthogonal matrices
        q = q if rows >= columns else q.T
        return (self.gain * q).reshape(shape).astype(np.float32)


NAMES: dict[str, type[Initializer]] = {
    "constant": Constant,
    "glorot_normal": GlorotNormal,
    "glorot_uniform": GlorotUniform,
    "he_normal": HeNormal,
    "he_uniform": HeUniform,
    "lecun_normal": LecunNormal,
    "lecun_uniform": LecunUniform,
    "ones": Ones,
    "orthogonal": Orthogonal,
    "random_normal": RandomNormal,
    "random_uniform": RandomUniform,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "zeros": Zeros,
}


def get(identifier: Any, owner: str = "initializer") -> Initializer:
    """The initializer for a name ("he_normal"), a class name ("HeNormal"), a {"class", "config"}
    dict or an Initializer; ValueError that begins with ``owner`` otherwise."""
    if isinstance(identifier, Initializer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    name, config = identifier, {}
    if isinstance(identifier, dict):
        name, config = identifier.get("class"), identifier.get("config", {})
    if isinstance(name, str):
        if name in NAMES:
            return NAMES[name](**config)
        for cls in NAMES.values():
            if cls.__name__ == name:
                return cls(**config)
    raise ValueError(f"{owner}: expected one of {sorted(NAMES)}, got {identifier!r}")


def serialize(initializer: Initializer) -> dict[str, Any]:
    """{"class", "config"}, from which ``get`` makes it again."""
    return {"class": type(initializer).__name__, "config": initializer.get_config()}
