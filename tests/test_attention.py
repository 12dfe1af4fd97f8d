"""attention, its gradients, its dropout and MultiHeadAttention, against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import convlet
from convlet import _core, layers, ops
from nets import MSE, Net
from reference import assert_accurate, assert_exact, assert_like_torch, floats, run_torch
from torch_training import assert_trains_alike


def split_heads(x, heads):
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


def torch_attention(q, k, v, heads, scale=None, causal=False):
    y = torch.nn.functional.scaled_dot_product_attention(
        *(split_heads(x, heads) for x in (q, k, v)), is_causal=causal, scale=scale
    )
    return y.transpose(1, 2).reshape(*q.shape[:2], v.shape[2])


def arrays(n, t, s, heads, d, e, scale=1.0):
    shapes = (n, t, heads * d), (n, s, heads * d), (n, s, heads * e), (n, t, heads * e)
    return [floats(*shape, seed=i, scale=scale) for i, shape in enumerate(shapes)]


def check(n, t, s, heads, d, e, atol=1e-6, size=1.0, **options):
    q, k, v, dy = arrays(n, t, s, heads, d, e, size)
    gradients = ops.attention_backward(dy, q, k, v, heads=heads, **options)
    assert_like_torch(
        ops.attention(q, k, v, heads=heads, **options),
        lambda q, k, v: torch_attention(q, k, v, heads, **options),
        (q, k, v),
        dy=dy,
        gradients=dict(enumerate(gradients)),
        atol=atol,
    )


# One token, tails of vectors and tiles, several blocks of queries (72, in the gradient 256) and of
# keys (256, in the gradient 96, of which a part of a head's queries sees none), heads of more
# columns than a block of a GPU's kernel has (64 or 128), empty.
SIZES = [
    (1, 1, 1, 1, 1, 1),
    (2, 5, 3, 2, 3, 5),
    (3, 17, 19, 1, 31, 17),
    (2, 66, 99, 3, 8, 19),
    (1, 130, 300, 2, 64, 33),
    (1, 3, 600, 1, 5, 66),
    (1, 530, 230, 16, 3, 5),
    (2, 66, 300, 8, 5, 3),
    (17, 31, 66, 1, 16, 16),
    (1, 70, 65, 2, 99, 130),
    (0, 5, 7, 2, 4, 4),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SIZES)
def test_shapes(isa, shape, causal):
    check(*shape, causal=causal)


@given(
    st.integers(0, 3),
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 20),
    st.booleans(),
)
def test_any_shape(n, t, s, heads, d, e, causal):
    check(n, t, s, heads, d, e, causal=causal)


def test_gradients_from_what_the_forward_kept():
    q, k, v, dy = arrays(2, 17, 19, 3, 5, 7)
    given = {"heads": 3, "causal": True}
    y, kept = ops.attention(q, k, v, **given, keep=True)
    assert_exact(y, ops.attention(q, k, v, **given))
    for got, again in zip(
        ops.attention_backward(dy, q, k, v, **given, kept=kept),
        ops.attention_backward(dy, q, k, v, **given),
        strict=True,
    ):
        assert_exact(got, again)
    _, (_, lse) = ops.attention(*(torch.from_numpy(x) for x in (q, k, v)), **given, keep=True)
    assert isinstance(lse, torch.Tensor)
    with pytest.raises(ValueError, match="expected lse"):
        ops.attention_backward(dy, q, k, v, **given, kept=(y, kept[1][:, :2]))
    with pytest.raises(TypeError, match="expected kept"):
        ops.attention_backward(dy, q, k, v, **given, kept=y)


def test_causal_with_more_keys_than_queries_and_the_reverse():
    check(2, 20, 400, 1, 8, 8, causal=True)
    check(2, 400, 20, 1, 8, 8, causal=True)


@pytest.mark.parametrize("scale", [0.0, 0.3, 2, -0.7])
def test_scale(scale):
    check(2, 19, 31, 2, 5, 7, scale=scale)


@pytest.mark.parametrize("causal", [False, True])
def test_large_scores_do_not_overflow(causal):
    """The largest score moves from block to block of keys."""
    q, k, v, _ = arrays(1, 5, 700, 1, 4, 3)
    k *= np.linspace(0, 400, 700, dtype=np.float32)[:, None]
    got = ops.attention(q, k, v, heads=1, causal=causal)
    y32, _ = run_torch(lambda *x: torch_attention(*x, 1, causal=causal), (q, k, v))
    y64, _ = run_torch(
        lambda *x: torch_attention(*x, 1, causal=causal), (q, k, v), dtype=torch.float64
    )
    assert_accurate(got, y32, y64, atol=1e-5)


def test_rows_are_means_of_the_values():
    """Equal scores: exact means, of the keys that a query sees."""
    v = np.arange(8, dtype=np.float32).reshape(1, 8, 1)
    zero = np.zeros((1, 8, 3), np.float32)
    assert_exact(ops.attention(zero, zero, v, heads=1), np.full((1, 8, 1), 3.5, np.float32))
    causal = ops.attention(zero, zero, v, heads=1, causal=True)
    assert_exact(causal, np.arange(8, dtype=np.float32).reshape(1, 8, 1) / 2)


def test_nan_stays_in_its_query():
    q, k, v, dy = arrays(1, 70, 20, 1, 4, 4)
    expected = ops.attention(q, k, v, heads=1)
    q[0, 33, 2] = np.nan
    got = ops.attention(q, k, v, heads=1)
    assert np.isnan(got[0, 33]).all()
    assert_exact(np.delete(got, 33, 1), np.delete(expected, 33, 1))
    dq, dk, _ = ops.attention_backward(dy, q, k, v, heads=1)
    assert np.isnan(dq[0, 33]).all()
    assert np.isnan(dk).all()


@pytest.mark.parametrize("shape", [(3, 130, 300, 2, 16, 24), (1, 200, 400, 1, 8, 8)])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_same_bits_for_any_number_of_threads(shape, rate):
    q, k, v, dy = arrays(*shape)
    options = (shape[3], None, False, rate, 1, 2, 3)
    before = _core.num_threads()
    results = []
    try:
        for threads in (1, 2, 5, 1):
            _core.set_num_threads(threads)
            y = _core.attention(q, k, v, *options, None)
            results.append((y, *_core.attention_backward(dy, q, k, v, *options)))
    finally:
        _core.set_num_threads(before)
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            assert_exact(got, expected)


@pytest.mark.parametrize("mode", ["predict", "train"])
def test_the_matrix_of_probabilities_is_never_stored(mode):
    tokens, heads = 1024, 4
    net = Net()
    x = net.input(tokens, 16)
    net.output(net.node("attention", *(net.dense(x, 16) for _ in range(3)), heads=heads))
    losses = [MSE] if mode == "train" else []
    memory = _core.Plan(net.graph, net.state(), mode, 1, losses).memory()
    assert memory["activations"] + memory["workspace"] < heads * tokens * tokens * 4 / 4


# ------------------------------------------------------------ dropout


def kept_factors(n, t, s, heads, rate, seed, step, stream):
    """What each probability is multiplied with (N,heads,T,S): values of ones on a diagonal show
    them, as equal scores give probabilities of 1 / S."""
    zero = np.zeros((n, t, heads), np.float32), np.zeros((n, s, heads), np.float32)
    v = np.broadcast_to(np.tile(np.eye(s, dtype=np.float32), heads), (n, s, heads * s))
    y = _core.attention(
        *zero, np.ascontiguousarray(v), heads, None, False, rate, seed, step, stream, None
    )
    return y.reshape(n, t, heads, s).transpose(0, 2, 1, 3) * np.float32(s)


@pytest.mark.parametrize(
    "shape", [(2, 5, 7, 2, 3, 5), (1, 70, 300, 2, 8, 8), (3, 66, 31, 1, 4, 19)]
)
@pytest.mark.parametrize("causal", [False, True])
def test_dropout(isa, shape, causal):
    n, t, s, heads, _, _ = shape
    drop = (0.3, 11, 4, 2)
    q, k, v, dy = arrays(*shape)
    factors = kept_factors(n, t, s, heads, *drop)
    np.testing.assert_allclose(np.unique(factors.round(4)), [0, np.float32(1 / 0.7).round(4)])

    def reference(q, k, v):
        scores = split_heads(q, heads) @ split_heads(k, heads).transpose(2, 3) / shape[4] ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones(t, s).triu(1).bool(), -torch.inf)
        kept = torch.from_numpy(factors > 0).to(q.dtype) / 0.7
        y = torch.softmax(scores, -1) * kept @ split_heads(v, heads)
        return y.transpose(1, 2).reshape(n, t, -1)

    options = (heads, None, causal, *drop)
    assert_like_torch(
        _core.attention(q, k, v, *options, None),
        reference,
        (q, k, v),
        dy=dy,
        gradients=dict(enumerate(_core.attention_backward(dy, q, k, v, *options))),
    )


def test_dropout_keeps_its_share_and_depends_on_seed_step_and_stream():
    first = kept_factors(4, 40, 50, 2, 0.25, 1, 2, 3) > 0
    assert abs(first.mean() - 0.75) < 4 * (0.25 * 0.75 / first.size) ** 0.5
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        share = (first == (kept_factors(4, 40, 50, 2, 0.25, *other) > 0)).mean()
        assert abs(share - 0.625) < 0.05
    assert_exact(first, kept_factors(4, 40, 50, 2, 0.25, 1, 2, 3) > 0)
    # Samples, heads and queries have numbers of their own.
    rows = first.reshape(-1, 50)
    assert len(np.unique(rows, axis=0)) == len(rows)


# ------------------------------------------------------------ the layer


def twin(layer, dropout=0.0):
    """torch's MultiheadAttention with the layer's weights; embed_dim = num_heads * key_dim."""
    wq, bq, wk, bk, wv, bv, wo, bo = (torch.from_numpy(w) for w in layer.get_weights())
    size = wq.shape[0]
    module = torch.nn.MultiheadAttention(
        size, layer.num_heads, dropout, kdim=wk.shape[0], vdim=wv.shape[0], batch_first=True
    )
    weights = [w.reshape(-1, size).T for w in (wq, wk, wv)]
    with torch.no_grad():
        if module.in_proj_weight is None:
            module.q_proj_weight.copy_(weights[0])
            module.k_proj_weight.copy_(weights[1])
            module.v_proj_weight.copy_(weights[2])
        else:
            module.in_proj_weight.copy_(torch.cat(weights))
        module.in_proj_bias.copy_(torch.cat([b.reshape(-1) for b in (bq, bk, bv)]))
        module.out_proj.weight.copy_(wo.reshape(-1, size).T)
        module.out_proj.bias.copy_(bo)
    return module


def apply(layer, *inputs):
    tensors = [convlet.Input(x.shape[1:]) for x in inputs]
    return convlet.Model(tensors, layer(*tensors)).predict(list(inputs))


def test_self_attention_like_torch():
    layer = layers.MultiHeadAttention(3, 4, bias_initializer="random_normal")
    x = floats(2, 7, 12)
    tensor = convlet.Input((7, 12))
    got = convlet.Model(tensor, layer(tensor, tensor)).predict(x)
    module = twin(layer)
    y32 = module(*[torch.from_numpy(x)] * 3, need_weights=False)[0].detach()
    y64 = module.double()(*[torch.from_numpy(x).double()] * 3, need_weights=False)[0].detach()
    assert_accurate(got, y32, y64)


def test_cross_attention_like_torch():
    layer = layers.MultiHeadAttention(2, 5, bias_initializer="random_normal")
    query, value, key = floats(3, 4, 10), floats(3, 6, 7), floats(3, 6, 9)
    got = apply(layer, query, value, key)
    y = twin(layer)(*(torch.from_numpy(x) for x in (query, key, value)))[0].detach()
    np.testing.assert_allclose(got, y, atol=2e-6)
    np.testing.assert_array_equal(layer(query, value, key), got)


def test_weights_are_keras():
    layer = layers.MultiHeadAttention(3, 4, value_dim=5)
    query, value, key = convlet.Input((7, 8)), convlet.Input((6, 9)), convlet.Input((6, 10))
    assert layer(query, value, key).shape == (None, 7, 8)
    assert [(w.name, w.shape) for w in layer.weights] == [
        ("query/kernel", (8, 3, 4)),
        ("query/bias", (3, 4)),
        ("key/kernel", (10, 3, 4)),
        ("key/bias", (3, 4)),
        ("value/kernel", (9, 3, 5)),
        ("value/bias", (3, 5)),
        ("attention_output/kernel", (3, 5, 8)),
        ("attention_output/bias", (8,)),
    ]
    plain = layers.MultiHeadAttention(3, 4, use_bias=False, output_shape=11)
    assert plain(query, value).shape == (None, 7, 11)
    assert [w.shape for w in plain.weights] == [(8, 3, 4), (9, 3, 4), (9, 3, 4), (3, 4, 11)]


def classifier(layer):
    x = convlet.Input((9, 8))
    y = layers.Flatten()(layer(x, x))
    return convlet.Model(x, layers.Dense(3)(y))


class TorchClassifier(torch.nn.Module):
    def __init__(self, model, layer):
        super().__init__()
        self.attention = twin(layer)
        self.dense = torch.nn.Linear(72, 3)
        kernel, bias = (torch.from_numpy(w) for w in model.layers[-1].get_weights())
        self.dense.weight.data.copy_(kernel.T)
        self.dense.bias.data.copy_(bias)

    def forward(self, x):
        return self.dense(self.attention(x, x, x, need_weights=False)[0].flatten(1))


def test_trains_like_torch():
    layer = layers.MultiHeadAttention(2, 4)
    model = classifier(layer)
    labels = np.random.default_rng(0).integers(0, 3, 40)
    assert_trains_alike(model, TorchClassifier(model, layer), floats(40, 9, 8), labels)


def test_frozen_inputs_get_no_gradient():
    """A frozen layer keeps its weights, and the layers above it are trained all the same."""
    layer = layers.MultiHeadAttention(2, 4, trainable=False)
    model = classifier(layer)
    before = layer.get_weights()
    model.compile("sgd", convlet.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(floats(8, 9, 8), np.arange(8) % 3)
    for old, new in zip(before, layer.get_weights(), strict=True):
        assert_exact(new, old)


def test_dropout_is_for_training():
    layer = layers.MultiHeadAttention(2, 4, dropout=0.5)
    model = classifier(layer)
    x, y = floats(8, 9, 8), np.arange(8) % 3
    plain = classifier(layers.MultiHeadAttention(2, 4))
    plain.set_weights(model.get_weights())
    assert_exact(model.predict(x), plain.predict(x))
    losses = []
    for m in (model, plain):
        m.compile("sgd", convlet.losses.SparseCategoricalCrossentropy(from_logits=True))
        losses.append(m.train_on_batch(x, y))
    assert losses[0] != losses[1]


def test_saved_and_loaded(tmp_path):
    model = classifier(layers.MultiHeadAttention(2, 4, 3, dropout=0.1, kernel_regularizer="l2"))
    x = floats(5, 9, 8)
    model.save(tmp_path / "m.safetensors")
    loaded = convlet.load_model(tmp_path / "m.safetensors")
    assert_exact(loaded.predict(x), model.predict(x))
    assert loaded.layers[1].get_config() == model.layers[1].get_config()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 4), {}, "num_heads: expected an integer >= 1, got 0"),
        ((2, 4.0), {}, "key_dim: expected an integer"),
        ((2, 4, 0), {}, "value_dim: expected"),
        ((2, 4), {"dropout": 1.0}, r"dropout: expected a number in \[0, 1\)"),
        ((2, 4), {"output_shape": (3, 4)}, "output_shape: expected an integer"),
        ((2, 4), {"attention_axes": 2}, "attention_axes: expected None or 1, got 2"),
        ((2, 4), {"kernel_constraint": "max_norm"}, "kernel_constraint: expected None"),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match="MultiHeadAttention 'multi_head_attention': " + message):
        layers.MultiHeadAttention(*arguments, **options)


def test_bad_calls():
    layer = layers.MultiHeadAttention(2, 4)
    x, image = convlet.Input((7, 8)), convlet.Input((4, 4, 8))
    with pytest.raises(ValueError, match="use_causal_mask: expected None"):
        layer(x, x, use_causal_mask=True)
    with pytest.raises(ValueError, match="attention_mask: expected None"):
        layer(x, x, attention_mask=x)
    with pytest.raises(ValueError, match=r"query: expected tokens \(N,T,d\), got '\(N,4,4,8\)'"):
        layer(image, x)
    with pytest.raises(ValueError, match=r"expected v \(N,S,H\*E\) with N=1 and S=6"):
        layer(x, x, convlet.Input((6, 8)))
    assert layer(x, x).shape == (None, 7, 8)
