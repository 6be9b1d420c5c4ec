"""The results of scripts/architectures.py as a page of Markdown."""

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
        "Of each type stand the heads of q, k and v, and below it what is kept whole, and why.",
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
    """One item per type: a table would be wider than a page."""
    lines = []
    for r in rows:
        begin = f"- **{r['type']}**, {r['task']}: "
        if status in ("not built", "failed"):
            lines.append(begin + r["why"])
            continue
        heads = ", ".join(map(str, r["heads"].values()))
        checked = "gradients {agree} agree, {differ} differ".format(**r["checked"])
        steps = "ok" if set(r["steps"].values()) == {"ok"} else _refused(r["steps"])
        lines.append(f"{begin}heads {heads}; {checked}; steps {steps}")
        lines += [f"  - `{name}`: {why}" for name, why in r["kept"]]
        lines += [f"  - {r['warning']}"] if r["warning"] else []
    return lines


def _refused(steps: dict[str, str]) -> str:
    return ", ".join(f"{arm}: {how}" for arm, how in steps.items() if how != "ok")
