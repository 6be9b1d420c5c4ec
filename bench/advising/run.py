"""One advice, from its settings to the screen and its three files."""

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.advising import cost, evidence, measure, recipe, screen, start, verdict, words
from bench.advising.evidence import Evidence, Setting
from bench.advising.settings import Case
from bench.records import files, origin, record
from bench.settings import targets
from bench.stepping.settings import REFERENCE
from bench.stepping.subject import Subject
from bench.studies.results import Results
from bench.training import prepare, reading
from optimizers.structure import describe

SCHEMA = 1


def run(case: Case, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure, read the records, decide, and write the advice; the screen goes to stdout."""
    targets.check_model(case.settings)
    folder = advice_folder(case)
    measured, subject = measure.measure(case, say)
    say(f"{case.name}: reading the records of {case.results_dir}")
    said = advice(case, measured, takes(measured, subject, case), Results(Path(case.results_dir)))
    sections = words.sections(said)
    shown = screen.screen(sections)
    left = {
        folder / f"{case.name}.json": record.as_json(said | {"said": shown.splitlines()}),
        folder / f"{case.name}.md": screen.page(sections),
        folder / "experiment" / f"{case.name}.yaml": said["yaml"],
    }
    for file, text in left.items():
        files.write_text(file, text)
    print(shown, flush=True)
    say("advice: " + ", ".join(map(str, left)))
    return {"cell": case.name, "how": "finished", "error": None}


def advice_folder(case: Case) -> Path:
    """The path of the advice; creates its folder at once, so that no measurement is lost."""
    return files.folder(case.results_dir, "advice", "experiment").parent


def takes(measured: measure.Measured, subject: Subject, case: Case) -> dict[str, Any] | None:
    """What Muon would take; None if hybrid could not be built."""
    rows = measured.tables.get("hybrid")
    if rows is None:
        return None
    with warnings.catch_warnings(), prepare.mistakes():
        warnings.simplefilter("ignore")  # routing has shown the warnings
        parameters = describe(subject.model, patterns=case.settings.structure)
    return reading.takes(rows, measured.tables.get("hybrid qkv=per_head"), parameters)


def setting(case: Case, parameters: int, environment: dict[str, Any]) -> Setting:
    """The case in the form that is compared with records."""
    device = case.settings.train.device
    on = environment.get("gpu") or environment.get("cpu") or "an unknown device"
    task, model = case.settings.model["task"], case.settings.model["name"]
    return Setting(task, model, parameters, case.units, case.steps, device, on)


def advice(
    case: Case, measured: measure.Measured, taken: dict[str, Any] | None, results: Results
) -> dict[str, Any]:
    """The content of results/advice/NAME.json, without the screen."""
    made = origin.made(case.settings.train.device)
    here = setting(case, measured.parameters, made["environment"])
    costs = cost.costs(measured, case.units)
    found = evidence.gather(results)
    decisions = {
        arm: verdict.decide([e for e in found if e.arm == arm], here, costs[arm]["break_even"])
        for arm in evidence.OURS
        if not costs[arm]["error"]
    }
    begin = start.start(results, here, case.arms["hybrid"])
    times = {"forward_backward": cost.milliseconds(measured, case.units)}
    times |= {arm: one["step_ms"]["median"] for arm, one in costs.items() if not one["error"]}
    tested = recipe.test_of(case, begin, times)
    apart = begin.apart
    return {
        "schema": SCHEMA,
        "name": case.name,
        **made,
        "case": asdict(here)
        | {"unit": case.unit, "precision": case.settings.train.precision, "each": here.each},
        "headline": verdict.headline(decisions),
        "remarks": remarks(case),
        "takes": taken,
        "measured": {
            "units": measured.units,
            "rounds": len(measured.times[REFERENCE]),
            "times_ms": {str(key): of for key, of in measured.times.items()},
        },
        "costs": costs,
        "decisions": {
            arm: {
                "outcome": one.outcome,
                "reason": one.reason,
                "on": [e.source for e in one.on],
                "break_even": costs[arm]["break_even"],
                "measured": costs[arm]["overhead"]["measured"],
            }
            for arm, one in decisions.items()
        },
        "evidence": [plain(one, here) for one in verdict.nearest(found, here)],
        "trends": verdict.trends(found),
        "start": {
            "values": [asdict(one) for one in begin.values],
            "distance": apart and asdict(apart),
            "near": bool(apart and apart.near),
        },
        "run": recipe.run_it(case),
        "yaml": recipe.settings_file(case, begin),
        "script": recipe.in_a_script(case, begin),
        "test": tested,
    }


def remarks(case: Case) -> list[str]:
    lines: list[str] = []
    for settings in case.arms.values():
        prepare.remarks(settings, lines.append)
    return [f"{line[0].upper()}{line[1:]}." for line in dict.fromkeys(lines)]


def plain(one: Evidence, here: Setting) -> dict[str, Any]:
    """One condition's evidence in the form that is stored."""
    far = verdict.distance(here, one.setting)
    share = one.share
    ends = share and {"value": share.mean, "low": share.low, "high": finite(share.high)}
    return {
        **asdict(one),
        "never": one.never,
        "share": ends,
        "distance": asdict(far),
        "near": far.near,
    }


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
