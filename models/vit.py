"""A vision transformer with random weights: transformers' own class, at any size."""

from transformers import ViTConfig, ViTForImageClassification

from models.sizes import check_divides, check_positive, check_scale


def build(
    *,
    image_size: int,
    channels: int,
    classes: int,
    patch_size: int,
    layers: int,
    heads: int,
    width: int,
    initial_scale: float = 0.02,
) -> ViTForImageClassification:
    """A ViT without dropout, in fp32, with a class token and an MLP of four widths.

    It takes `pixel_values` (batch, channels, image_size, image_size) fp32 and `labels` (batch,)
    int64. `image_size` and `patch_size` are the side of a square, in pixels. Weights follow
    torch's global random state. initial_scale: their standard deviation. Raises ValueError for a
    size below 1, for heads that do not divide the width, for patches that do not tile the image,
    and for a scale that is not above 0.
    """
    check_positive("model", layers=layers, heads=heads, width=width)
    check_positive(
        "data", image_size=image_size, channels=channels, classes=classes, patch_size=patch_size
    )
    check_divides("model.heads", heads, "model.width", width)
    check_divides("data.patch_size", patch_size, "data.image_size", image_size)
    check_scale("model.initial_scale", initial_scale)
    config = ViTConfig(  # type: ignore[call-arg]  # its stub hides the keywords of every config
        image_size=image_size,
        num_channels=channels,
        num_labels=classes,
        patch_size=patch_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_size=width,
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=initial_scale,
        problem_type="single_label_classification",
        attn_implementation="sdpa",
    )
    return ViTForImageClassification(config)
