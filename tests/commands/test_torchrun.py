"""What two processes leave in results/, and a report of it."""

import pytest

from tests.helpers.commands import TINY, command, records, torchrun

pytestmark = pytest.mark.more
STEPS = [word for word in TINY if word.startswith(("model.", "orthogonalizer."))]
STEPS += ["train.precision=fp32", "train.device=cpu", "train.sequence_length=32"]


def test_a_step_benchmark_and_a_run_of_two_processes_are_reported(tmp_path, monkeypatch):
    """torch's Muon is among the optimizers: it shares no work, so that nothing is predicted."""
    monkeypatch.setenv("COLUMNS", "200")
    results = f"results_dir={tmp_path}"
    done = torchrun(2, *STEPS, "parallel=ddp", "batches=[2,4,6]", "rounds=3", results, entry="step")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "failed" not in done.stderr
    rows = [row for row in done.stdout.splitlines() if "torch_muon" in row]
    assert "none" in rows[-1] and "–" in rows[-1]
    trained = torchrun(2, *TINY, "parallel=ddp", "tracker=none", results)
    assert trained.returncode == 0, trained.stderr
    (one,) = records(tmp_path).values()
    assert (one["parallel"], one["world_size"]) == ("ddp", 2)
    reported = command(f"results_dir={tmp_path}", entry="report")
    assert reported.returncode == 0 and "1 runs, " in reported.stdout, reported.stderr
    assert "left out" not in reported.stderr
