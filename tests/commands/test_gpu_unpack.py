"""scripts/gpu_unpack.py: what came back from a machine with a GPU is put in place, or refused."""

import json
import tarfile
from pathlib import Path

import pytest

from bench.records import record
from bench.studies import study
from tests.helpers import fake_results

COMMIT = fake_results.ENVIRONMENT["commit"]


@pytest.fixture
def returned(script, tmp_path, monkeypatch):
    """Records that came back, as $OUT has them, and a checkout to put them into: unpack them."""
    unpack, publish = script("gpu_unpack"), script("publish")
    monkeypatch.setattr(publish, "ROOT", tmp_path / "checkout")
    back, out = tmp_path / "back", tmp_path / "out"
    out.mkdir()

    def go(commit: str = COMMIT, rehearsal: bool = False, cut: int = 0):
        (out / "run.jsonl").write_text(json.dumps({"rehearsal": rehearsal}) + "\n")
        with tarfile.open(out / "run.tar", "w") as tar:
            for file in sorted(f for f in back.rglob("*") if f.is_file()):
                tar.add(file, file.relative_to(back))
        if cut:
            whole = (out / "run.tar").read_bytes()
            (out / "run.tar").write_bytes(whole[:cut])
        monkeypatch.setattr("sys.argv", ["gpu_unpack.py", str(out), "--commit", commit])
        results = tmp_path / "checkout" / "results"
        status = unpack.main()
        return status, sorted(str(f.relative_to(results)) for f in results.rglob("*.json"))

    return go


def on_gpu(file: Path, gpu: str, **changes) -> None:
    """Make the record of a CPU one of a GPU."""
    one = json.loads(file.read_text())
    one["environment"] = one["environment"] | {"gpu": gpu} | changes
    one["device"] = "cuda"
    record.write_json(file, one)


def run_of(folder: Path, device: str = "cuda", seed: int = 0, **changes) -> str:
    """A run's folder, part of the smoke experiment; its name."""
    declared = study.load("smoke")
    one = fake_results.one(declared, "final", "text", "hybrid", seed, 1.0)
    one["cell"] += f"-{device}"
    one["config"] = {"train": one["config"]["train"] | {"device": device}}
    one["environment"] = one["environment"] | changes
    where = folder / "runs" / one["cell"]
    where.mkdir(parents=True)
    record.write_json(where / "record.json", one)
    record.write_json(where / "part_of.json", [{key: one[key] for key in record.PART}])
    return one["cell"]


def test_records_that_came_back_are_put_in_place(returned, tmp_path):
    on_gpu(fake_results.step(tmp_path / "back", "gpt2-cuda", ("hybrid",)), "Imagined GPU")
    pictures = ("gpt2-cuda.svg", "gpt2-cuda-timeline.svg")
    for name in pictures:
        (tmp_path / "back" / "steps" / name).write_text(name)
    cell = run_of(tmp_path / "back")
    for name in ("ortho/cuda/case", "ceilings/imagined-gpu"):
        file = tmp_path / "back" / f"{name}.json"
        file.parent.mkdir(parents=True)
        record.write_json(file, {"environment": fake_results.ENVIRONMENT})
    status, files = returned()
    assert status == 0
    there = ["ceilings/imagined-gpu.json", "ortho/cuda/case.json", f"records/smoke/{cell}.json"]
    assert files == [*there, "steps/gpt2-cuda.json"]
    for name in pictures:
        assert (tmp_path / "checkout/results/steps" / name).read_text() == name


def test_what_another_commit_made_or_no_commit_has_is_refused(returned, tmp_path, capsys):
    step = fake_results.step(tmp_path / "back", "gpt2-cuda", ("hybrid",))
    on_gpu(step, "Imagined GPU", commit="of yesterday")
    cell = run_of(tmp_path / "back", dirty=True)
    good = run_of(tmp_path / "back", seed=1)
    status, files = returned()
    assert (status, files) == (1, [f"records/smoke/{good}.json"])
    said = capsys.readouterr().err
    assert "refused: steps/gpt2-cuda.json: of commit of yesterday" in said
    assert f"refused: {cell}: made from uncommitted code" in said
    assert returned(commit="another") == (1, [f"records/smoke/{good}.json"])


def test_a_run_of_no_experiment_stays_where_it_is(returned, tmp_path):
    cell = run_of(tmp_path / "back")
    (tmp_path / "back" / "runs" / cell / "part_of.json").unlink()
    assert returned() == (0, [])


def test_a_rehearsal_is_not_published(returned, tmp_path, capsys):
    run_of(tmp_path / "back")
    assert returned(rehearsal=True) == (1, [])
    assert "a rehearsal, nothing to publish" in capsys.readouterr().err


def test_of_a_tar_that_was_cut_off_what_is_whole_is_put_in_place(returned, tmp_path, capsys):
    for name in ("a-cuda", "b-cuda"):
        on_gpu(fake_results.step(tmp_path / "back", name, ("hybrid",)), "Imagined GPU")
    size = (tmp_path / "back/steps/a-cuda.json").stat().st_size
    assert returned(cut=512 + 512 * -(-size // 512) + 1000) == (0, ["steps/a-cuda.json"])
    assert "run.tar was cut off" in capsys.readouterr().err


def test_records_of_other_devices_stay(returned, tmp_path):
    """A CPU's runs beside a GPU's, and a step of one GPU beside another's of the same name."""
    checkout = tmp_path / "checkout" / "results"
    declared = study.load("smoke")
    on_cpu = fake_results.one(declared, "final", "text", "hybrid", 0, 1.0)
    stale = on_cpu | {"cell": "stale", "config": {"train": {"device": "cuda"}}}
    for one in (on_cpu, stale):
        fake_results.write(checkout, one)
    on_gpu(fake_results.step(checkout, "gpt2-cuda", ("hybrid",)), "Imagined GPU")
    on_gpu(fake_results.step(tmp_path / "back", "gpt2-cuda", ("hybrid",)), "Other GPU")
    cell = run_of(tmp_path / "back")
    status, files = returned()
    assert status == 0
    runs = sorted([f"records/smoke/{cell}.json", f"records/smoke/{on_cpu['cell']}.json"])
    assert files == [*runs, "steps/gpt2-cuda-other-gpu.json", "steps/gpt2-cuda.json"]
