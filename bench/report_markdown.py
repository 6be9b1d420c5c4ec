"""results/README.md, and the parts of README.md that come from records."""

import re

from bench import report_tables as tables
from bench.comparison import Comparison
from bench.report_content import Content

HEADLINE = "optimizers"  # the experiment that README.md leads with
STEP = "gpt2-cpu"  # the step benchmark that it shows


def results_page(content: Content) -> str:
    """results/README.md, whole."""
    parts = [
        "# Results",
        "Made by `make results` from the records in this folder; nothing here is typed by hand. "
        "[`report.html`](report.html) is the same with interactive charts, "
        "[`records.csv`](records.csv) has one line a run, [`verdicts.json`](verdicts.json) the "
        "verdicts with their numbers and records.",
        f"## Verdicts\n\n{tables.tally(content.verdicts)}",
        tables.verdicts(content.verdicts),
    ]
    for name, comparisons in content.comparisons.items():
        parts += [f"## {name}", *experiment(comparisons)]
    for name, one in content.steps.items():
        picture = f"![Overhead against AdamW over the batch](steps/{name}.svg)"
        has_picture = (content.results.folder / "steps" / f"{name}.svg").exists()
        parts += [f"## A step: {name}", tables.step(one), *([picture] if has_picture else [])]
    parts += ["## Not run", *not_run(content)]
    parts += ["## Left out", *left_out(content)]
    return "\n\n".join(parts) + "\n"


def experiment(comparisons: list[Comparison]) -> list[str]:
    """One experiment: its question, and each condition's tables."""
    study = comparisons[0].study
    parts = [f"*{study.question}*"]
    if study.limits:
        parts.append(f"Limits: {study.limits}.")
    for one in comparisons:
        records = [run.record for arm in one.arms for run in arm.runs]
        parts += [f"### {study.name}, {one.condition}", f"{tables.scale(one)}."]
        if one.missing > 0:
            parts.append(f"**{one.missing} runs of this condition are missing.**")
        if study.grid or len(study.final_seeds) > 1:
            parts += [tables.answer(one), tables.losses(one)]
        if one.target is not None:
            parts.append(
                f"Target: the validation loss {one.target:.3f}, which `{study.baseline}` reached "
                f"in tuning."
            )
        parts += [tables.costs(one), f"({tables.machine(records)})"]
    return parts


def not_run(content: Content) -> list[str]:
    if not content.not_run:
        return ["Every experiment has records."]
    return ["\n".join(f"- `{one.name}`: {one.question}" for one in content.not_run)]


def left_out(content: Content) -> list[str]:
    if not content.left_out:
        return ["No file was left out."]
    folder = content.results.folder
    rows = [[f"`{file.relative_to(folder)}`", reason] for file, reason in content.left_out]
    return [tables.table(["file", "reason"], rows)]


def finding(content: Content) -> str:
    """What README.md leads with: the main experiment, a line and a table a condition."""
    parts = []
    for one in content.comparisons.get(HEADLINE, []):
        records = [run.record for arm in one.arms for run in arm.runs]
        missing = f" {one.missing} runs are missing." if one.missing > 0 else ""
        parts += [
            f"**{tables.answer(one)}**",
            tables.losses(one),
            f"{tables.scale(one)}; rates are multiples of the base rate.{missing} "
            f"({tables.machine(records)})",
        ]
    return "\n\n".join(parts) or "No record of the experiment yet."


def cost(content: Content) -> str:
    runs = [
        r.record for one in content.comparisons.get("cost", []) for a in one.arms for r in a.runs
    ]
    return f"{tables.memory(content)}\n\n({tables.machine(runs)})"


def step(content: Content) -> str:
    return tables.step(content.steps[STEP])


def verdicts(content: Content) -> str:
    """How many came out how, and folded away a line a claim, for README.md."""
    rows = [[one.claim.statement, f"**{one.verdict}**"] for one in content.verdicts]
    return (
        f"{tables.tally(content.verdicts)}\n\n"
        f"<details><summary>All {len(rows)} claims</summary>\n\n"
        f"{tables.table(['claim', 'verdict'], rows)}\n\n</details>"
    )


PARTS = {"finding": finding, "verdicts": verdicts, "cost": cost, "step": step}


def filled(readme: str, content: Content) -> str:
    """README.md, each part from `<!-- NAME: from results -->` to `<!-- end -->` made anew."""
    for name, make in PARTS.items():
        pattern = rf"(<!-- {name}: from results[^>]*-->\n).*?(<!-- end -->)"
        if re.search(pattern, readme, flags=re.S):
            text = make(content)
            readme = re.sub(
                pattern, lambda m, text=text: f"{m[1]}{text}\n{m[2]}", readme, flags=re.S
            )
    return readme
