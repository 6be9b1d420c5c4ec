"""A verdict says when its rule, or the experiment's declaration, is younger than its records."""

import json

import pytest

from bench.records import ledger
from bench.records.ledger import History
from bench.studies.results import Results
from bench.verdicts import claims, judging
from bench.verdicts.ages import YOUNGER, Ages
from bench.verdicts.claims import Claim
from tests.helpers import fake_results

OLD, RULE, NEW = (letter * 40 for letter in "abc")
LINES = (
    f"{OLD} 2026-01-01T00:00:00+00:00\n"
    f"{RULE} 2026-01-02T00:00:00+00:00 {OLD}\n"
    f"{NEW} 2026-01-03T00:00:00+00:00 {RULE}"
)
HISTORY = History(LINES)
ENTRY = {"commit": RULE[:12], "date": "2026-01-02T00:00:00+00:00"}
ASKED = {"experiment": "batch_size", "arm": "hybrid"}
MEASURE = {"_target_": "bench.verdicts.evidence.difference", **ASKED}
CLAIM = Claim("x", "it is so", "Notes A: x", "structure", [MEASURE], {"below": 0})
OWN = claims.digest(json.dumps({"measure": MEASURE, "rule": {"below": 0}}))
STUDY = ledger.of_experiment("batch_size")
CONDITION = "256_tokens"


def judged(folder, rules=(OWN, STUDY), **made):
    """The verdict on records made at the commits of each seed."""
    for seed, commit in made.items():
        environment = fake_results.ENVIRONMENT | {"commit": commit}
        seeds = [int(seed.removeprefix("s"))]
        asked = dict(conditions=[CONDITION], seeds=seeds, environment=environment, study=None)
        for arm in ("adamw", "hybrid"):
            fake_results.fill(folder, "batch_size", arms=[arm], **asked)
    results = Results(folder)
    return judging.judge(CLAIM, results, Ages(results, dict.fromkeys(rules, ENTRY), HISTORY))


def test_a_rule_that_stood_before_its_records_needs_no_word(tmp_path):
    found = judged(tmp_path, s0=NEW, s1=RULE)
    assert found.note == "" and YOUNGER not in found.condition
    assert found.findings[0].records


def test_a_rule_that_is_younger_than_its_records_says_so(tmp_path):
    found = judged(tmp_path, s0=OLD, s1=OLD)
    assert found.note == YOUNGER and found.condition.startswith(f"{YOUNGER}; ")
    assert found.plain()["note"] == YOUNGER


def test_new_seeds_are_told_from_old_ones(tmp_path):
    assert judged(tmp_path, s0=OLD, s1=NEW, s2=NEW).note == f"{YOUNGER}: 2 of 6"


def test_the_same_seed_trained_again_after_the_rule_tells_nothing_new(tmp_path):
    found = judged(tmp_path, s0=NEW, s1=NEW)
    assert found.note == ""
    files = [file.rpartition("/")[2] for file in found.findings[0].records]
    there = f"\0{OLD}\n\nresults/records/batch_size/{files[0]}\n"
    ages = Ages(Results(tmp_path), dict.fromkeys((OWN, STUDY), ENTRY), History(LINES, there))
    assert judging.judge(CLAIM, Results(tmp_path), ages).note == f"{YOUNGER}: 1 of {len(files)}"


@pytest.mark.parametrize("known", [(OWN,), (STUDY,), ()])
def test_a_rule_or_declaration_without_an_age_is_younger_than_all(known, tmp_path):
    assert judged(tmp_path, known, s0=NEW, s1=NEW).note == YOUNGER


def test_a_declaration_that_a_run_noted_at_its_start_is_older_whatever_git_knows(tmp_path):
    environment = fake_results.ENVIRONMENT | {"commit": NEW}
    asked = dict(conditions=[CONDITION], arms=["adamw", "hybrid"], environment=environment)
    for noted, note in ((STUDY, ""), ("another", YOUNGER)):
        fake_results.fill(tmp_path / noted, "batch_size", **asked, study=noted)
        results = Results(tmp_path / noted)
        ages = Ages(results, {OWN: ENTRY}, HISTORY)
        assert judging.judge(CLAIM, results, ages).note == note


def test_a_step_benchmark_and_a_check_have_ages_too(tmp_path):
    fake_results.step(tmp_path, "gpt2-cpu", ("hybrid",))
    fake_results.checks(tmp_path, "a check")
    measure = [
        dict(_target_="bench.verdicts.cost.overhead", step="gpt2", arm="hybrid", units=512),
        dict(_target_="bench.verdicts.evidence.check", names=["a check"]),
    ]
    for one in measure:
        claim = Claim("x", "x", "Notes A: x", "cost", [one], {"below": 0.05})
        results = Results(tmp_path)
        assert judging.judge(claim, results, Ages(results, {}, HISTORY)).note == YOUNGER


def test_a_claim_without_records_has_no_note(tmp_path):
    results = Results(tmp_path)
    assert judging.judge(CLAIM, results, Ages(results, {}, HISTORY)).note == ""


def test_words_are_no_part_of_a_rule_and_a_move_of_code_changes_none():
    text = {"statement": "x", "source": "s", "measure": MEASURE, "rule": {"below": 0}}
    moved = MEASURE | {"_target_": "bench.evidence.difference"}
    assert claims.digest(json.dumps(text)) == OWN
    assert claims.digest(json.dumps(text | {"statement": "y", "measure": [moved]})) == OWN
    assert claims.digest(json.dumps(text | {"rule": {"below": 1}})) != OWN
    assert claims.digest(json.dumps(text | {"measure": MEASURE | {"arm": "split"}})) != OWN
    assert claims.digest("measure: [x]") is None and claims.digest("- x") is None


def test_every_claim_of_the_suite_has_a_rule_whose_age_can_be_known():
    assert all(rule.now for rule in claims.rules())
    assert len(claims.rules()) == sum(claim.denies is None for claim in claims.load())
