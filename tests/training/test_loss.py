"""The loss is the suite's own: what the model is given, what is scored, and against what."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

from bench.data.random_batches import RandomBatches
from bench.training import loss
from models import gpt2, hub, vit

TEXT = {"vocab_size": 300}
IMAGES = {"image_size": 28, "channels": 1, "classes": 10, "patch_size": 7}
SIZES = {"layers": 2, "heads": 4, "width": 32}


def batch(facts):
    return RandomBatches("text" if facts is TEXT else "images", 33, facts).batch(5, 0)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    ("build", "facts"), [(gpt2.build, TEXT | {"positions": 64}), (vit.build, IMAGES)]
)
def test_it_is_transformers_own_to_the_last_bit_where_that_is_right(build, facts, bf16):
    model = build(**facts, **SIZES)
    data = batch(TEXT if "positions" in facts else IMAGES)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        theirs = model(**data).loss
        ours, logits = loss.of(model, data)
    assert ours.dtype == torch.float32 and torch.equal(ours, theirs)
    assert len(logits) == 5
    parameters = list(model.parameters())
    pairs = zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_position_is_scored_on_the_token_after_it_and_the_last_on_none():
    labels = torch.tensor([[3, 1, 4], [1, 5, 2]])
    logits = torch.zeros(2, 3, 6)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        logits[row, column, labels[row, column + 1]] = 100.0
    logits[:, 2] = torch.randn(2, 6)
    assert loss.cross_entropy(logits, labels).item() == 0.0
    copying = 100.0 * torch.nn.functional.one_hot(labels, 6)
    assert loss.cross_entropy(copying, labels).item() > 50


def test_the_model_is_given_no_labels_and_its_own_loss_is_not_asked_for():
    def forward(**inputs):
        assert set(inputs) == {"input_ids"}
        return SimpleNamespace(logits=torch.zeros(5, 33, 300), loss=torch.tensor(-7.0))

    assert loss.of(forward, batch(TEXT))[0].item() == pytest.approx(math.log(300))


def test_of_large_logits_there_is_no_copy_and_only_the_gradient_is_as_large():
    logits = torch.randn(4, 600, 1000).bfloat16().requires_grad_()
    labels = torch.randint(1000, (4, 600))
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        loss.cross_entropy(logits, labels).backward()
    events = profile.profiler.kineto_results.events()
    large = [e for e in events if e.name() == "[memory]" and e.nbytes() > logits.nbytes // 2]
    assert len(large) == 1


@pytest.fixture(params=[1, 2])
def threads(request):
    old = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(old)


@pytest.mark.parametrize("spoilt", [None, math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
def test_in_parts_it_is_torchs_to_the_last_bit(dtype, ignored, spoilt, threads, monkeypatch):
    """A third of it, as of three batches accumulated; over parts of 7 rows, the last of fewer."""
    monkeypatch.setattr(loss, "PART", 7 * 50 // torch.get_num_threads())
    logits, labels = 3 * torch.randn(60, 50), torch.randint(50, (60,))
    if spoilt is not None:
        logits[13, 5] = spoilt
    labels[{"none": slice(0), "some": slice(3, 40, 4), "all": slice(None)}[ignored]] = loss.IGNORED
    found = []
    for of in (loss.cross_entropy, lambda x, y: torch.nn.functional.cross_entropy(x.float(), y)):
        x = logits.to(dtype).requires_grad_()
        value = of(x, labels)
        (value / 3).backward()
        found.append((value.detach(), x.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_a_label_that_is_no_class_is_refused_in_parts_too(monkeypatch):
    monkeypatch.setattr(loss, "PART", 10)
    for label in (50, -1):
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            loss.cross_entropy(torch.zeros(4, 50), torch.full((4,), label))


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        # its own loss does not shift the labels
        ("bart", {"d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 4}),
        # its own loss has the routers' balance in it
        ("mixtral", {"num_local_experts": 4, "output_router_logits": True, "head_dim": 8}),
    ],
)
def test_models_whose_own_loss_is_another_are_scored_alike(tmp_path, model_type, changes):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "num_key_value_heads": 2, "decoder_ffn_dim": 64}
    own = AutoConfig.for_model(model_type).to_dict()
    content = own | {key: size for key, size in sizes.items() if key in own} | changes
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = hub.build(source=str(tmp_path), **TEXT)
    data = batch(TEXT)
    ours, logits = loss.of(model, data)
    assert abs(ours.item() - math.log(300)) < 0.5
    after = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, 300), data["labels"][:, 1:].reshape(-1)
    )
    assert ours.item() == pytest.approx(after.item(), rel=1e-6)
