"""Time a step in the trainer, in a bare loop of the same parts, and of a plain model.

python scripts/trainer_cost.py [--rounds 20] [--threads 1] [--precision bf16] [override …]

All take turns in one process, one step each: the trainer's own loop unchanged (schedule, metrics,
progress bar; no evaluation); a loop with only the same model class, batches, clipping and
optimizers; and a GPT-2 of the same shape written plainly in torch, in a loop with fused AdamW. It
prints medians with the 10th and 90th percentile, in clock time and in processor time, which other
work on the machine hardly affects; ratios are medians over the rounds. The time of a checkpoint is
printed separately.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from bench.measuring import meter, turns
from bench.processes.world import ALONE
from bench.settings import config
from bench.settings.schema import CONF, Settings, Train
from bench.tracking.tracker import Tracker
from bench.training import loss, prepare
from bench.training.trainer import Trainer

FIXED = (
    *("model=gpt2_nano", "optimizer=adamw", "tracker=none"),
    *("train.checkpoint_every=null", "train.eval_every=1000000"),
    *("train.reference_steps=0", "data.eval_sequences=1", "data.final_eval_sequences=null"),
)
RATIOS = {  # name: numerator and denominator
    "trainer / bare loop": ("trainer", "bare loop"),
    "forward + backward, ours / plain": ("ours, forward + backward", "plain, forward + backward"),
    "trainer / plain": ("trainer", "plain"),
}


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.before(x)).chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.between(x))))


class Plain(nn.Module):
    """GPT-2 written plainly, for comparison with the suite's model."""

    def __init__(self, vocabulary: int, layers: int, heads: int, width: int, positions: int):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.token.weight
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """The mean loss for predicting each next token of ids (B, T)."""
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        logits = self.head(self.norm(self.blocks(x))).flatten(0, 1)
        labels = F.pad(ids[:, 1:], (0, 1), value=loss.IGNORED).flatten()
        return F.cross_entropy(logits, labels, ignore_index=loss.IGNORED)


class Watch:
    """Seconds since a start, in clock time and in processor time: pairs by name."""

    def __init__(self, device: str) -> None:
        self.device, self.spent = device, dict[str, list[tuple[float, float]]]()
        self.start()

    def start(self) -> None:
        self.began = meter.clock(self.device), time.process_time()

    def note(self, name: str) -> None:
        pair = meter.clock(self.device) - self.began[0], time.process_time() - self.began[1]
        self.spent.setdefault(name, []).append(pair)


Loss = Callable[[dict[str, Tensor]], Tensor]


def a_step(
    name: str, part: str, data, model: nn.Module, of: Loss, optimizer, train: Train, watch: Watch
) -> Callable[[], None]:
    """A function that makes the next step of a bare loop; `part` is its forward and backward."""
    weights, numbers, most = list(model.parameters()), itertools.count(), train.clip_norm
    assert most is not None

    def step() -> None:
        watch.start()
        batch = data.batch(next(numbers), train.batch_size)
        batch = {k: v.to(train.device) for k, v in batch.items()}
        with torch.autocast(train.device, torch.bfloat16, enabled=train.precision == "bf16"):
            mean = of(batch)
        mean.backward()
        watch.note(f"{part}, forward + backward")
        nn.utils.clip_grad_norm_(weights, most)
        optimizer.step()
        optimizer.zero_grad()
        mean.item()
        watch.note(name)

    return step


def bare(settings: Settings, watch: Watch) -> Callable[[], None]:
    """The same model, batches and optimizers as the trainer's, at their initial rates."""
    read = prepare.data(settings)
    model = prepare.model(settings, read)
    routing = prepare.routing(settings, model)
    of: Loss = lambda batch: loss.of(model, batch)[0]  # noqa: E731
    return a_step("bare loop", "ours", read, model, of, routing, settings.train, watch)


def plain(settings: Settings, watch: Watch) -> Callable[[], None]:
    read, sizes = prepare.data(settings), settings.model
    shape = (sizes[key] for key in ("layers", "heads", "width", "positions"))
    model = Plain(read.facts["vocab_size"], *shape).to(settings.train.device)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    of: Loss = lambda batch: model(batch["input_ids"])  # noqa: E731
    return a_step("plain", "plain", read, model, of, adamw, settings.train, watch)


def measure(settings: Settings, folder: Path) -> tuple[Watch, float]:
    """Every step of a run and of what takes turns with it, and the seconds of a checkpoint."""
    watch = Watch(settings.train.device)
    others = {"bare": bare(settings, watch)}
    if settings.model["_target_"] == "models.gpt2.build":
        others["plain"] = plain(settings, watch)

    def between() -> None:
        """The trainer calls this once per step, and once more at the end."""
        watch.note("trainer")
        number = len(watch.spent["trainer"])
        if number <= (settings.train.steps or 0):
            for name in turns.rotated(list(others), number):
                others[name]()
        watch.start()

    ready = prepare.everything(settings, folder, ALONE)
    trainer = Trainer(settings, ready, folder, Tracker(), print, ALONE, between)
    watch.start()
    trainer.fit()
    watch.spent["trainer"].pop()  # the evaluations at the end
    began = time.perf_counter()
    trainer.save()
    return watch, time.perf_counter() - began


def told(watch: Watch) -> list[str]:
    """One line for each loop and each ratio; the first rounds warm up."""
    kept = {name: pairs[meter.WARM_UP :] for name, pairs in watch.spent.items()}
    lines = [f"{'':34}{'clock':>26}{'processor':>26}"]

    def line(name: str, columns: list[list[float]], form: str) -> None:
        shown = [
            "{:{f}} ({:{f}}–{:{f}})".format(*(s[k] for k in ("median", "p10", "p90")), f=form)
            for s in map(meter.summary, columns)
        ]
        lines.append(f"{name:34}" + "".join(f"{column:>26}" for column in shown))

    for name, pairs in kept.items():
        line(f"{name}, ms", [[1e3 * pair[i] for pair in pairs] for i in (0, 1)], ".1f")
    for name, (above, below) in RATIOS.items():
        if below in kept:
            both = list(zip(kept[above], kept[below], strict=True))
            line(name, [[a[i] / b[i] for a, b in both] for i in (0, 1)], ".3f")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    parser.add_argument("overrides", nargs="*", help="settings of a run, as bench/train.py's")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    given = [f"train.steps={asked.rounds + meter.WARM_UP}"]
    given += [f"train.precision={asked.precision}"] if asked.precision else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = config.settle(compose("train", overrides=[*FIXED, *given, *asked.overrides]))
    with tempfile.TemporaryDirectory() as folder:
        watch, checkpoint = measure(settings, Path(folder))
    print(
        f"{settings.model['name']}, {settings.optimizer['name']}, {settings.train.precision}, "
        f"{settings.train.device}, {asked.threads} threads, {asked.rounds} rounds"
    )
    print("\n".join(told(watch)))
    print(f"a checkpoint: {1e3 * checkpoint:.0f} ms")


if __name__ == "__main__":
    main()
