"""Experts, adapters, kernels, bare weights: what each is, and as which matrices it is trained."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from optimizers.muon import Muon
from optimizers.routing import route
from optimizers.structure import NO_STRUCTURE, describe
from optimizers.structure.qkv import build_views
from optimizers.views import gather, scatter
from tests.helpers.zoo import settings, tiny_llama

WIDTH, INNER, EXPERTS = 16, 24, 4
SIZES = {
    "vocab_size": 40,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "num_experts_per_tok": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def mixtral():
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=EXPERTS))


def qwen3_moe():
    sizes = {"num_experts": EXPERTS, "moe_intermediate_size": INNER}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **sizes))


def gpt_oss():
    return GptOssForCausalLM(GptOssConfig(**SIZES, num_local_experts=EXPERTS))


MIXTURES = {"mixtral": mixtral, "qwen3_moe": qwen3_moe, "gpt_oss": gpt_oss}


def by_name(model, **options):
    return {p.name: p for p in describe(model, **options)}


def ending(found, suffix):
    (p,) = (p for name, p in found.items() if name.endswith(suffix))
    return p


# mixtures of experts --------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["grouped_mm", "eager", "batched_mm"])
@pytest.mark.parametrize("name", MIXTURES)
def test_experts_are_a_batch_of_matrices_read_from_the_model(name, implementation):
    model = MIXTURES[name]()
    model.set_experts_implementation(implementation)
    found = by_name(model)
    layout = "batch_transposed" if name == "gpt_oss" else "batch"
    for suffix in (".experts.gate_up_proj", ".experts.down_proj"):
        p = ending(found, suffix)
        assert (p.role, p.layout) == ("hidden", layout)
        source = "is_transposed" if implementation == "batched_mm" else "read by probing"
        assert "4 matrices" in p.reason and source in p.reason
        assert ("gate and up in one" in p.reason) == ("gate_up" in suffix)
    assert not any(p.reason == NO_STRUCTURE for p in found.values())


@pytest.mark.parametrize("name", MIXTURES)
def test_each_expert_is_trained_as_its_own_matrix_oriented_by_fan_out(name):
    rows = {row["name"]: row for row in route(MIXTURES[name](), settings("muon")).table}
    for suffix, matrix in (
        (".experts.gate_up_proj", [2 * INNER, WIDTH]),
        (".experts.down_proj", [WIDTH, INNER]),
    ):
        assert ending(rows, suffix)["matrices"] == [[EXPERTS, *matrix]]


@pytest.mark.parametrize("name", MIXTURES)
def test_routers_are_hidden_and_experts_biases_a_vector_each(name):
    model = MIXTURES[name]()
    found = by_name(model)
    router = next(p for n, p in found.items() if n.endswith(("gate.weight", "router.weight")))
    assert (router.role, router.layout) == ("hidden", "matrix")
    assert "Router" in router.reason and "by probing" in router.reason
    if name == "gpt_oss":
        rows = {row["name"]: row for row in route(model, settings("muon")).table}
        for suffix, length in (("gate_up_proj_bias", 2 * INNER), ("down_proj_bias", WIDTH)):
            p = ending(found, suffix)
            assert (p.role, p.layout) == ("vector", "vectors")
            assert rows[p.name]["matrices"] == [[EXPERTS, length, 1]]


@pytest.mark.parametrize("layout", ["batch", "batch_transposed"])
def test_a_batch_of_experts_trains_like_experts_stored_apart(layout):
    """The same gradients, one tensor of experts against one tensor an expert."""
    torch.manual_seed(0)
    start = torch.randn(3, 6, 4)
    stored = nn.Parameter((start.mT if layout == "batch_transposed" else start).contiguous())
    apart = [nn.Parameter(part.clone()) for part in start]
    model = nn.Module()
    model.experts = stored
    (p,) = describe(model, patterns={"experts": {"role": "hidden", "layout": layout}})
    together = Muon([{"params": [stored], "views": build_views([p], None)}], lr=0.1)
    separate = Muon(apart, lr=0.1)
    for _ in range(5):
        grads = torch.randn(3, 6, 4)
        stored.grad = (grads.mT if layout == "batch_transposed" else grads).contiguous()
        for part, grad in zip(apart, grads, strict=True):
            part.grad = grad
        together.step()
        separate.step()
    result = stored.mT if layout == "batch_transposed" else stored
    assert torch.allclose(result, torch.stack(tuple(apart)), atol=1e-6)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_learns_under_every_optimizer_of_ours(name):
    torch.manual_seed(0)
    ids = torch.randint(40, (2, 8))
    for optimizer in ("hybrid", "muon"):
        model = MIXTURES[name]()
        routing = route(model, settings(optimizer))
        losses = []
        for _ in range(8):
            routing.zero_grad()
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            routing.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.1


def test_torchs_muon_which_takes_no_batch_says_for_which_role_it_was_asked():
    with pytest.raises(ValueError, match=r"roles \(hidden\): torch.optim.Muon: .*2D"):
        route(mixtral(), settings("torch_muon"))


# low-rank adapters ----------------------------------------------------------------------------


class Adapted(nn.Module):
    """A frozen Linear with a low-rank map beside it, named as PEFT names it."""

    def __init__(self, base, rank):
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        sizes = base.in_features, base.out_features
        self.lora_A = nn.ModuleDict({"default": nn.Linear(sizes[0], rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, sizes[1], bias=False)})

    def forward(self, x):
        return self.base_layer(x) + 2.0 * self.lora_B["default"](self.lora_A["default"](x))


class AdaptedEmbedding(nn.Module):
    def __init__(self, base, rank):
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        entries, width = base.weight.shape
        self.lora_embedding_A = nn.ParameterDict({"default": torch.randn(rank, entries)})
        self.lora_embedding_B = nn.ParameterDict({"default": torch.randn(width, rank)})

    def forward(self, ids):
        down = F.embedding(ids, self.lora_embedding_A["default"].T)
        return self.base_layer(ids) + down @ self.lora_embedding_B["default"].T


def adapted_llama(rank=3):
    model = tiny_llama().requires_grad_(False)
    attention = model.model.layers[0].self_attn
    for name in ("q_proj", "v_proj"):
        setattr(attention, name, Adapted(getattr(attention, name), rank))
    model.model.embed_tokens = AdaptedEmbedding(model.model.embed_tokens, rank)
    return model


def test_adapters_are_hidden_matrices_whose_reason_names_the_rank():
    found = by_name(adapted_llama())
    assert len(found) == 6 and all("lora_" in name for name in found)
    for p in found.values():
        assert (p.role, p.layout) == ("hidden", "matrix")
        assert "low-rank adapter (rank 3)" in p.reason
        assert p.attention is None and not p.slices  # on q and v, but not cut by their heads


def test_only_what_is_trained_is_routed_and_an_adapter_is_one_matrix():
    routing = route(adapted_llama(), settings("hybrid", qkv="split"))
    matrices = {row["name"].split("self_attn.")[-1]: row["matrices"] for row in routing.table}
    assert matrices["q_proj.lora_A.default.weight"] == [[1, 3, 32]]
    assert matrices["q_proj.lora_B.default.weight"] == [[1, 32, 3]]
    assert matrices["v_proj.lora_B.default.weight"] == [[1, 16, 3]]


# convolutions ---------------------------------------------------------------------------------


def conv(kind, *sizes, **options):
    found = by_name(nn.Sequential(kind(*sizes, **options), nn.Linear(2, 2)))
    return found["0.weight"]


@pytest.mark.parametrize(
    ("p", "layout", "groups", "matrices"),
    [
        (conv(nn.Conv2d, 4, 8, 3), "kernel", 1, [[1, 8, 36]]),
        (conv(nn.Conv1d, 4, 8, 3, groups=2), "kernel", 2, [[2, 4, 6]]),
        (conv(nn.Conv2d, 8, 8, 7, groups=8), "kernel", 8, [[8, 1, 49]]),  # depthwise
        (conv(nn.ConvTranspose2d, 4, 8, 2), "kernel_transposed", 1, [[1, 32, 4]]),
        (conv(nn.ConvTranspose3d, 4, 8, 2, groups=2), "kernel_transposed", 2, [[2, 32, 2]]),
    ],
)
def test_kernels_have_the_fan_out_and_fan_in_of_their_group(p, layout, groups, matrices):
    assert (p.role, p.layout, p.groups) == ("conv", layout, groups)
    assert (f"each of its {groups} groups" in p.reason) == (groups > 1)
    (view,) = build_views([p], None)
    blocks = gather(view, [p.tensor])
    ((count, rows, columns),) = matrices
    assert len(blocks) == count and all(block.shape == (rows, columns) for block in blocks)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.ConvTranspose2d(8, 4, 2),
        nn.Flatten(),
        nn.Linear(4 * 5 * 5, 5),
    )


def test_channels_last_storage_is_trained_in_place_and_to_the_same_weights():
    """msign is equivariant under permutations of columns, so the memory's order is as good."""
    x, y = torch.randn(6, 3, 8, 8), torch.randint(5, (6,))
    ends = []
    for memory in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = convolutional().to(memory_format=memory)
        routing = route(model, settings("muon", orthogonalizer__dtype="fp32"))
        before = [(p.data_ptr(), p.stride()) for p in model.parameters()]
        for _ in range(3):
            routing.zero_grad()
            F.cross_entropy(model(x.contiguous(memory_format=memory)), y).backward()
            routing.step()
        assert before == [(p.data_ptr(), p.stride()) for p in model.parameters()]
        ends.append([p.detach().clone() for p in model.parameters()])
        reason = {row["name"]: row["reason"] for row in routing.table}["0.weight"]
        assert ("channels_last memory" in reason) == (memory is torch.channels_last)
    for a, b in zip(*ends, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_muon_alone_reads_channels_last_too():
    p = nn.Parameter(torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    q = nn.Parameter(p.detach().contiguous())
    for parameter in (p, q):
        parameter.grad = torch.full_like(parameter, 0.5) * q.detach()
        Muon([parameter], lr=0.1).step()
    assert torch.allclose(p, q, atol=1e-5)


def test_storage_that_takes_a_copy_steps_as_its_contiguous_twin():
    p = nn.Parameter(torch.randn(8, 6, 3, 3)[:, ::2])
    q = nn.Parameter(p.detach().contiguous())
    gradients = torch.randn(2, *q.shape)
    for parameter in (p, q):
        torch.manual_seed(0)
        model = convolutional()
        model[0].weight = parameter
        routing = route(model, settings("muon"))
        for gradient in gradients:
            parameter.grad = gradient
            routing.step()
    assert torch.allclose(p, q, atol=1e-6)


# bare parameters ------------------------------------------------------------------------------


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.out_in, self.in_out = (nn.Parameter(torch.randn(4, 4)) for _ in range(2))
        self.left = nn.Parameter(torch.randn(5, 4))
        self.stacked = nn.Parameter(torch.randn(6, 4))  # three maps, of which one is used
        self.both, self.unused = (nn.Parameter(torch.randn(4, 4)) for _ in range(2))
        self.experts = nn.Parameter(torch.randn(3, 4, 4))
        self.scale, self.row = nn.Parameter(torch.ones(4, 1, 1)), nn.Parameter(torch.ones(1, 4))
        self.lstm = nn.LSTM(4, 4)

    def forward(self, input_ids):
        x = input_ids.float()[:, :1].expand(-1, 4)
        x = F.linear(x, self.out_in) @ self.in_out
        self.left @ x.T, F.linear(x, self.stacked[2:4])
        x = (x @ self.both) @ self.both.T
        return torch.bmm(x.expand(3, *x.shape), self.experts) * self.scale[0] * self.row


def test_bare_weights_are_read_by_how_products_use_them():
    found = by_name(Bare())
    layouts = {"out_in": "matrix", "in_out": "transposed", "left": "matrix"}
    layouts |= {"experts": "batch_transposed"}
    for name, layout in layouts.items():
        assert (found[name].layout, found[name].role) == (layout, "hidden")
        assert "read by probing" in found[name].reason
    for name in ("both", "unused", "stacked"):
        assert found[name].reason == NO_STRUCTURE, name
        assert found[name].role == "vector", "without a structure: AdamW without decay"
    for name in ("scale", "row"):
        assert (found[name].role, found[name].layout) == ("vector", "vector")
    assert "gates stacked" in found["lstm.weight_hh_l0"].reason


class Grouped(nn.Linear):
    """A block diagonal as a linear map of less inputs (DeepSeek V4's, behind its attention)."""

    def forward(self, x):
        return torch.bmm(x.unflatten(-1, (2, -1))[0].transpose(0, 1), self.weight.view(2, 3, 4).mT)


@pytest.mark.parametrize("inputs", [torch.zeros(1, 5, 8), None])
def test_a_linear_map_in_groups_is_a_map_each_and_no_output_projection_of_heads(inputs):
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out, self.head = nn.Linear(8, 24), Grouped(4, 6), nn.Linear(3, 2)

        def forward(self, x):
            q, k, v = self.qkv(x).view(1, 5, 3, 4, 2).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v)
            return self.head(self.out(y.transpose(1, 2).flatten(2)))

    model = Layer()
    p = by_name(model, forward=None if inputs is None else lambda: model(inputs))["out.weight"]
    assert (p.groups, p.output_heads) == ((2 if inputs is not None else 1), None)
    assert gather(build_views([p], None)[0], [p.tensor])[0].shape == (6 // p.groups, 4)


class Stacked(nn.Module):
    """Three experts in one matrix each (DBRX); of them two are used."""

    def __init__(self):
        super().__init__()
        self.up, self.down = (nn.Parameter(torch.randn(3 * 6, 4)) for _ in range(2))
        self.halves, self.sum = nn.Parameter(torch.randn(8, 4)), nn.Linear(4, 4)

    def forward(self, x):
        for i in (0, 2):
            up, down = (w.view(3, 6, 4)[i] for w in (self.up, self.down))
            y = F.linear(x, up) @ down
        F.linear(x, self.halves[:3]), F.linear(x, self.halves[3:])
        return F.linear(x[:, :2], self.sum.weight[:, :2]) + y


def test_experts_in_one_matrix_are_cut_into_theirs():
    model = Stacked()
    found = by_name(model, forward=lambda: model(torch.zeros(1, 4)))
    for name, layout, sides in (
        ("up", "matrix", "(out, in)"),
        ("down", "transposed", "(in, out)"),
    ):
        p = found[name]
        assert (p.role, p.layout, p.groups) == ("hidden", layout, 3)
        assert f"3 maps in one, each stored {sides}" in p.reason
        (view,) = build_views([p], None)
        blocks = gather(view, [p.tensor.detach()])
        each = p.tensor.detach().view(3, 6, 4)
        assert all(
            torch.equal(block, part if name == "up" else part.T)
            for block, part in zip(blocks, each, strict=True)
        )
    p = found["halves"]
    assert p.groups == 1 and p.reason.endswith("read by probing in 2 parts, kept whole")
    assert found["sum.weight"].groups == 1


def test_grouped_maps_that_one_product_reads_are_a_matrix_each():
    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.end = nn.Parameter(torch.randn(3 * 5, 4)), nn.Linear(5, 2)

        def forward(self, x):
            return self.end(torch.bmm(x.expand(3, -1, -1), self.weight.view(3, 5, 4).mT))

    model = Grouped()
    p = by_name(model, forward=lambda: model(torch.zeros(1, 4)))["weight"]
    assert (p.role, p.layout, p.groups) == ("hidden", "matrix", 3)


@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6), (1, 4, 4, 2)])
def test_what_no_product_reads_is_no_matrix_and_does_not_decay(shape):
    """As Mamba's A_log: AdamW without decay, and the table says why."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.A_log = nn.Parameter(torch.randn(shape))
    (row,) = (r for r in route(model, settings("hybrid")).table if r["name"] == "A_log")
    assert (row["optimizer"], row["weight_decay"]) == ("AdamW", 0.0)
    assert (row["matrices"], row["reason"]) == (None, NO_STRUCTURE)


def test_biases_of_experts_are_vectors_whatever_their_dimensions():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.inner_bias = nn.Parameter(torch.zeros(3, 2, 5))
    p = by_name(model)["inner_bias"]
    assert (p.role, p.reason) == ("vector", "inner_bias of Sequential: 6 vectors, by its name")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "position") for name in ("pos_embed", "rel_pos_h", "reg_tokens", "register")),
        *((name, "position") for name in ("absolute_pos_embed", "position_ids_table")),
        *((name, "vector") for name in ("decomposition", "composed", "deposit", "compose")),
    ],
)
def test_whole_words_make_a_position(name, role):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    setattr(model, name, nn.Parameter(torch.randn(1, 4, 4, 8)))
    p = by_name(model)[name]
    assert (p.role, p.layout) == (role, "table" if role == "position" else "vector")
    if role == "position":
        (view,) = build_views([p], None)
        (block,) = gather(view, [p.tensor.detach()])
        assert torch.equal(block, p.tensor.detach().view(16, 8).T)


def test_a_product_goes_before_a_name_that_holds_such_a_word():
    class Decomposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.decomposition, self.end = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.end(x @ self.decomposition)

    model = Decomposed()
    p = by_name(model, forward=lambda: model(torch.zeros(1, 4)))["decomposition"]
    assert (p.role, p.layout) == ("hidden", "transposed")


def test_a_model_of_a_thousand_modules_is_read_in_under_five_seconds():
    blocks = [m for _ in range(500) for m in (nn.Linear(16, 16), nn.LayerNorm(16))]
    model = nn.Sequential(nn.Embedding(9, 16), *blocks, nn.Linear(16, 9))
    start = time.process_time()
    describe(model, forward=lambda: model(torch.zeros(1, 2, dtype=torch.long)))
    assert time.process_time() - start < 5


def test_what_is_gathered_is_scattered_back_exactly():
    for model in (gpt_oss(), convolutional(), Bare(), Stacked()):
        for p in describe(model):
            copy = torch.full_like(p.tensor, -1.0).detach()
            for view in build_views([p], {"name": "split"}):
                scatter(view, gather(view, [p.tensor]), [copy])
            assert torch.equal(copy, p.tensor), p.name
