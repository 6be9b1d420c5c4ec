"""Reference lines: the losses of trivial models that learn from the data that a run sees.

`results/lines/<key>.json` has the lines of one run: n-gram models or softmax regression, estimated
on the distinct training positions (images) in the run's batches, and evaluated on the run's
evaluation data. The file holds everything that determines them, so that a record can find its
lines.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import batches
from bench.processes import world
from bench.records import layouts, mathematics, origin, record, shape
from bench.settings.schema import Settings
from bench.studies.study import FINAL

if TYPE_CHECKING:
    from bench.studies.comparison import Arm, Comparison

LIMIT = {"tokens": "bigram", "images": "softmax regression"}  # training that ends above it is early
LARGEST = {"tokens": 20_000_000, "images": 1_000_000}  # draws of a run: more would take minutes
PIXELS, OF_ALL = 4_096, 50_000_000  # pixels of an image, and of all images a run sees: same reason


@dataclass(frozen=True)
class Lines:
    """The content of a file, and its path."""

    content: dict[str, Any]
    file: Path

    @property
    def every(self) -> list[dict[str, Any]]:
        """name, loss (on the test part), validation_loss, bits_per_byte, accuracy."""
        return self.content["lines"]

    @property
    def limit(self) -> dict[str, Any] | None:
        """The line that training must get below; training above it is early."""
        wanted = LIMIT[self.content["unit"]]
        return next((one for one in self.every if one["name"] == wanted), None)

    @property
    def best(self) -> dict[str, Any]:
        """The line with the lowest loss."""
        return min(self.every, key=lambda one: one["loss"])

    def bits(self, loss: float) -> float | None:
        """Nats per token of the test part as bits per byte; None for images."""
        per_token = self.content.get("bytes_per_token")
        return loss / math.log(2) / per_token if per_token else None


# reading -----------------------------------------------------------------------------------------


def read(results: Path) -> tuple[list[Lines], list[tuple[Path, str]]]:
    """All lines of a results folder, and the invalid files, each with the reason."""
    found, left_out = [], []
    for file in sorted((results / "lines").glob("*.json")):
        one = shape.read(file, layouts.lines)
        if isinstance(one, dict):
            found.append(Lines(one, file))
        else:
            left_out.append((file, one))
    return found, left_out


def beside(one: "Comparison", every: list[Lines]) -> "Comparison":
    """The comparison with the lines of one of its final runs, preferably one of its baseline."""
    finals = [run for run in one.runs if run.stage == FINAL]
    for run in sorted(finals, key=lambda run: run.arm != one.study.baseline):
        if found := of_run(run.record, every):
            return replace(one, lines=found)
    return one


def of_run(one: dict[str, Any], every: list[Lines]) -> Lines | None:
    """The lines for the run of a record."""
    wanted = facts(one["config"], mathematics.of(one))
    fitting = (lines for lines in every if lines.content["of"] | {"content": None} == wanted)
    return next(fitting, None) if wanted else None


def facts(config: dict[str, Any], made_by: int) -> dict[str, Any] | None:
    """The settings of a run that determine its lines; None if they do not suffice.

    `make` adds the content: that of a user's own files is known only where the files are.
    """
    if layouts.sees(config) is not None:
        return None
    text = config["data"].get("task") == "text"
    return {
        "mathematics": made_by,
        "data": config["data"],
        "content": None,
        "tokenizer": config["model"].get("tokenizer") if text else None,
        "sequence_length": config["train"]["sequence_length"] if text else None,
        **{key: config["train"][key] for key in ("batch_size", "accumulate", "steps")},
        "seed": config["seed"],
    }


def key(of: dict[str, Any]) -> str:
    """The name of a file: readable, with a hash of all facts."""
    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:10]
    size = "x".join(
        str(of[name]) for name in ("steps", "batch_size", "sequence_length") if of[name] is not None
    )
    words = [of["data"]["name"], of["tokenizer"], size, f"s{of['seed']}", digest]
    return "-".join(re.sub(r"[^\w.+]+", "_", str(word)) for word in words if word)


# making ------------------------------------------------------------------------------------------


def make(settings: Settings, condition: str, say: Callable[[str], None]) -> None:
    """Write the lines of a run if they do not exist, and print them in one line.

    Of many processes one does this. Raises UserError for anything wrong with the data.
    """
    of = facts(asdict(settings), mathematics.MATHEMATICS)
    if world.rank() != 0:
        return
    say_of = f"{condition}: reference lines"
    if of is None or of["steps"] * of["batch_size"] * of["accumulate"] < 1:
        say(f"{say_of} not made: how much a run sees is not known (train.steps=null)")
        return
    own = batches.identity(settings.data)
    file = Path(settings.results_dir) / "lines" / f"{key(of | {'content': own})}.json"
    there = shape.read(file, layouts.lines) if file.exists() else None
    if isinstance(there, dict):
        return
    say(f"{condition}: training trivial models on what a run sees")
    begun = time.perf_counter()
    found = computed(settings)
    if isinstance(found, str):
        say(f"{say_of} not made: {found}")
        return
    seconds = round(time.perf_counter() - begun, 2)
    content = {"of": of | {"content": own}, **found, "seconds": seconds, **origin.made()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        record.write_json(file, content)
    except OSError as error:
        say(f"{say_of} not kept ({error.strerror}: {file})")
    shown = ", ".join(f"{one['name']} {one['loss']:.3f}" for one in found["lines"])
    say(f"{say_of}, test loss of trivial models: {shown} ({seconds:.1f} s)")


def computed(settings: Settings) -> dict[str, Any] | str:
    """All lines of a run with the facts behind them, or why they cannot be made."""
    train = settings.train
    data = batches.load(
        settings.data,
        seed=settings.seed,
        sequence_length=train.sequence_length,
        tokenizer=settings.model["tokenizer"],
    )
    assert train.steps is not None  # checked by the caller
    examples = train.batch_size * train.accumulate
    drawn = train.steps * examples * data.units_per_example
    if drawn > LARGEST[data.unit]:
        return f"a run draws {drawn:,} {data.unit}; more than {LARGEST[data.unit]:,} take minutes"
    from bench.data import trivial_models  # imports scipy

    if isinstance(data, batches.Tokens):
        return trivial_models.of_text(data, train.steps, examples, settings.model["tokenizer"])
    there, *shape = data.arrays["train_images"].shape
    pixels, images = math.prod(shape), min(drawn, there)
    if pixels > PIXELS or images * pixels > OF_ALL:
        return (
            f"a run sees {images:,} images of {pixels:,} values; more than {PIXELS:,}, and than "
            f"{OF_ALL:,} of all images, take minutes"
        )
    return trivial_models.of_images(data, train.steps, examples)


# judging -----------------------------------------------------------------------------------------


def judged(arms: list["Arm"], baseline: str) -> "Arm | None":
    """The arm whose loss is compared with the lines: AdamW, preferably as the baseline; without an
    AdamW arm the baseline. None if that arm has no finished run."""
    first = sorted((arm for arm in arms if not arm.noise), key=lambda arm: arm.name != baseline)
    adamw = [arm for arm in first if arm.runs[0].record["optimizer"] == "adamw"]
    chosen = next(iter([*adamw, *(arm for arm in first if arm.name == baseline)]), None)
    return chosen if chosen and chosen.test_loss.n else None


def early(one: "Comparison") -> bool | None:
    """Whether that arm ends above the line that training must get below."""
    arm = judged(one.arms, one.study.baseline)
    if one.lines is None or one.lines.limit is None or arm is None:
        return None
    return arm.test_loss.mean > one.lines.limit["loss"]
