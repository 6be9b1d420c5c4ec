"""The look of all pictures, and how they are saved."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt


def style() -> None:
    """Set matplotlib's defaults: plain axes, light grid, text as text."""
    plt.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "font.size": 9,
            "axes.titlesize": 10,
            "legend.frameon": False,
            "svg.hashsalt": "muonbench",  # the same picture gives the same bytes
        }
    )


def save(figure, path) -> None:
    """Write the whole file or nothing, without a date, and close the figure."""
    temporary = path.with_name(f".{path.name}")
    try:
        figure.savefig(temporary, format=path.suffix[1:], metadata={"Date": None})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        plt.close(figure)
