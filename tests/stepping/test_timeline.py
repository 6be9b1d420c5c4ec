"""Gaps and hidden work on a timeline: laws of their sums, and the command that measures them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.settings.errors import UserError
from bench.stepping import tables, timeline, timeline_chart
from bench.stepping.timeline import Work, gaps, hidden_share, histogram, union
from bench.studies.results import Results
from bench.verdicts import cost
from tests.helpers import fake_results
from tests.helpers.commands import command
from tests.helpers.steps import TEXT, settle

TIMES = st.integers(0, 1000)


@st.composite
def works(draw):
    pairs = draw(st.lists(st.tuples(TIMES, TIMES, st.integers(0, 2)), min_size=1, max_size=20))
    return [Work(min(a, b), max(a, b) + 1, lane) for a, b, lane in pairs]


@given(works())
def test_what_is_busy_and_the_gaps_fill_the_span(some):
    busy = sum(stop - start for start, stop in union(some))
    span = max(w.stop for w in some) - min(w.start for w in some)
    assert busy + sum(gaps(some)) == span
    moments = range(1001)
    assert busy == sum(any(w.start <= t < w.stop for w in some) for t in range(1002))
    assert all(gap > 0 for gap in gaps(some)) and moments


@given(works())
def test_the_histogram_holds_every_gap_once(some):
    found = histogram([gap / 100 for gap in gaps(some)], traces=1)
    assert sum(one["count"] for one in found) == len(gaps(some))
    assert sum(one["ms"] for one in found) == pytest.approx(sum(gaps(some)) / 100)
    assert [one["up_to_us"] for one in found] == [*timeline.EDGES, None]


def test_the_summary_of_a_timeline():
    some = [Work(0, 4, 0), Work(3, 5, 1), Work(5.02, 7, 0), Work(9, 10, 0)]
    found = timeline.summary([some, some])
    assert found["span_ms"]["median"] == 10 and found["span_ms"]["n"] == 2
    assert found["idle_share"]["median"] == pytest.approx(2.02 / 10)
    lengths = {one["up_to_us"]: (one["count"], round(one["ms"], 3)) for one in found["gaps"]}
    assert lengths == {10: (0, 0), 100: (1, 0.02), 1000: (0, 0), None: (1, 2)}


def test_what_the_profiler_did_not_see_loses_no_record(tmp_path):
    unseen = timeline.summary([[Work(0, 4, 0)], []])
    assert "saw nothing" in unseen["error"]
    file = fake_results.step(tmp_path, "gpt2-cuda", ("hybrid",))
    batches = [{"units": 256, "launched": unseen, "graph": None}]
    whole = json.loads(file.read_text()) | {"timeline": {"batches": batches, "hidden_share": {}}}
    file.write_text(json.dumps(whole))
    assert Results(tmp_path).json("steps/gpt2-cuda.json") == whole
    _, shown, notes = tables.gaps(whole)
    assert shown.row_count == 0 and "saw nothing" in notes[-1]
    assert timeline_chart.write(whole, tmp_path / "gaps.svg").exists()
    (found,) = cost.idle_gaps(Results(tmp_path), step="gpt2", arm="hybrid", needs="a GPU")
    assert found.missing == "a GPU"


@pytest.mark.parametrize(
    ("beside", "share"), [([(2, 4)], 1.0), ([(8, 12)], 0.5), ([(11, 12)], 0.0), ([], 0.0)]
)
def test_what_lies_before_the_end_of_the_main_stream_is_hidden(beside, share):
    main = [Work(0, 4, 7), Work(5, 10, 7)]
    assert hidden_share([*main, *(Work(*pair, 13) for pair in beside)]) == share


@pytest.mark.more
def test_a_timeline_is_measured_shown_and_drawn(tmp_path):
    optimizers = 'optimizers=[hybrid,"hybrid optimizer.overlap=backward"]'
    asked = [*TEXT, "timeline=true", optimizers, "train.precision=fp32", f"results_dir={tmp_path}"]
    done = command(*asked, entry="step")
    assert done.returncode == 0, done.stderr
    assert "the device in forward + backward" in done.stdout
    record = json.loads((tmp_path / "steps" / "gpt2_nano-cpu.json").read_text())
    assert [batch["units"] for batch in record["timeline"]["batches"]] == [128, 256, 512]
    for batch in record["timeline"]["batches"]:
        assert 0 <= batch["launched"]["idle_share"]["median"] < 1 and batch["graph"] is None
    for label in ("hybrid", "hybrid optimizer.overlap=backward"):
        assert record["optimizers"][label]["marginal_ms"]["n"] == 3
    assert (tmp_path / "steps" / "gpt2_nano-cpu-timeline.svg").read_text().startswith("<?xml")


def test_a_timeline_of_many_processes_is_refused():
    with pytest.raises(UserError, match="timeline=true: needs parallel=none, not ddp"):
        settle("timeline=true", "parallel=ddp")


# claims -------------------------------------------------------------------------------------------

MS = {"median": 2.0, "p10": 1.0, "p90": 4.0, "n": 5}
CLAIMS = {
    cost.near_peak: ("H100", 0.6, 0.6, 0.6),
    cost.idle_gaps: ("8,192 tokens a step, launched, H100", 1.0, 0.2, 1.5),
    cost.hidden: ("hybrid, H100", 0.5, -1.0, 0.875),
}


def benchmark(folder, device):
    overlapped = "hybrid optimizer.overlap=backward"
    file = fake_results.step(folder, f"gpt2-{device}", ("hybrid", overlapped))
    record = json.loads(file.read_text())
    half = {key: value / 2 if key != "n" else value for key, value in MS.items()}
    shares = {"median": 0.2, "p10": 0.04, "p90": 0.3, "n": 5}
    launched = {"span_ms": MS | {"median": 10.0}, "idle_share": shares}
    record["environment"]["gpu"] = "H100" if device == "cuda" else None
    record["timeline"] = {"batches": [{"units": 8192, "launched": launched, "graph": None}]}
    arms = record["optimizers"]
    arms["hybrid"] |= {"marginal_ms": MS, "orthogonalization_gemm_share": 0.6}
    arms[overlapped]["marginal_ms"] = half
    file.write_text(json.dumps(record))


@pytest.mark.parametrize("evidence", CLAIMS, ids=lambda evidence: evidence.__name__)
def test_claims_on_accelerators_are_decided_by_none_but_theirs(tmp_path, evidence):
    benchmark(tmp_path, "cpu")
    (found,) = evidence(Results(tmp_path), step="gpt2", arm="hybrid", needs="a GPU")
    assert found.value is None and found.missing == "a GPU"
    benchmark(tmp_path, "cuda")
    (found,) = evidence(Results(tmp_path), step="gpt2", arm="hybrid", needs="a GPU")
    where, value, low, high = CLAIMS[evidence]
    assert where in found.condition and found.records == ["steps/gpt2-cuda.json"]
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high))


@pytest.mark.parametrize("name", ["gpt2-cuda-gaps", "gpt2-cuda-gaps-h100", "gpt2-cuda-h100"])
def test_a_timeline_may_have_a_record_to_itself_and_a_second_gpu_too(tmp_path, name):
    """As scripts/gpu.sh leaves it, and scripts/gpu_unpack.py names it beside another GPU's."""
    benchmark(tmp_path, "cuda")
    (tmp_path / "steps" / "gpt2-cuda.json").rename(tmp_path / "steps" / f"{name}.json")
    (found,) = cost.idle_gaps(Results(tmp_path), step="gpt2", arm="hybrid", needs="a GPU")
    assert found.records == [f"steps/{name}.json"] and found.missing is None
