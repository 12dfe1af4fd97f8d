"""The emulator of tests/simt finds what is wrong with a kernel, and passes what is right."""

import ctypes
import shutil

import numpy as np
import pytest

from simt import fragments
from simt.library import HERE, Emulator, build_bugs, compile_to_ptx

# (kernel, bug): what is wrong.
BUGS = {
    ("transpose", 1): "the right edge of x is not checked",
    ("transpose", 2): "no barrier between writing the tile and reading it",
    ("transpose", 3): "the tile is written past its end",
    ("transpose", 4): "the right edge of y is not checked",
    ("transpose", 6): "two barriers, of which each warp meets one",
    ("transpose", 7): "the tile is read past its end",
    ("sums", 1): "one element too many",
    ("sums", 2): "a shuffle that not all lanes of its mask reach",
    ("sums", 3): "shared memory that one warp has not written",
    ("sums", 4): "a barrier that one warp skips",
    ("sums", 5): "blocks write each other's results",
    ("sums", 6): "a shuffle from a lane that is not in its mask",
    ("sums", 7): "lanes that are not in the mask of their shuffle",
    ("stages", 1): "a wait for one group of copies too few",
    ("stages", 2): "no barrier after the wait",
    ("stages", 3): "no barrier before a stage is filled again",
    ("stages", 4): "a source that is not aligned to 16 bytes",
    ("stages", 5): "the end of x is not checked",
    ("stages", 6): "copies that belong to no group",
    ("stages", 7): "a store to where a copy is under way",
    ("neighbours", 1): "no __syncwarp between lanes",
    ("rounds", 1): "no barrier between the other warp's read and a write",
    ("last_block", 1): "no __threadfence before the counter",
    ("last_block", 2): "a counter that is not atomic",
    ("copy", 1): "a float4 that is not aligned",
    ("copy", 2): "global memory that nobody has written",
    ("copy", 3): "all threads write one place",
    ("copy", 4): "a write before the beginning",
    ("copy", 5): "a shift by more than 31",
    ("copy", 7): "a pointer of the host's",
    ("copy", 8): "a division by zero",
    ("copy", 9): "an index outside an array of the thread's own",
    ("configuration", 1): "a block of 48 threads",
    ("configuration", 2): "more shared memory than there is",
    ("configuration", 3): "less shared memory than the kernel uses",
    ("configuration", 4): "a grid of 65536 along y",
}
# The same for the kernels of bugs_sm90.cu, which multiply two matrices.
SM90_BUGS = {
    ("pipeline", 1): "no wait for the copies",
    ("pipeline", 2): "more bytes are expected than are copied",
    ("pipeline", 3): "fewer bytes are expected than are copied",
    ("pipeline", 4): "no fence between the init of the mbarriers and the copies",
    ("pipeline", 5): "no barrier after the init of the mbarriers",
    ("pipeline", 6): "a wait for the phase before",
    ("pipeline", 7): "a stage is copied to while it is being read",
    ("pipeline", 8): "a stage is given back before the products are done",
    ("pipeline", 9): "the sums are used before the wait for the products",
    ("pipeline", 10): "no wgmma.fence",
    ("pipeline", 12): "a wait for one group of products too few",
    ("pipeline", 13): "more arrivals than an mbarrier counts",
    ("pipeline", 14): "copies that nobody waits for",
    ("pipeline", 15): "stages that are not aligned to the swizzle",
    ("pipeline", 16): "no fence.proxy.async between a store and a copy to the same place",
    ("pipeline", 17): "a store to where a copy is under way",
    ("pipeline", 18): "mbarriers that nobody has initialised",
    ("stores", 1): "no fence.proxy.async between stores and products",
    ("stores", 2): "no barrier between stores and products",
    ("stores", 3): "a tile is overwritten before the products are done",
    ("stores", 4): "the warps of a warpgroup start different products",
    ("stores", 6): "a part of a tile that nobody has written",
    ("stores", 7): "a return without a wait for the products",
}
# What is wrong between streams; the last two give wrong numbers.
STREAM_BUGS = {
    1: "a kernel does not wait for another stream's result",
    2: "memory goes back while another stream has still to use it",
    3: "the host writes again what has not been copied yet",
    4: "the host does not wait for what it reads",
}
KERNELS = sorted({kernel for kernel, _ in [*BUGS, *SM90_BUGS]})
# Those that do nothing wrong but multiply other numbers.
SM90_SWIZZLES = [("pipeline", 11), ("stores", 5)]
# In order; in reverse, greedily, copies early; shuffled; shuffled, greedily.
SCHEDULES = [(0, "late"), (-1, "early"), (2, "random"), (3, "random")]


@pytest.fixture(scope="module")
def emulator():
    return Emulator(build_bugs())


def run(emulator, kernel, bug):
    """(y, what the kernel should give)"""
    runs = run_sm90 if kernel in ("pipeline", "stores") else run_plain
    return runs(emulator, kernel, bug)


def run_plain(emulator, kernel, bug):
    rng = np.random.default_rng(0)
    shape = {"transpose": (37, 45), "sums": (5, 300), "stages": (6, 256), "neighbours": (32,)}.get(
        kernel, (7, 32)
    )
    x = rng.integers(-9, 10, shape).astype(np.float32)
    right = {
        "transpose": lambda: x.T,
        "sums": lambda: x.sum(axis=1),
        "stages": lambda: np.roll(x, -1, axis=1).sum(axis=0),
        "neighbours": lambda: np.roll(x, -1),
        "rounds": lambda: np.full(64, x.ravel()[:2].sum()),
        "last_block": lambda: x.sum(keepdims=True).reshape(1),
    }.get(kernel, lambda: x)()
    y = np.zeros(right.shape, np.float32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]
    emulator.library.simt_bug(kernel.encode(), bug, x.size, pointers[0], y.size, pointers[1])
    return y, right


def run_sm90(emulator, kernel, bug):
    """The sums are exact."""
    rng = np.random.default_rng(0)
    terms = 384 if kernel == "pipeline" else 64
    a, b = rng.integers(-8, 9, (2, 64, terms)).astype(np.float32)
    y = np.zeros((64, 64), np.float32)
    arrays = [bfloat16_bits(a).astype(np.uint16), bfloat16_bits(b).astype(np.uint16), y]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    emulator.library.sm90_bug(kernel.encode(), bug, terms, *pointers)
    return y, a @ b.T


@pytest.mark.parametrize(("seed", "copies"), SCHEDULES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_right_kernels_are_clean(emulator, kernel, seed, copies):
    emulator.options(seed, copies)
    y, right = run(emulator, kernel, 0)
    assert emulator.findings() == ""
    np.testing.assert_array_equal(y, right)


@pytest.mark.parametrize(("kernel", "bug"), [*BUGS, *SM90_BUGS])
def test_every_bug_is_found(emulator, kernel, bug):
    found = []
    for seed, copies in SCHEDULES:
        emulator.options(seed, copies)
        run(emulator, kernel, bug)
        found.append(emulator.findings())
        # Nothing of it is left for the next launch.
        y, right = run(emulator, kernel, 0)
        assert emulator.findings() == ""
        np.testing.assert_array_equal(y, right)
    assert all(found), found  # on every schedule: what is checked is the order, not the luck


@pytest.mark.parametrize(("kernel", "bug"), SM90_SWIZZLES)
def test_wrong_swizzles_give_wrong_sums(emulator, kernel, bug):
    emulator.options()
    y, right = run(emulator, kernel, bug)
    assert emulator.findings() == ""
    assert (y != right).any()


@pytest.mark.parametrize("seed", [0, -1])
@pytest.mark.parametrize("bug", [0, *STREAM_BUGS])
def test_streams_that_do_not_wait(emulator, bug, seed):
    emulator.options(seed)
    before = emulator.allocations()
    x, y = np.arange(1, 100, dtype=np.float32), np.zeros(99, np.float32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]
    emulator.library.simt_stream_bug(bug, x.size, *pointers)
    assert (emulator.findings() != "") == (bug in (1, 2))
    assert np.array_equal(x, y) == (bug == 0)
    assert emulator.allocations() == before


def test_a_hang_says_what_is_missing(emulator):
    emulator.options()
    run(emulator, "pipeline", 2)
    report = emulator.findings()
    assert "deadlock" in report
    assert "lacks 0 arrivals and 16 bytes" in report


def test_a_finding_says_where(emulator):
    emulator.options()
    run(emulator, "transpose", 2)
    report = emulator.findings()
    assert "race" in report
    assert "bugs.cu:" in report
    assert "thread" in report


def test_bank_conflicts_are_counted(emulator):
    emulator.options(count=True)
    run(emulator, "transpose", 0)
    padded = emulator.counts()["transpose_kernel"]
    run(emulator, "transpose", 5)
    plain = emulator.counts()["transpose_kernel"]
    assert padded["conflicts"] == 0
    assert plain["conflicts"] > 500
    assert padded["accesses"] > 0


def test_scattered_accesses_are_counted(emulator):
    emulator.options(count=True)
    name = "copy_kernel"
    run(emulator, "copy", 0)
    packed = emulator.counts()[name]
    run(emulator, "copy", 6)
    scattered = emulator.counts()[name]
    assert packed["sectors"] == packed["needed"]
    assert scattered["sectors"] > 2 * scattered["needed"]


def bfloat16_bits(values):
    return (values.view(np.uint32) >> 16).astype(np.uint32)


def test_fragments(emulator):
    """Every instruction of ptx.cuh against numpy, by the layouts of the PTX manual."""
    rng = np.random.default_rng(1)
    emulator.options()
    g, t = np.arange(32) // 4, np.arange(32) % 4
    c = rng.integers(-8, 9, (16, 8)).astype(np.float32)
    matrices = rng.integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    numbers = fragments.inputs()["numbers"]
    rows = np.stack([g, g, g + 8, g + 8], axis=1)
    columns = np.stack([2 * t, 2 * t + 1, 2 * t, 2 * t + 1], axis=1)

    def product(a_bits, b_bits):
        outputs = [np.zeros((32, 4), kind) for kind in fragments.OUTPUTS.values()]
        inputs = [a_bits.astype(np.uint32), b_bits.astype(np.uint32), c[rows, columns], matrices]
        arrays = [np.ascontiguousarray(array) for array in (*inputs, numbers)] + outputs
        emulator.library.simt_fragments(*(ctypes.c_void_p(a.ctypes.data) for a in arrays))
        assert emulator.findings() == ""
        return outputs

    # bfloat16: registers hold two, of rows g and g+8, columns 2t and 2t+8.
    a = rng.integers(-8, 9, (16, 16)).astype(np.float32)
    b = rng.integers(-8, 9, (16, 8)).astype(np.float32)
    A, B = bfloat16_bits(a), bfloat16_bits(b)
    pairs = [A[g + i, 2 * t + j] | A[g + i, 2 * t + j + 1] << 16 for j in (0, 8) for i in (0, 8)]
    factors = [B[2 * t + j, g] | B[2 * t + j + 1, g] << 16 for j in (0, 8)]
    d, _, plain, transposed, rounded, copied = product(
        np.stack(pairs, axis=1), np.stack(factors, axis=1)
    )
    np.testing.assert_array_equal(d, (a @ b + c)[rows, columns])

    # tf32: one to a register, of rows g and g+8, columns t and t+4.
    a = rng.integers(-8, 9, (16, 8)).astype(np.float32)
    b = rng.integers(-8, 9, (8, 8)).astype(np.float32)
    A, B = a.view(np.uint32), b.view(np.uint32)
    singles = [A[g + i, t + j] for j in (0, 4) for i in (0, 8)]
    factors = [B[t + j, g] for j in (0, 4)]
    _, d, *_ = product(np.stack(singles, axis=1), np.stack(factors, axis=1))
    np.testing.assert_array_equal(d, (a @ b + c)[rows, columns])

    low, high = matrices[:, g, 2 * t], matrices[:, g, 2 * t + 1]
    np.testing.assert_array_equal(plain, (low | high.astype(np.uint32) << 16).T)
    low, high = matrices[:, 2 * t, g], matrices[:, 2 * t + 1, g]
    np.testing.assert_array_equal(transposed, (low | high.astype(np.uint32) << 16).T)

    # 10 bits of mantissa, fewer of the smallest numbers; ties away from zero.
    finite = np.isfinite(numbers)
    exact = np.where(finite, numbers, 0).astype(np.float64)
    unit = 2.0 ** (np.maximum(np.frexp(exact)[1], -125) - 11)
    nearest = np.copysign(np.floor(np.abs(exact) / unit + 0.5) * unit, exact)
    expected = np.where(finite, nearest, numbers).astype(np.float32).view(np.uint32)
    np.testing.assert_array_equal(rounded.ravel(), expected)
    assert (expected != numbers.view(np.uint32)).sum() > 60

    # The words of 16 copies of 16 bytes, 16 of 8 and 32 of 4, zeros where they are not valid.
    lanes = np.concatenate(
        [np.repeat(np.arange(16), 4), np.repeat(np.arange(16), 2), np.arange(32)]
    )
    valid = np.concatenate([lanes[:64] % 3 != 0, lanes[64:96] % 2 != 0, lanes[96:] % 4 != 1])
    words = matrices.ravel().view(np.uint32)
    np.testing.assert_array_equal(copied.ravel(), np.where(valid, words, 0))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
@pytest.mark.parametrize(
    ("source", "architecture"), [("bugs.cu", "-arch=sm_80"), ("bugs_sm90.cu", "-arch=sm_90a")]
)
def test_nvcc_takes_what_is_built_on_a_gpu(source, architecture, tmp_path):
    """For the fragments and the tiles, which only a machine with a GPU makes."""
    compile_to_ptx(tmp_path / "bugs.ptx", source, architecture)


def test_fragments_are_those_of_hardware(emulator):
    """Every file that fragments.py has written on a GPU; sums of products may be rounded in another
    order there."""
    emulator.options()
    given = fragments.inputs()
    ours = fragments.run(emulator.library, given)
    assert emulator.findings() == ""
    assert all(np.isfinite(ours[name]).all() for name in ("bf16", "tf32"))
    for path in HERE.glob("fragments*.npz"):
        recorded = np.load(path)
        for name, values in given.items():
            np.testing.assert_array_equal(recorded[name], values)
        for name, values in ours.items():
            limit = 1e-5 if values.dtype == np.float32 else 0
            np.testing.assert_allclose(recorded[name], values, rtol=limit, atol=limit)
