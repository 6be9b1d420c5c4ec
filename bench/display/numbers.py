"""Numbers in readable form."""

from typing import Any

MB = 1e6


def number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else format(value, form)


def megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value / MB:,.1f} MB"


def short(value: float) -> str:
    """Three digits and k, M, G or T: 46.3k."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{float(f'{value / size:.3g}'):g}{letter}"
    return f"{float(f'{value:.3g}'):g}"


def duration(seconds: float) -> str:
    """40 s, 12 min, 3.4 h."""
    for size, word in ((3600, "h"), (60, "min")):
        if seconds >= 0.95 * size:
            value = seconds / size
            return f"{value:.1f} {word}" if word == "h" else f"{value:.0f} {word}"
    return f"{seconds:.0f} s"


def spread(times: dict[str, Any]) -> str:
    if not times["n"]:
        return "–"
    low, high = times["p10"], times["p90"]
    return f"{times['median']:,.1f} ms  (p10–p90 {low:,.1f}–{high:,.1f}, n={times['n']})"
