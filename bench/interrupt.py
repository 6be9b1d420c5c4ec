"""Ctrl-C and SIGTERM, taken between two steps so that a checkpoint is always whole."""

import signal
import threading
from collections.abc import Callable


class Interrupt:
    """While active, a signal sets `asked`; a second one ends the process's work at once.

    patient: it does not, as torchrun passes on what the terminal has sent already; torchrun itself
    ends processes that take longer than half a minute.
    Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self, say: Callable[[str], None], patient: bool = False) -> None:
        self.say, self.patient = say, patient
        self.asked = False

    def __enter__(self) -> "Interrupt":
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if main else ()
        self.old = {number: signal.signal(number, self._take) for number in signals}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: object) -> None:
        if self.asked:
            if self.patient:
                return
            raise KeyboardInterrupt
        self.asked = True
        self.say(
            "stopping after this step" + ("" if self.patient else "; once more to stop at once")
        )
