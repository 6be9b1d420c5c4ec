"""A Hydra command: checks what was typed first, and turns its errors into UserErrors."""

import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import hydra._internal.utils as hydra_internals
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from bench.settings import mistakes, usage
from bench.settings.errors import UserError
from bench.settings.schema import CONF, GROUPS, choices_of

SWEEPER = "hydra/sweeper"
usage.register()
SEARCHED = "No trials are completed yet"  # Optuna's message for a search without any result


def run(job: Callable[[], None]) -> None:
    """Call a function that `hydra.main` made. Raises UserError for anything that cannot be
    composed.

    Hydra itself would print the error and exit, with a few lines or a traceback. A user's own
    modules may be in the current folder.
    """
    sys.path.append(os.getcwd())
    sys.argv[1:] = in_full(sys.argv[1:])
    check(sys.argv[1:])
    hydra_internals.run_and_report = lambda func: func()
    try:
        with mistakes.in_words():
            shown = shown_by_job(sys.argv[1:])
            for words in shown or [sys.argv[1:]]:
                if shown:
                    print("---")
                sys.argv[1:] = words
                job()
    except (UserError, OSError):
        raise
    except Exception as error:  # jobs raise nothing, so the error is Hydra's
        if mistakes.full():
            raise
        if SEARCHED in str(error):
            raise UserError("no run of this search ended with a loss") from None
        said = mistakes.one_line(f"{type(error).__name__}: {error}")
        raise UserError(f"these settings cannot be composed: {said[:300]}") from None


def in_full(arguments: list[str]) -> list[str]:
    """The command line with model=my_module:build replaced by the settings that it stands for."""
    found = []
    for word in arguments:
        own = re.fullmatch(r"model=([\w.]+):(\w+)", word)
        target = f"{own[1]}.{own[2]}" if own else ""
        long = ["model=own", f"model._target_={target}", f"model.name={target}"]
        found += long if own else [word]
    return found


def given(words: Iterable[str], known: dict[str, Any]) -> dict[str, Any]:
    """The settings of a command without Hydra: the known ones, as typed or with their defaults.

    Raises UserError for any other word.
    """
    found = dict(known)
    for word in words:
        key, equals, value = word.partition("=")
        if key not in known or not equals:
            raise UserError(f"{word}: no such setting; {mistakes.nearest(key, known)}")
        found[key] = value
    return found


def check(arguments: list[str]) -> None:
    """Raise UserError for options and overrides that Hydra would fail on or silently accept."""
    parser = hydra_internals.get_args_parser()
    setattr(parser, "error", refuse_option)  # noqa: B010, argparse's own would print its usage
    known, unknown = parser.parse_known_args(arguments)
    for word in unknown:
        if word.startswith("-"):
            options = [name for action in parser._actions for name in action.option_strings]
            raise UserError(f"{word}: no such option; {mistakes.nearest(word, options)}")
        raise UserError(f"{word}: options such as -m come before all overrides")
    check_overrides(known.overrides)


def shown_by_job(arguments: list[str]) -> list[list[str]]:
    """The command line of each job, for a sweep whose settings are to be shown; otherwise none.

    Hydra accepts -m or --cfg, not both. Raises UserError if the sweeper still has to choose values.
    """
    asked, _ = hydra_internals.get_args_parser().parse_known_args(arguments)
    if not (asked.multirun and asked.cfg):
        return []
    parsed = parse(asked.overrides)
    for override in parsed:
        if override.is_interval_sweep():
            raise UserError(f"{override.input_line}: has no value before the search; leave it out")
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    options = [w for w in arguments if w not in (*asked.overrides, "-m", "--multirun")]
    return [[*options, *words] for words in jobs]


def refuse_option(message: str) -> NoReturn:
    raise UserError(f"{message}; --help shows what there is")


def check_overrides(overrides: list[str]) -> None:
    """Raise UserError for an override that Hydra would fail on or silently accept."""
    with mistakes.in_words():
        parsed = parse(overrides)
        refuse_twice(parsed)
        searches = any(override.key_or_group == SWEEPER for override in parsed)
        for override in parsed:
            check_override(override, searches)


def refuse_twice(parsed: list[Override]) -> None:
    """Refuse a group that is typed twice: the last would win, or Hydra's message would mislead."""
    typed: dict[str, str] = {}
    for override in parsed:
        group, word = override.key_or_group, str(override.input_line)
        key = f"{group}@{override.package}" if override.package else group  # data@other_data
        if key in typed and group in (*GROUPS, "experiment"):
            raise UserError(f"{typed[key]} {word}: {key} is there twice; it takes one file")
        typed[key] = word


def parse(overrides: list[str]) -> list[Override]:
    """The overrides as Hydra reads them; a glob(…) becomes the files that match."""
    loader = None
    if any("glob(" in word for word in overrides):
        loader = ConfigLoaderImpl(hydra_internals.create_config_search_path(str(CONF)))
    return OverridesParser.create(config_loader=loader).parse_overrides(overrides)


def check_override(override: Override, searches: bool) -> None:
    """Check that a group gets the name of a file, and a sweep at least one value.

    searches: the sweeper can choose values from an interval.
    """
    word, key = override.input_line, override.key_or_group
    if not key:
        raise UserError(f"{word}: needs the name of a setting before the =")
    if key in (*GROUPS, "experiment") and (override.is_add() or override.is_force_add()):
        raise UserError(f"{word}: a group takes no +; type {str(word).lstrip('+')}")
    if override.is_interval_sweep():
        if searches:
            return
        raise UserError(
            f"{word}: needs -m hydra/sweeper=optuna; a sweep without it takes values, as "
            f"-m {key}=1,2,4"
        )
    if override.is_sweep_override():
        if next(iter(override.sweep_string_iterator()), None) is None:
            raise UserError(f"{word}: no values, nothing would be run")
        return
    if not (CONF / key).is_dir() or override.is_add() or override.is_force_add():
        return
    value = None if override.is_delete() else override.value()
    if isinstance(value, int | float) or (value is None and key != "experiment"):
        raise UserError(f"{word}: must be one of {', '.join(choices_of(key))}")
