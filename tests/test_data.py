"""Preprocessing, image decoding and splits."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from convlet.data import Preprocessing, assign_parts, open_source, stratified_split
from convlet.data.image import MAX_PIXELS, as_image, as_pixels, decode
from pictures import encoded, pixels

GREY = Preprocessing((4, 6), "grayscale")
RGB = Preprocessing((4, 6), "rgb")
BILINEAR = {"interpolation": "bilinear"}


# Decoding: one image, every way to store it.


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_give_the_pixels_back(format):
    x = pixels(4, 6)
    options = {"lossless": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(
        GREY.fitted(decode(encoded(Image.fromarray(x), format, **options), "x"))[..., 0], x
    )


def test_jpeg_comes_close():
    x = np.full((4, 6, 3), (200, 100, 50), np.uint8)
    decoded = RGB.fitted(decode(encoded(Image.fromarray(x), "JPEG", quality=95), "x"))
    assert np.abs(decoded.astype(int) - x).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path):
    x = pixels(6, 4)
    turned = {
        1: x,
        2: x[:, ::-1],
        3: x[::-1, ::-1],
        4: x[::-1],
        5: x.T,
        6: np.rot90(x, -1),
        7: np.rot90(x, 2).T,
        8: np.rot90(x),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a" / "x.png"
    path.parent.mkdir()
    path.write_bytes(encoded(Image.fromarray(x), exif=exif))
    np.testing.assert_array_equal(decode(path.read_bytes(), "x")[..., 0], turned)
    assert open_source(tmp_path).default_preprocessing().size == turned.shape


def test_palette_becomes_its_colours():
    image = Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert RGB.fitted(decode(encoded(image), "x"))[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(mode):
    if mode == "P":
        image = Image.new("P", (6, 4), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        data = encoded(image, transparency=1)
    else:
        data = encoded(Image.new(mode, (6, 4), (0,) * len(mode)))
    assert RGB.fitted(decode(data, "x")).min() == 255


def test_half_transparent_black_over_white_is_grey():
    assert GREY(Image.new("RGBA", (6, 4), (0, 0, 0, 128))).tolist()[0][0] == [127]


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (6, 4), (0, 255, 255, 0))
    assert RGB.fitted(decode(encoded(image, "TIFF"), "x"))[0, 0].tolist() == [255, 0, 0]


def test_bilevel_is_black_and_white():
    assert set(GREY.fitted(decode(encoded(Image.new("1", (6, 4), 1)), "x")).ravel()) == {255}


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_mapped_to_eight(format):
    values = np.tile(np.array([0, 128, 129, 257, 32896, 65535], np.uint16), (4, 1))
    decoded = GREY.fitted(decode(encoded(Image.fromarray(values), format), "x"))
    assert decoded[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_undefined_ranges_are_refused():
    for values in (np.zeros((4, 6), np.float32), np.full((4, 6), 70000, np.int32)):
        with pytest.raises(ValueError, match=r"^x\.tif: .*no defined white"):
            decode(encoded(Image.fromarray(values), "TIFF"), "x.tif")


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    side = int(MAX_PIXELS**0.5) + 1
    data = encoded(Image.new("1", (side, side)))
    with pytest.raises(ValueError, match=r"^bomb\.png: larger than 80 million pixels"):
        decode(data, "bomb.png")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe EPSF\n"])
def test_what_is_no_image_is_named(data):
    with pytest.raises(ValueError, match=r"^cat\.png: "):
        decode(data, "cat.png")


@pytest.mark.filterwarnings("ignore:::PIL")
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**16), st.integers(0, 255), st.sampled_from(["PNG", "JPEG", "GIF", "TIFF"]))
def test_broken_files_raise_one_kind_of_error(position, value, format):
    data = bytearray(encoded(Image.fromarray(pixels(9, 7, 3)), format))
    data[position % len(data)] = value
    for broken in (bytes(data), bytes(data[: position % len(data)])):
        refusal = ""
        try:
            channels = decode(broken, "x").shape[2]
        except ValueError as error:
            refusal, channels = str(error), 0
        assert channels in (1, 3) or refusal.startswith("x: ")


# Preprocessing


def test_a_file_an_image_and_an_array_give_the_same_input(tmp_path):
    x = pixels(11, 5, 3)
    path = tmp_path / "x.png"
    Image.fromarray(x).save(path)
    for how in ("stretch", "crop", "pad"):
        p = Preprocessing((7, 9), "grayscale", how, scale=1 / 255)
        expected = p(x)
        assert expected.shape == p.input_shape == (7, 9, 1)
        assert expected.dtype == np.float32
        for same in (path, str(path), Image.open(path)):
            np.testing.assert_array_equal(p(same), expected)
        np.testing.assert_array_equal(p.batch([x, x]), np.stack([expected] * 2))


def test_scale_one_keeps_uint8_and_the_own_size_keeps_the_pixels():
    x = pixels(4, 6, 3)
    assert RGB(x).dtype == np.uint8
    np.testing.assert_array_equal(RGB(x), x)
    assert RGB.batch([]).shape == (0, 4, 6, 3)


def test_crop_and_pad_keep_the_aspect_ratio():
    x = np.zeros((4, 8), np.uint8)
    x[:, 2:6] = 255
    assert Preprocessing((4, 4), "grayscale", "crop")(x).min() == 255
    padded = Preprocessing((8, 8), "grayscale", "pad")(np.full((4, 8), 9, np.uint8))
    assert padded[:2].max() == 0
    assert padded[2:6].min() == 9
    assert padded[6:].max() == 0
    assert Preprocessing((4, 4), "grayscale", "pad")(np.full((1, 999), 9, "u1")).max() == 9


@pytest.mark.parametrize("how", ["stretch", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 16), (66, 99), (31, 200)])
@pytest.mark.parametrize("own", [(1, 1), (7, 16), (99, 31), (66, 200)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_pillows(channels, own, size, how):
    """Though it is not Pillow that does it. (Its versions round between the axes in two ways.)"""
    x = pixels(*own, channels)
    mode = "grayscale" if channels == 1 else "rgb"
    found = Preprocessing(size, mode, how).fitted(x)
    inner = size
    if how == "pad":
        ratio = min(size[0] / own[0], size[1] / own[1])
        inner = tuple(max(1, round(n * ratio)) for n in own)
    image = as_image(x).resize(inner[::-1], Image.Resampling.BILINEAR)
    expected = np.zeros_like(found)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    expected[top : top + inner[0], left : left + inner[1]] = as_pixels(image)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("name", "filter"), [("nearest", 0), ("bicubic", 3), ("area", 4)])
def test_interpolations(name, filter):
    x = pixels(30, 20, 3)
    expected = np.asarray(Image.fromarray(x).resize((9, 13), filter))
    found = Preprocessing((13, 9), interpolation=name).fitted(x)
    np.testing.assert_array_equal(found, expected)


def test_cropping_is_pillows():
    x = pixels(30, 20, 3)
    expected = ImageOps.fit(Image.fromarray(x), (9, 13), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(Preprocessing((13, 9), resize="crop").fitted(x), expected)


def test_config_round_trip():
    p = Preprocessing((7, 9), "grayscale", "pad", 1 / 255, "area")
    assert Preprocessing.from_config(json.loads(json.dumps(p.to_config()))) == p


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"size": [4, 4]},
        {
            "size": [4, 4],
            "color_mode": "rgb",
            "resize": "stretch",
            "scale": 1.0,
            **BILINEAR,
            "more": 1,
        },
        {"size": [4], "color_mode": "rgb", "resize": "stretch", "scale": 1.0, **BILINEAR},
        {"size": [0, 4], "color_mode": "rgb", "resize": "stretch", "scale": 1.0, **BILINEAR},
        {"size": [4, 2**40], "color_mode": "rgb", "resize": "stretch", "scale": 1.0, **BILINEAR},
        {"size": [4, 4], "color_mode": ["rgb"], "resize": "stretch", "scale": 1.0, **BILINEAR},
        {"size": [4, 4], "color_mode": "rgb", "resize": "bend", "scale": 1.0, **BILINEAR},
        {
            "size": [4, 4],
            "color_mode": "rgb",
            "resize": "stretch",
            "scale": float("nan"),
            **BILINEAR,
        },
        {"size": [4, 4], "color_mode": "rgb", "resize": "stretch", "scale": "1", **BILINEAR},
    ],
)
def test_a_foreign_config_is_refused(config):
    with pytest.raises(ValueError, match=r"^Preprocessing: expected"):
        Preprocessing.from_config(config)


def test_wrong_arrays_are_named():
    with pytest.raises(TypeError, match=r"expected uint8 pixels 0\.\.255, got float32"):
        RGB(np.zeros((4, 6, 3), np.float32))
    for shape in ((4,), (4, 6, 2), (0, 6, 3), (1, 4, 6, 3)):
        with pytest.raises(ValueError, match="expected pixels"):
            RGB(np.zeros(shape, np.uint8))
    with pytest.raises(FileNotFoundError, match=r"nothing\.png: no such file"):
        RGB("nothing.png")


# Splits


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 4), max_size=99),
    st.floats(0, 0.99),
    st.integers(0, 9),
)
def test_stratified_split_shares_every_class(labels, fraction, seed):
    kept, held = stratified_split(labels, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    labels = np.asarray(labels, dtype=int)
    for label in set(labels):
        count, part = (labels == label).sum(), (labels[held] == label).sum()
        assert part < count
        if fraction > 0 and count > 1:
            assert part >= 1
            assert abs(part - count * fraction) <= 1


def test_a_split_is_the_same_for_ever():
    _, held = stratified_split([0, 1] * 10, 0.3, seed=7)
    assert held.tolist() == [3, 4, 6, 11, 12, 13]
    assert stratified_split([0, 1] * 10, 0.3, seed=8)[1].tolist() != held.tolist()
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"fraction in \[0, 1\)"):
            stratified_split([0, 1], fraction, 0)


def digests(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_parts_of_an_undivided_source():
    labels = np.repeat([0, 1], 100)
    parts = assign_parts(labels, [""] * 200, digests(200), validation=0.1, test=0.2, seed=0)
    for label in (0, 1):
        counts = {p: int((parts[labels == label] == p).sum()) for p in ("train", "val", "test")}
        assert counts == {"train": 72, "val": 8, "test": 20}


def test_given_parts_are_kept():
    labels = np.repeat([0, 1], 50)
    given = np.array((["train"] * 40 + ["test"] * 10) * 2)
    parts = assign_parts(labels, given, digests(100), validation=0.25, test=0.2, seed=0)
    np.testing.assert_array_equal(parts == "test", given == "test")
    assert (parts == "val").sum() == 20
    given[given == "test"] = "val"
    parts = assign_parts(labels, given, digests(100), validation=0.25, test=0.2, seed=0)
    np.testing.assert_array_equal(parts, given)
    given[:] = "train"
    parts = assign_parts(labels, given, digests(100), validation=0.0, test=0.2, seed=0)
    assert (parts == "test").sum() == 20
    assert (parts == "val").sum() == 0


def test_identical_images_stay_together():
    labels = np.repeat([0, 1], 50)
    hashes = [str(i // 2) for i in range(100)]
    parts = assign_parts(labels, [""] * 100, hashes, validation=0.2, test=0.2, seed=3)
    np.testing.assert_array_equal(parts[::2], parts[1::2])
    assert set(parts) == {"train", "val", "test"}


def test_held_out_images_that_are_also_trained_on_are_left_out():
    given = ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    hashes = ["a", "b", "c", "d", "a", "e", "e", "b", "f"]
    parts = assign_parts([0] * 9, given, hashes, validation=0.1, test=0.1, seed=0)
    assert parts.tolist() == ["train"] * 4 + ["left out", "val", "left out", "left out", "test"]
