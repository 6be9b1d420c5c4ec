"""The next command for the user's own runs: one that completes a comparison, or the comparison."""

import shlex
from collections.abc import Iterable
from typing import Any

from bench.reporting.own_runs import OwnRuns
from bench.studies import differing
from bench.studies.groups import mean, title
from bench.studies.pairs import Bench, Group

PYTHON = "python bench/train.py"
SEEDS = 3  # with fewer, an interval over paired seeds is too wide to say much
FLAGS = ("-m", "--multirun")
OTHERS = ("seed", "experiment", "stage", "condition", "arm")  # not copied from a command
CHOICE = ("optimizer", "qkv", "orthogonalizer")  # the optimizer and its options
OPENED = ("[", "{", "'", '"')
SWEEPS = ("choice(", "range(", "interval(", "glob(")


def advice(own: OwnRuns) -> tuple[str, str] | None:
    """The reason, and the next command to type; None if there is nothing to advise."""
    found = [one for bench in own.benches if (one := needed(bench))]
    return min(found, key=lambda one: one[0])[1:] if found else None


def needed(bench: Bench) -> tuple[int, str, str] | None:
    """The urgency (0: highest) of what is missing, why, and the command that trains or compares it.

    For each optimizer the best group by validation loss counts: the others were tried in tuning.
    """
    base, others = bench.baseline, best(bench)
    every = sorted({seed for one in (*others, *filter(None, [base])) for seed in one.seeds})
    if base is None:
        alone = others and not any(one.optimizer == "adamw" for one in bench.groups)
        command = again(others[0], others[0].seeds, ["optimizer=adamw"]) if alone else None
        return (0, f"{title(bench)} has no AdamW to compare with", command) if command else None
    for one in (base, *others):
        lacking = [seed for seed in every if seed not in one.seeds]
        if lacking and (command := again(one, lacking)):
            return 1, f"{one.name} on {title(bench)} lacks seeds that others have", command
    if not others:
        command = again(base, base.seeds, ["optimizer=hybrid"])
        return (3, f"{title(bench)} has AdamW alone", command) if command else None
    if len(every) < SEEDS and (command := together(bench, seeds_after(every))):
        seeds = f"{len(every)} seed{'s' * (len(every) > 1)}"
        return 2, f"{title(bench)} has {seeds}, too few to tell", command
    first = min(others, key=lambda one: mean(one, "val_loss").mean)
    names = ",".join(names_of(bench, base, first))
    why = f"what {first.name} differs by from {base.name} on {title(bench)}"
    return 4, why, shlex.join(["python", "bench/report.py", f"compare=[{names}]"])


def best(bench: Bench) -> list[Group]:
    """For each optimizer but AdamW, the group with the lowest validation loss."""
    found: dict[str, Group] = {}
    finished = [one for one in bench.groups if one.values("val_loss")]
    for one in sorted(finished, key=lambda one: mean(one, "val_loss").mean):
        if one.optimizer != "adamw":
            found.setdefault(one.optimizer, one)
    return list(found.values())


def seeds_after(known: list[int]) -> list[int]:
    return [max(known) + 1 + at for at in range(SEEDS - len(known))]


def names_of(bench: Bench, *groups: Group) -> list[str]:
    """Arguments of `compare=` for groups: the beginnings of their cells' names.

    Groups that differ in rate differ only in the hash at the name's end. If the beginning also
    matches other groups, one cell represents each group, with a common seed if there is one.
    """
    first = [group.runs[0].record for group in groups]
    begin = [one["cell"].partition(f"-s{one['seed']}-")[0] for one in first]
    every = [run.record["cell"] for one in bench.groups for run in one.runs]
    counts = [sum(cell.startswith(f"{name}-") for cell in every) for name in begin]
    if counts == [len(group.runs) for group in groups]:
        return begin
    shared = set.intersection(*(set(group.seeds) for group in groups))
    pair = [[r for r in g.runs if r.record["seed"] in shared] or g.runs for g in groups]
    return [runs[0].record["cell"] for runs in pair]


def together(bench: Bench, seeds: list[int]) -> str | None:
    """One command for all groups if one command made them all; otherwise the baseline's."""
    made = {run.record["command"] for one in bench.groups for run in one.runs}
    assert bench.baseline is not None
    typed = train_words(made.pop()) if len(made) == 1 else None
    if typed is None:
        return again(bench.baseline, seeds)
    return _typed([word for word in typed if word.partition("=")[0] not in OTHERS], seeds)


def again(group: Group, seeds: list[int], instead: Iterable[str] = ()) -> str | None:
    """The command that trains a group with other seeds; instead: other words for its optimizer.

    None if the record's command is not one of bench/train.py.
    """
    record, instead = group.runs[0].record, list(instead)
    typed = train_words(record["command"])
    if typed is None:
        return None
    kept = []
    for word in typed:
        key, _, value = word.partition("=")
        head = key.lstrip("+").partition(".")[0]
        if key in OTHERS or (instead and head in CHOICE):
            continue
        kept.append(_settled(key, value, record["config"]) if _swept(value) else word)
    return _typed([*kept, *instead], seeds)


def train_words(command: str) -> list[str] | None:
    """The settings in a command of bench/train.py; None for other commands."""
    try:
        _, script, *rest = shlex.split(command)
    except ValueError:
        return None
    typed = [word for word in rest if word not in FLAGS]
    plain = all("=" in word and not word.startswith("-") for word in typed)
    return typed if script.endswith("bench/train.py") and plain else None


def _typed(settings: list[str], seeds: list[int]) -> str:
    several = len(seeds) > 1 or any(_swept(word.partition("=")[2]) for word in settings)
    words = [*settings, "seed=" + ",".join(map(str, seeds))]
    return " ".join([PYTHON, *["-m"] * several, shlex.join(words)])


def _swept(value: str) -> bool:
    """Whether a value is a list that Hydra sweeps over, not one in brackets or quotes."""
    return value.startswith(SWEEPS) or ("," in value and value[0] not in OPENED)


def _settled(key: str, value: str, config: dict) -> str:
    """For a swept setting the value that a run had; otherwise the value as typed."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, dict):
        found = found.get("name")
    return f"{key}={value if found is None else differing.shown(found)}"
