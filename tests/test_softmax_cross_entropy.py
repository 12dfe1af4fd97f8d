"""softmax_cross_entropy and its gradient, against torch.nn.functional.cross_entropy."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convlet import _core, ops
from reference import AWKWARD, assert_accurate, assert_exact, floats

REDUCTIONS = ("mean", "sum", "none")


def torch_loss(dtype, logits, labels, class_weight, smoothing, ignore_index, reduction):
    """(loss, dlogits) of torch in this dtype."""
    z = torch.from_numpy(logits).to(dtype).requires_grad_()
    t = torch.from_numpy(labels)
    t = t.to(dtype) if labels.ndim == 2 else t.long()
    w = None if class_weight is None else torch.from_numpy(class_weight).to(dtype)
    loss = torch.nn.functional.cross_entropy(
        z,
        t,
        w,
        ignore_index=-100 if ignore_index is None else ignore_index,
        label_smoothing=smoothing,
        reduction=reduction,
    )
    loss.sum().backward()
    return loss.detach().numpy(), z.grad.numpy()


def make_labels(kind, rows, classes):
    rng = np.random.default_rng([rows, classes])
    if kind == "probabilities":
        p = rng.random((rows, classes)).astype(np.float32)
        return p / p.sum(1, keepdims=True)
    return rng.integers(0, classes, rows).astype(kind)


def check(logits, labels, class_weight=None, smoothing=0.0, ignore_index=None, reduction="mean"):
    arguments = (logits, labels, class_weight, smoothing, ignore_index, reduction)
    options = {
        "class_weight": class_weight,
        "label_smoothing": smoothing,
        "ignore_index": ignore_index,
        "reduction": reduction,
    }
    loss, dlogits = ops.softmax_cross_entropy(logits, labels, return_grad=True, **options)
    loss32, d32 = torch_loss(torch.float32, *arguments)
    loss64, d64 = torch_loss(torch.float64, *arguments)
    scale = max(1.0, float(np.abs(loss64).max(initial=0)))
    assert_accurate(loss, loss32, loss64, atol=1e-6 * scale)
    assert_accurate(dlogits, d32, d64, atol=1e-6)
    assert_exact(ops.softmax_cross_entropy(logits, labels, **options), loss)


@pytest.mark.parametrize("kind", ["int64", "probabilities"])
@pytest.mark.parametrize("classes", [*AWKWARD, 2, 8, 10, 16, 1000, 5001])
def test_sizes(isa, kind, classes):
    for rows in (1, 19):
        logits = floats(rows, classes, scale=4.0)
        check(logits, make_labels(kind, rows, classes), reduction="none")


@pytest.mark.parametrize("kind", ["int64", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_option(isa, kind, smoothing, weighted):
    logits, labels = floats(19, 11, scale=3.0), make_labels(kind, 19, 11)
    weight = np.linspace(0.1, 2, 11, dtype=np.float32) if weighted else None
    ignored = (None, int(labels[0])) if kind == "int64" else (None,)
    for reduction, ignore_index in itertools.product(REDUCTIONS, ignored):
        check(logits, labels, weight, smoothing, ignore_index, reduction)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_integer_types(dtype):
    logits, labels = floats(19, 11), make_labels("int64", 19, 11)
    loss, dlogits = ops.softmax_cross_entropy(logits, labels.astype(dtype), return_grad=True)
    expected, gradient = ops.softmax_cross_entropy(logits, labels, return_grad=True)
    assert_exact(loss, expected)
    assert_exact(dlogits, gradient)


@given(
    st.integers(1, 20),
    st.integers(1, 70),
    st.sampled_from(("int64", "probabilities")),
    st.sampled_from((0.0, 0.3)),
    st.booleans(),
    st.sampled_from(REDUCTIONS),
)
def test_any_shape(rows, classes, kind, smoothing, weighted, reduction):
    weight = np.abs(floats(classes, seed=3)) + np.float32(0.1) if weighted else None
    check(
        floats(rows, classes, scale=3.0),
        make_labels(kind, rows, classes),
        weight,
        smoothing,
        None,
        reduction,
    )


@pytest.mark.parametrize("index", [-100, -1, 2, 255])
def test_ignored_rows_are_zero(index):
    logits = floats(4, 3)
    logits[2] = np.nan  # not even this shows
    labels = np.array([0, 1, index, 1])
    loss, dlogits = ops.softmax_cross_entropy(
        logits, labels, ignore_index=index, reduction="none", return_grad=True
    )
    assert loss[2] == 0
    assert (dlogits[2] == 0).all()
    assert np.isfinite(loss).all()
    check(floats(4, 3), labels, ignore_index=index)


def test_nothing_to_average():
    everything_ignored = np.zeros(3, np.int64)
    loss, dlogits = ops.softmax_cross_entropy(
        floats(3, 4), everything_ignored, ignore_index=0, return_grad=True
    )
    assert np.isnan(loss)
    assert_exact(dlogits, np.zeros((3, 4), np.float32))


@pytest.mark.parametrize("labels", [np.zeros(0, np.int64), np.zeros((0, 4), np.float32)])
def test_empty_batch(labels):
    logits = np.zeros((0, 4), np.float32)
    for reduction, expected in (("sum", np.float32(0)), ("none", np.zeros(0, np.float32))):
        loss, dlogits = ops.softmax_cross_entropy(
            logits, labels, reduction=reduction, return_grad=True
        )
        assert_exact(loss, expected)
        assert dlogits.shape == (0, 4)
    assert np.isnan(ops.softmax_cross_entropy(logits, labels))


def test_special_logits(isa):
    logits = np.zeros((5, 9), np.float32)
    logits[0, 3] = 1e30
    logits[1, 0] = -np.inf
    logits[2, 0] = np.nan
    logits[3, 0] = np.inf
    logits[4] = -np.inf
    check(logits, np.array([3, 2, 1, 1, 1]), reduction="none")
    check(logits, np.array([0, 0, 0, 0, 0]), reduction="none")


def test_confident_and_wrong():
    logits = np.array([[200.0, 0.0], [0.0, 200.0]], np.float32)
    loss, dlogits = ops.softmax_cross_entropy(
        logits, np.array([0, 0]), reduction="none", return_grad=True
    )
    assert_exact(loss, np.array([0, 200], np.float32))
    assert_exact(dlogits, np.array([[0, 0], [-1, 1]], np.float32))


@pytest.mark.parametrize("kind", ["int64", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_is_the_slope_of_the_loss(kind, smoothing):
    logits, labels = floats(3, 5), make_labels(kind, 3, 5)
    weight = np.linspace(0.5, 1.5, 5, dtype=np.float32)
    options = {"class_weight": weight, "label_smoothing": smoothing}
    _, dlogits = ops.softmax_cross_entropy(logits, labels, return_grad=True, **options)
    h = np.float32(2**-6)
    for n, c in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[n, c] = h
        above = ops.softmax_cross_entropy(logits + step, labels, **options)
        below = ops.softmax_cross_entropy(logits - step, labels, **options)
        assert (above - below) / (2 * h) == pytest.approx(dlogits[n, c], abs=5e-5)


def test_gradients_of_a_row_add_up_to_zero(isa):
    _, dlogits = ops.softmax_cross_entropy(
        floats(64, 33), make_labels("int64", 64, 33), reduction="sum", return_grad=True
    )
    assert np.abs(dlogits.astype(np.float64).sum(1)).max() < 5e-7


def test_same_bits_for_any_number_of_threads():
    logits, labels = floats(3000, 11), make_labels("int64", 3000, 11)
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            results.append(ops.softmax_cross_entropy(logits, labels, return_grad=True))
    finally:
        _core.set_num_threads(before)
    for loss, dlogits in results[1:]:
        assert_exact(loss, results[0][0])
        assert_exact(dlogits, results[0][1])


@pytest.mark.parametrize("value,position", [(10, 0), (-1, 6), (2**40, 3)])
def test_label_out_of_range(value, position):
    labels = make_labels("int64", 7, 10)
    labels[position] = value
    message = rf"labels in \[0,10\) for 10 classes, got labels\[{position}\]={value}$"
    with pytest.raises(ValueError, match="softmax_cross_entropy: expected " + message):
        ops.softmax_cross_entropy(floats(7, 10), labels)


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, float("nan")])
def test_label_smoothing_out_of_range(smoothing):
    with pytest.raises(ValueError, match=r"expected label_smoothing in \[0,1\], got"):
        ops.softmax_cross_entropy(floats(2, 3), np.zeros(2, np.int64), label_smoothing=smoothing)
