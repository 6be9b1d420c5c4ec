"""The next part of a batch is on its way while the device works; nothing but the time changes."""

from contextlib import contextmanager

import pytest
import torch

from bench.processes.world import ALONE, World
from bench.training import feeding, gradients
from bench.training.feeding import Copies, Feed
from bench.training.trainer import Trainer
from tests.helpers.commands import FP32, settle
from tests.helpers.passes import Counted
from tests.helpers.runs import same_result, stop_at


class Noted:
    """Stands where a GPU's copies would: notes what is begun and waited for."""

    def __init__(self, notes):
        self.notes = notes

    def begin(self, batch):
        self.notes.append("begin")
        return batch

    def end(self, batch):
        self.notes.append("end")
        return batch


@pytest.fixture
def notes(monkeypatch):
    """What happens in the trainer's steps, in its order, with copies as on a GPU."""
    found = []

    def noting(owner, name):
        original = getattr(owner, name)

        def noted(*args, **kwargs):
            found.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, noted)

    monkeypatch.setattr(feeding, "copies", lambda device: Noted(found))
    noting(Trainer, "output")
    noting(gradients, "norm")
    noting(Trainer, "update")
    return found


def test_the_next_part_is_begun_before_a_step_waits_for_the_device(notes, train):
    train("train.accumulate=2", "train.steps=2", "train.eval_every=2", "train.reference_steps=0")
    part = ["end", "output", "begin"]
    step = [*part, *part, "norm", "update"]
    assert notes[:17] == ["begin", *step, *step]


@pytest.mark.more
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_and_its_resumption_are_the_same_with_what_was_prepared(
    accumulate, train, tmp_path, monkeypatch
):
    overrides = f"train.accumulate={accumulate}"
    _, plain, _ = train(overrides, results=tmp_path / "plain")
    monkeypatch.setattr(feeding, "copies", lambda device: Noted([]))
    _, whole, _ = train(overrides, results=tmp_path / "whole")
    stop_at(monkeypatch, 5, RuntimeError("gone"))
    train(overrides)
    _, resumed, said = train(overrides)
    assert any("from step 4" in line for line in said)
    assert same_result(plain, whole) and same_result(plain, resumed)


def feed(world=ALONE):
    asked = settle(*FP32, "train.batch_size=4", "train.accumulate=2").train
    return Feed(Counted(), asked, world)


@pytest.mark.parametrize("ahead", [False, True])
def test_parts_follow_from_step_and_number_whatever_was_prepared(ahead, monkeypatch):
    if ahead:
        monkeypatch.setattr(feeding, "copies", lambda device: Noted([]))
    for world, mine in ((ALONE, [0, 1, 2, 3]), (World("ddp", 1, 2, (("data", 2),)), [2, 3])):
        fed = feed(world)
        for step, number in ((0, 0), (0, 1), (1, 0), (7, 0), (7, 1), (2, 1), (2, 1)):
            part = fed.take(step, number)
            assert part["labels"].tolist() == [100 * step + 4 * number + i for i in mine]
            fed.prepare(step, number)


def test_on_a_cpu_nothing_is_prepared():
    fed = feed()
    fed.take(0, 0)
    fed.prepare(0, 0)
    assert feeding.copies("cpu") is None and fed.ahead is None
    fed.take(0, 1)
    assert fed.whole is None  # let go of before the optimizer's step


class Stub:
    """A tensor that notes what is asked of it, on whichever stream is current."""

    def __init__(self, cuda):
        self.cuda = cuda

    def pin_memory(self):
        self.cuda.notes.append("pin")
        return self

    def to(self, device, non_blocking):
        self.cuda.notes.append(("to", device, non_blocking, self.cuda.current))
        return self

    def record_stream(self, stream):
        self.cuda.notes.append(("read by", stream.name))


class Cuda:
    """Of torch.cuda what copies need, with two streams."""

    def __init__(self):
        self.notes, self.current = [], "work"

    def named(self, name):
        wait = lambda other: self.notes.append((name, "waits for", other.name))  # noqa: E731
        return type("Stream", (), {"name": name, "wait_stream": staticmethod(wait)})

    def Stream(self):
        return self.named("copies")

    def current_stream(self):
        return self.named(self.current)

    @contextmanager
    def stream(self, stream):
        self.current = stream.name
        yield
        self.current = "work"


def test_a_copy_is_pinned_on_its_own_stream_and_waited_for(monkeypatch):
    cuda = Cuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    copies = Copies()
    batch = copies.begin({"labels": Stub(cuda)})
    assert cuda.notes == ["pin", ("to", "cuda", True, "copies")]
    copies.end(batch)
    assert cuda.notes[2:] == [("work", "waits for", "copies"), ("read by", "work")]
