"""What `convlet train --augment` says, as an Augmentation."""

from __future__ import annotations

from typing import Any

from convlet.data.augmentation import Augmentation

DEFAULT = "default"
NOTHING = "none"
NUMBERS = (
    *("rotate", "shift", "shear", "zoom", "resized_crop", "brightness", "contrast", "saturation"),
    *("channel_shift", "erase", "padding", "fill_value"),
)
WORDS = ("flip", "fill", "interpolation")


def parse_augmentation(text: str, image_shape: tuple[int, int, int]) -> Augmentation:
    """The Augmentation for images (H,W,C) of 0..255.

    text: "default" (moved by whole pixels, up to an eighth of the side, black behind), "none", or
        parts such as "flip,rotate=15,shift=0.1,zoom=0.1,padding=4", named as the arguments of
        Augmentation; flip alone is horizontal, padding crops back to the images' size.

    Raises ValueError that names --augment, the part and what was expected.
    """
    height, width, _ = image_shape
    if text == NOTHING:
        return Augmentation()
    if text == DEFAULT:
        return Augmentation(shift=max(1, min(height, width) // 8), fill="constant")
    arguments: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name in arguments:
            raise ValueError(f"--augment {text}: {name} is given twice")
        arguments[name] = _value(text, part.strip(), name, value if equals else None)
    if "padding" in arguments:
        arguments["crop"] = (height, width)
    try:
        return Augmentation(**arguments)
    except ValueError as error:
        raise ValueError(f"--augment {text}: {str(error).partition(': ')[2]}") from None


def _value(text: str, part: str, name: str, value: str | None) -> Any:
    if name == "flip" and value is None:
        return "horizontal"
    if name in WORDS and value is not None:
        return value
    if name in NUMBERS and value is not None:
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    known = ", ".join((DEFAULT, NOTHING, "flip", *(f"{n}=..." for n in (*WORDS, *NUMBERS))))
    raise ValueError(f"--augment {text}: expected parts among {known}, got {part!r}")
