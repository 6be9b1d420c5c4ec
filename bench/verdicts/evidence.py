"""Findings from the results: the functions that conf/claim/ names in `measure`.

Each function reads records and returns findings, one per condition; it decides nothing, unless the
evidence carries its own verdict.
"""

from dataclasses import replace

from bench.settings.errors import UserError
from bench.studies import curves, sensitivity, standing, words
from bench.studies.comparison import Arm, Comparison
from bench.studies.difference import EQUAL, LEVEL, SMALLER, STRADDLES, Difference, between
from bench.studies.results import Results
from bench.studies.stats import Estimate
from bench.verdicts.finding import Finding

BYTES = {  # the basis of saved shares, bytes per weight; the state comes from the records
    "state": 0,
    "weights_state": 4,
    "weights_gradients_state": 8,
}


def difference(
    results: Results,
    *,
    experiment: str,
    arm: str,
    against: str | None = None,
    conditions: list[str] | None = None,
    of: str = "test_loss",
) -> list[Finding]:
    """The test loss of an arm minus that of another (the baseline), paired by seed.

    of: another loss of the record in its place, as `forgotten`.
    From the tests, corrected over all arms compared with that other: the rule judges a difference
    beyond the experiment's margin; a smaller difference or none is not as claimed; anything unclear
    is undecided, and so is none under a design that no control shows to see one.
    """
    found = []
    for one in results.comparisons(experiment, conditions, against):
        pair = _pair(one, arm, of)
        if isinstance(pair, Finding):
            found.append(pair)
            continue
        estimate, seeds = pair.estimate, pair.seeds
        nothing = f"no difference shown (p={pair.p:.2g}, n={estimate.n}"
        nothing += f"; to show one of this size takes {seeds:,} seeds)" if seeds else ")"
        if pair.p < LEVEL:
            nothing = f"{pair.verdict()} (p={pair.p:.2g}, n={estimate.n})"
        small = pair.outcome in (SMALLER, EQUAL)
        doubt = _doubt(results, one, pair)
        said = _against(
            *(results, one, arm, estimate),
            holds=False if small and not doubt else None,
            undecided=nothing if pair.outcome == STRADDLES else doubt,
            note=f"{pair.verdict()}{_flags(one, arm, '; ')}" if small else _flags(one, arm),
        )
        said = replace(said, unit=f"{of.replace('_', ' ')}, {arm} - {one.study.baseline}")
        found.append(unless_early(said, one))
    return found


def equality(
    results: Results,
    *,
    experiment: str,
    arm: str,
    against: str | None = None,
    conditions: list[str] | None = None,
    or_better: bool = False,
) -> list[Finding]:
    """Whether two arms have the same test loss, within the experiment's margin.

    It holds if the 90 % interval of the paired difference lies inside the margin, fails if it lies
    outside, and is undecided otherwise. If no difference is shown it needs a control, too, that
    the design tells apart. or_better: only a higher loss counts as outside (non-inferiority).
    UserError if the experiment has no margin.
    """
    found = []
    for one in results.comparisons(experiment, conditions, against):
        margin = one.study.margin
        if margin is None:
            raise UserError(f"study.margin: experiment={experiment} has none, equality needs it")
        pair = _pair(one, arm)
        if isinstance(pair, Finding):
            found.append(pair)
            continue
        assert pair.equivalence is not None  # there is a margin
        equal, interval = pair.equivalence.equal, pair.equivalence.interval
        holds = equal or (or_better and interval.high < margin)
        fails = interval.low >= margin or (not or_better and interval.high <= -margin)
        bounds = f"below +{margin:g}" if or_better else f"inside ±{margin:g}"
        doubt = _doubt(results, one, pair)
        said = _against(
            *(results, one, arm, interval),
            holds=True if holds and not doubt else False if fails else None,
            undecided=doubt if holds or fails else f"neither {bounds} nor out",
            note=f"{bounds}{_flags(one, arm, '; ')}",
        )
        said = replace(said, unit=f"{said.unit} (90 % interval)")
        found.append(unless_early(said, one))
    return found


def _doubt(results: Results, one: Comparison, pair: Difference) -> str | None:
    """Why arms without a shown difference are not called equal; None if they are, or differ."""
    if pair.outcome != EQUAL:
        return None
    return sensitivity.doubt(one, results.comparisons(sensitivity.EXPERIMENT, None))


def unless_early(said: Finding, one: Comparison) -> Finding:
    """The finding; undecided if AdamW ends above the bigram (softmax regression) line."""
    why = standing.early(one)
    return replace(said, holds=None, undecided=why) if why else said


def saving(
    results: Results,
    *,
    experiment: str,
    arm: str,
    of: str,
    conditions: list[str] | None = None,
) -> list[Finding]:
    """The share of memory that an arm saves compared with the baseline, by model.

    of: state, weights_state, weights_gradients_state (fp32), or peak, which is measured: mean and
    range over seeds.
    """
    found = []
    for one in results.comparisons(experiment, conditions):
        both = _arms(one, arm)
        if len(both) < 2:
            found.append(_missing(one, arm))
            continue
        ours, base = both
        where = f"{ours.runs[0].record['model']}{one.on_device}, {arm}"
        shares = saved(ours, base, of)
        if not shares:
            found.append(Finding(where, missing=f"{of} of {where}: not in the records"))
            continue
        found.append(
            Finding(
                where,
                *(sum(shares) / len(shares), min(shares), max(shares), len(shares)),
                unit=f"share of {of.replace('_', ' + ')} saved",
                records=_records(results, one, arm),
            )
        )
    return found


def saved(ours: Arm, base: Arm, of: str) -> list[float]:
    """The saved shares of `of`: for the peak one by seed, else one; none without records."""
    if of == "peak":
        peaks, whole = (curves.by_seed(a.runs, "peak_memory_bytes") for a in (ours, base))
        return [1 - peaks[seed] / whole[seed] for seed in sorted(peaks.keys() & whole.keys())]
    own, theirs = (a.median("optimizer_state_bytes", "total") for a in (ours, base))
    parameters = ours.median("parameters")
    if own is None or theirs is None or parameters is None:
        return []
    aside = BYTES[of] * parameters
    return [1 - (own + aside) / (theirs + aside)] if theirs + aside > 0 else []


def check(results: Results, *, names: list[str]) -> list[Finding]:
    """Checks of the laboratory (bench/ortho.py checks=true), with their own verdicts."""
    known = results.checks()
    found = []
    for wanted in names:
        if wanted not in known:
            how = "bench/ortho.py checks=true, of momenta with sources=momentum"
            found.append(Finding(wanted, missing=f"the check {wanted}: {how}"))
            continue
        one, file = known[wanted]
        verdict = one["verdict"]
        found.append(
            Finding(
                one["condition"],
                *(one["value"], one["low"], one["high"], one["n"]),
                unit=one["unit"],
                holds={"confirmed": True, "refuted": False}.get(verdict),
                in_part=verdict == "depends",
                missing=one["condition"] if verdict == "open" else None,
                records=[file],
            )
        )
    return found


def nothing(results: Results, *, needs: str) -> list[Finding]:
    """For a claim that nothing here can test; needs: what could test it."""
    return [Finding("", missing=needs)]


def _pair(one: Comparison, arm: str, of: str = "test_loss") -> Difference | Finding:
    """An arm's difference from the baseline, or a finding that states what is missing."""
    both = _arms(one, arm)
    if len(both) < 2:
        return _missing(one, arm)
    pair = both[0].difference
    if of != "test_loss":
        names = [a.name for a in one.arms if not a.noise]
        losses = {a.name: curves.by_seed(a.runs, of) for a in one.arms}
        pair = between(losses, one.study, names).get(arm)
    seeds = pair.estimate.n if pair else 0
    if pair and seeds >= 2:
        return pair
    missing = f"two seeds that both {arm} and {one.study.baseline} finished, {seeds} so far, "
    missing += f"of experiment={one.study.name}, {one.condition}"
    return Finding(one.condition, missing=missing)


def _against(results: Results, one: Comparison, arm: str, estimate: Estimate, **more) -> Finding:
    """An arm's difference from the baseline."""
    return Finding(
        f"{arm} against {one.study.baseline} ({one.study.name}, {one.condition})",
        *(estimate.mean, estimate.low, estimate.high, estimate.n),
        unit=f"test loss, {arm} - {one.study.baseline}",
        records=_records(results, one, arm),
        **more,
    )


def _arms(one: Comparison, arm: str) -> list[Arm]:
    """The arm and the baseline; fewer than two if one has no runs."""
    names = (arm, one.study.baseline)
    return [found for name in names if (found := one.arm(name))]


def _flags(one: Comparison, arm: str, lead: str = "") -> str:
    """What readers must know of the arms' rates and runs, and of the experiment's."""
    both = _arms(one, arm)
    found = [f"{a.name}'s rate at the edge of the grid" for a in both if a.at_edge]
    found += [f"{a.diverged} runs of {a.name} diverged" for a in both if a.diverged]
    source = words.lender(one, both)
    found += [f"settings of {source}"] if source else []
    found += [f"{one.missing} of the experiment's runs are missing"] * (one.missing > 0)
    found += one.left_out
    return lead + "; ".join(found) if found else ""


def _records(results: Results, one: Comparison, arm: str) -> list[str]:
    return results.files(_arms(one, arm))


def _missing(one: Comparison, arm: str) -> Finding:
    absent = " and ".join(name for name in (arm, one.study.baseline) if one.arm(name) is None)
    where = f"experiment={one.study.name}, {one.condition}"
    return Finding(one.condition, missing=f"{absent} of {where}")
