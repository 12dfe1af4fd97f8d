"""Dropout: its random numbers, their statistics, its scale and its gradient."""

import numpy as np
import pytest

from convlet import _core, ops
from reference import AWKWARD, assert_exact, floats, philox


def expected_mask(n, rate, seed, step, stream):
    """The elements that dropout keeps, as csrc/ops/kernels.h defines them."""
    index = np.uint64(step << 40) + np.arange(-(-n // 4), dtype=np.uint64)
    words = philox(np.uint64(seed), np.uint64(stream), index).reshape(-1)[:n]
    return (words >> np.uint64(8)).astype(np.float32) * np.float32(2**-24) >= np.float32(rate)


def test_philox_of_the_paper():
    """The known answers that the authors publish with their implementation, Random123."""
    answers = philox(np.uint64(0), np.uint64(0), np.array([0], np.uint64))
    assert answers.tolist() == [[0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]]
    ones = 2**64 - 1
    answers = philox(np.uint64(ones), np.uint64(ones), np.array([ones], np.uint64))
    assert answers.tolist() == [[0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]]
    answers = philox(
        np.uint64(0x299F31D0A4093822),
        np.uint64(0x0370734413198A2E),
        np.array([0x85A308D3243F6A88], np.uint64),
    )
    assert answers.tolist() == [[0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]]


@pytest.mark.parametrize("n", [0, *AWKWARD, 4, 64, 1023, 1024, 1025, 70_001])
@pytest.mark.parametrize(
    "seed,step,stream",
    [(0, 0, 0), (1, 5, 2), (2**64 - 1, 2**24 - 1, 2**64 - 1), (0x123456789ABCDEF, 77, 2**33 + 1)],
)
def test_mask_and_scale(isa, n, seed, step, stream):
    x = floats(n)
    rate = 0.3
    y = _core.dropout(x, rate, seed, step, stream, "element", None)
    kept = expected_mask(n, rate, seed, step, stream)
    one = np.float32(1)
    assert_exact(y, np.where(kept, x / (one - np.float32(rate)), np.float32(0)))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_share_of_kept_elements(rate):
    n = 200_000
    kept = ops.dropout(np.ones(n, np.float32), rate, seed=3) != 0
    deviation = 4 * (rate * (1 - rate) / n) ** 0.5
    assert abs(kept.mean() - (1 - rate)) <= deviation
    if rate == 0.5:  # neighbours have nothing to do with each other
        for distance in (1, 2, 3, 4, 8, 1024):
            agree = (kept[distance:] == kept[:-distance]).mean()
            assert abs(agree - 0.5) < 4 * 0.5 / n**0.5


def test_rate_zero_changes_nothing():
    x = floats(99)
    assert_exact(ops.dropout(x, 0.0, seed=1), x)


def test_backward_is_the_same_mask():
    x, dy = floats(7, 33), floats(7, 33, seed=1)
    y, dx = (ops.dropout(a, 0.4, seed=9, step=3) for a in (x, dy))
    ones = ops.dropout(np.ones_like(x), 0.4, seed=9, step=3)
    kept = ones != 0
    assert_exact(y != 0, kept)
    assert_exact(dx[~kept], np.zeros_like(dx[~kept]))
    assert_exact(dx[kept], dy[kept] / (np.float32(1) - np.float32(0.4)))


def test_seed_and_step_change_the_mask():
    x = np.ones(1000, np.float32)
    masks = [ops.dropout(x, 0.5, seed=s, step=t) != 0 for s in (0, 1, 2**40) for t in (0, 1, 2)]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert 0.4 < (a == b).mean() < 0.6
    assert_exact(ops.dropout(x, 0.5, seed=1, step=2) != 0, masks[5])


def test_dropped_elements_are_zero_whatever_they_were():
    x = np.full(64, np.nan, np.float32)
    y = ops.dropout(x, 0.5, seed=0)
    assert set(np.isnan(y)) == {True, False}
    assert (y[~np.isnan(y)] == 0).all()


def test_in_place():
    x = floats(1000)
    y = ops.dropout(x, 0.5, seed=2)
    assert_exact(ops.dropout(x, 0.5, seed=2, out=x), y)


def test_same_bits_for_any_number_of_threads():
    x = floats(100_003)
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            results.append(ops.dropout(x, 0.5, seed=4))
    finally:
        _core.set_num_threads(before)
    for y in results[1:]:
        assert_exact(y, results[0])


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=r"dropout: expected rate in \[0,1\), got"):
        ops.dropout(floats(3), rate, seed=0)


@pytest.mark.parametrize("c", [*AWKWARD, 64, 130])
def test_channels_are_dropped_together(isa, c):
    x = floats(3, 4, 5, c)
    y = _core.dropout(x, 0.4, 7, 5, 2, "channel", None)
    kept = expected_mask(3 * c, 0.4, 7, 5, 2).reshape(3, 1, 1, c)
    scale = np.float32(1) - np.float32(0.4)
    assert_exact(y, np.where(kept, x / scale, np.float32(0)))


@pytest.mark.parametrize("shape", [(9,), (9, 31), (9, 4, 5, 3)])
def test_samples_are_dropped_whole(isa, shape):
    x = floats(*shape)
    x[0] = np.nan
    y = _core.dropout(x, 0.4, 7, 5, 2, "sample", None)
    kept = expected_mask(9, 0.4, 7, 5, 2).reshape(9, *[1] * (x.ndim - 1))
    scale = np.float32(1) - np.float32(0.4)
    assert_exact(y, np.where(kept, x / scale, np.float32(0)))


@pytest.mark.parametrize("noise", ["channel", "sample"])
def test_structured_noise_does_not_depend_on_threads(threads, noise):
    x = floats(40, 9, 9, 33)
    y = ops.dropout(x, 0.5, seed=4, noise=noise)
    kept = (y != 0).any((1, 2))
    assert 0.2 < kept.mean() < 0.8
    draws = 40 * (33 if noise == "channel" else 1)
    expected = expected_mask(draws, 0.5, 4, 0, 0).reshape(40, -1)
    assert_exact(kept, np.broadcast_to(expected, kept.shape))


def test_structured_noise_of_nothing():
    for noise in ("channel", "sample"):
        assert ops.dropout(np.zeros((0, 3, 4), np.float32), seed=0, noise=noise).shape == (0, 3, 4)
    with pytest.raises(ValueError, match='at least 2 axes for noise "channel"'):
        ops.dropout(floats(3), seed=0, noise="channel")
