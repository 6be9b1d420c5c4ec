"""Simulate the protocol on made-up optimizers with a known truth.

Writes results/protocol.json and the table in docs/protocol.md.

python scripts/simulate_protocol.py [--repetitions 2000]
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import track

from bench.records import origin, record
from bench.studies import simulation
from bench.studies.simulation import Summary, World, borrowing, independent, one_search, repeat

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "protocol.md"
BEGIN, END = "<!-- simulated: by scripts/simulate_protocol.py -->", "<!-- end -->"
APART = {"rate": 0.7, "relative": 0.7, "averaging": 0.3, "decay": 0.7, "warmup": 0.7}
OCTAVE = dict.fromkeys(APART, 2 / 3)  # offset of the second arm's optima; the first's is half of it
LONG = {"longer": True}
# The simulations: a name, the protocol, the two arms, and changes to the declaration.
CASES: list[tuple[str, Callable, World, dict[str, Any]]] = [
    ("two equal optimizers", independent, World(), {}),
    ("equal, their optima apart", independent, World(offsets=APART), {}),
    ("equal, every optimum an octave from the other's", independent, World(offsets=OCTAVE), {}),
    ("equal, ranges twice as wide", independent, World(offsets=APART), {"wider": 2}),
    ("equal, ranges of one twice as wide", independent, World(offsets=APART), {"uneven": True}),
    ("equal, tuned at the short horizon for the long", independent, World(offsets=APART), LONG),
    ("equal, borrowed settings and three rates", borrowing, World(offsets={"rate": 1 / 3}), {}),
    ("better by 0.02 nats", independent, World(gain=0.02, offsets=APART), {}),
    ("better by 0.05 nats", independent, World(gain=0.05, offsets=APART), {}),
    ("better by 0.10 nats", independent, World(gain=0.10, offsets=APART), {}),
    ("before: one search, two equal optimizers", one_search, World(), {}),
    ("before: one search, their optima apart", one_search, World(offsets=APART), {}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    many = parser.parse_args().repetitions
    found = {
        name: repeat(protocol, world, many, **changes)
        for name, protocol, world, changes in track(CASES, "simulating")
    }
    said = {
        "curvature": simulation.CURVATURE,
        "both_seeds": simulation.BOTH_SEEDS,
        "own_noise": simulation.OWN_NOISE,
        "margin": World().margin,
        "environment": origin.environment("cpu"),
        "cases": {name: asdict(one) for name, one in found.items()},
    }
    record.write_json(ROOT / "results" / "protocol.json", said)
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    page = f"{before}{BEGIN}\n{table(found, many)}\n{END}{rest.partition(END)[2]}"
    PAGE.write_text(page, "utf-8")
    print(table(found, many))


def table(found: dict[str, Summary], repetitions: int) -> str:
    rows = ["two optimizers | mean difference; called real, beyond, equal; covered", "--- | ---"]
    for name, one in found.items():
        shares = ", ".join(f"{share:.1%}" for share in (one.real, one.beyond, one.equal))
        mean = f"{one.mean:+.4f}".replace("-", "−")
        rows.append(f"{name} | {mean}; {shares}; {one.covers:.1%}")
    error = math.sqrt(0.05 * 0.95 / repetitions)
    note = (
        f"{repetitions:,} repetitions each; the standard error of a share of 5 % is {error:.1%}. "
        "*Mean difference*: in nats, what the searches leave of the true one; *called real*: "
        "p below 5 %; *beyond*: the margin; *covered*: intervals that hold the mean difference."
    )
    return "\n".join([*(f"| {row} |" for row in rows), "", note])


if __name__ == "__main__":
    main()
