"""Settings of `convlet train` that go together, by name."""

from __future__ import annotations

from typing import Any

# A flag that is given beside --recipe takes precedence over the recipe's value.
RECIPES: dict[str, dict[str, Any]] = {
    # Few small images, such as the bundled digits. All that is not held out is trained on: with a
    # rate that falls to 0 the last epoch is as good as any, and needs no images to be found.
    "small-images": {
        "optimizer": "adamw",
        "lr": 0.004,
        "warmup": 4,
        "label_smoothing": 0.1,
        "val_split": 0.0,
    },
}


def flags(name: str) -> str:
    """A recipe as the flags that it stands for."""
    return " ".join(f"--{key.replace('_', '-')} {value}" for key, value in RECIPES[name].items())
