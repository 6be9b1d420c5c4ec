"""The one training loop: any model, data and optimizers, from step 0 or a checkpoint."""

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.display.progress import Progress
from bench.measuring import meter
from bench.measuring.reference import Reference
from bench.processes import parallel
from bench.processes.world import World
from bench.records import record
from bench.records.record import Metrics
from bench.settings.schema import Settings
from bench.settings.targets import schedule_factor
from bench.tracking.tracker import Tracker
from bench.training import checkpoint, gradients, loss, momenta, randomness
from bench.training.averaging import Average
from bench.training.evaluation import Evaluation
from bench.training.feeding import Feed
from bench.training.interrupt import Interrupt
from bench.training.prepare import Ready
from optimizers import overlap
from optimizers.modes import evaluating


class Diverged(Exception):
    """The loss or the gradient is no longer finite."""


class Trainer:
    """Trains the model of `ready` and writes metrics and checkpoints to `folder`.

    `self.state` (plain numbers), the model, the optimizers, torch's random state and the metrics
    determine the result. A checkpoint holds all five, and the average of weights that is kept
    beside them.
    """

    def __init__(
        self,
        settings: Settings,
        ready: Ready,
        folder: Path,
        tracker: Tracker,
        warn: Callable[[str], None],
        world: World,
        check: Callable[[], None],
        swept: Callable[[float], None] | None = None,
    ) -> None:
        """check: called before anything is written; if it raises, the run ends there. swept: given
        for a run of a sweep, see Progress."""
        self.train, self.world, self.check, self.swept = settings.train, world, check, swept
        self.model, self.data, self.routing = ready.model, ready.data, ready.routing
        self.folder, self.tracker, self.memory, self.warn = folder, tracker, ready.memory, warn
        self.forward = parallel.forward(self.model, world)
        self.loss = torch.compile(loss.of, dynamic=False) if self.train.compile else loss.of
        self.factor = schedule_factor(settings)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.clipped_roles = gradients.clipped(self.routing, self.train.clip_part)
        clipped = {id(p) for role in self.clipped_roles for p in self.routing.roles[role]}
        self.clipped = [p for p in self.parameters if id(p) in clipped]
        chosen = settings.optimizer.get("overlap", "none")
        self.overlaps = overlap.overlaps(self.routing.optimizers, chosen)
        self.feed = Feed(self.data, self.train, world)
        self.evaluation = Evaluation(
            self.model, self.forward, self.output, self.data, self.train, world
        )
        self.examples = self.train.batch_size * self.train.accumulate
        self.units_per_step = self.examples * self.data.units_per_example
        self.counted = ready.counted
        self.average = Average(self.model, self.train.average_last)
        self.averaged: dict[str, float] = {}  # the losses of the averaged weights
        self.state: dict[str, Any] = {
            "step": 0,
            "seconds": 0.0,
            "val_loss": None,
            "val_accuracy": None,
            "best_val_loss": None,
            "target_step": None,
            "target_seconds": None,
            "reference": [],  # ms: forward+backward, own step, AdamW's step
        }
        # From the last measured step, by role: update_rms, weight_rms and grad_norms.
        self.measured: dict[str, dict[str, float]] = {"update_rms": {}}
        self.interrupt = Interrupt(warn, patient=world.size > 1)
        self.stops = False  # whether any process of this run was asked to stop
        self.broken = ""  # the gradients that are not finite, if any
        self.metrics: Metrics | None = None

    # the loop -------------------------------------------------------------------------------

    def fit(self) -> tuple[float, float | None]:
        """Train to the end, then test once; returns the test loss and, for images, the accuracy.

        Raises Diverged; raises KeyboardInterrupt after writing a checkpoint.
        """
        before = self.resume()
        # One warm-up step comes first and at least one whole step follows, for the peak memory.
        most = self.train.reference_steps if self.train.steps is None else self.train.steps - 2
        self.reference = Reference(
            self.parameters,
            self.train.device,
            max(0, min(self.train.reference_steps, most)),
            self.state["reference"],
        )
        self.metrics = Metrics(self.folder, before, self.world.leads)
        for line in self.metrics.lines:  # the tracker starts a new run for each attempt
            self.tracker.log(line)
        bar = Progress(
            self.train, self.data.unit, self.units_per_step, self.world.leads, self.swept
        )
        bar.resume(self.metrics.lines)
        with closing(self.metrics), self.interrupt, bar:
            while self.progress() < 1.0:
                evaluates = self._evaluates_next()
                line = self.step(evaluates)
                self.average.add(self.progress())
                self.check()
                bar.show(line)
                if evaluates or self.progress() >= 1.0:
                    bar.show(self.evaluate())
                if self._due(self.train.save_momentum_every):
                    step, world = self.state["step"], self.world
                    momenta.save(self.folder, step, self.routing, self.model, world)
                if self._due(self.train.checkpoint_every) and self.progress() < 1.0:
                    self.save()
                if self.stops:
                    break
            with evaluating(self.routing.optimizers):
                tested = None if self.stops else self.evaluation.of("test")
            if not self.stops and self.average.count:
                self.averaged = self.evaluate_average()
            self.check()
            if self.stops or self.world.means(self.interrupt.asked)[0] > 0:
                self.save()
                raise KeyboardInterrupt
        assert tested is not None  # a run that stops has raised before
        return tested

    def progress(self) -> float:
        """The share of the run that is done, by steps or by time, whichever is larger."""
        by_steps = self.state["step"] / self.train.steps if self.train.steps else 0.0
        limit = self.train.time_limit
        return max(by_steps, self.state["seconds"] / limit if limit else 0.0)

    def _due(self, every: int | None) -> bool:
        return every is not None and self.state["step"] % every == 0

    def _evaluates_next(self) -> bool:
        """Whether the next step ends with an evaluation (under a time limit: whether it may)."""
        step = self.state["step"] + 1
        if step % self.train.eval_every == 0 or step == self.train.steps:
            return True
        if self.train.time_limit is None or step == 1:
            return False
        mean = self.state["seconds"] / self.state["step"]
        return self.state["seconds"] + 2 * mean >= self.train.time_limit

    # one step -------------------------------------------------------------------------------

    def step(self, measure_update: bool) -> dict[str, Any]:
        """Make one optimizer step; returns its line of the metrics."""
        device, state = self.train.device, self.state
        self.routing.scale_rates(self.factor(state["step"], self.progress()))
        rates = self.routing.rates()
        if measure_update and self.overlaps:
            before = self.weights()
        began = meter.clock(device)
        here, norm, of_clipped = self.gradients()
        middle = meter.clock(device)
        if measure_update:
            if not self.overlaps:
                before = self.weights()
            norms = gradients.by_role(
                self.routing.roles, self.clipped_roles, self.train.clip_norm, of_clipped, self.world
            )
        resumed = meter.clock(device)
        overflow = self.update()
        ended = meter.clock(device)
        if measure_update:
            self.memory.pause(ours=sum(p.nbytes for p in self.parameters))
            self.measured = {
                "update_rms": meter.update_rms(before, self.routing.roles, self.world),
                "weight_rms": meter.rms(before, self.world),
                "grad_norms": norms,
            }
            del before
            self.memory.resume()
        train_loss, forward_backward, own, asked = self.world.means(
            here.item(), middle - began, ended - resumed, self.interrupt.asked
        )
        self.stops = asked > 0
        self._time_reference(1e3 * forward_backward, 1e3 * own)
        self.routing.zero_grad()
        state["step"] += 1
        state["seconds"] += forward_backward + own
        line = {
            "step": state["step"],
            self.data.unit: state["step"] * self.units_per_step,
            "seconds": state["seconds"],
            "train_loss": train_loss,
            "lr": rates,
            "grad_norm": norm.item(),
            "forward_backward_ms": 1e3 * forward_backward,
            "optimizer_ms": 1e3 * own,
        }
        if of_clipped is not norm:
            line["clipped_norm"] = of_clipped.item()
        self._write(line)
        if overflow:
            raise Diverged(f"the update at step {state['step']}: {overflow}")
        if not math.isfinite(line["train_loss"]):
            raise Diverged(f"training loss {line['train_loss']} at step {state['step']}")
        if not math.isfinite(line["grad_norm"]):
            raise Diverged(
                f"gradient norm {line['grad_norm']} at step {state['step']}: {self.broken}"
            )
        return line

    def weights(self) -> dict[str, list[Tensor]]:
        """Copies of the weights by role; they do not count in the run's memory."""
        self.memory.pause()
        copies = meter.copies(self.routing.roles)
        self.memory.resume()
        return copies

    def update(self) -> str | None:
        """The optimizers' step; returns what stopped it if a rate is too large for a weight."""
        try:
            self.routing.step()
        except (OverflowError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "without overflow" not in str(error):
                raise
            return str(error)
        return None

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Forward and backward over the step's batch; the mean loss and norms of raw gradients: of
        all, and of those that are clipped."""
        step, parts = self.state["step"], self.train.accumulate
        total = torch.zeros((), device=self.train.device)
        for number in range(parts):
            part, last = self.feed.take(step, number), number == parts - 1
            with parallel.exchanging(self.forward, last):
                share = self.output(self.forward, part)[0] / parts  # frees the logits at once
                with overlap.begun(self.overlaps if last else ()):
                    share.backward()
            self.feed.prepare(step, number)  # before anything waits for the device
            total += share.detach()
        norm = of_clipped = gradients.norm(self.parameters, self.world)
        if not norm.isfinite():
            self.broken = gradients.not_finite(self.model)
        if self.train.clip_norm is not None:
            if self.train.clip_part is not None:
                of_clipped = gradients.norm(self.clipped, self.world)
            gradients.clip(self.clipped, self.train.clip_norm, of_clipped)
        return total, norm, of_clipped

    def output(self, forward: Callable, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The mean loss on a batch and the logits, under the run's precision."""
        device = self.train.device
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast(device, torch.bfloat16, enabled=self.train.precision == "bf16"):
            return self.loss(forward, batch)

    # measuring ------------------------------------------------------------------------------

    def _time_reference(self, forward_backward_ms: float, own_ms: float) -> None:
        """Time AdamW in turn with the run's first steps; memory counts only after AdamW is gone."""
        if self.reference.wants():
            self.reference.time(forward_backward_ms, own_ms)
            if not self.reference.wants():
                self.memory.forget()

    def evaluate(self) -> dict[str, Any]:
        """Validation at the current step; returns its line of the metrics."""
        state = self.state
        with evaluating(self.routing.optimizers):
            val_loss, accuracy = self.evaluation.of("validation", during=self.progress() < 1.0)
            logits = self.evaluation.attention(self.memory)
        state["val_loss"], state["val_accuracy"] = val_loss, accuracy
        best = state["best_val_loss"]
        if math.isfinite(val_loss) and (best is None or val_loss < best):
            state["best_val_loss"] = val_loss
        target = self.train.target_loss
        if target is not None and state["target_step"] is None and val_loss <= target:
            state["target_step"], state["target_seconds"] = state["step"], state["seconds"]
        line = {"step": state["step"], "seconds": state["seconds"], "val_loss": val_loss}
        if accuracy is not None:
            line["val_accuracy"] = accuracy
        line |= self.measured
        # While AdamW is timed beside the run, its state is in memory too.
        line["memory_bytes"] = None if self.reference.adamw else self.memory.lately()
        line["attention_max_logit"] = logits
        self._write(line)
        return line

    def evaluate_average(self) -> dict[str, float]:
        """The losses of the averaged weights, by their names in the record.

        They are the mean of weights that were trained; an optimizer's own mean has no part in it.
        """
        with self.average.in_place():
            return {
                "val_loss_averaged": self.evaluation.of("validation")[0],
                "test_loss_averaged": self.evaluation.of("test")[0],
            }

    def _write(self, line: dict[str, Any]) -> None:
        assert self.metrics is not None  # fit() opened them
        self.metrics.write(line)
        self.tracker.log(line)

    # checkpoints ----------------------------------------------------------------------------

    def tree(self) -> dict[str, Any]:
        """Everything that a run needs to resume exactly at its current step."""
        return {
            "state": self.state,
            "model": dict(self.model.named_parameters()) | dict(self.model.named_buffers()),
            "optimizers": [optimizer.state_dict() for optimizer in self.routing.optimizers],
            "average": self.average.state(),
            "random": randomness.state(self.train.device),
            "metrics": self.metrics.text if self.metrics else "",
        }

    def save(self) -> None:
        checkpoint.save(self.folder / "checkpoint", self.state["step"], self.tree(), self.world)

    def resume(self) -> str:
        """Resume from the newest intact checkpoint, if any, and restore the metrics until then.

        They come from the checkpoint: a metrics.jsonl that lost lines leaves no hole in the curve.
        """
        found = checkpoint.newest(self.folder / "checkpoint", self.warn, self.world, self.owners())
        if found is None:
            return ""
        _, tree = found
        self.state = tree["state"]
        own = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        with torch.no_grad():
            for name, tensor in tree["model"].items():
                own[name].copy_(tensor)
        for optimizer, state in zip(self.routing.optimizers, tree["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if self.train.average_last is not None:
            self.average.load(tree["average"])
        randomness.restore(tree["random"])
        self.memory.forget()
        self.warn(f"resuming from step {self.state['step']}")
        if self.world.leads and not record.has_metrics(self.folder, tree["metrics"]):
            self.warn("metrics.jsonl was damaged: rebuilt from the checkpoint")
        return tree["metrics"]

    def owners(self) -> dict[str, Tensor]:
        """The parameter that tensors of the tree belong to, by the beginning of their names."""
        found: dict[str, Tensor] = {
            f"/{part}/{name}": p
            for name, p in self.model.named_parameters()
            for part in ("model", "average/mean")
        }
        for i, optimizer in enumerate(self.routing.optimizers):
            params = [p for group in optimizer.param_groups for p in group["params"]]
            found |= {f"/optimizers/{i}/state/{number}": p for number, p in enumerate(params)}
        return found
