"""The settings in which runs differ: as short names of runs, and as a table of two groups."""

import json
from collections.abc import Iterable
from typing import Any

from bench.records import archive, cell
from bench.records.archive import Run

# Keys of a record's config that say what a run is called and where it goes, not what it computes.
ASIDE = (
    *("seed", "rerun", "inspect", "results_dir", "tracker"),
    *("experiment", "stage", "condition", "arm", "study"),
)
CHOSEN = ("qkv", "orthogonalizer")  # groups that an optimizer copies into its roles
Tree = dict[str, Any]


def settings(record: dict[str, Any]) -> Tree:
    """The settings in a record's config that can change a result, without the seed.

    Runs of older code, whose configs lack later settings, have the same as today's.
    """
    left_out = {*ASIDE, *CHOSEN}
    kept = {key: value for key, value in record["config"].items() if key not in left_out}
    return cell.computing(kept)


def named(records: list[dict[str, Any]]) -> list[str]:
    """The optimizer of each record, with what tells it from others: "hybrid
    qkv=per_head"."""
    every = [(one["optimizer"], _words(one)) for one in records]
    found: list[str] = []
    for optimizer, own in every:
        others = [words for name, words in every if name == optimizer]
        told = [k for k, value in own.items() if any(o.get(k) != value for o in others)]
        chosen = [group for group in CHOSEN if group in told]
        told = [k for k in told if not any(f".{group}." in k for group in chosen)]
        name = " ".join([optimizer, *(f"{k}={own[k]}" for k in told[:2]), *["…"] * (len(told) > 2)])
        again = sum(one == name or one.startswith(f"{name} (") for one in found)
        found.append(f"{name} ({again + 1})" if again else name)
    return found


def _words(record: dict[str, Any]) -> dict[str, str]:
    """The settings by short names, those of the chosen groups first."""
    config = record["config"]
    groups = {key: config[key] for key in CHOSEN if isinstance(config.get(key), dict)}
    chosen = {key: shown(one.get("name")) for key, one in groups.items()}
    return chosen | {_short(key): value for key, value in leaves(settings(record)).items()}


def _short(key: str) -> str:
    """A key without its group: optimizer.lr_scale becomes lr_scale; roles keep their name."""
    return key.removeprefix("optimizer.").removeprefix("train.").removeprefix("roles.")


def leaves(tree: Tree, above: str = "") -> dict[str, str]:
    """Settings as text by their full names; null settings are left out."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{above}{shown(key)}.")
        elif value is not None:
            found[f"{above}{shown(key)}"] = shown(value)
    return found


def shown(value: Any) -> str:
    """A setting's value in plain characters, as it is typed, at most 60."""
    text = value if isinstance(value, str) else json.dumps(value)
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = "".join(sign if sign.isprintable() else " " for sign in plain)
    return plain if len(plain) <= 60 else f"{plain[:57]}..."


def table(ours: Iterable[Run], theirs: Iterable[Run]) -> list[tuple[str, str, str]]:
    """The settings in which two groups differ: name, value here, value there ("–" if none).

    If values vary within a group, all are listed. A part that one side lacks takes one line.
    """
    here, there = _values(ours), _values(theirs)
    keys = [key for key in here | there if here.get(key) != there.get(key)]
    rows: dict[str, tuple[str, str, str]] = {}
    for key in keys:
        whole = _missing_part(key, here, there)
        rows[whole] = (whole, _side(whole, here), _side(whole, there))
    return list(rows.values())


def _side(name: str, side: dict[str, list[str]]) -> str:
    """One side's values of a setting; for a part its target and its number of settings."""
    if name in side:
        return ", ".join(side[name])
    inside = [key for key in side if key.startswith(f"{name}.")]
    made = [one.rpartition(".")[2] for one in side.get(f"{name}._target_", [])]
    return ", ".join([*made, f"{len(inside)} settings"]) if inside else "–"


def _values(runs: Iterable[Run]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for run in runs:
        one = settings(run.record) | {"mathematics": archive.setup(run.record).mathematics}
        for key, value in leaves(one).items():
            found.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in found.items()}


def _missing_part(key: str, *sides: dict[str, list[str]]) -> str:
    """The largest part around a setting that one side lacks entirely; else the setting itself."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        part = ".".join(parts[:length])
        if any(not any(k == part or k.startswith(f"{part}.") for k in side) for side in sides):
            return part
    return key
