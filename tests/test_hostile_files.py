"""Files as people really have them: each kind has a defined outcome."""

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convlet.data import Preprocessing, open_source
from convlet.data import image as image_module
from convlet.data.broken import BrokenImages
from convlet.data.folders import FolderIndex, printable
from convlet.data.image import MAX_PIXELS, decode
from pictures import encoded, pixels, smooth, write_images

SIZE = Preprocessing((12, 16))


@pytest.fixture(params=["simplejpeg", "Pillow"])
def jpeg_decoder(request, monkeypatch):
    """Runs the test with either decoder of JPEG files."""
    if request.param == "Pillow":
        monkeypatch.setattr(image_module, "_simplejpeg", lambda: None)
    else:
        assert image_module._simplejpeg() is not None
    return request.param


def read(data: bytes) -> np.ndarray:
    return decode(data, "x")


# What a file may hold. Every outcome is the image's or an error that names the file.


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_truncated_files_are_refused(format, share, jpeg_decoder):
    whole = encoded(pixels(64, 48, 3), format)
    with pytest.raises(ValueError, match=r"^x: "):
        decode(whole[: int(share * len(whole))], "x")


def test_the_content_decides_not_the_name(tmp_path):
    x = pixels(12, 16, 3)
    (tmp_path / "a.jpg").write_bytes(encoded(x, "PNG"))
    np.testing.assert_array_equal(SIZE(tmp_path / "a.jpg"), x)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 5}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_both_jpeg_decoders_agree(mode, options, monkeypatch):
    data = encoded(Image.fromarray(smooth(61, 83)).convert(mode), "JPEG", **options)
    fast = read(data)
    monkeypatch.setattr(image_module, "_simplejpeg", lambda: None)
    slow = read(data)
    assert fast.shape == slow.shape
    assert np.abs(fast.astype(int) - slow).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_jpeg(orientation, jpeg_decoder):
    x = smooth(48, 32)
    stored = {
        1: x,
        2: x[:, ::-1],
        3: x[::-1, ::-1],
        4: x[::-1],
        5: x.swapaxes(0, 1),
        6: np.rot90(x),
        7: np.rot90(x, 2).swapaxes(0, 1),
        8: np.rot90(x, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.ascontiguousarray(stored), "JPEG", quality=95, subsampling=0, exif=exif)
    assert np.abs(read(data).astype(int) - x).max() < 12
    small = decode(data, "x", at_least=(12, 8))
    assert small.shape == (12, 8, 3)


def test_adobe_cmyk_jpeg(jpeg_decoder):
    image = Image.new("CMYK", (16, 12), (0, 255, 255, 0))
    colour = read(encoded(image, "JPEG", quality=95))[5, 5]
    assert (np.abs(colour.astype(int) - [255, 0, 0]) < 8).all()


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(format):
    frames = [Image.fromarray(np.full((12, 16, 3), 60 * i, np.uint8)) for i in (1, 2, 3)]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert set(read(data).ravel()) == {60}


def test_large_photographs_are_decoded_scaled(jpeg_decoder, monkeypatch):
    x = smooth(480, 640)
    data = encoded(x, "JPEG", quality=95)
    sizes = {
        n: decode(data, "x", at_least=(n, n)).shape[:2] for n in (481, 480, 240, 121, 120, 60, 1)
    }
    whole, half, quarter, eighth = (480, 640), (240, 320), (120, 160), (60, 80)
    assert list(sizes.values()) == [whole, whole, half, half, quarter, eighth, eighth]
    near = SIZE.decoded(data, "x")
    monkeypatch.setattr("convlet.data.preprocessing.SCALED_DECODING_MARGIN", 10**6)
    assert np.abs(near.astype(int) - SIZE.decoded(data, "x")).max() <= 3


def test_both_decoders_scale_alike(monkeypatch):
    data = encoded(smooth(251, 333), "JPEG")
    fast = [decode(data, "x", (n, n)) for n in (125, 62, 20)]
    monkeypatch.setattr(image_module, "_simplejpeg", lambda: None)
    for n, other in zip((125, 62, 20), fast, strict=True):
        here = decode(data, "x", (n, n))
        assert here.shape == other.shape
        assert np.abs(here.astype(int) - other).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_a_bomb_is_refused_by_its_header(format, jpeg_decoder):
    data = bytearray(encoded(Image.new("L", (16, 16)), format))
    side = 30_000
    if format == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = side.to_bytes(2, "big") * 2
    elif format == "GIF":
        data[6:10] = side.to_bytes(2, "little") * 2
    else:
        from zlib import crc32

        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = crc32(data[12:29]).to_bytes(4, "big")
    assert side * side > MAX_PIXELS
    with pytest.raises(ValueError, match=r"^x: larger than 80 million pixels, refused"):
        decode(bytes(data), "x")


# What a folder may hold.


@contextmanager
def ordinary_user():
    """Not root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def public_folder() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory()
    os.chmod(folder.name, 0o755)
    return folder


def test_files_without_permission_are_listed():
    with public_folder() as name:
        root = Path(name)
        write_images(root, {"a": 12, "b": 12})
        (root / "a" / "3.png").chmod(0)
        with ordinary_user():
            source, x, _ = open_source(root).load(SIZE)
        assert len(x) == 23
        assert list(source.broken) == ["a/3.png"]
        assert source.broken["a/3.png"].endswith("a/3.png: cannot be read: Permission denied")
        assert source.left_out() == [f"1 images cannot be read: {source.broken['a/3.png']}"]


def test_a_folder_without_permission_stops():
    with public_folder() as name:
        root = Path(name)
        write_images(root, {"a": 1, "b": 1})
        (root / "b").chmod(0)
        with ordinary_user(), pytest.raises(PermissionError, match="b: cannot be listed: Perm"):
            open_source(root)
        (root / "b").chmod(stat.S_IRWXU)


def test_links(tmp_path):
    write_images(tmp_path / "images", {"a": 2, "b": 1})
    write_images(tmp_path, {"elsewhere": 3})
    a = tmp_path / "images" / "a"
    (a / "loop.png").symlink_to("loop.png")
    (a / "nowhere.png").symlink_to("nothing.png")
    (a / "file.png").symlink_to("../b/0.png")
    (a / "up").symlink_to("..")
    (a / "side").symlink_to(tmp_path / "elsewhere")
    source = open_source(tmp_path / "images")
    assert source.ids == ["a/0.png", "a/1.png", "a/file.png", "b/0.png"]
    reasons = {
        "a/loop.png": "a link that leads nowhere",
        "a/nowhere.png": "a link that leads nowhere",
        "a/up": "a link to a folder (follow_links is off)",
        "a/side": "a link to a folder (follow_links is off)",
    }
    assert source.skipped == reasons
    with FolderIndex(follow_links=True) as index:
        listing = index.images(a, above=[tmp_path / "images"])
    names = [os.path.relpath(path, a) for path in listing.paths]
    assert names == ["0.png", "1.png", "file.png", "side/0.png", "side/1.png", "side/2.png"]
    assert listing.skipped[str(a / "up")] == "a link that leads to a folder already listed"


def test_a_class_folder_may_be_a_link_but_not_in_circles(tmp_path):
    write_images(tmp_path / "images", {"a": 1})
    write_images(tmp_path, {"elsewhere": 2})
    (tmp_path / "images" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "c").symlink_to(".")
    source = open_source(tmp_path / "images")
    assert source.class_names == ["a", "b", "c"]
    assert source.labels.tolist() == [0, 1, 1]
    assert source.skipped == {"c": "a link that leads to a folder already listed"}


def test_pipes_do_not_block(tmp_path):
    write_images(tmp_path, {"a": 1})
    os.mkfifo(tmp_path / "a" / "pipe.png")
    source = open_source(tmp_path)
    assert source.skipped == {"a/pipe.png": "not a regular file"}


def test_names_of_all_kinds(tmp_path):
    write_images(tmp_path, {"名前": 1, "Äpfel": 1, "with space": 1})
    strange = os.fsencode(tmp_path / "Äpfel") + b"/caf\xe9\n.png"
    with open(strange, "wb") as file:
        file.write(encoded(pixels(12, 16, 3)))
    source, x, _ = open_source(tmp_path).load(SIZE)
    assert source.class_names == ["with space", "Äpfel", "名前"]
    assert len(x) == 4
    assert "Äpfel/caf\\xe9\n.png" in source.ids
    for text in source.ids:
        text.encode()
    with open(strange, "wb"):
        pass
    assert "caf\\xe9" in next(iter(open_source(tmp_path).load(SIZE, 1)[0].broken.values()))
    assert printable(tmp_path) == str(tmp_path)


def test_hidden_files_and_folders_are_skipped(tmp_path):
    write_images(tmp_path, {"a": 1, ".cache": 1, "a/.thumbs": 1})
    (tmp_path / "a" / "._0.png").write_bytes(b"\0\5\x16\7")  # as macOS leaves them
    source = open_source(tmp_path)
    assert source.ids == ["a/0.png"]
    assert source.skipped == {"a/.thumbs": "hidden", "a/._0.png": "hidden"}


# Broken images: passed over, listed, counted, up to a limit.


def broken_folder(root: Path, good: int, bad: int) -> Path:
    write_images(root, {"a": good, "b": 1})
    for i in range(bad):
        (root / "a" / f"x{i}.png").write_bytes(b"\x89PNG\r\n\x1a\nhello")
    return root


def test_broken_images_are_passed_over_and_listed(tmp_path):
    source = open_source(broken_folder(tmp_path, 19, 2))
    assert len(source) == 22
    assert source.default_preprocessing().size == (5, 7)
    kept, x, digests = source.load(SIZE)
    assert len(kept) == len(x) == len(digests) == 20
    assert kept.ids == [i for i in source.ids if "x" not in i]
    assert list(kept.broken) == ["a/x0.png", "a/x1.png"]
    assert kept.left_out()[0].startswith("2 images cannot be read: ")


@pytest.mark.parametrize(("limit", "allowed"), [(0.05, 1), (0.1, 2), (2, 2), (0, 0), (100, 100)])
def test_too_many_broken_images_stop(tmp_path, limit, allowed):
    source = open_source(broken_folder(tmp_path, 17, 3))
    if allowed >= 3:
        assert len(source.load(SIZE, limit)[1]) == 18
    else:
        with pytest.raises(
            ValueError, match=rf"^{allowed + 1} of 21 images cannot be read, at most {allowed} are"
        ):
            source.load(SIZE, limit)


@pytest.mark.parametrize("limit", [-1, 1.5, float("nan"), "some", True, None])
def test_limits_that_are_none(limit):
    with pytest.raises(ValueError, match="max_broken: expected"):
        BrokenImages(10, limit)


def test_a_long_list_is_cut(tmp_path):
    source = open_source(broken_folder(tmp_path, 1, 9))
    with pytest.raises(ValueError, match=r"x4\.png.*; and 3 more$"):
        source.load(SIZE, 7)
