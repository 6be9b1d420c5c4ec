"""Losses, accuracies and attention logits on validation and test parts; no training is changed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.measuring.meter import PeakMemory
from bench.processes import parallel
from bench.processes.world import World
from bench.settings.schema import Train
from bench.training import attention, randomness

Output = Callable[[Callable, dict[str, Tensor]], tuple[Tensor, Tensor]]


class Evaluation:
    """forward: calls the model, over all processes; output: the mean loss and the logits of a
    forward function on a batch, under the run's precision."""

    def __init__(
        self,
        model: nn.Module,
        forward: Callable,
        output: Output,
        data: Any,
        train: Train,
        world: World,
    ) -> None:
        self.model, self.forward, self.output = model, forward, output
        self.data, self.train, self.world = data, train, world

    @torch.no_grad()
    def of(
        self,
        part: str,
        during: bool = False,
        model: nn.Module | None = None,
        data: Any = None,
    ) -> tuple[float, float | None]:
        """Mean loss over the evaluated examples of `part` and, for images, the accuracy.

        during: use the examples of evaluations before the end. model, data: others than the run's.
        """
        self.model.eval()
        losses, right, count = 0.0, 0.0, 0
        for batch in (data or self.data).evaluation(part, self.train.batch_size, during):
            n, batch = len(batch["labels"]), self.world.part(batch)
            mean, logits = self.output(model or self.forward, batch)
            losses += n * mean.item()
            count += n
            if self.data.task == "images":
                labels = batch["labels"].to(logits.device)
                hits = (logits.argmax(-1) == labels).sum().item()
                right += hits * n / len(labels)
        self._rest()
        mean_loss, accuracy = self.world.means(losses / count, right / count)
        return mean_loss, accuracy if self.data.task == "images" else None

    def attention(self, memory: PeakMemory) -> list[float] | None:
        """The largest attention logits by layer, on the first batch that evaluations read before
        the end; changes nothing of the run, its memory and its random state included."""
        kept = randomness.state(self.train.device)
        memory.pause()
        batches = self.data.evaluation("validation", self.train.batch_size, during=True)
        batch = self.world.part(next(iter(batches)))
        self.model.eval()
        found = attention.largest(lambda: self.output(self.model, batch), self.world)
        self._rest()
        randomness.restore(kept)
        memory.resume()
        return found

    def _rest(self) -> None:
        self.model.train()
        parallel.rest(self.model)
