"""Runs of another machine: checked, taken in whole, never over others, wherever it was killed."""

import json

import pytest

from bench.records import archive, merge
from bench.records.merge import COPIED, DIFFERENT, NOT_ENDED, REFUSED, SAME
from bench.settings.errors import UserError
from tests.helpers import fake_results

BESIDE = {
    "part_of.json": "[]",
    "metrics.jsonl": '{"step": 1}\n',
    "config.yaml": "seed: 0\n",
    "routing.json": '[{"role": "hidden"}]',
}


@pytest.fixture
def there(tmp_path):
    """Another machine's results folder with one whole run, and where that is."""
    one = fake_results.own(tmp_path / "there", "adamw", 0, 4.0)
    folder = tmp_path / "there" / "runs" / one["cell"]
    for name, text in BESIDE.items():
        (folder / name).write_text(text)
    (folder / "checkpoint").mkdir()
    return folder


def merged(there, here):
    source = there.parent.parent
    return [(one.how, one.why) for one in merge.merge(source, here)]


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_a_whole_run_comes_with_its_five_files_and_is_read(there, tmp_path):
    here = tmp_path / "here"
    assert merged(there, here) == [(COPIED, "")]
    copy = here / "runs" / there.name
    assert content(copy) == content(there) and not (copy / "checkpoint").exists()
    assert [run.record["cell"] for run in archive.read(here).runs] == [there.name]
    assert [file.name for file in (here / "runs").iterdir()] == [there.name]
    assert merged(there, here) == [(SAME, "")]


def test_its_runs_folder_may_be_named_too(there, tmp_path):
    outcomes = list(merge.merge(there.parent, tmp_path / "here"))
    assert [one.how for one in outcomes] == [COPIED]


@pytest.mark.parametrize("name", ["record.json", "metrics.jsonl"])
def test_a_different_run_of_the_name_is_named_and_both_stay(there, tmp_path, name):
    here = tmp_path / "here"
    merged(there, here)
    ours = here / "runs" / there.name
    other = json.loads(there.joinpath("record.json").read_text()) | {"test_loss": 1.0}
    (ours / name).write_text(json.dumps(other) if name == "record.json" else '{"step": 2}\n')
    before = content(ours), content(there)
    ((how, why),) = merged(there, here)
    assert how == DIFFERENT and why.startswith(name)
    assert (content(ours), content(there)) == before


def test_the_same_record_in_another_layout_is_the_same(there, tmp_path):
    here = tmp_path / "here"
    merged(there, here)
    file = here / "runs" / there.name / "record.json"
    file.write_text(json.dumps(json.loads(file.read_text())))
    assert merged(there, here) == [(SAME, "")]


def test_a_run_that_goes_on_here_is_left_alone(there, tmp_path):
    ours = tmp_path / "here" / "runs" / there.name
    ours.mkdir(parents=True)
    (ours / "owner.json").write_text("{}")
    assert merged(there, tmp_path / "here") == [(DIFFERENT, "a run here that has not ended")]
    assert [file.name for file in ours.iterdir()] == ["owner.json"]


@pytest.mark.parametrize(
    ("name", "text", "how"),
    [
        ("record.json", "{", REFUSED),
        ("record.json", '{"schema": 1}', REFUSED),
        ("part_of.json", '[{"arm": 3}]', REFUSED),
        ("metrics.jsonl", '{"step": 1}\n{"ste', REFUSED),
        ("config.yaml", "seed: [", REFUSED),
        ("config.yaml", "text", REFUSED),
        ("routing.json", "[1]", REFUSED),
        ("record.json", None, NOT_ENDED),
    ],
)
def test_what_is_not_whole_is_refused_with_a_reason(there, tmp_path, name, text, how):
    file = there / name
    file.unlink() if text is None else file.write_text(text)
    fake_results.own(tmp_path / "there", "hybrid", 0, 4.0)  # others come all the same
    found = merged(there, tmp_path / "here")
    assert [one for one, _ in found] == [how, COPIED] and found[0][1]
    assert not (tmp_path / "here" / "runs" / there.name).exists()


def test_a_run_in_a_folder_of_another_name_is_refused(there, tmp_path):
    there.rename(there.with_name("renamed"))
    ((how, why),) = merged(there, tmp_path / "here")
    assert how == REFUSED and why.startswith("of another cell")


def test_a_merge_that_stopped_halfway_leaves_no_half_run_and_goes_on(there, tmp_path, monkeypatch):
    here = tmp_path / "here"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(merge.os, "fsync", killed)
        patch.setattr(merge.shutil, "rmtree", lambda *_, **__: None)  # SIGKILL clears nothing up
        with pytest.raises(KeyboardInterrupt):
            merged(there, here)
    assert (here / "runs" / merge.ASIDE / there.name / "record.json").exists()
    assert archive.read(here).runs == [] == archive.read(here).left_out
    assert merged(there, here) == [(COPIED, "")]
    assert [file.name for file in (here / "runs").iterdir()] == [there.name]


def test_a_folder_without_runs_or_this_very_one_is_one_line(there, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        list(merge.merge(tmp_path / "nowhere", tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no record of a run there"):
        list(merge.merge(tmp_path / "empty", tmp_path))
    with pytest.raises(UserError, match="this results folder itself"):
        list(merge.merge(tmp_path / "there", tmp_path / "there"))
