"""What a page opens with really runs, in small; so does the code for other people's scripts."""

import re

import pytest

from tests.helpers import advice, fake_results, pages, steps
from tests.helpers.commands import ROOT, TINY, command, torchrun
from tests.helpers.pages import GENERATED

pytestmark = pytest.mark.more
PAGE = ROOT / "docs" / "optimizers_in_your_script.md"
NET = """
import torch
from types import SimpleNamespace


class Net(torch.nn.Module):
    def __init__(self, vocab_size, width):
        super().__init__()
        self.embed = torch.nn.Embedding(vocab_size, width)
        self.head = torch.nn.Linear(width, vocab_size)

    def forward(self, input_ids, labels=None):
        return SimpleNamespace(logits=self.head(self.embed(input_ids).relu()))


def build(vocab_size, width=8):
    return Net(vocab_size, width)
"""
SMALL = {  # what makes a command of each entry short
    "train": [word for word in TINY if not word.startswith("model.")],
    "step": steps.TEXT,
    "ortho": ["shapes=8x16", "samples=2", "pictures=false", "device=cpu"],
    "advise": advice.SMALL,
    "report": [],
}
OPENING = [page for page in pages.DOCS if page != PAGE and page.name != GENERATED]


@pytest.mark.parametrize("page", OPENING, ids=lambda page: page.stem)
def test_what_it_opens_with_runs(page, tmp_path):
    one = pages.commands(page)[0]
    (tmp_path / "my_module.py").write_text(NET)
    small = list(SMALL[one.entry])
    if one.entry == "train":
        if "my_module" not in " ".join(one.words):
            small += [word for word in TINY if word.startswith("model.")]
        if any(word.startswith("experiment=") for word in one.words):
            small = []  # its arms and conditions say what is small
    if one.entry == "report":
        for optimizer in ("adamw", "hybrid"):
            fake_results.own(tmp_path / "results", optimizer, 0, 4.0)
    words = [*one.words, *small, f"results_dir={tmp_path / 'results'}"]
    if "torchrun" in page.read_text(encoding="utf-8").partition("\n```\n")[0]:
        done = torchrun(2, *words)
    else:
        done = command(*words, entry=one.entry, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


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
