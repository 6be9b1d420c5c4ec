"""Claims that no record bears on are counted, with the command that the most of them wait for."""

from bench.verdicts import waiting
from bench.verdicts.claims import Claim
from bench.verdicts.finding import Finding
from bench.verdicts.judging import OPEN, Verdict


def verdict(name, *findings, experiment=None):
    measure = [{"_target_": "x"} | ({"experiment": experiment} if experiment else {})]
    return Verdict(Claim(name, name, "x", "cost", measure), OPEN, list(findings), "")


MISSING, UNDECIDED = Finding("", missing="a run"), Finding("here", 1.0, undecided="too wide")


def test_a_claim_with_one_finding_is_not_without_records():
    ours = verdict("a", MISSING, UNDECIDED), verdict("b", MISSING, MISSING)
    judged, without = waiting.split(ours)
    assert [one.claim.name for one in judged] == ["a"]
    assert [one.claim.name for one in without] == ["b"] and waiting.needs(without[0]) == "a run"


def test_the_line_counts_them_and_names_one_experiment():
    ours = [verdict(name, MISSING, experiment="qkv") for name in "ab"]
    ours.append(verdict("c", MISSING, experiment="cost"))
    said = "3 claims have no records yet: bench/train.py experiment=qkv"
    assert waiting.line(ours) == said
    assert waiting.line(ours[:1]) == "1 claim has no records yet: bench/train.py experiment=qkv"
    assert "1 claim has no records yet; verdicts.json" in waiting.line([verdict("d", MISSING)])
    assert waiting.line([]) is None
