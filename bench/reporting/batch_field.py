"""Data with which the page shows an optimizer's overhead at any batch that a reader types."""

from typing import Any

from bench.display.numbers import megabytes
from bench.stepping import tables
from bench.studies.words import percent


def of(step: dict[str, Any]) -> dict[str, Any]:
    """One row per optimizer at the largest measured batch, and the points for all other batches.

    least, most: the smallest and largest measured batch; points: units, overhead and the ends of
    its interval, measured and from the fit, in order; None for an optimizer that differs from the
    reference only within the noise.
    """
    sizes = sorted(size * step["units_per_example"] for size in step["batches"])
    rows = []
    for name, one in step["optimizers"].items():
        if one["error"]:
            continue
        apart = name != step["reference"] and not one["difference_ms"]["within_noise"]
        points = sorted(
            [point[key] for key in ("units", "value", "low", "high")]
            for point in one["overhead"]
            if None not in (point["value"], point["low"], point["high"])
        )
        value, low, high = next(point[1:] for point in points if point[0] == sizes[-1])
        (text,) = tables.compared(step, name, [percent(value, 1, "+")])
        rows.append(
            {
                "name": name,
                "text": text,
                "interval": f"{percent(low, 1, '+')} to {percent(high, 1, '+')}" * apart,
                "state": megabytes(one["state_bytes"]["total"]),
                "temporary": megabytes(one["peak_temporary_bytes"]),
                "points": points if apart else None,
            }
        )
    return {
        "unit": step["unit"],
        "least": sizes[0],
        "most": sizes[-1],
        "rows": rows,
        "data": {
            "least": sizes[0],
            "most": sizes[-1],
            "points": [row.pop("points") for row in rows],
        },
    }
