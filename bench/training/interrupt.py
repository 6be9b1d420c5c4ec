"""Handles Ctrl-C, SIGTERM and a scheduler's warning between two steps: checkpoints stay whole."""

import signal
import threading
from collections.abc import Callable

WARNING = signal.SIGUSR2  # from Slurm, ahead of a time limit or a preemption (submitit's default)


class Interrupt:
    """While active, a signal sets `asked`; the same signal again ends the process's work at once.

    patient: a second signal is ignored, because torchrun passes on what the terminal has already
    sent; torchrun itself ends processes that take longer than half a minute.
    Signals that were ignored stay ignored. If the warning has another handler, that handler gets it
    at the end: submitit then requeues the job.
    Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self, say: Callable[[str], None], patient: bool = False) -> None:
        self.say, self.patient = say, patient
        self.taken: set[int] = set()

    @property
    def asked(self) -> bool:
        return bool(self.taken)

    def __enter__(self) -> "Interrupt":
        main = threading.current_thread() is threading.main_thread()
        signals = [signal.SIGINT, signal.SIGTERM] if main else []
        if main and callable(signal.getsignal(WARNING)):
            signals.append(WARNING)
        wanted = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
        self.old = {number: signal.signal(number, self._take) for number in wanted}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)
        if WARNING in self.taken:
            signal.raise_signal(WARNING)

    def _take(self, number: int, frame: object) -> None:
        if number in self.taken:
            if self.patient:
                return
            raise KeyboardInterrupt
        if not self.taken:
            more = "" if self.patient else "; once more to stop at once"
            self.say(f"stopping after this step{more}")
        self.taken.add(number)
