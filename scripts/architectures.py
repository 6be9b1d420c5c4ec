"""Build, read and train every causal language model and image classifier of transformers, tiny.

python scripts/architectures.py [--types llama vit …] [--limit SECONDS] [--again]

Each type runs in its own process, with a time limit; finished ones are stored in
results/runs/architectures.jsonl and not repeated. The table is docs/architectures.md.
"""

import argparse
import json
import multiprocessing
import re
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from architectures_table import page
from omegaconf import OmegaConf
from tiny_models import TASKS, batch, build
from torch import Tensor, nn

from optimizers.routing import route
from optimizers.structure import NO_STRUCTURE, Parameter, describe

ROOT = Path(__file__).resolve().parent.parent
DONE = ROOT / "results" / "runs" / "architectures.jsonl"
TABLE = ROOT / "docs" / "architectures.md"


def settings(optimizer: str, qkv: str) -> dict[str, Any]:
    groups = {"optimizer": optimizer, "qkv": qkv, "orthogonalizer": "keller"}
    loaded = {g: OmegaConf.load(ROOT / "conf" / g / f"{name}.yaml") for g, name in groups.items()}
    block: Any = OmegaConf.to_container(OmegaConf.create(loaded).optimizer, resolve=True)
    return block


def loss(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    output = model(**inputs)
    logits = output.logits if "logits" in output else output[0]  # pp_lcnet's classes have no name
    if logits.ndim == 3:
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), inputs["input_ids"][:, 1:].flatten())
    return F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[-1])


def three_steps(kind: str, model: nn.Module, forward: Any, optimizer: str, qkv: str) -> str:
    """ "ok", why it is refused before step 1, or what went wrong."""
    try:
        routing = route(model, settings(optimizer, qkv), forward=forward)
    except ValueError as error:
        return f"refused: {error}"
    try:
        for _ in range(3):
            routing.zero_grad()
            value = loss(model, batch(model, kind))
            value.backward()
            routing.step()
        finite = all(p.isfinite().all() for p in model.parameters())
        return "ok" if finite else "not finite"
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def heads_by_gradients(model: nn.Module, kind: str, found: list[Parameter]) -> dict[str, int]:
    """How many heads have the rows that gradients at attention's inputs show, and how many do not.

    Only for attention as scaled_dot_product_attention, and if a head's gradient is zero somewhere:
    a normalisation over all heads mixes them.
    """
    calls: list[tuple[Tensor, ...]] = []
    attend = F.scaled_dot_product_attention

    def watched(query, key, value, *args, **kwargs):
        calls.append((query, key, value))
        return attend(query, key, value, *args, **kwargs)

    F.scaled_dot_product_attention = watched
    try:
        model.eval()(**batch(model, kind))
    finally:
        F.scaled_dot_product_attention = attend
        model.train()
    cut = [p for p in found if p.slices and p.tensor.ndim == 2 and p.attention]
    count = {"agree": 0, "differ": 0}
    for part, tensor in ((q, x) for call in calls for q, x in zip("qkv", call, strict=True)):
        if not tensor.requires_grad or tensor.ndim != 4 or not cut:
            continue
        for head in range(tensor.shape[1]):
            total = (tensor[0, head] * torch.rand_like(tensor[0, head])).sum()
            tensors = [p.tensor for p in cut]
            grads = torch.autograd.grad(total, tensors, retain_graph=True, allow_unused=True)
            for p, grad in zip(cut, grads, strict=True):
                if grad is None:
                    continue
                by_row = (grad.T if p.layout == "transposed" else grad).abs().sum(1)
                rows = set(by_row.nonzero().flatten().tolist())
                if 0 < len(rows) < grad.shape[1 if p.layout == "transposed" else 0]:
                    said = [_rows(p, part, h) for h in {s.head for s in p.slices}]
                    count["agree" if rows in said else "differ"] += 1
    return count


def _rows(p: Parameter, part: str, head: int) -> set[int]:
    mine = [s for s in p.slices if (s.part, s.head) == (part, head)]
    return {row for s in mine for row in range(s.start, s.stop)}


def read(model: nn.Module, forward: Any = None) -> tuple[list[Parameter], str | None]:
    """The parameters, and the error text for a model that could not be called."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = describe(model, forward)
    about = [str(w.message) for w in told if w.category is UserWarning]
    return found, next((text for text in about if "attention" in text), None)


def examine(kind: str, task: str, name: str) -> dict[str, Any]:
    result: dict[str, Any] = {"type": kind, "task": task, "class": name}
    try:
        model = build(kind, name)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        return result | {"status": "not built", "why": why}
    found, warning = read(model)
    forward = None if warning is None else lambda: model(**batch(model, kind))
    result["warning"] = warning
    if forward is not None:  # models that need other inputs
        found, warning = read(model, forward)
        result["warning"] = warning or "read by `forward=`"
    kept = {
        (re.sub(r"\.\d+(?=\.|$)", ".*", p.name), p.reason.partition("; ")[2] or p.reason)
        for p in found
        if "whole" in p.reason or p.reason == NO_STRUCTURE
    }
    result["kept"] = sorted(kept)
    parts = {(s.part, p.attention, s.head) for p in found if p.attention for s in p.slices}
    result["heads"] = {part: sum(q == part for q, _, _ in parts) for part in ("q", "k", "v")}
    result["checked"] = heads_by_gradients(model, kind, found)
    result["steps"] = {
        arm: three_steps(kind, model, forward, optimizer, qkv)
        for arm, optimizer, qkv in (
            ("hybrid", "hybrid", "split"),
            ("per-head", "hybrid", "per_head"),
            ("muon", "muon", "split"),
        )
    }
    return result | {"status": "kept whole" if kept else "read whole"}


def in_child(kind: str, task: str, name: str, limit: float) -> dict[str, Any]:
    """The examination in a process that is killed after `limit` seconds."""
    getattr(transformers, name)  # imported once, before the processes fork
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def work() -> None:
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        try:
            theirs.send(examine(kind, task, name))
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            theirs.send({"type": kind, "task": task, "class": name, "status": "failed", "why": why})

    child = context.Process(target=work)
    child.start()
    theirs.close()
    failed = {"type": kind, "task": task, "class": name, "status": "failed"}
    try:
        return ours.recv() if ours.poll(limit) else failed | {"why": f"over {limit:g} s"}
    except EOFError:
        return failed | {"why": "its process ended"}
    finally:
        child.kill()
        child.join()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--types", nargs="*", help="only these")
    parser.add_argument("--limit", type=float, default=60, help="seconds a type")
    parser.add_argument("--again", action="store_true", help="also what is finished")
    parser.add_argument("--done", type=Path, default=DONE)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    build("llama", "LlamaForCausalLM")  # imports everything lazy before the processes fork
    known = [json.loads(line) for line in _lines(options.done)]
    done = {(r["task"], r["type"]): r for r in known}
    for task, names in TASKS.items():
        for kind, name in names.items():
            if options.types and kind not in options.types:
                continue
            if (task, kind) in done and not options.again:
                continue
            began = time.monotonic()
            first = name if isinstance(name, str) else name[0]
            result = done[task, kind] = in_child(kind, task, first, options.limit)
            options.done.parent.mkdir(parents=True, exist_ok=True)
            with options.done.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{kind}: {result['status']} ({time.monotonic() - began:.1f} s)", flush=True)
    text = page([done[key] for key in sorted(done)])
    options.table.write_text(text, encoding="utf-8")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
