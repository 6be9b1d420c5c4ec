"""Attention in every form it is called in is read rightly, or not at all."""

import itertools

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from optimizers.routing import route
from optimizers.structure import describe
from tests.helpers.zoo import settings

WIDTH, HEADS, SIZE = 8, 2, 4


class LM(nn.Module):
    def __init__(self, *bodies):
        super().__init__()
        self.tokens, self.head = nn.Embedding(20, WIDTH), nn.Linear(WIDTH, 20)
        self.bodies = nn.ModuleList(bodies)

    def forward(self, input_ids):
        x = self.tokens(input_ids)
        for body in self.bodies:
            x = x + body(x)
        return self.head(x)


class Attention(nn.Module):
    """attend: from q, k, v (batch, heads, tokens, size) to the same."""

    def __init__(self, attend):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attend = attend

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, SIZE)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        return self.o(self.attend(q, k, v).transpose(1, 2).flatten(2))


def read(model):
    """By the last two names of each weight what attention has to do with it."""
    return {
        ".".join(p.name.split(".")[1:-1]): p.reason.partition("; ")[2]
        for p in describe(model)
        if p.name.endswith("weight") and "bodies" in p.name
    }


def parts(number="0"):
    found = {f"{number}.{part}": f"{part} of 2 heads, read by probing" for part in "qkv"}
    return found | {f"{number}.o": "output projection of 2 heads, read by probing"}


@pytest.mark.parametrize(
    "order", list(itertools.permutations(("query", "key", "value", "attn_mask")))
)
def test_keywords_in_any_order_are_bound_by_name(order):
    def attend(q, k, v):
        mask = torch.zeros(q.shape[-2], q.shape[-2])
        given = {"query": q, "key": k, "value": v, "attn_mask": mask}
        return F.scaled_dot_product_attention(**{name: given[name] for name in order})

    assert read(LM(Attention(attend))) == parts()


def softmax_of(scores):
    return F.softmax(scores, dim=-1)


HANDMADE = {
    "v scaled": lambda q, k, v: softmax_of(q @ k.mT) @ (v * 0.7),
    "q scaled by what is no power of the width": lambda q, k, v: softmax_of(0.37 * q @ k.mT) @ v,
    "k divided": lambda q, k, v: softmax_of(q @ (k / 1.7).mT) @ v,
    "scores masked in place": lambda q, k, v: (
        (q @ k.mT).masked_fill_(torch.ones(2, 2).tril() == 0, -1e9).softmax(-1) @ v
    ),
    "by einsum": lambda q, k, v: torch.einsum(
        "bhqk,bkhd->bhqd", softmax_of(torch.einsum("bhqd,bhkd->bhqk", q, k)), v.transpose(1, 2)
    ),
    "exponentials divided by their sum": lambda q, k, v: (
        ((e := (q @ k.mT).exp()) / e.sum(-1, keepdim=True)) @ v
    ),
    "the logarithm of the sum taken off": lambda q, k, v: (
        torch.exp((s := q @ k.mT) - s.logsumexp(-1, keepdim=True)) @ v
    ),
    "k normalised by hand": lambda q, k, v: (
        softmax_of(q @ (k * torch.rsqrt(k.pow(2).mean(-1, keepdim=True) + 1e-6)).mT) @ v
    ),
    "a sink beside the scores": lambda q, k, v: (
        torch.cat([q @ k.mT, torch.zeros(1, HEADS, q.shape[2], 1)], -1).softmax(-1)[..., :-1] @ v
    ),
}


@pytest.mark.parametrize("form", HANDMADE)
def test_attention_by_hand_in_two_layers_is_read_in_both(form):
    model = LM(Attention(HANDMADE[form]), Attention(HANDMADE[form]))
    assert read(model) == parts("0") | parts("1")


def test_a_v_that_cannot_be_read_makes_nothing_of_the_next_layers_k():
    """v goes through a matrix of no parameter: it is lost, the rest is as true as before."""
    mix = torch.randn(SIZE, SIZE)
    model = LM(*(Attention(lambda q, k, v: softmax_of(q @ k.mT) @ (v @ mix)) for _ in range(2)))
    lost = "rows of v were not read in Attention, kept whole"
    assert read(model) == parts("0") | parts("1") | {"0.v": lost, "1.v": lost}


class Windows(nn.Module):
    """q, k and v of five dimensions: windows beside the heads, on either side (Hiera)."""

    def __init__(self, order):
        super().__init__()
        self.qkv, self.o, self.order = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), order

    def forward(self, x):
        batch, tokens, _ = x.shape
        windows = self.qkv(x.repeat(1, 2, 1)).view(batch, 2, tokens, 3, HEADS, SIZE)
        q, k, v = windows.permute(3, 0, *self.order, 2, 5)
        y = F.scaled_dot_product_attention(q, k, v)
        y = y if self.order == (1, 4) else y.transpose(1, 2)
        return self.o(y.transpose(2, 3).flatten(3)[:, 0])


@pytest.mark.parametrize("order", [(4, 1), (1, 4)])
def test_windows_beside_heads_are_no_heads(order):
    assert read(LM(Windows(order))) == {
        "0.qkv": "q, k, v of 2 heads, read by probing",
        "0.o": "output projection of 2 heads, read by probing",
    }


def test_heads_packed_among_the_tokens_are_not_counted():
    """One k for all heads of q, which lie where its tokens do (as some attention kernels want)."""

    class Packed(Attention):
        def forward(self, x):
            q = self.q(x).view(1, -1, SIZE).unsqueeze(1)
            k, v = (layer(x)[..., :SIZE].unsqueeze(1) for layer in (self.k, self.v))
            y = F.scaled_dot_product_attention(q, k, v)
            return self.o(y.view(1, -1, WIDTH))

    found = read(LM(Packed(None)))
    assert "heads" not in found["0.q"] and found["0.o"] == ""


def test_grouped_queries_of_doge_have_all_their_heads():
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = transformers.DogeForCausalLM(transformers.DogeConfig(**sizes, **heads))
    block = settings("hybrid", qkv="split", qkv__output="per_head")
    (row,) = (r for r in route(model, block).table if r["name"].endswith("o_proj.weight"))
    assert row["matrices"] == [[4, 32, 8]]


def test_k_and_v_that_a_later_layer_uses_again_keep_their_heads():
    """As in Gemma 3n: the second layer has a q of its own, and the first one's k and v."""

    class Shared(LM):
        def __init__(self):
            super().__init__(Attention(None), Attention(None))
            del self.bodies[1].k, self.bodies[1].v

        def forward(self, input_ids):
            x, given = self.tokens(input_ids), {}
            for body in self.bodies:
                split = {n: m(x) for n, m in body.named_children() if n != "o"}
                given |= {n: y.unflatten(-1, (HEADS, SIZE)).mT for n, y in split.items()}
                q, k, v = (given[n].mT.transpose(1, 2) for n in "qkv")
                x = body.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            return self.head(x)

    model = Shared()
    first = parts("0") | {n: t for n, t in parts("1").items() if n in ("1.q", "1.o")}
    assert read(model) == first
    places = {p.name: p.attention for p in describe(model) if p.attention and "weight" in p.name}
    assert places == {f"bodies.0.{n}.weight": "bodies.0" for n in "qkv"} | {
        "bodies.1.q.weight": "bodies.1"
    }


def test_many_heads_in_half_precision_are_told_apart():
    """Their numbers are more than bf16 can tell apart."""
    model = LM(*(Attention(F.scaled_dot_product_attention) for _ in range(150))).bfloat16()
    assert read(model)["149.o"] == "output projection of 2 heads, read by probing"


class Gated(nn.Module):
    """q and a gate in one matrix, by head (Qwen3-Next) or one after the other."""

    def __init__(self, by_head):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, n * WIDTH) for n in (2, 1, 1, 1))
        self.by_head = by_head

    def forward(self, x):
        y = self.q(x)
        if self.by_head:
            q, gate = y.unflatten(-1, (HEADS, 2 * SIZE)).chunk(2, -1)
        else:
            q, gate = (part.unflatten(-1, (HEADS, SIZE)) for part in y.chunk(2, -1))
        k, v = (layer(x).unflatten(-1, (HEADS, SIZE)) for layer in (self.k, self.v))
        y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)))
        return self.o(y.transpose(1, 2).flatten(2) * torch.sigmoid(gate.flatten(2)))


@pytest.mark.parametrize("by_head", [True, False])
def test_gated_queries_are_cut_into_q_and_gate_and_the_heads_of_each(by_head):
    model = LM(Gated(by_head))
    p = {p.name: p for p in describe(model)}["bodies.0.q.weight"]
    assert p.reason.endswith("q, gate of 2 heads, read by probing")
    order = [("q", 0), ("gate", 0), ("q", 1), ("gate", 1)]
    order = order if by_head else [("q", 0), ("q", 1), ("gate", 0), ("gate", 1)]
    by_row = sorted(p.slices, key=lambda s: s.start)
    assert [(s.part, s.head, s.start) for s in by_row] == [
        (*name, i * SIZE) for i, name in enumerate(order)
    ]
    for qkv, matrices in (("split", [[2, 8, 8]]), ("per_head", [[4, 4, 8]])):
        rows = {r["name"]: r for r in route(model, settings("hybrid", qkv=qkv)).table}
        assert rows["bodies.0.q.weight"]["matrices"] == matrices
    assert read(model)["0.o"] == "output projection of 2 heads, read by probing"
