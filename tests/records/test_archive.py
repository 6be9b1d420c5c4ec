"""Records are read once each; what is no whole record of this suite is named and left out."""

import json
from pathlib import Path

from bench.records import archive

WHOLE = {
    **dict(schema=1, status="finished", seed=0, steps=10, model="m", optimizer="adamw"),
    **dict(lr_scale=1.0, config={}, curve=[{"step": 10, "val_loss": 1.0}], environment={}),
    **dict(command="", precision="fp32", parameters=1, val_loss=1.0, test_loss=1.0),
    **dict(overhead=None, experiment="e", stage="final", condition="c", arm="a"),
}


def write(file: Path, **changes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(WHOLE | {"cell": file.stem} | changes))
    return file


def test_what_is_no_whole_record_is_named_and_left_out(tmp_path):
    folder = tmp_path / "records" / "e"
    good = write(folder / "good.json")
    bad = {
        write(folder / "twin.json", cell="good"): "duplicate",
        write(folder / "half.json", curve=None): "partial: without curve",
        write(folder / "torn.json", curve=[None]): "curve[0]: must be an object",
        write(folder / "empty.json", test_loss=None): "partial: finished without a loss",
        write(folder / "lost.json", status="failed"): "not ended: failed",
        write(folder / "newer.json", schema=99): "foreign: schema 99",
        folder / "broken.json": "broken",
        folder / "list.json": "foreign",
        folder / "binary.json": "broken",
    }
    (folder / "broken.json").write_text('{"schema": 1, "cell": "x"')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    found = archive.read(tmp_path)
    assert [run.file for run in found.runs] == [good]
    left_out = dict(found.left_out)
    assert left_out.keys() == bad.keys()
    for file, reason in bad.items():
        assert left_out[file].startswith(reason)


def test_a_diverged_run_is_a_result(tmp_path):
    write(tmp_path / "records/e/x.json", status="diverged", test_loss=None, val_loss=None)
    assert len(archive.read(tmp_path).runs) == 1


def test_a_cell_can_be_a_part_of_several_experiments(tmp_path):
    parts = [dict(experiment=e, stage="final", condition="c", arm="a") for e in ("e", "f")]
    write(tmp_path / "records/e/x.json", part_of=parts)
    found = archive.read(tmp_path)
    assert [run.experiment for run in found.runs] == ["e", "f"] and not found.left_out
    assert len(found.of("f", "final", "c")) == 1 and not found.of("f", "tune")


def test_own_runs_count_beside_published_ones_and_the_published_copy_wins(tmp_path):
    write(tmp_path / "records/e/x.json")
    write(tmp_path / "runs/x/record.json", cell="x")
    write(tmp_path / "runs/y/record.json", cell="y")
    both = archive.read(tmp_path)
    assert {run.file.parts[-3] for run in both.runs} == {"records", "runs"}
    assert [run.record["cell"] for run in both.runs] == ["x", "y"] and not both.left_out
    assert len(archive.read(tmp_path, published=True).runs) == 1


def test_the_time_of_a_step_is_the_median_over_runs(tmp_path):
    for seed, value in enumerate((0.1, 0.5, 0.2)):
        write(tmp_path / f"records/e/{seed}.json", seed=seed, overhead={"value": value})
    assert archive.relative_times(archive.read(tmp_path).runs) == {"a": 1.2}
