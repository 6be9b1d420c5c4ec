"""The commands on machines with other packages: without some, or with an older torch."""

import json
import os

import pytest

from tests.helpers import commands
from tests.helpers.commands import FP32, ROOT, TINY, command, records
from tests.helpers.steps import TEXT

pytestmark = pytest.mark.more

OPTIONAL = ("wandb", "datasets", "altair", "vl_convert")  # for some things that can be asked for
ORTHO = ["shapes=16x24", "dtypes=fp32", "steps=3", "methods=keller"]


def elsewhere(**answers: str) -> dict[str, str]:
    """The environment of a process that finds what tests/elsewhere leaves it."""
    path = os.pathsep.join([str(ROOT / "tests" / "elsewhere"), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path} | answers


BARE = elsewhere(ABSENT=" ".join(OPTIONAL))
OLDER = elsewhere(OLDER_TORCH="1")


def test_without_what_is_not_asked_for_a_run_says_one_line_and_trains(tmp_path):
    """Shipped data and the default tracker; what is not installed is null in the record."""
    done = command(*TINY, f"results_dir={tmp_path}", env=BARE)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "wandb" in line]
    assert said == ["W&B is off for this run: the package wandb is not installed"]
    (one,) = records(tmp_path).values()
    assert one["status"] == "finished"
    made = one["environment"]
    assert made["wandb"] is None and made["datasets"] is None and made["torch"]

    report = command(f"results_dir={tmp_path}", entry="report", env=BARE)
    assert report.returncode == 0, report.stderr
    assert "pip install altair vl-convert-python" in report.stdout
    assert (tmp_path / "README.md").exists() and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("flag", ["--published", "--check"])
def test_without_what_draws_a_report_for_all_to_see_is_refused(flag, tmp_path):
    done = command(flag, f"results_dir={tmp_path}", entry="report", env=BARE)
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    assert done.stderr == f"error: {flag}: needs pictures: pip install altair vl-convert-python\n"


@pytest.mark.more
@pytest.mark.parametrize("environment", [BARE, OLDER], ids=["bare", "older torch"])
def test_the_benchmarks_run_there(tmp_path, environment):
    measured = command(
        *TEXT, "optimizers=[muon]", f"results_dir={tmp_path}", entry="step", env=environment
    )
    assert measured.returncode == 0, measured.stderr
    done = command(*ORTHO, f"results_dir={tmp_path}", entry="ortho", env=environment)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "steps" / "gpt2_nano-cpu.json").read_text())["environment"]
    assert (made["wandb"] is None) == (environment is BARE)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["data=wikitext"], "data=wikitext: for the Hugging Face hub the package datasets"),
        (
            ["data=text_files", "data.path={}", "data.column=text"],
            "a.csv the package datasets is needed",
        ),
    ],
)
def test_where_datasets_is_asked_for_its_absence_is_one_line(asked, words, tmp_path):
    (tmp_path / "a.csv").write_text("text\nhello\n")
    there = [word.format(tmp_path / "a.csv") for word in asked]
    done = command(*there, *TINY, f"results_dir={tmp_path / 'results'}", env=BARE)
    assert done.returncode == 1 and words in done.stderr
    said = [line for line in done.stderr.splitlines() if line != "loading torch"]
    assert len(said) == 2 and "Traceback" not in done.stderr


@pytest.mark.more
def test_an_older_torch_shares_a_step_over_processes(tmp_path, monkeypatch):
    """DDP and the collectives that measure links and gather updates."""
    for key, value in OLDER.items():
        monkeypatch.setenv(key, value)
    sizes = [word for word in TEXT if not word.startswith("batches")]
    shared = ["parallel=ddp", "batches=[2,4,6]", "optimizers=[muon]"]
    done = commands.torchrun(2, *sizes, *FP32, *shared, f"results_dir={tmp_path}", entry="step")
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((tmp_path / "steps" / "gpt2_nano-cpu-ddp-2.json").read_text())
    moved = made["optimizers"]["muon"]["communication"]["step"]["collectives_by_rank"]
    assert all(one["all_gather"]["calls"] > 0 for one in moved)
    assert {"all_gather", "reduce_scatter"} <= made["links"].keys()
