"""The laboratory's table: a sentence first, numbers whole in 80 columns."""

from types import SimpleNamespace

import pytest

from bench.laboratory import tables

PROBLEM = SimpleNamespace(shape=(4096, 8192), source="log_uniform:1000")


def case(method: str, steps: int, dtype: str, mean: float, **changes) -> dict:
    one = {
        **dict(method=method, steps=steps, dtype=dtype, form="newton_schulz", status="ok"),
        **dict(pareto=True, diverged_step=None, slope_at_zero=484.3, matmuls=15, flops=1.234e12),
        **dict(s_min=0.0123, s_max=1.2061, relative_error=0.123, recursion_difference=3e-4),
        **dict(thresholds={"0.5-1.5": 0.0012, "0.7-1.3": 0.0034}, ms={"median": 1234.5}),
        **dict(share_of_peak=0.71, mse={"mean": mean, "low": mean - 2e-5, "high": mean + 2e-5}),
    }
    return one | changes


CASES = [
    case("keller", 5, "bf16", 0.0442),
    case("polar_express", 5, "bf16", 0.0031),
    case("polar_express", 12, "bf16", 0.0001),
    case("keller", 5, "fp64", 0.0441, form="recursion", ms=None, share_of_peak=None),
    case("4_5_1", 5, "bf16", 0.0, status="diverged", diverged_step=3, mse=None),
]


@pytest.mark.parametrize("columns", [80, 120, 160])
def test_it_opens_with_what_was_found_and_fits(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    tables.show(PROBLEM, CASES)
    lines = capsys.readouterr().out.splitlines()
    first = " ".join(lines).split(" 5 cases.")[0].strip()
    assert first == (
        "4096×8192, log_uniform:1000: after 5 steps in bf16 polar_express is nearest to msign, "
        "mean (s−1)² 0.0031; keller has 0.0442; 1 diverged."
    )
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    for whole in ("polar_express *", "plain bf16", "0.0442 ±2e-05", "1,234", "at step 3"):
        assert whole in text, whole
    assert ("0.7–1.3 from" in text) == (columns == 160)


def test_where_all_diverged_it_says_so():
    assert tables.finding([CASES[-1]]) == "no method reached msign."
