"""Feeds a step the parts of its batch; with CUDA, copying overlaps with the part before."""

import torch
from torch import Tensor

from bench.processes.world import World
from bench.settings.schema import Train

Batch = dict[str, Tensor]


class Copies:
    """Copies to a GPU from page-locked memory, on a separate stream."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    def begin(self, batch: Batch) -> Batch:
        """The batch on the GPU; it is valid only after `end`."""
        with torch.cuda.stream(self.stream):
            return {k: v.pin_memory().to("cuda", non_blocking=True) for k, v in batch.items()}

    def end(self, batch: Batch) -> Batch:
        """The same batch; work that starts after this call finds it on the GPU."""
        working = torch.cuda.current_stream()
        working.wait_stream(self.stream)
        for tensor in batch.values():
            tensor.record_stream(working)  # not freed while it is in use
        return batch


def copies(device: str) -> Copies | None:
    """None on a CPU, where nothing needs copying and no second processor could prepare it."""
    return Copies() if device == "cuda" else None


class Feed:
    """The parts of all batches in sequence; `train.accumulate` of them make a step.

    data: bench.data.batches.Tokens or Images. Its batches follow from seed and step alone, so
    preparing ahead changes no number and needs no place in a checkpoint.
    """

    def __init__(self, data, train: Train, world: World) -> None:
        self.data, self.train, self.world = data, train, world
        self.copies = copies(train.device)
        self.whole: tuple[int, Batch] | None = None  # a step and its batch, until its last part
        self.ahead: tuple[int, Batch] | None = None  # a part and its place in the sequence

    def take(self, step: int, number: int) -> Batch:
        """This process's examples of part `number` of a step's batch."""
        place = step * self.train.accumulate + number
        if self.copies is None:
            return self._part(place)
        if self.ahead is None or self.ahead[0] != place:
            self.ahead = place, self.copies.begin(self._part(place))
        (_, batch), self.ahead = self.ahead, None
        return self.copies.end(batch)

    def prepare(self, step: int, number: int) -> None:
        """Start to copy the next part. Call it when the device has work to do."""
        if self.copies is not None:
            place = step * self.train.accumulate + number + 1
            self.ahead = place, self.copies.begin(self._part(place))

    def _part(self, place: int) -> Batch:
        size, parts = self.train.batch_size, self.train.accumulate
        step, number = divmod(place, parts)
        if self.whole is None or self.whole[0] != step:
            self.whole = step, self.data.batch(step, size * parts)
        rows = slice(number * size, (number + 1) * size)
        part = {key: value[rows] for key, value in self.whole[1].items()}
        if number == parts - 1:
            self.whole = None
        return self.world.part(part)
