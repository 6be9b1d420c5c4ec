"""docs/own_model.ipynb: it is whole, its words are accepted, and its cells do what they promise."""

import base64
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bench import report
from bench.records import archive
from bench.settings import command
from bench.studies import pairs
from tests.helpers import advice, commands, notebook

WHOLE = json.loads(notebook.OWN_MODEL.read_text(encoding="utf-8"))
KEYS = {
    "markdown": {"cell_type", "id", "metadata", "source"},
    "code": {"cell_type", "id", "metadata", "source", "execution_count", "outputs"},
}
OUTPUTS = {
    "stream": {"output_type", "name", "text"},
    "display_data": {"output_type", "data", "metadata"},
}
PNG = b"\x89PNG\r\n"


def test_it_is_a_whole_notebook_that_was_run_from_top_to_bottom():
    assert (WHOLE["nbformat"], WHOLE["nbformat_minor"]) == (4, 5)
    assert WHOLE.keys() == {"cells", "metadata", "nbformat", "nbformat_minor"}
    ids = [cell["id"] for cell in WHOLE["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]{1,64}", one) for one in ids)
    for cell in WHOLE["cells"]:
        assert set(cell) == KEYS[cell["cell_type"]] and isinstance(cell["source"], list)
    code = notebook.cells("code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        compile(notebook.text(cell), cell["id"], "exec")  # no magic of IPython's
        for output in cell["outputs"]:
            assert set(output) == OUTPUTS[output["output_type"]]
        assert bool(cell["outputs"]) == bool(
            re.search("^ *(print|display)", notebook.text(cell), re.M)
        )


def test_its_picture_is_in_it():
    shown = [o for cell in notebook.cells("code") for o in cell["outputs"] if "data" in o]
    assert shown
    for output in shown:
        assert base64.b64decode(output["data"]["image/png"]).startswith(PNG)


def test_it_names_no_place_of_a_machine():
    text = notebook.OWN_MODEL.read_text(encoding="utf-8")
    assert not re.findall(r"/(?:home|root|work|tmp|usr|Users|opt|var|mnt|private)/[^ \"]*", text)


def test_its_module_has_ten_lines():
    (source,) = re.findall(r'class Net\(.*?(?=""")', notebook.program(), flags=re.S)
    assert len([line for line in source.splitlines() if line.strip()]) == 10


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """The words of each command that its cells type, by the command; none is run."""
    found: dict[str, list[list[str]]] = {}
    asked = "python bench/train.py -m seed=0,1,2 optimizer=adamw,hybrid"

    def note(words, cwd, **options):
        name = Path(words[1]).stem
        found.setdefault(name, []).append(list(words[2:]))
        said = {"headline": "", "decisions": {}, "test": {"command": asked}}
        pictures = cwd / "results" / "pictures"
        (cwd / "results" / "advice").mkdir(parents=True, exist_ok=True)
        (cwd / "results" / "advice" / "my_net.json").write_text(json.dumps(said))
        pictures.mkdir(exist_ok=True)
        drawn = '<svg xmlns="http://www.w3.org/2000/svg" width="2" height="2"/>'
        (pictures / "your-runs-1-steps.svg").write_text(drawn)
        return subprocess.CompletedProcess(words, 0, "done", "")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", note)
    exec(notebook.program(), {"__name__": "notebook"})
    return found


@pytest.mark.more
def test_its_commands_are_accepted(typed):
    assert set(typed) == {"advise", "train", "report"} and len(typed["advise"]) == 2
    for words in typed["advise"]:
        advice.settle(*command.in_full(words))
    for words in typed["train"]:
        commands.settle(*(word.split(",")[0] for word in words if word != "-m"))
    for words in typed["report"]:
        assert report.asked(words).results_dir == "results"


@pytest.mark.more
def test_what_its_text_says_to_type_is_accepted_too(typed):
    case = command.in_full([w for w in typed["advise"][0] if w.startswith(("model", "train"))])
    texts = " ".join(map(notebook.text, notebook.cells("markdown")))
    said = [words for words in re.findall(r"`([^`]+)`", texts) if "=" in words]
    assert len(said) >= 4
    for words in said:
        if not words.endswith("="):
            commands.settle(*case, *command.in_full(shlex.split(words)))


def test_its_links_lead_somewhere():
    texts = " ".join(map(notebook.text, notebook.cells("markdown")))
    targets = re.findall(r"\]\(([^)#:]+)\)", texts)
    assert targets and all((notebook.OWN_MODEL.parent / target).exists() for target in targets)


@pytest.mark.more
def test_its_cells_do_what_they_promise_in_plain_python(tmp_path):
    done = notebook.run(tmp_path)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "own_model" / "results"
    for part in ("What Muon would take", "What it costs", "When it pays", "Where to start"):
        assert part in done.stdout
    said = json.loads((results / "advice" / "my_net.json").read_text())
    assert said["takes"]["attentions"] == 1 and said["headline"] in done.stdout
    assert {one["source"] for one in said["evidence"]} == {"your runs, my_net.Net on sotu"}
    assert "no record" not in said["decisions"]["hybrid"]["outcome"]

    (bench,) = pairs.benches(archive.read(results).runs)
    by_arm = {
        arm: [one for one in bench.groups if one.optimizer == arm] for arm in ("adamw", "hybrid")
    }
    assert len(by_arm["adamw"]) == len(by_arm["hybrid"]) == len(bench.groups) / 2 >= 3
    assert all(one.seeds == [0, 1, 2] for one in bench.groups)
    for one in by_arm["hybrid"]:
        assert one.difference.n == 3 and one.difference.low < one.difference.high
        assert one.name in done.stdout
    assert (tmp_path / "own_model" / "loss.png").read_bytes().startswith(PNG)
    assert {path.name for path in tmp_path.iterdir()} == {"own_model"}
