"""convlet.data.Augmentation: its description, its batches, training with it, the contact sheet."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convlet
from convlet import _core
from convlet.data import Augmentation, ImageDataset, Preprocessing
from convlet.datasets import digits
from reference import assert_exact


def pixels(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape, dtype=np.uint8)


def draws(augmentation, shape=(20, 30, 3), count=400):
    """What is drawn for `count` images, as arrays by name."""
    found = _core.augment_draws(augmentation.settings, shape, np.arange(count), 0, 0, 0)
    return {name: np.array([d[name] for d in found]) for name in found[0]}


class TestSettings:
    def test_nothing(self):
        x = pixels(3, 9, 7, 3)
        assert_exact(Augmentation()(x), x.astype(np.float32))
        assert Augmentation().to_config() == {}

    @pytest.mark.parametrize("flip", ["horizontal", "vertical", "both", None])
    def test_flip(self, flip):
        found = draws(Augmentation(flip=flip))
        for way in ("horizontal", "vertical"):
            share = found[f"flip_{way}"].mean()
            assert share == 0 if flip not in (way, "both") else 0.4 < share < 0.6

    def test_ranges(self):
        found = draws(
            Augmentation(rotate=10, shear=(2, 5), zoom=0.2, brightness=1.5, contrast=(0.5, 0.6))
        )
        expected = {"rotation": (-10, 10), "shear": (2, 5), "zoom_h": (0.8, 1.2)}
        expected |= {"zoom_w": (0.8, 1.2), "brightness": (0, 2.5), "contrast": (0.5, 0.6)}
        for name, (low, high) in expected.items():
            values = found[name]
            assert low <= values.min() < low + 0.05 * (high - low)
            assert high - 0.05 * (high - low) < values.max() <= high
        assert (found["zoom_h"] != found["zoom_w"]).all()
        assert (found["saturation"] == 1).all()

    def test_shift_is_a_share_or_whole_pixels(self):
        found = draws(Augmentation(shift=0.1))
        assert 1.9 < found["shift_h"].max() <= 2  # of 20 rows
        assert 2.9 < found["shift_w"].max() <= 3  # of 30 columns
        assert (found["shift_h"] % 1 != 0).any()
        found = draws(Augmentation(shift=(0, 3)))
        assert set(found["shift_h"]) == {0}
        assert set(found["shift_w"]) == {-3, -2, -1, 0, 1, 2, 3}

    def test_crop(self):
        x = pixels(2, 20, 30, 3)
        assert Augmentation(crop=(12, 8))(x).shape == (2, 12, 8, 3)
        assert Augmentation(crop=(20, 30), padding=4).output_shape((20, 30, 3)) == (20, 30, 3)
        assert Augmentation(resized_crop=0.5)(x).shape == x.shape
        windows = draws(Augmentation(resized_crop=(0.2, 0.5), crop=(64, 64)))["window"]
        areas = windows[:, 2] * windows[:, 3]
        assert areas.min() >= 120
        assert areas.max() <= 300
        message = r"augment: expected a crop of at most \(20,30\) plus padding 0, got \(21,30\)"
        with pytest.raises(ValueError, match=message):
            Augmentation(crop=(21, 30)).output_shape((20, 30, 3))

    def test_scale_and_offset(self):
        x = pixels(2, 5, 5, 3)
        y = Augmentation(scale=1 / 255, offset=-0.5)(x)
        np.testing.assert_allclose(y, x / 255 - 0.5, atol=1e-6)
        y = Augmentation(scale=(1, 2, 3), offset=(0, 0, 9))(x)
        np.testing.assert_allclose(y, x * [1.0, 2.0, 3.0] + [0, 0, 9], rtol=1e-6)
        with pytest.raises(ValueError, match="scale: expected 1 or 3 numbers .* got 2"):
            Augmentation(scale=(1, 2))(x)

    def test_config_round_trip(self):
        one = Augmentation(
            flip="both", rotate=(-5, 20), crop=(8, 9), padding=2, scale=(1, 2, 3), erase=0.5
        )
        config = json.loads(json.dumps(one.to_config()))
        assert set(config) == {"flip", "rotate", "crop", "padding", "scale", "erase"}
        assert Augmentation.from_config(config) == one
        with pytest.raises(ValueError, match="expected a config with some of flip, rotate, "):
            Augmentation.from_config({"rotation": 3})

    @pytest.mark.parametrize(
        "arguments,message",
        [
            ({"flip": True}, "flip: expected one of None, 'horizontal', .* got True"),
            ({"fill": "mirror"}, "fill: expected one of 'constant', .* got 'mirror'"),
            ({"rotate": -5}, r"rotate: expected a number >= 0 or \(low, high\), got -5"),
            ({"rotate": (1, 2, 3)}, "rotate: expected a number"),
            ({"rotate": "a lot"}, "rotate: expected a number"),
            ({"rotate": (5, -5)}, "expected rotation_low of at most rotation_high, got 5 and -5"),
            ({"zoom": 1.0}, "expected zoom_h_low in .*, got 0"),
            ({"brightness": (-1, 1)}, "expected brightness_low in .*, got -1"),
            ({"shift": 1.5}, "shift: expected a share below 1, whole pixels, or a pair of them"),
            ({"shift": -1}, "shift: expected a share below 1"),
            ({"crop": 5}, r"crop: expected None or \(height, width\), got 5"),
            ({"padding": 2}, "padding: expected 0 without a crop"),
            ({"resized_crop": 1.5}, r"resized_crop: expected shares of the area in \(0, 1\]"),
            ({"erase": 2}, r"erase: expected a probability in \[0, 1\], got 2"),
            ({"value_range": (1, 1)}, r"value_range: expected \(low, high\) with low < high"),
            ({"scale": float("nan")}, "scale: expected a finite number or one per channel"),
            ({"fill_value": (1, 2)}, "fill_value: expected a finite number, got"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Augmentation(**arguments)


class TestBatches:
    def test_each_image_once_in_a_new_order(self):
        x = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 3, 1), np.uint8)
        batches = Augmentation().flow(x, np.arange(10), 4, seed=1)
        assert len(batches) == 3
        orders = []
        for _ in range(2):
            images, labels = zip(*((bx.copy(), by) for bx, by in batches), strict=True)
            assert [len(part) for part in labels] == [4, 4, 2]
            labels = np.concatenate(labels)
            assert_exact(np.concatenate(images)[:, 0, 0, 0], labels.astype(np.float32))
            assert sorted(labels) == list(range(10))
            orders.append(labels.tolist())
        assert orders[0] != orders[1]

    def test_an_image_does_not_depend_on_its_batch(self):
        x, y = pixels(11, 9, 9, 3), np.arange(11)
        augmentation = Augmentation(flip="both", rotate=20, erase=0.5)

        def by_label(size, shuffle):
            batches = augmentation.flow(x, y, size, shuffle=shuffle, seed=5, epoch=3)
            return {label: bx[i].copy() for bx, by in batches for i, label in enumerate(by)}

        one, other = by_label(4, True), by_label(7, False)
        for label in range(11):
            assert_exact(one[label], other[label])
        assert_exact(np.stack([one[i] for i in range(11)]), augmentation(x, None, 3, 5))

    def test_epoch_goes_on(self):
        x, y = pixels(8, 9, 9, 3), np.arange(8)
        augmentation = Augmentation(rotate=20)
        first = augmentation.flow(x, y, 8, seed=5)
        passes = [next(iter(first))[0].copy() for _ in range(3)]
        again = next(iter(augmentation.flow(x, y, 8, seed=5, epoch=2)))[0]
        assert_exact(again, passes[2])
        assert not np.array_equal(passes[0], passes[1])

    def test_memory_is_used_again_only_when_nobody_holds_it(self):
        x, y = pixels(40, 5, 5, 1), np.arange(40)
        batches = Augmentation(rotate=20).flow(x, y, 4, shuffle=False)
        held = [bx for bx, _ in batches]
        views = [bx[1:, ::2] for bx, _ in Augmentation(rotate=20).flow(x, y, 4, shuffle=False)]
        assert len({bx.ctypes.data for bx in held}) == 10
        for bx, view, begin in zip(held, views, range(0, 40, 4), strict=True):
            expected = Augmentation(rotate=20)(x[begin : begin + 4], np.arange(begin, begin + 4))
            assert_exact(bx, expected)
            assert_exact(view, expected[1:, ::2])
        places = {bx.ctypes.data for bx, _ in batches}
        assert len(places) <= 3

    def test_floats(self):
        x = pixels(4, 5, 5, 1).astype(np.float64)
        (got, _), *_ = Augmentation().flow(x, np.arange(4), shuffle=False)
        assert_exact(got, x.astype(np.float32))

    def test_errors(self):
        x, y = pixels(4, 5, 5, 1), np.arange(4)
        with pytest.raises(ValueError, match=r"expected images x \(N,H,W,C\), got shape \(4, 5\)"):
            Augmentation().flow(x[..., 0, 0], y)
        with pytest.raises(ValueError, match="as many targets in y as images in x"):
            Augmentation().flow(x, y[:3])
        with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
            Augmentation().flow(x, y, 0)


class TestDataset:
    """In the threads of ImageDataset."""

    def dataset(self, images, **options):
        height, width, channels = images.shape[1:]
        preprocessing = Preprocessing((height, width), {1: "grayscale", 3: "rgb"}[channels])
        return ImageDataset(
            images, np.arange(len(images)), preprocessing=preprocessing, seed=7, **options
        )

    def test_is_the_call(self):
        x = pixels(21, 17, 13, 3)
        for augmentation in (
            Augmentation(rotate=20, flip="both"),
            Augmentation(crop=(9, 8)),
            Augmentation(resized_crop=0.4, crop=(32, 30)),
        ):
            for threads in (1, 3):
                batches = self.dataset(x, batch_size=4, threads=threads).augment(augmentation)
                assert batches.example.shape[1:] == augmentation.output_shape((17, 13, 3))
                for epoch in range(2):
                    expected = augmentation(x, None, epoch, 7)
                    seen = 0
                    for images, labels in batches:
                        assert_exact(images, expected[labels])
                        seen += len(labels)
                    assert seen == 21

    def test_image_files(self, tmp_path):
        x = pixels(6, 20, 20, 3)
        paths = [str(tmp_path / f"{i}.png") for i in range(6)]
        for path, image in zip(paths, x, strict=True):
            Image.fromarray(image).save(path)
        augmentation = Augmentation(rotate=20, crop=(12, 12))
        files = ImageDataset(paths, np.arange(6), preprocessing=Preprocessing((20, 20)), seed=7)
        for images, labels in files.augment(augmentation):
            assert_exact(images, augmentation(x, None, 0, 7)[labels])


class TestTraining:
    def model(self):
        convlet.set_random_seed(3)
        model = convlet.Sequential(
            [
                convlet.Input((8, 8, 1)),
                convlet.layers.Conv2D(16, 3, padding="same", activation="relu"),
                convlet.layers.MaxPooling2D(),
                convlet.layers.Flatten(),
                convlet.layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def test_learns_and_repeats(self):
        (x, y), (x_test, y_test) = digits.load_data()
        x, x_test = (digits.to_pixels(a).reshape(-1, 8, 8, 1) for a in (x, x_test))
        augmentation = Augmentation(rotate=10, fill="constant", scale=1 / 255)
        scores = []
        for _ in range(2):
            model = self.model()
            model.fit(augmentation.flow(x, y, 32, seed=1), epochs=12, verbose=0)
            plain = (x_test / 255).astype(np.float32)
            scores.append(model.evaluate(plain, y_test, verbose=0))
        assert scores[0] == scores[1]
        assert scores[0][1] > 0.85


class TestContactSheet:
    def test_what_it_shows(self, tmp_path):
        x = pixels(3, 70, 90, 3)
        augmentation = Augmentation(flip="horizontal", rotate=20, scale=1 / 255)
        path = tmp_path / "sheet.png"
        augmentation.contact_sheet(x, path, columns=2)
        sheet = np.array(Image.open(path))
        assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]
        assert sheet.shape == (32 + 3 * 74, 4 + 14 + 3 * 94, 3)
        for row in range(3):
            top = 32 + row * 74
            assert_exact(sheet[top : top + 70, 4 : 4 + 90], x[row])
            for column in range(2):
                left = 4 + 94 + 14 + column * 94
                expected = augmentation(x, np.arange(3), column)[row] * 255
                shown = sheet[top : top + 70, left : left + 90].astype(float)
                assert np.abs(shown - expected).max() <= 0.51

    def test_small_and_large_images(self, tmp_path):
        path = tmp_path / "sheet.png"
        Augmentation().contact_sheet(pixels(2, 8, 8, 1), path, titles=["one", "zwölf"])
        assert Image.open(path).size == (110 + 14 + 9 * 68, 32 + 2 * 68)
        Augmentation().contact_sheet(pixels(1, 300, 900, 3), path, columns=1)
        assert Image.open(path).size == (4 + 14 + 2 * 260, 32 + 89)

    def test_errors(self, tmp_path):
        path = tmp_path / "sheet.png"
        with pytest.raises(ValueError, match=r"contact_sheet: expected images \(N,H,W,1 or 3\)"):
            Augmentation().contact_sheet(pixels(2, 8, 8, 2), path)
        with pytest.raises(ValueError, match="columns: expected at least 1, got 0"):
            Augmentation().contact_sheet(pixels(2, 8, 8, 1), path, columns=0)
        with pytest.raises(ValueError, match="titles: expected one for each of 2 images, got 1"):
            Augmentation().contact_sheet(pixels(2, 8, 8, 1), path, titles=["one"])
        assert list(tmp_path.iterdir()) == []


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parent.parent / "docs" / "augmentation.md"
    examples = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) >= 3
    for code in examples:
        exec(code, {})
    assert (tmp_path / "augmentation.png").is_file()
