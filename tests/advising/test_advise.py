"""`bench/advise.py` from its settings to what it leaves, on a small model; short of training."""

import json
import re
import shlex
from dataclasses import replace

import pytest
import torch
import yaml

from bench.advising import measure, run, screen, words
from bench.measuring import meter
from bench.records import record
from bench.studies.results import Results
from tests.helpers import commands, fake_results
from tests.helpers.advice import SMALL, measured, own_run, settle
from tests.helpers.commands import ROOT


def advise(folder, *overrides: str) -> tuple[dict, list[str]]:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter, "release", lambda: None)  # of no use to a model this small
        case = settle(*SMALL, f"results_dir={folder}", *overrides)
        assert run.run(case, said.append)["how"] == "finished"
    return json.loads((folder / "advice" / f"{case.name}.json").read_text()), said


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Advice beside made-up records: (folder, its JSON, what was said)."""
    folder = tmp_path_factory.mktemp("given")
    fake_results.fill(folder, "language", ["short"])
    return folder, *advise(folder)


def test_it_leaves_all_that_it_measured_and_said(given):
    _, one, said = given
    assert one["case"]["units"] == 128 and one["headline"].startswith("Outside")
    assert one["takes"]["by_muon"] == 2 * 12 * 32 * 32 and one["takes"]["unread"] == []
    assert one["takes"]["qkv"] == [[6, 32, 32]] and one["takes"]["qkv_per_head"] == [[24, 8, 32]]
    assert set(one["costs"]) == set(settle(*SMALL).arms)
    hybrid = one["costs"]["hybrid"]
    assert hybrid["overhead"]["measured"] and 0 < hybrid["state_saved"] < 0.5
    assert one["costs"]["muon"]["state_saved"] == pytest.approx(0.5, abs=0.01)
    assert {e["source"] for e in one["evidence"]} == {"language/short"}
    assert any(line.startswith("gpt2_nano-cpu-4x32: building the model") for line in said)


def test_its_screen_answers_every_part_in_80_columns_and_its_page_says_the_same(given):
    folder, one, _ = given
    assert max(map(len, one["said"])) <= 80 and len(one["said"]) <= 64
    page = (folder / "advice" / "gpt2_nano-cpu-4x32.md").read_text()
    for part in ("What Muon would take", "What it costs", "When it pays", "Where to start"):
        assert any(line.startswith(part) for line in one["said"]) and f"## {part}" in page
    screen = " ".join(" ".join(one["said"]).split())
    assert "language/short" in screen and "Outside what was measured" in screen
    written = yaml.safe_load((folder / "advice/experiment/gpt2_nano-cpu-4x32.yaml").read_text())
    assert written["model"] == {"layers": 2, "width": 32, "heads": 4}


def test_its_commands_are_those_that_training_takes(given):
    _, one, _ = given
    asked = shlex.split(one["test"]["command"])[3:]
    plain = [word for word in asked if "," not in word and "YOUR_TEXT" not in word]
    commands.settle(*(word for word in plain if word != "data=text_files"))


class Broken(torch.optim.Muon):
    def step(self, closure=None):
        raise RuntimeError("the step\nbroke")


@pytest.mark.more
def test_a_model_of_images(tmp_path):
    case = settle("model=vit_nano", "model.layers=1", "train.batch_size=4", "train.device=cpu",
                  f"results_dir={tmp_path}")  # fmt: skip
    run.run(case, lambda line: None)
    one = json.loads((tmp_path / "advice" / "vit_nano-cpu-4.json").read_text())
    assert (one["case"]["unit"], one["case"]["units"]) == ("images", 4)
    assert one["takes"]["attentions"] == 1 and "text_files" not in one["test"]["command"]
    assert any("4 images a step" in line for line in one["said"])


def test_an_optimizer_that_breaks_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.optim, "Muon", Broken)
    one, _ = advise(tmp_path)
    assert "the step broke" in one["costs"]["torch_muon"]["error"]
    assert one["costs"]["hybrid"]["over_torch_muon"] is None
    assert any("the step broke" in line for line in one["said"])
    assert one["headline"].startswith("No record")


def test_a_batch_that_takes_too_long_is_fitted_from_smaller_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(measure.plan, "SECONDS", 0.0)
    one, said = advise(tmp_path, "train.batch_size=16")
    assert one["measured"]["units"] == [32, 64, 96]
    assert not one["costs"]["hybrid"]["overhead"]["measured"]
    assert any("a batch of 16 is too large" in line for line in said)
    assert re.search(r"under: hybrid ~\d", " ".join(" ".join(one["said"]).split()))


@pytest.mark.more
def test_where_states_do_not_fit_they_are_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(measure.plan, "keeps_states", lambda *of: False)
    one, _ = advise(tmp_path)
    assert not any(cost["error"] for cost in one["costs"].values())


OWN = """
import torch
from types import SimpleNamespace


class Net(torch.nn.Module):
    def __init__(self, vocab_size, width):
        super().__init__()
        self.embed = torch.nn.Embedding(vocab_size, width)
        self.inner, self.head = (torch.nn.Linear(width, out) for out in (width, vocab_size))

    def forward(self, input_ids, labels=None):
        return SimpleNamespace(logits=self.head(self.inner(self.embed(input_ids)).relu()))


def build(vocab_size, width=8):
    return Net(vocab_size, width)
"""


@pytest.mark.more
def test_a_model_of_ones_own_from_the_folder_where_the_command_is_typed(tmp_path):
    (tmp_path / "my_module.py").write_text(OWN)
    typed = ["model=my_module:build", "+model.width=4", "model.tokenizer=sotu1024"]
    typed += ["train.batch_size=2", "train.sequence_length=16", "train.device=cpu"]
    done = commands.command(*typed, "results_dir=results", entry="advise", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no attention was seen" in done.stdout and "No Q, K and V were seen." in done.stdout
    assert (tmp_path / "results/advice/my_module.build-cpu-2x16.json").exists()
    assert "reading the settings" in done.stderr.splitlines()[0]


def test_help_names_every_setting_and_the_page():
    done = commands.command("--help", entry="advise")
    for key in yaml.safe_load((ROOT / "conf" / "advise.yaml").read_text()):
        if key not in ("defaults", "hydra"):
            assert re.search(rf"^  {key}[.=]", done.stdout, flags=re.M), key
    assert "docs/advice.md" in done.stdout


def test_a_sweep_of_ones_own_near_the_case_decides_it(tmp_path):
    """What the command at the end of the advice leaves, read by the same advice."""
    for optimizer, gain in (("adamw", 0.0), ("hybrid", 0.5)):
        for rate in (0.5, 1.0, 2.0):
            for seed in (0, 1, 2):
                loss = 3.0 - gain + 0.2 * (rate != 1.0) + 0.01 * seed
                own_run(tmp_path, optimizer, seed, rate, loss)
    case = settle("train.batch_size=8", "train.sequence_length=128", "train.steps=600",
                  "train.device=cpu", f"results_dir={tmp_path}")  # fmt: skip
    steps = {"adamw": 10.0, "hybrid": 110.0, "muon": 110.0}
    times = replace(measured(steps), parameters=1_573_376)
    said = run.advice(case, times, None, Results(tmp_path))
    assert said["headline"].startswith("Train with hybrid")
    assert [said["decisions"][arm]["outcome"] for arm in ("hybrid", "muon")] == [
        "pays",
        "no record",
    ]
    text = " ".join(screen.screen(words.sections(json.loads(record.as_json(said)))).split())
    assert "hybrid: pays" in text and "muon: no record" in text and "75 % (75–75)" in text
    slow = replace(measured(steps | {"hybrid": 910.0, "muon": 910.0}), parameters=1_573_376)
    said = run.advice(case, slow, None, Results(tmp_path))
    assert said["headline"].startswith("Not hybrid: by the records near this case")
