"""Whether a design tells a known difference apart: what tables say where arms are called equal."""

from dataclasses import replace

from bench.studies import difference, sensitivity, words
from bench.studies.results import Results
from tests.helpers import fake_results


def compared(folder, arm, offs):
    """A comparison whose arm differs from AdamW by these numbers, one a seed."""
    fake_results.fill(folder, "optimizers", ["language"])
    (one,) = Results(folder).comparisons("optimizers", ["language"])
    losses = {"adamw": dict.fromkeys(range(5), 3.0), arm: {s: 3.0 + off for s, off in offs}}
    found = difference.between(losses, one.study, [arm])[arm]
    base, other = one.arm("adamw"), one.arm("hybrid")
    return replace(one, arms=[base, replace(other, name=arm, difference=found)])


def test_a_table_says_where_an_equality_has_no_control(tmp_path):
    equal = compared(tmp_path, "hybrid", enumerate([0.001, -0.001, 0.0, 0.001, -0.002]))
    control = compared(tmp_path, sensitivity.ARM, enumerate([0.05, 0.06, 0.05, 0.04, 0.05]))
    (alone,) = (note for note in words.notes(equal) if note.startswith("Equal"))
    assert "No claim is judged by it: no control shows" in alone
    (beside,) = (note for note in words.notes(equal, [control]) if note.startswith("Equal"))
    assert "No claim" not in beside


def test_a_control_of_other_steps_or_that_is_not_told_apart_counts_for_nothing(tmp_path):
    equal = compared(tmp_path, "hybrid", enumerate([0.001, -0.001, 0.0, 0.001, -0.002]))
    seen = compared(tmp_path, sensitivity.ARM, enumerate([0.05, 0.06, 0.05, 0.04, 0.05]))
    assert sensitivity.doubt(equal, [seen]) is None
    base = seen.arms[0]
    longer = [run._replace(record=run.record | {"steps": 7}) for run in base.runs]
    other = replace(seen, arms=[replace(base, runs=longer), seen.arms[1]])
    assert "no control" in sensitivity.doubt(equal, [other])
    unseen = compared(tmp_path, sensitivity.ARM, enumerate([0.3, -0.3, 0.1, 0.2, -0.2]))
    assert "not told apart either" in sensitivity.doubt(equal, [unseen])
