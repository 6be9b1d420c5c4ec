"""Findings from step benchmarks of many processes: functions that conf/claim/ names."""

from collections.abc import Iterator
from typing import Any

from bench.communication import extrapolation
from bench.communication.model import sent_bytes
from bench.communication.tables import where_measured
from bench.studies.results import Results
from bench.verdicts.finding import Finding

MISSING = "torchrun --nproc-per-node 2 bench/step.py parallel=…: results/steps/*-{parallel}-2.json"
CUT = ("fsdp2", "tp", "fsdp2_tp")  # strategies that shard weights


def step_bytes(
    results: Results, *, sharding: list[str | None], parallel: list[str] | None = None
) -> list[Finding]:
    """Bytes that a process sends in an optimizer's step, the maximum over processes, exact counts.

    sharding: how our Muon treats its matrices (null: optimizers without our Muon); parallel: the
    strategies, by default all that shard weights. One finding per record, with the range over the
    record's optimizers.
    """
    found = []
    for file, record in records(results, parallel or list(CUT)):
        chosen = {
            label: max(sent_bytes(rank) for rank in one["step"]["collectives_by_rank"])
            for label, one in _communications(record).items()
            if one["sharding"] in sharding and _compared(label, one)
        }
        if chosen:
            values = list(chosen.values())
            found.append(
                Finding(
                    f"{_where(record)}: {', '.join(chosen)}",
                    *(min(values), min(values), max(values), len(values)),
                    unit="bytes sent by a process in a step",
                    records=[file],
                )
            )
    return found or [Finding("", missing=MISSING.format(parallel="|".join(parallel or CUT)))]


def step_collectives(results: Results, *, parallel: list[str] | None = None) -> list[Finding]:
    """Whether each exact strategy gathers the matrices and scatters the results.

    All-to-alls before and after the iteration do both; an all-gather before it makes scattering
    unnecessary, one after it makes gathering unnecessary; replicated work needs neither.
    """
    found = []
    for file, record in records(results, parallel or ["ddp", *CUT]):
        by_kinds: dict[tuple, list[str]] = {}
        for label, one in _communications(record).items():
            if one["sharding"] in (None, "blockwise"):
                continue
            calls = one["step"]["collectives_by_rank"][0]
            said = tuple(f"{c['calls']} {kind}" for kind, c in sorted(calls.items()))
            by_kinds.setdefault((one["sharding"], said), []).append(label)
        for (sharding, said), labels in by_kinds.items():
            found.append(
                Finding(
                    f"{_where(record)}, {sharding}: {', '.join(said) or 'no collective'} "
                    f"({', '.join(labels)})",
                    holds=any("all_to_all" in one for one in said),
                    n=1,
                    records=[file],
                )
            )
    return found or [Finding("", missing=MISSING.format(parallel="|".join(["ddp", *CUT])))]


def spared_by_heads(results: Results, *, parallel: list[str]) -> list[Finding]:
    """The share of hybrid's bytes, over all processes, that qkv=per_head saves over split."""
    found = []
    for file, record in records(results, parallel):
        total = {
            label: sum(map(sent_bytes, one["step"]["collectives_by_rank"]))
            for label, one in _communications(record).items()
        }
        split, heads = total.get("hybrid"), total.get("hybrid qkv=per_head")
        if split and heads is not None:
            share = 1 - heads / split
            unit = "share of the bytes of a step that qkv=per_head spares"
            found.append(
                Finding(_where(record), share, share, share, n=1, unit=unit, records=[file])
            )
    return found or [Finding("", missing=MISSING.format(parallel="|".join(parallel)))]


def at_scale(results: Results, *, low: float, high: float) -> list[Finding]:
    """Muon's step as a share of forward + backward at scales that were not measured.

    Always undecided: an extrapolation is no evidence. low, high: the claimed range.
    """
    if not any(records(results, ["ddp", *CUT])):
        needs = "a step measured on a cluster, or one over processes here to extrapolate from"
        return [Finding("", missing=needs)]
    points = [point for point in extrapolation.assumed_points() if point.strategy == "distribute"]
    shares = [point.share("communication") + point.share("orthogonalization") for point in points]
    inside = sum(low <= share <= high for share in shares)
    cases = f"{inside} of {len(shares)} cases of conf/communication.yaml lie between"
    return [
        Finding(
            "distribute, communication and orthogonalization",
            *(sorted(shares)[len(shares) // 2], min(shares), max(shares), 0),
            unit="share of forward + backward, extrapolated: median and range over cases",
            undecided=f"extrapolated, nothing measured; {cases} {low:.0%} and {high:.0%}",
        )
    ]


def records(results: Results, parallel: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Step benchmarks with at least two processes under one of these strategies."""
    for file in sorted((results.folder / "steps").glob("*.json")):
        name = f"steps/{file.name}"
        one = results.json(name)
        if one and one.get("world_size", 1) > 1 and one.get("parallel") in parallel:
            yield name, one


def _communications(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    every = record["optimizers"].items()
    return {label: one["communication"] for label, one in every if one.get("communication")}


def _compared(label: str, one: dict[str, Any]) -> bool:
    """Without a Muon of ours only AdamW counts, whose step is element-wise."""
    return one["sharding"] is not None or label.split(" ")[0] in ("adam", "adamw")


def _where(record: dict[str, Any]) -> str:
    return f"{where_measured(record)}, {record['parallel']} with {record['world_size']} processes"
