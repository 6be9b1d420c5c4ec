"""Small models, and the optimizers of conf/optimizer/ on them."""

import torch
from omegaconf import OmegaConf
from transformers import LlamaConfig, LlamaForCausalLM

from bench.training import randomness
from models import gpt2, vit
from optimizers.routing import route
from tests.helpers.commands import ROOT

CONF = ROOT / "conf"
ALL = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))
QKV = sorted(path.stem for path in (CONF / "qkv").glob("*.yaml"))
KEYS = ["name", "shape", "role", "optimizer", "lr", "weight_decay", "matrices", "joined_with"]
KEYS = {*KEYS, "reason"}  # DESIGN section 5, routing.json
WIDTH, HEADS, VOCABULARY, POSITIONS = 32, 4, 40, 8
SIZE = WIDTH // HEADS


def settings(name, qkv="split", orthogonalizer="keller", **changes):
    """The resolved optimizer block; `changes` are dotted settings, with __ for the dot."""
    groups = {"optimizer": name, "qkv": qkv, "orthogonalizer": orthogonalizer}
    loaded = {
        group: OmegaConf.load(CONF / group / f"{file}.yaml") for group, file in groups.items()
    }
    loaded["optimizer"].pop("defaults", None)  # they choose a schedule
    whole = OmegaConf.create(loaded)
    for key, value in changes.items():
        OmegaConf.update(whole, key.replace("__", "."), value)
    return OmegaConf.to_container(whole.optimizer, resolve=True)


def package(name):
    """The package of a peer's optimizer, as it is imported; None for the project's and torch's."""
    rules = settings(name)["roles"].values()
    found = {rule["_target_"].partition(".")[0] for rule in rules} - {"torch", "optimizers"}
    return next(iter(found), None)


PEERS = [name for name in ALL if package(name)]  # test_peers.py
OPTIMIZERS = [name for name in ALL if name not in (*PEERS, "hybrid_sparse")]  # test_sparse.py


def tiny_gpt2():
    randomness.seed(0)
    sizes = {"vocab_size": VOCABULARY, "positions": POSITIONS}
    return gpt2.build(**sizes, layers=2, heads=HEADS, width=WIDTH)


def tiny_vit():
    randomness.seed(0)
    sizes = {"image_size": 8, "channels": 1, "classes": 5, "patch_size": 4}
    return vit.build(**sizes, layers=2, heads=HEADS, width=WIDTH)


def tiny_llama():
    """Grouped-query attention: four heads of q, two of k and of v."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


MODELS = {"gpt2": tiny_gpt2, "vit": tiny_vit}


def batch(model):
    """The same few examples each time: something to learn by heart."""
    generator = torch.Generator().manual_seed(1)
    if "gpt2" in type(model).__name__.lower():
        ids = torch.randint(VOCABULARY, (4, POSITIONS), generator=generator)
        return {"input_ids": ids, "labels": ids}
    pixels = torch.randn(8, 1, 8, 8, generator=generator)
    return {"pixel_values": pixels, "labels": torch.arange(8) % 5}


def train(model, routing, steps):
    """Losses of `steps` steps on one batch."""
    data, losses = batch(model), []
    for _ in range(steps):
        routing.zero_grad()
        loss = model(**data).loss
        loss.backward()
        routing.step()
        losses.append(loss.item())
    return losses


def rows(name, build, **options):
    model = build()
    return {row["name"]: row for row in route(model, settings(name, **options)).table}


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def distance(model, start, other):
    """How far two models ended apart, as a part of the way, over the hidden matrices."""
    apart, way = 0.0, 0.0
    names = [name for name, _ in model.named_parameters()]
    for name, a, b, w in zip(names, weights(model), weights(other), start, strict=True):
        if name.endswith("weight") and any(k in name for k in ("attn", "attention", "mlp")):
            apart += (a - b).square().sum()
            way += (a - w).square().sum()
    return (apart / way).sqrt().item()
