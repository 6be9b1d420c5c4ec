"""What the README says is so: its tables, its commands, its example of an optimizer."""

import re
import shlex
import subprocess
import sys

import yaml

from bench.settings import command
from models import gpt2
from optimizers.routing import route
from tests.helpers import laboratory, steps
from tests.helpers.commands import ROOT, settle

README = (ROOT / "README.md").read_text()


def test_its_tables_are_what_the_records_say():
    done = subprocess.run(
        [sys.executable, "bench/report.py", "--published", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_commands_are_accepted():
    text = README.replace("\\\n", " ")
    lines = re.findall(r"bench/train\.py ([^\n`#]+)", text)
    assert len(lines) >= 4
    for line in lines:
        words = [word for word in shlex.split(line) if word not in ("-m", "--help")]
        settle(*(word.split(",")[0] for word in words))


def test_the_commands_of_the_page_on_gpus_are_accepted_where_there_is_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: True)
    page = (ROOT / "docs" / "gpu.md").read_text()
    asked = {
        entry: [shlex.split(words) for words in re.findall(rf"bench/{entry}\.py ([^\n`#)]+)", page)]
        for entry in ("train", "step", "ortho")
    }
    assert all(asked.values())
    for words in asked["train"]:
        train = settle(*words).train
        assert (train.device, train.precision) == ("cuda", "bf16")
    for words in asked["step"]:
        assert steps.settle(*words).name == "gpt2-cuda"
    for words in asked["ortho"]:
        assert laboratory.settle(*words).device == "cuda"


def test_the_commands_of_the_pages_on_sweeps_and_trackers_are_accepted():
    for page in ("hydra", "trackers"):
        text = (ROOT / "docs" / f"{page}.md").read_text().replace("\\\n", " ")
        asked = [shlex.split(words) for words in re.findall(r"bench/train\.py([^\n#]*)", text)]
        assert len(asked) >= 4
        for words in asked:
            command.check(words)


def test_the_scripts_it_names_take_what_it_gives_them():
    for name, arguments in set(re.findall(r"(scripts/\w+\.py)([^\n`#]*)", README)):
        done = subprocess.run(
            [sys.executable, name, "--help"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        for option in re.findall(r"--[\w-]+", arguments):
            assert option in done.stdout, (name, option)


def test_its_example_of_an_optimizer_works():
    (example,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.S)
    model = gpt2.build(vocab_size=16, layers=1, heads=2, width=8, positions=8)
    routing = route(model, yaml.safe_load(example.replace("2e-3", "0.002")))
    assert {type(o).__name__ for o in routing.optimizers} == {"Muon", "SGD"}


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
