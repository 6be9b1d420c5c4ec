"""Whether other work runs on this machine: what is timed beside it takes longer than it does."""

import os

BUSY = 1.0  # work that keeps one processor busy; several threads beside it wait for each other


def average() -> float:
    """The load average of the last minute; 0 where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def warning() -> str:
    """What a benchmark says first where other work runs; "" if none does."""
    now = beside()
    return f"timed {now}: times are too long, and ratios less certain" if now else ""


def beside() -> str:
    """Words on the other work that runs now, to be said before anything is timed; "" if none."""
    now = average()
    return f"beside other work (load {now:.1f})" if now >= BUSY else ""
