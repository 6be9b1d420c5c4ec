"""Adapters of low rank: as PEFT's, nothing at first, and nothing else is trained."""

import pytest
import torch

from models import lora
from tests.helpers.zoo import tiny_gpt2, tiny_llama

IDS = torch.arange(12).reshape(2, 6)


def outputs(model) -> torch.Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_llama])
def test_new_adapters_change_nothing_and_the_rest_is_frozen(build):
    model = build()
    before, names = outputs(model), {name for name, _ in model.named_parameters()}
    lora.add(model, 4)
    assert torch.equal(outputs(model), before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained.isdisjoint(names) and names <= {n for n, _ in model.named_parameters()}
    assert {name.split(".")[-2] for name in trained} == {"lora_A", "lora_B"}
    assert not any("lm_head" in name for name in trained)


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_llama])
def test_they_are_pefts_with_its_usual_scale(build):
    peft = pytest.importorskip("peft")
    ours, theirs = build(), build()
    lora.add(ours, 4)
    maps = [n.removesuffix(".lora_A") for n, _ in ours.named_modules() if n.endswith(".lora_A")]
    asked = peft.LoraConfig(
        r=4, lora_alpha=4, target_modules=maps, fan_in_fan_out=build is tiny_gpt2
    )
    theirs = peft.get_peft_model(theirs, asked)
    generator = torch.Generator().manual_seed(3)
    own = dict(ours.named_parameters())
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "lora_" in name:
                mine = own[name.removeprefix("base_model.model.").replace(".default", "")]
                assert mine.shape == p.shape
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
                mine.copy_(p)
    assert not torch.equal(outputs(ours), outputs(build()))
    torch.testing.assert_close(outputs(ours), outputs(theirs))


def test_what_cannot_have_them_is_named():
    with pytest.raises(ValueError, match="lora_rank=0: must be at least 1"):
        lora.add(tiny_gpt2(), 0)
    with pytest.raises(ValueError, match="lora_rank=2: Embedding has no linear map"):
        lora.add(torch.nn.Embedding(3, 2), 2)
