"""Settings of the laboratory: their types, their checks, and the meaning of each list.

Nothing here imports torch at module level, so that a misspelt option gets its answer at once.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from bench.laboratory.spectra import PRESCRIBED
from bench.settings.checks import refuse_blank_folder
from bench.settings.config import compare_keys, device, resolved
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from optimizers.coefficients import SETS, Triple, per_step

FLAGS = ("fit", "map", "checks", "spectra")
BLOCKS = ("fitting", "stability")  # settings of further tasks, one file each
LARGEST = 16_384  # of the smaller side: a spectrum takes 11 s there, four times that at the double
DEFAULTS = {"log_uniform": 1e3, "condition": 1e6, "power_law": 1.0, "low_rank": 0.1}


class Method(NamedTuple):
    """A named set of coefficients: the argument of `per_step`, and a name."""

    name: str
    coefficients: str | tuple[Triple, ...]

    def triples(self, steps: int) -> list[Triple]:
        return per_step(self.coefficients, steps)


class Source(NamedTuple):
    """A source of matrices: gaussian, momentum, or a given spectrum with its number."""

    kind: str
    value: float | None = None

    def __str__(self) -> str:
        return self.kind if self.value is None else f"{self.kind}:{self.value:g}"


@dataclass
class Settings:
    """conf/ortho.yaml explains each one. The lists are Any, because `settle` reads them."""

    seed: int = MISSING
    results_dir: str = MISSING
    device: str = MISSING
    methods: Any = MISSING  # list[Method], once settled
    forms: Any = MISSING  # list[str]
    shapes: Any = MISSING  # list[tuple[int, int]]
    steps: Any = MISSING  # list[int]
    dtypes: Any = MISSING  # list[str]
    sources: Any = MISSING  # list[Source]
    samples: int | None = MISSING
    momentum: str | None = MISSING
    roles: Any = MISSING  # list[str]
    layers: Any = MISSING  # list[int] or None
    pictures: bool = MISSING
    fit: Any = MISSING  # bool or "table"
    map: bool = MISSING
    checks: bool = MISSING
    spectra: bool = MISSING
    fitting: dict[str, Any] = field(default_factory=dict)
    stability: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(name="ortho_schema", node=Settings)


def settle(config: DictConfig) -> Settings:
    """Check all settings and convert the lists to the values that they mean.

    Raises UserError naming the setting, its value and what is accepted.
    """
    refuse_unknown_keys(config)
    settings = Settings(**resolved(config))
    refuse_blank_folder(settings.results_dir)
    if not 0 <= settings.seed < 2**63:
        raise UserError(f"seed={settings.seed}: must be a whole number from 0, below 2^63")
    if settings.samples is not None and settings.samples < 1:
        raise UserError(f"samples={settings.samples}: must be null or at least 1")
    if not (isinstance(settings.fit, bool) or settings.fit == "table"):
        raise UserError(f"fit={settings.fit}: must be false, true or table")
    asked = [f"{f}={str(getattr(settings, f)).lower()}" for f in FLAGS if getattr(settings, f)]
    if len(asked) > 1:
        raise UserError(f"{' '.join(asked)}: one of them at a time")
    settings.device = device("device", settings.device)
    from optimizers.orthogonalize.iteration import DTYPES
    from optimizers.orthogonalize.iteration import METHODS as FORMS

    settings.steps = [whole("steps", item, 1) for item in _several("steps", settings.steps)]
    settings.methods = methods(settings.methods, max(settings.steps))
    settings.forms = _chosen("forms", settings.forms, FORMS)
    settings.dtypes = _chosen("dtypes", settings.dtypes, DTYPES)
    settings.shapes = [shape(item) for item in _several("shapes", settings.shapes)]
    settings.sources = [source(item) for item in _several("sources", settings.sources)]
    settings.roles = _chosen("roles", settings.roles, _roles())
    if settings.layers is not None:
        layers = _several("layers", settings.layers)
        settings.layers = [whole("layers", item, 0) for item in layers]
    return settings


def refuse_unknown_keys(config: DictConfig) -> None:
    """Compare every key with the schema and the file, because a leading + gets a key past Hydra."""
    file = OmegaConf.load(CONF / "ortho.yaml")
    assert isinstance(file, DictConfig)
    compare_keys("", config, [f.name for f in fields(Settings)])
    for block in BLOCKS:
        compare_keys(f"{block}.", config[block], list(file.get(block, {})))


def methods(value: Any, steps: int) -> list[Method]:
    """Sets by name, files of conf/orthogonalizer, triples, or lists with one triple per step."""
    if _is_triple(value):
        value = [value]
    found = [method(item) for item in _several("methods", value)]
    for item in found:
        item.triples(steps)
    return found


def method(item: Any) -> Method:
    if isinstance(item, str):
        return Method(item, _named(item))
    triples = [item] if _is_triple(item) else item
    if not isinstance(triples, list) or not triples or not all(map(_is_triple, triples)):
        raise UserError(
            f"methods={item}: must be the name of a set ({', '.join(_names())}), "
            "a triple of numbers [a, b, c], or a list of triples, one a step"
        )
    coefficients = tuple((float(a), float(b), float(c)) for a, b, c in triples)
    if len(coefficients) == 1:
        return Method("_".join(f"{k:.6g}" for k in coefficients[0]), coefficients)
    digest = hashlib.sha256(repr(coefficients).encode()).hexdigest()
    return Method(f"triples_{digest[:8]}", coefficients)


def _named(name: str) -> str | tuple[Triple, ...]:
    """A set of optimizers/coefficients.py, or one from a file of conf/orthogonalizer."""
    if name in (*SETS, "polar_express"):
        return name
    file = CONF / "orthogonalizer" / f"{name}.yaml"
    block = OmegaConf.to_container(OmegaConf.load(file)) if name and file.is_file() else {}
    if not isinstance(block, dict) or "coefficients" not in block:
        hint = "; exact is a form: forms=exact" if name == "exact" else ""
        raise UserError(
            f"methods={name}: no such set; accepted: {', '.join(_names())}, or a triple [a, b, c]"
            + hint
        )
    coefficients = block["coefficients"]
    return coefficients if isinstance(coefficients, str) else tuple(map(tuple, coefficients))


def _names() -> list[str]:
    files = {
        file.stem
        for file in (CONF / "orthogonalizer").glob("*.yaml")
        if "coefficients" in OmegaConf.load(file)
    }
    return [*SETS, "polar_express", *sorted(files - {*SETS, "polar_express"})]


def shape(item: Any) -> tuple[int, int]:
    rows, _, columns = str(item).partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise UserError(f"shapes={item}: must be rows x columns, e.g. shapes=256x1024")
    n, m = int(rows), int(columns)
    if not 2 <= min(n, m) <= LARGEST or max(n, m) > 2**31:
        raise UserError(
            f"shapes={item}: both sides must be at least 2 (msign of a single row or column needs "
            f"no iteration), the smaller at most {LARGEST:,}"
        )
    return n, m


def source(item: Any) -> Source:
    kind, colon, number = str(item).partition(":")
    if kind in ("gaussian", "momentum") and not colon:
        return Source(kind)
    if kind not in PRESCRIBED:
        forms = ", ".join(f"{name}:{value:g}" for name, value in DEFAULTS.items())
        raise UserError(
            f"sources={item}: must be gaussian, momentum, or a spectrum such as {forms}"
        )
    try:
        value = float(number) if colon else DEFAULTS[kind]
    except ValueError:
        value = math.nan
    least, most = {"low_rank": (0, 1), "power_law": (0, 10)}.get(kind, (1, 1e12))
    if not least < value <= most:
        raise UserError(
            f"sources={item}: {kind}:NUMBER needs a number above {least}, at most {most:g}"
        )
    return Source(kind, value)


def _several(name: str, value: Any) -> list[Any]:
    """A list, also if a single value was given."""
    items = value if isinstance(value, list) else [value]
    if not items or any(item is None for item in items):
        raise UserError(f"{name}={value}: needs at least one value")
    return list({str(item): item for item in items}.values())


def _chosen(name: str, value: Any, accepted: Iterable[str]) -> list[str]:
    items = _several(name, value)
    for item in items:
        if item not in accepted:
            raise UserError(f"{name}={item}: must be one of {', '.join(accepted)}")
    return items


def whole(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name}={value}: must be a whole number and at least {least}")
    return value


def _is_triple(value: Any) -> bool:
    def number(k: Any) -> bool:
        return isinstance(k, int | float) and not isinstance(k, bool) and math.isfinite(k)

    return isinstance(value, list) and len(value) == 3 and all(map(number, value))


def _roles() -> tuple[str, ...]:
    from optimizers.structure.parameters import ROLES

    return tuple(role for role in ROLES if role != "vector")
