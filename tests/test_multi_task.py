"""Several heads on one trunk: a loss, a weight and metrics for each, labels that are missing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import convlet
from classifiers import images
from convlet import Input, Model, layers, losses, metrics, optimizers
from reference import floats

LOSS_WEIGHTS = {"kind": 1.0, "tags": 0.5, "size": 0.25}


def three_heads(dropout=0.0):
    x = Input((9, 9, 2), name="image")
    trunk = layers.Flatten()(layers.Conv2D(5, 3, activation="relu")(x))
    trunk = layers.Dropout(dropout)(layers.Dense(16, activation="tanh")(trunk))
    return Model(
        x,
        {
            "kind": layers.Dense(3, activation="softmax", name="kind")(trunk),
            "tags": layers.Dense(4, activation="sigmoid", name="tags")(trunk),
            "size": layers.Dense(1, name="size")(trunk),
        },
    )


def head_losses():
    return {
        "kind": losses.SparseCategoricalCrossentropy(ignore_class=-1),
        "tags": losses.BinaryCrossentropy(mask_missing=True),
        "size": losses.MeanSquaredError(mask_missing=True),
    }


def data(n=80, missing=True):
    x, kind = images(n)
    rng = np.random.default_rng(7)
    tags = (rng.random((n, 4)) < 0.5).astype(np.float32)
    size = x.mean((1, 2, 3))[:, None].astype(np.float32)
    if missing:
        kind[rng.random(n) < 0.3] = -1
        tags[rng.random((n, 4)) < 0.2] = np.nan
        tags[rng.random(n) < 0.2] = np.nan
        size[rng.random(n) < 0.5] = np.nan
    return x, {"kind": kind, "tags": tags, "size": size}


def compiled(rate=0.05, **options):
    model = three_heads()
    model.compile(
        optimizers.SGD(rate, momentum=0.9),
        head_losses(),
        LOSS_WEIGHTS,
        {"kind": ["accuracy"], "tags": ["accuracy", "auc"], "size": ["mae"]},
        **options,
    )
    return model


class Twin(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        weights = [torch.from_numpy(w.copy()) for w in model.get_weights()]
        self.weights = torch.nn.ParameterList(torch.nn.Parameter(w) for w in weights)

    def forward(self, x):
        k, kb, w, b, *heads = self.weights
        x = F.conv2d(x.permute(0, 3, 1, 2), k.permute(3, 2, 0, 1), kb)
        x = torch.tanh(torch.relu(x).permute(0, 2, 3, 1).flatten(1) @ w + b)
        return [x @ heads[i] + heads[i + 1] for i in (0, 2, 4)]


def torch_losses(outputs, kind, tags, size):
    """The mean over the samples that have a label; of tags first over those that a sample has."""
    logits, tag_logits, sizes = outputs
    zero = 0.0 * logits.sum()
    labelled = kind >= 0
    first = F.cross_entropy(logits[labelled], kind[labelled]) if labelled.any() else zero
    known = ~torch.isnan(tags)
    each = F.binary_cross_entropy_with_logits(tag_logits, torch.nan_to_num(tags), reduction="none")
    rows = known.any(1)
    means = (each * known).sum(1)[rows] / known.sum(1)[rows]
    second = means.mean() if rows.any() else zero
    measured = ~torch.isnan(size)
    third = F.mse_loss(sizes[measured], size[measured]) if measured.any() else zero
    return first, second, third


@pytest.mark.parametrize("missing", [False, True])
def test_fifty_steps_as_in_torch(missing):
    x, y = data(missing=missing)
    y["kind"][:8] = -1  # a batch without labels for this head
    model = compiled()
    twin = Twin(model).double()
    update = torch.optim.SGD(twin.parameters(), 0.05, momentum=0.9)
    ours, theirs = [], []
    for step in range(50):
        rows = np.arange(8 * step, 8 * step + 8) % len(x)
        batch = {name: values[rows] for name, values in y.items()}
        logs = model.train_on_batch(x[rows], batch, return_dict=True)
        ours.append([logs[f"{name}_loss"] for name in LOSS_WEIGHTS] + [logs["loss"]])
        tensors = [torch.from_numpy(batch[name]) for name in LOSS_WEIGHTS]
        tensors = [t.double() if t.is_floating_point() else t for t in tensors]
        parts = torch_losses(twin(torch.from_numpy(x[rows]).double()), *tensors)
        total = sum(w * part for w, part in zip(LOSS_WEIGHTS.values(), parts, strict=True))
        update.zero_grad()
        total.backward()
        update.step()
        theirs.append([part.item() for part in parts] + [total.item()])
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)
    assert np.mean([row[-1] for row in ours[-10:]]) < np.mean([row[-1] for row in ours[:10]])


def test_keys_of_the_history():
    x, y = data()
    history = compiled().fit(x, y, batch_size=16, validation_data=(x, y), verbose=0).history
    keys = ["loss", "kind_loss", "tags_loss", "size_loss"]
    keys += ["kind_accuracy", "tags_accuracy", "tags_auc", "size_mean_absolute_error"]
    keys = [key.replace("mean_absolute_error", "mae") for key in keys]
    assert list(history) == keys + [f"val_{key}" for key in keys]


def test_means_over_an_epoch_are_over_the_labelled_samples():
    """Also where batches differ in how many labels they have."""
    x, y = data(70)
    y["size"][:20] = np.nan
    model = compiled()
    logs = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    outputs = model.predict(x)
    kinds, tags, sizes = y["kind"], y["tags"], y["size"]
    expected = {
        "kind_loss": -np.log(outputs["kind"][np.arange(70), kinds])[kinds >= 0].mean(),
        "kind_accuracy": (outputs["kind"].argmax(1) == kinds)[kinds >= 0].mean(),
        "size_loss": np.nanmean((outputs["size"] - sizes) ** 2),
        "size_mae": np.nanmean(np.abs(outputs["size"] - sizes)),
        "tags_accuracy": ((outputs["tags"] > 0.5) == (tags == 1))[~np.isnan(tags)].mean(),
    }
    p = outputs["tags"].astype(np.float64)
    entropy = -tags * np.log(p) - (1 - tags) * np.log(1 - p)
    some = ~np.isnan(tags).all(1)
    expected["tags_loss"] = np.nanmean(entropy[some], axis=1).mean()
    expected["loss"] = sum(w * expected[f"{name}_loss"] for name, w in LOSS_WEIGHTS.items())
    for key, value in expected.items():
        assert logs[key] == pytest.approx(value, rel=1e-4), key


def test_masked_rows_are_as_if_they_were_not_there():
    x, y = data(24)
    known = ~np.isnan(y["tags"]).any(1) & ~np.isnan(y["size"][:, 0]) & (y["kind"] >= 0)
    some = {name: values[known] for name, values in y.items()}
    hidden = {
        "kind": np.where(known, y["kind"], -1),
        "tags": np.where(known[:, None], y["tags"], np.nan),
        "size": np.where(known[:, None], y["size"], np.nan),
    }
    assert 0 < known.sum() < 24
    a, b = compiled(), compiled()
    b.set_weights(a.get_weights())
    ours = a.train_on_batch(x, hidden, return_dict=True)
    theirs = b.train_on_batch(x[known], some, return_dict=True)
    assert ours == pytest.approx(theirs, rel=1e-5)
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)


def test_sample_weights_beside_masks():
    x, y = data(24)
    weights = {"kind": np.linspace(0, 2, 24)}
    model = compiled()
    logs = model.test_on_batch(x, y, sample_weight=weights, return_dict=True)
    p = model.predict(x)["kind"][np.arange(24), y["kind"]]
    kept = y["kind"] >= 0
    expected = (-np.log(p) * weights["kind"])[kept].sum() / kept.sum()
    assert logs["kind_loss"] == pytest.approx(expected, rel=1e-5)


def test_no_label_at_all():
    x, y = data(8)
    empty = {
        "kind": np.full(8, -1),
        "tags": np.full((8, 4), np.nan),
        "size": np.full((8, 1), np.nan),
    }
    model = compiled()
    logs = model.test_on_batch(x, empty, return_dict=True)
    assert logs["loss"] == logs["kind_loss"] == logs["tags_loss"] == logs["size_loss"] == 0
    before = model.get_weights()
    model.train_on_batch(x, empty)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_missing_labels_must_be_asked_for():
    x, y = data(16)
    model = three_heads()
    model.compile("sgd", {"kind": "sparse_categorical_crossentropy", "tags": "binary_crossentropy"})
    with pytest.raises(ValueError, match=r"y for output 'kind': expected labels in \[0, 3\), got"):
        model.fit(x, y, verbose=0)
    y["kind"] = np.maximum(y["kind"], 0)
    with pytest.raises(convlet.NonFiniteError, match="in targets of output 'tags'"):
        model.fit(x, y, verbose=0)


def test_another_cause_is_named_where_targets_may_be_missing():
    x, y = data(16)
    model = compiled()
    weights = model.get_weights()
    weights[0][0, 0, 0, 0] = np.nan
    model.set_weights(weights)
    with pytest.raises(convlet.NonFiniteError, match="in parameter 'conv2d/kernel'"):
        model.fit(x, y, verbose=0)


def test_class_distributions_with_nan_are_missing_as_a_whole():
    x, labels = images(12)
    targets = np.eye(3, dtype=np.float32)[labels]
    targets[::3, 1] = np.nan
    kept = np.arange(12) % 3 != 0
    for loss in (
        losses.CategoricalCrossentropy(mask_missing=True, label_smoothing=0.1),
        losses.CategoricalFocalCrossentropy(mask_missing=True),
    ):
        x_in = Input((9, 9, 2))
        out = layers.Dense(3, activation="softmax")(layers.Flatten()(x_in))
        model = Model(x_in, out)
        model.compile("sgd", loss, metrics=["accuracy", metrics.Recall()])
        logs = model.test_on_batch(x, targets, return_dict=True)
        other = model.test_on_batch(x[kept], targets[kept], return_dict=True)
        assert logs == pytest.approx(other, rel=1e-5)
        assert logs["loss"] == pytest.approx(loss(targets, model.predict(x)), rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.BinaryCrossentropy(mask_missing=True),
        losses.BinaryFocalCrossentropy(True, mask_missing=True),
        losses.MeanSquaredError(mask_missing=True),
    ],
    ids=lambda loss: loss.name,
)
def test_values_with_nan_are_missing_one_by_one(loss):
    predictions = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    targets = (floats(6, 4) > 0).astype(np.float32)
    whole = [
        loss(targets[i : i + 1, j : j + 1], predictions[i : i + 1, j : j + 1])
        for i in range(6)
        for j in range(4)
    ]
    whole = np.reshape(whole, (6, 4))
    targets[0] = targets[1, :3] = targets[2, 0] = np.nan
    whole[np.isnan(targets)] = np.nan
    expected = np.nanmean(whole[1:], axis=1).mean()
    assert loss(targets, predictions) == pytest.approx(expected, rel=1e-5)


def test_masks_are_saved(tmp_path):
    x, y = data(32)
    model = compiled()
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    for m in (model, loaded):
        m.fit(x, y, epochs=2, batch_size=8, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_a_list_of_losses_is_the_same_as_a_dict():
    x, y = data(16)
    by_name, listed = compiled(), three_heads()
    listed.set_weights(by_name.get_weights())
    listed.compile(
        optimizers.SGD(0.05, momentum=0.9),
        list(head_losses().values()),
        list(LOSS_WEIGHTS.values()),
        [["accuracy"], ["accuracy", "auc"], "mae"],
    )
    first = by_name.fit(x, y, shuffle=False, verbose=0).history
    second = listed.fit(x, [y[n] for n in LOSS_WEIGHTS], shuffle=False, verbose=0).history
    assert first == second


def test_batches_from_an_iterable_may_differ_in_what_is_missing():
    x, y = data(40)
    whole = data(40, missing=False)[1]
    model = compiled()
    rows = [slice(0, 16), slice(16, 32), slice(32, 40)]
    mixed = {name: np.concatenate([whole[name][:16], y[name][16:]]) for name in y}
    batches = [(x[r], {name: values[r] for name, values in mixed.items()}) for r in rows]
    one = model.evaluate(iter(batches), verbose=0, return_dict=True)
    other = model.evaluate(x, mixed, batch_size=16, verbose=0, return_dict=True)
    assert one == pytest.approx(other, rel=1e-5)
