"""Claims without records so far: a report shows them as one line."""

from collections import Counter
from collections.abc import Iterable

from bench.verdicts.judging import Verdict


def split(verdicts: Iterable[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
    """The verdicts with records, and those for which every finding is missing."""
    every = list(verdicts)
    without = [one for one in every if one.findings and all(f.missing for f in one.findings)]
    return [one for one in every if one not in without], without


def line(without: list[Verdict]) -> str | None:
    """Their number, and the command that most of them wait for; None if there are none."""
    if not without:
        return None
    experiments = Counter(name for one in without for name in sorted(named(one)))
    said = f"{len(without)} claim{'s have' if len(without) > 1 else ' has'} no records yet"
    if not experiments:
        return f"{said}; verdicts.json has what each needs"
    return f"{said}: bench/train.py experiment={experiments.most_common(1)[0][0]}"


def named(one: Verdict) -> set[str]:
    """The experiments that measure a claim."""
    return {str(m["experiment"]) for m in one.claim.measure if "experiment" in m}


def needs(one: Verdict) -> str:
    """What must be run."""
    return "; ".join(dict.fromkeys(str(found.missing) for found in one.findings))
