"""One colour an optimizer in every picture, and one that is seen on a dark ground."""

import itertools

import pytest

from bench.display import palette
from bench.reporting import style


def test_the_charts_of_the_page_take_their_colours_from_here():
    names = ["adamw", "hybrid qkv=fused", "hybrid qkv=per_head", "torch_muon", "keller"]
    found = style.styles(names)
    assert {name: one.color for name, one in found.items()} == palette.colors(names)


@pytest.mark.parametrize("before", [[], ["keller"], ["muon", "hybrid", "hybrid qkv=fused"]])
def test_an_optimizer_keeps_its_colour_whoever_stands_before_it(before):
    found = palette.colors([*before, "torch_muon", "adamw"])
    assert found["torch_muon"] == palette.OPTIMIZERS["torch_muon"]
    assert found["adamw"] == palette.OPTIMIZERS["adamw"]


def test_on_a_dark_ground_every_colour_stands_out():
    shades = itertools.product(palette.OPTIMIZERS.values(), range(5))
    every = [palette.shade(*one) for one in shades] + [*palette.OTHERS, palette.TEXT]
    ground = palette.luminance("#15181b")
    for color in every:
        lighter = palette.luminance(palette.on_dark(color))
        assert (lighter + 0.05) / (ground + 0.05) >= 3  # WCAG 2.2, 1.4.11
    assert palette.on_dark("#D55E00") == "#D55E00"
    text = palette.luminance(palette.on_dark(palette.TEXT))
    assert (text + 0.05) / (ground + 0.05) >= 4.5  # 1.4.3


def test_luminance_is_that_of_the_standard():
    assert palette.luminance("#FFFFFF") == pytest.approx(1)
    assert palette.luminance("#000000") == 0
    assert palette.luminance("#808080") == pytest.approx(0.2159, abs=1e-4)
