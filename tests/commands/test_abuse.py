"""Runs that are killed, crowded and damaged end as undisturbed ones do, and nothing is lost.

When a kill comes differs from time to time; how every run ends must not.
"""

import json
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from bench.records import cell, owner, record
from bench.settings.schema import Settings
from bench.training import run
from tests.helpers.commands import TINY, settle
from tests.helpers.runs import same_result

pytestmark = pytest.mark.long
SMALL = [*TINY, "model.layers=1", "train.checkpoint_every=1", "train.reference_steps=0"]
SERVER = multiprocessing.get_context("forkserver")
MODEL = "transformers.models.gpt2.modeling_gpt2"
SERVER.set_forkserver_preload(["bench.training.run", "optimizers.muon", MODEL])
ROUNDS = 12


def cells(results: Path, seeds: int) -> list[Settings]:
    words = [*SMALL, "tracker=none", f"results_dir={results}"]
    return [settle(*words, f"seed={seed}") for seed in range(seeds)]


def walk(grid: list[Settings], log: Path) -> None:
    """All cells in order, in a process of its own; what it says is kept."""
    import torch

    torch.set_num_threads(1)
    owner.BEAT = 0.2  # what seems dead is watched for half a second
    with log.open("a", buffering=1) as file:
        for settings in grid:
            run.run(settings, cell.name(settings), lambda line: file.write(line + "\n"))


def begin(grid: list[Settings], log: Path):
    process = SERVER.Process(target=walk, args=(grid, log))
    process.start()
    return process


def to_the_end(grid: list[Settings], log: Path) -> None:
    process = begin(grid, log)
    process.join()
    assert process.exitcode == 0, log.read_text()


def kill_at_random(process, grid: list[Settings]) -> bool:
    """Kill within 50 ms of a step of one of the cells; whether it had not ended."""
    runs, step = Path(grid[0].results_dir) / "runs", random.randrange(6)
    name = cell.name(random.choice(grid))
    while process.is_alive() and len(record.lines(runs / name / "metrics.jsonl")) < step:
        time.sleep(0.001)
    process.join(random.uniform(0, 0.05))
    process.kill()
    process.join()
    return process.exitcode != 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The record of each cell by name."""
    folder = tmp_path_factory.mktemp("undisturbed")
    grid = cells(folder, 4)
    to_the_end(grid, folder / "log")
    return {cell.name(s): record.read(folder / "runs" / cell.name(s)) for s in grid}


def ends_as(undisturbed: dict[str, dict], grid: list[Settings]) -> None:
    """The same results, every step once in the metrics, and nothing left of the work."""
    for settings in grid:
        name = cell.name(settings)
        folder = Path(settings.results_dir) / "runs" / name
        found = record.read(folder)
        assert found is not None and found["status"] == "finished", name
        assert same_result(found, undisturbed[name]), name
        assert found["start_loss"] == undisturbed[name]["start_loss"], name
        lines = record.lines(folder / "metrics.jsonl")
        assert [line["step"] for line in lines if "train_loss" in line] == [1, 2, 3, 4, 5, 6]
        assert owner.holder(folder) is None and not (folder / "checkpoint").exists()


def test_a_dozen_runs_that_are_killed_at_any_moment(tmp_path, undisturbed):
    killed = 0
    for number in range(ROUNDS):
        grid = cells(tmp_path / str(number), 1)
        killed += sum(kill_at_random(begin(grid, tmp_path / "log"), grid) for _ in range(2))
        to_the_end(grid, tmp_path / "log")
        ends_as(undisturbed, grid)
    resumed = (tmp_path / "log").read_text().count("resuming from step")
    print(f"{ROUNDS} runs, {killed} kills, {resumed} times from a checkpoint: all identical")
    assert killed


def test_two_processes_on_the_same_cells_and_one_is_killed(tmp_path, undisturbed):
    killed = 0
    for number in range(ROUNDS // 3):
        grid = cells(tmp_path / str(number), 4)
        logs = [tmp_path / f"{number}-{i}" for i in range(2)]
        first, second = (begin(grid, log) for log in logs)
        killed += kill_at_random(first, grid)
        second.join()
        assert second.exitcode == 0, logs[1].read_text()
        to_the_end(grid, logs[1])  # the cell that the killed one had
        ends_as(undisturbed, grid)
        said = "".join(log.read_text() for log in logs if log.exists())
        for name in undisturbed:
            assert said.count(f"finished; record: {tmp_path}/{number}/runs/{name}/") <= 1
    print(f"{4 * (ROUNDS // 3)} cells, 2 processes each, {killed} killed: none twice, none lost")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data)


def without_a_line(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    del lines[random.randrange(len(lines))]
    file.write_bytes(b"".join(lines))


def foreign(file: Path) -> None:
    file.write_text(json.dumps({"status": "finished", "step": 3, "token": "../x"}) + "\n")


def stopped(settings: Settings, log: Path) -> Path:
    """The folder of a run that was killed with step 3 behind it."""
    folder = Path(settings.results_dir) / "runs" / cell.name(settings)
    process = begin([settings], log)
    while process.is_alive() and not (folder / "checkpoint" / "step-00000003").exists():
        time.sleep(0.001)
    process.kill()
    process.join()
    return folder


NEWEST = "checkpoint/step-*"
PLACES = ["metrics.jsonl", "owner.json"]
PLACES += [f"{NEWEST}/{name}" for name in ("tensors.safetensors", "tree.json", "SHA256SUMS")]


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip, without_a_line, foreign])
def test_what_a_run_left_is_damaged_before_it_goes_on(tmp_path, undisturbed, damage):
    for place in PLACES:
        (settings,) = cells(tmp_path / place.rpartition("/")[2], 1)
        folder = stopped(settings, tmp_path / "log")
        damage(sorted(folder.glob(place))[-1])
        for claim in folder.glob("owner*.json"):
            os.utime(claim, (0, 0))  # long ago
        to_the_end([settings], tmp_path / "log")
        ends_as(undisturbed, [settings])
    print(f"{damage.__name__}: {len(PLACES)} files damaged: all identical")


@pytest.mark.parametrize("name", ["record.json", "part_of.json"])
def test_what_no_run_wrote_lies_there(tmp_path, undisturbed, name):
    (settings,) = cells(tmp_path, 1)
    foreign(stopped(settings, tmp_path / "log") / name)
    to_the_end([settings], tmp_path / "log")
    ends_as(undisturbed, [settings])


def test_a_neighbours_checkpoints_are_not_gone_on_from(tmp_path, undisturbed):
    (settings,) = cells(tmp_path / "own", 1)
    folder = stopped(settings, tmp_path / "log")
    other = cells(tmp_path / "neighbour", 2)[1]
    beside = stopped(other, tmp_path / "log")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    shutil.copytree(beside / "checkpoint", folder / "checkpoint")
    to_the_end([settings], tmp_path / "log")
    ends_as(undisturbed, [settings])
    to_the_end([other], tmp_path / "log")
    ends_as(undisturbed, [other])
