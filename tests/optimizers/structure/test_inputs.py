"""The smallest input of a model, and the model inside its wrappers."""

import pytest
import torch
import transformers
from torch import nn

from optimizers.routing import route
from optimizers.structure import describe
from optimizers.structure.inputs import smallest_input, unwrapped
from tests.helpers.zoo import settings, tiny_gpt2, tiny_llama

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
TOWER |= {"num_attention_heads": 4}


class Wrapper(nn.Module):
    """As DistributedDataParallel: one child, and everything goes through it."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@pytest.mark.parametrize("wrap", [nn.DataParallel, Wrapper, torch.compile])
def test_a_wrapped_model_is_read_like_the_bare_one_under_its_own_names(wrap):
    model = tiny_gpt2()
    bare = route(model, settings("hybrid", qkv="per_head")).table
    wrapped = wrap(wrap(model)) if wrap is Wrapper else wrap(model)
    assert unwrapped(wrapped) is model
    table = route(wrapped, settings("hybrid", qkv="per_head")).table
    assert [row["name"] for row in table] == [n for n, _ in wrapped.named_parameters()]
    keys = ("role", "matrices", "optimizer")
    assert [[row[k] for k in keys] for row in table] == [[row[k] for k in keys] for row in bare]


def test_a_model_whose_only_child_is_called_module_but_that_has_weights_is_no_wrapper():
    model = Wrapper(nn.Linear(2, 2))
    model.gain = nn.Parameter(torch.ones(2))
    assert unwrapped(model) is model


def test_several_tokens_are_given_and_no_cache_is_asked_for():
    given = {}
    model = tiny_llama()
    forward = model.forward

    def watched(input_ids, use_cache=None):
        given.update(shape=tuple(input_ids.shape), use_cache=use_cache)
        return forward(input_ids=input_ids, use_cache=use_cache)

    model.forward = watched
    smallest_input(model)()
    assert given == {"shape": (1, 2), "use_cache": False}


def test_a_cache_that_fails_without_a_past_ends_no_probe():
    """As of hybrid models (Qwen3-Next, Jamba)."""

    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = tiny_llama()

        def forward(self, input_ids, use_cache=True):
            if use_cache:
                raise ValueError("no state of the recurrent layers yet")
            return self.model(input_ids, use_cache=use_cache)

    assert any(p.attention for p in describe(Cached()))


def test_the_configuration_asks_for_no_cache_while_the_model_is_probed():
    model, asked = tiny_llama(), []
    forward = model.forward

    def watched(input_ids, **kwargs):
        asked.append(model.config.use_cache)
        return forward(input_ids=input_ids, **kwargs)

    model.forward = watched
    smallest_input(model)()
    assert asked == [False] and model.config.use_cache is True


def test_an_image_size_that_only_a_towers_configuration_says_is_used():
    config = transformers.SiglipConfig(
        vision_config=TOWER | {"image_size": 16, "patch_size": 4}, text_config=TOWER
    )
    model = transformers.SiglipForImageClassification(config)
    found = {p.name: p for p in describe(model)}
    assert len(found["vision_model.encoder.layers.0.self_attn.q_proj.weight"].slices) == 4


def test_a_model_without_get_input_embeddings_is_read():
    tower = TOWER | {"image_size": 16, "patch_size": 4}
    config = transformers.CLIPConfig(
        vision_config=tower, text_config=TOWER | {"vocab_size": 40, "eos_token_id": 1}
    )
    model = transformers.CLIPForImageClassification(config)
    with pytest.raises(NotImplementedError):
        model.get_input_embeddings()
    found = describe(model)
    assert [p.name for p in found if p.role == "head"] == ["classifier.weight"]
    assert any(p.attention for p in found)
