"""docs/questions.md: what people ask, each answered in one sentence from the records."""

from statistics import mean

from bench.display.cells import Table
from bench.display.numbers import megabytes
from bench.reporting import answer, findings, to_run
from bench.reporting.content import Content
from bench.reporting.marked import cells, escaped, folded, table
from bench.studies import curves, standing, stats, study, words
from bench.studies.comparison import Arm, Comparison
from bench.studies.difference import BEYOND, EQUAL, SMALLER, STRADDLES, between
from bench.studies.study import Study
from bench.verdicts import attention, waiting
from bench.verdicts.judging import Verdict, number_of

# In the order of the page: the experiments that answer a question people ask.
ASKED = (
    *("finetune", "lora", "width", "clip", "momentum_bits"),
    *("qkv", "orthogonalizer", "iterations", "batch_size", "aux_lr"),
)
LOGIT = "largest attention logit"  # a claim's unit
SAID = ("test loss", "forgotten", LOGIT)  # units, at their beginning, that are said of all arms
NOTABLE = 0.01  # a share of the state; a smaller one is not mentioned
WORDS = {BEYOND: "", SMALLER: "; within that", EQUAL: "; equal within that", STRADDLES: "; open"}


def text(content: Content) -> str:
    """Each question with its answer and limits, or with its command and what it would take."""
    parts = []
    for name in ASKED:
        if name in study.declared():
            every = content.comparisons.get(name)
            declared = study.load(name)
            parts.append(f"## {escaped(declared.question)}")
            parts += answered(every, content) if every else unanswered(declared, content)
    return "\n\n".join(parts)


def answered(every: list[Comparison], content: Content) -> list[str]:
    """The sentence, its limits, the claims that it decides, and where all numbers stand."""
    name = every[0].study.name
    weak = dict.fromkeys(said for one in every for said in answer.weaknesses(one))
    limits = [*([every[0].study.limits] if every[0].study.limits else []), *weak]
    found = [one for one in content.verdicts if name in waiting.named(one)]
    beside = figures(found, name)
    if beside and every[0].study.margin is None:
        said = verdicts(found)
        weak |= {f"{one.condition}: {why}": None for one in every if (why := standing.early(one))}
    else:
        said = [sentence(every), *(line for one in every for line in learnt(one))]
        if any(one.unit == LOGIT for verdict in found for one in verdict.findings):
            said += [logits(one) for one in every]
    said += [*beside, *(line for one in every for line in states(one, len(every) > 1))]
    parts = [escaped(" ".join(dict.fromkeys(said))), f"Limits: {escaped('; '.join(limits))}."]
    parts += claims(found)
    return [*parts, f"All numbers: [{name}](../results/README.md#{name})."]


def unanswered(declared: Study, content: Content) -> list[str]:
    """What would answer it."""
    takes = escaped(to_run.line(declared, content.results.archive))
    return [
        f"Not run yet. `bench/train.py experiment={declared.name}` answers it: {takes}. With "
        "`inspect=true` it first says how long that takes on your machine."
    ]


def claims(found: list[Verdict]) -> list[str]:
    """The claims that the experiment measures, with their verdicts, folded."""
    rows = [
        cells((v.claim.statement, f"**{v.verdict}**", v.condition, v.claim.source)) for v in found
    ]
    heads = cells(("claim", "verdict", "where, with numbers", "who says so"))
    said = f"{len(found)} claim{'s' * (len(found) != 1)} on it"
    return [folded(said, table(Table(heads, rows)))] if rows else []


def figures(found: list[Verdict], name: str) -> list[str]:
    """What the experiment's claims measured besides test losses, a sentence for each quantity."""
    by_kind: dict[str, list[str]] = {}
    for one in (finding for verdict in found for finding in verdict.findings):
        if one.unit and not one.unit.startswith(SAID):
            number = one.undecided if one.value is None else number_of(one)
            where = one.condition.replace(f"({name}, ", "(").removesuffix(f" ({name})")
            kind = one.unit.partition(",")[0]  # before the arms of a difference
            by_kind.setdefault(kind, []).append(f"{where} {number}".replace("-", "−"))
    return [
        f"{kind[0].upper()}{kind[1:]}: {'; '.join(dict.fromkeys(all_of))}."
        for kind, all_of in by_kind.items()
    ]


def verdicts(found: list[Verdict]) -> list[str]:
    """What the claims were found to be, where no difference of losses answers the question."""
    return [f"{v.verdict[0].upper()}{v.verdict[1:]}: {v.claim.statement}." for v in found]


def learnt(one: Comparison) -> list[str]:
    """How much arms gained on the text they were tuned on and lost on the first, if measured."""
    said = []
    losses = {arm.name: curves.by_seed(arm.runs, "forgotten") for arm in one.arms}
    names = [arm.name for arm in one.arms if not arm.noise and losses[arm.name]]
    for arm in (arm for arm in one.arms if arm.name in names):
        began, ended = (curves.by_seed(arm.runs, key) for key in ("test_loss_start", "test_loss"))
        gained = mean(began[seed] - ended[seed] for seed in began.keys() & ended.keys())
        lost = mean(losses[arm.name].values())
        apart = ""
        if pair := between(losses, one.study, names).get(arm.name):
            number, interval = findings.size(pair.estimate)
            apart = f" (lost, against {one.study.baseline}: {number}, 95 % {interval})"
        said.append(f"{arm.name} {gained:.3f} and {lost:.3f}{apart}")
    where = f"Under {one.condition}, test loss gained on the new text and lost on the first"
    return [f"{where}: {'; '.join(said)}."] if said else []


def logits(one: Comparison) -> str:
    """The largest attention logit of a run, over its layers and evaluations: mean over seeds."""
    said = []
    for arm in one.arms:
        if largest := attention.largest(arm.runs):
            number, interval = words.span(stats.mean_interval(largest), digits=1)
            said.append(f"{arm.name} {number} (95 % {interval})")
    return f"Largest attention logit of a run under {one.condition}: {', '.join(said)}."


def states(one: Comparison, several: bool) -> list[str]:
    """The optimizer states and peaks of memory, if the arms differ in the state by a percent."""
    base = one.arm(one.study.baseline)
    kept = words.states(findings.tested(one), base) if base else {}
    if base is None or all(abs(share) < NOTABLE for share in kept.values()):
        return []
    peaks = {a.name: peak for a in one.arms if (peak := a.median("peak_memory_bytes"))}
    said = words.states_said(kept, base)
    held = ", ".join(f"{name} {megabytes(peak)}" for name, peak in peaks.items())
    where = f" under {one.condition}" * several
    return [f"{said}.", f"Peak memory of a run{where}: {held}."]


def sentence(every: list[Comparison]) -> str:
    """Which arms differ from the baseline by more than the margin; then each with its interval."""
    declared, several = every[0].study, len(every) > 1
    by = f"more than {declared.margin:g} nats " if declared.margin else ""
    apart = []
    for side in ("lower", "higher"):
        names = [
            arm.name + f" ({one.condition})" * several
            for one in every
            if not standing.early(one)
            for arm in findings.tested(one)
            if arm.difference and arm.difference.outcome == BEYOND
            if arm.difference.side == side
        ]
        if names:
            apart.append(f"{' and '.join(names)} end{'s' * (len(names) == 1)} {by}{side}")
    lead = ", ".join(apart) or f"no arm is shown to end {by}lower or higher"
    if all(map(standing.early, every)):
        lead = "nothing is judged"
    numbers = "; ".join(clause(one, several) for one in every)
    lines = lead == "nothing is judged" and all(one.lines for one in every)
    more = "; a run that ends below it would be" * lines
    return f"Against {declared.baseline}, {lead}: {numbers}{more}."


def clause(one: Comparison, several: bool) -> str:
    """under language head_pairs +0.012 (95 % +0.005 to +0.020, n=5; within that), …"""
    where = f"under {one.condition} " * several
    why = standing.early(one)
    said = [size(arm, judged=why is None) for arm in findings.tested(one)]
    numbers = ", ".join(said) or "no difference is tested yet, which takes two seeds"
    return f"{where}{numbers}" + (f"; not judged, {why}" if why else "")


def size(arm: Arm, judged: bool) -> str:
    assert arm.difference is not None
    number, interval = findings.size(arm.difference.estimate)
    return f"{arm.name} {number} (95 % {interval}{WORDS[arm.difference.outcome] * judged})"
