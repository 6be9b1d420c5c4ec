"""A cell has one owner: races, owners that died or stood still, and what others see of it."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from bench.records import archive, cell, owner, record
from bench.records.owner import Held, Lost, Ownership
from bench.training import run, trainer
from tests.helpers.commands import ROOT, TINY, settle

FORK = multiprocessing.get_context("fork")
WORKERS = 6
MODEL = "transformers.models.gpt2.modeling_gpt2"


@pytest.fixture
def quick(monkeypatch):
    """A heartbeat of 50 ms and an owner that is stale after 400."""
    monkeypatch.setattr(owner, "BEAT", 0.05)
    monkeypatch.setattr(owner, "STALE", 0.4)


def left_by(folder: Path, age: float = 0.0, **changes) -> Path:
    """An owner file whose maker is no more: on another machine unless `changes` say where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / owner.FIRST
    told = owner.describe(os.getpid()) | {"host": "afar", "machine": "another boot"} | changes
    path.write_text(json.dumps(told))
    os.utime(path, (time.time() - age,) * 2)
    return path


def ended_process() -> dict:
    """What an owner said of itself that was killed since, and was not waited for."""
    process = subprocess.Popen(["sleep", "60"])
    told = owner.describe(process.pid)
    process.kill()
    while owner.started(process.pid) is not None:
        time.sleep(0.01)
    return told


def together(work, *arguments) -> list:
    """What `work` returns in processes that begin at once."""
    start, results = FORK.Barrier(WORKERS), FORK.Queue()

    def one():
        start.wait()
        results.put(work(*arguments))

    processes = [FORK.Process(target=one) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    return found


def win(folders: list[Path], tried) -> list[bool]:
    """Of which folders this process became the owner, while all others tried as well."""
    won = []
    for folder in folders:
        try:
            with Ownership(folder):
                tried.wait()
                won.append(True)
        except Held:
            tried.wait()
            won.append(False)
        tried.wait()  # until it has been removed
    return won


@pytest.mark.more
@pytest.mark.parametrize("before", ["nobody", "dead here", "stale afar", "unwritten"])
def test_of_many_processes_one_becomes_the_owner(tmp_path, quick, before):
    folders = [tmp_path / str(i) for i in range(20)]
    dead = ended_process() if before == "dead here" else {}
    for folder in folders:
        folder.mkdir()
        if before == "dead here":
            left_by(folder, **dead)
        elif before == "stale afar":
            left_by(folder, age=10)
        elif before == "unwritten":
            left_by(folder).write_text("")
            os.utime(folder / owner.FIRST, (0, 0))
    won = together(win, folders, FORK.Barrier(WORKERS))
    assert [sum(one) for one in zip(*won, strict=True)] == [1] * len(folders)
    assert not [file for folder in folders for file in folder.iterdir()]


def test_who_sees_a_death_too_late_does_not_take_over_from_the_living(tmp_path, monkeypatch):
    """Between its look and its claim another one took over, ended, and a third began."""
    left_by(tmp_path, **ended_process())
    look, third = owner.alive, Ownership(tmp_path)

    def slow(claim):
        monkeypatch.setattr(owner, "alive", look)
        with Ownership(tmp_path):
            pass
        third.__enter__()
        return False

    monkeypatch.setattr(owner, "alive", slow)
    with pytest.raises(Held), Ownership(tmp_path):
        pass
    third.touch()
    third.check()
    third.__exit__()
    assert not list(tmp_path.iterdir())


def test_a_process_that_ended_is_told_from_a_later_one_of_its_number(tmp_path):
    mine = owner.describe(os.getpid())
    claim = owner.read(left_by(tmp_path, **mine))
    assert not owner.died(claim) and owner.alive(claim)
    assert owner.died(owner.read(left_by(tmp_path, **mine | {"started": mine["started"] - 1})))
    assert owner.died(owner.read(left_by(tmp_path, **ended_process())))
    assert not owner.died(owner.read(left_by(tmp_path, pid=2**22 + 1)))  # who knows, elsewhere


def test_an_owner_is_stale_after_a_minute_by_the_file_servers_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "BEAT", 0.04)
    assert owner.alive(owner.read(left_by(tmp_path, age=45)))
    assert not owner.alive(owner.read(left_by(tmp_path, age=75)))
    assert not owner.alive(owner.read(left_by(tmp_path, age=-75)))  # copied from a clock ahead


def test_clocks_that_disagree_do_not_kill_an_owner_that_still_beats(tmp_path, quick):
    path = left_by(tmp_path, age=3600)
    beats = "import os, time\nfor i in range(100): os.utime('{0}', (i, i)); time.sleep(0.02)"
    process = subprocess.Popen(["python3", "-c", beats.format(path)])
    while path.stat().st_mtime > 100:
        time.sleep(0.01)
    try:
        assert owner.alive(owner.read(path))
    finally:
        process.kill()
        process.wait()


def test_an_owner_that_works_for_long_stays_the_owner(tmp_path, quick):
    with Ownership(tmp_path) as mine:
        end = time.monotonic() + 3 * owner.STALE
        while time.monotonic() < end:
            with pytest.raises(Held, match=f"process {os.getpid()}"), Ownership(tmp_path):
                pass
            mine.check()
            time.sleep(0.02)
        assert owner.holder(tmp_path)
    assert owner.holder(tmp_path) is None


ODD = {
    "a list": "[1, 2]",
    "a number": "3",
    "nothing": "null",
    "nested": "[" * 99_999,
    "not UTF-8": b"\xff\xfe{",
    "a text for the pid": {"pid": "12"},
    "no pid of a process": {"pid": -1},
    "a huge pid": {"pid": 10**40},
    "a token that leads elsewhere": {"token": "../../x"},
    "a token that is none": {"token": None},
    "a key too many": {"more": 1},
    "a key missing": None,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_owner_file_of_another_shape_is_named_and_goes_stale(tmp_path, quick, odd):
    path = left_by(tmp_path, **(odd if isinstance(odd, dict) else {}))
    if odd is None:
        said = json.loads(path.read_text())
        path.write_text(json.dumps({key: said[key] for key in ("host", "pid")}))
    elif not isinstance(odd, dict):
        path.write_bytes(odd if isinstance(odd, bytes) else odd.encode())
    with pytest.raises(Held, match=r"owner\.json"), Ownership(tmp_path):
        pass
    os.utime(path, (0, 0))
    with Ownership(tmp_path) as mine:
        mine.touch()
        mine.check()
    assert not list(tmp_path.rglob("*")) and not (tmp_path.parent / "x.json").exists()


@pytest.mark.parametrize("age", [0, 10])
def test_an_owner_file_copied_to_its_successors_name_ends_nothing(tmp_path, quick, age):
    path = left_by(tmp_path, age=age)
    copy = owner.read(path).successor()
    shutil.copy2(path, copy)
    assert [claim.path for claim in owner.chain(tmp_path)] == [path, copy]
    if age:
        with Ownership(tmp_path) as mine:
            mine.check()
        assert not list(tmp_path.iterdir())
    else:
        with pytest.raises(Held), Ownership(tmp_path):
            pass


def test_a_full_disk_names_the_owner_file(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner.os, "fsync", full)
    with pytest.raises(OSError) as caught, Ownership(tmp_path):
        pass
    assert caught.value.filename == str(tmp_path / "owner.json") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_owner_file_goes_also_when_the_work_fails(tmp_path, error):
    with pytest.raises(error), Ownership(tmp_path):
        raise error
    assert not list(tmp_path.iterdir())


def test_who_stood_still_and_was_replaced_stops(tmp_path, quick):
    said = FORK.Queue()

    def sleeper():
        with Ownership(tmp_path) as mine:
            said.put("began")
            try:
                while True:
                    mine.check()
                    time.sleep(0.01)
            except Lost as error:
                said.put(str(error))

    process = FORK.Process(target=sleeper)
    process.start()
    assert said.get(timeout=30) == "began"
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(2 * owner.STALE)
    with Ownership(tmp_path) as mine:
        os.kill(process.pid, signal.SIGCONT)
        line = said.get(timeout=30)
        process.join()
        mine.touch()
        mine.check()  # it left ours alone
    assert f"process {os.getpid()}" in line and "\n" not in line
    assert not list(tmp_path.iterdir())


# in a run -----------------------------------------------------------------------------------


def test_a_cell_held_elsewhere_is_listed_as_running(train, tmp_path):
    settings = settle(*TINY, "tracker=none", f"results_dir={tmp_path}")
    folder = tmp_path / "runs" / cell.name(settings)
    left_by(folder, pid=77)
    outcome, found, said = train()
    assert outcome == {"how": "running"} and found is None
    assert len(said) == 1 and "running on afar, process 77, since 2" in said[0]


def test_a_run_that_lost_its_cell_writes_nothing_more(train, tmp_path, monkeypatch):
    step = trainer.Trainer.step

    def overtaken(self, measure_update):
        if self.state["step"] == 2:
            other = owner.chain(self.folder)[-1].successor()
            owner.create(other, owner.describe(1) | {"host": "afar"})
            self.check.__self__.touched = 0  # it stood still
        return step(self, measure_update)

    monkeypatch.setattr(trainer.Trainer, "step", overtaken)
    with pytest.raises(Lost, match="afar, process 1"):
        train("train.checkpoint_every=1")
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "record.json").exists()
    assert sorted(f.name for f in (folder / "checkpoint").iterdir())[-1] == "step-00000002"
    assert len(list(folder.glob("owner*.json"))) == 2  # they are the other's now


@pytest.mark.more
def test_results_of_two_machines_merge_by_copying(train, tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "BEAT", 0.04)
    seeds = {"one": 0, "two": 1}
    for name, seed in seeds.items():
        train(f"seed={seed}", results=tmp_path / name)
        (folder,) = (tmp_path / name / "runs").iterdir()
        left_by(folder, age=5)  # copied while it was still there
        shutil.copytree(tmp_path / name / "runs", tmp_path / "all" / "runs", dirs_exist_ok=True)
    for seed in seeds.values():
        outcome, found, _ = train(f"seed={seed}", results=tmp_path / "all")
        assert outcome["how"] == "skipped" and found["seed"] == seed
    assert len(archive.read(tmp_path / "all").runs) == 2

    (tmp_path / "all" / "runs" / found["cell"] / "record.json").unlink()  # it was not finished
    left_by(tmp_path / "all" / "runs" / found["cell"], age=75)
    assert train("seed=1", results=tmp_path / "all")[0]["how"] == "finished"


# eight workers ------------------------------------------------------------------------------


def walk(grid: list, log: Path) -> None:
    """One worker: the whole grid, in order, every line it says with the time."""
    import torch

    torch.set_num_threads(1)
    with log.open("a") as file:

        def say(line: str) -> None:
            file.write(json.dumps([time.monotonic(), os.getpid(), line]) + "\n")
            file.flush()

        for settings in grid:
            run.run(settings, cell.name(settings), say)


@pytest.mark.long
def test_eight_workers_train_a_grid_once_though_three_are_killed(tmp_path):
    (tmp_path / "logs").mkdir()
    words = [*TINY, "model.layers=1", "train.checkpoint_every=1", "train.reference_steps=0"]
    grid = [
        settle(*words, "tracker=none", f"results_dir={tmp_path}", f"seed={s}", f"optimizer={o}")
        for o in ("adamw", "hybrid", "muon")
        for s in range(8)
    ]
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["bench.training.run", "optimizers.muon", MODEL])

    def start(number: int):
        process = server.Process(target=walk, args=(grid, tmp_path / "logs" / str(number)))
        process.start()
        return process

    workers = [start(i) for i in range(8)]
    killed: dict[int, float] = {}
    for number in random.sample(range(8), 3):
        before = len(list(tmp_path.glob("runs/*/record.json")))
        while len(list(tmp_path.glob("runs/*/record.json"))) == before:
            time.sleep(0.01)  # in the midst of work
        time.sleep(random.uniform(0, 0.5))
        killed[workers[number].pid] = time.monotonic()
        workers[number].kill()
        workers[number].join()
        workers[number] = start(number)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0

    told = [
        json.loads(t) for f in (tmp_path / "logs").iterdir() for t in f.read_text().splitlines()
    ]
    told.sort()
    names = {cell.name(settings) for settings in grid}
    assert len(names) == 24
    each_trained_once(tmp_path, names)
    lines = [line for *_, line in told]
    ends = [sum(f"finished; record: {tmp_path}/runs/{n}/" in line for line in lines) for n in names]
    assert max(ends) == 1  # none: killed after it wrote the record, before it said so
    assert sum(ends) >= len(names) - 3
    for name in names:
        begun = [(when, pid) for when, pid, line in told if line == name]
        for (_, pid), (later, _) in pairwise(begun):
            assert killed[pid] < later  # only after a kill is a cell begun again


def each_trained_once(results: Path, names: set[str]) -> None:
    """All cells have a record, and no step is there twice."""
    assert {file.parent.name for file in results.glob("runs/*/record.json")} == names
    for name in names:
        folder = results / "runs" / name
        steps = [x["step"] for x in record.lines(folder / "metrics.jsonl") if "train_loss" in x]
        assert steps == [1, 2, 3, 4, 5, 6]
        assert owner.holder(folder) is None


@pytest.mark.long
def test_eight_commands_train_a_grid_once_though_three_are_killed(tmp_path):
    words = ["-m", "optimizer=adamw,hybrid,muon", f"seed={','.join(map(str, range(8)))}"]
    words += [*TINY, "tracker=none", "train.checkpoint_every=1", f"results_dir={tmp_path}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(number: int) -> subprocess.Popen:
        with (tmp_path / f"log{number}").open("a") as log:
            command = [sys.executable, "bench/train.py", *words]
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)

    commands = [start(i) for i in range(8)]
    for number in random.sample(range(8), 3):
        while not list(tmp_path.glob("runs/*/owner.json")):
            time.sleep(0.05)
        time.sleep(random.uniform(0, 5))
        commands[number].kill()
        commands[number].wait()
        commands[number] = start(number)
    assert [process.wait() for process in commands] == [0] * 8
    said = [line for f in tmp_path.glob("log*") for line in f.read_text().splitlines()]
    names = {file.parent.name for file in tmp_path.glob("runs/*/record.json")}
    assert len(names) == 24
    each_trained_once(tmp_path, names)
    told = [line for line in said if "/24 " in line and " before" not in line]
    ends = [line.split()[1:3] for line in told if line.endswith((" s", "left"))]
    assert len(ends) == len({tuple(one) for one in ends}) >= 24 - 3  # optimizer and seed
