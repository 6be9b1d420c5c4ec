"""scripts/publish.py: what is committed is lost neither by a full disk nor by an odd record."""

import errno
import json

import pytest

from bench.records import files, ledger
from bench.studies import lines
from scripts import publish
from tests.helpers.commands import TINY, settle


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publish one finished cell whose record `text` may replace; what is published then."""
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    target = tmp_path / "results" / "records" / "smoke"
    target.mkdir(parents=True)
    (target / "old.json").write_text("{}")

    def go(text=None):
        for file in tmp_path.glob("runs/*/record.json"):
            one = json.loads(file.read_text())
            one["environment"]["dirty"] = False
            file.write_text(json.dumps(one) if text is None else text)
        monkeypatch.setattr("sys.argv", ["publish.py", "smoke", f"results_dir={tmp_path}"])
        status = publish.main()
        return status, sorted(file.name for file in target.iterdir())

    return go


PART = ["experiment=smoke", "stage=final", "condition=text", "arm=hybrid"]


@pytest.mark.parametrize("age", [{"commit": "0" * 12, "date": "2026-01-01"}, None])
def test_the_age_of_the_declaration_is_noted_or_it_is_said_why_not(
    age, train, published, monkeypatch, tmp_path, capsys
):
    train(*PART)
    monkeypatch.setattr(ledger, "first", lambda *_: age)
    assert published()[0] == 0
    noted = json.loads((tmp_path / "results" / "rules.json").read_text())
    whole = {"what": "study", "name": "smoke", **(age or {})}
    assert noted == ({ledger.of_experiment("smoke"): whole} if age else {})
    assert ("smoke.yaml: not committed" in capsys.readouterr().err) is (age is None)


def test_new_records_take_the_place_of_old_ones_once_they_are_there(train, published, monkeypatch):
    _, one, _ = train(*PART)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match=f"{one['cell']}.json"):
            published()
    assert published() == (0, [f"{one['cell']}.json"])


def test_runs_of_a_condition_that_is_declared_no_more_are_not_published(
    train, published, tmp_path, capsys
):
    train(*PART)
    (file,) = tmp_path.glob("runs/*/part_of.json")
    file.write_text(file.read_text().replace('"text"', '"speech"'))
    status, there = published()
    assert status == 1 and there == ["old.json"]
    assert "smoke: no ended run of it" in capsys.readouterr().out


def full(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("text", ['{"status": "finished"}', "[]", "[" * 99_999, "\x00"])
def test_a_record_of_another_shape_is_named_and_nothing_is_removed(train, published, text, capsys):
    train(*PART)
    assert published(text) == (1, ["old.json"])
    assert "record.json: " in capsys.readouterr().err


def test_the_reference_lines_of_published_runs_go_with_them(train, published, tmp_path):
    _, one, _ = train(*PART)
    settings = settle(*TINY, "tracker=none", f"results_dir={tmp_path / 'mine'}")
    lines.make(settings, "here", print)
    (file,) = (tmp_path / "mine" / "lines").glob("*.json")
    content = json.loads(file.read_text())
    here = tmp_path / "lines" / file.name
    here.parent.mkdir()
    target = tmp_path / "results" / "lines"
    for dirty, status, there in ((True, 1, []), (False, 0, [file.name])):
        content["environment"]["dirty"] = dirty
        here.write_text(json.dumps(content))
        other = content | {"of": content["of"] | {"seed": 5}}
        here.with_name("of-another-run.json").write_text(json.dumps(other))
        assert published() == (status, [f"{one['cell']}.json"])
        assert [file.name for file in target.glob("*")] == there
