"""A terminal and a locale of ASCII: the commands end well and write plain signs."""

import os

import pytest

from tests.helpers.commands import TINY, command

pytestmark = pytest.mark.more
# LC_ALL=C alone would have Python choose UTF-8.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def plain(*arguments: str, entry: str = "train") -> str:
    """All that a command says; it has to end well."""
    done = command(*arguments, entry=entry, env=os.environ | ASCII)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert done.stdout.isascii() and done.stderr.isascii()
    return done.stdout + done.stderr


def test_a_run_its_table_and_the_report(tmp_path):
    said = plain(*TINY, "tracker=none", f"results_dir={tmp_path}")
    assert "finished; record: " in said and "ms  (p10-p90 " in said
    assert "1 runs, " in plain(f"results_dir={tmp_path}", entry="report")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not page.isascii()  # a file has all signs, whatever the terminal


def test_a_look_at_the_roles_and_a_step_benchmark(tmp_path):
    assert "optimizer=hybrid: " in plain(*TINY, "inspect=true", f"results_dir={tmp_path}")
    words = [word for word in TINY if word.startswith(("model.", "orthogonalizer."))]
    said = plain(
        *words, "train.precision=fp32", "train.device=cpu", "train.sequence_length=32",
        "batches=[1,2,3]", "rounds=3", "optimizers=[hybrid]", f"results_dir={tmp_path}",
        entry="step",
    )  # fmt: skip
    assert "T*m/B" in said
