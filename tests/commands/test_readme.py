"""What README and the pages say is so: tables, commands, examples, links."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from bench import report
from bench.settings import command
from bench.settings.schema import GROUPS, choices_of
from bench.studies import request, study
from bench.verdicts import claims
from models import gpt2
from optimizers.routing import route
from tests.helpers import advice, laboratory, pages, steps
from tests.helpers.commands import ROOT, settle
from tests.helpers.pages import Typed

BUILD = "def build(vocab_size, width=8): ...\n"
GIVEN = {"my_module.py": BUILD, "FOLDER/text.txt": "a text\n", "my/config.json": "{}"}
SETTLE = {
    "train": settle,
    "step": steps.settle,
    "ortho": laboratory.settle,
    "advise": advice.settle,
}


def test_its_tables_are_what_the_records_say():
    done = subprocess.run(
        [sys.executable, "bench/report.py", "--published", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# commands -----------------------------------------------------------------------------------------


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A folder with what the pages take for granted: a module, a text, a configuration."""
    for name, text in GIVEN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


PLACEHOLDER = "NAME"  # of an arm that the reader adds
OTHERS = [page for page in pages.PAGES if page.stem != "README"]


def test_its_commands_are_accepted(at_home, tmp_path):
    accept_all(ROOT / "README.md", tmp_path)


@pytest.mark.more
@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_accepted(page, at_home, tmp_path):
    accept_all(page, tmp_path)


def accept_all(page: Path, folder: Path) -> None:
    searched = f"hydra.searchpath=[file://{written(folder)}]"
    for one in dict.fromkeys(pages.commands(page)):
        accept(one, searched)


def accept(one: Typed, searched: str) -> None:
    """Compose what a page's command asks for, each value of a sweep at least once."""
    if one.entry == "report":
        report.asked(list(one.words))
        return
    for words in pages.jobs(one.words):
        try:
            SETTLE[one.entry](*words, searched)
        except Exception as error:
            raise AssertionError(f"{one.page}: bench/{one.entry}.py {one.words}") from error
    if one.entry == "train" and request.asked(list(one.words)):
        asked = request.read(list(one.words))
        declared = study.load(asked.experiment)
        assert asked.stage in (None, *study.STAGES), one
        assert asked.condition in (None, *declared.conditions), one
        assert asked.arm in (None, PLACEHOLDER, *declared.arms), one


def test_a_command_with_a_wrong_key_value_or_option_is_not_accepted(at_home):
    wrong = ("trian.steps=1", "qkv=per_haed", "-m seed=", "--mutlirun", "experiment=qkv arm=heads")
    for words in (*wrong, "hydra/launcher=slurm hydra.launcher.partitoin=gpu"):
        with pytest.raises((AssertionError, command.UserError)):
            accept(Typed("a page", "train", tuple(words.split())), "seed=0")
    with pytest.raises(command.UserError):
        accept(Typed("a page", "report", ("compaer=[a,b]",)), "")


def test_the_commands_of_the_page_on_gpus_are_accepted_where_there_is_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: True)
    typed = pages.commands(ROOT / "docs" / "gpu.md")
    asked = {entry: [one.words for one in typed if one.entry == entry and one.words]
             for entry in ("train", "step", "ortho")}  # fmt: skip
    assert all(asked.values())
    for words in asked["train"]:
        train = settle(*words).train
        assert (train.device, train.precision) == ("cuda", "bf16")
    for words in asked["step"]:
        assert steps.settle(*words).name == "gpt2-cuda"
    for words in asked["ortho"]:
        assert laboratory.settle(*words).device == "cuda"


def test_what_else_a_page_has_typed_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page in pages.PAGES:
        for line in pages.code(page):
            for target in re.findall(r"^(?:\S+=\S+ )*make ([a-z-]+)", line):
                assert target in targets, (page.name, line)
            for extra in re.findall(r"-e '\.\[(\w[\w-]*)\]'", line):
                assert extra in extras["optional-dependencies"], (page.name, line)
            for name, arguments in re.findall(r"\b(scripts/\w+\.(?:py|sh))\b([^#]*)", line):
                source = (ROOT / name).read_text()
                for option in re.findall(r"--[\w-]+", arguments):
                    assert f'"{option}"' in source, (page.name, line)


# examples -----------------------------------------------------------------------------------------


def written(folder) -> str:
    """The examples of settings' files, in a folder that Hydra can search."""
    for group in ("optimizer", "model", "data", "experiment"):
        (folder / "conf" / group).mkdir(parents=True)
        for name, text in pages.examples(group).items():
            (folder / "conf" / group / f"{name}.yaml").write_text(text)
    return folder / "conf"


def test_an_example_of_an_optimizer_takes_every_parameter():
    (example,) = set(pages.examples("optimizer").values())
    model = gpt2.build(vocab_size=16, layers=1, heads=2, width=8, positions=8)
    routing = route(model, yaml.safe_load(example.replace("2e-3", "0.002")))
    assert {type(o).__name__ for o in routing.optimizers} == {"Muon", "SGD"}


@pytest.mark.parametrize("group", ["optimizer", "model", "data"])
def test_the_examples_of_settings_files_can_be_chosen(group, tmp_path):
    searched = f"hydra.searchpath=[file://{written(tmp_path)}]"
    names = list(pages.examples(group))
    assert names
    for name in names:
        assert getattr(settle(f"{group}={name}", searched), group)["name"] == name


def test_the_examples_of_experiments_are_studies_whose_arms_compose():
    ours = pages.examples("experiment")
    assert ours
    for name, text in ours.items():
        block = yaml.safe_load(text)
        assert block["experiment"] == name
        declared = study.parse(name, block["study"])
        for condition in declared.conditions.values():
            for arm in declared.arms.values():
                settle(*condition, *arm)


def test_the_examples_of_claims_are_claims(tmp_path):
    ours = pages.examples("claim")
    assert len(ours) >= 2
    for name, text in ours.items():
        file = tmp_path / "cost" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        claims.read(file)


# pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages.EVERY, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_to_a_file_and_a_heading(page):
    for target in pages.links(page):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in pages.anchors(file), target


def test_a_page_has_a_title_and_opens_with_a_command_and_the_index_lists_it():
    index = set(pages.links(ROOT / "docs" / "index.md"))
    for page in pages.DOCS:
        text = page.read_text(encoding="utf-8")
        assert page.name == "index.md" or page.name in index, page.name
        assert text.startswith("# "), page.name
        if page.name != pages.GENERATED:
            assert re.match(r"# .+\n\n```(sh|python)\n", text), page.name


def test_every_file_that_can_be_chosen_is_named_on_a_page():
    code = {word for page in pages.PAGES for line in pages.code(page) for word in
            re.findall(r"\w+", line)}  # fmt: skip
    for group in (*GROUPS, "experiment", "hydra/launcher", "hydra/sweeper"):
        assert set(choices_of(group)) <= code, group


def test_the_citation_names_the_version_and_the_licence_of_the_package():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for key in ("version", "license"):
        assert cited[key] == package[key]
    assert [one["name"] for one in cited["authors"]] == ["The muonbench authors"]


def test_the_workflow_and_the_hook_call_what_the_checkout_has():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for repo in hooks for hook in repo["hooks"]] == ["make lint"]
