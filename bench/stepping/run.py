"""One step benchmark, from its settings to its record, picture and tables."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.communication import tables as communication_tables
from bench.display import progress
from bench.measuring import flops, link, load, meter, turns
from bench.processes import parallel
from bench.records import files, origin, record
from bench.settings import targets
from bench.stepping import chart, communication, streams, summary, timeline, timeline_chart
from bench.stepping import tables as step_tables
from bench.stepping.arms import Arm
from bench.stepping.communication import one_line, slowest, together
from bench.stepping.settings import REFERENCE, Benchmark
from bench.stepping.subject import Subject
from bench.stepping.summary import AGAIN
from bench.training import prepare

SCHEMA = 1
SPARE = 0.9  # share of the free memory that is used


def run(benchmark: Benchmark, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure; the leading process also writes the record and the picture, and shows the tables."""
    targets.check_model(benchmark.arms[REFERENCE])
    world = parallel.start(benchmark.arms[REFERENCE])
    path = world.agreed(lambda: results_file(benchmark))
    sizes = ", ".join(map(str, benchmark.batches))
    say(f"{benchmark.name}: {', '.join(benchmark.arms)}; batches of {sizes}")
    remarks(benchmark, say)
    with prepare.mistakes():
        subject = Subject(benchmark.arms[REFERENCE], benchmark.batches, world)
    prepare.remark_fit(subject.settings, subject.model, say)
    found = measure(benchmark, subject, say)
    failed = [label for label, one in found["optimizers"].items() if one["error"]]
    error = f"{', '.join(failed)} could not be measured" if failed else None
    if world.leads:
        write(path, about(benchmark, subject) | found, failed, say)
    return {"cell": benchmark.name, "how": "failed" if failed else "finished", "error": error}


def write(path: Path, content: dict[str, Any], failed: list[str], say) -> None:
    """Write the record and the picture, and show the tables; failed: what was not measured."""
    replaced = path.exists()
    record.write_json(path, content)
    content = json.loads(path.read_text(encoding="utf-8"))  # shows what was written
    picture = chart.write(content, path.with_suffix(".svg"))
    if "timeline" in content:
        timeline_chart.write(content, path.with_name(f"{path.stem}-timeline.svg"))
    step_tables.show(content)
    if "parallel" in content:
        communication_tables.show(content)
    where = f"record: {path}{' (replaced)' if replaced else ''}, picture: {picture}"
    say(f"{'failed: ' + ', '.join(failed) if failed else 'finished'}; {where}")


def results_file(benchmark: Benchmark) -> Path:
    """The path of the record; creates its folder at once, so that no measurement is lost."""
    return files.folder(benchmark.results_dir, "steps") / f"{benchmark.name}.json"


def remarks(benchmark: Benchmark, say: Callable[[str], None]) -> None:
    lines = [f"{benchmark.name}: {said}"] if (said := load.warning()) else []
    for settings in benchmark.arms.values():
        prepare.remarks(settings, lines.append)
    for line in dict.fromkeys(lines):
        say(line)


def about(benchmark: Benchmark, subject: Subject) -> dict[str, Any]:
    """The settings and the origin."""
    settings = benchmark.arms[REFERENCE]
    return {
        "schema": SCHEMA,
        "name": benchmark.name,
        "command": origin.command(),
        "model": settings.model["name"],
        "parameters": sum(p.numel() for p in subject.parameters),
        "unit": subject.source.unit,
        "batches": benchmark.batches,
        "units_per_example": subject.source.units_per_example,
        "precision": settings.train.precision,
        "device": settings.train.device,
        "rounds": benchmark.rounds,
        **subject.world.facts(),
        "environment": origin.environment(settings.train.device),
        "config": {
            "model": settings.model,
            "data": settings.data["name"],
            "seed": settings.seed,
            "train": {
                key: getattr(settings.train, key)
                for key in ("sequence_length", "precision", "device", "compile")
            },
            "optimizers": {label: arm.optimizer for label, arm in benchmark.arms.items()},
        },
    }


def measure(benchmark: Benchmark, subject: Subject, say) -> dict[str, Any]:
    """All measurements: first each optimizer's own facts, then times in turns.

    All processes do the same in the same order; a decision by one process is sent to all.
    """
    world = subject.world
    arms = {label: Arm(label, s, subject) for label, s in benchmark.arms.items()}
    arms[AGAIN] = Arm(AGAIN, benchmark.arms[REFERENCE], subject)
    errors: dict[str, str] = {}

    def failed(label: str, error: Exception) -> None:
        if label not in benchmark.arms or label == REFERENCE:
            raise error
        errors[label] = one_line(error)
        say(f"{label}: {errors[label]}")
        arms.pop(label).free()
        subject.restore()

    total = len(benchmark.arms) + 2
    total += (benchmark.rounds + 1) * (len(arms) + len(subject.batches))
    with progress.ticks(total, shown=world.leads) as tick:
        tick("forward and backward")
        work = {units: subject.count(units) for units in subject.batches}
        most = subject.peak(max(subject.batches))
        rows = subject.rows_per_unit()
        every: dict[str, list[dict[str, Any]]] = {}  # facts by process
        subject.time(min(subject.batches))  # gradients for the code below
        for label in benchmark.arms:
            tick(f"{label}: state, memory, FLOPs")
            try:
                every[label] = together(arms[label].facts, world)()
            except Exception as error:
                failed(label, error)
        facts = {label: found[world.rank] for label, found in every.items()}
        tick("the rate of matrix products")
        peaks = matmul_peaks(facts, subject.device)
        subject.clear()
        by_turns = world.agreed(lambda: not fits(facts, most, subject.device))
        if by_turns:
            say("no room for the states of all optimizers: each is rebuilt for every turn")
        every_turn = turns.take(turns_of(arms, subject, by_turns), benchmark.rounds, tick, failed)
    times = {name: [slowest(turn) for turn in rounds] for name, rounds in every_turn.items()}
    alone = {
        label: [turn[0].parts["orthogonalization"] for turn in every_turn[label]]
        for label in arms
        if label in every_turn
    }
    measured = summary.Measured(facts, times, alone, list(subject.batches), work, rows, peaks)
    found = summary.summary(measured, errors)
    there = {label: arms[label] for label in facts if label in arms}
    if on_gpu(subject) or benchmark.timeline:
        for label, one in streams.measure(there, subject, benchmark.rounds, by_turns).items():
            found["optimizers"][label] |= one
    if benchmark.timeline:
        found["timeline"] = timeline.measure(there, subject)
    found["optimizers"] = {label: found["optimizers"][label] for label in benchmark.arms}
    if world.strategy != "none":
        found |= communicated(subject, found["optimizers"], every, every_turn, peaks)
    return found | {"by_turns": by_turns}


def on_gpu(subject: Subject) -> bool:
    """Whether a single device works while the host runs ahead."""
    return subject.device == "cuda" and subject.world.strategy == "none"


def communicated(
    subject: Subject,
    optimizers: dict[str, dict[str, Any]],
    every: dict[str, list[dict[str, Any]]],
    every_turn: dict[Any, list[Any]],
    peaks: dict[str, Any],
) -> dict[str, Any]:
    """Fill in the communication of each optimizer; returns the links among the processes."""
    links = link.sweep(subject.world, subject.device)
    forward_backward = together(subject.traffic, subject.world)()
    for label, one in optimizers.items():
        if one["error"]:
            continue
        peak = peaks.get(one["flops_dtype"], {}).get("model_shapes")
        gemm = peak and peak["flops_per_second"]
        one["communication"] = communication.block(
            every[label], forward_backward, every_turn[label], links, gemm
        )
    return {"links": links}


def turns_of(arms: dict[str, Arm], subject: Subject, by_turns: bool) -> dict[Any, turns.Turn]:
    """Forward+backward at every batch, then every optimizer; the A/A pair far apart."""
    found: dict[Any, turns.Turn] = {
        units: functools.partial(subject.time, units) for units in subject.batches
    }
    for label, arm in arms.items():
        found[label] = arm.turn_alone if by_turns else arm.turn
    return {name: together(turn, subject.world) for name, turn in found.items()}


def fits(facts: dict[str, dict[str, Any]], forward_backward: int, device: str) -> bool:
    """Whether memory can hold all states at once, beside the larger of a step's temporaries and a
    forward and backward."""
    meter.release()
    states = sum(one["state_bytes"]["total"] for one in facts.values())
    states += facts[REFERENCE]["state_bytes"]["total"]  # the A/A pair
    temporary = max(one["peak_temporary_bytes"] for one in facts.values())
    return states + temporary + forward_backward < SPARE * meter.available(device)


def matmul_peaks(facts: dict[str, dict[str, Any]], device: str) -> dict[str, Any]:
    """For each dtype that some optimizer multiplies in, the best rate of a matrix product here."""
    dtypes = {one["flops_dtype"] for one in facts.values()} - {None}
    products = {product for one in facts.values() for product in one["products"]}
    return {d: flops.matmul_peak(products, getattr(torch, d), device) for d in sorted(dtypes)}
