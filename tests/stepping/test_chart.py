"""The picture of a step benchmark: an optimizer's own colour, and no far extrapolation."""

import json

from bench.display import palette
from bench.stepping import chart
from tests.helpers import fake_results


def test_an_optimizer_has_the_colour_it_has_in_all_pictures(tmp_path):
    file = fake_results.step(tmp_path, "gpt2-cpu", ("torch_muon", "hybrid"))
    drawn = chart.draw(json.loads(file.read_text()))
    colors = {line.get_color() for line in drawn.axes[0].get_lines()}
    assert {palette.OPTIMIZERS[name] for name in ("torch_muon", "hybrid")} <= colors
    assert palette.OPTIMIZERS["adamw"] not in colors  # the reference is not drawn


def test_it_ends_at_ten_times_the_largest_measured_batch(tmp_path):
    file = fake_results.step(tmp_path, "gpt2-cpu", ("torch_muon", "hybrid"))
    one = json.loads(file.read_text())
    drawn = chart.draw(one)
    ends = [
        max(line.get_xdata()) for line in drawn.axes[0].get_lines() if len(line.get_xdata()) > 2
    ]
    assert ends and max(ends) <= 10 * 512
    low, high = drawn.axes[0].get_xlim()
    assert len([at for at in drawn.axes[0].get_xticks() if low <= at <= high]) >= 3
