"""How fast images get from a folder to the model, beside the peers.

    python bench/data.py images [--count 10000] [--batch 64] [--repeats 3] [--peers PYTHON]
    python bench/data.py overhead     # of the loader, from memory, as a share of the train step
    python bench/data.py memory       # drift of the resident memory over 50 epochs
    python bench/data.py index        # 100,000 files

`images` makes JPEG files of 256x256 (synthetic, photo-like, seeded) and measures images per second
from the folder to float32 batches of 224x224 cut out at random, flipped at random:
  convlet         image_dataset_from_directory + Augmentation, with simplejpeg if it is installed
  convlet-pillow  the same without simplejpeg
  torch           DataLoader + PIL, with as many workers as do best; torchvision's transforms where
                  it can be imported, else the same by hand
  keras           image_dataset_from_directory + RandomCrop and RandomFlip layers
  tf.data         read, decode_and_crop_jpeg (which skips what is cut off), flip, AUTOTUNE
All of them prefetch, and what each gives is checked: every image once per epoch, float32, of the
size. Each runs in a process of its own, one after the other, as often as `repeats` says; the
medians are compared, with the smallest and the largest. A peer that cannot be imported by PYTHON
(by default this one) is named.
"""

import argparse
import gc
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np

SIZE, CROP = 256, 224
PEERS = ("convlet", "convlet-pillow", "torch", "keras", "tf.data")
CLASSES = 10
WARM_UP = 5  # batches


# Pictures


def make_images(folder: Path, count: int) -> None:
    """`count` JPEG files in class folders: fields of colour with edges, texture and noise."""
    from PIL import Image

    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    for i in range(count):
        rng = np.random.default_rng(i)
        slopes = 60 * rng.normal(size=(2, 3))
        picture = rng.uniform(40, 215, 3) + x[..., None] * slopes[0] + y[..., None] * slopes[1]
        for _ in range(12):
            cx, cy, r = rng.uniform(0, 1, 3) * (1, 1, 0.3)
            inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r
            picture[inside] = 0.4 * picture[inside] + 0.6 * rng.uniform(0, 255, 3)
        waves = rng.uniform(10, 90, 2)
        picture += 12 * np.sin(waves[0] * x + waves[1] * y)[..., None]
        picture += rng.normal(0, 5, (SIZE, SIZE, 1))
        place = folder / f"class{i % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = picture.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i:06d}.jpg", quality=85)


# One peer each: from (folder, batch size) to a function that gives the batches of an epoch.


def convlet_batches(folder, batch, pillow_only=False):
    from convlet.data import Augmentation
    from convlet.data import image as image_module
    from convlet.utils import image_dataset_from_directory

    if pillow_only:
        image_module._simplejpeg = lambda: None
    data = image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), batch_size=batch, verbose=False
    )
    data = data.augment(Augmentation(crop=(CROP, CROP), flip="horizontal"))
    return lambda: (x for x, _ in data)


def torch_batches(folder, batch, workers):
    import torch
    from PIL import Image

    try:
        from torchvision import transforms

        change = transforms.Compose(
            [
                transforms.RandomCrop(CROP),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )
    except Exception:  # torchvision's compiled part may not fit this torch

        def change(image):
            left, top = torch.randint(SIZE - CROP + 1, (2,)).tolist()
            image = image.crop((left, top, left + CROP, top + CROP))
            if torch.rand(()) < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
            return pixels.to(torch.float32).div(255)

    paths = sorted(Path(folder).rglob("*.jpg"))
    names = sorted({path.parent.name for path in paths})

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, i):
            with open(paths[i], "rb") as file:
                image = Image.open(file).convert("RGB")
            return change(image), names.index(paths[i].parent.name)

    loader = torch.utils.data.DataLoader(
        Images(), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: (x for x, _ in loader)


def keras_batches(folder, batch):
    import keras

    data = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), batch_size=batch, verbose=False
    )
    change = keras.Sequential(
        [keras.layers.RandomCrop(CROP, CROP), keras.layers.RandomFlip("horizontal")]
    )
    import tensorflow as tf

    data = data.map(
        lambda x, y: (change(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)
    return lambda: (x for x, _ in data)


def tf_batches(folder, batch):
    import tensorflow as tf

    paths = sorted(map(str, Path(folder).rglob("*.jpg")))

    def load(path):
        begin = tf.random.uniform((2,), maxval=SIZE - CROP + 1, dtype=tf.int32)
        window = tf.concat([begin, (CROP, CROP)], 0)
        image = tf.io.decode_and_crop_jpeg(tf.io.read_file(path), window, channels=3)
        return tf.cast(tf.image.random_flip_left_right(image), tf.float32)

    data = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(batch)
    data = data.prefetch(tf.data.AUTOTUNE)
    return lambda: iter(data)


def measure(peer, folder, batch, workers) -> None:
    """In a process of its own: prints images per second."""
    make = {
        "convlet": lambda: convlet_batches(folder, batch),
        "convlet-pillow": lambda: convlet_batches(folder, batch, pillow_only=True),
        "torch": lambda: torch_batches(folder, batch, workers),
        "keras": lambda: keras_batches(folder, batch),
        "tf.data": lambda: tf_batches(folder, batch),
    }[peer]
    batches = make()
    for i, x in enumerate(batches()):
        check(x)
        if i + 1 == WARM_UP:
            break
    gc.collect()
    begun, count = time.perf_counter(), 0
    for x in batches():
        count += len(x)
    rate = count / (time.perf_counter() - begun)
    expected = sum(1 for _ in Path(folder).rglob("*.jpg"))
    if count != expected:
        raise SystemExit(f"wrong result: {count} of {expected} images")
    print(f"rate {rate:.1f}")


def check(x) -> None:
    """A batch is what it has to be: float32, of the size, neither empty nor all the same."""
    x = np.asarray(x)
    ends = (CROP, CROP, 3), (3, CROP, CROP)
    if x.dtype != np.float32 or x.shape[1:] not in ends or not x.std() > 0.05 * x.max() > 0:
        raise SystemExit(f"wrong result: {x.dtype} {x.shape}, from {x.min()} to {x.max()}")


def rate(peer, python, folder, options, workers=0) -> float | None:
    """Images per second of one run; None when the peer cannot be had."""
    command = [python, __file__, "measure", "--peer", peer, "--folder", folder]
    command += ["--batch", str(options.batch), "--workers", str(workers)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = re.search(r"^rate (\S+)$", result.stdout, re.MULTILINE)
    if found is None:
        reason = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        print(f"{peer}: cannot be had: {reason[-1]}")
        return None
    return float(found[1])


def images(options) -> None:
    folder = options.folder or tempfile.mkdtemp(prefix="convlet-bench-")
    try:
        if not options.folder:
            print(f"making {options.count} images", flush=True)
            make_images(Path(folder), options.count)
        compare(folder, options)
    finally:
        if not options.folder:
            shutil.rmtree(folder)


def compare(folder, options) -> None:
    pythons = {p: sys.executable if p.startswith("convlet") else options.peers for p in PEERS}
    workers, best = 0, 0.0
    for n in range((os.cpu_count() or 1) + 2):
        found = rate("torch", pythons["torch"], folder, options, n)
        if found is None:
            continue
        print(f"torch with {n} workers: {found:.0f} images/s", flush=True)
        if found > best:
            workers, best = n, found
    rates = {peer: [] for peer in PEERS}
    for _ in range(options.repeats):
        for peer in PEERS:
            found = rate(peer, pythons[peer], folder, options, workers)
            if found is not None:
                rates[peer].append(found)
                print(f"  {peer}: {found:.0f}", flush=True)
    rates = {peer: found for peer, found in rates.items() if found}
    print(f"{'':16} images/s  (smallest to largest)")
    middle = {peer: statistics.median(found) for peer, found in rates.items()}
    for peer, found in rates.items():
        print(
            f"{peer:16} {middle[peer]:8.0f}  ({min(found):.0f} to {max(found):.0f} of {len(found)})"
        )
    peers = {peer: value for peer, value in middle.items() if not peer.startswith("convlet")}
    if peers:
        best = max(peers, key=peers.get)
        print(f"convlet / {best}, the best peer: {middle['convlet'] / peers[best]:.2f}")


# convlet alone


def overhead(options) -> None:
    """What the loader takes of the training thread, against the time of a step; and, as that can be
    too little to see in it, fit from an ImageDataset against fit from the arrays."""
    from convlet import applications
    from convlet.data import ImageDataset, Preprocessing

    steps = 50
    shape = (options.batch * steps, 32, 32, 3)
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    y = np.arange(len(x)) % 10
    model = applications.cifar_cnn((32, 32, 3), 10, scale=1 / 255)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    data = ImageDataset(x, y, preprocessing=Preprocessing((32, 32)), batch_size=options.batch)
    ways = {
        "arrays": lambda: model.fit(x, y, batch_size=options.batch, verbose=0),
        "dataset": lambda: model.fit(data, verbose=0),
        "loader alone": lambda: deque(data, maxlen=0),
    }
    times = {name: [] for name in ways}
    for i in range(2 * options.repeats + 1):
        for name, run in ways.items():
            begun = time.perf_counter()
            run()
            if i:
                times[name].append(1e3 * (time.perf_counter() - begun) / steps)
    for name, found in times.items():
        print(
            f"{name}: {statistics.median(found):.3f} ms per batch of {options.batch} "
            f"({min(found):.3f} to {max(found):.3f})"
        )
    share = statistics.median(times["loader alone"]) / statistics.median(times["arrays"])
    pairs = [b / a - 1 for a, b in zip(times["arrays"], times["dataset"], strict=True)]
    print(f"the loader alone: {100 * share:.2f} % of a step")
    print(
        f"fit from the dataset against fit from arrays: {100 * statistics.median(pairs):+.2f} % "
        f"({100 * min(pairs):+.2f} to {100 * max(pairs):+.2f})"
    )


def memory(options) -> None:
    """Resident memory after epoch 5 and after epoch 55 of training from files."""
    from convlet import Sequential, layers
    from convlet.data import Augmentation
    from convlet.utils import image_dataset_from_directory

    def resident() -> float:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), 256)
        data = image_dataset_from_directory(folder, image_size=(SIZE, SIZE), verbose=False)
        data = data.augment(Augmentation(crop=(CROP, CROP), flip="horizontal"))
        model = Sequential(
            [
                layers.Input((CROP, CROP, 3)),
                layers.MaxPooling2D(8),
                layers.Conv2D(8, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(CLASSES, activation="softmax"),
            ]
        )
        model.preprocessing = data.preprocessing
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(data, epochs=5, verbose=0)
        before = resident()
        model.fit(data, epochs=50, verbose=0)
        after = resident()
        drift = 100 * (after / before - 1)
        print(f"resident: {before:.1f} MB, 50 epochs later {after:.1f} MB: {drift:+.2f} %")


def index(options) -> None:
    """The time to list 100,000 files."""
    from convlet.utils import image_dataset_from_directory

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_images(root, CLASSES)  # one for each class, which the others are links to
        pictures = sorted(root.rglob("*.jpg"))
        for i in range(CLASSES, 100_000):
            os.link(pictures[i % CLASSES], root / f"class{i % CLASSES}" / f"{i:06d}.jpg")
        begun = time.perf_counter()
        data = image_dataset_from_directory(folder, verbose=False)
        print(f"{len(data.file_paths)} files in {time.perf_counter() - begun:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["images", "overhead", "memory", "index", "measure"])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--folder", help="of images that are there already")
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.peer, options.folder, options.batch, options.workers)
    else:
        {"images": images, "overhead": overhead, "memory": memory, "index": index}[options.what](
            options
        )


if __name__ == "__main__":
    main()
