"""The loop: what a run leaves, what resuming changes (nothing), and how runs end."""

import errno
import json
import math

import pytest
import torch

from bench.records import cell, files, record
from bench.records.record import Metrics
from bench.training import checkpoint, prepare, run, trainer
from bench.training.evaluation import Evaluation
from tests.helpers.commands import TINY, settle
from tests.helpers.runs import same_result, stop_at

RECORD_KEYS = """
schema cell status diverged_step error command experiment model optimizer qkv data seed steps
lr_scale precision parameters tokens_per_step val_loss best_val_loss test_loss target_step
target_seconds train_seconds throughput model_flops forward_backward_ms optimizer_ms optimizer_share
overhead optimizer_state_bytes peak_memory_bytes curve routing environment config mathematics
sweep bytes_per_token
""".split()  # noqa: SIM905 - easier to read and to compare with the contract


def test_a_run_leaves_every_file_and_key(train, tmp_path):
    outcome, record, _ = train()
    folder = tmp_path / "runs" / record["cell"]
    assert outcome["how"] == record["status"] == "finished"
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.yaml",
        "metrics.jsonl",
        "record.json",
        "routing.json",
    ]
    for key in RECORD_KEYS:
        assert key in record, key
    assert record["tokens_per_step"] == 64
    assert record["overhead"]["n"] == 2
    assert set(record["overhead"]) == {"value", "units_per_step", "n"}
    state = record["optimizer_state_bytes"]
    assert state["total"] == state["predicted"] == sum(state["by_role"].values())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "train_loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert set(steps[0]) == {
        *("step", "tokens", "seconds", "train_loss", "lr", "grad_norm"),
        *("forward_backward_ms", "optimizer_ms"),
    }
    evaluations = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in evaluations] == [3, 6]
    assert set(evaluations[0]) == {
        *("step", "seconds", "val_loss", "update_rms", "weight_rms", "grad_norms"),
        *("memory_bytes", "attention_max_logit"),
    }
    assert evaluations[-1]["val_loss"] == record["val_loss"]


def test_the_end_of_a_run_is_evaluated_on_more_and_trained_as_before(train):
    _, few, _ = train("data.final_eval_sequences=null")
    _, more, _ = train("data.final_eval_sequences=12")
    assert few["evaluated"] == {"validation": 4, "test": 4, "during": 4}
    assert more["evaluated"] == {"validation": 12, "test": 12, "during": 4}
    curves = [[line for line in one["curve"] if "val_loss" in line] for one in (few, more)]
    (before, end), (before_more, end_more) = curves
    assert before["val_loss"] == before_more["val_loss"]
    assert end["val_loss"] != end_more["val_loss"] == more["val_loss"]
    assert few["test_loss"] != more["test_loss"]
    assert end["update_rms"] == end_more["update_rms"]


@pytest.mark.more
@pytest.mark.parametrize("optimizer", ["hybrid", "muon"])
def test_an_overlapped_step_trains_as_the_sequential_one(train, optimizer):
    common = f"optimizer={optimizer}", "train.clip_norm=null", "train.accumulate=2"
    records = [train(*common, f"optimizer.overlap={how}")[1] for how in ("none", "backward")]
    assert records[0]["cell"] != records[1]["cell"]
    assert records[1]["test_loss"] == pytest.approx(records[0]["test_loss"], rel=1e-5)
    curves = [[line for line in r["curve"] if "update_rms" in line] for r in records]
    for plain, overlapped in zip(*curves, strict=True):
        assert overlapped["update_rms"] == pytest.approx(plain["update_rms"], rel=1e-3)


def test_images_have_accuracies(train):
    _, record, _ = train("model=vit_nano", "train.steps=20", "train.batch_size=16")
    assert "tokens_per_step" not in record and record["images_per_step"] == 16
    assert 0 <= record["test_accuracy"] <= 1 and 0 <= record["val_accuracy"] <= 1


def test_a_finished_cell_is_skipped_and_rerun_trains_it_again(train):
    _, first, _ = train()
    outcome, _, said = train()
    assert outcome["how"] == "skipped" and "skipped" in said[-1]
    outcome, again, _ = train("rerun=true")
    assert outcome["how"] == "finished" and same_result(first, again)


@pytest.mark.parametrize("kept", [False, True])
def test_what_a_kill_at_the_very_end_left_goes_with_the_next_command(train, tmp_path, kept):
    """The checkpoint of a run whose record is there; one that was to be kept stays."""
    _, first, _ = train(f"train.keep_checkpoint={kept}")
    checkpoint = tmp_path / "runs" / first["cell"] / "checkpoint"
    checkpoint.mkdir(exist_ok=True)
    outcome, _, _ = train()
    assert outcome["how"] == "skipped" and checkpoint.exists() == kept


@pytest.mark.parametrize(
    "optimizer",
    ["adamw", "hybrid", *(pytest.param(n, marks=pytest.mark.more) for n in ("muon", "torch_muon"))],
)
def test_a_run_that_failed_goes_on_to_the_same_end(train, tmp_path, monkeypatch, optimizer):
    override = f"optimizer={optimizer}"
    _, whole, _ = train(override, results=tmp_path / "whole")
    stop_at(monkeypatch, 5, RuntimeError("the machine is on fire"))
    outcome, failed, said = train(override)
    assert outcome["how"] == failed["status"] == "failed"
    assert "on fire" in failed["error"] and any("on fire" in line for line in said)
    outcome, resumed, said = train(override)
    assert outcome["how"] == "finished" and any("from step 4" in line for line in said)
    assert same_result(whole, resumed)


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(train, tmp_path, monkeypatch):
    _, whole, _ = train(results=tmp_path / "whole")
    stop_at(monkeypatch, 5, RuntimeError("gone"))
    train()
    newest = sorted(tmp_path.glob("runs/*/checkpoint/step-*"))[-1] / "tensors.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    _, resumed, said = train()
    assert any("damaged" in line for line in said) and any("from step 2" in line for line in said)
    assert same_result(whole, resumed)


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(train, tmp_path, monkeypatch):
    _, whole, _ = train(results=tmp_path / "whole")
    original = checkpoint.save

    def full(folder, step, *rest):
        if step == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        return original(folder, step, *rest)

    monkeypatch.setattr(checkpoint, "save", full)
    outcome, _, said = train()
    assert outcome["how"] == "failed" and any("disk full" in line for line in said)
    monkeypatch.setattr(checkpoint, "save", original)
    _, resumed, said = train()
    assert any("from step 2" in line for line in said) and same_result(whole, resumed)


def test_accumulation_equals_the_large_batch(train):
    _, large, _ = train("train.batch_size=4")
    _, small, _ = train("train.batch_size=2", "train.accumulate=2")
    assert large["tokens_per_step"] == small["tokens_per_step"]
    assert small["val_loss"] == pytest.approx(large["val_loss"], abs=1e-4)


def test_a_loss_that_is_not_finite_is_a_result(train):
    outcome, record, _ = train("optimizer.lr_scale=1e30", "train.clip_norm=null")
    assert outcome["how"] == record["status"] == "diverged"
    assert record["diverged_step"] >= 1 and record["test_loss"] is None
    json.dumps(record, allow_nan=False)
    assert train("optimizer.lr_scale=1e30", "train.clip_norm=null")[0]["how"] == "skipped"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_reported_with_its_name(value, train, monkeypatch):
    whole = trainer.Trainer.output

    def spoilt(self, forward, batch):
        weight = self.model.transformer.h[0].mlp.c_fc.weight
        if self.state["step"] == 2:
            weight.register_hook(lambda grad: torch.full_like(grad, value))
        return whole(self, forward, batch)

    monkeypatch.setattr(trainer.Trainer, "output", spoilt)
    outcome, record, said = train()
    assert outcome["how"] == "diverged" and record["diverged_step"] == 3
    assert any("not finite in transformer.h.0.mlp.c_fc.weight" in line for line in said)


def test_a_run_that_ends_above_its_start_has_diverged(train):
    outcome, record, said = train("optimizer=adamw", "optimizer.lr_scale=400", "schedule=constant")
    assert outcome["how"] == "diverged" and record["val_loss"] > record["start_loss"]
    assert any("at the end" in line for line in said)


def test_a_loss_that_stayed_where_it_was_is_no_divergence(train):
    """Two steps of a warm-up, or of a rate of zero: the loss moves by nothing, or by noise."""
    outcome, _, _ = train("train.steps=2", "optimizer.lr_scale=0")
    assert outcome["how"] == "finished"
    assert not run.rose(8.3187, 8.3212)  # by 0.03 %, as a run of two steps did


@pytest.mark.parametrize("end", [8.5, math.inf, math.nan])
def test_a_loss_well_above_its_start_is_a_divergence(end):
    assert run.rose(8.3187, end)


def test_time_limit_ends_a_run_and_target_loss_is_noted(train):
    _, record, _ = train(
        "train.steps=null", "train.time_limit=0.2", "train.target_loss=8.5", "schedule=cosine"
    )
    assert record["status"] == "finished" and record["train_seconds"] >= 0.2
    assert record["target_step"] is not None
    assert 0 <= record["target_seconds"] <= record["train_seconds"]


def test_no_clipping_still_reports_the_norm(train):
    _, clipped, _ = train("train.clip_norm=1e-3")
    _, free, _ = train("train.clip_norm=null")
    norms = [r["curve"][0]["grad_norm"] for r in (clipped, free)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5) and norms[0] > 1e-3


AUXILIARY = "train.clip_norm=0.01", "train.clip_part=auxiliary"


def test_clipping_a_part_leaves_muons_gradients_alone(train):
    """Muon's update does not see its gradients' size, so only the roles' norms tell."""
    _, whole, _ = train("train.clip_norm=0.01")
    _, part, _ = train(*AUXILIARY)
    assert whole["cell"] != part["cell"]
    first, again = (one["curve"][0] for one in (whole, part))
    assert first["grad_norm"] == again["grad_norm"] > again["clipped_norm"] > 0.01
    assert "clipped_norm" not in first
    line = next(line for line in part["curve"] if "grad_norms" in line)
    step = next(one for one in part["curve"] if one["step"] == line["step"])
    norms = dict(line["grad_norms"])
    assert math.hypot(*norms.values()) == pytest.approx(step["grad_norm"], rel=1e-4)
    norms.pop("hidden")
    assert math.hypot(*norms.values()) == pytest.approx(step["clipped_norm"], rel=1e-4)
    assert whole["test_loss"] != part["test_loss"]


def test_a_run_that_clips_a_part_resumes_to_the_same_bits(train, tmp_path, monkeypatch):
    _, whole, _ = train(*AUXILIARY, results=tmp_path / "whole")
    stop_at(monkeypatch, 5, RuntimeError("the machine is on fire"))
    train(*AUXILIARY)
    outcome, resumed, _ = train(*AUXILIARY)
    assert outcome["how"] == "finished" and same_result(whole, resumed)


@pytest.mark.more
def test_reading_attention_changes_nothing_of_a_run(train, monkeypatch):
    _, read, _ = train()
    monkeypatch.setattr(Evaluation, "attention", lambda self, memory: None)
    _, unread, _ = train("rerun=true")
    found = [
        [line.pop("attention_max_logit") for line in one["curve"] if "val_loss" in line]
        for one in (read, unread)
    ]
    assert [len(logits) for logits in found[0]] == [2, 2] and found[1] == [None, None]
    assert same_result(read, unread)


def test_momentum_is_saved_where_asked_for(train, tmp_path):
    from safetensors.torch import load_file

    _, record, _ = train("optimizer=muon", "train.save_momentum_every=3")
    files = sorted(tmp_path.glob("runs/*/momentum/*.safetensors"))
    assert [f.stem for f in files] == ["3", "6"]
    saved = load_file(files[-1])
    assert set(saved) == {row["name"] for row in record["routing"]}


def test_the_overhead_reference_does_not_touch_the_run(train):
    _, with_it, _ = train("train.reference_steps=3")
    _, without, _ = train("train.reference_steps=0", "rerun=true")
    assert without["overhead"] is None and same_result(with_it, without)


@pytest.mark.more
def test_the_reference_is_gone_before_peak_memory_counts(train):
    """Its scratch copies are three times the weights: far more than the runs differ by."""
    big = ["model.width=512", "rerun=true", "train.steps=6"]
    peaks = [
        train(f"train.reference_steps={n}", *big)[1]["peak_memory_bytes"] for n in (0, 4, 0, 20)
    ]
    assert max(peaks) < 1.5 * min(peaks)


def test_an_experiment_counts_a_cell_that_was_trained_before_it(train, tmp_path):
    train()
    for _ in range(2):
        outcome, saved, _ = train("experiment=smoke", "stage=final", "condition=text", "arm=hybrid")
        assert outcome["how"] == "skipped"
    part = {"experiment": "smoke", "stage": "final", "condition": "text", "arm": "hybrid"}
    part["study"] = None  # it began before the experiment's declaration
    assert record.parts(tmp_path / "runs" / saved["cell"]) == [part]


def test_bf16_autocast_trains(train):
    _, record, _ = train("train.precision=bf16")
    assert record["precision"] == "bf16" and math.isfinite(record["val_loss"])


def test_metrics_go_on_from_what_was_kept_whatever_lies_there(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train_loss": 2.0}\n{"step": 2, "tr')
    metrics = Metrics(tmp_path, '{"step": 1, "train_loss": 2.0}\n')
    metrics.write({"step": 2, "train_loss": math.nan})
    metrics.close()
    assert metrics.lines == record.lines(tmp_path / "metrics.jsonl") == [
        {"step": 1, "train_loss": 2.0},
        {"step": 2, "train_loss": None},
    ]  # fmt: skip
    assert record.has_metrics(tmp_path, metrics.text)


@pytest.mark.parametrize(
    "end", [b'{"step": 3, "tr', b"\xff\n", b"[3]\n", b"7", b"{}", b"[" * 99_999]
)
def test_lines_are_read_up_to_a_damaged_one(tmp_path, end):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + end + b'\n{"step": 4}\n')
    assert record.lines(tmp_path / "metrics.jsonl") == [{"step": 1}]


METRICS_DAMAGE = {
    "gone": lambda file: file.unlink(),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:300]),
    "a hole": lambda file: file.write_text("".join(file.open().readlines()[2:])),
    "not UTF-8": lambda file: file.write_bytes(b"\xff\xfe" + file.read_bytes()[2:]),
    "a foreign line": lambda file: file.write_text('{"loss": 3}\n' + file.read_text()),
}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=name, marks=[] if name == "cut" else pytest.mark.more)
        for name, damage in METRICS_DAMAGE.items()
    ],
)
def test_damaged_metrics_leave_no_hole_in_the_curve(train, tmp_path, monkeypatch, damage):
    _, whole, _ = train(results=tmp_path / "whole")
    stop_at(monkeypatch, 5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train()
    (file,) = tmp_path.glob("runs/*/metrics.jsonl")
    damage(file)
    _, resumed, said = train()
    assert same_result(whole, resumed) and whole["start_loss"] == resumed["start_loss"]
    assert [line["step"] for line in record.lines(file)] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert "metrics.jsonl was damaged: rebuilt from the checkpoint" in said


@pytest.mark.more
def test_whole_metrics_are_not_called_damaged(train, monkeypatch):
    stop_at(monkeypatch, 5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train()
    _, _, said = train()
    assert any(line.startswith("resuming from step") for line in said)
    assert not any("damaged" in line for line in said)


FINISHED = '{"status": "finished"}'


@pytest.mark.more
@pytest.mark.parametrize("text", [FINISHED, "[]", "3", '"finished"', "[" * 99_999, "{", "\udcff"])
def test_a_record_of_another_shape_is_named_and_kept_aside(train, tmp_path, text):
    _, whole, _ = train(results=tmp_path / "whole")
    folder = tmp_path / "runs" / whole["cell"]
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(text.encode(errors="surrogateescape"))
    outcome, found, said = train()
    assert outcome["how"] == "finished" and same_result(whole, found)
    (line,) = (line for line in said if "left out" in line)
    assert line.startswith("record.json is left out (") and "record.left_out.json" in line
    assert (folder / "record.left_out.json").read_bytes()[:9] == text.encode(
        errors="surrogateescape"
    )[:9]


def test_a_record_of_another_cell_is_not_this_ones_end(train, tmp_path):
    _, other, _ = train("seed=1")
    _, mine, _ = train()
    folders = [tmp_path / "runs" / one["cell"] for one in (other, mine)]
    (folders[1] / "record.json").write_bytes((folders[0] / "record.json").read_bytes())
    outcome, found, said = train()
    assert outcome["how"] == "finished" and found["cell"] == mine["cell"]
    assert any(f"of another cell: {other['cell']}" in line for line in said)


@pytest.mark.more
@pytest.mark.parametrize("name", ["metrics.jsonl", "record.json"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_line_with_the_path(train, tmp_path, monkeypatch, name, number):
    def full(*arguments):
        raise OSError(number, "full")

    def record_is_full(path, text, write=files.write_text):
        if path.name == name:
            with files.naming(path):
                full()
        write(path, text)

    if name == "metrics.jsonl":
        monkeypatch.setattr(record.Metrics, "write", lambda self, line: metrics_full(self, full))
    else:
        monkeypatch.setattr(files, "write_text", record_is_full)
    outcome, *_ = train()
    assert outcome["how"] == "failed" and "\n" not in outcome["error"]
    assert outcome["error"].startswith(("disk full: ", "full: "))
    assert outcome["error"].endswith(name) and str(tmp_path) in outcome["error"]


def metrics_full(metrics, full):
    with files.naming(metrics.path):
        full()


def test_too_little_disk_is_said_before_training(tmp_path, monkeypatch):
    settings = settle(*TINY, f"results_dir={tmp_path}", "tracker=none")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(prepare.UserError, match="MB free"):
        run.run(settings, cell.name(settings), lambda line: None)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_rate_that_no_weight_can_hold_is_divergence(optimizer, tmp_path):
    wild = (f"optimizer={optimizer}", "optimizer.lr_scale=1e300", f"results_dir={tmp_path}")
    settings = settle(*TINY, "tracker=none", *wild)
    outcome = run.run(settings, cell.name(settings), lambda line: None)
    assert outcome["how"] == "diverged", outcome
