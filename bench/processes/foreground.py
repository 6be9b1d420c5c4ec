"""The terminal of a command: its user may press Ctrl-C or close it, before or during the work.

Each command imports this first, so nothing here takes time.
"""

import io
import os
import signal
import sys
from typing import Any

INTERRUPTED = 130  # the exit status after Ctrl-C


class Outlived(io.TextIOWrapper):
    """A stream that may break (`| head -1`, a full disk): later output is lost, but nothing else
    happens. Its descriptor then discards output, including that of code in other languages."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        super().flush()


def begin() -> None:
    """Call this before a command imports slow modules.

    Ctrl-C then gives a line instead of a traceback, and a run continues without its terminal.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    outlive()


def at_work() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again: the command handles it itself."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def outlive() -> None:
    """Let this process continue when its output breaks or is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # The next opened file would take a closed one's descriptor, and get everything printed.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process lives
        elif type(stream) is io.TextIOWrapper:
            stream.flush()
            kind, lines = (stream.encoding, stream.errors), stream.line_buffering
            setattr(sys, name, Outlived(stream.buffer, *kind, line_buffering=lines))


def _leave(*signal_and_frame: Any) -> None:
    if os.environ.get("RANK", "0") == "0":
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
