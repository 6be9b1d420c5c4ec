"""results/rules.json: which rule is how old, by the content of its file and the history of git."""

import json
import subprocess

import pytest

from bench.records import ledger, origin, record
from bench.records.ledger import History, Rule
from tests.helpers.commands import ROOT, TINY, settle
from tests.helpers.runs import stop_at

STUDY = """
train: {precision: fp32}
study:
  question: Which is better?
  margin: 0.02
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A checkout of its own: write and commit a declaration; grow the entries."""

    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        done = subprocess.run(
            ["git", *identity, "-C", str(tmp_path), *words], capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else None

    git("init", "--quiet")
    monkeypatch.setattr(ledger, "CONF", tmp_path / "conf")
    monkeypatch.setattr(origin, "git", git)
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)

    def commit(text, name="e"):
        (folder / f"{name}.yaml").write_text(text)
        git("add", ".")
        git("commit", "--quiet", "--message", "x")
        return git("rev-parse", "HEAD")[: ledger.SHORT]

    commit.git = git
    return commit


def grown(known=None):
    return ledger.grown(known or {}, ledger.studies())


def test_a_declaration_is_as_old_as_its_content_and_words_for_readers_are_none_of_it(repository):
    repository(STUDY.replace("0.02", "0.01"))
    since = repository(STUDY)
    repository("# a comment\n" + STUDY.replace("Which", "What"))
    repository.git("mv", "conf/experiment/e.yaml", "conf/experiment/f.yaml")
    repository.git("commit", "--quiet", "--message", "renamed")
    entries, loose = grown()
    (entry,) = entries.values()
    assert not loose
    assert (entry["what"], entry["name"], entry["commit"]) == ("study", "f", since)
    assert entry["date"].startswith("20")


def test_what_is_not_committed_is_named_and_not_noted(repository):
    repository(STUDY)
    changed = ledger.study("e").file
    changed.write_text(STUDY.replace("0.02", "0.5"))
    assert grown() == ({}, [changed])
    changed.write_text(STUDY + "  limits: none\n")  # the same rule in other words
    assert len(grown()[0]) == 1


def test_entries_are_added_and_never_changed(repository):
    repository(STUDY)
    before, _ = grown()
    odd = {key: one | {"date": "2000-01-01T00:00:00+00:00"} for key, one in before.items()}
    repository(STUDY.replace("0.02", "0.5"))
    after, _ = grown(odd)
    assert list(after.items())[:1] == list(odd.items()) and len(after) == 2


def test_a_common_setting_of_the_runs_is_part_of_a_declaration_and_layout_is_not():
    whole = ledger.study_digest(STUDY)
    assert whole and whole != ledger.study_digest(STUDY.replace("fp32", "bf16"))
    assert whole == ledger.study_digest(json.dumps(ledger.block(STUDY)))
    assert ledger.study_digest("train: {}") is None and ledger.study_digest("study: [") is None


def test_the_committed_file_only_grows():
    """What HEAD has is where the file begins; every entry says what it is of."""
    now = ledger.read()
    said = origin.git("show", "HEAD:results/rules.json")
    before = list(json.loads(said).items()) if said else []
    assert list(now.items())[: len(before)] == before
    for key, one in now.items():
        assert len(key) == 16 and one["what"] in ("claim", "study"), key
        assert len(one["commit"]) == ledger.SHORT and one["date"] and one["name"], key


# ages -------------------------------------------------------------------------------------------

A, B, C, D = (letter * 40 for letter in "abcd")
DAYS = {A: "2026-01-01", B: "2026-01-02", C: "2026-01-03", D: "2026-01-04"}
LINES = {A: "", B: A, C: A, D: f"{B} {C}"}  # b and c beside each other, joined in d


def history():
    return History("\n".join(f"{k} {DAYS[k]}T00:00:00+00:00 {v}" for k, v in LINES.items()))


def rule(commit, date="2026-01-02T00:00:00+00:00"):
    return {"commit": commit[: ledger.SHORT], "date": date}


@pytest.mark.parametrize(
    ("old", "new", "stood"),
    [(A, A, True), (A, D, True), (C, D, True), (D, A, False), (B, C, False), (C, B, False)],
)
def test_a_rule_stood_where_its_commit_leads_to_that_of_the_result(old, new, stood):
    assert history().stood(rule(old), {"commit": new}) is stood


@pytest.mark.parametrize(
    ("environment", "stood"),
    [
        ({"commit": A}, False),
        ({"commit": C}, True),
        ({"commit": "e" * 40, "commit_date": "2026-01-02T01:00:00+01:00"}, True),
        ({"commit": "e" * 40, "commit_date": "2026-01-01T23:59:59+00:00"}, False),
        ({"commit": "e" * 40}, False),  # nothing shows it
        ({}, False),
    ],
)
def test_where_a_commit_is_not_known_dates_decide(environment, stood):
    assert history().stood(rule("f" * 40), environment) is stood


def test_a_cell_that_was_published_before_a_rule_is_known_by_its_file():
    """The newest first: a record that went and came again is as old as the first one."""
    added = f"\0{D}\n\nr/e/x.json\nr/e/y.json\n\0{A}\n\nr/other/x.json\n"
    lines = "\n".join(f"{k} {DAYS[k]}T00:00:00+00:00 {v}" for k, v in LINES.items())
    known = History(lines, added)
    found = {name: known.published_before(rule(B), name) for name in ("x.json", "y.json", "z.json")}
    assert found == {"x.json": True, "y.json": False, "z.json": False}
    assert not known.published_before(rule(A), "x.json")  # they came together
    assert not known.published_before(rule("f" * 40), "x.json")


# what runs note ---------------------------------------------------------------------------------


def test_a_run_notes_the_declaration_it_began_under_and_keeps_it(tmp_path, monkeypatch):
    part = ["experiment=smoke", "stage=final", "condition=text", "arm=hybrid"]
    settings = settle(*TINY, *part)
    record.join(tmp_path, settings, begins=True)
    began = record.study(tmp_path, settings)
    assert began == ledger.study("smoke").now
    assert record.about(settings, "x", began)["study"] == began
    monkeypatch.setattr(ledger, "of_experiment", lambda _: "another")
    record.join(tmp_path, settings)  # goes on, or is found done
    assert record.study(tmp_path, settings) == began
    record.join(tmp_path, settings, begins=True)  # from its first step again
    assert record.study(tmp_path, settings) == "another"


def test_a_record_has_the_declaration_that_its_interrupted_run_began_under(train, monkeypatch):
    part = ["experiment=smoke", "stage=final", "condition=text", "arm=hybrid"]
    with monkeypatch.context() as patch:
        stop_at(patch, 5, RuntimeError("gone"))
        assert train(*part)[1]["status"] == "failed"
    began = ledger.of_experiment("smoke")
    monkeypatch.setattr(ledger, "of_experiment", lambda _: "another")
    assert train(*part)[1]["study"] == began
    assert train(*part, "rerun=true")[1]["study"] == "another"


def test_a_run_that_was_there_before_an_experiment_notes_nothing(tmp_path):
    own, other = (
        settle(*TINY, f"experiment={name}", "stage=final", "condition=text", "arm=hybrid")
        for name in ("smoke", "cost")
    )
    record.join(tmp_path, own, begins=True)
    record.join(tmp_path, other)
    assert record.study(tmp_path, other) is None and record.study(tmp_path, own)
    assert [one["experiment"] for one in record.parts(tmp_path)] == ["smoke", "cost"]


def test_outside_of_an_experiment_there_is_no_declaration(tmp_path):
    record.join(tmp_path, settle(*TINY), begins=True)
    assert record.study(tmp_path, settle(*TINY)) is None
    assert ledger.of_experiment(None) is None and ledger.of_experiment("no such") is None


def test_a_rule_lies_in_a_file_of_this_checkout():
    assert all(isinstance(one, Rule) and one.file.is_file() for one in ledger.studies())
    assert ledger.FILE == ROOT / "results" / "rules.json"
