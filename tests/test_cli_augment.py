"""`convlet train --augment`: what it says, what the run folder keeps, and resuming with it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from convlet.cli.augment import parse_augmentation
from convlet.data import Augmentation
from test_cli import accuracy, convlet, mistaken, same_files, start, succeeded, wait_for_epochs

IMAGES = (32, 24, 3)


class TestWords:
    @pytest.mark.parametrize(
        "text,expected",
        [
            ("none", Augmentation()),
            ("default", Augmentation(shift=3, fill="constant")),
            ("flip", Augmentation(flip="horizontal")),
            ("flip=both, rotate=15", Augmentation(flip="both", rotate=15)),
            ("shift=0.1,zoom=0.2", Augmentation(shift=0.1, zoom=0.2)),
            ("shift=2", Augmentation(shift=2)),
            ("padding=4,fill=reflect", Augmentation(crop=(32, 24), padding=4, fill="reflect")),
            ("resized_crop=0.5", Augmentation(resized_crop=0.5)),
            (
                "brightness=0.2,contrast=0.3,saturation=0.4,channel_shift=9,erase=0.5,shear=3",
                Augmentation(
                    brightness=0.2,
                    contrast=0.3,
                    saturation=0.4,
                    channel_shift=9,
                    erase=0.5,
                    shear=3,
                ),
            ),
        ],
    )
    def test_meaning(self, text, expected):
        assert parse_augmentation(text, IMAGES) == expected

    @pytest.mark.parametrize(
        "text,message",
        [
            ("turn=3", "--augment turn=3: expected parts among default, .*, got 'turn=3'"),
            ("", "--augment : expected parts among"),
            ("rotate", "--augment rotate: expected parts among .*, got 'rotate'"),
            ("rotate=far", "got 'rotate=far'"),
            ("rotate=5,rotate=6", "--augment rotate=5,rotate=6: rotate is given twice"),
            ("shift=1.5", "--augment shift=1.5: shift: expected a share below 1, whole pixels"),
            ("flip=sideways", "--augment flip=sideways: flip: expected one of"),
            ("zoom=2", "--augment zoom=2: expected zoom_h_low in"),
        ],
    )
    def test_mistakes(self, text, message):
        with pytest.raises(ValueError, match=message):
            parse_augmentation(text, IMAGES)


LONG = ("train", "digits", "--epochs", "6", "--augment", "rotate=10,shift=1,erase=0.2")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augmented")
    return succeeded(convlet(*LONG, "--out", "run", cwd=folder)), folder / "run"


def test_the_run_keeps_and_shows_it(uninterrupted):
    output, run = uninterrupted
    line = "in training: each image changes at random: rotate 10, shift 1, erase 0.2"
    assert line in output.splitlines()
    assert accuracy(output) > 80
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["augment"] == "rotate=10,shift=1,erase=0.2"
    assert config["augmentation"] == {"rotate": 10, "shift": 1, "erase": 0.2}
    sheet = np.array(Image.open(run / "augmentation.png"))
    assert sheet.shape == (32 + 8 * 68, 110 + 14 + 9 * 68, 3)  # eight digits, eight changes each
    originals, first = sheet[32:, 110:174], sheet[32:, 110 + 14 + 68 : 110 + 14 + 68 + 64]
    assert not np.array_equal(originals, first)


def test_none(tmp_path):
    output = succeeded(
        convlet("train", "digits", "--epochs", "1", "--augment", "none", cwd=tmp_path)
    )
    assert "in training: images stay as they are" in output


def test_resume_goes_on_with_it(tmp_path, uninterrupted):
    run = tmp_path / "run"
    process = start(*LONG, "--out", "run", cwd=tmp_path)
    wait_for_epochs(run, 2, process)
    process.kill()
    process.communicate(timeout=60)
    succeeded(convlet("train", "digits", "--resume", "--out", "run", cwd=tmp_path))
    same_files(uninterrupted[1], run)


def test_mistakes(tmp_path, uninterrupted):
    for text, message in (
        ("turn=3", "error: --augment turn=3: expected parts among"),
        ("saturation=0.5", "error: --augment saturation=0.5: saturation needs images in colour"),
    ):
        mistaken(convlet("train", "digits", "--augment", text, cwd=tmp_path), message)
    assert not (tmp_path / "runs").exists()
    shutil.copytree(uninterrupted[1], tmp_path / "run")
    again = ("train", "digits", "--resume", "--out", "run", "--augment", "none")
    mistaken(convlet(*again, cwd=tmp_path), "--augment none: run was begun with rotate=10,shift=1")
