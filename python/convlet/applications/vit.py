"""Vision transformers: Dosovitskiy and others, An Image is Worth 16x16 Words, arXiv:2010.11929; the
sizes are those of Touvron and others, Training Data-efficient Image Transformers, arXiv:2012.12877.
"""

from convlet.applications.start import Scale, Shape, start
from convlet.initializers import TruncatedNormal
from convlet.layers import (
    Add,
    ClassToken,
    Dense,
    FirstToken,
    LayerNormalization,
    MultiHeadAttention,
    PatchEmbedding,
    PositionEmbedding,
    SymbolicTensor,
    arguments,
)
from convlet.models import Model

EPSILON = 1e-6


def vit_tiny(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    patch_size: int | None = None,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """ViT-Ti/16 (timm's vit_tiny_patch16_224): 12 blocks, width 192, 3 heads; 5.7 M parameters.

    patch_size: divides height and width. When None, 16, or the largest size below that divides the
    image into 8x8 patches or more.
    """
    size = (192, 12, 3)
    return _vit("vit_tiny", size, input_shape, classes, patch_size, scale, classifier_activation)


def vit_small(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    patch_size: int | None = None,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """ViT-S/16 (timm's vit_small_patch16_224): 12 blocks, width 384, 6 heads; 22.1 M parameters.
    patch_size as in `vit_tiny`."""
    size = (384, 12, 6)
    return _vit("vit_small", size, input_shape, classes, patch_size, scale, classifier_activation)


def vit_base(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    *,
    patch_size: int | None = None,
    scale: Scale = 1.0,
    classifier_activation: str | None = "softmax",
) -> Model:
    """ViT-B/16 (torchvision's vit_b_16, timm's vit_base_patch16_224): 12 blocks, width 768, 12
    heads; 86.6 M parameters. patch_size as in `vit_tiny`."""
    size = (768, 12, 12)
    return _vit("vit_base", size, input_shape, classes, patch_size, scale, classifier_activation)


def _vit(
    name: str,
    size: tuple[int, int, int],
    input_shape: Shape,
    classes: int,
    patch_size: int | None,
    scale: Scale,
    classifier_activation: str | None,
) -> Model:
    width, depth, heads = size
    inputs, x = start(name, input_shape, classes, scale)
    patch = _patch_size(name, x.shape[1:3], patch_size)
    x = PatchEmbedding(patch, width, kernel_initializer=_normal(), name="patch_embed.proj")(x)
    x = ClassToken(name="cls_token")(x)
    x = PositionEmbedding(name="pos_embed")(x)
    for i in range(depth):
        x = _block(x, heads, f"blocks.{i}")
    x = LayerNormalization(epsilon=EPSILON, name="norm")(x)
    x = Dense(classes, activation=classifier_activation, name="head")(FirstToken()(x))
    return Model(inputs, x, name=name)


def _block(x: SymbolicTensor, heads: int, name: str) -> SymbolicTensor:
    """Attention between the tokens, then a dense network on each; both are added to what went
    in."""
    width = x.shape[-1]
    y = LayerNormalization(epsilon=EPSILON, name=f"{name}.norm1")(x)
    attention = MultiHeadAttention(
        heads, width // heads, kernel_initializer=_normal(), name=f"{name}.attn"
    )
    x = Add()([x, attention(y, y)])
    y = LayerNormalization(epsilon=EPSILON, name=f"{name}.norm2")(x)
    y = _dense(4 * width, "gelu", f"{name}.mlp.fc1")(y)
    y = _dense(width, None, f"{name}.mlp.fc2")(y)
    return Add()([x, y])


def _patch_size(name: str, image: tuple[int, int], wanted: int | None) -> int:
    height, width = image
    if wanted is None:
        most = min(16, max(1, min(image) // 8))
        return next(n for n in range(most, 0, -1) if height % n == 0 and width % n == 0)
    size = arguments.integer(name, "patch_size", wanted)
    if height % size or width % size:
        raise arguments.expected(name, "patch_size", f"a divisor of {height} and {width}", wanted)
    return size


def _dense(units: int, activation: str | None, name: str) -> Dense:
    return Dense(units, activation, kernel_initializer=_normal(), name=name)


def _normal() -> TruncatedNormal:
    return TruncatedNormal(stddev=0.02)
