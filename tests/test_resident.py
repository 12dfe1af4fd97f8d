"""Data sets in a device's memory: steps on them give the bits of steps on the host's arrays."""

import numpy as np
import pytest

from convlet import Sequential, _core, layers, optimizers
from convlet.losses import SparseCategoricalCrossentropy
from convlet.models import resident
from convlet.models.trainer import NonFiniteError
from convlet.utils import set_random_seed
from nets import CATEGORICAL, SPARSE, Net
from reference import assert_exact

ON_GPU = _core.op_device() != "cpu"
ORDER = np.array([9, 0, 4, 7, 1, 12, 3, 11, 2, 8, 10, 5], np.int64)
M = 13


def two_headed_net():
    net = Net()
    x = net.flatten(net.conv2d(net.input(5, 5, 3), 4, activation="relu"))
    y = net.node("concatenate", x, net.input(3))
    net.output(net.dense(net.node("dropout", y, rate=0.25), 5))
    net.output(net.dense(y, 4))
    return net


LOSSES = [
    SPARSE | {"output": 0, "from_logits": True},
    CATEGORICAL | {"output": 1, "from_logits": True, "weight": 0.5},
]


def samples(image="uint8", label="int64"):
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (M, 5, 5, 3)).astype(image)
    labels = rng.integers(0, 5, M).astype(label)
    return [images, rng.standard_normal((M, 3))], [labels, np.eye(4)[rng.integers(0, 4, M)]]


def state_of(net, state):
    return [state.get(i) for i in range(len(net.parameters))]


@pytest.mark.parametrize(
    ("image", "label"), [("uint8", "int64"), ("float32", "uint8"), ("int64", "int32")]
)
def test_steps_are_those_on_arrays(image, label):
    inputs, targets = samples(image, label)
    weights = np.linspace(0.1, 2, M).astype(np.float32)
    runs = []
    for there in (False, True):
        net = two_headed_net()
        state = net.state({"kind": "adam"})
        plan = _core.Plan(net.graph, state, "train", 5, LOSSES, seed=3)
        data = _core.Dataset(_core.op_device(), inputs, targets)
        results = []
        for epoch in range(4):  # weighted by turns
            order = np.roll(ORDER, epoch)
            chosen = [None, weights * (epoch + 1)] if epoch % 2 else [None, None]
            data.set_order(order)
            data.set_weights(1, chosen[1])
            for first in range(0, len(order), 5):
                rows = order[first : first + 5]
                if there:
                    step = plan.start_from(data, first, len(rows), learning_rate=0.01)
                    results.append(plan.finish(step))
                else:
                    results.append(plan.run(inputs, targets, chosen, rows, learning_rate=0.01))
        runs.append([*results, *state_of(net, state)])
    for a, b in zip(*runs, strict=True):
        assert_exact(b, a)


def test_what_does_not_fit_is_refused():
    inputs, targets = samples()
    device = _core.op_device()
    net = two_headed_net()
    plan = _core.Plan(net.graph, net.state(), "train", 5, LOSSES)
    with pytest.raises(ValueError, match="one length, got 13 and 12"):
        _core.Dataset(device, inputs, [targets[0], targets[1][1:]])
    data = _core.Dataset(device, inputs, targets)
    for rows, message in ([M], r"order\[0\] is 13"), ([0, -1], r"order\[1\] is -1"):
        with pytest.raises(ValueError, match=message):
            data.set_order(np.array(rows))
    with pytest.raises(ValueError, match="at most 13 rows, got 14"):
        data.set_order(np.zeros(14, np.int64))
    with pytest.raises(ValueError, match="weights"):
        data.set_weights(0, np.ones(3, np.float32))
    data.set_order(ORDER)
    for first, n in (-1, 2), (0, 6), (0, 0), (8, 5), (12, 1):
        with pytest.raises(ValueError, match="rows of an order of 12"):
            plan.start_from(data, first, n)
    for bad in (5, -1):
        labels = targets[0].copy()
        labels[7] = bad
        wrong = _core.Dataset(device, inputs, [labels, targets[1]])
        wrong.set_order(ORDER)
        with pytest.raises(ValueError, match=f"the label of row 7 is {bad}, expected"):
            plan.start_from(wrong, 0, 5)
    wrong = _core.Dataset(device, [inputs[0][:, 1:], inputs[1]], targets)
    wrong.set_order(ORDER)
    with pytest.raises(ValueError, match="expected samples of shape"):
        plan.start_from(wrong, 0, 5)


def classifier(**options):
    set_random_seed(2)
    model = Sequential(
        [
            layers.RandomFlip("horizontal", input_shape=(6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(3),
        ]
    )
    loss = SparseCategoricalCrossentropy(from_logits=True, **options)
    model.compile(optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def pictures(count=22):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (count, 6, 6, 1)).astype(np.uint8), rng.integers(0, 3, count)


@pytest.fixture
def made(monkeypatch):
    """The data sets that fit and evaluate put on the device."""
    made = []

    class Counted(resident.Resident):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(resident, "Resident", Counted)
    return made


FITS = {
    "plain": {},
    "held out": {"validation_split": 0.25},
    "as they lie": {"shuffle": False, "steps_per_epoch": 2},
    "by class": {"class_weight": {0: 2.0, 2: 0.5}},
    "by sample": {"sample_weight": np.linspace(0, 2, 22).astype(np.float32)},
    "ignored": {"ignore": True},
    "ignored by sample": {"ignore": True, "sample_weight": np.linspace(0, 2, 22)},
}


@pytest.mark.parametrize("case", FITS)
def test_fit_gives_the_same_bits(monkeypatch, made, case):
    options = dict(FITS[case])
    ignores = options.pop("ignore", False)
    x, y = pictures()
    if ignores:
        y[[2, 5, 6]] = -1
    runs = []
    for wanted in "10":
        monkeypatch.setenv("CONVLET_RESIDENT", wanted)
        model = classifier(**({"ignore_class": -1} if ignores else {}))
        history = model.fit(x, y, batch_size=8, epochs=3, verbose=0, **options).history
        assert len(made) == ON_GPU
        runs.append([*history.values(), *model.get_weights()])
    for a, b in zip(*runs, strict=True):
        assert_exact(np.asarray(b), np.asarray(a))


def test_evaluate_gives_the_same_bits(monkeypatch, made):
    x, y = pictures()
    model = classifier()
    results = []
    for wanted in "10":
        monkeypatch.setenv("CONVLET_RESIDENT", wanted)
        results.append(model.evaluate(x, y, batch_size=8, verbose=0))
    assert len(made) == ON_GPU
    assert results[0] == results[1]


def test_what_does_not_fit_is_sent_batch_by_batch(monkeypatch, made):
    monkeypatch.setattr(resident, "_SHARE", 0.0)
    x, y = pictures()
    classifier().fit(x, y, batch_size=8, verbose=0)
    assert not made


@pytest.mark.parametrize("wanted", "10")
@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_bad_batch_is_named_and_changes_nothing(monkeypatch, wanted, step):
    monkeypatch.setenv("CONVLET_RESIDENT", wanted)
    x, y = pictures(24)
    x = x.astype(np.float32)
    model = classifier()
    model.fit(x[:1], y[:1], batch_size=4, verbose=0)
    x[4 * step + 1, 2, 3] = np.nan
    twin = classifier()
    twin.fit(x[:1], y[:1], batch_size=4, verbose=0)
    if step:
        twin.fit(x[: 4 * step], y[: 4 * step], batch_size=4, shuffle=False, verbose=0)
    with pytest.raises(NonFiniteError, match=f"epoch 1, batch {step + 1}; .* in input"):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        assert_exact(ours, theirs)
    assert model.optimizer.iterations == twin.optimizer.iterations == 1 + step
