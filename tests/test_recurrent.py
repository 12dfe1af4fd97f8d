"""simple_rnn, lstm, gru, their gradients and their layers, against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import convlet
from convlet import _core, initializers, layers, ops
from reference import assert_accurate, assert_exact, assert_like_torch, floats, run_torch
from torch_training import assert_trains_alike

GATES = {"simple_rnn": 1, "lstm": 4, "gru": 3}
MODULES = {"simple_rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
LAYERS = {"simple_rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}


def to_torch_gates(cell, w):
    """A weight's columns in torch's order of gates: z, r, g of a gru are torch's 1, 0, 2."""
    if cell != "gru":
        return w
    z, r, g = w.chunk(3, -1)
    return torch.cat([r, z, g], -1)


def torch_weights(cell, kernel, recurrent_kernel, bias=None):
    """weight_ih, weight_hh, bias_ih, bias_hh of torch's module."""
    zero = torch.zeros_like(kernel[0])
    first, second = bias if cell == "gru" and bias is not None else (bias, zero)
    first = zero if first is None else first
    matrices = [to_torch_gates(cell, w).T for w in (kernel, recurrent_kernel)]
    return [*matrices, *(to_torch_gates(cell, b) for b in (first, second))]


def torch_recurrent(cell, x, *weights, return_sequences=False, go_backwards=False):
    """torch's module, called with weights that gradients flow to."""
    units = weights[1].shape[0]
    module = MODULES[cell](x.shape[2], units, batch_first=True, dtype=x.dtype)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    values = dict(zip(names, torch_weights(cell, *weights), strict=True))
    x = x.flip(1) if go_backwards else x
    y = torch.func.functional_call(module, values, x)[0]
    return y if return_sequences else y[:, -1]


def arrays(cell, n, t, i, units, bias=True):
    columns = GATES[cell] * units
    kernel = floats(i, columns, scale=i**-0.5, seed=1)
    recurrent_kernel = floats(units, columns, scale=units**-0.5, seed=2)
    b = floats(*((2, columns) if cell == "gru" else (columns,)), scale=0.5, seed=3)
    return [floats(n, t, i), kernel, recurrent_kernel, *([b] if bias else [])]


def check(cell, n, t, i, units, bias=True, **options):
    inputs = arrays(cell, n, t, i, units, bias)
    shape = (n, t, units) if options.get("return_sequences") else (n, units)
    dy = floats(*shape, seed=4)
    y = getattr(ops, cell)(*inputs, **options)
    assert y.shape == shape
    gradients = getattr(ops, f"{cell}_backward")(dy, *inputs, **options)
    assert (gradients[3] is None) == (not bias)
    if n == 0:  # torch refuses it
        assert gradients[0].shape == inputs[0].shape
        assert not any(g.any() for g in gradients)
        return
    assert_like_torch(
        y,
        lambda *args: torch_recurrent(cell, *args, **options),
        inputs,
        dy=dy,
        gradients={j: g for j, g in enumerate(gradients) if g is not None},
        atol=2e-6,
    )


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
def test_gradients_from_what_the_forward_kept(cell):
    inputs = arrays(cell, 3, 5, 7, 19)
    dy = floats(3, 19, seed=4)
    forward, backward = getattr(ops, cell), getattr(ops, f"{cell}_backward")
    y, kept = forward(*inputs, go_backwards=True, keep=True)
    assert_exact(y, forward(*inputs, go_backwards=True))
    for got, again in zip(
        backward(dy, *inputs, go_backwards=True, kept=kept),
        backward(dy, *inputs, go_backwards=True),
        strict=True,
    ):
        assert_exact(got, again)
    with pytest.raises(ValueError, match="expected previous"):
        backward(dy, *inputs, kept=(kept[0], kept[1][:2]))


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (2, 5, 3, 17), (0, 4, 3, 5), (7, 3, 19, 31), (50, 4, 5, 1), (3, 28, 28, 66)],
)
def test_shapes(isa, cell, shape, sequences):
    check(cell, *shape, return_sequences=sequences)
    check(cell, *shape, return_sequences=sequences, go_backwards=True)


@pytest.mark.parametrize("cell", GATES)
def test_without_bias(cell):
    check(cell, 3, 4, 5, 6, bias=False)


@given(
    st.sampled_from(sorted(GATES)),
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(1, 40),
    st.booleans(),
    st.booleans(),
)
def test_any_shape(cell, n, t, i, units, sequences, backwards):
    check(cell, n, t, i, units, return_sequences=sequences, go_backwards=backwards)


@pytest.mark.parametrize("cell", GATES)
def test_same_bits_for_any_number_of_threads(cell):
    inputs = arrays(cell, 61, 5, 19, 33)
    dy = floats(61, 5, 33, seed=4)
    before = _core.num_threads()
    results = []
    try:
        for threads in (1, 2, 5, 1):
            _core.set_num_threads(threads)
            y = getattr(ops, cell)(*inputs, return_sequences=True)
            gradients = getattr(ops, f"{cell}_backward")(dy, *inputs, return_sequences=True)
            results.append((y, *gradients))
    finally:
        _core.set_num_threads(before)
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            assert_exact(got, expected)


@pytest.mark.parametrize("cell", GATES)
def test_samples_do_not_depend_on_their_neighbours(cell):
    """NaN in one sample stays there, and a sample alone gives the same bits."""
    x, *weights = arrays(cell, 20, 4, 7, 9)
    expected = getattr(ops, cell)(x, *weights)
    assert_exact(getattr(ops, cell)(x[13:14], *weights), expected[13:14])
    x[5, 1, 2] = np.nan
    got = getattr(ops, cell)(x, *weights)
    assert np.isnan(got[5]).all()
    assert_exact(np.delete(got, 5, 0), np.delete(expected, 5, 0))


@pytest.mark.parametrize("cell", GATES)
def test_not_contiguous(cell):
    x, *weights = arrays(cell, 4, 5, 6, 7)
    expected = getattr(ops, cell)(x, *weights)
    wide = np.zeros((4, 5, 12), np.float32)
    wide[..., ::2] = x
    fortran = [np.asfortranarray(w) for w in weights]
    assert_exact(getattr(ops, cell)(wide[..., ::2], *fortran), expected)


def test_saturated_gates_are_exact():
    """Weights so large that every gate is 0 or 1: c counts the steps whose input is positive."""
    x = np.array([1, -1, 1, 1, -1], np.float32).reshape(1, 5, 1)
    kernel = np.array([[200, 0, 200, 0]], np.float32)
    bias = np.array([0, 200, 0, 200], np.float32)
    h = ops.lstm(x, kernel, np.zeros((1, 4), np.float32), bias, return_sequences=True)
    np.testing.assert_allclose(h[0, :, 0], np.tanh([1, 1, 2, 3, 3]), rtol=1e-6)


# ------------------------------------------------------------ layers


def apply(layer, x):
    tensor = convlet.Input(x.shape[1:])
    return convlet.Model(tensor, layer(tensor)).predict(x)


@pytest.mark.parametrize("options", [{}, {"return_sequences": True, "go_backwards": True}])
@pytest.mark.parametrize("cell", GATES)
def test_layer(cell, options):
    layer = LAYERS[cell](6, bias_initializer="random_normal", **options)
    x = floats(3, 5, 4)
    got = apply(layer, x)
    function = getattr(ops, cell)
    assert_exact(got, function(x, *layer.get_weights(), **options))
    columns = GATES[cell] * 6
    assert [(w.name, w.shape) for w in layer.weights] == [
        ("kernel", (4, columns)),
        ("recurrent_kernel", (6, columns)),
        ("bias", (2, columns) if cell == "gru" else (columns,)),
    ]
    assert layer.compute_output_shape((None, 5, 4)) == (None, *got.shape[1:])


def test_initial_weights_are_keras():
    layer = layers.LSTM(5)
    layer(convlet.Input((4, 3)))
    kernel, recurrent_kernel, bias = layer.get_weights()
    np.testing.assert_array_equal(bias, [0] * 5 + [1] * 5 + [0] * 10)
    assert np.abs(kernel).max() <= (6 / (3 + 20)) ** 0.5
    np.testing.assert_allclose(recurrent_kernel @ recurrent_kernel.T, np.eye(5), atol=1e-6)
    plain = layers.LSTM(5, unit_forget_bias=False, bias_initializer="ones")
    plain(convlet.Input((4, 3)))
    np.testing.assert_array_equal(plain.get_weights()[2], np.ones(20))


def test_orthogonal():
    for shape in ((7, 3), (3, 7), (2, 3, 4), (5, 5)):
        w = initializers.Orthogonal(gain=2.0, seed=1)(shape).reshape(-1, shape[-1])
        small = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)
    assert_exact(initializers.get("orthogonal")((3, 3), 5), initializers.Orthogonal()((3, 3), 5))
    with pytest.raises(ValueError, match="Orthogonal: expected a weight of at least 2 axes"):
        initializers.Orthogonal()((3,))


def torch_bidirectional(x, *weights):
    """torch's bidirectional GRU with both directions' weights."""
    module = torch.nn.GRU(
        x.shape[2], weights[1].shape[0], batch_first=True, bidirectional=True, dtype=x.dtype
    )
    values = {}
    for suffix, own in (("", weights[:3]), ("_reverse", weights[3:])):
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        named = zip(names, torch_weights("gru", *own), strict=True)
        values |= {name + suffix: value for name, value in named}
    return torch.func.functional_call(module, values, x)[0]


@pytest.mark.parametrize("mode", ["concat", "sum", "ave", "mul"])
@pytest.mark.parametrize("sequences", [False, True])
def test_bidirectional_like_torch(mode, sequences):
    inner = layers.GRU(5, return_sequences=sequences, bias_initializer="random_normal")
    layer = layers.Bidirectional(inner, mode)
    x = floats(3, 6, 4)
    got = apply(layer, x)
    merge = {
        "concat": lambda a, b: torch.cat([a, b], -1),
        "sum": lambda a, b: a + b,
        "ave": lambda a, b: (a + b) / 2,
        "mul": lambda a, b: a * b,
    }[mode]

    def reference(x, *weights):
        forward, backward = torch_bidirectional(x, *weights).chunk(2, -1)
        return merge(forward, backward) if sequences else merge(forward[:, -1], backward[:, 0])

    inputs = [x, *layer.get_weights()]
    y32, _ = run_torch(reference, inputs)
    y64, _ = run_torch(reference, inputs, dtype=torch.float64)
    assert_accurate(got, y32, y64)


def test_bidirectional_without_merging():
    layer = layers.Bidirectional(layers.SimpleRNN(5), merge_mode=None)
    tensor = convlet.Input((6, 4))
    outputs = layer(tensor)
    assert [y.shape for y in outputs] == [(None, 5), (None, 5)]
    x = floats(3, 6, 4)
    forward, backward = convlet.Model(tensor, outputs).predict(x)
    weights = layer.get_weights()
    assert_exact(forward, ops.simple_rnn(x, *weights[:3]))
    assert_exact(backward, ops.simple_rnn(x, *weights[3:], go_backwards=True))
    for got, expected in zip(layer(x), (forward, backward), strict=True):
        assert_exact(got, expected)


def test_two_bidirectional_layers_have_weights_of_their_own():
    inner = layers.LSTM(3, return_sequences=True)
    model = convlet.Sequential(
        [convlet.Input((5, 4)), layers.Bidirectional(inner), layers.Bidirectional(inner)]
    )
    assert len(model.get_weights()) == 12
    assert model.count_params() == 2 * 4 * 3 * (4 + 3 + 1) + 2 * 4 * 3 * (6 + 3 + 1)
    model.layers[0].trainable = False
    assert len(model.trainable_weights) == 6


class TorchClassifier(torch.nn.Module):
    """Rows of an image, a recurrent module, a dense layer on the last h."""

    def __init__(self, cell, weights, units, bidirectional=False):
        super().__init__()
        kernel, bias = (torch.from_numpy(w) for w in weights[-2:])
        self.cell = MODULES[cell](
            weights[0].shape[0], units, batch_first=True, bidirectional=bidirectional
        )
        suffixes = ("", "_reverse") if bidirectional else ("",)
        for d, suffix in enumerate(suffixes):
            own = [torch.from_numpy(w) for w in weights[3 * d : 3 * d + 3]]
            names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            for name, value in zip(names, torch_weights(cell, *own), strict=True):
                getattr(self.cell, name + suffix).data.copy_(value)
            # Keras has one bias where torch adds two: only one of them may learn.
            if cell != "gru":
                getattr(self.cell, "bias_hh_l0" + suffix).requires_grad_(False)
        self.dense = torch.nn.Linear(kernel.shape[0], kernel.shape[1])
        self.dense.weight.data.copy_(kernel.T)
        self.dense.bias.data.copy_(bias)

    def forward(self, x):
        y = self.cell(x.flatten(2))[0]
        units = self.cell.hidden_size
        last = (
            y[:, -1]
            if not self.cell.bidirectional
            else torch.cat([y[:, -1, :units], y[:, 0, units:]], -1)
        )
        return self.dense(last)


def classifier(layer):
    return convlet.Sequential(
        [convlet.Input((8, 6, 2)), layers.Reshape((8, 12)), layer, layers.Dense(3)]
    )


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", GATES)
def test_trains_like_torch(cell, bidirectional):
    layer = LAYERS[cell](7)
    model = classifier(layers.Bidirectional(layer) if bidirectional else layer)
    x = floats(40, 8, 6, 2)
    labels = np.random.default_rng(0).integers(0, 3, 40)
    module = TorchClassifier(cell, model.get_weights(), 7, bidirectional)
    assert_trains_alike(model, module, x, labels)


def test_dropout_drops_an_input_in_all_steps():
    """The loss of every step is that of one of the eight choices among three inputs."""
    layer = layers.LSTM(4, dropout=0.5)
    tensor = convlet.Input((6, 3))
    model = convlet.Model(tensor, layer(tensor))
    x, y = floats(1, 6, 3), floats(1, 4)
    weights = layer.get_weights()
    masks = [np.array([a, b, c], np.float32) for a in (0, 2) for b in (0, 2) for c in (0, 2)]
    possible = [((ops.lstm(x * mask, *weights) - y) ** 2).mean() for mask in masks]
    model.compile(convlet.optimizers.SGD(0.0), "mse")
    losses = [float(np.ravel(model.train_on_batch(x, y))[0]) for _ in range(30)]
    nearest = [int(np.abs(np.array(possible) - loss).argmin()) for loss in losses]
    np.testing.assert_allclose(losses, np.array(possible)[nearest], rtol=1e-5)
    assert len(set(nearest)) > 3
    assert_exact(model.predict(x), ops.lstm(x, *weights))


@pytest.mark.parametrize(
    "layer",
    [
        layers.SimpleRNN(3, go_backwards=True),
        layers.LSTM(4, unit_forget_bias=False, kernel_regularizer="l2"),
        layers.GRU(5, use_bias=False, dropout=0.2),
        layers.Bidirectional(layers.LSTM(3), "ave"),
        layers.Bidirectional(layers.GRU(3), backward_layer=layers.GRU(3, go_backwards=True)),
    ],
    ids=lambda layer: layer.name,
)
def test_saved_and_loaded(tmp_path, layer):
    model = classifier(layer)
    x = floats(5, 8, 6, 2)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert_exact(loaded.predict(x), model.predict(x))
    assert loaded.layers[1].get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.LSTM(0), "LSTM 'lstm': units: expected an integer >= 1, got 0"),
        (lambda: layers.LSTM(3, "relu"), r"activation: expected 'tanh' .*got 'relu'"),
        (
            lambda: layers.GRU(3, recurrent_activation="tanh"),
            r"recurrent_activation: expected 'sigmoid' .*got 'tanh'",
        ),
        (lambda: layers.GRU(3, reset_after=False), "reset_after: expected True"),
        (lambda: layers.SimpleRNN(3, dropout=1), r"dropout: expected a number in \[0, 1\), got 1"),
        (lambda: layers.SimpleRNN(3, recurrent_dropout=0.1), "recurrent_dropout: expected 0"),
        (lambda: layers.LSTM(3, return_state=True), "return_state: expected False"),
        (lambda: layers.LSTM(3, stateful=True), "stateful: expected False"),
        (lambda: layers.LSTM(3, bias_constraint="x"), "bias_constraint: expected None"),
        (lambda: layers.Bidirectional(layers.Dense(3)), "layer: expected one of .*GRU"),
        (lambda: layers.Bidirectional(layers.GRU(3), "max"), "merge_mode: expected one of"),
        (
            lambda: layers.Bidirectional(layers.GRU(3), backward_layer=layers.GRU(3)),
            "backward_layer: expected a layer that walks the other way",
        ),
        (
            lambda: layers.GRU(3)(convlet.Input((4, 4, 1))),
            r"inputs: expected sequences \(N,T,I\).*got '\(N,4,4,1\)'",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
