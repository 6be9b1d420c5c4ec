"""The advice in words: sections for screen and page; pure functions of the stored content."""

from dataclasses import dataclass, field
from typing import Any

from bench.advising import recipe
from bench.advising.evidence import OURS
from bench.advising.verdict import FAR
from bench.display.numbers import duration, short
from bench.stepping.settings import REFERENCE
from bench.studies.words import percent, plain

SHOWN = 3  # records shown
Said = dict[str, Any]  # the content of results/advice/NAME.json


@dataclass(frozen=True)
class Section:
    """A title, sentences, a table (with a first row of headings) and lines to copy."""

    title: str
    sentences: list[str]
    rows: list[list[str]] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def sections(said: Said) -> list[Section]:
    return [about(said), takes(said), costs(said), pays(said), *starts(said)]


def digits(one: Said) -> int:
    """Decimals of a percentage that make its interval visible."""
    return 1 if abs(one["value"]) < 0.1 else 0


def span(one: Said, sign: str = "", mark: str = "", to: str = " to ") -> str:
    """+12 % (11 to 13), with the sign only before the value."""
    places = digits(one)
    low, high = (
        "never" if end is None else plain(100 * end, places) for end in (one["low"], one["high"])
    )
    return f"{mark}{percent(one['value'], places, sign)} ({low}{to}{high})"


def about(said: Said) -> Section:
    case = said["case"]
    title = (
        f"{case['model']} on {case['device']}, {case['precision']}: "
        f"{short(case['parameters'])} parameters, {case['units']:,} {case['unit']} a step"
    )
    return Section(title, [said["headline"], *said["remarks"]])


# what Muon would take ----------------------------------------------------------------------------


def takes(said: Said) -> Section:
    found = said["takes"]
    if found is None:
        return Section("What Muon would take", ["Not known: hybrid could not be built."])
    whole = found["parameters"]
    shapes = several([f"{n} of {r}×{c}" for n, r, c in found["matrices"]], 4, " shapes")
    count = sum(n for n, _, _ in found["matrices"])
    sentences = [
        f"{count} matrices, {percent(found['by_muon'] / whole, 0)} of the parameters: {shapes}.",
        qkv(found),
    ]
    left = [
        f"{role} {short(size)}"
        for role, size in sorted(found["left_to_adamw"].items(), key=lambda pair: -pair[1])
    ]
    sentences.append(f"Left to AdamW: {', '.join(left) or 'nothing'}.")
    unread = [one["name"] for one in found["unread"]]
    names = several(unread, 2, "")
    sentences.append(
        f"Could not be read: {names}; structure= can say what they are." if unread
        else "All of it could be read."
    )  # fmt: skip
    return Section("What Muon would take (hybrid)", sentences)


def qkv(found: Said) -> str:
    if not found["attentions"]:
        return "No Q, K and V were seen."
    split = several([f"{n} of {r}×{c}" for n, r, c in found["qkv"]], 3, " shapes")
    heads = several([f"{n} of {r}×{c}" for n, r, c in found["qkv_per_head"]], 3, " shapes")
    per_head = f"; per head {heads}" if heads else ""
    return f"Q, K, V of {found['attentions']} attentions, read apart: {split}{per_head}."


def several(names: list[str], most: int, what: str) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more{what}" if more > 0 else "")


# what it costs -----------------------------------------------------------------------------------


def costs(said: Said) -> Section:
    case, rows = said["case"], []
    least = said["measured"]["units"][0]
    fitted, failed = False, []
    for label, one in said["costs"].items():
        if one["error"]:
            failed.append(f"{label}: {one['error']}.")
        elif label != REFERENCE:
            fitted |= not one["overhead"]["measured"]
            rows.append(cost_row(label, one, least))
    against = [
        f"{label} {span(one['over_torch_muon'], '+')}"
        for label, one in said["costs"].items()
        if not one["error"] and one["over_torch_muon"] and " " not in label
    ]
    heads = ["optimizer", "extra a step", "≤5 % from", "≤2 % from", "state", "peak"]
    sizes = ", ".join(f"{units:,}" for units in said["measured"]["units"])
    after = [f"Over torch.optim.Muon, a step: {'; '.join(against)}."] if against else []
    after += failed
    after.append(
        f"Interleaved, n={said['measured']['rounds']}, at {sizes} {case['unit']} a step; 95 %. "
        "~: fitted beyond them. none: within the noise of AdamW against itself. "
        "State and peak memory: against AdamW's."
    )
    title = f"What it costs over AdamW, at {case['units']:,} {case['unit']} a step"
    return Section(title, [], [heads, *rows] if rows else [], after=after)


def cost_row(label: str, one: Said, least: int) -> list[str]:
    none = one["difference_ms"]["within_noise"]
    mark = "" if one["overhead"]["measured"] else "~"
    levels = [reached(one["units_at"][level], least) for level in ("0.05", "0.02")]
    return [
        label.replace("qkv=", ""),
        "none" if none else span(one["overhead"], "+", mark),
        *(["any", "any"] if none else levels),
        percent(-one["state_saved"], 0, "+"),
        percent(-one["peak_saved"], 0, "+"),
    ]


def reached(at: Said, least: int) -> str:
    if at["units"] is None:
        return "never"
    if at["units"] <= least:
        return f"≤{short(least)}"
    return ("" if at["measured"] else "~") + short(at["units"])


# when it pays ------------------------------------------------------------------------------------


def pays(said: Said) -> Section:
    needs, reasons, rows = [], dict[str, list[str]](), []
    for arm, one in said["decisions"].items():
        needs.append(f"{arm} {span(one['break_even'], mark='' if one['measured'] else '~')}")
        reasons.setdefault(f"{one['outcome']} ({one['reason']})", []).append(arm)
    sentences = ["To pay in time it has to reach AdamW's loss in under: "]
    sentences[0] += f"{'; '.join(needs)} of AdamW's steps."
    sentences += [f"{', '.join(arms)}: {reason}." for reason, arms in reasons.items()]
    order = sorted(said["evidence"], key=lambda one: bool(one["doubts"]))  # else by distance
    shown = list(dict.fromkeys(one["source"] for one in order))[:SHOWN]
    for source in shown:
        rows.append(evidence_row([one for one in order if one["source"] == source], said))
    if rows:
        rows.insert(0, ["share of AdamW's steps", *OURS, "n", "case / record"])
    doubts = {one["source"]: one["doubts"][0] for one in order if one["doubts"]}
    after = [f"*: not judged: {doubts[source]}." for source in shown if source in doubts]
    more = len({one["source"] for one in order}) - len(shown)
    after += [f"{more} more in the JSON."] if more else []
    after += [trend(one, said["case"]["unit"]) for one in said["trends"][:2]]
    return Section("When it pays", sentences, rows, after=list(dict.fromkeys(after)))


def evidence_row(of_arms: list[Said], said: Said) -> list[str]:
    """A row for a condition: what each arm needed there, and its distance."""
    first, cells = of_arms[0], dict.fromkeys(OURS, "–")
    for one in of_arms:
        cells[one["arm"]] = span(one["share"], to="–") if one["share"] else "not reached"
        if one["share"] and one["share"]["high"] is None:
            cells[one["arm"]] = percent(one["share"]["value"], 0)
        if one["never"] not in (0, len(one["shares"])):
            cells[one["arm"]] = f"{one['never']} of {len(one['shares'])} never"
    far = "near" if first["near"] else apart(first["distance"], said["case"]["unit"])
    mark = "*" if any(one["doubts"] for one in of_arms) else ""
    return [first["source"] + mark, *cells.values(), str(len(first["shares"])), far]


def apart(distance: Said, unit: str) -> str:
    """The dimensions beyond FAR, with the case relative to the record."""
    each = distance["each"]
    far = [
        f"{times(distance[key])} {what}"
        for key, what in {
            "parameters": "parameters",
            "each": f"{unit}/parameter",
            "batch": "batch",
        }.items()
        if distance[key] is not None and not 1 / FAR <= distance[key] <= FAR
    ]
    far += [f"{unit}/parameter unknown"] if each is None else []
    far += [] if distance["same_task"] else ["other data"]
    far += [] if distance["same_device"] else ["other device"]
    return ", ".join(far)


def times(ratio: float) -> str:
    many = max(ratio, 1 / ratio)
    shown = f"{many:,.0f}" if many >= 10 else f"{many:.2g}"
    return f"{shown}×" if ratio >= 1 else f"1/{shown}"


def trend(one: Said, unit: str) -> str:
    first, second = (percent(share, 0) for share in one["shares"])
    over = "steps" if one["over"] == "steps" else f"{unit} a step"
    verb = {"rises": "rises", "falls": "falls"}.get(one["shown"], "shows no trend")
    return (
        f"{one['arm']}: the share {verb} from {one['from']:,} to {one['to']:,} {over} "
        f"({first}, {second}; {', '.join(dict.fromkeys(one['sources']))})."
    )


# where to start ----------------------------------------------------------------------------------


def starts(said: Said) -> list[Section]:
    start = said["start"]
    rows = [["setting", "value", "from"]]
    rows += [[one["name"], value(one["value"]), one["source"]] for one in start["values"]]
    sentences = []
    if start["distance"] is not None:
        far = "" if start["near"] else apart(start["distance"], said["case"]["unit"])
        if far:
            sentences = [f"Carried over from outside ({far}): tune them on your data."]
    runs, seconds, fits = (said["test"][key] for key in ("runs", "seconds", "steps_in_a_day"))
    shorter = [f"In a day train.steps={fits} fits; it speaks for runs of about that length."]
    shorter = shorter if seconds > recipe.DAY and fits else []
    about = f"{runs} runs, about {duration(seconds)} here"
    steps = "" if said["case"]["steps"] else f"; {recipe.STEPS:,} steps, as train.steps= is unsaid"
    return [
        Section("Where to start", sentences, rows),
        Section("As settings to run", [], code=[said["run"]]),
        Section("In a script of yours", [], code=said["script"]),
        Section(
            f"To test it on your data ({about}{steps})", shorter, code=[said["test"]["command"]]
        ),
    ]


def value(one: Any) -> str:
    return f"{one:g}" if isinstance(one, float) else str(one)
