"""bench/report.py as a person types it: one's own runs, compare=, merge=, and mistakes."""

import pytest

from bench import report
from tests.helpers import fake_results
from tests.helpers.commands import command


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "mine"
    for seed in (0, 1, 2):
        fake_results.own(folder, "adamw", seed, 4.0 + 0.01 * seed)
        fake_results.own(folder, "hybrid", seed, 3.7 - 0.02 * seed)
    return folder


@pytest.fixture
def typed(monkeypatch, capsys):
    """The command in this process: status, what it printed, what it complained of."""

    def go(*words):
        monkeypatch.setattr("sys.argv", ["bench/report.py", *map(str, words)])
        status = report.main()
        return status, *capsys.readouterr()

    return go


@pytest.mark.more
def test_a_report_of_own_runs_fits_the_terminal_and_ends_with_where_to_look(mine):
    done = command(f"results_dir={mine}", entry="report")
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("gpt2_nano on fake") and "−0.3" in done.stdout
    assert any("claims have no records yet: bench/train.py experiment=" in one for one in lines)
    assert lines[-1].startswith("look at ") and "compare=[" in lines[-2]
    assert max(len(one) for one in lines[:4]) <= 80
    assert (mine / "pictures" / "your-runs-1-seconds.svg").stat().st_size > 1000
    assert 'id="your-runs"' in (mine / "report.html").read_text()


def test_compare_prints_differences_equal_loss_and_settings_and_writes_nothing(mine, typed):
    before = sorted(mine.rglob("*"))
    status, out, err = typed(f"results_dir={mine}", "compare=[gpt2_nano-adamw,gpt2_nano-hybrid*]")
    assert (status, err) == (0, "") and sorted(mine.rglob("*")) == before
    assert max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    assert "A gpt2_nano-adamw: 3 runs, seed 0 1 2" in text
    assert "test loss 4.0100 3.6800 −0.33" in text and "Paired by seed, n=3 (paired t)." in text
    assert "B reaches A's final validation loss (4.0100) at step" in text
    assert "A reaches B's final validation loss (3.6800) never" in text
    assert "optimizer.name adamw hybrid" in text and "optimizer.lr_scale" not in text


def test_one_run_against_another_has_no_interval_and_says_so(mine, typed):
    words = "compare=[gpt2_nano-adamw-s0-1,gpt2_nano-hybrid-s0-1]"
    status, out, _ = typed(f"results_dir={mine}", words)
    assert status == 0 and "one pair has no interval and no test" in out
    status, out, _ = typed(f"results_dir={mine}", words.replace("hybrid-s0", "hybrid-s1"))
    text = " ".join(out.split())
    assert status == 0 and "Not paired" in text and "so no interval and no test" in text


def test_merge_lists_what_it_did_and_ends_with_counts(mine, tmp_path, typed):
    here = tmp_path / "here"
    torn = mine / "runs" / "gpt2_nano-hybrid-s2-1" / "record.json"
    whole = torn.read_text()
    torn.write_text("{")
    status, out, err = typed(f"merge={mine}", f"results_dir={here}")
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert "refused: gpt2_nano-hybrid-s2-1: broken: not JSON" in lines
    counts = (
        "{} copied, {} here already, 0 different, {} refused, 0 not ended; next: bench/report.py"
    )
    assert lines[-1] == counts.format(5, 0, 1)
    torn.write_text(whole)
    status, out, _ = typed(f"merge={mine}", f"results_dir={here}")
    assert status == 0 and out.splitlines()[-1] == counts.format(1, 5, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("result_dir=x",), "error: result_dir=x: no such setting; perhaps results_dir"),
        (("compare",), "error: compare: no such setting; perhaps compare"),
        (("--chek",), "error: unrecognized arguments: --chek; --help shows"),
        (("results_dir=nowhere",), "error: results_dir=nowhere: no such folder"),
        (("--results", "nowhere"), "error: results_dir=nowhere: no such folder"),
        (("merge=nowhere",), "error: merge=nowhere: no such folder"),
        (("merge=a", "compare=[a,b]"), "error: compare= and merge=: one at a time"),
        (("compare=[a]",), "error: compare=[a]: needs two names"),
    ],
    ids=str,
)
def test_a_mistake_is_one_or_two_lines(typed, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if words[0].startswith("compare=["):
        words = (*words, f"results_dir={tmp_path}")
    status, out, err = typed(*words)
    assert (status, out) == (1, "") and err.startswith(said) and err.count("\n") <= 2
    assert not list(tmp_path.iterdir())
