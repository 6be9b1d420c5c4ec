"""Many processes: the same losses as one, state in shards, and checkpoints for any number."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.processes import parallel
from bench.records import cell
from bench.settings.errors import UserError
from bench.training import checkpoint
from tests.helpers.commands import FP32, ROOT, TINY, settle, torchrun

STEPS = [*TINY, "train.steps=10", "train.batch_size=4", "train.eval_every=5", "tracker=none"]
KEPT = ["train.checkpoint_every=4", "train.keep_checkpoint=true"]


def losses(record: dict) -> list[float]:
    """Of training and validation, in the order of steps."""
    return [line.get("train_loss", line.get("val_loss")) for line in record["curve"]]


def records(results: Path) -> dict[tuple, dict]:
    """By parallel, strategy, optimizer, qkv and model."""
    found = {}
    for path in results.glob("runs/*/record.json"):
        one = json.loads(path.read_text())
        strategy = one["config"]["parallel"].get("muon")
        key = one.get("parallel"), strategy, one["optimizer"], one["qkv"], one["model"]
        found[key] = one
    return found


def norms(one: dict) -> list[dict[str, float]]:
    """Of each evaluation, the norms of gradients and the RMS of weights, by role, and the largest
    attention logits by layer.

    Pure Muon's logits are left out: a bias of K has no gradient but rounding, as it adds the same
    to all logits of a query, and Muon scales that rounding to length 1.
    """
    lines = [line for line in one["curve"] if "grad_norms" in line]
    kinds = ("grad_norms", "weight_rms")
    seen = one["optimizer"] != "muon"
    return [
        {f"{kind} {r}": v for kind in kinds for r, v in line[kind].items()}
        | (dict(enumerate(line["attention_max_logit"])) if seen else {})
        for line in lines
    ]


def shard_bytes(routing: list[dict], processes: int) -> int:
    """State of the process that has most: the first of the chunks of each tensor's first dimension,
    and AdamW's counts of steps, which everyone has."""
    total = 0
    for row in routing:
        length, *rest = row["shape"]
        values = 2 if row["optimizer"] == "AdamW" else 1
        total += 4 * (values * math.ceil(length / processes) * math.prod(rest) + 1)
    return total


def same_as_alone(results: Path, train, processes: int, common: list[str], within: float) -> int:
    """Compare every run of many processes in a folder with that of one; how many there were.

    Of a run that went on from another one's checkpoint, what came after it.
    """
    found = records(results)
    alone: dict[tuple, dict] = {}
    for (strategy, muon, optimizer, qkv, model), many in found.items():
        choice = [f"optimizer={optimizer}", f"model={model}", *([f"qkv={qkv}"] if qkv else [])]
        if tuple(choice) not in alone:
            _, alone[tuple(choice)], _ = train(*common, *choice, results=results / "alone")
        one = alone[tuple(choice)]
        case = f"{strategy} {muon} {optimizer} {qkv} {model}"
        assert many["status"] == one["status"], f"{case}: {many['error']}"
        mine = losses(many)
        assert mine == pytest.approx(losses(one)[-len(mine) :], abs=within, rel=0), case
        measured = zip(reversed(norms(many)), reversed(norms(one)), strict=False)
        assert all(a == pytest.approx(b, rel=100 * within) for a, b in measured), case
        if one["status"] == "finished":  # ten steps of a tiny ViT may end above their start
            assert many["test_loss"] == pytest.approx(one["test_loss"], abs=within, rel=0), case
        assert many.get("test_accuracy") == one.get("test_accuracy"), case
        assert many["world_size"] == processes
        state = one["optimizer_state_bytes"]["total"]
        by_rank = many["optimizer_state_bytes"]["by_rank"]
        assert many["optimizer_state_bytes"]["total"] == by_rank[0]
        assert many["optimizer_state_bytes"]["predicted"] == by_rank[0], case
        if strategy == "ddp":
            assert by_rank == [state] * processes
        if strategy == "fsdp2":
            assert max(by_rank) <= shard_bytes(many["routing"], processes), case
    return len(found)


def put_checkpoint(source: Path, target: Path, step: int) -> None:
    """Let a run that has not begun find another one's checkpoint."""
    name = f"step-{step:08d}"
    copy = target / "checkpoint" / name
    shutil.copytree(source / "checkpoint" / name, copy)
    # Another cell's is refused, so it is made this one's.
    tree, sums = copy / checkpoint.TREE, copy / checkpoint.SUMS
    before = hashlib.sha256(tree.read_bytes()).hexdigest()
    tree.write_text(json.dumps(json.loads(tree.read_text()) | {"of": target.name}))
    after = hashlib.sha256(tree.read_bytes()).hexdigest()
    sums.write_text(sums.read_text().replace(before, after))


@pytest.mark.more
def test_two_processes_train_as_one(train, tmp_path):
    common = [*STEPS, *FP32, *KEPT, "qkv=per_head", "model=gpt2_nano"]
    common += ["train.clip_norm=0.1", "train.clip_part=auxiliary"]
    grid = ["parallel=ddp,fsdp2,tp", "optimizer=adamw,hybrid"]
    done = torchrun(2, "-m", *common, f"results_dir={tmp_path}", *grid)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("6 finished") == 1  # the leading process alone speaks
    assert len(list((tmp_path / "sweeps").iterdir())) == 1
    assert same_as_alone(tmp_path, train, 2, common, 1e-5) == 6
    # One process goes on from what two left.
    found = records(tmp_path)
    for key in (("fsdp2", "distribute"), ("tp", "gather")):
        cut = found[*key, "hybrid", "per_head", "gpt2_nano"]
        settings = settle(*TINY, *common, "optimizer=hybrid")
        other = tmp_path / key[0]
        put_checkpoint(tmp_path / "runs" / cut["cell"], other / "runs" / cell.name(settings), 8)
        _, alone, said = train(*common, "optimizer=hybrid", results=other)
        assert "resuming from step 8" in said
        assert losses(alone) == pytest.approx(losses(cut)[-len(losses(alone)) :], abs=1e-5, rel=0)


@pytest.mark.more
def test_four_processes_and_shapes_that_do_not_divide(train, tmp_path):
    common = [*STEPS, *FP32, *KEPT, "model.width=54", "model.heads=6", "qkv=fused"]
    _, alone, _ = train(*common, "optimizer=hybrid", results=tmp_path / "alone")
    # Two of the three go on from what one process left.
    for strategy in ("fsdp2", "fsdp2_tp"):
        settings = settle(*TINY, *common, "optimizer=hybrid", f"parallel={strategy}")
        folder = tmp_path / "runs" / cell.name(settings)
        put_checkpoint(tmp_path / "alone" / "runs" / alone["cell"], folder, 4)
    grid = ["optimizer=hybrid", "parallel=ddp,fsdp2,fsdp2_tp"]
    done = torchrun(4, "-m", *common, f"results_dir={tmp_path}", *grid)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("resuming from step 4") == 2
    assert same_as_alone(tmp_path, train, 4, common, 1e-5) == 3


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_full_matrix(train, tmp_path, processes, dtype):
    precision = ["train.precision=fp32", f"orthogonalizer.dtype={dtype}"]
    common = [*STEPS, *precision]
    strategies = "ddp,fsdp2,tp" if processes == 2 else "ddp,fsdp2,tp,fsdp2_tp"
    grid = [
        f"parallel={strategies}",
        "optimizer=adamw,muon,hybrid",
        "qkv=fused,per_head",
        "model=gpt2_nano,vit_nano",
    ]
    done = torchrun(processes, "-m", *common, f"results_dir={tmp_path}", *grid)
    assert done.returncode == 0, done.stderr
    count = same_as_alone(tmp_path, train, processes, common, 1e-5 if dtype == "fp32" else 2e-3)
    assert count == len(strategies.split(",")) * 5 * 2


# what can go wrong -----------------------------------------------------------------------------


@pytest.fixture
def processes(monkeypatch):
    """Let this process believe that torchrun started so many."""

    def pretend(count: int) -> None:
        monkeypatch.setenv("WORLD_SIZE", str(count))
        monkeypatch.setenv("RANK", "0")

    return pretend


@pytest.mark.parametrize(
    ("count", "overrides", "said"),
    [
        (3, "parallel=none", "parallel=none: torchrun started 3 processes; choose parallel=ddp"),
        (3, "parallel=fsdp2_tp", "parallel.tensor=2: must divide the 3 processes"),
        (3, "parallel=ddp train.batch_size=4", "train.batch_size=4: does not divide over 3"),
        (2, "parallel=ddp parallel.muon=gather", "parallel.muon=gather: ddp takes one of"),
        (2, "parallel=tp parallel.muon=replicate", "parallel.muon=replicate: tp takes one of"),
        (2, "parallel=fsdp2 parallel.timeout=0", "parallel.timeout=0: must be a number"),
        (2, "parallel=ddp model=gpt2_nano_sparse", "gpt2_nano_sparse has sparse gradients"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(processes, count, overrides, said):
    processes(count)
    with pytest.raises(UserError, match=said.replace(".", r"\.")) as error:
        parallel.start(settle(*overrides.split()))
    assert len(str(error.value).splitlines()) == 1


def test_a_cell_without_parallel_keeps_its_name():
    plain, ddp = settle(), settle("parallel=ddp")
    assert cell.name(plain) != cell.name(ddp)
    assert cell.name(ddp) == cell.name(settle("parallel=ddp", "parallel.timeout=5"))
    assert cell.name(ddp) != cell.name(settle("parallel=ddp", "parallel.muon=replicate"))


@pytest.fixture
def no_group_left():
    """A process group is of the whole process, tests of other modules included."""
    yield
    torch.distributed.destroy_process_group()
    parallel.connect.cache_clear()
    parallel.device_mesh.cache_clear()


def test_one_process_needs_no_torchrun(train, tmp_path, no_group_left):
    """It shards with nobody, and goes on from what it left."""
    _, plain, _ = train()
    _, one, _ = train("parallel=fsdp2", *KEPT)
    assert losses(one) == pytest.approx(losses(plain), abs=1e-5, rel=0)
    assert one["world_size"] == 1
    assert one["optimizer_state_bytes"]["by_rank"] == [plain["optimizer_state_bytes"]["total"]]
    (tmp_path / "runs" / one["cell"] / "record.json").unlink()
    _, resumed, said = train("parallel=fsdp2", *KEPT)
    assert "resuming from step 4" in said and losses(resumed) == losses(one)
    _, tensor, _ = train("parallel=tp")
    assert losses(tensor) == pytest.approx(losses(plain), abs=1e-5, rel=0)


def ranks_of(results: Path) -> list[int]:
    """The processes that train into a folder, without their launcher."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"-u" in words and f"results_dir={results}".encode() in words:
                found.append(int(entry.name))
    return sorted(found)


LOSES = [*STEPS, *FP32, "train.steps=40", "train.checkpoint_every=5", "optimizer=hybrid"]
LOSES += ["parallel=fsdp2", "parallel.timeout=10", "model.width=128"]


def lose_a_rank(results: Path, number: signal.Signals, *options: str) -> tuple[int, str]:
    """Train over two processes, one of which gets a signal in the middle; exit status, stderr."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    begun = subprocess.Popen(
        [*launch, *options, "bench/train.py", *LOSES, f"results_dir={results}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while not list(results.glob("runs/*/checkpoint/step-*")):
        assert begun.poll() is None, begun.stderr.read()
        time.sleep(0.05)
    os.kill(ranks_of(results)[-1], number)
    said = begun.communicate(timeout=120)[1]
    return begun.returncode, said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    results = tmp_path_factory.mktemp("whole")
    assert torchrun(2, *LOSES, f"results_dir={results}").returncode == 0
    (record,) = records(results).values()
    return record


def ends_like(record: dict, results: Path) -> bool:
    (broken,) = records(results).values()
    return (losses(broken), broken["test_loss"]) == (losses(record), record["test_loss"])


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_lost_in_the_middle_costs_nothing_but_time(undisturbed, tmp_path, number):
    """Killed, or silent for longer than the time limit."""
    status, said = lose_a_rank(tmp_path, number)
    assert status == 1, said
    again = torchrun(2, *LOSES, f"results_dir={tmp_path}")
    assert again.returncode == 0, again.stderr
    assert "resuming from step" in again.stderr
    assert ends_like(undisturbed, tmp_path)


@pytest.mark.long
def test_torchruns_own_restart_goes_on_too(undisturbed, tmp_path):
    status, said = lose_a_rank(tmp_path, signal.SIGKILL, "--max-restarts=1")
    assert status == 0 and "resuming from step" in said, said
    assert ends_like(undisturbed, tmp_path)


@pytest.mark.long
def test_a_wrong_mesh_is_one_line_of_the_leading_process(tmp_path):
    done = torchrun(3, *STEPS, "parallel=tp", "train.batch_size=3", f"results_dir={tmp_path}")
    assert done.returncode == 1
    ours = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert ours == [
        "error: parallel: 4 heads (num_attention_heads) do not divide over 3 processes; "
        "use a number of processes that divides 4"
    ]


@pytest.mark.parametrize("strategy", ["tp", "fsdp2_tp"])
def test_what_an_older_torch_cannot_save_is_refused_at_once(strategy, monkeypatch):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.11.0+cu130"))
    with pytest.raises(UserError, match=f"parallel={strategy}: needs torch 2.13 or newer"):
        parallel.refuse_older_torch(strategy)
    parallel.refuse_older_torch("fsdp2")
    monkeypatch.undo()
    parallel.refuse_older_torch(strategy)


def test_it_is_refused_before_processes_are_connected(monkeypatch):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.11.0+cu130"))
    monkeypatch.setattr(parallel, "connect", lambda *_: pytest.fail("connected"))
    with pytest.raises(UserError, match=r"needs torch 2\.13"):
        parallel.start(settle(*TINY, "parallel=tp"))
