"""Replacement characters for terminals that know only ASCII."""

import codecs
import sys

SIGNS = {"–": "-", "−": "-", "×": "x", "±": "+-", "…": "...", "≤": "<=", "·": "*"}


def set_up() -> None:
    """Replace characters outside the terminal's encoding, so that printing never ends a run."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign, "?") for sign in signs), error.end
