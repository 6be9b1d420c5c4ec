"""Names and derived figures: what trackers get of lines and records, and what the docs say."""

import json
import math
import re

import pytest

from bench.records import record
from bench.settings.schema import choices_of
from bench.tracking import figures
from bench.tracking.figures import Figures
from tests.helpers.commands import ROOT

ABOUT = {
    "tokens_per_step": 100,
    "config": {"train": {"clip_norm": 2.0}},
    "model_flops": {"per_step": 4e9},
    "bytes_per_token": {"validation": 2.0, "test": 4.0},
}
STEP = {
    **{"step": 3, "seconds": 1.5, "train_loss": 5.0, "lr": {"hidden": 0.02}, "grad_norm": 3.0},
    **{"forward_backward_ms": 15.0, "optimizer_ms": 5.0},
}
EVALUATION = {
    **{"step": 3, "seconds": 1.5, "val_loss": 2 * math.log(2), "update_rms": {"hidden": 0.02}},
    **{"weight_rms": {"hidden": 0.5}, "grad_norms": {"hidden": 2.5}, "memory_bytes": 2**29},
    "attention_max_logit": [1.5, None, 2.5],
}
DOCUMENT = (ROOT / "docs" / "trackers.md").read_text()


def test_a_step_in_figures():
    assert Figures(ABOUT).of(STEP) == {
        **{"step": 3, "seconds": 1.5, "tokens": 300, "train/loss": 5.0, "lr/hidden": 0.02},
        **{"grad/norm": 3.0, "grad/clipped_share": 1.0},
        **{"perf/forward_backward_ms": 15.0, "perf/optimizer_ms": 5.0, "perf/step_ms": 20.0},
        **{"optim/share": 0.25, "perf/tokens_per_s": 5000.0, "perf/tflops": 0.2},
    }


def test_an_evaluation_in_figures():
    assert Figures(ABOUT).of(EVALUATION) == {
        **{"step": 3, "seconds": 1.5, "tokens": 300, "val/loss": 2 * math.log(2)},
        **{"val/perplexity": pytest.approx(4), "val/bits_per_byte": pytest.approx(1)},
        **{"update/rms/hidden": 0.02, "weight/rms/hidden": 0.5},
        **{"update/weight_ratio/hidden": 0.04, "grad/norm/hidden": 2.5, "memory/peak_gib": 0.5},
        **{"attention/max_logit/0": 1.5, "attention/max_logit/2": 2.5},
    }


def test_the_share_of_clipped_steps_is_of_all_so_far():
    shown = Figures(ABOUT)
    norms = (1.0, 3.0, 2.0, None)
    shares = [shown.of(STEP | {"grad_norm": norm})["grad/clipped_share"] for norm in norms]
    assert shares == [0, 1 / 2, 1 / 3, 1 / 4]
    line = STEP | {"grad_norm": 9.0, "clipped_norm": 1.0}  # only a part was clipped, and is small
    assert shown.of(line)["grad/clipped_share"] == 1 / 5
    never = Figures(ABOUT | {"config": {"train": {"clip_norm": None}}})
    assert "grad/clipped_share" not in never.of(STEP)


@pytest.mark.parametrize("loss", [None, math.nan, math.inf, 1e6])
def test_a_loss_that_is_none_or_too_large_breaks_nothing(loss):
    found = Figures(ABOUT).of(EVALUATION | {"val_loss": loss})
    assert ("val/perplexity" in found) == (loss is not None)


def test_images_have_no_perplexity_and_older_lines_what_they_have():
    about = {"images_per_step": 8, "config": {}}
    found = Figures(about).of({"step": 2, "val_loss": 1.0, "val_accuracy": 0.5, "update_rms": {}})
    assert found == {"step": 2, "images": 16, "val/loss": 1.0, "val/accuracy": 0.5}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "gpt2_nano/hybrid lr×4 s0"),
        ({"qkv": "per_head", "seed": 2}, "gpt2_nano/hybrid per_head lr×4 s2"),
        ({"qkv": None, "optimizer": "adamw", "lr_scale": 0.25}, "gpt2_nano/adamw lr×0.25 s0"),
    ],
)
def test_a_runs_name_is_for_the_eye(changes, name):
    one = {"model": "gpt2_nano", "optimizer": "hybrid", "qkv": "split", "lr_scale": 4.0, "seed": 0}
    assert figures.title(one | changes) == name


def test_the_group_is_the_experiment_or_else_the_sweep():
    assert figures.group({"experiment": "qkv", "sweep": "2026"}) == "qkv"
    assert figures.group({"experiment": None, "sweep": "2026"}) == "2026"
    assert figures.group({"experiment": None}) is None


def named(names) -> set[str]:
    """With role and layer left open, as the document has it."""
    names = {
        re.sub(r"^(lr|grad/norm|.*/(?:rms|weight_ratio))/\w+$", r"\1/<role>", n) for n in names
    }
    return {re.sub(r"^(attention/max_logit)/\d+$", r"\1/<layer>", name) for name in names}


def documented() -> list[set[str]]:
    """The names that docs/trackers.md explains, and those that it says earlier ones have now."""
    now, _, earlier = DOCUMENT.partition("### Earlier names")
    explained = re.findall(r"^- (`[^:]+`): ", now, flags=re.M)
    renamed = re.findall(r"^- .* → (.*)$", earlier, flags=re.M)
    return [set(re.findall(r"`([^`]+)`", " ".join(some))) for some in (explained, renamed)]


def test_the_document_has_every_name_that_runs_log_and_no_other(train, tmp_path):
    logged = set()
    for model in ("gpt2_nano", "vit_nano"):
        _, one, _ = train(f"model={model}", "train.batch_size=4", "train.average_last=0.5")
        one |= {"test_accuracy": 0.5, "val_accuracy": 0.5, "target_step": 3, "target_seconds": 1.0}
        one["diverged_step"], one["model_flops"]["utilization"] = 4, 0.5
        file = tmp_path / "runs" / one["cell"] / "metrics.jsonl"
        shown = Figures(one)
        logged |= figures.summary(one).keys()
        logged |= {name for line in record.lines(file) for name in shown.of(line)}
    now, after_before = documented()
    assert named(logged) == now
    assert after_before - {"run/"} <= now


def test_a_line_of_metrics_keeps_its_keys_and_memory_its_bound(train, tmp_path):
    _, one, _ = train()
    lines = (tmp_path / "runs" / one["cell"] / "metrics.jsonl").read_text().splitlines()
    found = [line for line in map(json.loads, lines) if "val_loss" in line]
    assert [set(line["weight_rms"]) for line in found] == [set(found[0]["update_rms"])] * 2
    for line in found:
        assert all(norm > 0 for norm in line["grad_norms"].values())
        assert line["memory_bytes"] is None or line["memory_bytes"] <= one["peak_memory_bytes"]


def test_every_tracker_has_a_label():
    from bench.tracking.tracker import LABELS

    assert {"none", *LABELS} == set(choices_of("tracker"))
