"""The page for other people's scripts does what it says."""

import re

import pytest

from tests.helpers.commands import ROOT

pytestmark = pytest.mark.more
PAGE = ROOT / "docs" / "optimizers_in_your_script.md"


def test_its_code_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    pytest.importorskip("accelerate")  # Trainer's
    monkeypatch.chdir(tmp_path)
    first, *others = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(first.strip().splitlines()) <= 15
    names = {"__name__": "script"}
    exec(first, names)
    assert 0 < float(capsys.readouterr().out.splitlines()[-1]) < 6
    assert len(names["optimizer"].state) == len(list(names["model"].parameters()))
    for block in others:
        exec(block, names)
    shown = capsys.readouterr().out
    assert "hidden: Muon" in shown and "Embedding tied to lm_head" in shown
    (row,) = (row for row in names["optimizer"].table if row["name"] == "qkv.weight")
    assert row["matrices"] == [[3, 32, 32]]


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
