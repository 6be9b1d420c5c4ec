"""What is said of the parameters around an attention: heads, or why there are none."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from optimizers.structure import describe
from optimizers.structure.qkv import build_views
from optimizers.views import gather

pytestmark = pytest.mark.cpu
HEADS, SIZE = 4, 8
WIDTH = HEADS * SIZE


def by_name(model: nn.Module) -> dict:
    x = torch.zeros(1, 3, WIDTH)
    return {p.name: p for p in describe(model, lambda: model(x))}


def said(p) -> str:
    return p.reason.partition("; ")[2]


def rows(p, part: str) -> list[tuple[int, int]]:
    return [(s.start, s.stop) for s in p.slices if s.part == part]


class DecoderLayer(nn.Module):
    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention
        self.mlp = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.mlp(self.attention(x))


EVERY = [(h * SIZE, (h + 1) * SIZE) for h in range(HEADS)]


class SelfAttention(nn.Module):
    """Multi-head attention; subclasses change how q, k and v meet."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def heads(self, x):
        return (f(x).unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for f in (self.q, self.k, self.v))

    def attend(self, q, k, v):
        return (q @ k.mT).softmax(-1) @ v

    def forward(self, x):
        return self.o(self.attend(*self.heads(x)).transpose(1, 2).flatten(2))


# heads ----------------------------------------------------------------------------------------


class Cosine(SelfAttention):
    """As of Swin v2: q and k normalised, and a scale of its own for every head."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(HEADS, 1, 1))

    def attend(self, q, k, v):
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        return (scores * self.scale.exp() + torch.rand(HEADS, 3, 3)).softmax(-1) @ v


class Scaled(Cosine):
    """Each head of q has a scale, and the result of each a gate that comes from elsewhere."""

    def attend(self, q, k, v):
        return SelfAttention.attend(self, q * self.scale, k, v) * torch.rand(HEADS, 3, 1)


class Biased(SelfAttention):
    """A bias that is no linear map's own, as XLNet adds one to q."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(HEADS, 1, SIZE))

    def attend(self, q, k, v):
        return super().attend(q + self.bias, k, v)


class OneByOne(SelfAttention):
    """A loop over the heads."""

    def attend(self, q, k, v):
        each = zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True)
        return torch.stack([SelfAttention.attend(self, *head) for head in each], 1)


@pytest.mark.parametrize("kind", [SelfAttention, Cosine, Scaled, Biased, OneByOne])
def test_heads_are_read_however_q_and_k_are_scaled_shifted_or_taken_in_turn(kind):
    found = by_name(kind())
    assert {part: rows(found[f"{part}.weight"], part) for part in "qkv"} == dict.fromkeys(
        "qkv", EVERY
    )
    assert found["o.weight"].output_heads == HEADS


def test_halves_of_v_that_two_calls_read_are_the_heads_of_one():
    """As DiffLlama's: both calls have the same q and k."""

    class Halves(SelfAttention):
        def attend(self, q, k, v):
            parts = [v.repeat(1, 2, 1, 1) for v in v.chunk(2, dim=1)]
            return torch.cat([F.scaled_dot_product_attention(q, k, v) for v in parts], -1)

        def forward(self, x):
            return self.attend(*self.heads(x)).transpose(1, 2)

    found = by_name(Halves())
    assert rows(found["v.weight"], "v") == EVERY and rows(found["q.weight"], "q") == EVERY


def test_rows_that_every_head_shares_are_those_of_all_heads():
    class Shared(SelfAttention):
        def __init__(self):
            super().__init__()
            self.position = nn.Linear(WIDTH, 2)

        def forward(self, x):
            q, k, v = self.heads(x)
            shared = self.position(x)[:, None].expand(-1, HEADS, -1, -1)
            q, k = (torch.cat([x, shared], -1) for x in (q, k))
            return self.o(self.attend(q, k, v).transpose(1, 2).flatten(2))

    found = by_name(Shared())
    shared = "q, k of 4 heads from some or shared rows, read by probing; kept whole"
    assert said(found["position.weight"]) == shared


def test_calls_that_read_a_weight_in_ways_that_do_not_agree_keep_it_whole():
    class Again(SelfAttention):
        def attend(self, q, k, v):
            halves = (x.transpose(1, 2).flatten(2).unflatten(-1, (2, 16)).mT for x in (q, k, v))
            wide = super().attend(*(x.permute(0, 3, 1, 2) for x in halves))
            return super().attend(q, k, v) + wide.sum()

    assert "several ways" in said(by_name(Again())["q.weight"])


def test_a_sum_with_a_table_or_another_map_gives_no_false_heads():
    class SummedAttention(SelfAttention):
        def attend(self, q, k, v):
            return F.scaled_dot_product_attention(q + k, k + torch.rand(3, SIZE), v)

    found = by_name(SummedAttention())
    assert not found["q.weight"].slices and not found["k.weight"].slices
    assert said(found["q.weight"]) == "rows of q, k were not read in SummedAttention, kept whole"


# weights of three dimensions ------------------------------------------------------------------


class Einsum(nn.Module):
    """As XLNet's attention: the maps have a dimension for the heads."""

    SHAPES = ((WIDTH, HEADS, SIZE), (WIDTH, HEADS, SIZE))
    INTO, OUT = "bth,hnd->btnd", "btnd,hnd->bth"

    def __init__(self):
        super().__init__()
        into, out = self.SHAPES
        self.q, self.k, self.v = (nn.Parameter(torch.randn(into)) for _ in range(3))
        self.o = nn.Parameter(torch.randn(out))

    def forward(self, x):
        q, k, v = (torch.einsum(self.INTO, x, w) for w in (self.q, self.k, self.v))
        weights = torch.einsum("bind,bjnd->bnij", q, k).softmax(-1)
        return torch.einsum(self.OUT, torch.einsum("bnij,bjnd->bind", weights, v), self.o)


class HeadsFirst(Einsum):
    SHAPES = ((HEADS, WIDTH, SIZE), (HEADS, SIZE, WIDTH))
    INTO, OUT = "bth,nhd->btnd", "btnd,ndh->bth"


class EachStoredOutIn(Einsum):
    SHAPES = ((HEADS, SIZE, WIDTH), (HEADS, WIDTH, SIZE))
    INTO, OUT = "bth,ndh->btnd", "btnd,nhd->bth"


def inside_a_layer(kind: type[nn.Module]) -> dict:
    found = by_name(DecoderLayer(kind()))
    return {n.rpartition(".")[2]: p for n, p in found.items() if n.startswith("attention.")}


def test_maps_with_a_dimension_for_the_heads_are_one_matrix_each_with_its_heads():
    found = inside_a_layer(Einsum)
    assert {n: (p.role, p.layout) for n, p in found.items()} == {
        **dict.fromkeys("qkv", ("hidden", "kernel_transposed")),
        "o": ("hidden", "kernel"),
    }
    assert found["q"].reason.startswith("q of Einsum: stored (in, *out), read by probing; q of 4")
    assert [rows(found[part], part) for part in "qkv"] == [EVERY] * 3
    (view,) = build_views([found["q"]], {"name": "per_head"})
    heads = gather(view, [found["q"].tensor])
    assert all(torch.equal(heads[h], found["q"].tensor[:, h].T) for h in range(HEADS))
    (view,) = build_views([found["o"]], {"name": "per_head", "output": "per_head"})
    heads = gather(view, [found["o"].tensor])
    assert all(torch.equal(heads[h], found["o"].tensor[:, h]) for h in range(HEADS))


def test_an_einsum_that_names_the_weight_first_is_read_alike():
    class WeightFirst(Einsum):
        INTO = "hnd,bth->btnd"

        def forward(self, x):
            q, k, v = (torch.einsum(self.INTO, w, x) for w in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(*(p.transpose(1, 2) for p in (q, k, v)))
            return torch.einsum("hnd, bntd -> bth", self.o, y)

    told = {n: (p.layout, said(p)) for n, p in inside_a_layer(Einsum).items()}
    assert {n: (p.layout, said(p)) for n, p in inside_a_layer(WeightFirst).items()} == told


@pytest.mark.parametrize(
    ("kind", "into", "out"),
    [(HeadsFirst, "batch_transposed", "table"), (EachStoredOutIn, "batch", "batch")],
)
def test_maps_whose_heads_come_first_are_read_by_the_products_that_read_them(kind, into, out):
    found = inside_a_layer(kind)
    assert {p.role for p in found.values()} == {"hidden"}
    assert {n: p.layout for n, p in found.items()} == dict.fromkeys("qkv", into) | {"o": out}
    (view,) = build_views([found["q"]], None)
    (first, *_) = gather(view, [found["q"].tensor])
    w = found["q"].tensor[0]
    assert torch.equal(first, w.T if into == "batch_transposed" else w)


# reasons --------------------------------------------------------------------------------------


class LinearAttention(SelfAttention):
    """No softmax between q and k, and a gate."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(WIDTH, HEADS)

    def attend(self, q, k, v):
        return q @ (k.mT @ v)

    def forward(self, x):
        gate = self.gate(x).exp()[..., None]
        y = self.attend(*self.heads(x)).transpose(1, 2)
        return self.o((y * gate).flatten(2))


class LinearAttentionDecoderLayer(DecoderLayer):
    pass


def test_of_every_map_of_an_attention_without_a_softmax_it_is_said_that_none_was_seen():
    found = by_name(DecoderLayer(LinearAttention()))
    reason = "no softmax(q kᵀ) v could be read in LinearAttention, kept whole"
    told = {n: said(p) for n, p in found.items() if n.endswith("weight")}
    assert told == {
        **{f"attention.{n}.weight": reason for n in ("q", "k", "v", "o", "gate")},
        "mlp.weight": "",
    }


def test_a_layer_named_after_its_attention_is_no_attention():
    found = by_name(LinearAttentionDecoderLayer(nn.Linear(WIDTH, WIDTH)))
    assert not any(said(p) for p in found.values())


def test_of_an_attention_that_was_seen_its_other_maps_have_no_reason():
    class Gated(SelfAttention):
        def __init__(self):
            super().__init__()
            self.bias_mlp = nn.Linear(2, HEADS)

        def attend(self, q, k, v):
            bias = 16 * torch.sigmoid(self.bias_mlp(torch.rand(3, 3, 2)).permute(2, 0, 1))
            return (q @ k.mT + bias).softmax(-1) @ v

    found = by_name(Gated())
    assert not said(found["bias_mlp.weight"])
    assert rows(found["q.weight"], "q") == EVERY


class WithCrossAttention(nn.Module):
    """The cross-attention of a decoder that is called without an encoder."""

    def __init__(self):
        super().__init__()
        self.own, self.cross = SelfAttention(), SelfAttention()

    def forward(self, x, memory=None):
        dtype = self.cross.q.weight.dtype  # a look is no use
        x = self.own(x.to(dtype))
        return x if memory is None else self.cross(memory)


def test_an_attention_that_the_forward_pass_never_called_is_said_to_be_unused():
    found = by_name(WithCrossAttention())
    told = {said(p) for n, p in found.items() if n.startswith("cross") and n.endswith("weight")}
    assert told == {"the probed forward pass never used it, kept whole"}
    assert rows(found["own.q.weight"], "q") == EVERY


def test_of_a_forward_pass_that_ended_early_nothing_is_said_to_be_unused():
    class Ends(WithCrossAttention):
        def forward(self, x):
            self.own(x)
            raise RuntimeError("no memory")

    with pytest.warns(UserWarning, match="no memory"):
        found = by_name(Ends())
    reason = "no softmax(q kᵀ) v could be read in SelfAttention, kept whole"
    assert said(found["cross.q.weight"]) == reason
    assert said(found["own.q.weight"]) == "q of 4 heads, read by probing"
