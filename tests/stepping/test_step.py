"""`bench/step.py`: its settings, what it measures, what it leaves, and what it says."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from hydra.errors import ConfigCompositionException

from bench.measuring import flops, meter
from bench.settings.errors import UserError
from bench.stepping import arms, chart, summary
from bench.stepping import run as step_run
from bench.stepping.subject import Subject
from tests.helpers import commands
from tests.helpers.commands import ROOT
from tests.helpers.steps import SMALL, TEXT, settle

# results/steps/<name>.json, from outside: "by optimizer".
CONTRACT = {
    *("step_ms", "forward_backward_ms", "overhead", "units_at", "state_bytes"),
    *("peak_temporary_bytes", "flops", "gemm_share"),
}


def run(folder: Path, *overrides: str) -> tuple[dict, dict, list[str]]:
    """A benchmark in this process, with small products for the peak."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flops, "LARGE_SQUARE", {"cpu": 64})
        patch.setattr(flops, "SECONDS", 0.0)
        patch.setattr(meter, "release", lambda: None)  # of no use to a model this small
        benchmark = settle(*overrides, f"results_dir={folder}")
        outcome = step_run.run(benchmark, said.append)
    file = folder / "steps" / f"{benchmark.name}.json"
    return outcome, json.loads(file.read_text()), said


@pytest.fixture
def measure(tmp_path):
    """Run a benchmark; returns (outcome, record, what was said)."""
    return lambda *overrides: run(tmp_path, *overrides)


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """The default optimizers on a small GPT-2: (folder, outcome, record, what was said)."""
    folder = tmp_path_factory.mktemp("default")
    return folder, *run(folder, *TEXT)


command = functools.partial(commands.command, entry="step")


class Faulty(torch.optim.AdamW):
    """Raises in step `at`, spoils the parameters, keeps more with every step, takes gradients
    away, or puts new tensors in place of its state."""

    def __init__(self, params, at=0, spoils=False, leaks=False, takes=False, renews=False, **rest):
        super().__init__(params, **rest)
        self.at, self.spoils, self.leaks, self.takes = at, spoils, leaks, takes
        self.renews = renews
        self.done, self.kept = 0, []

    def step(self, closure=None):
        self.done += 1
        parameters = [p for group in self.param_groups for p in group["params"]]
        if self.done == self.at:
            raise RuntimeError("the step\nbroke")
        if self.leaks:
            self.kept.append(torch.ones(1000))
        super().step(closure)
        with torch.no_grad():
            for p in parameters:
                if self.spoils:
                    p.fill_(torch.nan)
                if self.takes:
                    p.grad = None
                if self.renews:
                    self.state[p]["exp_avg"] = self.state[p]["exp_avg"].clone()


def faulty(fault: str) -> str:
    """An entry of `optimizers` for AdamW with a fault."""
    target = f"optimizer.roles.default._target_={__name__}.Faulty"
    return f"adamw {target} +optimizer.roles.default.{fault}"


# settings ---------------------------------------------------------------------------------------


def test_each_optimizer_has_the_settings_of_a_run_of_its_own():
    found = settle(
        "model=gpt2", "qkv=fused", "train.sequence_length=64",
        'optimizers=[hybrid,"hybrid qkv=per_head orthogonalizer.steps=4",torch_muon]',
    )  # fmt: skip
    assert list(found.arms) == [
        "adamw", "hybrid", "hybrid qkv=per_head orthogonalizer.steps=4", "torch_muon",
    ]  # fmt: skip
    _, plain, changed, peer = found.arms.values()
    rules = [arm.optimizer["roles"]["hidden"] for arm in (plain, changed)]
    assert [rule["qkv"]["name"] for rule in rules] == ["fused", "per_head"]
    assert [rule["orthogonalizer"]["steps"] for rule in rules] == [5, 4]
    assert "qkv" not in peer.optimizer["roles"]["hidden"]
    assert all(arm.train.sequence_length == 64 for arm in found.arms.values())
    assert all(arm.model["layers"] == 12 for arm in found.arms.values())
    assert found.batches == [1, 2, 4]
    assert found.name.startswith("gpt2-c")  # -cpu or -cuda


def test_batches_follow_the_models_own_unless_they_are_given():
    assert settle("model=vit").batches == [8, 16, 32]
    assert settle("model=gpt2_large").batches == [1, 2, 4]
    assert settle("batches=[8,2,4]").batches == [2, 4, 8]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizers=[adamw,adamm]"], ["adamm", "perhaps adam", "torch_muon"]),
        (["optimizers=[]"], ["optimizers=[]", "at least one"]),
        (["optimizers=[adam,adam]"], ["adam", "twice"]),
        (['optimizers=["hybrid model=vit"]'], ["model", "qkv, orthogonalizer"]),
        (['optimizers=["hybrid optimizer=muon"]'], ["optimizer", "an entry is the name"]),
        (['optimizers=["hybrid optimizer.lr_scales=1"]'], ["optimizer.lr_scales"]),
        (['optimizers=["hybrid optimizer.lr_scale=-1"]'], ["optimizer.lr_scale=-1", "0 or above"]),
        (['optimizers=["hybrid qkv=foo"]'], ["qkv=foo", "no such file", "per_head"]),
        (["batches=[1,2]"], ["batches=[1, 2]", "3 sizes or more"]),
        (["batches=[1,2,2]"], ["batches=[1, 2, 2]", "different"]),
        (["batches=[0,1,2]"], ["batches=[0, 1, 2]", "at least 1"]),
        (["rounds=2"], ["rounds=2", "at least 3"]),
        (["name=a/b"], ["name=a/b", "letters"]),
        (["+foo=1"], ["foo", "no such setting", "batches"]),
        (["train.steps=3"], ["train.steps", "nothing is trained", "train.sequence_length"]),
        (["+train.clip_norm=3"], ["train.clip_norm", "nothing is trained"]),
        (
            ["+schedule.warmup_steps=3", "optimizers=[]"],
            ["schedule.warmup_steps", "nothing is trained"],
        ),
        (["train.device=tpu"], ["train.device=tpu", "cpu"]),
        (["data=fashion_mnist"], ["data=fashion_mnist", "data=sotu"]),
        (["model=hub"], ["model.source", "needs a value"]),
    ],
)
def test_a_mistake_is_a_line_or_two_that_name_what_is_accepted(overrides, words):
    with pytest.raises(UserError) as caught:
        settle(*overrides)
    assert all(word in str(caught.value) for word in words), caught.value
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("override", ["round=3", "optimizer=muon", "rounds=abc", "optimizers=adam"])
def test_what_hydra_finds_it_says_in_its_own_words(override):
    with pytest.raises(ConfigCompositionException):
        settle(override)


# measuring --------------------------------------------------------------------------------------


def test_a_record_has_every_key_and_the_numbers_agree(default):
    folder, outcome, record, said = default
    assert outcome["how"] == "finished" and outcome["error"] is None
    file = folder / "steps" / "gpt2_nano-cpu.json"
    assert said[-1].startswith("finished") and str(file) in said[-1]
    assert sorted(p.name for p in file.parent.iterdir()) == [
        "gpt2_nano-cpu.json", "gpt2_nano-cpu.svg",
    ]  # fmt: skip
    assert {"model", "environment", "noise", "optimizers"} <= record.keys()
    assert list(record["optimizers"]) == ["adamw", "torch_muon", "hybrid", "muon"]
    for label, one in record["optimizers"].items():
        assert one.keys() >= CONTRACT and one.keys() == {*summary.KEYS, "error"}, label
        assert set(one["units_at"]) == {"0.05", "0.02", "0.01"}
        assert one["step_ms"].keys() == {"median", "p10", "p90", "n"}
        assert one["step_ms"]["n"] == 3
        assert one["state_bytes"]["total"] == one["state_bytes"]["predicted"]
        assert one["temporary_grows"] is False
        measured = [p["units"] for p in one["overhead"] if p["measured"]]
        assert measured == [batch * 32 for batch in record["batches"]]
        assert {p["measured"] for p in one["overhead"]} == {True, False}
        assert [fb["units"] for fb in one["forward_backward_ms"]] == measured
        own, adamw = (o["step_ms"]["median"] for o in (one, record["optimizers"]["adamw"]))
        for point, fb in zip(one["overhead"], one["forward_backward_ms"], strict=False):
            value = (fb["median"] + own) / (fb["median"] + adamw) - 1
            assert point["value"] == pytest.approx(value)
        roles = one["step_ms_by_role"]
        assert set(roles) == set(one["flops_by_role"]) == {
            "hidden", "embedding", "position", "vector",
        }  # fmt: skip


def test_work_is_counted_and_theory_bounds_it(default):
    record = default[2]
    adamw, torch_muon, hybrid, muon = record["optimizers"].values()
    assert adamw["flops"] == 0 and adamw["gemm_share"] is None and adamw["theory"] is None
    layer = [(32, 32), (32, 96), (32, 128), (32, 128)]  # output, fused QKV, MLP in and out
    hand = 2 * sum(5 * (4 * n * n * m + 2 * n**3) for n, m in layer)
    assert torch_muon["flops"] == torch_muon["flops_by_role"]["hidden"] == hand
    assert torch_muon["flops_dtype"] == "bfloat16"
    assert muon["flops"] > hybrid["flops"] > 0
    assert hybrid["theory"] == {"iterations": 5, "dimension": 32}
    for one in (torch_muon, hybrid):
        assert one["gemm_share"] > 0
        for point in one["overhead"]:
            assert point["theory"] == pytest.approx(5 * 32 / point["units"])
            assert 0 < point["flop_share"] < point["theory"]
    assert {"bfloat16", hybrid["flops_dtype"]} == set(record["matmul_peak"])


def test_images_are_the_unit_of_an_image_model(measure):
    _, record, _ = measure("model=vit_nano", *SMALL, "batches=[2,3,5]", "optimizers=[hybrid]")
    assert record["unit"] == "images" and record["rows_per_unit"] == 7 * 7 + 1
    points = record["optimizers"]["hybrid"]["overhead"]
    assert [p["units"] for p in points if p["measured"]] == [2, 3, 5]
    assert points[0]["theory"] == pytest.approx(5 * 32 / (2 * 50))


def test_a_batch_that_cannot_fit_is_refused_before_it_is_made(measure, tmp_path):
    with pytest.raises(UserError, match=r"^batches=\[1, 2, 3000000\]: .* in which fewer than"):
        measure(*TEXT, "batches=[1,2,3000000]")
    assert not list(tmp_path.glob("steps/*"))


def test_an_optimizer_that_fails_is_a_line_and_the_others_go_on(measure):
    entries = [
        "hybrid",
        "hybrid optimizer.roles.hidden._target_=nowhere.Muon",
        faulty("at=1"),  # while its state is made
        faulty("at=6"),  # in the fourth round: 5 steps alone, then a new one begins
        faulty("spoils=true"),
    ]
    outcome, record, said = measure(*TEXT, f"optimizers={json.dumps(entries)}", "rounds=4")
    assert outcome["how"] == "failed"
    found = {label: one["error"] for label, one in record["optimizers"].items()}
    assert list(found) == ["adamw", *entries]
    assert found["adamw"] is None and found["hybrid"] is None
    assert "nowhere" in found[entries[1]]
    assert found[entries[2]] == found[entries[3]] == "RuntimeError: the step broke"
    assert "not finite" in found[entries[4]]
    assert all(record["optimizers"][label].keys() >= CONTRACT for label in entries)
    assert record["optimizers"]["hybrid"]["step_ms"]["n"] == 4
    assert said[-1].startswith("failed") and all(len(line.splitlines()) == 1 for line in said)


def test_what_grows_from_step_to_step_is_seen(measure):
    leaks, renews = entries = [faulty("leaks=true"), faulty("renews=true")]
    _, record, _ = measure(*TEXT, f"optimizers={json.dumps(entries)}")
    assert record["optimizers"][leaks]["temporary_grows"]
    # one tensor of 4,000 bytes for each role that the faulty one takes
    assert record["optimizers"][leaks]["left_bytes_by_step"] == [8000] * 3
    assert not record["optimizers"][renews]["temporary_grows"]
    assert record["optimizers"][renews]["left_bytes_by_step"][1:] == [0, 0]
    assert record["optimizers"][renews]["peak_temporary_bytes"] > 0


def test_an_optimizer_that_takes_the_gradients_away_leaves_the_others_theirs(measure):
    entries = [faulty("takes=true"), "hybrid"]
    _, record, _ = measure(*TEXT, f"optimizers={json.dumps(entries)}")
    _, first, second = record["optimizers"].values()
    assert first["error"] is None and second["flops"] > 0


def test_a_second_run_replaces_its_own_record_and_says_so(measure, tmp_path):
    arguments = [*TEXT, "optimizers=[adam]", "name=mine"]
    assert "replaced" not in measure(*arguments)[2][-1]
    _, record, said = measure(*arguments, "rounds=4")
    assert "replaced" in said[-1] and record["rounds"] == 4
    assert {file.name for file in (tmp_path / "steps").iterdir()} == {"mine.json", "mine.svg"}


def test_rates_of_zero_leave_the_parameters_as_they_were():
    benchmark = settle(*TEXT)
    subject = Subject(benchmark.arms["adamw"], [1])
    before = [p.detach().clone() for p in subject.parameters]
    subject.time(32)
    for label, settings in benchmark.arms.items():
        arm = arms.Arm(label, settings, subject)
        for _ in range(3):
            arm.turn()
    assert all(torch.equal(p, q) for p, q in zip(before, subject.parameters, strict=True))


def test_without_room_for_all_states_each_is_made_for_its_turn(measure, monkeypatch):
    monkeypatch.setattr("bench.measuring.meter.available", lambda device: 1000)
    held = []
    original = arms.Arm.step
    living: set[int] = set()

    def step(self):
        living.add(id(self))
        held.append(len(living))
        return original(self)

    monkeypatch.setattr(arms.Arm, "step", step)
    free = arms.Arm.free
    monkeypatch.setattr(arms.Arm, "free", lambda arm: (living.discard(id(arm)), free(arm)))
    _, record, said = measure(*TEXT, "optimizers=[adam,hybrid]")
    assert record["by_turns"] and any("no room" in line for line in said)
    assert max(held) == 1 and record["optimizers"]["hybrid"]["step_ms"]["n"] == 3


def test_the_same_optimizer_twice_is_no_difference(measure, capsys):
    """A pair A/A/A: the reference, its double, and the same settings spelt another way."""
    entry = "adamw optimizer.lr_scale=2"
    _, record, _ = measure(*TEXT, f"optimizers={json.dumps([entry])}", "rounds=12")
    noise = record["noise"]
    assert noise["pair"] == ["adamw", "adamw again"]
    assert noise["difference_ms"]["ms"] >= abs(noise["difference_ms"]["value"])
    difference = record["optimizers"][entry]["difference_ms"]
    limit = noise["difference_ms"]["ms"]
    inside = difference["low"] <= 0 <= difference["high"] or abs(difference["value"]) <= limit
    assert difference["within_noise"] == inside
    found = capsys.readouterr().out.splitlines()[0]
    assert found.startswith(f"{entry}'s step ") and ("costs no more than" in found) == inside


# the commands -----------------------------------------------------------------------------------


@pytest.mark.more
def test_a_sweep_over_models_measures_each(tmp_path):
    done = command(
        "-m", "model=gpt2_nano,vit_nano", "optimizers=[adam]", *TEXT, "batches=[1,2,3]",
        f"results_dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2] finished; record: " in done.stderr
    names = {file.stem for file in (tmp_path / "steps").glob("*.json")}
    assert names == {"gpt2_nano-cpu", "vit_nano-cpu"}


def test_mistakes_and_failures_are_lines_and_the_status_is_1(tmp_path):
    """And come before torch is imported, let alone a model."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    without = os.environ | {"PYTHONPATH": path}
    typo = command("optimizers=[adamm]", f"results_dir={tmp_path / 'results'}", env=without)
    assert typo.returncode == 1 and len(typo.stderr.splitlines()) == 2
    assert "adamm" in typo.stderr and "torch_muon" in typo.stderr
    unknown = command("model=gpt3", env=without)
    assert unknown.returncode == 1 and "torch was imported" not in unknown.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["torch.py"]


@pytest.mark.more
def test_ctrl_c_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "bench/step.py", *TEXT, "rounds=100000", f"results_dir={tmp_path}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr.readline() == "loading torch\n"
    assert process.stderr.readline().startswith("gpt2_nano-cpu: adamw, torch_muon")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "interrupted" in said and "Traceback" not in said
    assert not list((tmp_path / "steps").iterdir())


def test_help_names_every_setting():
    done = command("--help")
    for key in yaml.safe_load((ROOT / "conf" / "step.yaml").read_text()):
        if key not in ("defaults", "hydra"):
            assert re.search(rf"^  {key}[.=]", done.stdout, flags=re.M), key


def test_the_training_runs_way_to_name_an_optimizer_is_answered():
    done = command("model=gpt2_nano", "optimizer=adamw,muon")
    said = "error: optimizer=adamw,muon: here it is 'optimizers=[adamw,muon]'\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_the_picture_is_the_same_file_for_the_same_record(default, tmp_path):
    folder, _, record, _ = deepcopy(default)
    first = (folder / "steps" / "gpt2_nano-cpu.svg").read_bytes()
    assert chart.write(record, tmp_path / "again.svg").read_bytes() == first
    for one in record["optimizers"].values():  # on a busy machine any may lie within noise
        one["difference_ms"]["within_noise"] = False
    shown = chart.write(record, tmp_path / "all.svg").read_bytes()
    assert b"torch_muon" in shown and b"theory" in shown
    for one in record["optimizers"].values():
        one["difference_ms"]["within_noise"] = True
    assert b"none costs more" in chart.write(record, tmp_path / "none.svg").read_bytes()
