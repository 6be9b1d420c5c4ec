"""What is held against the trainer does the same work, and the trainer does hardly more."""

import weakref
from collections import Counter

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measuring import flops, meter
from bench.processes.world import ALONE
from bench.tracking.tracker import Tracker
from bench.training import prepare
from bench.training.trainer import Trainer
from scripts import trainer_cost
from tests.helpers.commands import TINY, settle

SMALL = [*TINY, *trainer_cost.FIXED[1:], "model.layers=2", "model.width=32"]


class Operations(TorchDispatchMode):
    """Counts what torch is asked for: the operation, and how many numbers come out."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) and out else out
        name = func._overloadpacket.__name__
        self.seen[name, first.numel() if isinstance(first, Tensor) else 0] += 1
        return out


def of_a_step(step) -> Counter:
    """Of the second step: the first sets up the optimizers' states."""
    step()
    with Operations() as counted:
        step()
    return counted.seen


@pytest.mark.parametrize("optimizer", ["adamw", "hybrid", "muon"])
def test_a_step_of_the_trainer_is_a_bare_one_and_some_single_numbers(optimizer, tmp_path):
    settings = settle(*SMALL, f"optimizer={optimizer}", "schedule=constant")
    steps = []

    class Counting(Trainer):
        def step(self, evaluates):
            if self.state["step"] == 1:
                with Operations() as counted:
                    line = super().step(evaluates)
                steps.append(counted.seen)
                return line
            return super().step(evaluates)

    ready = prepare.everything(settings, tmp_path, ALONE)
    Counting(settings, ready, tmp_path, Tracker(), print, ALONE, lambda: None).fit()
    bare = of_a_step(trainer_cost.bare(settings, trainer_cost.Watch("cpu")))
    (ours,) = steps
    more = ours - bare
    assert all(numbers <= 1 for name, numbers in more if name != "slice"), more  # views: free
    assert sum(more.values()) <= 16, more
    assert ("mm", 64 * 32) in ours or ("addmm", 64 * 32) in ours


def test_the_trainer_holds_no_logits_while_gradients_are_computed(train, monkeypatch):
    """They are the largest tensor of a step; its bare loop lets go of them, too."""
    held, output = [], Trainer.output

    def noted(self, forward, batch):
        mean, logits = output(self, forward, batch)
        if mean.requires_grad and not held:
            there = weakref.ref(logits)
            first = self.model.transformer.wpe.weight  # the backward pass ends there
            first.register_hook(lambda grad: held.append(there() is not None))
        return mean, logits

    monkeypatch.setattr(Trainer, "output", noted)
    train("train.steps=2")
    assert held[0] is False


def test_the_plain_model_is_of_the_same_shape_and_does_the_same_products():
    settings = settle(*SMALL)
    model = prepare.model(settings, prepare.data(settings))
    plain = trainer_cost.Plain(4096, 2, 4, 32, 256)
    weights = [sum(p.numel() for p in each.parameters()) for each in (model, plain)]
    assert weights[0] == weights[1]
    watch = trainer_cost.Watch("cpu")
    loops = (trainer_cost.bare(settings, watch), trainer_cost.plain(settings, watch))
    counts = [flops.count(step).flops for step in loops]
    assert counts[0] == counts[1] > 0


def test_the_plain_model_learns(monkeypatch):
    settings = settle(*SMALL, "train.batch_size=8")
    losses, of = [], trainer_cost.Plain.forward

    def noted(model, ids):
        losses.append(of(model, ids))
        return losses[-1]

    monkeypatch.setattr(trainer_cost.Plain, "forward", noted)
    step = trainer_cost.plain(settings, trainer_cost.Watch("cpu"))
    for _ in range(12):
        step()
    assert losses[-1] < losses[0] - 0.1


def test_all_take_turns_and_each_step_is_noted(tmp_path):
    settings = settle(*SMALL, "train.steps=5")
    watch, checkpoint = trainer_cost.measure(settings, tmp_path)
    assert {len(pairs) for pairs in watch.spent.values()} == {5} and checkpoint > 0
    assert set(watch.spent) == {name for pair in trainer_cost.RATIOS.values() for name in pair}
    assert all(wall > 0 and cpu >= 0 for pairs in watch.spent.values() for wall, cpu in pairs)


def test_ratios_are_medians_over_the_rounds():
    watch = trainer_cost.Watch("cpu")
    warm = [(9.0, 9.0)] * meter.WARM_UP
    for name, pairs in {
        "trainer": [(2.0, 1.0), (4.0, 1.0), (6.0, 9.0)],
        "bare loop": [(1.0, 1.0), (4.0, 2.0), (2.0, 9.0)],
        "ours, forward + backward": [(1.0, 1.0)] * 3,
    }.items():
        watch.spent[name] = warm + pairs
    lines = trainer_cost.told(watch)
    (ratio,) = (line for line in lines if line.startswith("trainer / bare"))
    assert ratio.split()[4:] == ["2.000", "(1.000–3.000)", "1.000", "(0.500–1.000)"]
    assert any("4000.0 (2000.0–6000.0)" in line for line in lines)
    assert not any("plain" in line for line in lines)
