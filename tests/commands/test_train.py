"""`python bench/train.py` as a person uses it: sweeps, kills, Ctrl-C, a second time."""

import json
import signal

import pytest

from bench.settings import schema
from tests.helpers.commands import TINY, command, records, start, wait_for_step
from tests.helpers.runs import same_result

OFFLINE = [*TINY, "tracker=none"]


@pytest.mark.more
def test_a_sweep_trains_every_cell_once_and_a_cell_as_it_would_alone(tmp_path):
    """AdamW has no use for qkv: of four jobs three are trained and one is skipped."""
    sweep = ["-m", "optimizer=adamw,hybrid", "qkv=fused,per_head"]
    done = command(*sweep, *OFFLINE, f"results_dir={tmp_path}/sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 finished, 1 skipped" in done.stdout
    swept = records(tmp_path / "sweep")
    assert len(swept) == 3

    again = command(*sweep, *OFFLINE, f"results_dir={tmp_path}/sweep")
    assert again.returncode == 0 and "4 skipped" in again.stdout

    alone = command("optimizer=hybrid", "qkv=per_head", *OFFLINE, f"results_dir={tmp_path}/alone")
    assert alone.returncode == 0 and "finished" in alone.stdout + alone.stderr
    (cell, single), *_ = records(tmp_path / "alone").items()
    assert same_result(single, swept[cell])


@pytest.mark.more
def test_one_failing_cell_does_not_stop_the_others(tmp_path):
    done = command(
        "-m", "qkv=head_groups", "qkv.heads_per_group=3,2", *OFFLINE, f"results_dir={tmp_path}"
    )
    assert done.returncode == 1
    assert "1 failed, 1 finished" in done.stdout
    assert "heads_per_group=3" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.more
@pytest.mark.parametrize(
    "sign",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.more),
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_a_run_that_was_killed_ends_like_one_that_was_not(tmp_path, sign):
    arguments = [*OFFLINE, "train.steps=300", "train.checkpoint_every=5", "train.eval_every=50"]
    whole = start(*arguments, f"results_dir={tmp_path}/whole")
    killed = start(*arguments, f"results_dir={tmp_path}/killed")
    wait_for_step(tmp_path / "killed", 27, killed)
    killed.send_signal(sign)
    said = killed.communicate()[0]
    assert killed.returncode == (-9 if sign == signal.SIGKILL else 130), said
    assert list(tmp_path.glob("killed/runs/*/checkpoint/step-*"))
    resumed = command(*arguments, f"results_dir={tmp_path}/killed")
    assert resumed.returncode == 0 and "resuming from step" in resumed.stderr
    assert whole.wait() == 0
    (first,), (second,) = (records(tmp_path / n).values() for n in ("whole", "killed"))
    assert same_result(first, second)
    assert not list(tmp_path.glob("*/runs/*/checkpoint"))


def test_mistakes_are_lines_not_tracebacks(tmp_path):
    own = command("train.steps=0", f"results_dir={tmp_path}")
    assert own.returncode == 1 and own.stderr.strip() == "error: train.steps=0: must be at least 1"
    hydras = command("optimizer=moun")
    assert hydras.returncode == 1 and "torch_muon" in hydras.stderr
    assert "Traceback" not in hydras.stderr
    (tmp_path / "file").write_text("")
    swept = command("-m", "seed=0,1", f"results_dir={tmp_path}/file")
    assert swept.returncode == 1 and "is a file" in swept.stderr and "Traceback" not in swept.stderr


def test_inspect_prints_the_routing_and_leaves_nothing(tmp_path):
    done = command("inspect=true", "model=vit_nano", "qkv=fused", f"results_dir={tmp_path}")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) <= 16, lines
    assert lines[0].startswith("vit_nano with optimizer=hybrid: ")
    assert "Q, K, V with qkv=fused: 6 of 576×192, of 6 attentions" in done.stdout
    assert "could not be read: nothing" in lines and "q_proj" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_inspect_shows_what_a_pattern_made_of_a_parameter(tmp_path):
    rule = "structure={*.c_fc.weight: vector, *.attn.c_proj.weight: {layout: matrix}}"
    done = command("inspect=full", *OFFLINE, rule, f"results_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "pattern *.c_fc.weight" in done.stdout
    assert "pattern *.attn.c_proj.weight" in done.stdout
    wrong = command("inspect=true", *OFFLINE, "structure={*.c_fc.wait: vector}")
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    assert wrong.stderr.splitlines()[-1].startswith("error: structure={*.c_fc.wait: vector}: ")


def test_help_names_the_groups_and_settings():
    done = command("--help")
    for word in ("optimizer", "torch_muon", "gpt2_nano", "target_loss", "inspect=true"):
        assert word in done.stdout
    assert "  train.clip_norm=1.0          " in done.stdout  # with the comment of its file
    assert "of the raw gradients; null: no clipping" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for group in (*schema.GROUPS, "experiment"):
        assert f"\n  {group}: " in done.stdout
    assert "\n  claim: " not in done.stdout


@pytest.mark.more
def test_wandb_runs_offline_one_a_cell(tmp_path):
    done = command("-m", "seed=0,1", *TINY, f"results_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
    assert "wandb:" not in done.stdout + done.stderr


@pytest.mark.more
def test_trouble_with_wandb_is_a_warning(tmp_path):
    (tmp_path / "wandb").write_text("a file where W&B wants a folder")
    done = command(*TINY, f"results_dir={tmp_path}")
    assert done.returncode == 0
    assert len(records(tmp_path)) == 1 and "W&B" in done.stderr


@pytest.mark.long
def test_the_matrix_of_optimizers_models_and_qkv(tmp_path):
    done = command(
        "-m",
        "optimizer=adam,adamw,muon,hybrid,torch_muon",
        "qkv=fused,split,per_head,head_groups",
        "model=gpt2_nano,vit_nano",
        "train.steps=12",
        "train.batch_size=8",
        "schedule.warmup_steps=2",
        "tracker=none",
        f"results_dir={tmp_path}",
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = records(tmp_path)
    assert len(found) == 2 * (3 + 2 * 4)
    for cell, one in found.items():
        state = one["optimizer_state_bytes"]
        assert state["total"] == state["predicted"], cell
        assert json.dumps(one, allow_nan=False)
