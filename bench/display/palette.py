"""The colour of each optimizer in all pictures, and lighter versions for dark backgrounds."""

from collections import Counter
from collections.abc import Iterable

GREY, TEXT, WARNING = "#8a8a8a", "#333333", "#b00020"
# Luminance below which a colour is not visible, or not readable, on a dark background.
SEEN, READ = 0.13, 0.5

# Distinguishable with any colour vision: Okabe and Ito, https://jfly.uni-koeln.de/color/
OPTIMIZERS = {
    "adamw": "#0072B2",
    "hybrid": "#D55E00",
    "muon": "#009E73",
    "torch_muon": "#CC79A7",
    "adam": "#56B4E9",
}
# The same for nine more: Tol's muted scheme, https://sronpersonalpages.nl/~pault/
OTHERS = (
    *("#332288", "#CC6677", "#117733", "#DDAA33", "#88CCEE", "#882255", "#44AA99"),
    *("#999933", "#AA4499"),
)


def colors(names: Iterable[str], again: Iterable[str] = ()) -> dict[str, str]:
    """One colour per name.

    An optimizer has the same colour in every picture, and its variants ("hybrid qkv=per_head") have
    shades of it; other names get colours by their position. A/A arms (again) are grey.
    """
    found: dict[str, str] = {}
    variants: Counter[str] = Counter()
    for number, name in enumerate(names):
        optimizer = name.split(" ")[0]
        if name in again:
            found[name] = GREY
        elif optimizer in OPTIMIZERS:
            found[name] = shade(OPTIMIZERS[optimizer], variants[optimizer])
            variants[optimizer] += 1
        else:
            found[name] = OTHERS[number % len(OTHERS)]
    return found


def shade(color: str, number: int) -> str:
    """Shade 0 is the colour itself; then one lighter, one darker, and so on."""
    toward, part = (255 if number % 2 else 0), (0, 0.4, 0.4, 0.55, 0.65)[min(number, 4)]
    return mixed(color, toward, part)


def mixed(color: str, toward: int, part: float) -> str:
    """A colour mixed with a share of grey (0: black, 255: white)."""
    levels = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(c + part * (toward - c)):02X}" for c in levels)


def luminance(color: str) -> float:
    """Relative luminance, 0 to 1: WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    levels = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def on_dark(color: str) -> str:
    """The colour, lightened if needed so that lines, or text, are visible on a dark background."""
    least = READ if color in (TEXT, WARNING) else SEEN
    shades = (mixed(color, 255, part / 20) for part in range(21))
    return next(one for one in shades if luminance(one) >= least)
