"""What the trainer costs over a bare loop of the same model, batches and optimizer.

python scripts/trainer_cost.py [--rounds 7] [--steps 20] [override …]

Both run in one process, turns taken (trainer, bare, trainer, bare, …), each for `steps` steps;
the ratio of each pair is printed with the median of all. Evaluation is left out of the trainer's
time, as a bare loop has none; the time of a checkpoint is printed apart.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from bench.processes.world import ALONE
from bench.records import record
from bench.settings import config
from bench.settings.schema import CONF, Settings
from bench.tracking import tracker as tracking
from bench.training import loss, prepare, run
from bench.training.trainer import Trainer


def bare_loop(settings: Settings, ready: prepare.Ready) -> float:
    """Seconds of a plain loop: no schedule, no metrics, no progress bar."""
    model, data, train = ready.model, ready.data, settings.train
    assert train.steps is not None and train.clip_norm is not None
    parameters = list(model.parameters())
    began = time.perf_counter()
    for step in range(train.steps):
        batch = data.batch(step, train.batch_size)
        batch = {k: v.to(train.device) for k, v in batch.items()}
        with torch.autocast(train.device, torch.bfloat16, enabled=train.precision == "bf16"):
            mean, _ = loss.of(model, batch)
        mean.backward()
        torch.nn.utils.clip_grad_norm_(parameters, train.clip_norm)
        ready.routing.step()
        ready.routing.zero_grad()
    mean.item()
    return time.perf_counter() - began


def through_trainer(settings: Settings, ready: prepare.Ready, folder: Path) -> tuple[float, float]:
    """Seconds of the trainer's loop without its evaluations, and of one checkpoint."""
    facts = record.about(settings, "cost") | run.facts_of(ready, settings)
    tracker = tracking.start(settings.tracker, facts, folder, warn=print)
    spent: list[float] = []

    class Timed(Trainer):
        def evaluate(self) -> dict[str, Any]:
            began = time.perf_counter()
            line = super().evaluate()
            spent.append(time.perf_counter() - began)
            return line

    trainer = Timed(settings, ready, folder, tracker, print, ALONE, lambda: None)
    began = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - began - sum(spent)
    tracker.finish({})
    began = time.perf_counter()
    trainer.save()
    return seconds, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    fixed = [
        f"train.steps={asked.steps}",
        "train.checkpoint_every=null",
        "train.eval_every=1000000",
    ]
    fixed += ["train.reference_steps=0", "data.eval_sequences=1"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = config.settle(compose("train", overrides=[*fixed, *asked.overrides]))
    ratios, checkpoints, steps = [], [], []
    for turn in range(asked.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            ready = prepare.everything(settings, Path(folder), ALONE)
            ours, checkpoint = through_trainer(settings, ready, Path(folder))
            bare = bare_loop(settings, prepare.everything(settings, Path(folder), ALONE))
        if turn == 0:
            continue  # warms up
        ratios.append(ours / bare)
        checkpoints.append(1e3 * checkpoint)
        steps.append(1e3 * bare / asked.steps)
        print(f"trainer {ours:.3f} s, bare {bare:.3f} s, ratio {ours / bare:.4f}", flush=True)
    low, high = min(ratios), max(ratios)
    print(
        f"ratio: median {statistics.median(ratios):.4f}, {low:.4f} to {high:.4f}, n={len(ratios)}"
    )
    print(
        f"a checkpoint: {statistics.median(checkpoints):.0f} ms; "
        f"a step: {statistics.median(steps):.0f} ms"
    )


if __name__ == "__main__":
    main()
