"""Fill the tables of README.md from the committed records; nothing in them is typed by hand.

python scripts/readme_tables.py [--check]

A table stands between `<!-- NAME: from results/FOLDER -->` and `<!-- end -->`. With --check
nothing is written and the exit status is 1 where the README is not what the records say.
"""

import argparse
import json
import math
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("adam", "adamw", "hybrid", "muon", "torch_muon")
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # two-sided 95 % by number of pairs; Student


def load(experiment: str) -> list[dict]:
    files = sorted((ROOT / "results" / "records" / experiment).glob("*.json"))
    return [json.loads(file.read_text()) for file in files]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def where(records: list[dict]) -> str:
    """The machine, in words a reader can compare with theirs."""
    environment = records[0]["environment"]
    commits = sorted({r["environment"]["commit"][:10] for r in records})
    return (
        f"{environment['cpu']}, {environment['threads']} threads, torch {environment['torch']}, "
        f"{records[0]['precision']}; commit {', '.join(commits)}"
    )


def rates() -> str:
    """Each optimizer at each rate, and at its own best one over all seeds."""
    records = load("nano_rates")
    losses: dict[str, dict[float, dict[int, dict]]] = defaultdict(lambda: defaultdict(dict))
    for r in records:
        losses[r["optimizer"]][r["lr_scale"]][r["seed"]] = r
    scales = sorted({r["lr_scale"] for r in records})
    rows, best = [], {}
    for name in sorted(losses, key=ORDER.index):
        first = {s: by_seed[0]["val_loss"] for s, by_seed in losses[name].items() if 0 in by_seed}
        best[name] = min(first, key=lambda s: math.inf if first[s] is None else first[s])
        cells = ["–" if first.get(s) is None else f"{first[s]:.3f}" for s in scales]
        cells = [f"**{c}**" if s == best[name] else c for s, c in zip(scales, cells, strict=True)]
        chosen = losses[name][best[name]].values()
        tests = [math.inf if r["test_loss"] is None else r["test_loss"] for r in chosen]
        spread = f"{statistics.mean(tests):.3f} ({min(tests):.3f}–{max(tests):.3f}, n={len(tests)})"
        rows.append([f"`{name}`", *cells, spread])
    base = records[0]["config"]["optimizer"]["roles"]["default"]["lr"]
    head = ["optimizer", *(f"{base * s:g}" for s in scales), "test loss at the best rate"]
    paired = paired_difference(losses["hybrid"][best["hybrid"]], losses["adamw"][best["adamw"]])
    steps, tokens = records[0]["steps"], records[0]["tokens_per_step"]
    return (
        f"Validation loss of `gpt2_nano` after {steps} steps of {tokens:,} tokens, by base rate "
        f"(seed 0), and the test loss of the best rate over seeds.\n\n{table(head, rows)}\n\n"
        f"hybrid − AdamW, test loss, paired by seed: {paired}. ({where(records)})"
    )


def paired_difference(ours: dict[int, dict], theirs: dict[int, dict]) -> str:
    differences = [
        ours[s]["test_loss"] - theirs[s]["test_loss"] for s in ours.keys() & theirs.keys()
    ]
    n, mean = len(differences), statistics.mean(differences)
    if n < 2:
        return f"{mean:+.3f} (n={n})"
    half = T_95[n] * statistics.stdev(differences) / math.sqrt(n)
    return f"{mean:+.3f} (95 % interval {mean - half:+.3f} to {mean + half:+.3f}, n={n})"


def cost() -> str:
    """Time and memory of each optimizer on the full-size models."""
    records = {(r["model"], r["optimizer"]): r for r in load("cost")}
    rows = []
    for model, name in sorted(records, key=lambda k: (k[0], ORDER.index(k[1]))):
        r, adamw = records[model, name], records[model, "adamw"]
        state, base = (x["optimizer_state_bytes"]["total"] for x in (r, adamw))
        weights = 4 * r["parameters"]
        batch = r.get("tokens_per_step") or r["images_per_step"]
        unit = "tokens" if "tokens_per_step" in r else "images"
        over = r["overhead"]
        rows.append(
            [
                f"`{model}`",
                f"`{name}`",
                f"{r['optimizer_share']:.1%}",
                "reference" if name == "adamw" else f"{over['value']:+.0%} (n={over['n']})",
                f"{batch:,} {unit}",
                f"{state / 1e6:,.1f} MB",
                saved(state, base),
                saved(state + weights, base + weights),
                saved(r["peak_memory_bytes"], adamw["peak_memory_bytes"]),
            ]
        )
    head = ["model", "optimizer", "optimizer share", "overhead", "batch", "state"]
    head += ["state saved", "weights + state saved", "measured peak saved"]
    return f"{table(head, rows)}\n\n({where(list(records.values()))})"


def step() -> str:
    """What a step costs on GPT-2 small, of every optimizer that was measured."""
    r = json.loads((ROOT / "results" / "steps" / "gpt2-cpu.json").read_text())
    arms = {label: one for label, one in r["optimizers"].items() if not one["error"]}
    control = arms["torch_muon"]["step_ms_by_role"]["hidden"]["median"]
    rows = []
    for label, one in arms.items():
        ms, hidden = one["step_ms"], one["step_ms_by_role"]["hidden"]["median"]
        at = one["units_at"]["0.01"]
        share = one["gemm_share"]
        last = [point for point in one["overhead"] if point["measured"]][-1]
        aside = label == "adamw"
        rows.append(
            [
                f"`{label}`",
                f"{ms['median']:,.0f} ({ms['p10']:,.0f}–{ms['p90']:,.0f})",
                "–" if aside else f"{control / hidden:.2f}×",
                "reference" if aside else f"{last['value']:+.0%}",
                "–" if aside else f"{at['units']:,.0f} ({at['low']:,.0f}–{at['high']:,.0f})",
                "–" if share is None else f"{share:.0%}",
                f"{one['peak_temporary_bytes'] / 1e6:,.1f} MB",
            ]
        )
    units, noise = last["units"], r["noise"]["difference_ms"]["ms"]
    head = ["optimizer", "ms of a step (p10–p90)", "hidden matrices against `torch_muon`"]
    head += [f"overhead at {units:,} {r['unit']}", f"1 % from ({r['unit']}, 95 %)"]
    head += ["of the GEMM peak", "temporary memory"]
    return (
        f"{table(head, rows)}\n\nn={ms['n']} by turns; AdamW against itself differs by up to "
        f"{noise:.0f} ms. The batches of 1 % are extrapolated. ({where([r])})"
    )


def saved(bytes_: int, base: int) -> str:
    return f"{1 - bytes_ / base:.1%}"


TABLES = {"rates": rates, "cost": cost, "step": step}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    path = ROOT / "README.md"
    old = path.read_text()
    new = old
    for name, make in TABLES.items():
        pattern = rf"(<!-- {name}: from results/\w+ -->\n).*?(<!-- end -->)"
        new = re.sub(pattern, lambda m, make=make: m[1] + make() + "\n" + m[2], new, flags=re.S)
    if asked.check:
        print("README.md is what the records say" if new == old else "README.md is out of date")
        return int(new != old)
    path.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
