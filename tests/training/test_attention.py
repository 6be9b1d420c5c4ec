"""The largest attention logit by layer, against attention written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.processes.world import ALONE
from bench.training import attention
from models import gpt2, vit

HEADS, WIDTH = 4, 32


def language(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = gpt2.build(
        vocab_size=64, layers=2, heads=HEADS, width=WIDTH, positions=16, initial_scale=0.5
    )
    model.set_attn_implementation(kind)
    return model.eval(), {"input_ids": torch.randint(64, (3, 16))}


def images(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = vit.build(
        **{"image_size": 8, "channels": 1, "classes": 3, "patch_size": 4, "layers": 2},
        **{"heads": HEADS, "width": WIDTH, "initial_scale": 0.5},
    )
    model.set_attn_implementation(kind)
    return model.eval(), {"pixel_values": torch.randn(3, 1, 8, 8)}


def by_hand(inputs: list[Tensor], maps: list, causal: bool) -> list[float]:
    """From what each layer's attention gets, one example, head, query and key at a time."""
    found = []
    for x, qk in zip(inputs, maps, strict=True):
        q, k = qk(x)
        size, most = WIDTH // HEADS, -math.inf
        for b in range(len(x)):
            for h in range(HEADS):
                part = slice(h * size, (h + 1) * size)
                for i in range(x.shape[1]):
                    for j in range(i + 1 if causal else x.shape[1]):
                        logit = (q[b, i, part] @ k[b, j, part]).item() / math.sqrt(size)
                        most = max(most, logit)
        found.append(most)
    return found


def inputs_of(model: nn.Module, modules: list[nn.Module], batch: dict[str, Tensor]) -> list[Tensor]:
    seen: list[Tensor] = []
    hooks = [
        m.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for m in modules
    ]
    with torch.no_grad():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_gpt2s_largest_logits_are_those_by_hand(kind):
    model, batch = language(kind)
    layers = [block.attn for block in model.transformer.h]

    def of(layer):
        return lambda x: layer.c_attn(x).split(WIDTH, dim=-1)[:2]

    inputs = inputs_of(model, layers, batch)
    with torch.no_grad():
        wanted = by_hand(inputs, [of(layer) for layer in layers], causal=True)
        every = by_hand(inputs, [of(layer) for layer in layers], causal=False)
    assert wanted != every  # so that the causal mask counts
    assert attention.largest(lambda: model(**batch), ALONE) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_vits_largest_logits_are_those_by_hand(kind):
    model, batch = images(kind)
    layers = [m for name, m in model.named_modules() if name.endswith(("attention.attention",))]
    layers = layers or [m for m in model.modules() if type(m).__name__ == "ViTAttention"]
    assert len(layers) == 2

    def of(layer):
        maps = dict(layer.named_modules())
        q, k = (
            maps.get(name) or maps[other]
            for name, other in (("query", "q_proj"), ("key", "k_proj"))
        )
        return lambda x: (q(x), k(x))

    with torch.no_grad():
        wanted = by_hand(inputs_of(model, layers, batch), [of(m) for m in layers], causal=False)
    assert attention.largest(lambda: model(**batch), ALONE) == pytest.approx(wanted, rel=1e-4)


def slow(q: Tensor, k: Tensor, scale: float, allowed: Tensor | None, bias: Tensor | None) -> float:
    logits = scale * torch.einsum("bhqd,bhkd->bhqk", q.double(), k.double())
    logits = logits if bias is None else logits + bias
    return logits[torch.ones_like(logits, dtype=torch.bool) if allowed is None else allowed].max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["whole", "causal", "mask", "bias", "scale", "groups"])
def test_every_argument_of_torchs_attention_counts(case, dtype):
    torch.manual_seed(1)
    q, k = torch.randn(2, 4, 5, 8).to(dtype), torch.randn(2, 4, 7, 8).to(dtype)
    allowed, bias, scale, options = None, None, 8**-0.5, {}
    if case == "causal":
        allowed, options = torch.ones(5, 7).tril().bool().expand(2, 4, 5, 7), {"is_causal": True}
    if case == "mask":
        mask = torch.rand(2, 1, 5, 7) < 0.3
        mask[..., 0] = True
        allowed, options = mask.expand(2, 4, 5, 7), {"attn_mask": mask}
    if case == "bias":
        bias = torch.randn(4, 5, 7).to(dtype)
        options = {"attn_mask": bias}
    if case == "scale":
        scale, options = 3.0, {"scale": 3.0}
    heads = k
    if case == "groups":
        heads, options = k[:, :2], {"enable_gqa": True}
        k = heads.repeat_interleave(2, 1)
    wanted = slow(q, k, scale, allowed, bias)

    def forward():
        return F.scaled_dot_product_attention(q, heads, torch.randn_like(heads), **options)

    assert attention.largest(forward, ALONE) == [pytest.approx(wanted.item(), rel=1e-5)]


def test_a_softmax_that_is_no_attention_is_not_read():
    router, x = nn.Linear(8, 4), torch.randn(2, 3, 8)

    def forward():
        F.softmax(router(x), -1)
        torch.softmax(x @ router.weight.T, -1)

    assert attention.largest(forward, ALONE) is None


def test_attention_that_cannot_be_read_makes_all_of_it_unknown():
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 3, 8)

    def forward():
        F.scaled_dot_product_attention(x, x, x)
        layer(x, x, x)

    assert attention.largest(lambda: F.scaled_dot_product_attention(x, x, x), ALONE)
    assert attention.largest(forward, ALONE) is None


def test_a_logit_that_is_no_number_is_told_as_such():
    x = torch.full((1, 1, 2, 4), math.nan)
    (found,) = attention.largest(lambda: F.scaled_dot_product_attention(x, x, x), ALONE)
    assert math.isnan(found)
