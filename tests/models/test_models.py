"""The builders: sizes, losses and messages; and the settings files that choose a model."""

import inspect
import json
import re
import subprocess
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_method
from omegaconf import OmegaConf
from transformers import AutoConfig

import bench.settings.schema  # noqa: F401  (registers what conf/train.yaml starts from)
from bench.training import loss
from models import fitting, gpt2, hub, vit
from tests.helpers.commands import ROOT

CONF = ROOT / "conf"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem != "own")
NANO = {"vocab_size": 300, "layers": 2, "heads": 4, "width": 32, "positions": 16}
IMAGES = {"image_size": 28, "channels": 1, "classes": 10, "patch_size": 7}
NANO_VIT = IMAGES | {"layers": 2, "heads": 4, "width": 32}
FROM_DATA = {"vocab_size", *IMAGES}


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*overrides])


def built(name, **from_data):
    """The model of a settings file, without memory for its weights."""
    block = composed(f"model={name}").model
    arguments = {k: v for k, v in block.items() if k not in ("name", "task", "tokenizer")}
    with torch.device("meta"):
        return get_method(arguments.pop("_target_"))(**arguments, **from_data)


def text(vocab_size=300, batch=2, length=16):
    ids = torch.randint(vocab_size, (batch, length))
    return {"input_ids": ids, "labels": ids}


def pictures(classes=10):
    return {"pixel_values": torch.randn(3, 1, 28, 28), "labels": torch.tensor([0, 1, classes - 1])}


# the builders ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("gpt2_medium", 354_823_168),
        ("gpt2_large", 774_030_080),
        ("gpt2_sparse", 124_439_808 + 50_257 * 768),  # the head of its own
    ],
)
def test_gpt2_has_the_published_sizes(name, parameters):
    model = built(name, vocab_size=50257)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_smallest_gpt2_is_below_a_million_parameters():
    assert sum(p.numel() for p in built("gpt2_pico", vocab_size=1024).parameters()) == 957_184


def test_the_smallest_vit_cuts_an_image_into_sixteen():
    model = built("vit_pico", **IMAGES)
    assert composed("model=vit_pico").data.patch_size == IMAGES["patch_size"]
    assert sum(p.numel() for p in model.parameters()) == 205_066


@pytest.mark.parametrize(("given", "scale"), [({}, 0.02), ({"initial_scale": 0.1}, 0.1)])
def test_new_weights_have_the_scale_that_was_asked_for(given, scale):
    torch.manual_seed(0)
    model = gpt2.build(**NANO | {"width": 128}, **given)
    block = model.transformer.h[0]
    for weight in (model.transformer.wte.weight, block.attn.c_attn.weight, block.mlp.c_fc.weight):
        assert weight.std().item() == pytest.approx(scale, rel=0.02)
    assert block.mlp.c_proj.weight.std().item() == pytest.approx(scale / 2, rel=0.02)  # 2 layers
    of_images = vit.build(**NANO_VIT | {"width": 128}, **given).vit.layers[0]
    assert of_images.mlp.fc1.weight.std().item() == pytest.approx(scale, rel=0.02)


def test_vit_is_vit_s():
    config = built("vit", **IMAGES).config
    assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_size) == (
        12,
        6,
        384,
    )
    assert config.intermediate_size == 4 * 384


@pytest.mark.parametrize(
    ("build", "batch", "classes"),
    [
        (lambda: gpt2.build(**NANO), text(), 300),
        (lambda: vit.build(**NANO_VIT), pictures(), 10),
    ],
)
def test_a_new_model_knows_nothing_repeats_itself_and_learns(build, batch, classes):
    torch.manual_seed(0)
    model = build().train()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    loss = model(**batch).loss
    assert loss.item() == pytest.approx(torch.tensor(float(classes)).log().item(), abs=1.0)
    assert model(**batch).loss.item() == pytest.approx(loss.item(), abs=1e-6)  # no dropout
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("build", [lambda: gpt2.build(**NANO), lambda: vit.build(**NANO_VIT)])
def test_weights_follow_the_seed(build):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.detach().reshape(-1) for p in build().parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_the_fused_gelu_is_gpt2s():
    model = gpt2.build(**NANO)
    x = torch.linspace(-6, 6, 1001)
    published = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    assert torch.allclose(model.transformer.h[0].mlp.act(x), published, atol=1e-5)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.more
def test_nothing_is_printed():
    """In a process of its own: transformers gives each warning once."""
    code = (
        "import torch; from models import gpt2, vit\n"
        f"m = gpt2.build(**{NANO}); x = torch.zeros(1, 8, dtype=torch.long)\n"
        "m(input_ids=x, labels=x).loss.backward()\n"
        f"vit.build(**{NANO_VIT})(pixel_values=torch.zeros(1, 1, 28, 28), labels=x[0, :1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(
    ("build", "change", "message"),
    [
        (gpt2.build, {"heads": 5}, "model.heads=5: model.width=32 is not divisible by it"),
        (gpt2.build, {"layers": 0}, "model.layers=0 is not a whole number of at least 1"),
        (gpt2.build, {"width": -8}, "model.width=-8 is not a whole number of at least 1"),
        (gpt2.build, {"positions": 1.5}, "model.positions=1.5 is not a whole number of at least 1"),
        (vit.build, {"heads": 3}, "model.heads=3: model.width=32 is not divisible by it"),
        (vit.build, {"patch_size": 5}, "data.patch_size=5: data.image_size=28 is not divisible"),
        (gpt2.build, {"sparse_embedding": True}, "model.sparse_embedding=true: needs model.tied"),
        (gpt2.build, {"initial_scale": 0}, "model.initial_scale=0 is not a number above 0"),
        (vit.build, {"initial_scale": -1}, "model.initial_scale=-1 is not a number above 0"),
        (gpt2.build, {"initial_scale": "a"}, "model.initial_scale=a is not a number above 0"),
        (vit.build, {"classes": 0}, "data.classes=0 is not a whole number of at least 1"),
    ],
)
def test_bad_sizes_are_named_as_typed(build, change, message):
    sizes = NANO if build is gpt2.build else NANO_VIT
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**(sizes | change))


# hub ------------------------------------------------------------------------------------------

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def config_file(folder, model_type, **changes):
    content = AutoConfig.for_model(model_type).to_dict() | SMALL | changes
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {"num_key_value_heads": 2, "head_dim": 8, "dtype": "bfloat16"}),
        ("gpt_neox", {"hidden_dropout": 0.1, "attention_dropout": 0.1}),
        ("bert", {"hidden_dropout_prob": 0.3}),  # not causal by itself
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.2, "pad_token_id": 1}),
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_hub_builds_a_causal_model_of_a_folder_or_file(tmp_path, model_type, changes, as_file):
    folder = config_file(tmp_path, model_type, **changes)
    model = hub.build(source=str(folder / "config.json" if as_file else folder), vocab_size=99)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.get_input_embeddings().weight.shape[0] == 99
    assert model.get_input_embeddings().padding_idx is None
    model.train()
    ids = text(vocab_size=99)["input_ids"]
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 99
    one, other = model(input_ids=ids).logits, model(input_ids=changed).logits
    assert torch.allclose(one[:, :-1], other[:, :-1], atol=1e-5)  # causal, and no dropout
    assert not torch.allclose(one[:, -1], other[:, -1], atol=1e-5)
    loss.of(model, {"input_ids": ids, "labels": ids})[0].backward()


def test_hub_keeps_token_ids_inside_the_vocabulary(tmp_path):
    ids = {"bos_token_id": 128000, "eos_token_id": [128001, 128009], "pad_token_id": 128004}
    folder = config_file(tmp_path, "llama", vocab_size=128256, **ids)
    config = hub.build(source=str(folder), vocab_size=99).config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (98, 98, None)
    assert config.use_cache is False


@pytest.mark.parametrize("model_type", ["vit", "deit"])
def test_hub_fits_an_image_model_to_the_data(tmp_path, model_type):
    folder = config_file(tmp_path, model_type, hidden_dropout_prob=0.5)
    model = hub.build(source=str(folder), **IMAGES).train()
    batch = pictures()
    output = model(**batch)
    assert output.logits.shape == (3, 10)
    assert torch.equal(model(**batch).logits, output.logits)
    assert model.config.hidden_dropout_prob == 0.0
    loss.of(model, batch)[0].backward()


# What of a config.json says how a model was stored, run or scored; each in the way of building it.
BESIDE = {
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "attn_implementation": "flash_attention_2",
    "_attn_implementation": "flash_attention_2",
    "problem_type": "multi_label_classification",
    "torch_dtype": "bfloat16",
    "return_dict": False,
    "output_attentions": True,
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_hub_reads_the_architecture_alone(tmp_path, mark):
    file = config_file(tmp_path, "llama", num_key_value_heads=4, head_dim=8) / "config.json"
    torch.manual_seed(0)
    plain = hub.build(source=str(file), vocab_size=99)
    content = json.loads(file.read_text()) | BESIDE
    file.write_bytes(mark + json.dumps(content).encode())
    torch.manual_seed(0)
    model = hub.build(source=str(file), vocab_size=99)
    assert model.state_dict().keys() == plain.state_dict().keys()
    ids = text(99)["input_ids"]
    assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert model.config._attn_implementation == plain.config._attn_implementation


def test_hub_reads_the_architecture_alone_in_nested_configurations_too(tmp_path):
    """As of models of text and images, of which the text part is trained."""
    assert hub._architecture({"text_config": {"layers": 2, **BESIDE}, "parts": [BESIDE]}) == {
        "text_config": {"layers": 2},
        "parts": [{}],
    }


@pytest.mark.parametrize(
    ("model_type", "side", "asked", "has"),
    [
        ("convnext", 28, 4, {"patch_size": 2}),  # halves what its patches leave three times more
        ("segformer", 28, 4, {"strides": [2, 2, 2, 2]}),
        ("efficientnet", 28, 4, {"strides": [1, 1, 2, 2, 1, 2, 1]}),
        ("swin", 224, 14, {"patch_size": 4, "window_size": 7}),  # its own
        ("swin", 28, 4, {"patch_size": 1, "window_size": 3}),
        ("vit", 28, 14, {"patch_size": 14}),
        ("pvt", 28, 4, {"strides": (4, 2, 2, 2)}),  # does not pass: as asked for
    ],
)
def test_what_shrinks_an_image_too_much_gives_way(model_type, side, asked, has):
    sizes = {"image_size": side, "num_channels": 1, "num_labels": 10, "patch_size": asked}
    config = AutoConfig.for_model(model_type)
    config = fitting.fitted(hub.AutoModelForImageClassification, config, sizes)
    assert {name: getattr(config, name) for name in has} == has
    assert (config.num_channels, config.num_labels) == (1, 10)


def test_a_model_that_was_fitted_trains_and_says_what_it_has(tmp_path):
    few = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}
    content = AutoConfig.for_model("swin").to_dict() | few
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = hub.build(source=str(tmp_path), **IMAGES)
    assert model.fitted == {"patch_size": 1, "window_size": 3}
    loss.of(model, pictures())[0].backward()
    assert all(p.grad is not None for p in model.parameters())
    model = hub.build(source=str(tmp_path), **IMAGES | {"image_size": 224, "patch_size": 4})
    assert model.fitted == {}


def test_sizes_that_are_lists_stay_lists():
    """Hiera's sides, as rows and columns."""
    config = fitting.sized(AutoConfig.for_model("hiera"), {"image_size": 224, "num_labels": 5})
    assert (config.image_size, config.num_labels) == ([224, 224], 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "vit", "vocab_size": 99}, "no vit model for causal language modelling"),
        ({"source": "llama", **IMAGES}, "no llama model for image classification"),
        ({"source": "./no/such/folder", "vocab_size": 99}, "Accepted: a folder or a config.json"),
        ({"source": "vit", **IMAGES, "patch_size": 5}, "data.patch_size=5: data.image_size=28"),
    ],
)
def test_hub_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        hub.build(**arguments)
    assert len(str(caught.value).splitlines()) <= 2


def test_hub_without_a_network_gives_up_at_once(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(ValueError, match=r"model\.source=nobody/nothing: not found \(Name or"):
        hub.build(source="nobody/nothing", vocab_size=99)


def test_hub_runs_no_code_of_others(tmp_path):
    (tmp_path / "modeling.py").write_text("raise SystemExit('ran')")
    auto_map = {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"}
    foreign = {"model_type": "my_own", "auto_map": auto_map}
    (tmp_path / "config.json").write_text(json.dumps(foreign))
    with pytest.raises(ValueError, match="its code is not part of transformers"):
        hub.build(source=str(tmp_path), vocab_size=99)
    config_file(tmp_path, "llama", auto_map=auto_map)
    assert type(hub.build(source=str(tmp_path), vocab_size=99)).__module__.startswith(
        "transformers"
    )


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "unheard_of"}'])
def test_hub_refuses_what_is_no_configuration(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"^model\.source="):
        hub.build(source=str(tmp_path), vocab_size=99)


# conf/model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_models_file_names_its_builder_and_every_argument(name):
    block = composed(f"model={name}").model
    assert block.name == name
    assert block.tokenizer in ("gpt2", "sotu1024", "sotu4096", None)
    builder = inspect.signature(get_method(block._target_))
    arguments = set(block) - {"name", "task", "tokenizer", "_target_"}
    needed = {p.name for p in builder.parameters.values() if p.default is p.empty}
    assert arguments | FROM_DATA >= needed
    assert arguments <= set(builder.parameters)


@pytest.mark.parametrize(
    ("overrides", "data", "task"),
    [
        ([], "sotu", "text"),
        (["model=gpt2"], "sotu", "text"),
        (["model=vit"], "fashion_mnist", "images"),
        (["data=cifar10", "model=vit"], "cifar10", "images"),
        (["model=hub", "model.source=llama"], "sotu", "text"),
        (["model=hub", "model.source=vit", "data=cifar10"], "cifar10", "images"),
    ],
)
def test_a_model_picks_its_data_unless_told_otherwise(overrides, data, task):
    config = composed(*overrides)
    assert (config.data.name, config.model.task) == (data, task)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_brings_its_recipe_and_the_command_line_wins(name):
    recipe = OmegaConf.load(CONF / "model" / f"{name}.yaml").train
    train = composed(f"model={name}").train
    assert {key: train[key] for key in recipe} == recipe
    assert composed(f"model={name}", "train.steps=5").train.steps == 5


def test_a_model_that_cannot_fit_is_refused_before_it_is_built():
    with pytest.raises(ValueError, match="billion parameters need"):
        hub.build(source="gpt_neox", vocab_size=4096)  # 20 billion by its own defaults
