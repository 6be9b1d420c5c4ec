"""Verdicts follow from findings by the stated rules."""

import json

import pytest

from bench.records import record
from bench.settings.errors import UserError
from bench.studies.results import Results
from bench.verdicts import claims, judging
from bench.verdicts.claims import Claim
from bench.verdicts.finding import Finding
from bench.verdicts.judging import CONFIRMED, DEPENDS, OPEN, REFUTED, THEOREM
from tests.helpers.commands import ROOT

# findings to verdicts --------------------------------------------------------------------------

INSIDE, OUTSIDE, ACROSS = (
    Finding("here", value, low, high, 5, "loss")
    for value, low, high in ((-2.0, -3.0, -1.0), (2.0, 1.0, 3.0), (0.0, -1.0, 1.0))
)
UNSHOWN = Finding("there", -2.0, -3.0, -1.0, 5, "loss", undecided="no difference shown")
LACKING = Finding("elsewhere", missing="the runs")
YES, NO, PART = (
    Finding("of its own", 1.0, holds=holds, in_part=holds is None) for holds in (True, False, None)
)


def judged(monkeypatch, findings, rule):
    """The verdict on hand-made findings."""
    monkeypatch.setattr(judging.targets, "find", lambda _: lambda _, found: found)
    measure = [{"_target_": "hand", "found": [finding]} for finding in findings]
    claim = Claim("x", "it is so", "Notes A: x", "cost", measure, rule)
    return judging.judge(claim, Results(ROOT / "tests"))


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([INSIDE], CONFIRMED),
        ([OUTSIDE], REFUTED),
        ([ACROSS], OPEN),  # the interval straddles the bound
        ([UNSHOWN], OPEN),
        ([LACKING], OPEN),
        ([INSIDE, OUTSIDE], DEPENDS),
        ([INSIDE, ACROSS], DEPENDS),
        ([INSIDE, UNSHOWN], DEPENDS),
        ([OUTSIDE, ACROSS], DEPENDS),
        ([INSIDE, LACKING], OPEN),  # what was declared and not run keeps it from being confirmed
        ([OUTSIDE, LACKING], REFUTED),
        ([YES], CONFIRMED),
        ([NO], REFUTED),
        ([PART], DEPENDS),  # a check of the laboratory that says so itself
        ([YES, PART], DEPENDS),
        ([NO, INSIDE], DEPENDS),
    ],
)
def test_the_verdict_on_findings(findings, verdict, monkeypatch):
    assert judged(monkeypatch, findings, {"below": 0}).verdict == verdict


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ({"below": 1}, CONFIRMED),
        ({"above": 1.5}, REFUTED),
        ({"above": -1}, CONFIRMED),
        ({"below": -1.5}, REFUTED),
        ({"between": [-1, 1]}, CONFIRMED),
        ({"between": [2, 3]}, REFUTED),
        ({"between": [0, 2]}, OPEN),
        ({"above": 0}, OPEN),
        ({}, OPEN),
    ],
)
def test_the_whole_interval_has_to_lie_where_the_rule_says(rule, verdict, monkeypatch):
    assert judged(monkeypatch, [ACROSS], rule).verdict == verdict


def test_a_verdict_says_where_it_holds_and_what_is_missing(monkeypatch):
    found = judged(monkeypatch, [INSIDE, UNSHOWN, OUTSIDE, PART, LACKING], {"below": 0})
    assert found.condition.split("; ") == [
        "holds: here -2 (-3 to -1, n=5)",
        "undecided (no difference shown): there -2 (-3 to -1, n=5)",
        "fails: here 2 (1 to 3, n=5)",
        "holds in part: of its own 1",  # without a range
        "missing: the runs",
    ]


def test_shares_are_shown_in_percent(monkeypatch):
    share = Finding("x", 0.341, 0.341, 0.341, 1, "share of state saved")
    assert judged(monkeypatch, [share], {"above": 0}).condition == "holds: x 34.1%"


def test_a_verdict_is_written_with_its_number_and_records(monkeypatch):
    first = Finding("x", -1.0, -2.0, -0.5, 5, "loss", records=["b.json", "a.json"])
    second = Finding("y", -1.0, -2.0, -0.5, 5, "loss", records=["a.json"])
    plain = judged(monkeypatch, [LACKING, first, second], {"below": 0}).plain()
    plain = json.loads(json.dumps(plain))
    assert plain["claim"] == "x" and plain["verdict"] == OPEN
    assert [plain[k] for k in ("value", "low", "high", "n")] == [-1, -2, -0.5, 5]
    assert plain["unit"] == "loss" and plain["records"] == ["a.json", "b.json"]
    assert "missing: the runs" in plain["condition"] and len(plain["findings"]) == 3
    nothing = judged(monkeypatch, [LACKING], {}).plain()
    assert nothing["value"] is None and nothing["records"] == []


# theorems, and claims that contradict each other ----------------------------------------------


@pytest.mark.parametrize(
    ("findings", "verdict"), [([YES], THEOREM), ([NO], REFUTED), ([LACKING], OPEN)]
)
def test_a_theorem_is_no_confirmed_claim(findings, verdict, monkeypatch):
    monkeypatch.setattr(judging.targets, "find", lambda _: lambda _, found: found)
    measure = [{"_target_": "hand", "found": findings}]
    claim = Claim("x", "it is so", "Notes A: x", "cost", measure, theorem=True)
    found = judging.judge(claim, Results(ROOT / "tests"))
    assert found.verdict == verdict and found.plain()["theorem"] is True


@pytest.mark.parametrize(
    ("findings", "verdict", "contrary"),
    [
        ([INSIDE], CONFIRMED, REFUTED),
        ([OUTSIDE], REFUTED, CONFIRMED),
        ([NO], REFUTED, CONFIRMED),
        ([ACROSS], OPEN, OPEN),
        ([INSIDE, OUTSIDE], DEPENDS, DEPENDS),
        ([OUTSIDE, LACKING], REFUTED, OPEN),
    ],
)
def test_one_comparison_decides_on_a_claim_and_on_its_contrary(
    findings, verdict, contrary, monkeypatch
):
    monkeypatch.setattr(judging.targets, "find", lambda _: lambda _, found: found)
    measure = [{"_target_": "hand", "found": findings}]
    one = Claim("x", "it is so", "Notes A: x", "cost", measure, {"below": 0})
    other = Claim("y", "it is not", "Notes A: x", "cost", measure, {"below": 0}, denies="x")
    both = [judging.judge(claim, Results(ROOT / "tests")) for claim in (one, other)]
    assert [found.verdict for found in both] == [verdict, contrary]


def test_a_claim_that_denies_another_has_its_measure_and_rule(tmp_path, monkeypatch):
    folder = tmp_path / "conf" / "claim" / "cost"
    folder.mkdir(parents=True)
    monkeypatch.setattr(claims, "CONF", tmp_path / "conf")
    whole = {
        "statement": "x",
        "source": "Notes A: x",
        "measure": {"_target_": "bench.verdicts.evidence.nothing", "needs": "a run"},
        "rule": {"below": 1},
    }
    denying = {"statement": "y", "source": "Notes A: y", "denies": "x"}
    record.write_json(folder / "x.yaml", whole)
    record.write_json(folder / "y.yaml", denying)
    x, y = claims.load()
    assert y.denies == "x" and (y.measure, y.rule) == (x.measure, x.rule)
    assert [rule.file.stem for rule in claims.rules()] == ["x"]
    for wrong in ("y", "z"):
        record.write_json(folder / "y.yaml", denying | {"denies": wrong})
        with pytest.raises(UserError, match=rf"cost/y\.yaml: denies={wrong}: must be a claim"):
            claims.load()
