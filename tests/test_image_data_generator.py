"""ImageDataGenerator: Keras' arguments, its transformation, statistics, batches and folders.

The expected geometry is scipy's, with Keras' matrix written out in test_augment.
"""

import numpy as np
import pytest
from PIL import Image

import convlet
from convlet import Sequential, _core, layers, load_model
from convlet.data import Preprocessing
from convlet.preprocessing.image import ImageDataGenerator
from reference import assert_exact
from test_augment import FILLS, keras_matrix, pixels, scipy_image


def drawn(generator, shape=(20, 30, 3), count=3000):
    found = _core.augment_draws(generator.settings, shape, np.arange(count), 0, 0, 0)
    return {name: np.array([d[name] for d in found]) for name in found[0]}


class TestDraws:
    def test_ranges(self):
        generator = ImageDataGenerator(
            rotation_range=30,
            shear_range=10,
            zoom_range=0.2,
            channel_shift_range=20,
            brightness_range=(0.5, 1.5),
            height_shift_range=0.1,
            width_shift_range=2.5,
        )
        expected = {"rotation": (-30, 30), "shear": (-10, 10), "zoom_h": (0.8, 1.2)}
        expected |= {"zoom_w": (0.8, 1.2), "channel_shift": (-20, 20), "brightness": (0.5, 1.5)}
        expected |= {"shift_h": (-2, 2), "shift_w": (-2.5, 2.5)}
        found = drawn(generator)
        for name, (low, high) in expected.items():
            span = 0.01 * (high - low)
            assert low <= found[name].min() < low + span
            assert high - span < found[name].max() <= high

    def test_integer_and_list_shifts(self):
        found = drawn(ImageDataGenerator(height_shift_range=3, width_shift_range=[0.0, 0.1, 0.2]))
        values, counts = np.unique(found["shift_h"], return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        # Keras draws one of 0, 1, 2 and then a sign.
        assert np.abs(counts / 3000 - [1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6]).max() < 0.03
        assert np.unique(np.round(found["shift_w"], 6)).tolist() == [-6, -3, 0, 3, 6]
        found = drawn(ImageDataGenerator(width_shift_range=[2, 5]))
        assert np.unique(found["shift_w"]).tolist() == [-5, -2, 2, 5]

    def test_flips(self):
        found = drawn(ImageDataGenerator(horizontal_flip=True))
        assert abs(found["flip_horizontal"].mean() - 0.5) < 0.04
        assert not found["flip_vertical"].any()

    def test_get_random_transform(self):
        generator = ImageDataGenerator(rotation_range=20, width_shift_range=0.2)
        one = generator.get_random_transform((20, 30, 3), seed=1)
        assert one == generator.get_random_transform((20, 30, 3), seed=1)
        assert one != generator.get_random_transform((20, 30, 3), seed=2)
        assert -6 <= one["tx"] <= 6
        assert one["ty"] == 0
        assert one["brightness"] is None
        assert one["channel_shift_intensity"] is None


class TestTransform:
    @pytest.mark.parametrize("fill", FILLS)
    @pytest.mark.parametrize("order", [0, 1])
    def test_apply_transform(self, fill, order):
        generator = ImageDataGenerator(fill_mode=fill, cval=12.5, interpolation_order=order)
        for h, w in ((7, 7), (16, 23), (31, 20)):
            x = pixels(h, w, 3)
            parameters = {"theta": 21.0, "tx": 2.3, "ty": -1.7, "shear": 9.0, "zx": 1.2, "zy": 0.7}
            y = generator.apply_transform(x, parameters)
            matrix = keras_matrix(h, w, rotation=21, shift=(-1.7, 2.3), shear=9, zoom=(0.7, 1.2))
            expected = scipy_image(x, matrix, (h, w), fill=fill, order=order, value=12.5)
            assert np.abs(y - expected).max() < 0.0255
            # Keras flips what the matrix has given.
            y = generator.apply_transform(x, parameters | {"flip_horizontal": True})
            assert np.abs(y - expected[:, ::-1]).max() < 0.0255
            y = generator.apply_transform(x, parameters | {"flip_vertical": True})
            assert np.abs(y - expected[::-1]).max() < 0.0255

    def test_colours(self):
        x = pixels(9, 9, 3)
        generator = ImageDataGenerator()
        y = generator.apply_transform(x, {"channel_shift_intensity": 30.0})
        low, high = float(x.min()), float(x.max())
        np.testing.assert_allclose(y, np.clip(x + 30.0, low, high), atol=1e-4)
        y = generator.apply_transform(x, {"brightness": 1.4})
        np.testing.assert_allclose(y, np.minimum(x * 1.4, 255), rtol=1e-5)
        with pytest.raises(ValueError, match="apply_transform: expected parameters among theta"):
            generator.apply_transform(x, {"angle": 3})

    def test_random_transform(self):
        x = pixels(9, 9, 3)
        generator = ImageDataGenerator(rotation_range=90, brightness_range=(0.5, 1.5), rescale=0.1)
        y = generator.random_transform(x, seed=3)
        parameters = generator.get_random_transform(x.shape, seed=3)
        assert_exact(y, generator.apply_transform(x, parameters))
        (batch,) = (b for b in generator.flow(x[None], shuffle=False, seed=3))
        np.testing.assert_allclose(batch[0], y * 0.1, rtol=1e-5, atol=1e-5)


class TestStatistics:
    x = np.random.default_rng(0).uniform(0, 255, (40, 6, 7, 3)).astype(np.float32)

    def batch(self, **arguments):
        generator = ImageDataGenerator(**arguments)
        generator.fit(self.x)
        return next(generator.flow(self.x, batch_size=40, shuffle=False))

    def test_rescale(self):
        np.testing.assert_allclose(self.batch(rescale=1 / 255), self.x / 255, rtol=1e-6)

    def test_featurewise(self):
        wide = self.x.astype(np.float64)
        mean, std = wide.mean(axis=(0, 1, 2)), wide.std(axis=(0, 1, 2))
        np.testing.assert_allclose(self.batch(featurewise_center=True), wide - mean, atol=1e-4)
        y = self.batch(featurewise_std_normalization=True)
        np.testing.assert_allclose(y, (wide - mean) / std, atol=1e-5)
        y = self.batch(featurewise_std_normalization=True, rescale=1 / 255)
        np.testing.assert_allclose(y, (wide - mean) / (std + 255e-6), atol=1e-5)

    def test_samplewise(self):
        wide = self.x.astype(np.float64)
        mean = wide.mean(axis=(1, 2, 3), keepdims=True)
        std = wide.std(axis=(1, 2, 3), keepdims=True)
        np.testing.assert_allclose(self.batch(samplewise_center=True), wide - mean, atol=1e-3)
        y = self.batch(samplewise_std_normalization=True)
        np.testing.assert_allclose(y, (wide - mean) / std, atol=1e-4)

    def test_one_pass_or_several_steps(self):
        """The factor and offset of the kernel are what standardize does step by step."""
        fused = self.batch(featurewise_std_normalization=True, rescale=1 / 255)
        steps = self.batch(
            featurewise_std_normalization=True,
            rescale=1 / 255,
            preprocessing_function=lambda image: image,
        )
        np.testing.assert_allclose(fused, steps, atol=1e-5)

    def test_preprocessing_function_comes_first(self):
        y = self.batch(preprocessing_function=lambda image: 255 - image, rescale=1 / 255)
        np.testing.assert_allclose(y, (255 - self.x) / 255, atol=1e-6)
        with pytest.raises(ValueError, match=r"expected an image \(6, 7, 3\) back, got \(3,\)"):
            self.batch(preprocessing_function=lambda image: image[0, 0])

    def test_zca(self):
        x = np.random.default_rng(1).normal(0, 1, (500, 3, 3, 1)) + 5
        x[..., 1:, :] += x[..., :2, :]
        x = x.astype(np.float32)
        generator = ImageDataGenerator(zca_whitening=True)
        generator.fit(x)
        y = next(generator.flow(x, batch_size=500, shuffle=False)).reshape(500, 9)
        np.testing.assert_allclose(y.T @ y / 500, np.eye(9), atol=1e-3)
        with pytest.raises(ValueError, match="expected images of 9 values as in fit, got 4"):
            next(generator.flow(x[:, :2, :2]))

    def test_of_changed_images(self):
        x = np.zeros((8, 9, 9, 1), np.uint8)
        x[:, :4] = 200
        generator = ImageDataGenerator(
            featurewise_center=True, height_shift_range=0.4, fill_mode="constant", cval=0
        )
        generator.fit(x)
        plain = generator.mean
        generator.fit(x, augment=True, rounds=3, seed=1)
        assert generator.mean.shape == (1, 1, 1)
        assert generator.mean < plain  # shifted out at the top

    def test_flow_before_fit(self):
        generator = ImageDataGenerator(featurewise_center=True)
        with pytest.raises(ValueError, match=r"flow: featurewise_center, .*: call fit\(x\) first"):
            generator.flow(self.x)


class TestFlow:
    def test_one_pass(self):
        x, y = pixels(10, 5, 5, 1), np.arange(10)
        flow = ImageDataGenerator().flow(x, y, batch_size=4, seed=1)
        assert (len(flow), flow.n, flow.batch_size) == (3, 10, 4)
        orders = []
        for _ in range(2):
            batches = list(flow)
            labels = np.concatenate([b[1] for b in batches])
            assert sorted(labels) == list(range(10))
            for images, numbers in batches:
                assert_exact(images, x[numbers].astype(np.float32))
            orders.append(labels.tolist())
        assert orders[0] != orders[1]

    def test_next_never_ends(self):
        flow = ImageDataGenerator(rotation_range=9).flow(pixels(5, 4, 4, 1), batch_size=4, seed=1)
        sizes = [len(next(flow)) for _ in range(7)]
        assert sizes == [4, 1, 4, 1, 4, 1, 4]
        flow.reset()
        assert len(flow.next()) == 4

    def test_index(self):
        x, y = pixels(5, 4, 4, 1), np.arange(5)
        flow = ImageDataGenerator(rotation_range=9).flow(x, y, batch_size=2, seed=1)
        indexed = [flow[i] for i in range(3)]
        for (ax, ay), (bx, by) in zip(indexed, flow, strict=True):
            assert_exact(ax, bx)
            assert_exact(ay, by)
        with pytest.raises(IndexError, match=r"expected a batch in \[0, 3\), got 3"):
            flow[3]

    def test_seed(self):
        x = pixels(6, 9, 9, 3)
        generator = ImageDataGenerator(rotation_range=90)
        one, two, other = (next(generator.flow(x, seed=s)) for s in (1, 1, 2))
        assert_exact(one, two)
        assert not np.array_equal(one, other)

    def test_images_and_masks_change_alike(self):
        """Keras' recipe for segmentation: two generators, one seed."""
        x = pixels(6, 9, 9, 3)
        generator = ImageDataGenerator(rotation_range=90, horizontal_flip=True)
        images, masks = (next(generator.flow(a, seed=5)) for a in (x, x[..., :1]))
        np.testing.assert_allclose(images[..., :1], masks, atol=1e-4)

    def test_sample_weight(self):
        x, y, w = pixels(4, 5, 5, 1), np.arange(4), np.arange(4) / 4
        _, numbers, weights = next(ImageDataGenerator().flow(x, y, sample_weight=w, seed=1))
        assert_exact(weights, numbers / 4)

    def test_subsets_are_stratified_and_apart(self):
        x, y = pixels(100, 2, 2, 1), np.repeat([0, 1], [80, 20])
        generator = ImageDataGenerator(validation_split=0.25)
        training = generator.flow(x, y, 10, subset="training", seed=1)
        held = generator.flow(x, y, 10, subset="validation", seed=2)
        assert (training.n, held.n) == (75, 25)
        labels = np.concatenate([batch[1] for batch in held])
        assert np.bincount(labels).tolist() == [20, 5]
        held, one_hot = (
            generator.flow(x, targets, 10, subset="validation", seed=2)
            for targets in (y, np.eye(2)[y])
        )
        for a, b in zip(held, one_hot, strict=True):
            assert_exact(a[1], b[1].argmax(axis=1))

    def test_fit_model(self):
        convlet.set_random_seed(1)
        model = convlet.Sequential(
            [
                convlet.Input((6, 6, 3)),
                convlet.layers.Flatten(),
                convlet.layers.Dense(2, activation="softmax"),
            ]
        )
        optimizer = convlet.optimizers.Adam(0.02)
        model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
        y = np.arange(64) % 2
        x = (pixels(64, 6, 6, 3) // 3 + 150 * y[:, None, None, None]).astype(np.uint8)
        generator = ImageDataGenerator(rotation_range=20, rescale=1 / 255, validation_split=0.25)
        flows = [
            generator.flow(x, np.eye(2)[y], 16, subset=subset, seed=1)
            for subset in ("training", "validation")
        ]
        history = model.fit(flows[0], validation_data=flows[1], epochs=30, verbose=0).history
        assert history["val_accuracy"][-1] > 0.95
        steps = model.fit(flows[0], steps_per_epoch=7, epochs=2, verbose=0)
        assert len(steps.history["loss"]) == 2

    def test_memory_is_used_again_only_when_nobody_holds_it(self):
        x = pixels(40, 5, 5, 1)
        flow = ImageDataGenerator().flow(x, batch_size=4, shuffle=False)
        for begin, batch in zip(range(0, 40, 4), list(flow), strict=True):
            assert_exact(batch, x[begin : begin + 4].astype(np.float32))
        assert len({batch.ctypes.data for batch in flow}) <= 3


def classifier():
    net = Sequential([layers.Input((12, 10, 3)), layers.Flatten(), layers.Dense(3, "softmax")])
    net.compile("sgd", "sparse_categorical_crossentropy")
    return net


class TestDirectory:
    @pytest.fixture
    def folder(self, tmp_path):
        for label, name in enumerate(("cats", "dogs", "emus")):
            (tmp_path / name).mkdir()
            for i in range(8):
                grey = np.full((12, 10, 3), 60 * label + i, np.uint8)
                Image.fromarray(grey).save(tmp_path / name / f"{i}.png")
        return tmp_path

    def test_batches(self, folder):
        generator = ImageDataGenerator(rescale=1 / 255, horizontal_flip=True)
        flow = generator.flow_from_directory(folder, target_size=(6, 5), batch_size=10, seed=1)
        assert flow.class_indices == {"cats": 0, "dogs": 1, "emus": 2}
        assert (flow.samples, flow.n, len(flow), flow.num_classes) == (24, 24, 3, 3)
        assert flow.image_shape == (6, 5, 3)
        assert flow.filenames[0] == "cats/0.png"
        assert flow.classes.tolist() == [0] * 8 + [1] * 8 + [2] * 8
        seen = []
        for x, y in flow:
            assert x.shape[1:] == (6, 5, 3)
            assert x.dtype == y.dtype == np.float32
            values = np.round(x[:, 0, 0, 0] * 255)
            assert_exact(y.argmax(axis=1), (values // 60).astype(np.int64))
            seen += values.tolist()
        assert sorted(seen) == [60 * label + i for label in range(3) for i in range(8)]
        assert len(next(flow)) == 2

    def test_class_modes(self, folder):
        generator = ImageDataGenerator()
        x, y = next(generator.flow_from_directory(folder, class_mode="sparse", batch_size=24))
        assert y.dtype == np.int32
        x, y = next(generator.flow_from_directory(folder, class_mode="input"))
        assert_exact(x, y)
        assert next(generator.flow_from_directory(folder, class_mode=None)).ndim == 4
        grey = generator.flow_from_directory(folder, color_mode="grayscale")
        assert next(grey)[0].shape == (24, 256, 256, 1)
        with pytest.raises(ValueError, match="class_mode: expected one of .*, got 'other'"):
            generator.flow_from_directory(folder, class_mode="other")

    def test_subsets_do_not_overlap_whatever_their_seeds(self, folder):
        generator = ImageDataGenerator(validation_split=0.25)
        files = [
            set(generator.flow_from_directory(folder, subset=subset, seed=seed).filenames)
            for subset, seed in (("training", 1), ("validation", 2))
        ]
        assert (len(files[0]), len(files[1])) == (18, 6)
        assert not files[0] & files[1]

    def test_seeds_and_statistics(self, folder):
        generator = ImageDataGenerator(featurewise_center=True, rotation_range=40)
        x = np.stack([np.array(Image.open(p)) for p in sorted(folder.rglob("*.png"))])
        generator.fit(x)
        flows = [
            generator.flow_from_directory(folder, target_size=(12, 10), seed=s) for s in (3, 3, 4)
        ]
        one, two, other = (next(flow)[0] for flow in flows)
        assert_exact(one, two)
        assert not np.array_equal(one, other)
        assert abs(one.mean()) < 1

    def test_the_model_learns_names_and_preprocessing(self, folder, tmp_path):
        generator = ImageDataGenerator(rescale=1 / 255, horizontal_flip=True, validation_split=0.25)
        options = {"target_size": (12, 10), "class_mode": "sparse", "seed": 1}
        train, held = (
            generator.flow_from_directory(folder, subset=subset, **options)
            for subset in ("training", "validation")
        )
        net = classifier()
        net.fit(train, validation_data=held, epochs=2, verbose=0)
        assert train.dataset.epoch == 2
        assert net.class_names == ["cats", "dogs", "emus"]
        assert net.preprocessing == Preprocessing((12, 10), scale=1 / 255, interpolation="nearest")
        net.save(tmp_path / "m.safetensors")
        loaded = load_model(tmp_path / "m.safetensors")
        plain = ImageDataGenerator(rescale=1 / 255).flow_from_directory(folder, **options)
        one_by_one = [p.confidence for p in loaded.classify(plain.filepaths)]
        np.testing.assert_allclose(loaded.predict(plain).max(axis=1), one_by_one, rtol=1e-5)

    def test_classes_are_aligned_by_name(self, folder):
        generator = ImageDataGenerator(rescale=1 / 255)
        options = {"target_size": (12, 10), "class_mode": "sparse", "shuffle": False}
        net = classifier()
        net.fit(generator.flow_from_directory(folder, **options), verbose=0)
        expected = net.evaluate(generator.flow_from_directory(folder, **options), verbose=0)
        turned = generator.flow_from_directory(folder, classes=["emus", "cats", "dogs"], **options)
        np.testing.assert_allclose(net.evaluate(turned, verbose=0), expected, rtol=1e-5)
        assert turned.aligned_to(net.class_names).class_indices == {"cats": 0, "dogs": 1, "emus": 2}
        with pytest.raises(ValueError, match=r"prepared as the model's"):
            net.evaluate(ImageDataGenerator().flow_from_directory(folder, **options), verbose=0)
        (folder / "emus").rename(folder / "gnus")
        with pytest.raises(ValueError, match="unknown to it: gnus; missing here: emus"):
            net.evaluate(generator.flow_from_directory(folder, **options), verbose=0)

    def test_what_no_preprocessing_describes_is_not_claimed(self, folder):
        net = classifier()
        generator = ImageDataGenerator(samplewise_center=True)
        net.fit(
            generator.flow_from_directory(folder, target_size=(12, 10), class_mode="sparse"),
            class_weight="balanced",
            verbose=0,
        )
        assert net.class_names == ["cats", "dogs", "emus"]
        assert net.preprocessing is None

    def test_images_as_targets_have_no_classes(self, folder):
        net = Sequential([layers.Input((12, 10, 3)), layers.Conv2D(3, 1)])
        net.compile("sgd", "mse")
        generator = ImageDataGenerator(rescale=1 / 255)
        flow = generator.flow_from_directory(folder, target_size=(12, 10), class_mode="input")
        net.fit(flow, verbose=0)
        assert net.class_names is None
        assert net.preprocessing.scale == 1 / 255


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"rotation_range": "a"}, "rotation_range: expected a number, got 'a'"),
        ({"width_shift_range": []}, "width_shift_range: expected a number or some of them"),
        ({"zoom_range": 1.0}, r"zoom_range: expected a number in \[0, 1\) or \(low, high\)"),
        ({"zoom_range": (0.5, 1, 2)}, "zoom_range: expected a number"),
        ({"brightness_range": 0.5}, r"brightness_range: expected None or \(low, high\), got 0.5"),
        ({"brightness_range": (-1, 1)}, "brightness_range: expected factors of at least 0"),
        ({"fill_mode": "mirror"}, "fill_mode: expected one of .* got 'mirror'"),
        ({"interpolation_order": 3}, "interpolation_order: expected 0 or 1, got 3"),
        ({"validation_split": 1.0}, r"validation_split: expected a share in \[0, 1\), got 1.0"),
        ({"data_format": "channels_first"}, "data_format: expected 'channels_last'"),
        ({"dtype": "float16"}, "dtype: expected 'float32', got 'float16'"),
        ({"preprocessing_function": 3}, "preprocessing_function: expected a function of an image"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"ImageDataGenerator: {message}"):
        ImageDataGenerator(**arguments)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"x": np.zeros((3, 4, 4))}, r"x: expected images \(N,H,W,C\) of numbers, got float64"),
        ({"x": np.zeros((0, 4, 4, 1)), "y": None}, "x: expected at least one image, got none"),
        ({"y": np.zeros(2)}, r"y: expected one for each of 3 images, got shape \(2,\)"),
        ({"sample_weight": np.ones(3), "y": None}, "sample_weight: expected None without y"),
        ({"batch_size": 0}, "batch_size: expected an integer >= 1, got 0"),
        ({"subset": "test"}, "subset: expected one of .* got 'test'"),
        ({"subset": "training"}, "subset: expected None without a validation_split"),
        ({"save_to_dir": "."}, "save_to_dir: expected None"),
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
    ],
)
def test_flow_arguments(arguments, message):
    arguments = {"x": np.zeros((3, 4, 4, 1)), "y": np.zeros(3)} | arguments
    with pytest.raises(ValueError, match=f"ImageDataGenerator.flow: {message}"):
        ImageDataGenerator().flow(**arguments)


def test_brightness_needs_pixel_values():
    generator = ImageDataGenerator(brightness_range=(0.5, 1.5))
    x = np.full((2, 4, 4, 1), -3.0)
    with pytest.raises(ValueError, match=r"brightness_range: expected images in 0..255, got -3.0"):
        next(generator.flow(x))
