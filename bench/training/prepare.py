"""Builds everything a run needs from its settings, and reports all mistakes before it starts."""

import importlib
import shutil
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.data import batches as datasets
from bench.measuring import flops, meter
from bench.processes import parallel
from bench.processes.world import ALONE, World
from bench.records import initial
from bench.settings import targets
from bench.settings.errors import UserError
from bench.settings.mistakes import full
from bench.settings.schema import Settings, Train
from bench.training import activations, beside, gradients, randomness, trial, weights
from models import lora
from optimizers.precision import bf16_pays
from optimizers.routing import Routing, locate, route
from optimizers.sharding.regions import local
from optimizers.state import predicted_bytes

TRACKERS = {"wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}  # and their packages
SPARE_BYTES = 50_000_000  # disk space beside the checkpoints: metrics, record, W&B's files


@dataclass
class Ready:
    """All parts of a run, on its device."""

    data: Any  # bench.data.batches.Tokens or Images
    model: nn.Module
    routing: Routing
    memory: meter.PeakMemory
    counted: flops.Count | None  # forward and backward over one example
    other: Any = None  # further data that the run is tested on, like `data`


@contextmanager
def mistakes():
    """Turns a builder's ValueError, or a missing name, into a UserError."""
    try:
        yield
    except (ValueError, ImportError) as error:
        if full():
            raise
        raise UserError(str(error)) from None


def everything(settings: Settings, folder: Path, world: World) -> Ready:
    if settings.train.compile:
        torch.compiler.reset()  # each cell of a sweep compiles as it would alone
    import_all(settings)
    read = data(settings)
    refuse_large_batch(settings, read)
    other = other_data(settings, read)
    memory = meter.PeakMemory(settings.train.device)
    built = model(settings, read)
    size = settings.train.batch_size
    setting = f"train.batch_size={size}"
    activations.check(built, partial(read.batch, 0), size, setting, settings.train, world)
    counted = beside.count(built, read.batch(0, 1), settings.train)
    routed = routing(settings, built, world)
    with mistakes():
        gradients.clipped(routed, settings.train.clip_part)
    refuse_small_disk(settings, folder, built, routed, world)
    return Ready(read, built, routed, memory, counted, other)


def import_all(settings: Settings) -> None:
    """Import what the run will need: a missing package is reported before any work, and the
    imports' memory is not counted for the first cell."""
    check_targets(settings)
    if package := TRACKERS.get(settings.tracker["name"]):
        with suppress(ImportError):
            importlib.import_module(package)


def check_targets(settings: Settings) -> None:
    """Raise UserError if the name of a model's builder or of an optimizer is invalid."""
    with mistakes():
        targets.check_model(settings)
        for role, rule in settings.optimizer["roles"].items():
            locate(rule["_target_"], f"optimizer.roles.{role}._target_")


def data(settings: Settings, block: dict[str, Any] | None = None):
    """The data of the run, or of another block: bench.data.batches.Tokens or Images."""
    return datasets.load(
        settings.data if block is None else block,
        seed=settings.seed,
        sequence_length=settings.train.sequence_length,
        tokenizer=settings.model["tokenizer"],
    )


def other_data(settings: Settings, read: Any) -> Any:
    """The further data that the run is tested on; None without. Raises UserError unless the model,
    which is built for the run's own data, fits it."""
    if not settings.other_data:
        return None
    found = data(settings, settings.other_data)
    if found.facts != read.facts:
        raise UserError(
            f"other_data={found.name}: has {found.facts}, and data={read.name} {read.facts}; one "
            "model must fit both"
        )
    return found


def refuse_large_batch(settings: Settings, read) -> None:
    """Raise UserError if a step's examples, only part of a step's memory, do not fit."""
    train = settings.train
    examples = train.batch_size * train.accumulate
    needed = examples * sum(tensor.nbytes for tensor in read.batch(0, 1).values())
    here = meter.total("cpu")
    if needed > here:
        raise UserError(
            f"train.batch_size={train.batch_size}, train.accumulate={train.accumulate}: the "
            f"examples of a step alone take {needed / 1e9:,.0f} GB, this machine has "
            f"{here / 1e9:,.0f} GB"
        )


def model(settings: Settings, read) -> nn.Module:
    """The model with random weights, which follow from the seed alone, or with those of init_from.

    With lora_rank it has adapters, and all else is frozen. With `perturb`, each weight is then
    multiplied by 1 + perturb * a normal random number.
    """
    randomness.seed(settings.seed)
    with mistakes():
        built = targets.model_builder(settings)(read.facts)
    refuse_no_model(settings, built)
    refuse_long_sequence(settings, built)
    if settings.init_from is not None:
        weights.load(built, initial.file(settings, settings.init_from))
    if settings.lora_rank is not None:
        with mistakes():
            lora.add(built, settings.lora_rank)
    if settings.perturb:
        with torch.no_grad():
            for p in built.parameters():
                p.mul_(1 + settings.perturb * torch.randn_like(p))
    built.train().to(settings.train.device)
    if settings.model["_target_"] not in trial.BUILT_IN:
        trial.check(built, chosen(settings), read.facts, settings.train.sequence_length)
    return built


def refuse_no_model(settings: Settings, built: object) -> None:
    """Raise UserError unless the model is a module with parameters."""
    if isinstance(built, nn.Module) and any(True for _ in built.parameters()):
        return
    what = "without parameters" if isinstance(built, nn.Module) else "that is no torch.nn.Module"
    raise UserError(
        f"model._target_={settings.model['_target_']}: built a {type(built).__name__} {what}"
    )


def chosen(settings: Settings) -> str:
    """The setting that chose the model, as messages name it."""
    source = settings.model.get("source")
    return f"model.source={source}" if source else f"model={settings.model['name']}"


def refuse_long_sequence(settings: Settings, built: nn.Module) -> None:
    most = getattr(getattr(built, "config", None), "max_position_embeddings", None)
    length = settings.train.sequence_length
    if settings.data["task"] == "text" and most is not None and 0 < most < length:  # XLNet: -1
        raise UserError(f"train.sequence_length={length}: {chosen(settings)} has {most} positions")


def routing(
    settings: Settings, built: nn.Module, world: World = ALONE, cut: nn.Module | None = None
) -> Routing:
    """The optimizers of a model; shards its parameters over the processes if they are to be.

    cut: the same model with parameters already sharded; `built` then only tells how the whole model
    is read, and replaces nothing.
    """
    shard = None if world.mesh is None else partial(parallel.shard, world=world)
    if cut is not None:
        shard = partial(take_parameters, of=cut)
    sharding = settings.parallel.get("muon", "replicate")
    with mistakes():
        return route(built, settings.optimizer, settings.structure, shard, sharding)


def take_parameters(model: nn.Module, parameters: list, *, of: nn.Module) -> None:
    """Replace this model's parameters by another model's."""
    others = dict(of.named_parameters(remove_duplicate=False))
    for name, _ in list(model.named_parameters(remove_duplicate=False)):
        place, _, last = name.rpartition(".")
        setattr(model.get_submodule(place), last, others[name])


def checkpoints(train: Train) -> int:
    """The most checkpoints that a run has on disk: the newest two and one being written."""
    every, steps = train.checkpoint_every, train.steps
    return 1 if every is None or (steps is not None and every >= steps) else 3


def refuse_small_disk(
    settings: Settings, folder: Path, built: nn.Module, routed: Routing, world: World
) -> None:
    """Raise UserError if the disk has no room for the checkpoints and the run's files."""
    weights = sum(local(p).numel() * p.element_size() for p in built.parameters())
    state = predicted_bytes(routed.optimizers)
    averaged = weights if settings.train.average_last else 0
    one = weights + averaged + (state if state is not None else 2 * weights)
    one *= world.size if world.mesh is not None else 1  # each process writes its shards
    count = checkpoints(settings.train)
    needed = count * one + SPARE_BYTES
    kept = sum(file.stat().st_size for file in folder.glob("checkpoint/*/*"))
    needed = max(one, needed - kept)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"results_dir={settings.results_dir}: {free / 1e6:,.0f} MB free on its disk, but "
            f"{count} checkpoint(s) of {one / 1e6:,.0f} MB and the run's files need "
            f"{needed / 1e6:,.0f} MB"
        )


def remark_fit(settings: Settings, built: nn.Module, say: Callable[[str], None]) -> None:
    """Say that a model's downsampling was reduced to suit the images (models/hub.py)."""
    if fitted := getattr(built, "fitted", None):
        has = ", ".join(f"{name}={value}" for name, value in fitted.items())
        say(
            f"{chosen(settings)}: has {has}, as images of {settings.data['image_size']} do not "
            f"pass through it with data.patch_size={settings.data['patch_size']} alone"
        )


def remarks(settings: Settings, say: Callable[[str], None]) -> None:
    """Say what was decided for this machine and matters to readers of the results."""
    asked = settings.orthogonalizer
    rules = settings.optimizer["roles"].values()
    iterates = any("orthogonalizer" in r for r in rules) and asked.get("method") != "exact"
    if iterates and asked.get("dtype") == "auto" and not bf16_pays(settings.train.device):
        say("orthogonalization runs in fp32: bf16 products are not faster on this processor")
