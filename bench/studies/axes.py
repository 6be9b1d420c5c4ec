"""What a search varies in an arm: settings not fixed by the arm's name, on logarithmic scales.

Each axis has a kind, and axes of one kind have the same width in all arms. For example, the
averaging of AdamW's second moment and of Muon's momentum are both searched as the share of the
newest gradient.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from bench.settings.checks import warmup_steps
from bench.settings.schema import Settings

KINDS = ("rate", "relative", "averaging", "decay", "warmup")
DIGITS = 4  # digits of a searched number: what is typed is what is trained

Point = dict[str, float]  # a value for each axis
Values = tuple[tuple[str, Any], ...]  # settings, each with its value


@dataclass(frozen=True)
class Axis:
    """write: the settings that a point gives; read: a record's config value or None."""

    kind: str
    write: Callable[[Point, Settings], Iterator[tuple[str, Any]]]
    read: Callable[[dict[str, Any]], float | None]


def values(point: Point, settings: Settings) -> Values:
    """The settings of a point; settings: those of the arm, from its condition and its files."""
    return tuple(pair for name in point for pair in AXES[name].write(point, settings))


def read(names: list[str], config: dict[str, Any]) -> Point:
    """The point of a record's config, with those of these axes that it has."""
    found = {name: AXES[name].read(config) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def with_values(settings: Settings, found: Values) -> Settings:
    """The settings with some values replaced, as by a command line."""
    changed = deepcopy(settings)
    for path, value in found:
        group, *keys = path.split(".")
        node = getattr(changed, group)
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
    return changed


def short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _rules(optimizer: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The roles whose rules have a setting that is not zero."""
    return ((role, rule) for role, rule in optimizer["roles"].items() if rule.get(key))


def _scale(name: str, axis: str) -> Axis:
    """A factor on rates; kind: that on all rates or that on some."""

    def write(point: Point, settings: Settings) -> Iterator[tuple[str, Any]]:
        yield f"optimizer.{name}", short(point[axis])

    kind = "rate" if axis == "rate" else "relative"
    return Axis(kind, write, lambda config: (config.get("optimizer") or {}).get(name, 1.0))


def _momentum(axis: str, turned: Callable[[float], float]) -> Axis:
    """turned: the setting `momentum` from the axis's value, and the value from the setting."""

    def write(point: Point, settings: Settings) -> Iterator[tuple[str, Any]]:
        for role, _ in _rules(settings.optimizer, "momentum"):
            yield f"optimizer.roles.{role}.momentum", short(turned(point[axis]))

    def read(config: dict[str, Any]) -> float | None:
        found = _first(config, "momentum")
        return None if found is None else short(turned(found))

    return Axis("averaging", write, read)


def _beta(number: int) -> Axis:
    """1 - an average's factor, by its number among `betas`, where the arm has so many."""
    axis = f"beta{number + 1}"

    def write(point: Point, settings: Settings) -> Iterator[tuple[str, Any]]:
        for role, rule in _rules(settings.optimizer, "betas"):
            betas = list(rule["betas"])
            if number < len(betas):
                betas[number] = short(1 - point[axis])
                yield f"optimizer.roles.{role}.betas", betas

    def read(config: dict[str, Any]) -> float | None:
        betas = _first(config, "betas")
        return short(1 - betas[number]) if betas and number < len(betas) else None

    return Axis("averaging", write, read)


def _write_decay(point: Point, settings: Settings) -> Iterator[tuple[str, Any]]:
    """rate × λ × steps determines how much of a weight a run forgets."""
    assert settings.train.steps  # a study that searches has steps
    for role, rule in _rules(settings.optimizer, "weight_decay"):
        rate = rule["lr"] * point["rate"]
        yield (
            f"optimizer.roles.{role}.weight_decay",
            short(point["decay"] / (rate * settings.train.steps)),
        )


def _write_radius(point: Point, settings: Settings) -> Iterator[tuple[str, Any]]:
    """Within a ball weights shrink by the rate itself: a larger ball at a lower rate moves them as
    far and decays them less."""
    assert settings.train.steps
    for role, rule in _rules(settings.optimizer, "constraint"):
        rate = short(point["radius"] / (point["rate"] * settings.train.steps))
        yield f"optimizer.roles.{role}.lr", rate
        yield f"optimizer.roles.{role}.scale", short(rule["scale"] * rule["lr"] / rate)


def _write_warmup(point: Point, settings: Settings) -> Iterator[tuple[str, Any]]:
    assert settings.train.steps
    yield "schedule.warmup_steps", warmup_steps(point["warmup"], settings.train.steps)


def _first(config: dict[str, Any], key: str) -> Any:
    """A setting of the first rule that has it."""
    optimizer = config.get("optimizer") or {}
    found = _rules({"roles": optimizer.get("roles") or {}}, key)
    return next((rule[key] for _, rule in found), None)


def _read_decay(config: dict[str, Any], key: str = "weight_decay") -> float | None:
    """key: of what multiplies the rate; `constraint` is a factor of 1."""
    steps, optimizer = (config.get("train") or {}).get("steps"), config.get("optimizer") or {}
    rules = _rules({"roles": optimizer.get("roles") or {}}, key)
    rule, scale = next((rule for _, rule in rules), {}), optimizer.get("lr_scale")
    if not (steps and scale and rule.get("lr")):
        return None
    return short(float(rule[key]) * rule["lr"] * scale * steps)


def _read_radius(config: dict[str, Any]) -> float | None:
    return _read_decay(config, "constraint")


def _read_warmup(config: dict[str, Any]) -> float | None:
    steps = (config.get("train") or {}).get("steps")
    warmup = (config.get("schedule") or {}).get("warmup_steps")
    return warmup / steps if steps and warmup is not None else None


AXES = {
    "rate": _scale("lr_scale", "rate"),  # of all parts, in multiples of the file's rate
    "embedding": _scale("embedding_lr_scale", "embedding"),  # of embedding and head, times rate
    "auxiliary": _scale("aux_lr_scale", "auxiliary"),  # of what is not Muon's, times rate
    "momentum": _momentum("momentum", lambda value: 1 - value),
    "newest": _momentum("newest", lambda value: value),  # Scion's is the newest gradient's share
    "beta2": _beta(1),  # 1 - β₂
    "beta3": _beta(2),  # 1 - β₃, of AdEMAMix's slow average
    "decay": Axis("decay", _write_decay, _read_decay),  # rate × λ × steps
    "radius": Axis("decay", _write_radius, _read_radius),  # Scion's
    "warmup": Axis("warmup", _write_warmup, _read_warmup),  # share of the run
}
