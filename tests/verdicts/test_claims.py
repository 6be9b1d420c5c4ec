"""Claims: every file can be judged, and records become findings."""

import ast
import json
import re

import pytest
from hydra.utils import get_method

from bench.records import record
from bench.settings.errors import UserError
from bench.studies import study
from bench.studies.results import Results
from bench.verdicts import claims, cost, evidence, judging
from bench.verdicts.claims import Claim
from bench.verdicts.judging import CONFIRMED, DEPENDS, OPEN, REFUTED
from tests.helpers import fake_results
from tests.helpers.commands import ROOT

pytestmark = pytest.mark.usefixtures("judged")

FILES = sorted((ROOT / "conf" / "claim").rglob("*.yaml"))
FILE_OF = {file.stem: file for file in FILES}
SPREAD = [-0.02, -0.01, 0.0, 0.01, 0.02]  # of five seeds; about 0.0233 a paired t test has p = 0.03


# the files -------------------------------------------------------------------------------------


def measures(kinds: str):
    """The arguments of all measures of some kinds, with the claims they belong to."""
    for claim in claims.load():
        for one in claim.measure:
            if get_method(one["_target_"]).__name__ in kinds.split():
                yield claim.name, {k: v for k, v in one.items() if k != "_target_"}


@pytest.mark.parametrize("claim", claims.load(), ids=lambda claim: claim.name)
def test_every_claim_can_be_judged_and_names_what_it_lacks(claim, tmp_path):
    assert not re.match(r"seed\b", claim.source)  # a seed is a random seed
    verdict = judging.judge(claim, Results(tmp_path))
    assert verdict.verdict == OPEN and verdict.findings
    assert all(f.missing and f.missing in verdict.condition for f in verdict.findings)


def test_a_citation_in_chinese_has_its_english_meaning_beside_it():
    chinese = re.compile(r"[\u3000-\u9fff\uff00-\uffef]+")
    for claim in claims.load():
        for cited in claim.source.split("; "):
            said = cited.rstrip(")").rpartition(" (")[2] if cited.endswith(")") else ""
            assert not chinese.search(cited) or (said and not chinese.search(said)), cited


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
    for name, asked in measures("saving"):
        assert asked["of"] in {*evidence.BYTES, "peak"}, name
    for name, asked in measures("difference"):
        assert asked.get("of", "test_loss") in {"test_loss", "forgotten"}, name


def test_every_arm_of_a_step_benchmark_that_a_claim_names_was_measured():
    for name, asked in measures("overhead"):
        found = cost.overhead(Results(ROOT / "results"), **asked)
        assert all(f.missing is None for f in found), name
        claim = claims.read(FILE_OF[name])
        (bound,) = claim.rule.values()
        assert f"{asked['units']:,} tokens" in claim.statement
        assert f"{bound:.0%}".replace("%", " %") in claim.statement


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
        ({"denies": "other"}, ["denies=other", "none of its own"]),
    ],
)
def test_a_mistake_in_a_claim_is_named(change, words, tmp_path):
    whole = {
        "statement": "x",
        "source": "Notes A: x",
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
    whole = (ROOT / "conf" / "claim" / "memory" / "third_of_state.yaml").read_text()
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


def controlled(folder, losses, fewer=None, **more) -> Results:
    """The same, with a control of the same model, data and steps, told apart unless `fewer` says
    otherwise."""
    archived(folder, losses)
    control = {"adamw": [3.0] * 5, "fewer_steps": fewer or above(0.05)}
    return archived(folder, control, "controls", "long", **more)


def above(mean):
    """Losses of five seeds whose differences from 3 have this mean, and the same spread always."""
    return [3 + mean + off for off in SPREAD]


LOSSES = {"adamw": [3.0] * 5, "hybrid": above(-0.0433)}  # beyond the margin, if only just


def first(found):
    """Of one condition that has records, beside another that has none."""
    assert sum(f.missing is None for f in found) == 1
    return next(f for f in found if f.missing is None)


def test_a_difference_is_paired_and_has_its_records(tmp_path):
    steep = [float(seed) for seed in range(5)]  # what the seeds differ by cancels
    losses = {arm: [x + y for x, y in zip(of, steep, strict=True)] for arm, of in LOSSES.items()}
    found = evidence.difference(archived(tmp_path, losses), experiment="optimizers", arm="hybrid")
    one = first(found)
    assert one.value == pytest.approx(-0.0433) and one.low < one.value < one.high < 0
    assert one.n == 5 and one.undecided is None and len(one.records) == 10
    assert (tmp_path / one.records[0]).exists()
    assert "hybrid against adamw" in one.condition and "language" in one.condition
    assert "of the experiment's runs are missing" in one.note
    assert [f.missing for f in found if f.missing] == [
        "hybrid and adamw of experiment=optimizers, vision"
    ]


def test_a_difference_can_be_of_what_was_forgotten(tmp_path):
    """The test losses are alike; of what was forgotten hybrid has more, by the same seeds."""
    arms = {"adamw": [3.0] * 5, "hybrid": [3.0] * 5}
    more = {"adamw": [0.1] * 5, "hybrid": [0.2 + off for off in SPREAD]}
    folder = archived(tmp_path, arms, "finetune", "after_adamw", forgotten=lambda a, s: more[a][s])
    asked = dict(experiment="finetune", conditions=["after_adamw"], of="forgotten")
    (one,) = evidence.difference(folder, arm="hybrid", **asked)
    (other,) = evidence.difference(folder, arm="adamw", against="hybrid", **asked)
    assert one.value == pytest.approx(0.1) and one.n == 5 and one.unit.startswith("forgotten, hyb")
    assert other.value == pytest.approx(-0.1) and other.holds is other.undecided is None


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
    assert "lower, perhaps within ±0.02 (p=0.0" in other.undecided


def test_a_claim_of_a_difference_fails_where_it_is_real_but_smaller_than_the_margin(tmp_path):
    losses = {"adamw": [3.0] * 5, "hybrid": [3 - 0.01 + 0.1 * off for off in SPREAD]}
    asked = dict(experiment="optimizers", arm="hybrid")
    one = first(evidence.difference(archived(tmp_path, losses), **asked))
    assert one.holds is False and "lower, but within ±0.02" in one.note


def test_a_claim_of_a_difference_fails_where_the_arms_are_equal(tmp_path):
    """The margin is 0.02; differences that scatter twenty times as widely show nothing."""
    asked = dict(experiment="optimizers", arm="hybrid")
    near, far = (
        first(evidence.difference(controlled(tmp_path / str(scale), losses), **asked))
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
    results = controlled(tmp_path, losses)
    for or_better, holds in ((False, same), (True, no_worse)):
        found = first(
            evidence.equality(results, experiment="optimizers", arm="hybrid", or_better=or_better)
        )
        assert found.holds is holds and (found.undecided is None) == (holds is not None)
        assert "0.02" in found.note and "90 %" in found.unit


EQUAL_LOSSES = {"adamw": [3.0] * 5, "hybrid": [3 + 0.1 * off for off in SPREAD]}


@pytest.mark.parametrize(
    ("fewer", "more", "why"),
    [
        (
            None,
            {},
            "no control shows that 7 % fewer steps are told apart here (experiment=controls)",
        ),
        (above(0.0), {}, "7 % fewer steps of AdamW are not told apart either (p=1)"),
        (above(0.05), {"steps": lambda arm, seed: 7}, "no control shows"),
        (above(0.05), {}, None),
    ],
)
def test_equality_needs_a_control_that_the_design_tells_apart(fewer, more, why, tmp_path):
    results = archived(tmp_path, EQUAL_LOSSES)
    if fewer:
        results = controlled(tmp_path, {}, fewer, **more)
    asked = dict(experiment="optimizers", arm="hybrid")
    for kind, holds in ((evidence.equality, True), (evidence.difference, False)):
        found = first(kind(results, **asked))
        assert found.holds is (None if why else holds)
        assert (found.undecided or "").startswith(why or "") and bool(found.undecided) == bool(why)


def test_a_difference_that_is_shown_within_the_margin_needs_no_control(tmp_path):
    losses = {"adamw": [3.0] * 5, "hybrid": [3 - 0.01 + 0.1 * off for off in SPREAD]}
    one = first(
        evidence.equality(archived(tmp_path, losses), experiment="optimizers", arm="hybrid")
    )
    assert one.holds is True and one.undecided is None


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


def stepped(folder, device="cpu", gpu=None) -> Results:
    file = fake_results.step(folder, f"m-{device}", ("hybrid",))
    whole = json.loads(file.read_text())
    one = whole["optimizers"]["hybrid"]
    one["step_ms"]["n"] = 7
    points = [(256, 0.9, True), (512, 0.5, True), (1024, 0.3, False)]
    one["overhead"] = [
        {"units": u, "value": v, "low": v - 0.1, "high": v + 0.1, "measured": m}
        for u, v, m in points
    ]
    whole["optimizers"] = {"hybrid": one, "broken": {"error": "no"}}
    whole["environment"] = whole["environment"] | {"gpu": gpu}
    record.write_json(file, whole)
    return Results(folder)


def overhead_claim(arm, units=512, level=0.05):
    measure = dict(_target_="bench.verdicts.cost.overhead", step="m", arm=arm, units=units)
    return Claim("x", "x", "Notes A: x", "cost", [measure], {"below": level})


def test_an_overhead_is_judged_at_the_batch_that_its_claim_names(tmp_path):
    """The largest measured is of 512 tokens and 50 %, the next, extrapolated, of 1,024 and 30 %."""
    results = stepped(tmp_path)
    for level, verdict in ((0.7, CONFIRMED), (0.3, REFUTED), (0.5, OPEN)):
        found = judging.judge(overhead_claim("hybrid", level=level), results)
        assert found.verdict == verdict and found.plain()["value"] == 0.5, level
    assert "hybrid at 512 tokens a step on CPU" in found.condition
    assert found.findings[0].records == ["steps/m-cpu.json"] and found.findings[0].n == 7


@pytest.mark.parametrize("level", [0.01, 0.9])
def test_an_overhead_that_is_extrapolated_decides_nothing(level, tmp_path):
    results = stepped(tmp_path)
    found = judging.judge(overhead_claim("hybrid", 1024, level), results)
    assert found.verdict == OPEN
    assert "extrapolated; measured 50.0% at 512 tokens a step" in found.condition


def test_an_overhead_at_a_batch_that_is_not_there_is_missing(tmp_path):
    results = stepped(tmp_path)
    found = judging.judge(overhead_claim("hybrid", 700), results)
    assert found.verdict == OPEN and "a batch of 700 tokens" in found.findings[0].missing
    for arm in ("broken", "absent"):
        assert arm in judging.judge(overhead_claim(arm), results).findings[0].missing


def test_an_overhead_is_of_every_device_that_has_a_record(tmp_path):
    """A GPU's stands beside a CPU's, by name; one that is compiled, say, is no device of its own,
    and a second GPU's step benchmark has its name."""
    for name, gpu in (("cpu", None), ("cuda", "Imagined GPU"), ("cuda-other-gpu", "Other GPU")):
        stepped(tmp_path, name, gpu)
    results = stepped(tmp_path, "cuda-compiled", "Imagined GPU")
    found = judging.judge(overhead_claim("hybrid"), results)
    where = {one.condition.rpartition(" on ")[2]: one.records for one in found.findings}
    assert where == {
        "CPU": ["steps/m-cpu.json"],
        "Imagined GPU": ["steps/m-cuda.json"],
        "Other GPU": ["steps/m-cuda-other-gpu.json"],
    }


def test_a_step_is_timed_against_another_round_by_round(tmp_path):
    asked = dict(step="m", arm="hybrid", against="plain")
    file = tmp_path / "steps" / "m-cpu.json"
    stepped(tmp_path)
    assert "hybrid and plain" in cost.relative_time(Results(tmp_path), **asked)[0].missing
    whole = json.loads(file.read_text())
    hybrid = whole["optimizers"]["hybrid"]
    whole["optimizers"]["plain"] = hybrid | {"step_ms_rounds": [10.0, 20.0, 40.0]}
    hybrid["step_ms_rounds"] = [9.0, 10.0, 30.0]
    record.write_json(file, whole)
    (one,) = cost.relative_time(Results(tmp_path), **asked)
    assert (one.value, one.low, one.high, one.n) == (0.75, 0.5, 0.9, 3)
    assert one.condition == "hybrid against plain on CPU" and one.records == ["steps/m-cpu.json"]


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
        return judging.judge(Claim("x", "x", "s", "cost", measure), Results(tmp_path))

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
    assert judging.holds(early, {"below": 1e9}) is None and early.value == known.value
    file.unlink()
    fake_results.lines(tmp_path, declared, "language", bigram=5.0)
    assert getattr(evidence, kind)(Results(tmp_path), **asked) == [known]
