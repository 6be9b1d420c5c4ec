"""What a step is fed: the parts of its batch, on CUDA copied while the part before is worked on."""

import torch
from torch import Tensor

from bench.processes.world import World
from bench.settings.schema import Train

Batch = dict[str, Tensor]


class Copies:
    """Copies to a GPU from page-locked memory, on a stream of their own."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    def begin(self, batch: Batch) -> Batch:
        """The batch on the GPU, where it will be once `end` was called."""
        with torch.cuda.stream(self.stream):
            return {k: v.pin_memory().to("cuda", non_blocking=True) for k, v in batch.items()}

    def end(self, batch: Batch) -> Batch:
        """The same; what is started from here on finds it there."""
        working = torch.cuda.current_stream()
        working.wait_stream(self.stream)
        for tensor in batch.values():
            tensor.record_stream(working)  # its memory is not given away while it is read
        return batch


def copies(device: str) -> Copies | None:
    """None on a CPU, where there is nothing to copy and no other processor to prepare it."""
    return Copies() if device == "cuda" else None


class Feed:
    """The parts of all batches in one row: `train.accumulate` of them make a step.

    data: bench.data.batches.Tokens or Images, whose batches follow from seed and step alone: what
    was prepared changes no number, and nothing of it is in a checkpoint.
    """

    def __init__(self, data, train: Train, world: World) -> None:
        self.data, self.train, self.world = data, train, world
        self.copies = copies(train.device)
        self.whole: tuple[int, Batch] | None = None  # a step, and its batch while parts are to come
        self.ahead: tuple[int, Batch] | None = None  # the place of a part in the row, and the part

    def take(self, step: int, number: int) -> Batch:
        """Part `number` of a step's batch, this process's examples of it."""
        place = step * self.train.accumulate + number
        if self.copies is None:
            return self._part(place)
        if self.ahead is None or self.ahead[0] != place:
            self.ahead = place, self.copies.begin(self._part(place))
        (_, batch), self.ahead = self.ahead, None
        return self.copies.end(batch)

    def prepare(self, step: int, number: int) -> None:
        """Begin to copy the part after this one. Call it once the device has work to do."""
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
