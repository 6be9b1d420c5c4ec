"""One cell, from its settings to its record: skips, resumes or trains it."""

import errno
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.data import seen
from bench.display import terminal
from bench.measuring import meter, reference, utilization
from bench.processes import parallel
from bench.processes.world import World
from bench.records import files, record
from bench.records.owner import Lost, Ownership
from bench.settings.schema import Settings
from bench.tracking import tracker as tracking
from bench.training import forgetting, prepare, tables, weights
from bench.training.claiming import Say, brief, claim, remove, searched, silent
from bench.training.launching import Outcome
from bench.training.prepare import Ready
from bench.training.trainer import Diverged, Trainer
from optimizers.modes import evaluating
from optimizers.state import state_bytes

RISE = 0.01  # relative to the loss at the start
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(
    settings: Settings, cell: str, say: Say, swept: Callable[[float], None] | None = None
) -> Outcome:
    """Train the cell unless it has a record or another process is training it.

    say: for lines that a person needs. swept: given for a run of a sweep, which shows as one line
    there and prints no more; called once with the approximate seconds that the run will take.
    """
    world = parallel.start(settings)
    # Processes may decide differently by their machines, for example on the fastest precision.
    settings, cell = world.agreed(lambda: (settings, cell))
    owner = Ownership(files.folder(settings.results_dir, "runs", cell))
    try:
        with ExitStack() as held:
            tell = say if swept is None else silent
            ended = world.agreed(lambda: claim(settings, cell, owner, held, say, tell))
            return ended or train(settings, cell, owner, world, say, swept)
    except Lost as lost:
        if world.size == 1:
            raise
        say(f"error: {lost}")
        raise SystemExit(1) from None  # the other processes would wait forever


def train(
    settings: Settings,
    cell: str,
    owner: Ownership,
    world: World,
    say: Say,
    swept: Callable[[float], None] | None,
) -> Outcome:
    """Build everything, train, and write the record; only the leading process writes."""
    folder, tell = owner.folder, say if swept is None else silent
    ready = prepare.everything(settings, folder, world)
    tell(tables.who_takes_what(settings.optimizer["name"], ready.routing.table))
    prepare.remarks(settings, tell)
    prepare.remark_fit(settings, ready.model, tell)
    about = record.about(settings, cell, record.study(folder, settings))
    facts = about | facts_of(ready, settings)
    tracker = tracking.Tracker()
    if world.leads:
        record.write_config(folder, settings)
        record.write_hydra(folder)
        record.write_json(folder / "routing.json", ready.routing.table)
        examples = settings.train.batch_size * settings.train.accumulate
        known = {"model_flops": {"per_step": utilization.of_a_step(ready.counted, examples)}}
        results_dir, goes_on = Path(settings.results_dir), (folder / "checkpoint").exists()
        tracker = tracking.start(settings.tracker, facts | known, results_dir, say, goes_on)
        if tracker.where:
            tell(tracker.where)
    check = owner.check if world.leads else lambda: None
    trainer = Trainer(settings, ready, folder, tracker, say, world, check, swept)
    ended = attempt(trainer, settings, ready)
    facts |= results(trainer) | ended
    lost = world.size > 1 and facts["status"] == "failed"
    if world.strategy != "none" and not lost:
        facts |= spread(trainer, facts)
    if world.leads:
        finish(facts, folder, settings, tracker, tell)
    if lost:
        raise SystemExit(1)  # the others would wait forever: torchrun ends or restarts all
    world.agreed(lambda: None)  # the record is now there for all to read
    ended = {"how": facts["status"], "error": facts["error"], "record": brief(facts)}
    return ended | {"loss": searched(facts)}


def attempt(trainer: Trainer, settings: Settings, ready: Ready) -> dict[str, Any]:
    """Train and test, and keep the weights if asked to; return how it ended.

    Errors that stop the process pass through.
    """
    try:
        loss, accuracy = trainer.fit()
        refuse_loss_above_start(trainer, settings)
        tested = {"test_loss": loss}
        if accuracy is not None:
            tested["test_accuracy"] = accuracy
        with evaluating(trainer.routing.optimizers):  # the weights that were tested
            tested |= forgetting.measured(trainer, settings, ready.other)
            if settings.train.save_weights:
                weights.save(trainer.folder, trainer.model, trainer.world)
        return {"status": "finished", **tested}
    except Diverged as end:
        step = trainer.state["step"]
        return {"status": "diverged", "diverged_step": step, "error": str(end)}
    except (KeyboardInterrupt, SystemExit, Lost):
        trainer.tracker.finish({}, failed=True)
        raise
    except OSError as error:
        if error.errno in FULL:
            return {"status": "failed", "error": f"disk full: {error.filename or error}"}
        return {"status": "failed", "error": traceback.format_exc()}
    except Exception:
        return {"status": "failed", "error": traceback.format_exc()}


def refuse_loss_above_start(trainer: Trainer, settings: Settings) -> None:
    """Raise Diverged if the run ended RISE above the validation loss of its untrained model.

    A few warm-up steps move a loss by less, up or down: that is noise, not divergence. The first
    training loss is a cheap substitute for the start. Only if a run ended above it is the untrained
    model, which follows from the seed, built again and evaluated.
    """
    end, metrics = trainer.state["val_loss"], trainer.metrics
    assert metrics is not None  # the run has ended
    if end < trainer.world.agreed(lambda: metrics.training("train_loss")[0]):
        return
    untrained = prepare.model(settings, trainer.data).eval()
    start, _ = trainer.evaluation.of("validation", model=untrained)
    if rose(start, end):
        raise Diverged(f"validation loss {end:.4f} at the end, {start:.4f} at the start")


def rose(start: float, end: float) -> bool:
    """Whether a loss ended above its start by more than noise; yes for NaN."""
    return not end <= (1 + RISE) * start


def facts_of(ready: Ready, settings: Settings) -> dict[str, Any]:
    """The facts that are known as soon as the model and data exist."""
    units = settings.train.batch_size * settings.train.accumulate * ready.data.units_per_example
    return {
        "parameters": sum(p.numel() for p in ready.model.parameters()),
        f"{ready.data.unit}_per_step": units,
        **dict.fromkeys(("val_accuracy", "test_accuracy") if ready.data.task == "images" else ()),
        # Examples of val_loss and test_loss at the end, and of validation before the end.
        "evaluated": {part: ready.data.evaluated(part) for part in ("validation", "test")}
        | {"during": ready.data.evaluated("validation", during=True)},
        "bytes_per_token": seen.bytes_per_token(ready.data, settings.model["tokenizer"])
        if ready.data.task == "text"
        else None,
        "routing": ready.routing.table,
    }


def results(trainer: Trainer) -> dict[str, Any]:
    """The run's results and costs."""
    state, metrics = trainer.state, trainer.metrics
    if metrics is None or not metrics.training("train_loss"):
        return {}
    fb = meter.timed(metrics.training("forward_backward_ms"))
    own = meter.timed(metrics.training("optimizer_ms"))
    fb_ms, own_ms = meter.summary(fb), meter.summary(own)
    assert fb_ms["median"] is not None and own_ms["median"] is not None  # of at least one step
    step_ms = fb_ms["median"] + own_ms["median"]
    found = {
        "steps": state["step"],
        "start_loss": metrics.training("train_loss")[0],
        "val_loss": state["val_loss"],
        "best_val_loss": state["best_val_loss"],
        "target_step": state["target_step"],
        "target_seconds": state["target_seconds"],
        "train_seconds": state["seconds"],
        "throughput": 1e3 * trainer.units_per_step / step_ms,
        "model_flops": utilization.of(
            trainer.counted,
            trainer.examples,
            step_ms / 1e3,
            state["seconds"],
            trainer.train.device,
            trainer.world.size,
        ),
        "forward_backward_ms": fb_ms,
        "optimizer_ms": own_ms,
        "optimizer_share": own_ms["median"] / step_ms,
        "overhead": reference.overhead(state["reference"], trainer.units_per_step),
        "optimizer_state_bytes": state_bytes(trainer.routing.optimizers),
        "peak_memory_bytes": None if trainer.reference.adamw else trainer.memory.bytes(),
        "curve": record.curve(metrics.lines),
        **trainer.averaged,
    }
    if trainer.data.task == "images":
        found["val_accuracy"] = state["val_accuracy"]
    return found


def spread(trainer: Trainer, facts: dict[str, Any]) -> dict[str, Any]:
    """The processes that the run used, and the state that each one keeps."""
    world, state = trainer.world, facts["optimizer_state_bytes"] or {}
    here = state_bytes(trainer.routing.optimizers)["total"]
    return world.facts() | {
        "optimizer_state_bytes": state | {"by_rank": world.gathered(here)},
    }


def finish(facts: dict, folder: Path, settings: Settings, tracker, tell: Say) -> None:
    """Write the record, close the tracker, and report how the run ended.

    tell: silent in a sweep, which prints its own line for the run.
    """
    path = folder / "record.json"
    written = f"record: {path}"
    try:
        record.write_json(path, facts)
    except OSError as error:
        why = f"{error.strerror}: {error.filename}"
        facts |= {"status": "failed", "error": facts["error"] or why}
        written = f"its record could not be written ({why})"
    failed = facts["status"] == "failed"
    tracker.finish(facts, failed=failed)
    if failed:
        tell(f"error: {facts['error'].strip().splitlines()[-1]}")
    else:
        if not settings.train.keep_checkpoint:
            remove(folder / "checkpoint")
        if facts["status"] == "diverged":
            tell(f"diverged: {facts['error']}")
        if tell is not silent:
            terminal.show(facts["cell"], tables.run(facts))
    tell(f"{facts['status']}; {written}")
    if tracker.where:
        tell(tracker.where)
