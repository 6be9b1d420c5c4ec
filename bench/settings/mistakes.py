"""Rewords the errors of Hydra, OmegaConf and the YAML reader in one or two lines."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from bench.settings.errors import UserError

KINDS = {  # OmegaConf's words for a value of the wrong kind, with ours
    "could not be converted to Integer": "must be a whole number",
    "could not be converted to Float": "must be a number",
    "is not a valid bool": "must be true or false",
    "is not Optional": "needs a value",
}

# What Hydra says of a file whose settings are meant for the top level and land in its group's.
MISPLACED = re.compile(
    r"In '((?:model|experiment)/[^']+)': "
    r"(?:Could not override '\w+@(?:model|experiment)\.|.*Cannot convert 'DictConfig')"
)
RATES = ("lr", "learning_rate", "rate", "base_lr", "max_lr")  # other names for a rate
RATE = (
    "optimizer.lr_scale=2 doubles every rate\n"
    "of one role: optimizer.roles.hidden.lr=… (inspect=true shows the rates of all roles)"
)


def full() -> bool:
    """Whether Hydra's variable asks for whole tracebacks."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


@contextmanager
def in_words() -> Iterator[None]:
    """Raises a UserError instead of these libraries' errors."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        if full():
            raise
        raise UserError(words(error)) from None


def words(error: Exception) -> str:
    """One or two lines: the setting, what is wrong with it, and the nearest valid choice."""
    cause = error.__cause__
    if misplaced := MISPLACED.match(" ".join(str(error).split())):
        return f"{misplaced[1]}.yaml: its first line must be '# @package _global_'"
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name}: no such file of conf/{group}; {nearest(name, error.options)}"
    if isinstance(error, OverrideParseException):
        said = one_line(error.message.partition("\n")[2])
        return f"{error.override}: cannot be read as key=value: {said}"
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {error.problem}"
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        head = str(error).splitlines()[0].rstrip(":")
        head = re.sub(r"^Error merging override |^Could not override .*", "", head)
        return _of_omegaconf(cause, head)
    if isinstance(error, OmegaConfBaseException):
        return _of_omegaconf(error, "")
    if str(error).startswith("Ambiguous value for argument "):
        override = str(error).splitlines()[0].split("'", 1)[1].rstrip("'")
        key, _, values = override.partition("=")
        return f"{override}: for a sweep, -m comes first; for a list, {key}=[{values}]"
    return one_line(str(error))


def _of_omegaconf(error: OmegaConfBaseException, override: str) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    key = error.full_key or ""
    if "Missing mandatory value" in said and key:
        return f"{key}: needs a value, e.g. {key}=…"
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and error.parent_node is not None:
        return unknown(key, [str(name) for name in error.parent_node])
    ours = next((own for theirs, own in KINDS.items() if theirs in said), said)
    return ": ".join(filter(None, (override or key, ours)))


def unknown(key: str, known: Iterable[str]) -> str:
    """The message for an unknown setting, with the one that is most likely meant."""
    last = key.rpartition(".")[2]
    if last in RATES:
        return f"{key}: no such setting; {RATE}"
    return f"{key}: no such setting; {nearest(last, known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The names that are most likely meant, and below them all names."""
    every = sorted(known)
    near = difflib.get_close_matches(name, every, cutoff=0.5)
    accepted = f"accepted here: {', '.join(every) or 'none'}"
    return f"perhaps {' or '.join(near)}\n{accepted}" if near else accepted


def one_line(text: str) -> str:
    """The message without Hydra's advice, which takes many lines."""
    said = re.split(r"Config search path:|See https?:|Set the environment|To append to", text)[0]
    return " ".join(said.split())
