"""Claims: every file can be judged, and verdicts follow from findings by the stated rules."""

import ast
import json
import re

import pytest
from hydra.utils import get_method

from bench.records import record
from bench.settings.errors import UserError
from bench.studies import study
from bench.studies.results import Results
from bench.verdicts import claims, cost, evidence
from bench.verdicts.claims import CONFIRMED, DEPENDS, OPEN, REFUTED, Claim
from bench.verdicts.finding import Finding
from tests.helpers import fake_results
from tests.helpers.commands import ROOT

FILES = sorted((ROOT / "conf" / "claim").rglob("*.yaml"))
FILE_OF = {file.stem: file for file in FILES}
SPREAD = [-0.02, -0.01, 0.0, 0.01, 0.02]  # of five seeds; about 0.0233 a paired t test has p = 0.03


# the files -------------------------------------------------------------------------------------


def measures(kinds: str):
    """The arguments of all measures of some kinds, with the claims they belong to."""
    for file in FILES:
        for one in claims.read(file).measure:
            if get_method(one["_target_"]).__name__ in kinds.split():
                yield file.stem, {k: v for k, v in one.items() if k != "_target_"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_claim_can_be_judged_and_names_what_it_lacks(file, tmp_path):
    claim = claims.read(file)
    assert claim.source.startswith("seed ")
    verdict = claims.judge(claim, Results(tmp_path))
    assert verdict.verdict == OPEN and verdict.findings
    assert all(f.missing and f.missing in verdict.condition for f in verdict.findings)


def test_claims_are_sorted_by_topic_and_none_is_lost():
    found = claims.load()
    assert {claim.name for claim in found} == {file.stem for file in FILES}
    topics = [claims.TOPICS.index(claim.topic) for claim in found]
    assert topics == sorted(topics) and set(topics) == set(range(len(claims.TOPICS)))


def test_every_arm_and_condition_that_a_claim_names_is_declared():
    for name, asked in measures("difference equality saving"):
        declared = study.load(asked["experiment"])
        arms = {asked["arm"], asked.get("against") or declared.baseline}
        assert arms <= declared.arms.keys() and len(arms) == 2, name
        assert set(asked.get("conditions", [])) <= declared.conditions.keys(), name
        assert asked.get("of", "peak") in {*evidence.BYTES, "peak"}, name


def test_every_arm_of_a_step_benchmark_that_a_claim_names_was_measured():
    for name, asked in measures("overhead"):
        found = cost.overhead(Results(ROOT / "results"), **asked)
        assert all(f.missing is None for f in found), name
        assert claims.read(FILE_OF[name]).rule == {"below": asked["level"]}


def test_every_check_that_a_claim_names_is_one_of_the_laboratory():
    literal, patterns = check_names(ROOT / "bench")
    known = {one["name"] for one in Results(ROOT / "results").json("ortho/checks.json")["checks"]}
    literal |= {name for name in known if any(re.fullmatch(p, name) for p in patterns)}
    wanted = {name for _, asked in measures("check") for name in asked["names"]}
    assert wanted <= literal, f"no such check: {', '.join(sorted(wanted - literal))}"


def check_names(folder) -> tuple[set[str], set[str]]:
    """The names of checks in the source: literal ones, and those with parts to fill in as patterns.

    A name is the first argument, or `name`, of a call of Check or of a function that returns one.
    """
    trees = [ast.parse(file.read_text()) for file in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    makers = {"Check"} | {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef)
        and isinstance(node.returns, ast.Name)
        and node.returns.id == "Check"
    }
    literal, patterns = set(), set()
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        if getattr(call.func, "id", getattr(call.func, "attr", None)) not in makers:
            continue
        for value in [*call.args[:1], *(k.value for k in call.keywords if k.arg == "name")]:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                literal.add(value.value)
            if isinstance(value, ast.JoinedStr):
                parts = [isinstance(v, ast.Constant) and re.escape(v.value) for v in value.values]
                patterns.add("".join(part or ".+" for part in parts))
    return literal, patterns


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"statment": "x"}, ["statment", "accepted", "statement"]),
        ({"statement": None}, ["statement is missing"]),
        ({"measure": None}, ["measure is missing"]),
        ({"topic": "cost"}, ["topic", "accepted", "statement"]),  # its folder says it
        ({"measure": {"names": ["x"]}}, ["_target_", "bench.verdicts.evidence.check"]),
        (
            {"measure": {"_target_": "bench.verdicts.evidence.chek"}},
            ["bench.verdicts.evidence.chek"],
        ),
        ({"measure": {"_target_": "bench.verdicts.evidence.check", "name": "x"}}, ["name"]),
        ({"rule": {"under": 1}}, ["under", "below: x"]),
        ({"rule": {"below": "x"}}, ["rule", "below: x"]),
        ({"rule": {"between": [1, 0]}}, ["rule", "low, high"]),
        ({"rule": {"below": 1, "above": 0}}, ["rule", "below: x"]),
    ],
)
def test_a_mistake_in_a_claim_is_named(change, words, tmp_path):
    whole = {
        "statement": "x",
        "source": "seed 1: x",
        "measure": {"_target_": "bench.verdicts.evidence.check", "names": ["x"]},
        "rule": {"below": 1},
    }
    file = tmp_path / "cost" / "x.yaml"
    file.parent.mkdir()
    file.write_text(json.dumps(whole))
    assert claims.read(file).name == "x"
    file.write_text(json.dumps(whole | change))
    with pytest.raises(UserError) as caught:
        claims.read(file)
    assert all(word in str(caught.value) for word in ["conf/claim/cost/x.yaml", *words]), (
        caught.value
    )
    assert str(caught.value).count("\n") < 2


@pytest.mark.parametrize("text", ["source: [", "- statement: x"])
def test_a_file_that_is_no_claim_is_named(text, tmp_path):
    file = tmp_path / "cost" / "x.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(UserError, match=r"conf/claim/cost/x\.yaml"):
        claims.read(file)


def test_a_claim_lies_in_its_topics_folder_and_names_are_unique_across_topics(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(claims, "CONF", tmp_path / "conf")
    whole = (ROOT / "conf" / "claim" / "memory" / "third_of_state_muon.yaml").read_text()
    for folder in ("", "speed", "cost", "memory"):
        (tmp_path / "conf" / "claim" / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "conf" / "claim" / "cost" / "x.yaml").write_text(whole)
    assert [(one.topic, one.name) for one in claims.load()] == [("cost", "x")]
    for folder, words in (("", "topic's folder: cost, memory"), ("speed", "topic's folder: cost")):
        odd = tmp_path / "conf" / "claim" / folder / "y.yaml"
        odd.write_text(whole)
        with pytest.raises(UserError, match=words):
            claims.load()
        odd.unlink()
    (tmp_path / "conf" / "claim" / "memory" / "x.yaml").write_text(whole)
    with pytest.raises(UserError, match=r"cost.*two claims of one name"):
        claims.load()


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
    monkeypatch.setattr(claims.targets, "find", lambda _: lambda _, found: found)
    measure = [{"_target_": "hand", "found": [finding]} for finding in findings]
    claim = Claim("x", "it is so", "seed 1: x", "cost", measure, rule)
    return claims.judge(claim, Results(ROOT / "tests"))


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
        ([INSIDE, LACKING], CONFIRMED),
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
    assert plain["claim"] == "x" and plain["verdict"] == CONFIRMED
    assert [plain[k] for k in ("value", "low", "high", "n")] == [-1, -2, -0.5, 5]
    assert plain["unit"] == "loss" and plain["records"] == ["a.json", "b.json"]
    assert "missing: the runs" in plain["condition"] and len(plain["findings"]) == 3
    nothing = judged(monkeypatch, [LACKING], {}).plain()
    assert nothing["value"] is None and nothing["records"] == []


# records to findings ---------------------------------------------------------------------------


def archived(folder, losses, experiment="optimizers", condition="language", **more) -> Results:
    """Results with final runs: test losses of seeds 0, 1, … by arm; None for one that diverged."""
    for arm, values in losses.items():
        for seed, value in enumerate(values):
            one = dict(experiment=experiment, stage="final", condition=condition, arm=arm)
            one |= dict(schema=1, cell=f"{arm}-s{seed}", seed=seed, steps=6, lr_scale=1, config={})
            one |= dict(model="gpt2_nano", optimizer=arm, curve=[{"step": 6}], overhead=None)
            one |= dict(environment={}, command="", precision="fp32", parameters=1)
            one |= dict(status="diverged" if value is None else "finished")
            one |= dict(val_loss=value, test_loss=value)
            one |= {key: of(arm, seed) for key, of in more.items()}
            run = folder / "runs" / f"{experiment}-{condition}-{arm}-{seed}"
            run.mkdir(parents=True)
            record.write_json(run / "record.json", one)
    return Results(folder)


def above(mean):
    """Losses of five seeds whose differences from 3 have this mean, and the same spread always."""
    return [3 + mean + off for off in SPREAD]


LOSSES = {"adamw": [3.0] * 5, "hybrid": above(-0.0233)}


def first(found):
    """Of one condition that has records, beside another that has none."""
    assert sum(f.missing is None for f in found) == 1
    return next(f for f in found if f.missing is None)


def test_a_difference_is_paired_and_has_its_records(tmp_path):
    steep = [float(seed) for seed in range(5)]  # what the seeds differ by cancels
    losses = {arm: [x + y for x, y in zip(of, steep, strict=True)] for arm, of in LOSSES.items()}
    found = evidence.difference(archived(tmp_path, losses), experiment="optimizers", arm="hybrid")
    one = first(found)
    assert one.value == pytest.approx(-0.0233) and one.low < one.value < one.high < 0
    assert one.n == 5 and one.undecided is None and len(one.records) == 10
    assert (tmp_path / one.records[0]).exists()
    assert "hybrid against adamw" in one.condition and "language" in one.condition
    assert "of the experiment's runs are missing" in one.note
    assert [f.missing for f in found if f.missing] == [
        "hybrid and adamw of experiment=optimizers, vision"
    ]


@pytest.mark.parametrize("against", ["adamw", "torch_muon"])
def test_a_difference_is_corrected_over_all_arms(against, tmp_path):
    """Shown by itself, not among three of which two show nothing; an A/A arm is none of them."""
    base = "adamw" if against == "torch_muon" else "torch_muon"
    asked = dict(experiment="optimizers", arm="hybrid", against=against)
    alone = {against: [3.0] * 5, "hybrid": LOSSES["hybrid"], "adamw_again": above(0)}
    company = alone | {base: above(0), "muon": above(0)}
    one, other = (
        first(evidence.difference(archived(tmp_path / name, losses), **asked))
        for name, losses in (("alone", alone), ("company", company))
    )
    assert one.undecided is None and one.value == other.value and one.high == other.high < 0
    assert "no difference shown (p=0.0" in other.undecided and "seeds would show" in other.undecided


def test_a_claim_of_a_difference_fails_where_the_arms_are_equal(tmp_path):
    """The margin is 0.02; differences that scatter twenty times as widely show nothing."""
    asked = dict(experiment="optimizers", arm="hybrid")
    near, far = (
        first(evidence.difference(archived(tmp_path / str(scale), losses), **asked))
        for scale in (1, 20)
        for losses in [{"adamw": [3.0] * 5, "hybrid": [3 + scale * off for off in SPREAD]}]
    )
    assert near.holds is False and near.undecided is None and "equal within ±0.02" in near.note
    assert far.holds is None and "no difference shown" in far.undecided


def test_a_difference_needs_two_seeds_that_both_finished(tmp_path):
    losses = {"adamw": [3.0, None, None], "hybrid": [2.0, 2.0, 2.0]}
    found = evidence.difference(archived(tmp_path, losses), experiment="optimizers", arm="hybrid")
    assert all(f.missing for f in found)
    assert "two seeds" in found[0].missing and "1 so far" in found[0].missing


def test_diverged_runs_are_flagged(tmp_path):
    losses = LOSSES | {"hybrid": [*LOSSES["hybrid"][:4], None]}
    found = evidence.difference(archived(tmp_path, losses), experiment="optimizers", arm="hybrid")
    assert first(found).n == 4 and "1 runs of hybrid diverged" in first(found).note


@pytest.mark.parametrize(
    ("mean", "scale", "same", "no_worse"),
    [
        (0.0, 0.1, True, True),
        (0.05, 0.1, False, False),
        (-0.05, 0.1, False, True),
        (0.02, 1.0, None, None),
        (-0.02, 1.0, None, True),
        (0.0, 3.0, None, None),
    ],
)
def test_equality_needs_the_interval_inside_the_margin(mean, scale, same, no_worse, tmp_path):
    losses = {"adamw": [3.0] * 5, "hybrid": [3 + mean + scale * off for off in SPREAD]}
    results = archived(tmp_path, losses)
    for or_better, holds in ((False, same), (True, no_worse)):
        found = first(
            evidence.equality(results, experiment="optimizers", arm="hybrid", or_better=or_better)
        )
        assert found.holds is holds and (found.undecided is None) == (holds is not None)
        assert "0.02" in found.note and "90 %" in found.unit


def test_equality_needs_a_margin(tmp_path):
    with pytest.raises(UserError, match=r"study\.margin: experiment=cost has none"):
        evidence.equality(Results(tmp_path), experiment="cost", arm="muon")


def state(arm, seed):
    return {"total": {"adamw": 800, "hybrid": 550, "muon": 400}[arm]}


def peak(arm, seed):
    return None if seed == 2 else {"adamw": 1000, "muon": 700}[arm] + 100 * seed


@pytest.mark.parametrize(
    ("arm", "of", "share"),
    [
        ("muon", "state", 1 / 2),
        ("muon", "weights_state", 1 / 3),
        ("muon", "weights_gradients_state", 1 / 4),
        ("hybrid", "state", 5 / 16),
    ],
)
def test_a_saving_is_a_share_of_what_is_named(arm, of, share, tmp_path):
    losses = {arm: [3.0] * 2, "adamw": [3.0] * 2}
    results = archived(
        tmp_path, losses, optimizer_state_bytes=state, parameters=lambda arm, seed: 100
    )
    found = first(evidence.saving(results, experiment="optimizers", arm=arm, of=of))
    assert found.value == found.low == found.high == pytest.approx(share)
    assert found.condition == f"gpt2_nano, {arm}" and len(found.records) == 4


def test_the_peak_is_compared_by_seed_where_it_was_measured(tmp_path):
    losses = {"adamw": [3.0] * 3, "muon": [3.0] * 3}
    found = evidence.saving(
        archived(tmp_path, losses, peak_memory_bytes=peak),
        **dict(experiment="optimizers", arm="muon", of="peak"),
    )
    assert (first(found).low, first(found).high) == pytest.approx((3 / 11, 3 / 10))
    assert first(found).n == 2
    without = evidence.saving(
        archived(tmp_path / "x", losses, peak_memory_bytes=lambda *_: None),
        **dict(experiment="optimizers", arm="muon", of="peak"),
    )
    assert "not in the records" in without[0].missing


def stepped(folder, device="cpu", gpu=None, **units_at) -> Results:
    file = fake_results.step(folder, f"m-{device}", ("hybrid",))
    whole = json.loads(file.read_text())
    one = whole["optimizers"]["hybrid"]
    one["step_ms"]["n"] = 7
    one["units_at"]["0.05"] = units_at
    points = [(256, 0.9, True), (512, 0.5, True), (1024, 0.3, False)]
    one["overhead"] = [
        {"units": u, "value": v, "low": v - 0.1, "high": v + 0.1, "measured": m}
        for u, v, m in points
    ]
    whole["optimizers"] = {"hybrid": one, "broken": {"error": "no"}}
    whole["environment"] = whole["environment"] | {"gpu": gpu}
    record.write_json(file, whole)
    return Results(folder)


def overhead_claim(arm, level=0.05):
    measure = dict(_target_="bench.verdicts.cost.overhead", step="m", arm=arm, level=level)
    return Claim("x", "x", "seed 1: x", "cost", [measure], {"below": level})


def test_an_overhead_depends_on_the_batch(tmp_path):
    results = stepped(tmp_path, units=20_000.0, low=10_000.0, high=None, measured=False)
    found = claims.judge(overhead_claim("hybrid"), results)
    assert found.verdict == DEPENDS and found.plain()["value"] == 0.5  # of the largest measured
    assert [claims.holds(f, {"below": 0.05}) for f in found.findings] == [False, False, True]
    assert "hybrid from 20,000 tokens a step on (10,000 to never, extrapolated)" in found.condition
    assert all(f.records == ["steps/m-cpu.json"] and f.n == 7 for f in found.findings)


def test_an_overhead_that_never_falls_is_refuted(tmp_path):
    results = stepped(tmp_path, units=None, low=None, high=None, measured=False)
    assert claims.judge(overhead_claim("hybrid"), results).verdict == REFUTED
    for arm in ("broken", "absent"):
        assert arm in claims.judge(overhead_claim(arm), results).findings[0].missing


def test_an_overhead_is_of_every_device_that_has_a_record(tmp_path):
    """A GPU's stands beside a CPU's, by name, and one of them may decide otherwise."""
    stepped(tmp_path, units=None, low=None, high=None, measured=False)
    at = dict(units=2000.0, low=1000.0, high=3000.0, measured=True)
    results = stepped(tmp_path, "cuda", "Imagined GPU", **at)
    found = claims.judge(overhead_claim("hybrid"), results)
    assert found.verdict == DEPENDS
    there = [f for f in found.findings if "on Imagined GPU" in f.condition]
    assert {file for f in there for file in f.records} == {"steps/m-cuda.json"}
    others = [f for f in found.findings if f not in there]
    assert {file for f in others for file in f.records} == {"steps/m-cpu.json"}
    assert [claims.holds(f, {"below": 0.05}) for f in others] == [False, False]


def test_an_overhead_of_a_second_gpu_is_a_condition_too(tmp_path):
    """Its step benchmark has its name; one that is compiled, say, is no device of its own."""
    at = dict(units=2000.0, low=1000.0, high=3000.0, measured=True)
    for name, gpu in (("cuda", "Imagined GPU"), ("cuda-other-gpu", "Other GPU")):
        stepped(tmp_path, name, gpu, **at)
    results = stepped(tmp_path, "cuda-compiled", "Imagined GPU", **at)
    found = claims.judge(overhead_claim("hybrid"), results)
    files = {file for one in found.findings for file in one.records}
    assert files == {"steps/m-cuda.json", "steps/m-cuda-other-gpu.json"}
    assert any("on Other GPU" in one.condition for one in found.findings)


def test_checks_of_the_laboratory_carry_their_verdicts(tmp_path):
    (tmp_path / "ortho").mkdir()
    found = [
        {"name": v, "verdict": v, "condition": f"c {v}", "unit": "u", "n": 1}
        | dict.fromkeys(("value", "low", "high"), None if v == "open" else 1.0)
        for v in ("confirmed", "refuted", "depends", "open")
    ]
    found[0]["low"] = found[0]["high"] = None
    record.write_json(tmp_path / "ortho" / "checks.json", {"checks": found})

    def verdict(*names):
        measure = [{"_target_": "bench.verdicts.evidence.check", "names": list(names)}]
        return claims.judge(Claim("x", "x", "s", "cost", measure), Results(tmp_path))

    assert [verdict(one["name"]).verdict for one in found] == [CONFIRMED, REFUTED, DEPENDS, OPEN]
    assert verdict("confirmed", "refuted").verdict == DEPENDS
    assert verdict("confirmed", "open").condition == "holds: c confirmed 1; missing: c open"
    assert "the check other" in verdict("other").condition


@pytest.mark.parametrize("kind", ["difference", "equality"])
def test_early_training_decides_nothing_on_which_optimizer_is_better(kind, tmp_path):
    """The same records with the bigram below AdamW, above it, and not known."""
    asked = dict(experiment="optimizers", arm="hybrid", conditions=["language"])
    declared = fake_results.fill(tmp_path, "optimizers", ["language"])
    (known,) = getattr(evidence, kind)(Results(tmp_path), **asked)
    file = fake_results.lines(tmp_path, declared, "language", bigram=3.0)
    (early,) = getattr(evidence, kind)(Results(tmp_path), **asked)
    assert early.undecided.startswith("early training: adamw ends above the bigram")
    assert claims.holds(early, {"below": 1e9}) is None and early.value == known.value
    file.unlink()
    fake_results.lines(tmp_path, declared, "language", bigram=5.0)
    assert getattr(evidence, kind)(Results(tmp_path), **asked) == [known]
