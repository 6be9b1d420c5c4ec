"""`inspect=true`: what each optimizer takes of a model, in a few lines or tensor by tensor."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from rich.table import Table

from bench.display import terminal
from bench.display.numbers import megabytes, short
from bench.display.terminal import add, plain_table, wrapped
from bench.settings.schema import Settings
from bench.training import prepare, reading
from bench.training.launching import Outcome
from bench.training.reading import Row
from optimizers.state import predicted_bytes
from optimizers.structure import describe

MOST = 3  # kinds of matrices, or names, per line
ADAMW = 8  # bytes of state per parameter


def run(settings: Settings, say: Callable[[str], None]) -> Outcome:
    """Print what each optimizer takes, in a few lines or tensor by tensor, and train nothing."""
    say(f"{settings.model['name']}: building the model")
    prepare.check_targets(settings)
    model = prepare.model(settings, prepare.data(settings))
    routing = prepare.routing(settings, model)
    with warnings.catch_warnings(), prepare.mistakes():
        warnings.simplefilter("ignore")  # routing has shown the warnings
        parameters = describe(model, patterns=settings.structure)
    rows, taken = routing.table, reading.takes(routing.table, None, parameters)
    terminal.show(title(settings, rows), roles(rows))
    terminal.show(*notes(settings, taken, predicted_bytes(routing.optimizers)))
    if settings.inspect == "full":
        terminal.write(full(rows, terminal.width()))
    else:
        terminal.show("inspect=full shows every tensor, how it is read, and why")
    prepare.remark_fit(settings, model, say)
    return {"how": "inspected"}


def roles(rows: list[Row]) -> Table:
    """One row per role, with the optimizer that takes it."""
    heads = ("role", "optimizer", "tensors", "numbers", "rate", "decay", "as matrices")
    table = plain_table(*heads, words=(0, 1, 6))
    together: dict[tuple, list[Row]] = {}
    for row in rows:
        key = (row["role"], row["optimizer"], row["lr"], row["weight_decay"])
        together.setdefault(key, []).append(row)
    for (role, optimizer, rate, decay), own in together.items():
        numbers = short(sum(map(reading.size, own)))
        shown = matrices(reading.matrices(own)) or "–"
        add(table, role, optimizer, f"{len(own)}", numbers, f"{rate:g}", f"{decay:g}", shown)
    return table


def matrices(found: list[list[int]]) -> str:
    """12 of 256×256, 4 of 1024×256, …"""
    words = [f"{count} of {rows}×{columns}" for count, rows, columns in found[:MOST]]
    return ", ".join([*words, *["…"] * (len(found) > MOST)])


def title(settings: Settings, rows: list[Row]) -> str:
    numbers = sum(map(reading.size, rows))
    return (
        f"{settings.model['name']} with optimizer={settings.optimizer['name']}: {numbers:,} "
        f"parameters in {len(rows)} tensors"
    )


def notes(settings: Settings, taken: dict[str, Any], state: int | None) -> Iterator[str]:
    """Lines about Q, K and V, the optimizer's state, and parameters that could not be read."""
    if taken["qkv"]:
        qkv = f"qkv={settings.qkv['name']}"
        count = taken["attentions"]
        kinds = f"{count} attention{'s' * (count != 1)}"
        yield f"Q, K, V with {qkv}: {matrices(taken['qkv'])}, of {kinds}"
    adamw = megabytes(ADAMW * taken["parameters"])
    if state is None:
        yield f"optimizer state: not known before the run; AdamW's would be {adamw}"
    else:
        yield f"optimizer state: {megabytes(state)}; AdamW's would be {adamw}"
    unread = taken["unread"]
    if not unread:
        yield "could not be read: nothing"
    for one in unread[:MOST]:
        yield f"could not be read: {one['name']}: {one['reason']}"
    if len(unread) > MOST:
        yield f"could not be read: {len(unread) - MOST} more"


def full(rows: list[Row], width: int) -> Iterator[str]:
    """All tensors with full names: how each is read, which optimizer takes it, and why."""
    for row in rows:
        facts = ["×".join(map(str, row["shape"])) or "scalar", row["role"]]
        facts += [f"{row['optimizer']} at {row['lr']:g}, decay {row['weight_decay']:g}"]
        if row["matrices"]:
            joined = f" with {len(row['joined_with'])} others" * bool(row["joined_with"])
            facts += [" + ".join(f"{n} of {r}×{c}" for n, r, c in row["matrices"]) + joined]
        yield from wrapped(f"{row['name']}: {'; '.join(facts)}", width, "    ")
        yield from wrapped(f"    why: {row['reason']}", width, "    ")
