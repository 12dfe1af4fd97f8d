"""Focal cross-entropies: the kernels against torch's autograd, the losses in models."""

import numpy as np
import pytest
import torch

import convlet
from classifiers import images
from convlet import Input, Sequential, _core, layers, losses, ops
from reference import AWKWARD, assert_accurate, assert_exact, floats

GAMMAS = (0.5, 1.0, 2.0, 5.0)


def torch_softmax(dtype, logits, labels, gamma, smoothing=0.0, weight=None, ignored=None):
    z = torch.from_numpy(logits).to(dtype).requires_grad_()
    classes = logits.shape[1]
    if labels.ndim == 1:
        kept = np.ones(len(labels)) if ignored is None else labels != ignored
        t = np.eye(classes)[np.where(kept, labels, 0)] * np.asarray(kept)[:, None]
        smooth = smoothing / classes * np.asarray(kept)[:, None]
    else:
        t, smooth = labels, smoothing / classes
    t = torch.from_numpy((1 - smoothing) * t + smooth).to(dtype)
    if weight is not None:
        t = t * torch.from_numpy(weight).to(dtype)
    log_p = torch.log_softmax(z, -1)
    loss = -(t * (-torch.expm1(log_p)) ** gamma * log_p).sum(-1)
    loss.sum().backward()
    return loss.detach().numpy(), z.grad.numpy()


def check_softmax(logits, labels, gamma, smoothing=0.0, weight=None, ignored=None):
    loss, gradient = ops.softmax_cross_entropy(
        logits,
        labels,
        class_weight=weight,
        label_smoothing=smoothing,
        ignore_index=ignored,
        reduction="none",
        return_grad=True,
        focal_gamma=gamma,
    )
    arguments = (logits, labels, gamma, smoothing, weight, ignored)
    loss32, g32 = torch_softmax(torch.float32, *arguments)
    loss64, g64 = torch_softmax(torch.float64, *arguments)
    assert_accurate(loss, loss32, loss64, atol=2e-6 * max(1.0, np.abs(loss64).max(initial=0)))
    assert_accurate(gradient, g32, g64, atol=3e-6)


def labels_of(kind, rows, classes):
    rng = np.random.default_rng([rows, classes])
    if kind == "probabilities":
        p = rng.random((rows, classes)).astype(np.float32)
        return p / p.sum(1, keepdims=True)
    return rng.integers(0, classes, rows)


@pytest.mark.parametrize("kind", ["integers", "probabilities"])
@pytest.mark.parametrize("classes", [2, 10, *AWKWARD])
def test_softmax_sizes(isa, kind, classes):
    for rows in (0, 1, 19):
        logits = floats(rows, classes, scale=3.0)
        if classes == 1:  # 1 - p is 0 there, where torch's power has no slope
            loss, gradient = ops.softmax_cross_entropy(
                logits, labels_of("integers", rows, 1), return_grad=True, focal_gamma=2.0
            )
            assert_exact(gradient, np.zeros_like(logits))
            continue
        check_softmax(logits, labels_of(kind, rows, classes), 2.0)


@pytest.mark.parametrize("kind", ["integers", "probabilities"])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_softmax_options(isa, kind, gamma, smoothing):
    logits, labels = floats(19, 11, scale=3.0), labels_of(kind, 19, 11)
    weight = np.linspace(0.1, 2, 11, dtype=np.float32)
    ignored = (None, int(labels[0])) if kind == "integers" else (None,)
    for w in (None, weight):
        for i in ignored:
            check_softmax(logits, labels, gamma, smoothing, w, i)


def test_a_sure_and_right_answer_has_no_loss(isa):
    for gamma in GAMMAS:
        logits = np.array([[200, 0, 0], [0, 200, 0]], np.float32)
        loss, gradient = ops.softmax_cross_entropy(
            logits, np.array([0, 2]), reduction="none", return_grad=True, focal_gamma=gamma
        )
        assert loss[0] == 0
        assert loss[1] == pytest.approx(200)
        assert_exact(gradient, np.array([[0, 0, 0], [0, 1, -1]], np.float32))
        z = np.array([200, -200, 0], np.float32)
        loss, gradient = ops.sigmoid_cross_entropy(
            z,
            np.array([1, 1, 1], np.float32),
            reduction="none",
            return_grad=True,
            focal_gamma=gamma,
        )
        assert loss[0] == gradient[0] == 0
        assert loss[1] == 200
        assert gradient[1] == -1


def test_nan_passes(isa):
    logits = floats(3, 19)
    logits[1, 7] = np.nan
    loss, gradient = ops.softmax_cross_entropy(
        logits, np.array([0, 1, 2]), reduction="none", return_grad=True, focal_gamma=2.0
    )
    assert np.isnan(loss).tolist() == [False, True, False]
    assert np.isnan(gradient).all(1).tolist() == [False, True, False]
    loss, gradient = ops.sigmoid_cross_entropy(
        logits, np.ones_like(logits), reduction="none", return_grad=True, focal_gamma=2.0
    )
    for values in (loss, gradient):
        assert np.argwhere(np.isnan(values)).tolist() == [[1, 7]]


def torch_binary(dtype, kind, prediction, target, gamma, alpha, smoothing):
    x = torch.from_numpy(prediction).to(dtype).requires_grad_()
    t = torch.from_numpy(target).to(dtype) * (1 - smoothing) + smoothing / 2
    if kind == "sigmoid_cross_entropy":
        p, rest = torch.sigmoid(x), torch.sigmoid(-x)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")
    else:
        p, rest = x, 1 - x
        loss = torch.nn.functional.binary_cross_entropy(x, t, reduction="none")
    loss = loss * (t * rest + (1 - t) * p) ** gamma
    if alpha is not None:
        loss = loss * (alpha * t + (1 - alpha) * (1 - t))
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("kind", ["sigmoid_cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary(isa, kind, gamma, alpha, smoothing):
    for columns in (1, 8, 19, 66):
        rng = np.random.default_rng([columns])
        shape = (7, columns)
        target = np.where(rng.random(shape) < 0.5, rng.random(shape), rng.random(shape) < 0.5)
        target = target.astype(np.float32)
        prediction = floats(*shape, scale=3.0)
        if kind == "binary_cross_entropy":
            prediction = rng.uniform(0.02, 0.98, shape).astype(np.float32)
        loss, gradient = _core.elementwise_loss(
            kind, prediction, target, smoothing, "none", True, gamma, alpha
        )
        arguments = (kind, prediction, target, gamma, alpha, smoothing)
        loss32, g32 = torch_binary(torch.float32, *arguments)
        loss64, g64 = torch_binary(torch.float64, *arguments)
        assert_accurate(loss, loss32, loss64, atol=3e-6)
        assert_accurate(gradient, g32, g64, atol=1e-5)


def test_gamma_zero_is_the_cross_entropy():
    logits, labels = floats(9, 5), labels_of("integers", 9, 5)
    assert_exact(
        ops.softmax_cross_entropy(logits, labels, focal_gamma=0.0),
        ops.softmax_cross_entropy(logits, labels),
    )
    near = ops.softmax_cross_entropy(logits, labels, focal_gamma=1e-6)
    assert near == pytest.approx(ops.softmax_cross_entropy(logits, labels), rel=1e-4)


# Values of keras.losses (3.11) on these arrays.
P = np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], np.float32)
T = np.array([[0, 0, 1], [0, 1, 0]], np.float32)


def keras_categorical(p, t, alpha, gamma, smoothing):
    t = t * (1 - smoothing) + smoothing / t.shape[1]
    p = np.clip(p / p.sum(1, keepdims=True), 1e-7, 1 - 1e-7)
    return (alpha * (1 - p) ** gamma * -t * np.log(p)).sum(1).mean()


def keras_binary(p, t, alpha, gamma, smoothing):
    t = t * (1 - smoothing) + smoothing / 2
    p = np.clip(p, 1e-7, 1 - 1e-7)
    entropy = -t * np.log(p) - (1 - t) * np.log(1 - p)
    right = t * p + (1 - t) * (1 - p)
    weight = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    return (weight * (1 - right) ** gamma * entropy).mean(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_loss_objects_follow_keras_formulas(smoothing, gamma):
    categorical = losses.CategoricalFocalCrossentropy(0.3, gamma, False, smoothing)
    expected = keras_categorical(P, T, 0.3, gamma, smoothing)
    assert categorical(T, P) == pytest.approx(expected, rel=1e-5)
    logits = losses.CategoricalFocalCrossentropy(0.3, gamma, True, smoothing)
    assert logits(T, np.log(P)) == pytest.approx(expected, rel=1e-5)
    sparse = losses.SparseCategoricalFocalCrossentropy(0.3, gamma, label_smoothing=smoothing)
    assert sparse([2, 1], P) == pytest.approx(expected, rel=1e-5)
    for balanced in (False, True):
        binary = losses.BinaryFocalCrossentropy(balanced, 0.3, gamma, False, smoothing)
        expected = keras_binary(P, T, 0.3 if balanced else None, gamma, smoothing)
        assert binary(T, P) == pytest.approx(expected, rel=1e-5)


def test_defaults_and_names():
    loss = losses.get("categorical_focal_crossentropy")
    assert (loss.alpha, loss.gamma, loss.from_logits) == (0.25, 2.0, False)
    loss = losses.get("binary_focal_crossentropy")
    assert (loss.alpha, loss.gamma, loss.apply_class_balancing) == (0.25, 2.0, False)
    assert losses.get("sparse_categorical_focal_crossentropy").integer_labels


CASES = [
    (losses.CategoricalFocalCrossentropy(), "softmax", True),
    (losses.CategoricalFocalCrossentropy(0.5, 1.5, True, 0.1), None, True),
    (losses.SparseCategoricalFocalCrossentropy(ignore_class=1), "softmax", False),
    (losses.SparseCategoricalFocalCrossentropy(label_smoothing=0.1), "softmax", False),
    (losses.BinaryFocalCrossentropy(True), "sigmoid", True),
    (losses.BinaryFocalCrossentropy(False, 0.25, 1.0, True, 0.1), None, True),
    (losses.BinaryFocalCrossentropy(True), "softmax", True),  # on probabilities
]


def smooth_model(head):
    """Without kinks, where differences would not be gradients."""
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(5, 3, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(3, activation=head),
        ]
    )


@pytest.mark.parametrize(("loss", "head", "one_hot"), CASES)
def test_in_models(tmp_path, loss, head, one_hot):
    """The plan gives what the object gives, the gradient is the slope, and the file brings it
    back."""
    x, labels = images(11)
    y = np.eye(3, dtype=np.float32)[labels] if one_hot else labels
    model = smooth_model(head)
    model.compile(convlet.optimizers.SGD(1.0), loss, metrics=["accuracy"])
    weight = np.linspace(0.5, 2, 11)
    value = model.test_on_batch(x, y, sample_weight=weight)[0]
    assert value == pytest.approx(loss(y, model.predict(x), weight), rel=1e-4)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert loaded.test_on_batch(x, y, sample_weight=weight)[0] == value
    before = model.get_weights()
    model.train_on_batch(x, y)
    gradient = [b - a for a, b in zip(model.get_weights(), before, strict=True)]
    rng = np.random.default_rng(1)
    for i in range(len(before)):
        direction = rng.standard_normal(before[i].shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        values = []
        for h in (1e-2, -1e-2):
            model.set_weights([w + h * direction if j == i else w for j, w in enumerate(before)])
            values.append(model.test_on_batch(x, y)[0])
        slope = (values[0] - values[1]) / 2e-2
        assert slope == pytest.approx(float((gradient[i] * direction).sum()), rel=0.02, abs=2e-4)


def test_same_bits_for_any_number_of_threads():
    logits, labels = floats(3000, 17), labels_of("integers", 3000, 17)
    before = _core.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            results.append(
                ops.softmax_cross_entropy(logits, labels, return_grad=True, focal_gamma=2.0)
            )
    finally:
        _core.set_num_threads(before)
    for loss, gradient in results[1:]:
        assert_exact(loss, results[0][0])
        assert_exact(gradient, results[0][1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.CategoricalFocalCrossentropy(gamma=-1), "gamma: expected a number >= 0"),
        (lambda: losses.CategoricalFocalCrossentropy(alpha=[1, 2]), "alpha: expected a number"),
        (
            lambda: losses.BinaryFocalCrossentropy(alpha=1.5),
            r"alpha: expected a number in \[0, 1\]",
        ),
        (
            lambda: ops.softmax_cross_entropy(floats(2, 3), np.zeros(2, int), focal_gamma=-1.0),
            "softmax_cross_entropy: expected focal_gamma >= 0, got -1",
        ),
        (
            lambda: ops.sigmoid_cross_entropy(floats(2), floats(2), focal_gamma=np.inf),
            "focal_gamma >= 0, got inf",
        ),
        (
            lambda: ops.sigmoid_cross_entropy(floats(2), floats(2), focal_alpha=2.0),
            "expected a focal weight >= 0, got -1",
        ),
    ],
)
def test_numbers_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
