"""The augmentation op: scipy.ndimage and Pillow are the reference, Philox that of the draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from convlet import _core
from reference import assert_exact, philox

FILLS = ("constant", "nearest", "reflect", "wrap")
SIZES = [(1, 1), (1, 7), (5, 1), (2, 2), (3, 5), (16, 16), (17, 31), (33, 20), (66, 19)]


def pixels(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape, dtype=np.uint8)


def fixed(**numbers):
    """Settings whose ranges are single numbers: rotation=30 for rotation_low and rotation_high."""
    ranges = ("rotation", "shear", "shift_h", "shift_w", "zoom_h", "zoom_w", "channel_shift")
    ranges += ("brightness", "brightness_shift", "contrast", "saturation", "crop_area")
    ranges += ("crop_ratio", "erase_area", "erase_ratio")
    settings = {}
    for name, value in numbers.items():
        if name in ranges:
            settings |= {f"{name}_low": value, f"{name}_high": value}
        else:
            settings[name] = value
    return settings


def augment(settings, x, rows=None, indices=None, seed=0, epoch=0, dtype="float32", out=None):
    return _core.augment(settings, x, rows, indices, seed, epoch, 0, None, None, dtype, out)


def draw(settings, shape, index=0, seed=0, epoch=0):
    return _core.augment_draws(settings, shape, np.array([index]), seed, epoch, 0)[0]


def scipy_image(image, matrix, shape, *, fill, order, value=0.0):
    """scipy's affine_transform of (H,W,C) in float64."""
    m = np.asarray(matrix).reshape(2, 3)
    channels = [
        ndimage.affine_transform(
            image[..., c].astype(np.float64),
            m[:, :2],
            m[:, 2],
            output_shape=shape,
            order=order,
            mode=fill,
            cval=value,
        )
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1)


def keras_matrix(h, w, *, rotation=0.0, shift=(0.0, 0.0), shear=0.0, zoom=(1.0, 1.0)):
    """The matrix of Keras' ImageDataGenerator on (row, column): rotation, shift, shear, zoom about
    the centre; built on vectors (x, y, 1) and then turned round."""
    a, s = np.deg2rad(rotation), np.deg2rad(shear)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    move = np.array([[1, 0, shift[1]], [0, 1, shift[0]], [0, 0, 1]])
    slant = np.array([[1, -np.sin(s), 0], [0, np.cos(s), 0], [0, 0, 1]])
    scale = np.diag([zoom[1], zoom[0], 1.0])
    centre = np.array([[1, 0, w / 2 - 0.5], [0, 1, h / 2 - 0.5], [0, 0, 1]])
    m = centre @ turn @ move @ slant @ scale @ np.linalg.inv(centre)
    return m[[1, 0]][:, [1, 0, 2]].reshape(-1)


class TestGeometry:
    @pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
    @pytest.mark.parametrize("fill", FILLS)
    @pytest.mark.parametrize("order", [0, 1])
    def test_affine_is_scipys(self, isa, fill, order, channels):
        geometry = {"rotation": 27.3, "shear": 8.1, "shift_h": 2.37, "shift_w": -3.21}
        geometry |= {"zoom_h": 1.31, "zoom_w": 0.83}
        interpolation = ("nearest", "bilinear")[order]
        settings = fixed(**geometry, fill=fill, fill_value=37.5, interpolation=interpolation)
        for h, w in SIZES:
            x = pixels(2, h, w, channels)
            y = augment(settings, x)
            matrix = keras_matrix(
                h, w, rotation=27.3, shift=(2.37, -3.21), shear=8.1, zoom=(1.31, 0.83)
            )
            np.testing.assert_allclose(
                draw(settings, (h, w, channels))["matrix"], matrix, atol=1e-9
            )
            for n in range(2):
                expected = scipy_image(x[n], matrix, (h, w), fill=fill, order=order, value=37.5)
                # 1e-4 of the range of pixels; a position is right to about a millionth of a pixel.
                assert np.abs(y[n] - expected).max() < 0.0255

    @pytest.mark.parametrize("fill", FILLS)
    @pytest.mark.parametrize("reach", [1, 3, 8, 40])
    def test_whole_pixels_are_scipys_exactly(self, isa, fill, reach):
        for h, w in SIZES:
            x = pixels(1, h, w, 3)
            for down, right in ((reach, 0), (-reach, 0), (0, reach), (0, -reach), (reach, -reach)):
                settings = fixed(shift_h=-down, shift_w=-right, fill=fill, fill_value=9.0)
                expected = scipy_image(
                    x[0], [1, 0, -down, 0, 1, -right], (h, w), fill=fill, order=1, value=9.0
                )
                assert_exact(augment(settings, x)[0], expected.astype(np.float32))

    @given(
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4)),
        st.floats(-180, 180),
        st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
        st.tuples(st.floats(0.05, 4), st.floats(0.05, 4)),
        st.sampled_from(FILLS),
    )
    def test_any_affine(self, shape, rotation, shift, zoom, fill):
        x = pixels(1, *shape)
        settings = fixed(
            rotation=rotation, shift_h=shift[0], shift_w=shift[1], zoom_h=zoom[0], zoom_w=zoom[1]
        ) | {"fill": fill, "fill_value": 5.0}
        y = augment(settings, x)[0]
        matrix = draw(settings, shape)["matrix"]
        expected = scipy_image(x[0], matrix, shape[:2], fill=fill, order=1, value=5.0)
        wrong = np.abs(y - expected).max(axis=-1) > 0.05
        # Where a position falls on an edge of the image, to rounding, either side is right.
        i, j = np.indices(shape[:2])
        m = np.asarray(matrix).reshape(2, 3)
        for row, n in zip(m, shape, strict=False):
            at = row[0] * i + row[1] * j + row[2]
            steps = max(n - 1, 1) if fill == "wrap" else 1
            at = np.where((at < 1e-3) | (at > n - 1 - 1e-3), at / steps, 0.5)
            wrong &= np.abs(at - np.round(at)) > 1e-3
        assert not wrong.any()

    def test_flips_are_pillows(self, isa):
        for h, w in SIZES:
            for channels in (1, 2, 3, 4, 5):
                x = pixels(1, h, w, channels)
                assert_exact(augment({"flip_horizontal": 1}, x, dtype="uint8"), x[:, :, ::-1])
                assert_exact(augment({"flip_vertical": 1}, x, dtype="uint8"), x[:, ::-1])
            x = pixels(h, w, 3)
            both = augment({"flip_horizontal": 1, "flip_vertical": 1}, x[None], dtype="uint8")[0]
            assert_exact(both, np.array(ImageOps.flip(ImageOps.mirror(Image.fromarray(x)))))

    def test_identity(self, isa):
        for h, w in SIZES:
            x = pixels(3, h, w, 3)
            assert_exact(augment({}, x), x.astype(np.float32))
            assert_exact(augment({}, x, dtype="uint8"), x)

    @pytest.mark.parametrize("degrees,turns", [(90, 1), (180, 2), (270, 3), (-90, 3), (360, 0)])
    @pytest.mark.parametrize("fill", FILLS)
    def test_right_angles_keep_the_border(self, degrees, turns, fill):
        """Positive angles turn counter-clockwise, and rounding costs no row at the edge."""
        for size in (1, 2, 7, 16, 33):
            x = pixels(1, size, size, 3)
            y = augment(fixed(rotation=degrees, fill=fill, fill_value=-1000.0), x)[0]
            np.testing.assert_allclose(y, np.rot90(x[0], turns).astype(np.float32), atol=1e-3)

    def test_directions(self):
        x = np.zeros((1, 5, 7, 1), np.uint8)
        x[0, 2, 3] = 1

        def found(**geometry):
            y = augment(fixed(fill="constant", **geometry), x)[0, ..., 0]
            return tuple(int(i) for i in np.argwhere(y == y.max())[0])

        assert found(shift_h=1) == (1, 3)  # a positive shift moves up ...
        assert found(shift_w=1) == (2, 2)  # ... or left
        x = np.zeros((1, 7, 7, 1), np.uint8)
        x[0, 3, 5] = 1
        assert found(rotation=90) == (1, 3)  # counter-clockwise
        assert found(zoom_h=2, zoom_w=2) == (3, 4)  # smaller


class TestCrop:
    def test_whole_windows_of_the_padded_image(self, isa):
        x = pixels(1, 9, 12, 3)
        padded = np.pad(x[0].astype(np.float32), ((2, 2), (2, 2), (0, 0)), constant_values=7)
        settings = {"height": 6, "width": 8, "padding": 2, "fill": "constant", "fill_value": 7.0}
        corners = set()
        for index in range(300):
            y = augment(settings, x, indices=np.array([index]))[0]
            top, left, height, width = draw(settings, (9, 12, 3), index)["window"]
            assert (height, width) == (6, 8)
            corners.add((top, left))
            top, left = int(top) + 2, int(left) + 2
            assert_exact(y, padded[top : top + 6, left : left + 8])
        assert {top for top, _ in corners} == set(range(-2, 6))
        assert {left for _, left in corners} == set(range(-2, 7))

    def test_centre(self):
        x = pixels(1, 9, 12, 3)
        y = augment({"height": 5, "width": 4, "crop_centre": 1}, x, dtype="uint8")
        assert_exact(y, x[:, 2:7, 4:8])

    def test_resized_window_is_pillows_box_without_antialiasing(self, isa):
        """Enlarging, Pillow's bilinear resize of a box reads the same positions."""
        x = pixels(40, 30, 3)
        settings = {"height": 64, "width": 48, "fill": "nearest"}
        settings |= {"crop_area_low": 0.3, "crop_area_high": 0.9}
        settings |= {"crop_ratio_low": 0.75, "crop_ratio_high": 1.33}
        for index in range(20):
            top, left, height, width = draw(settings, (40, 30, 3), index)["window"]
            assert 0 <= top <= 40 - height
            assert 0 <= left <= 30 - width
            y = augment(settings, x[None], indices=np.array([index]))[0]
            box = (left, top, left + width, top + height)
            for c in range(3):
                channel = Image.fromarray(x[..., c].astype(np.float32))
                expected = np.array(channel.resize((48, 64), Image.Resampling.BILINEAR, box=box))
                # At the window's edge Pillow stays inside of it, we read the image next to it.
                inner = (slice(2, -2), slice(2, -2))
                np.testing.assert_allclose(y[..., c][inner], expected[inner], atol=0.05)

    def test_area_and_ratio(self):
        settings = {"crop_area_low": 0.2, "crop_area_high": 0.5}
        settings |= {"crop_ratio_low": 0.5, "crop_ratio_high": 2.0}
        draws = _core.augment_draws(settings, (100, 100, 3), np.arange(4000), 0, 0, 0)
        windows = np.array([d["window"] for d in draws])
        areas, ratios = windows[:, 2] * windows[:, 3], windows[:, 3] / windows[:, 2]
        assert 2000 <= areas.min() < 2100
        assert 4900 < areas.max() <= 5000
        assert abs(areas.mean() - 3500) < 60
        assert abs(np.log(ratios).mean()) < 0.03  # a ratio is as likely as its inverse
        assert 0.5 <= ratios.min() < 0.52
        assert 1.95 < ratios.max() <= 2.0


class TestColour:
    @pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7])
    @pytest.mark.parametrize(
        "name,enhancer",
        [
            ("brightness", ImageEnhance.Brightness),
            ("contrast", ImageEnhance.Contrast),
            ("saturation", ImageEnhance.Color),
        ],
    )
    def test_pillows(self, isa, name, enhancer, factor):
        for h, w in SIZES:
            x = pixels(h, w, 3)
            y = augment(fixed(**{name: factor}), x[None])[0]
            expected = np.array(enhancer(Image.fromarray(x)).enhance(factor))
            # Pillow rounds the grey values, and in Contrast their mean, to whole numbers.
            assert np.abs(y - expected).max() <= 1.6

    @pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
    def test_formulas(self, isa, channels):
        for h, w in SIZES:
            x = np.random.default_rng(0).uniform(0, 1, (1, h, w, channels)).astype(np.float32)
            wide = x.astype(np.float64)
            settings = {"value_low": 0.0, "value_high": 1.0}

            def check(expected, settings=settings, x=x, **numbers):
                y = augment(fixed(**numbers) | settings, x)
                np.testing.assert_allclose(y, np.clip(expected, 0, 1), atol=2e-6)

            check(wide * 1.3, brightness=1.3)
            check(wide + 0.2, brightness_shift=0.2)
            means = wide.mean(axis=(1, 2), keepdims=True)
            check((wide - means) * 1.4 + means, contrast=1.4, contrast_per_channel=1)
            shares = (0.299, 0.587, 0.114) if channels == 3 else np.full(channels, 1 / channels)
            grey = (means * shares).sum()
            check((wide - grey) * 0.6 + grey, contrast=0.6)
            bright = wide * 1.2 + 0.1
            centre = grey * 1.2 + 0.1
            check(
                (bright - centre) * 1.4 + centre,
                brightness=1.2,
                brightness_shift=0.1,
                contrast=1.4,
            )
            check(np.clip(wide + 0.3, x.min(), x.max()), channel_shift=0.3)
            check(np.clip(wide - 0.3, x.min(), x.max()), channel_shift=-0.3)

    def test_with_geometry(self, isa):
        """Colour is applied to what the resampling gives, in one pass."""
        x = pixels(1, 33, 20, 3)
        plain = augment(fixed(rotation=20), x).astype(np.float64)
        y = augment(fixed(rotation=20, brightness=1.5, saturation=0.3), x)
        bright = plain * 1.5
        grey = (bright * (0.299, 0.587, 0.114)).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(y, np.clip(grey + 0.3 * (bright - grey), 0, 255), atol=1e-3)

    def test_scale_and_offset_come_last(self, isa):
        for channels in (1, 3, 6):
            x = pixels(2, 17, 5, channels)
            scale = np.linspace(0.1, 2, channels, dtype=np.float32)
            offset = np.linspace(-3, 3, channels, dtype=np.float32)
            settings = fixed(brightness=2.0)
            y = _core.augment(settings, x, None, None, 0, 0, 0, scale, offset, "float32", None)
            expected = np.minimum(x * 2.0, 255) * scale + offset
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)

    def test_uint8_is_rounded_and_clipped(self, isa):
        x = pixels(1, 9, 9, 3)
        settings = fixed(brightness=1.7, value_low=-1000.0, value_high=1000.0)
        y = augment(settings, x, dtype="uint8")
        assert_exact(y, np.minimum(np.floor(x * np.float32(1.7) + 0.5), 255).astype(np.uint8))
        assert augment({}, np.full((1, 1, 1, 1), np.nan, np.float32), dtype="uint8") == 0

    def test_nan_stays(self, isa):
        x = np.full((1, 3, 3, 3), np.nan, np.float32)
        for numbers in ({}, {"rotation": 10}, {"brightness": 0.5}, {"channel_shift": 3.0}):
            assert np.isnan(augment(fixed(**numbers), x)).all()


class TestErase:
    def test_rectangle(self, isa):
        x = pixels(1, 40, 30, 3)
        settings = {"erase": 1.0, "erase_value": 77.0}
        for index in range(50):
            top, left, height, width = draw(settings, (40, 30, 3), index)["erased"]
            expected = x[0].astype(np.float32)
            expected[top : top + height, left : left + width] = 77
            assert_exact(augment(settings, x, indices=np.array([index]))[0], expected)
            assert top + height <= 40
            assert left + width <= 30
            assert 0.015 * 1200 < height * width < 0.35 * 1200

    def test_probability(self):
        draws = _core.augment_draws({"erase": 0.3}, (20, 20, 1), np.arange(5000), 0, 0, 0)
        share = np.mean([d["erased"][2] > 0 for d in draws])
        assert abs(share - 0.3) < 0.03


class TestDraws:
    def test_uniform(self):
        settings = {"flip_horizontal": 0.5, "flip_vertical": 0.2}
        ranges = {"rotation": (-30, 10), "shear": (-5, 5), "shift_h": (-3, 3), "shift_w": (0, 9)}
        ranges |= {"zoom_h": (0.8, 1.3), "zoom_w": (0.5, 0.6), "brightness": (0.2, 2)}
        ranges |= {"contrast": (0.5, 1.5), "saturation": (0, 3), "channel_shift": (-9, 9)}
        for name, (low, high) in ranges.items():
            settings |= {f"{name}_low": low, f"{name}_high": high}
        count = 20_000
        draws = _core.augment_draws(settings, (20, 20, 3), np.arange(count), 1, 2, 0)
        values = {name: np.array([d[name] for d in draws]) for name in ranges}
        for name, (low, high) in ranges.items():
            v = (values[name] - low) / (high - low)
            assert 0 <= v.min() < 0.001
            assert 0.999 < v.max() <= 1
            assert abs(v.mean() - 0.5) < 0.01
            assert abs(v.std() - 12**-0.5) < 0.005
        flips = [np.array([d[f"flip_{way}"] for d in draws]) for way in ("horizontal", "vertical")]
        assert abs(flips[0].mean() - 0.5) < 0.015
        assert abs(flips[1].mean() - 0.2) < 0.015
        columns = np.stack([*values.values(), *flips]).astype(float)
        off_diagonal = np.corrcoef(columns) - np.eye(len(columns))
        assert np.abs(off_diagonal).max() < 0.035
        for v in values.values():  # neighbours have nothing to do with each other
            assert abs(np.corrcoef(v[1:], v[:-1])[0, 1]) < 0.03

    def test_whole_shifts_and_choices(self):
        settings = {"shift_h_low": -2, "shift_h_high": 2, "shift_h_whole": 1}
        settings |= {"shift_w_choices": [0.0, 3.0, 5.0]}
        draws = _core.augment_draws(settings, (9, 9, 1), np.arange(5000), 0, 0, 0)
        h, counts = np.unique([d["shift_h"] for d in draws], return_counts=True)
        assert h.tolist() == [-2, -1, 0, 1, 2]
        assert np.abs(counts / 5000 - 0.2).max() < 0.03
        w, counts = np.unique([d["shift_w"] for d in draws], return_counts=True)
        assert w.tolist() == [-5, -3, 0, 3, 5]
        assert np.abs(counts / 5000 - [1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6]).max() < 0.03

    def test_shares_are_of_the_size(self):
        settings = fixed(shift_h=0.5, shift_w=0.25) | {"shift_h_share": 1, "shift_w_share": 1}
        d = draw(settings, (10, 20, 1))
        assert (d["shift_h"], d["shift_w"]) == (5, 5)

    def test_zoom_together(self):
        settings = {"zoom_h_low": 0.5, "zoom_h_high": 1.5, "zoom_together": 1}
        d = draw(settings, (10, 20, 1), index=7)
        assert d["zoom_h"] == d["zoom_w"] != 1

    def test_one_setting_does_not_change_what_another_draws(self):
        rotation = {"rotation_low": -30, "rotation_high": 30}
        more = rotation | {"flip_horizontal": 0.5, "erase": 1.0, "zoom_h_low": 0.5}
        for index in range(20):
            one, two = (draw(s, (9, 9, 3), index) for s in (rotation, more))
            assert one["rotation"] == two["rotation"]

    def test_seed_epoch_and_index_decide(self):
        settings = {"rotation_low": -30, "rotation_high": 30}
        drawn = {
            draw(settings, (9, 9, 3), index, seed, epoch)["rotation"]
            for index in (0, 1, 2**40)
            for seed in (0, 1, 2**63)
            for epoch in (0, 1, 2**39)
        }
        assert len(drawn) == 27

    def test_they_are_philox_numbers(self):
        """Of the key, the image and the epoch; each quantity has its own word."""
        settings = {"rotation_low": -30, "rotation_high": 30, "brightness_low": 0.5}
        seed, epoch, index = 12345, 6, 77
        key = np.uint64(seed ^ 0x6175676D656E7421)
        counters = np.uint64(epoch << 24) + np.arange(6, dtype=np.uint64)
        words = philox(key, np.uint64(index), counters).reshape(-1)
        drawn = draw(settings, (9, 9, 3), index, seed, epoch)
        assert drawn["rotation"] == pytest.approx(-30 + 60 * (words[2] + 0.5) / 2**32)
        assert drawn["brightness"] == pytest.approx(0.5 + 0.5 * (words[15] + 0.5) / 2**32)


EVERYTHING = {
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "rotation_low": -30.0,
    "rotation_high": 30.0,
    "shift_h_low": -3.0,
    "shift_h_high": 3.0,
    "shift_w_whole": 1,
    "shift_w_low": -3.0,
    "shift_w_high": 3.0,
    "shear_low": -9.0,
    "shear_high": 9.0,
    "zoom_h_low": 0.8,
    "zoom_h_high": 1.2,
    "brightness_low": 0.8,
    "brightness_high": 1.2,
    "contrast_low": 0.8,
    "contrast_high": 1.2,
    "saturation_low": 0.5,
    "saturation_high": 1.5,
    "channel_shift_low": -9.0,
    "channel_shift_high": 9.0,
    "erase": 0.5,
    "height": 15,
    "width": 11,
    "padding": 2,
}


class TestBatches:
    def test_same_bits_for_any_number_of_threads(self):
        x = pixels(70, 33, 20, 3)
        before = _core.num_threads()
        try:
            results = []
            for threads in (1, 2, 5):
                _core.set_num_threads(threads)
                results.append(augment(EVERYTHING, x, seed=3))
        finally:
            _core.set_num_threads(before)
        for y in results[1:]:
            assert_exact(y, results[0])

    def test_order_and_batch_size_do_not_matter(self):
        x = pixels(23, 17, 19, 3)
        whole = augment(EVERYTHING, x, seed=3, epoch=8)
        order = np.random.default_rng(0).permutation(23)
        rows = augment(EVERYTHING, x, rows=order, seed=3, epoch=8)
        assert_exact(rows, whole[order])
        # Images that were gathered elsewhere, and their numbers.
        for begin in range(0, 23, 4):
            part = order[begin : begin + 4]
            y = augment(EVERYTHING, x[part], indices=part, seed=3, epoch=8)
            assert_exact(y, whole[part])
        assert not np.array_equal(whole, augment(EVERYTHING, x, seed=3, epoch=9))
        assert not np.array_equal(whole, augment(EVERYTHING, x, seed=4, epoch=8))

    def test_rows_may_repeat_and_are_numbered_by_indices(self):
        x = pixels(3, 17, 19, 3)
        rows, indices = np.array([2, 2, 0]), np.array([5, 6, 5])
        y = augment(EVERYTHING, x, rows=rows, indices=indices)
        assert_exact(y[0], augment(EVERYTHING, x[2:], indices=np.array([5]))[0])
        assert_exact(y[1], augment(EVERYTHING, x[2:], indices=np.array([6]))[0])
        assert_exact(y[2], augment(EVERYTHING, x[:1], indices=np.array([5]))[0])

    def test_floats_and_pixels_agree(self):
        x = pixels(5, 33, 20, 3)
        assert_exact(augment(EVERYTHING, x.astype(np.float32)), augment(EVERYTHING, x))

    @pytest.mark.parametrize("shape", [(0, 5, 5, 3), (0, 1, 1, 1)])
    def test_empty(self, shape):
        settings = {"rotation_low": 3, "rotation_high": 4}
        y = augment(settings, np.zeros(shape, np.uint8))
        assert y.shape == shape
        none = np.zeros(0, np.int64)
        assert augment(settings, pixels(2, 5, 5, 3), rows=none).shape == (0, 5, 5, 3)

    def test_non_contiguous(self):
        x = pixels(4, 20, 33, 6)[::2, :, ::2, ::2]
        assert_exact(augment(EVERYTHING, x), augment(EVERYTHING, np.ascontiguousarray(x)))

    def test_out(self):
        x = pixels(4, 20, 33, 3)
        expected = augment(EVERYTHING, x)
        out = np.empty_like(expected)
        assert augment(EVERYTHING, x, out=out) is out
        assert_exact(out, expected)
        with pytest.raises(ValueError, match=r"augment: expected out of shape \(4,15,11,3\), got"):
            augment(EVERYTHING, x, out=np.empty_like(out[1:]))
        with pytest.raises(TypeError, match="augment: expected out of dtype float32, got uint8"):
            augment(EVERYTHING, x, out=np.empty(out.shape, np.uint8))
        with pytest.raises(ValueError, match="augment: expected out to be apart from x"):
            augment({}, out, out=out)


class TestErrors:
    x = np.zeros((2, 8, 8, 3), np.uint8)

    @pytest.mark.parametrize(
        "settings,message",
        [
            ({"flip_horizontal": 1.5}, r"expected flip_horizontal in \[0,1\], got 1.5"),
            ({"rotation_low": 5}, "expected rotation_low of at most rotation_high, got 5 and 0"),
            ({"rotation_low": float("nan")}, "expected rotation_low in .*, got nan"),
            ({"zoom_h_low": 0.0}, r"expected zoom_h_low in \[0.001,100\], got 0"),
            ({"shear_high": 90}, r"expected shear_high in \[-89,89\], got 90"),
            ({"shift_h_choices": [1e9]}, "expected each choice of a shift in"),
            ({"brightness_low": -1}, "expected brightness_low in"),
            ({"height": 9}, r"expected a crop of at most \(8,8\) plus padding 0, got \(9,8\)"),
            ({"height": 2.5}, "expected height, width and padding to be whole numbers"),
            ({"fill": "mirror"}, 'expected a fill mode .* got "mirror"'),
            ({"interpolation": "cubic"}, 'expected interpolation .* got "cubic"'),
            ({"value_low": 3, "value_high": 2}, "expected value_low of at most value_high"),
            ({"rotate": 3}, "there is no setting 'rotate'; expected one of flip_horizontal, "),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=f"augment: {message}"):
            augment(settings, self.x)

    def test_types(self):
        with pytest.raises(TypeError, match="augment: expected another type for erase, got 'much'"):
            augment({"erase": "much"}, self.x)
        with pytest.raises(TypeError, match="augment: expected x of dtype uint8 or float32, got"):
            augment({}, self.x.astype(np.float64))
        with pytest.raises(TypeError, match="augment: expected rows of dtype int64, got int32"):
            augment({}, self.x, rows=np.zeros(1, np.int32))
        with pytest.raises(ValueError, match='augment: expected dtype "float32" or "uint8"'):
            augment({}, self.x, dtype="float16")

    def test_shapes(self):
        with pytest.raises(ValueError, match=r"augment: expected x \(N,H,W,C\), got shape \(8,8\)"):
            augment({}, np.zeros((8, 8), np.uint8))
        with pytest.raises(ValueError, match=r"augment: expected images with sizes in \[1,32767\]"):
            augment({}, np.zeros((2, 0, 8, 3), np.uint8))
        with pytest.raises(ValueError, match=r"saturation needs images of 3 channels, got x of"):
            augment(fixed(saturation=0.5), np.zeros((2, 8, 8, 1), np.uint8))

    def test_indices(self):
        with pytest.raises(ValueError, match=r"expected rows in \[0,2\), got 2 at position 1"):
            augment({}, self.x, rows=np.array([0, 2]))
        with pytest.raises(ValueError, match=r"expected rows in \[0,2\), got -1 at position 0"):
            augment({}, self.x, rows=np.array([-1]))
        with pytest.raises(ValueError, match="expected rows of x, which is empty, got 1"):
            augment({}, self.x[:0], rows=np.array([0]))
        with pytest.raises(ValueError, match="expected indices .* got -5 at position 0"):
            augment({}, self.x, indices=np.array([-5, 0]))
        with pytest.raises(
            ValueError, match=r"expected indices \(N,\) of shape \(2,\), got \(1,\)"
        ):
            augment({}, self.x, indices=np.array([1]))
        with pytest.raises(ValueError, match=r"expected epoch in \[0,2\^40\)"):
            augment({}, self.x, epoch=2**40)
        with pytest.raises(ValueError, match=r"scale \(C,\) of shape \(3,\), got \(2,\)"):
            _core.augment({}, self.x, None, None, 0, 0, 0, np.ones(2, "f4"), None, "float32", None)
