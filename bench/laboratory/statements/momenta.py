"""The statements on coefficients again, for real momenta.

The shipped record was written by bench/ortho.py spectra=true. By run and kind of layer it has the
spectra of the first, middle and last layer at three steps. What spectra cannot tell is measured on
a matrix of each kind (results/ortho/momenta). The rules are those for Gaussian matrices, over kinds
instead of shapes; the figures have no sampling error here and agree if they are within a tenth.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from scipy import stats
from torch import Tensor

from bench.laboratory import momentum as saved
from bench.laboratory import recursion, search, spectra
from bench.laboratory.matrices import Matrices, decomposed
from bench.laboratory.momentum_spectra import Spectrum
from bench.laboratory.recursion import Estimate
from bench.laboratory.statements import coefficients, convergence, directions, output
from bench.laboratory.statements.check import (
    DOCSTRING,
    NAMES,
    NOTES_B,
    STEPS,
    Array,
    Check,
    over,
    verdict,
)
from bench.laboratory.statements.official import gain, mean_error, share_removed, taylor_steps
from optimizers.coefficients import KELLER, TAYLOR, Triple, per_step

STARTS = 12
NEAR = 0.1  # relative to a figure
FITTED = f"{STEPS} steps, momenta of training, fitted to other layers'"

Kinds = dict[str, Array]  # spectra by run and kind of layer


def checks(found: list[Spectrum], triples: int, seed: int) -> Iterator[Check]:
    """found: spectra of runs; triples: the number of random ones, for the slope."""
    by_kind = kinds(found)
    middle = {(one.run, one.kind): middle_layer(found, one) for one in found}
    held_out = [one for one in found if one.layer == middle[one.run, one.kind]]
    rest = [one for one in found if one.layer != middle[one.run, one.kind]] or held_out
    seen, unseen = rows(rest), rows(held_out)
    single = search.single(seen, STEPS, STARTS, seed=0)
    yield _figure("official_mse_momenta", by_kind, [KELLER], 0.04431)
    yield _figure("fitted_mse_momenta", kinds(held_out), single.triples, 0.02733)
    yield _figure("taylor_mse_momenta", by_kind, [TAYLOR], 0.18278)
    removed = share_removed(unseen, single.triples * STEPS)
    yield official_not_optimal(removed, len(unseen))
    yield official_beats_taylor(by_kind)
    yield fewer_steps(by_kind)
    yield gain(
        "gain_by_one_triple_momenta",
        "another single triple gains little on the official one on momenta",
        {"one fitted triple": removed},
        len(unseen),
        FITTED,
    )
    yield little_to_gain(seen, unseen, single.triples)
    yield stable_over_kinds(by_kind)
    yield uniform(by_kind)
    flat, steep = convergence.slope_and_error(rows(found), triples, seed)
    yield _named("slope_and_error_when_flat_momenta", flat)
    yield _named("slope_and_error_when_steep_momenta", steep)
    yield _named("sprime_range_momenta", output.sprime_range(by_kind, each))
    yield _named("nearly_orthogonal_momenta", output.nearly_orthogonal(by_kind, each))


def sampled(folder: str) -> dict[str, Matrices]:
    """The hidden matrices of a run, or of the runs in a folder of samples, by run and kind."""
    groups: dict[str, list[Tensor]] = {}
    for file in saved.files(folder, ""):
        for one in saved.members(file, ["hidden"], None):
            groups.setdefault(f"{file.stem} {one.kind}", []).append(one.matrix.double())
    return {name: decomposed(torch.stack(members)) for name, members in groups.items()}


def of_matrices(stacks: dict[str, Matrices]) -> Iterator[Check]:
    """What depends on precision and on directions, by run and kind of layer."""
    yield _named("works_in_bf16_momenta", output.works_in_bf16(stacks))
    precision = coefficients.precision(list(stacks.values()), "the sampled")
    yield _named("precision_momenta", precision)
    small = [one for one in stacks.values() if output.small_directions(one) > 1]
    of = f"{len(small)} of {len(stacks)} matrices, those with two small values or more"
    yield _named("rounding_near_zero_momenta", output.small_values_near_zero(small, of))
    cases = [directions.case(name, stack) for name, stack in stacks.items()]
    yield _named("steps_keep_directions_momenta", directions.steps_keep_directions(cases))
    yield _named("steps_normalize_scale_momenta", directions.steps_normalize_scale(cases))
    yield _named("angles_of_main_directions_momenta", directions.main_directions(cases))


def each(found: dict[str, float]) -> str:
    return ", ".join(f"{kind} {value:.3f}" for kind, value in found.items())


def kinds(found: list[Spectrum]) -> Kinds:
    groups: dict[str, list[Spectrum]] = {}
    for one in found:
        groups.setdefault(f"{one.run} {one.kind}", []).append(one)
    return {name: rows(members) for name, members in groups.items()}


def rows(found: list[Spectrum]) -> Array:
    return spectra.padded([one.values for one in found])


def middle_layer(found: list[Spectrum], like: Spectrum) -> int | None:
    """The middle one of the layers with the same run and kind."""
    same = {one.layer for one in found if (one.run, one.kind) == (like.run, like.kind)}
    ordered = sorted(same, key=lambda layer: -1 if layer is None else layer)
    return ordered[len(ordered) // 2]


def _figure(name: str, by_kind: Kinds, triple: list[Triple], figure: float) -> Check:
    errors = {kind: mean_error(values, triple[0]) for kind, values in by_kind.items()}
    near = [abs(error / figure - 1) <= NEAR for error in errors.values()]
    return Check(
        name=name,
        statement=f"their mse is {figure} on momenta too, {STEPS} steps",
        **over(list(errors.values())),
        unit="mean (s-1)^2: median and range over kinds of layers",
        verdict=verdict(all(near), not any(near)),
        condition=f"momenta of training, by ({', '.join(f'{k:.4f}' for k in triple[0])}): "
        f"{each(errors)}; confirmed if within {NEAR:.0%} of the figure for every kind, refuted if "
        "for none",
        source=f"{NOTES_B}; Su Jianlin, kexue.fm/archives/10592",
    )


def official_not_optimal(removed: Estimate, n: int) -> Check:
    """removed: the share of their error that one fitted triple removes, over n spectra."""
    return Check(
        name="official_not_optimal_momenta",
        statement="a fitted triple has a lower mse than the official coefficients on momenta",
        value=removed.mean,
        low=removed.low,
        high=removed.high,
        n=n,
        unit="share of their mean (s-1)^2 that one fitted triple removes: mean, 95 % interval",
        verdict=verdict(removed.low > 0, removed.high <= 0),
        condition=f"{FITTED}; confirmed if the interval is above 0, refuted if it is below",
        source=NOTES_B,
    )


def official_beats_taylor(by_kind: Kinds) -> Check:
    ratios = {
        kind: mean_error(values, KELLER) / mean_error(values, TAYLOR)
        for kind, values in by_kind.items()
    }
    every = list(ratios.values())
    worse = [kind for kind, ratio in ratios.items() if ratio > 1]
    return Check(
        name="official_beats_taylor_momenta",
        statement="the official coefficients are clearly better than the theoretical ones",
        **over(every),
        unit="their mean (s-1)^2 / the theoretical ones': median and range over kinds of layers",
        verdict=verdict(max(every) < 0.5, min(every) > 1),
        condition=f"{STEPS} steps of both, momenta of training; worse than the theoretical ones "
        f"for {', '.join(worse) or 'none'}; confirmed if less than half the error for every kind "
        "of layer, refuted if more for every one",
        source=NOTES_B,
    )


def fewer_steps(by_kind: Kinds) -> Check:
    needed = [taylor_steps(values, mean_error(values, KELLER)) for values in by_kind.values()]
    return Check(
        name="fewer_steps_momenta",
        statement="the official coefficients converge faster than the theoretical ones",
        **over(needed),
        unit=f"theoretical steps to the mean (s-1)^2 of {STEPS} official ones: median and range "
        "over kinds of layers",
        verdict=verdict(min(needed) > STEPS, max(needed) <= STEPS),
        condition=f"momenta of training; confirmed if more than {STEPS} for every kind of layer, "
        "refuted if for none",
        source=NOTES_B,
    )


def little_to_gain(seen: Array, unseen: Array, fitted: list[Triple]) -> Check:
    sets = {name: per_step(name, STEPS) for name in NAMES if name != "keller"}
    sets["one fitted triple"] = fitted * STEPS
    sets["a fitted triple a step"] = search.minimax(seen, STEPS, STARTS).triples
    removed = {name: share_removed(unseen, triples) for name, triples in sets.items()}
    order = sorted(removed.items(), key=lambda item: -item[1].mean)
    figures = ", ".join(f"{name} {share.mean:.1%}" for name, share in order)
    statement = "there is little to gain on the official coefficients on momenta"
    said = f"{FITTED}: {figures}"
    return gain("little_to_gain_momenta", statement, removed, len(unseen), said)


def stable_over_kinds(by_kind: Kinds) -> Check:
    errors = {kind: mean_error(values, KELLER) for kind, values in by_kind.items()}
    least, most = min(errors.values()), max(errors.values())
    return Check(
        name="stable_over_kinds_momenta",
        statement="the official coefficients do equally well on momenta of all kinds of layers",
        value=most / least,
        low=least,
        high=most,
        n=len(errors),
        unit="largest / smallest mean (s-1)^2; range: the two",
        verdict=verdict(most / least <= 2, most / least >= 10),
        condition=f"momenta of training; best for {min(errors, key=errors.__getitem__)}, worst for "
        f"{max(errors, key=errors.__getitem__)}; confirmed up to a ratio of 2, refuted from 10",
        source=NOTES_B,
    )


def uniform(by_kind: Kinds) -> Check:
    law = stats.uniform(0.5, 1.0)
    ends = [recursion.iterate(v[v > 0], [KELLER] * STEPS) for v in by_kind.values()]
    distances = [float(stats.kstest(end, law.cdf).statistic) for end in ends]
    return Check(
        name="uniform_momenta",
        statement="the output's singular values are uniform on (0.5, 1.5)",
        **over(distances),
        unit="Kolmogorov distance: median and range over kinds of layers",
        verdict=verdict(max(distances) < 0.1, min(distances) > 0.1),
        condition="momenta of training; confirmed if the distance is below 0.1 for every kind of "
        "layer, refuted if for none",
        source=DOCSTRING,
    )


def _named(name: str, check: Check) -> Check:
    return replace(check, name=name, condition=f"momenta of training: {check.condition}")
