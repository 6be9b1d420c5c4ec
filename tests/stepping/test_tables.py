"""What a step benchmark says: a sentence first, then tables that fit 80 columns."""

import json
from copy import deepcopy

import pytest

from bench.stepping import tables
from tests.helpers import fake_results

LABELS = ("hybrid", "hybrid qkv=per_head orthogonalizer.method=newton_schulz", "muon")


@pytest.fixture
def record(tmp_path):
    """A whole record, with what the terminal alone shows."""
    found = json.loads(fake_results.step(tmp_path, "gpt2-cpu", LABELS).read_text())
    ends = {"value": 1234.5, "low": 1200.0, "high": 1300.0}
    found |= {
        "fit": {"a_ms": ends, "b_ms_per_unit": ends, "largest_relative_residual": 0.012},
        "matmul_peak": {"bfloat16": {"model_shapes": None, "large_square": None}},
        "flops_missed": [],
    }
    for one in found["optimizers"].values():
        roles = ("hidden", "embedding", "position", "vector")
        one["step_ms_by_role"] = {role: {"median": 4712.3} for role in roles}
        one |= {"flops": 1.52e12, "flops_missed": [], "marginal_ms": None}
        for point in one["overhead"]:
            point["flop_share"] = 0.123
    return found


def shown(record, capsys, monkeypatch, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    tables.show(record)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [80, 120])
def test_it_opens_with_what_was_found_and_fits(record, capsys, monkeypatch, columns):
    lines = shown(record, capsys, monkeypatch, columns)
    assert lines[0].startswith("hybrid's step adds ") and max(map(len, lines)) <= columns
    text = "\n".join(lines)
    for whole in (
        "overhead",
        "512 tokens",
        "500.0 MB",
        "GEMM peak",
        "4,712.3",
        "1,000 (995–",
    ):
        assert whole in text, whole


def test_a_finding_says_how_much_at_which_batch_and_from_where_on_little(record):
    hybrid = record["optimizers"]["hybrid"]
    at = {"units": 512, "value": 0.0612, "low": 0.05, "high": 0.071, "measured": True}
    hybrid |= {"overhead": [at], "units_at": {"0.05": {"units": 6000.0, "measured": True}}}
    said = tables.finding(record, "hybrid", hybrid)
    assert said == "hybrid's step adds 6 % (5 to 7) at 512 tokens; under 5 % from 6k tokens on."
    hybrid["units_at"]["0.05"]["measured"] = False
    assert "from about 6k tokens on" in tables.finding(record, "hybrid", hybrid)
    hybrid["units_at"]["0.05"]["units"] = None
    assert tables.finding(record, "hybrid", hybrid).endswith("; over 5 % at any batch.")
    hybrid["units_at"]["0.05"]["units"] = 0.0
    assert "under 5 % at every batch" in tables.finding(record, "hybrid", hybrid)


def test_a_gain_and_no_difference_are_called_so(record):
    hybrid = deepcopy(record["optimizers"]["hybrid"])
    hybrid["overhead"] = [
        {"units": 512, "value": -0.0123, "low": -0.02, "high": -0.01, "measured": True}
    ]
    said = tables.finding(record, "hybrid", hybrid)
    assert said == "hybrid's step saves 1.2 % (1.0 to 2.0) at 512 tokens."
    hybrid["difference_ms"]["within_noise"] = True
    assert "costs no more than AdamW's" in tables.finding(record, "hybrid", hybrid)


def test_where_nothing_was_measured_it_says_so(record):
    record["optimizers"] = {"adamw": record["optimizers"]["adamw"]}
    assert tables.findings(record) == ["No optimizer could be compared with AdamW."]
