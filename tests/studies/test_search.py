"""Searches: the trials they draw, what hangs on what, and mistakes in their declaration."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records import cell
from bench.settings.errors import UserError
from bench.studies import axes, plan, study
from bench.studies.study import FINAL, PILOT, TUNE
from tests.helpers.commands import settle
from tests.helpers.searches import BLOCK, searched


def best_at(rate):
    """Losses with their least at this rate."""
    return lambda sweep: abs(math.log(dict(sweep.point)["rate"] / rate))


# the trials ---------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), trials=st.integers(1, 16))
def test_trials_lie_in_the_box_around_the_centre_and_are_the_studys_own(seed, trials):
    declared = searched(trials=trials, carry={}).search
    centre = BLOCK["search"]["centres"]["a"]
    points = declared.points("a", centre, seed)
    assert len(points) == trials and points == declared.points("a", centre, seed)
    for point, axis in itertools.product(points, centre):
        assert 0 <= declared.place(axis, point[axis], centre[axis]) <= 1
    assert points != declared.points("a", centre, seed + 1)
    assert points != declared.points("other", centre, seed)


def test_trials_are_spread_more_evenly_than_by_chance():
    """Each half of each axis has its share in every study, which six throws seldom have."""
    declared = searched(trials=8, carry={}).search
    centre = BLOCK["search"]["centres"]["a"]
    for seed in range(20):
        points = declared.points("a", centre, seed)
        for axis in centre:
            assert sum(point[axis] > centre[axis] for point in points) == 4


# the settings of a point --------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["adamw", "hybrid", "muon", "torch_muon"])
def test_a_point_is_what_is_typed_and_what_a_record_gives_back(arm):
    names = list(study.load("language").search.centres[arm])
    point = dict(zip(names, (0.7, 2.5, 0.03, 0.4, 0.15), strict=True))
    base = settle(f"optimizer={arm}", "train.steps=500")
    values = axes.values(point, base)
    ours = axes.with_values(base, values)
    typed = [f"{key}={value}".replace(" ", "") for key, value in values]
    assert cell.name(ours) == cell.name(settle(f"optimizer={arm}", "train.steps=500", *typed))
    config = {"optimizer": ours.optimizer, "schedule": ours.schedule}
    config["train"] = {"steps": 500}
    assert axes.read(names, config) == pytest.approx(point, rel=2e-3)


RULES = {
    "lion": {"lr": 2e-4, "betas": [0.9, 0.99], "weight_decay": 1.0},
    "ademamix": {"lr": 2e-3, "betas": [0.9, 0.999, 0.9999], "weight_decay": 0.1},
    "scion": {"lr": 2e-3, "momentum": 0.1, "weight_decay": 0.1},
}


@pytest.mark.parametrize(
    ("arm", "axis", "written"),
    [
        ("lion", "beta2", {"betas": [0.9, 0.97]}),
        ("ademamix", "beta3", {"betas": [0.9, 0.999, 0.97]}),
        ("ademamix", "beta2", {"betas": [0.9, 0.97, 0.9999]}),
        ("scion", "newest", {"momentum": 0.03}),
    ],
)
def test_an_average_is_searched_by_the_share_of_the_newest_gradient_whatever_its_name(
    arm, axis, written
):
    base = settle("optimizer=adamw", "train.steps=500")
    base.optimizer["roles"] = {"default": dict(RULES[arm])}
    ours = axes.with_values(base, axes.values({axis: 0.03}, base))
    assert ours.optimizer["roles"]["default"] == RULES[arm] | written
    assert axes.read([axis], {"optimizer": ours.optimizer}) == {axis: 0.03}


def test_decay_is_read_from_the_rule_that_decays_at_its_own_rate():
    """In MuonH nothing but AdamW's part decays, and its rate is another."""
    base = settle("optimizer=hybrid", "train.steps=100")
    base.optimizer["roles"] = {
        "hidden": {"lr": 0.02, "weight_decay": 0.0},
        "default": {"lr": 0.001, "weight_decay": 0.1},
    }
    ours = axes.with_values(base, axes.values({"rate": 2.0, "decay": 0.3}, base))
    config = {"optimizer": ours.optimizer, "train": {"steps": 100}}
    assert axes.read(["decay"], config) == pytest.approx({"decay": 0.3})


def test_scions_decay_is_its_rate_and_a_larger_ball_leaves_the_step_as_long():
    rules = {
        "default": {"lr": 2e-4, "scale": 50.0, "constraint": True},
        "vector": {"lr": 2e-4, "scale": 10.0, "constraint": False},
    }
    base = settle("optimizer=adamw", "train.steps=500")
    base.optimizer["roles"] = {role: dict(rule) for role, rule in rules.items()}
    ours = axes.with_values(base, axes.values({"rate": 2.0, "radius": 0.4}, base)).optimizer
    one = ours["roles"]["default"]
    assert 2.0 * one["lr"] * 500 == pytest.approx(0.4)
    assert one["lr"] * one["scale"] == pytest.approx(2e-4 * 50.0)
    assert ours["roles"]["vector"] == rules["vector"]
    config = {"optimizer": ours | {"lr_scale": 2.0}, "train": {"steps": 500}}
    assert axes.read(["radius"], config) == pytest.approx({"radius": 0.4})


SEARCHED = [
    (name, arm)
    for name in study.declared()
    if (found := study.load(name).search) is not None
    for arm in found.centres
]


@pytest.mark.parametrize(("name", "arm"), SEARCHED)
def test_every_axis_of_every_arm_changes_a_setting_of_that_arm(name, arm):
    declared = study.load(name)
    base = settle(*declared.arms[arm], "train.steps=500")
    centre = declared.search.centres[arm]
    for axis in centre:
        other = centre | {axis: 1.3 * centre[axis]}
        assert axes.values(centre, base) != axes.values(other, base), axis
    config = {"optimizer": base.optimizer, "schedule": base.schedule, "train": {"steps": 500}}
    assert axes.read(list(centre), config).keys() == centre.keys()


def test_decay_is_what_a_run_forgets_whatever_its_rate_and_length():
    for rate, steps in itertools.product((0.5, 4), (20, 2000)):
        base = settle("optimizer=hybrid", f"train.steps={steps}")
        point = {"rate": rate, "decay": 0.3}
        rules = axes.with_values(base, axes.values(point, base)).optimizer["roles"]
        for rule in rules.values():
            forgotten = rule["weight_decay"] * rule["lr"] * rate * steps
            assert forgotten == pytest.approx(0.3, rel=1e-3) or rule["weight_decay"] == 0


# what hangs on what -------------------------------------------------------------------------------


def test_all_runs_are_planned_once_and_as_many_as_are_counted():
    declared = searched()
    sweeps = list(plan.searching(declared, best_at(1.5)))
    assert len(set(sweeps)) == len(sweeps) == sum(declared.counts().values())
    for key, count in declared.counts().items():
        assert sum(sweep.key == key for sweep in sweeps) == count


def test_what_hangs_on_others_waits_for_them():
    declared = searched()
    ended = set()

    def losses(sweep):
        return best_at(1.5)(sweep) if sweep in ended else None

    seen = []
    while todo := [s for s in plan.searching(declared, losses) if s not in ended]:
        seen.append({(s.stage, s.condition) for s in todo})
        ended |= set(todo)
    assert seen == [
        {(PILOT, "short")},  # rates
        {(PILOT, "short")},  # the other axis at the best of them
        {(TUNE, "short")},
        {(FINAL, "short"), (TUNE, "long")},
        {(FINAL, "long")},
    ]


def test_each_study_trains_its_best_trial_once_more_from_a_seed_that_all_arms_share():
    declared = searched()
    sweeps = list(plan.searching(declared, best_at(1.5)))
    for condition, at in itertools.product(("short", "long"), (0, 1)):
        finals = {
            s.arm: s
            for s in sweeps
            if (s.stage, s.condition) == (FINAL, condition) and s.seeds[0] % 1000 == at
        }
        assert finals.keys() == {"a", "b", "again"}
        assert finals["a"].seeds == finals["b"].seeds == (at,)
        assert finals["again"].seeds == (1000 + at,)
        assert finals["again"].point == finals["a"].point
        for arm in "ab":
            own = [
                s
                for s in sweeps
                if s.key == (TUNE, condition, arm) and s.seeds == (declared.tune_seeds[at],)
            ]
            assert finals[arm].point == min(own, key=best_at(1.5)).point


def test_the_pilot_centres_the_search_and_a_carried_condition_starts_from_the_ranking():
    declared = searched()
    sweeps = list(plan.searching(declared, best_at(2)))
    tried = [dict(s.point) for s in sweeps if s.key == (TUNE, "short", "a") and s.seeds == (100,)]
    assert all(2 / math.sqrt(8) <= point["rate"] <= 2 * math.sqrt(8) for point in tried)
    ranking = sorted(tried, key=lambda point: abs(math.log(point["rate"] / 2)))
    later = [dict(s.point) for s in sweeps if s.key == (TUNE, "long", "a") and s.seeds == (100,)]
    assert later == [ranking[0], ranking[1] | {"rate": ranking[1]["rate"] * 0.5}]


BORROWED = BLOCK | {
    "arms": {"one": ["optimizer=hybrid"], "other": ["optimizer=hybrid", "qkv=fused"]},
    "baseline": "one",
    "rates_of": {},
    "search": {
        "takes": {"one": "b", "other": "b"},
        "carry": {
            "short": {"source": "s/short", "tries": [[1, 1], [1, 0.5], [1, 2]], "gain": 0.01},
            "long": {"source": "s/long", "tries": [[1, 1]], "rates_as": "short"},
        },
    },
}


def theirs():
    """The rankings of the experiment s, as another one reads them."""
    own = {}
    for _ in plan.searching(searched(), best_at(1.5), own):
        pass
    return {(f"s/{condition}", arm, at): ranking for (condition, arm, at), ranking in own.items()}


def test_an_experiment_borrows_the_settings_of_another_and_tries_only_the_rate():
    declared, known = study.parse("t", BORROWED), theirs()
    sweeps = list(plan.searching(declared, lambda sweep: 1.0, known))
    assert len(set(sweeps)) == len(sweeps) == sum(declared.counts().values())
    best = known["s/short", "b", 0][0]
    for arm in ("one", "other"):
        tried = [s for s in sweeps if s.key == (TUNE, "short", arm) and s.seeds == (100,)]
        assert [dict(s.point) for s in tried] == [
            best | {"rate": best["rate"] * factor} for factor in (1, 0.5, 2)
        ]
    assert not any(s.stage == TUNE and s.condition == "long" for s in sweeps)


@pytest.mark.parametrize(("better", "factor"), [(0.005, 1), (0.02, 2)])
def test_a_borrowed_rate_moves_only_where_another_is_clearly_better(better, factor):
    known = theirs()
    best = known["s/short", "b", 0][0]["rate"]

    def losses(sweep):
        moved = sweep.arm == "other" and dict(sweep.point)["rate"] > 1.5 * best
        return 1.0 - better * moved

    sweeps = plan.searching(study.parse("t", BORROWED), losses, known)
    finals = {(s.condition, s.arm): s for s in sweeps if s.stage == FINAL and s.seeds == (0,)}
    for condition in ("short", "long"):
        source = known[f"s/{condition}", "b", 0][0]["rate"]
        assert dict(finals[condition, "one"].point)["rate"] == source
        assert dict(finals[condition, "other"].point)["rate"] == pytest.approx(source * factor)


def test_what_is_borrowed_is_waited_for():
    assert not list(plan.searching(study.parse("t", BORROWED), lambda sweep: 1.0, {}))


MIXED = BLOCK | {
    "arms": {"a": ["optimizer=adamw"], "c": ["optimizer=hybrid"]},
    "rates_of": {},
    "search": {
        **{key: BLOCK["search"][key] for key in ("trials", "pilot_seed", "pilot", "widths")},
        "centres": {"c": BLOCK["search"]["centres"]["b"]},
        "takes": {"a": "a"},
        "carry": {
            "short": {"source": "s/short", "tries": [[1, 1]]},
            "long": {"source": "s/long", "tries": [[1, 1]]},
        },
    },
}


def test_one_arm_borrows_what_another_experiment_tuned_beside_one_that_searches():
    declared, known = study.parse("t", MIXED), theirs()
    sweeps = list(plan.searching(declared, best_at(1.5), dict(known)))
    assert len(set(sweeps)) == len(sweeps) == sum(declared.counts().values())
    for key, count in declared.counts().items():
        assert sum(sweep.key == key for sweep in sweeps) == count
    assert {s.stage for s in sweeps if s.arm == "a"} == {FINAL}
    assert {s.stage for s in sweeps if s.arm == "c"} == {PILOT, TUNE, FINAL}
    for s in (s for s in sweeps if s.arm == "a"):
        assert dict(s.point) == known[f"s/{s.condition}", "a", s.seeds[0]][0]
    waiting = list(plan.searching(declared, best_at(1.5), {}))
    assert {s.arm for s in waiting} == {"c"}  # which need not wait


# mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trials": 0}, ["trials=0", "at least 1"]),
        ({"colour": 1}, ["search.colour", "accepted: trials"]),
        ({"widths": None}, ["search.widths", "missing"]),
        ({"widths": {"rate": 8}}, ["search.widths", "averaging"]),
        ({"pilot": {"rate": [2, 4]}}, ["pilot.rate=[2, 4]", "1, the centre"]),
        ({"pilot": {"colour": [1]}}, ["pilot.colour", "rate, relative"]),
        ({"centres": {"a": {"rate": 1}}}, ["centres", "a, b"]),
        ({"centres": {"a": {"rate": 1}, "b": {"speed": 1}}}, ["centres.b.speed", "momentum"]),
        ({"centres": {"a": {"rate": 1}, "b": {"rate": 0}}}, ["centres.b.rate=0", "above 0"]),
        ({"centres": {"a": {"rate": 1}, "b": {"decay": 1}}}, ["centres.b", "one of each kind"]),
        ({"carry": {"long": {"source": "far", "tries": [[1, 1]]}}}, ["source=far", "short"]),
        ({"carry": {"long": {"source": "short", "tries": [[4, 1]]}}}, ["tries=[[4, 1]]", "3"]),
        ({"other_seeds": {"b": 1}}, ["other_seeds.b", "again"]),
        ({"takes": {"a": "x"}}, ["search.takes", "a, b"]),
        ({"takes": {"a": "x", "b": "x"}, "centres": {}}, ["source=short", "experiment/condition"]),
        ({"carry": {"long": {"source": "short", "speed": 1}}}, ["carry.long.speed", "tries"]),
    ],
)
def test_a_mistake_in_a_search_is_named(changes, words):
    with pytest.raises(UserError) as caught:
        searched(**changes)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": [1]}, ["study.search", "study.grid"]),
        ({"tune_seeds": [9]}, ["tune_seeds=[9]", "one for each"]),
        ({"conditions": {"short": ["schedule.warmup_steps=3"], "long": []}}, ["warmup_steps=3"]),
    ],
)
def test_a_search_that_does_not_fit_its_study_is_named(changes, words):
    with pytest.raises(UserError) as caught:
        study.parse("s", BLOCK | changes)
    assert all(word in str(caught.value) for word in words), caught.value
