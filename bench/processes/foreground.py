"""The person at the terminal, who may interrupt, or go: before a command's work and during it.

Imported first by each command, so nothing here takes time.
"""

import io
import os
import signal
import sys
from typing import Any

INTERRUPTED = 130  # the exit status after Ctrl-C


class Outlived(io.TextIOWrapper):
    """A stream that may break (`| head -1`, a full disk): what is written from then on is lost,
    and nothing else. Its descriptor then leads nowhere, for what other languages write, too."""

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
    """To be called before a command imports what takes time.

    Ctrl-C then is a line and not a traceback; and a run matters more than what shows it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    outlive()


def at_work() -> None:
    """From here on KeyboardInterrupt is raised as ever: the command has an answer of its own."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def outlive() -> None:
    """Let this process go on when its output breaks or is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # The first file that is opened takes a closed one's place, and all that is printed.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process lives
        elif type(stream) is io.TextIOWrapper:
            stream.flush()
            kind, lines = (stream.encoding, stream.errors), stream.line_buffering
            setattr(sys, name, Outlived(stream.buffer, *kind, line_buffering=lines))


def _leave(*signal_and_frame: Any) -> None:
    if os.environ.get("RANK", "0") == "0":
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
