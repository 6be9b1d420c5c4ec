"""What scripts/architectures.py found, as a page of Markdown."""

from collections import Counter
from typing import Any

import transformers


def page(results: list[dict[str, Any]]) -> str:
    """The generated table."""
    by_status = {s: [r for r in results if r["status"] == s] for s in STATUSES}
    checked = [r["checked"] for r in results if "checked" in r]
    arms = [r["steps"] for r in results if "steps" in r]
    count = {
        arm: ", ".join(
            f"{number} {how}"
            for how, number in Counter(steps[arm].partition(":")[0] for steps in arms).most_common()
        )
        for arm in ("hybrid", "per-head", "muon")
    }
    lines = [
        "# Architectures of transformers",
        "",
        f"Written by `scripts/architectures.py` with transformers {transformers.__version__}: "
        "every causal language model and image classifier, tiny and random, is read and trained "
        "for three steps.",
        "",
        f"Of {len(results)} types: "
        + ", ".join(f"{len(rows)} {status}" for status, rows in by_status.items() if rows)
        + ". Heads whose rows gradients at the attention's inputs confirm: "
        f"{sum(c['agree'] for c in checked)}, contradict: {sum(c['differ'] for c in checked)}.",
        "Three steps: "
        + "; ".join(f"{arm}: {said}" for arm, said in count.items())
        + f". Refused is said before step 1, where {REFUSED}.",
    ]
    for status, rows in by_status.items():
        if rows:
            lines += ["", f"## {status.capitalize()} ({len(rows)})", "", *_rows_of(status, rows)]
    return "\n".join(lines) + "\n"


REFUSED = "heads were asked for and no attention was seen"
STATUSES = ("read whole", "kept whole", "not built", "failed")


def _rows_of(status: str, rows: list[dict[str, Any]]) -> list[str]:
    cells: list[tuple[Any, ...]]
    head: tuple[str, ...]
    if status in ("not built", "failed"):
        cells = [(r["type"], r["task"], r["why"]) for r in rows]
        head = ("type", "of", "why")
    else:
        head = ("type", "of", "heads q, k, v", "gradients", "steps", "kept whole, and why")
        cells = [
            (
                r["type"],
                r["task"],
                ", ".join(map(str, r["heads"].values())),
                "{agree} agree, {differ} differ".format(**r["checked"]),
                "ok" if set(r["steps"].values()) == {"ok"} else _refused(r["steps"]),
                "<br>".join(f"`{name}`: {why}" for name, why in r["kept"])
                + (f"<br>{r['warning']}" if r["warning"] else ""),
            )
            for r in rows
        ]
    lines = [head, ["---"] * len(head), *cells]
    return ["| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines]


def _refused(steps: dict[str, str]) -> str:
    return "<br>".join(f"{arm}: {how}" for arm, how in steps.items() if how != "ok")
