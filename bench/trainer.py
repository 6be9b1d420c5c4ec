"""The one training loop: any model, data and optimizers, from step 0 or a checkpoint."""

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import checkpoint, gradients, meter, momenta, randomness
from bench.config import Settings, schedule_factor
from bench.interrupt import Interrupt
from bench.prepare import Ready
from bench.progress import Progress
from bench.record import Metrics
from bench.reference import Reference
from bench.tracking import Tracker


class Diverged(Exception):
    """The loss or the gradient is not finite any more."""


class Trainer:
    """Trains the model of `ready` and leaves metrics and checkpoints in `folder`.

    Everything that decides the result is in `self.state` (plain numbers), the model, the
    optimizers and torch's random state; a checkpoint holds all four.
    """

    def __init__(
        self,
        settings: Settings,
        ready: Ready,
        folder: Path,
        tracker: Tracker,
        warn: Callable[[str], None],
    ) -> None:
        self.train = settings.train
        self.model, self.data, self.routing = ready.model, ready.data, ready.routing
        self.folder, self.tracker, self.memory, self.warn = folder, tracker, ready.memory, warn
        self.forward = torch.compile(self.model) if self.train.compile else self.model
        self.factor = schedule_factor(settings)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.examples = self.train.batch_size * self.train.accumulate
        self.units_per_step = self.examples * self.data.units_per_example
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
        self.update_rms: dict[str, float] = {}
        self.broken = ""  # which gradients are not finite, once one is
        self.metrics: Metrics | None = None

    # the loop -------------------------------------------------------------------------------

    def fit(self) -> tuple[float, float | None]:
        """Train to the end, then test once; the test loss and, for images, accuracy.

        Raises Diverged; KeyboardInterrupt after leaving a checkpoint.
        """
        self.resume()
        # One step warms up and at least one whole step follows, for the peak memory.
        most = self.train.reference_steps if self.train.steps is None else self.train.steps - 2
        self.reference = Reference(
            self.parameters,
            self.train.device,
            max(0, min(self.train.reference_steps, most)),
            self.state["reference"],
        )
        self.metrics = Metrics(self.folder, self.state["step"])
        for line in self.metrics.lines:  # the tracker has a run of its own for each attempt
            self.tracker.log(line)
        bar = Progress(self.train, self.data.unit, self.units_per_step)
        with closing(self.metrics), Interrupt(self.warn) as interrupt, bar:
            while self.progress() < 1.0:
                evaluates = self._evaluates_next()
                line = self.step(evaluates)
                bar.show(line)
                if evaluates or self.progress() >= 1.0:
                    bar.show(self.evaluate())
                if self._due(self.train.save_momentum_every):
                    momenta.save(self.folder, self.state["step"], self.routing, self.model)
                if self._due(self.train.checkpoint_every) and self.progress() < 1.0:
                    self.save()
                if interrupt.asked:
                    break
            tested = None if interrupt.asked else self.evaluation("test")
            if interrupt.asked:
                self.save()
                raise KeyboardInterrupt
        return tested

    def progress(self) -> float:
        """The share of the run that is done: by steps or by time, whichever is further."""
        by_steps = self.state["step"] / self.train.steps if self.train.steps else 0.0
        limit = self.train.time_limit
        return max(by_steps, self.state["seconds"] / limit if limit else 0.0)

    def _due(self, every: int | None) -> bool:
        return every is not None and self.state["step"] % every == 0

    def _evaluates_next(self) -> bool:
        """Whether the coming step ends with an evaluation (under a time limit: may end with)."""
        step = self.state["step"] + 1
        if step % self.train.eval_every == 0 or step == self.train.steps:
            return True
        if self.train.time_limit is None or step == 1:
            return False
        mean = self.state["seconds"] / self.state["step"]
        return self.state["seconds"] + 2 * mean >= self.train.time_limit

    # one step -------------------------------------------------------------------------------

    def step(self, measure_update: bool) -> dict[str, Any]:
        """One optimizer step; the line it adds to the metrics."""
        device, state = self.train.device, self.state
        self.routing.scale_rates(self.factor(state["step"], self.progress()))
        rates = self.routing.rates()
        began = meter.clock(device)
        loss, norm = self.gradients()
        middle = meter.clock(device)
        if measure_update:
            self.memory.pause()
            before = meter.copies(self.routing.roles)
            self.memory.resume()
        resumed = meter.clock(device)
        self.routing.step()
        ended = meter.clock(device)
        if measure_update:
            self.memory.pause(ours=sum(p.nbytes for p in self.parameters))
            self.update_rms = meter.update_rms(before, self.routing.roles)
            del before
            self.memory.resume()
        self._time_reference(1e3 * (middle - began), 1e3 * (ended - resumed))
        self.routing.zero_grad()
        state["step"] += 1
        state["seconds"] += (middle - began) + (ended - resumed)
        line = {
            "step": state["step"],
            self.data.unit: state["step"] * self.units_per_step,
            "seconds": state["seconds"],
            "train_loss": loss.item(),
            "lr": rates,
            "grad_norm": norm.item(),
            "forward_backward_ms": 1e3 * (middle - began),
            "optimizer_ms": 1e3 * (ended - resumed),
        }
        self._write(line)
        if not math.isfinite(line["train_loss"]):
            raise Diverged(f"training loss {line['train_loss']} at step {state['step']}")
        if not math.isfinite(line["grad_norm"]):
            raise Diverged(
                f"gradient norm {line['grad_norm']} at step {state['step']}: {self.broken}"
            )
        return line

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Forward and backward over the step's batch; the mean loss and the raw gradient norm."""
        batch = self.data.batch(self.state["step"], self.examples)
        total = torch.zeros((), device=self.train.device)
        for i in range(0, self.examples, self.train.batch_size):
            part = {k: v[i : i + self.train.batch_size] for k, v in batch.items()}
            loss = self.output(part).loss / self.train.accumulate
            loss.backward()
            total += loss.detach()
        norm = gradients.norm(self.parameters)
        if not norm.isfinite():
            self.broken = gradients.not_finite(self.model)
        if self.train.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.train.clip_norm, norm)
        return total, norm

    def output(self, batch: dict[str, Tensor]):
        """The model's output on a batch, under the run's precision."""
        device = self.train.device
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast(device, torch.bfloat16, enabled=self.train.precision == "bf16"):
            return self.forward(**batch)

    # measuring ------------------------------------------------------------------------------

    def _time_reference(self, forward_backward_ms: float, own_ms: float) -> None:
        """AdamW in turn with the run's own first steps; memory counts from when it is gone."""
        if self.reference.wants():
            self.reference.time(forward_backward_ms, own_ms)
            if not self.reference.wants():
                self.memory.forget()

    def evaluate(self) -> dict[str, Any]:
        """Validation at the present step; the line it adds to the metrics."""
        state = self.state
        loss, accuracy = self.evaluation("validation")
        state["val_loss"], state["val_accuracy"] = loss, accuracy
        best = state["best_val_loss"]
        if math.isfinite(loss) and (best is None or loss < best):
            state["best_val_loss"] = loss
        target = self.train.target_loss
        if target is not None and state["target_step"] is None and loss <= target:
            state["target_step"], state["target_seconds"] = state["step"], state["seconds"]
        line = {"step": state["step"], "seconds": state["seconds"], "val_loss": loss}
        if accuracy is not None:
            line["val_accuracy"] = accuracy
        line["update_rms"] = self.update_rms
        self._write(line)
        return line

    @torch.no_grad()
    def evaluation(self, part: str) -> tuple[float, float | None]:
        """Mean loss over the examples that `part` is evaluated on, and for images the accuracy."""
        self.model.eval()
        losses = right = count = 0
        for batch in self.data.evaluation(part, self.train.batch_size):
            output = self.output(batch)
            n = len(batch["labels"])
            losses += n * output.loss.item()
            count += n
            if self.data.task == "images":
                labels = batch["labels"].to(output.logits.device)
                right += (output.logits.argmax(-1) == labels).sum().item()
        self.model.train()
        return losses / count, right / count if self.data.task == "images" else None

    def _write(self, line: dict[str, Any]) -> None:
        self.metrics.write(line)
        self.tracker.log(line)

    # checkpoints ----------------------------------------------------------------------------

    def tree(self) -> dict[str, Any]:
        """All that a run needs to go on exactly where it is."""
        return {
            "state": self.state,
            "model": dict(self.model.named_parameters()) | dict(self.model.named_buffers()),
            "optimizers": [optimizer.state_dict() for optimizer in self.routing.optimizers],
            "random": randomness.state(self.train.device),
        }

    def save(self) -> None:
        checkpoint.save(self.folder / "checkpoint", self.state["step"], self.tree())

    def resume(self) -> None:
        """Go on from the newest checkpoint that is whole, if there is one."""
        found = checkpoint.newest(self.folder / "checkpoint", self.warn)
        if found is None:
            return
        _, tree = found
        self.state = tree["state"]
        own = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        with torch.no_grad():
            for name, tensor in tree["model"].items():
                own[name].copy_(tensor)
        for optimizer, state in zip(self.routing.optimizers, tree["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        randomness.restore(tree["random"])
        self.memory.forget()
        self.warn(f"going on from step {self.state['step']}")
