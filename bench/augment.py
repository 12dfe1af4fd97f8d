"""Augmentation of a batch of uint8 images: convlet against Keras' layers and ImageDataGenerator.

    python bench/augment.py [--peers PYTHON] [--rounds N]

PYTHON is an interpreter with tensorflow-cpu and scipy (default: this one). Every peer runs in a
process of its own, which first shows that it computes the same (equal turns, shifts and zooms give
equal images) and is then timed in turn with convlet, on all cores; a peer that cannot run is named.
The Keras layers are one tf.function, from uint8 to float32; ImageDataGenerator has no contrast.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

GEOMETRY = {"flip": "horizontal", "rotate": 15, "shift": 0.1, "zoom": 0.1}
COLOUR = {"brightness": 0.2, "contrast": 0.2}
CASES = {
    "32x32 geometry": ((256, 32, 32, 3), GEOMETRY),
    "224x224 geometry": ((32, 224, 224, 3), GEOMETRY),
    "224x224 geometry, colour": ((32, 224, 224, 3), GEOMETRY | COLOUR),
    "224x224 flip": ((32, 224, 224, 3), {"flip": "horizontal"}),
}
PEERS = ("Keras layers", "ImageDataGenerator")
FIXED = {"theta": 11.0, "tx": 9.5, "ty": -6.25, "zx": 0.9, "zy": 1.15}


def images(shape: tuple[int, ...]) -> np.ndarray:
    """Noise that is smooth, as photographs are: a slip of a pixel shows, rounding does not."""
    rng = np.random.default_rng(0)
    n, h, w, c = shape
    coarse = rng.integers(0, 256, (n, h // 8 + 2, w // 8 + 2, c)).astype(np.float32)
    for axis, size in ((1, h), (2, w)):
        at = np.arange(size) / 8
        low = at.astype(int)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        coarse = coarse.take(low, axis) * (1 - share) + coarse.take(low + 1, axis) * share
    return coarse.astype(np.uint8)


# ---------------------------------------------------------------- the peers' side


def keras_layers(settings: dict[str, Any]) -> Any:
    """A function from uint8 to float32."""
    import keras
    import tensorflow as tf

    make = keras.layers
    chain = []
    if "flip" in settings:
        chain.append(make.RandomFlip(settings["flip"]))
    if "rotate" in settings:
        chain += [
            make.RandomRotation(settings["rotate"] / 360, fill_mode="nearest"),
            make.RandomTranslation(settings["shift"], settings["shift"], fill_mode="nearest"),
            make.RandomZoom(settings["zoom"], settings["zoom"], fill_mode="nearest"),
        ]
    if "contrast" in settings:
        chain.append(make.RandomBrightness(settings["brightness"]))
        chain.append(make.RandomContrast((settings["contrast"], settings["contrast"])))

    @tf.function
    def run(x: Any) -> Any:
        y = tf.cast(x, tf.float32)
        for layer in chain:
            y = layer(y, training=True)
        return y

    return lambda x: run(x).numpy()


def keras_layers_fixed(x: np.ndarray) -> np.ndarray:
    """Keras' layers turned, then zoomed, by FIXED: the same as one matrix, but for two resamplings;
    compared is the turn alone, then the zoom alone."""
    import keras

    turn = FIXED["theta"] / 360
    layers = keras.layers
    turned = layers.RandomRotation((turn, turn), fill_mode="reflect")
    zoom = (FIXED["zy"] - 1, FIXED["zy"] - 1)
    zoomed = layers.RandomZoom(zoom, fill_mode="reflect")
    pixels = x.astype(np.float32)
    return np.stack([np.array(layer(pixels, training=True)) for layer in (turned, zoomed)])


def generator(settings: dict[str, Any]) -> Any:
    """Keras' ImageDataGenerator."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    arguments: dict[str, Any] = {"horizontal_flip": settings.get("flip") == "horizontal"}
    if "rotate" in settings:
        arguments |= {"rotation_range": settings["rotate"], "zoom_range": settings["zoom"]}
        arguments |= dict.fromkeys(("width_shift_range", "height_shift_range"), settings["shift"])
    if "brightness" in settings:
        arguments["brightness_range"] = (1 - settings["brightness"], 1 + settings["brightness"])
    return ImageDataGenerator(**arguments)


def serve(peer: str, case: str, answer: Path) -> None:
    """Verifies, then times one batch for every line that comes."""
    shape, settings = CASES[case]
    x = images(shape)
    if peer == PEERS[0]:
        run = keras_layers(settings)
        np.save(answer, keras_layers_fixed(x[:2]))
    else:
        made = generator(settings)
        flow = made.flow(x.astype(np.float32), batch_size=len(x), shuffle=False)
        run = lambda _: next(flow)  # noqa: E731
        np.save(
            answer, np.stack([made.apply_transform(i.astype(np.float32), FIXED) for i in x[:2]])
        )
    for _ in range(2):
        run(x)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run(x)
        print(json.dumps(time.perf_counter() - start), flush=True)


# ---------------------------------------------------------------- our side


class Peer:
    """A peer's process."""

    def __init__(self, python: str, peer: str, case: str, folder: Path) -> None:
        self.answer = folder / "answer.npy"
        command = [python, __file__, "--serve", peer, "--case", case, "--answer", str(self.answer)]
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            self.log.seek(0)
            said = self.log.read().strip().splitlines()
            raise RuntimeError(said[-1] if said else "it ended without a word")
        return line

    def time(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.line())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def ours_fixed(peer: str, x: np.ndarray) -> np.ndarray:
    from convlet import _core
    from convlet.preprocessing.image import ImageDataGenerator

    if peer == PEERS[1]:
        return np.stack([ImageDataGenerator().apply_transform(i, FIXED) for i in x])
    results = []
    for name, value in (("rotation", FIXED["theta"]), ("zoom_h", FIXED["zy"])):
        settings = {f"{name}_low": value, f"{name}_high": value, "zoom_together": 1}
        settings["fill"] = "reflect"
        results.append(_core.augment(settings, x, None, None, 0, 0, 0, None, None, "float32", None))
    return np.stack(results)


def measure(python: str, peer: str, case: str, rounds: int) -> str:
    from convlet.data import Augmentation

    shape, settings = CASES[case]
    if peer == PEERS[1]:
        settings = {name: value for name, value in settings.items() if name != "contrast"}
    x = images(shape)
    augmentation = Augmentation(**settings)
    out = augmentation(x)
    with tempfile.TemporaryDirectory() as folder:
        try:
            other = Peer(python, peer, case, Path(folder))
            other.line()
        except (OSError, RuntimeError) as error:
            return f"{case:<26}{peer:<20} cannot run: {error}"
        try:
            difference = float(np.abs(ours_fixed(peer, x[:2]) - np.load(other.answer)).max())
            if difference > 0.1:
                return f"{case:<26}{peer:<20} computes something else: off by {difference:.3g}"
            ours, theirs = [], []
            for epoch in range(rounds):
                theirs.append(other.time())
                start = time.perf_counter()
                augmentation(x, None, epoch, out=out)
                ours.append(time.perf_counter() - start)
        finally:
            other.close()
    us, them = (statistics.median(times) / len(x) * 1e6 for times in (ours, theirs))
    return f"{case:<26}{peer:<20}{us:>9.1f}{them:>10.1f}{them / us:>8.1f}x   {difference:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=sys.executable, help="an interpreter with the peers")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--answer", help=argparse.SUPPRESS, type=Path)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.case, options.answer)
        return
    from convlet import _core

    print(f"{_core.isa()}, {_core.num_threads()} threads; microseconds per image, medians")
    print(f"{'case':<26}{'peer':<20}{'convlet':>9}{'peer':>10}{'ratio':>9}   largest difference")
    for case in CASES:
        for peer in PEERS:
            print(measure(options.peers, peer, case, options.rounds), flush=True)


if __name__ == "__main__":
    main()
