"""What a step communicates: the plain model against what is counted, its algebra, the command."""

import json
import math
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from bench.communication import extrapolation, tables
from bench.communication import model as communication
from bench.communication.model import Travelling
from bench.measuring import link
from bench.reporting import content as report_content
from bench.reporting import markdown, pictures
from bench.reporting import page as report_page
from bench.settings.errors import UserError
from bench.stepping import communication as stepping
from bench.studies.results import Results
from bench.verdicts import claims, judging
from tests.helpers import commands, fake_results
from tests.helpers.commands import ROOT
from tests.helpers.steps import TEXT, settle

HYBRIDS = ["hybrid", "hybrid parallel.muon=gather", "hybrid parallel.muon=distribute qkv=per_head"]
# Processes, strategy, entries, a width that the processes divide or not, precision.
CASES = {
    "ddp": (2, "ddp", ["hybrid", "hybrid parallel.muon=replicate", "muon"], 32, "bf16"),
    "tp": (2, "tp", [*HYBRIDS, "hybrid parallel.muon=blockwise"], 32, "fp32"),
    "tp bf16": (2, "tp", HYBRIDS, 32, "bf16"),
    "four": (4, "fsdp2", [*HYBRIDS, "muon"], 32, "fp32"),
    "uneven": (4, "fsdp2", [*HYBRIDS, "muon"], 36, "fp32"),
    "mesh": (4, "fsdp2_tp", [*HYBRIDS, "muon"], 32, "bf16"),
}


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [sys.executable, *launcher, "bench/step.py", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip


def benchmark(
    folder: Path, processes: int, strategy: str, entries: list[str], width: int, precision: str
) -> dict:
    done = torchrun(
        processes, *TEXT, f"train.precision={precision}", f"orthogonalizer.dtype={precision}",
        f"model.width={width}", f"parallel={strategy}", "batches=[4,8,12]",
        f"optimizers={json.dumps(entries)}", f"results_dir={folder}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    name = f"gpt2_nano-cpu-{strategy}-{processes}"
    assert {file.name for file in (folder / "steps").iterdir()} == {f"{name}.json", f"{name}.svg"}
    assert done.stderr.count("finished; record: ") == 1
    return json.loads((folder / "steps" / f"{name}.json").read_text())


def check(record: dict, processes: int) -> None:
    """Bytes and calls of every kind and process are exactly what the model says."""
    assert record["world_size"] == processes == math.prod(record["mesh"].values())
    for label, one in record["optimizers"].items():
        assert one["error"] is None, label
        for part in ("forward_backward", "step"):
            found = one["communication"][part]
            counted, predicted = found["collectives_by_rank"], found["predicted_by_rank"]
            assert len(counted) == processes
            assert counted == predicted, (label, part)
            for way in ("sent", "received"):
                assert all(kind[f"{way}_bytes"] > 0 for rank in counted for kind in rank.values())
    assert not any(step(record, "adamw")["collectives_by_rank"])


def step(record: dict, label: str) -> dict:
    return record["optimizers"][label]["communication"]["step"]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> dict:
    """fsdp2 over two processes, measured once for all workers of pytest."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    entries = [*HYBRIDS[:2], "hybrid parallel.muon=blockwise"]
    with FileLock(base / "two.lock"):
        kept = base / "two.json"
        if not kept.exists():
            record = benchmark(tmp_path_factory.mktemp("two"), 2, "fsdp2", entries, 32, "fp32")
            kept.write_text(json.dumps(record))
        return json.loads(kept.read_text())


# counted, and predicted ---------------------------------------------------------------------------


@pytest.mark.long
def test_of_two_processes_calls_and_bytes_are_predicted_exactly(two):
    check(two, 2)
    assert two["parallel"] == "fsdp2" and two["mesh"] == {"data": 2}
    kinds = {label: set(step(two, label)["collectives_by_rank"][0]) for label in two["optimizers"]}
    assert list(kinds.values()) == [set(), {"all_to_all"}, {"all_gather"}, set()]
    numbers = 2 * (32 * 3 * 32 + 32 * 32 + 2 * 32 * 128)  # of the hidden matrices of two layers
    gathered = step(two, "hybrid parallel.muon=gather")["collectives_by_rank"][0]["all_gather"]
    assert gathered == {
        "calls": 4, "sent_bytes": 4 * numbers // 2, "received_bytes": 4 * numbers // 2,
    }  # fmt: skip
    both = step(two, "hybrid")["collectives_by_rank"]
    assert sum(rank["all_to_all"]["sent_bytes"] for rank in both) == 4 * numbers
    once, shared = (step(two, HYBRIDS[n])["flops_by_rank"] for n in (1, 0))
    assert once[0] == once[1] == sum(shared)


@pytest.mark.long
def test_times_are_of_all_processes_and_stand_beside_predictions(two):
    assert set(two["links"]) == set(link.CALLS)
    for label, one in two["optimizers"].items():
        found = step(two, label)
        moves = any(found["collectives_by_rank"])
        assert set(found["ms"]) == {"communication", "orthogonalization", "bare_communication"}
        for part, ms in found["ms"].items():
            least, most = ms["least"]["median"], ms["most"]["median"]
            assert least <= ms["leading"]["median"] <= most
            assert most < one["step_ms"]["p90"] or part == "bare_communication"  # of another step
            assert (least > 0) == (label != "adamw" and (moves or part == "orthogonalization"))
        assert (found["predicted_ms"]["communication"] > 0) == moves
        assert (found["hidden_share"] is not None) == moves


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_the_other_strategies_are_predicted_exactly(case, tmp_path):
    processes = CASES[case][0]
    record = benchmark(tmp_path, *CASES[case])
    check(record, processes)


@pytest.mark.long
def test_one_process_communicates_nothing(tmp_path):
    done = commands.command(
        *TEXT, "parallel=fsdp2", "optimizers=[hybrid]", f"results_dir={tmp_path}", entry="step"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "steps" / "gpt2_nano-cpu-fsdp2-1.json").read_text())
    check(record, 1)
    for one in record["optimizers"].values():
        assert not any(one["communication"]["step"]["collectives_by_rank"])
        assert one["communication"]["step"]["ms"]["communication"]["most"]["median"] == 0


# the model's algebra ------------------------------------------------------------------------------

COUNTS = st.integers(2, 9)


@st.composite
def shards(draw, replicated):
    """Views of a few shapes over some processes, cut as torch.chunk cuts, or whole on each."""
    count, whole = draw(COUNTS), draw(replicated)
    shapes = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1))
    views = []
    for rows, columns in shapes:
        each = -(-rows // count)
        kept = [max(0, min(rows - r * each, each)) * columns for r in range(count)]
        parts = [rows * columns] * count if whole else kept
        views.append(
            Travelling(((rows, columns),), tuple(parts), rows * columns, rows**2 * columns)
        )
    return views, count


@given(shards(st.booleans()), st.sampled_from(["distribute", "gather"]), st.sampled_from([2, 4]))
def test_what_is_sent_is_received(case, sharding, itemsize):
    views, count = case
    owners = communication.share_out(views, count)
    forecast = communication.muon_step(views, count, sharding, itemsize, owners)
    for moved in forecast.values():
        assert sum(moved.sent) == pytest.approx(sum(moved.received))
        assert moved.calls >= 1 and min(*moved.sent, *moved.received) >= 0


@given(shards(st.just(False)))
def test_all_that_others_hold_travels_to_the_owner_and_back(case):
    views, count = case
    owners = communication.share_out(views, count)
    found = communication.muon_step(views, count, "distribute", 4, owners)
    away = sum(v.elements - v.parts[o] for v, o in zip(views, owners, strict=True))
    assert sum(found["all_to_all"].sent) == pytest.approx(2 * 4 * away)


@given(shards(st.booleans()))
def test_every_view_is_in_one_batch_of_its_shape(case):
    views, count = case
    owners = communication.share_out(views, count)
    batches = list(communication.batches(views, count, owners))
    assert sorted(unit for batch in batches for unit in batch) == list(range(len(views)))
    assert all(len({views[unit].shapes for unit in batch}) == 1 for batch in batches)


@given(shards(st.booleans()), st.booleans())
def test_batches_are_three_where_one_owner_has_so_many_views_of_one_shape(case, gathered):
    """So that one can arrive and one leave while another is orthogonalized."""
    views, count = case
    views = [view for view in views if view == views[0]]
    owners = None if gathered else communication.share_out(views, count)
    most = len(views) if owners is None else max(map(owners.count, owners))
    assert len(list(communication.batches(views, count, owners))) >= min(3, most)


@given(st.lists(st.integers(1, 10**8), min_size=1), COUNTS)
def test_ddp_moves_what_a_reduce_scatter_and_an_all_gather_do(sizes, count):
    moved = communication.data_parallel(sizes, count)["all_reduce"]
    sharded = communication.fully_sharded([], sum(sizes) // count, count)
    both = sharded["all_gather"].sent[0] + sharded["reduce_scatter"].sent[0]
    assert moved.sent[0] == pytest.approx(both, abs=2 * count)
    assert 1 <= moved.calls <= len(sizes)


@given(st.floats(1e-6, 1e-2), st.floats(1e6, 1e11))
def test_latency_and_bandwidth_are_found_again(latency, bandwidth):
    seconds = [latency + size / bandwidth for size in link.SIZES]
    found, per_byte = link.fit(link.SIZES, seconds)
    again = [found + size * per_byte for size in link.SIZES]
    assert again == pytest.approx(seconds, rel=1e-6)


# extrapolated -------------------------------------------------------------------------------------


def test_the_models_have_the_sizes_in_their_names():
    given = extrapolation.assumptions()
    for name, model in given["models"].items():
        numbers = extrapolation.parameters(model, extrapolation.matrices(model))
        assert numbers == pytest.approx(1e9 * float(name.removesuffix("B")), rel=0.04)


def test_more_processes_share_work_and_pay_for_it():
    given = extrapolation.assumptions() | {"gpus": [8, 64], "tokens": [2**20, 2**22]}
    given["models"] = {"1.2B": given["models"]["1.2B"]}
    points = extrapolation.points(given)
    assert len(points) == 2 * 2 * 2
    by = {(p.gpus, p.tokens, p.strategy): p for p in points}
    few, many = (by[gpus, 2**20, "distribute"] for gpus in (8, 64))
    assert few.orthogonalization_ms == pytest.approx(8 * many.orthogonalization_ms, rel=0.1)
    gathered = by[8, 2**20, "gather"]
    assert gathered.orthogonalization_ms == pytest.approx(8 * few.orthogonalization_ms, rel=0.01)
    assert gathered.communication_ms > few.communication_ms
    for part in ("communication", "orthogonalization"):
        assert few.share(part) == pytest.approx(4 * by[8, 2**22, "distribute"].share(part))


def test_a_level_is_reached_for_good():
    def point(gpus: int, ms: float) -> extrapolation.Point:
        return extrapolation.Point("m", gpus, 1, "distribute", 100.0, ms, 0.0)

    points = [point(8, 2.0), point(16, 0.5), point(32, 1.0), point(64, 3.0)]
    reached = partial(extrapolation.reached, points, "communication")
    assert [reached(level) for level in (0.001, 0.01, 0.03, 0.05)] == [8, 32, 64, None]


# claims and report --------------------------------------------------------------------------------


def write(folder: Path, strategy: str, **steps: tuple[str | None, dict[str, tuple[int, int]]]):
    """A record of two processes, whole; by optimizer its sharding and by kind calls and bytes."""
    name = f"gpt2_nano-cpu-{strategy}-2"
    file = fake_results.step(folder, name, ())
    record = json.loads(file.read_text())
    measured = record["optimizers"].pop("adamw")
    for label, (sharding, kinds) in steps.items():
        moved = {kind: {"calls": n, "sent_bytes": size} for kind, (n, size) in kinds.items()}
        traffic = {"collectives_by_rank": 2 * [moved], "predicted_by_rank": 2 * [moved]}
        communication = {
            "sharding": sharding,
            "forward_backward": traffic | {"units": 256},
            "step": traffic | {"ms": {}, "predicted_ms": {}},
        }
        record["optimizers"][label] = measured | {"communication": communication}
    record |= {"parallel": strategy, "world_size": 2, "model": "gpt2_nano"}
    file.write_text(json.dumps(record))


@pytest.fixture
def results(tmp_path) -> Results:
    steps = {
        "adamw": (None, {}),
        "torch_muon": (None, {"all_gather": (9, 900)}),  # element-wise it is not
        "hybrid": ("gather", {"all_gather": (4, 400)}),
        "hybrid parallel.muon=distribute": ("distribute", {"all_to_all": (8, 600)}),
        "hybrid qkv=per_head": ("gather", {"all_gather": (3, 300)}),
        "hybrid parallel.muon=blockwise": ("blockwise", {}),
    }
    write(tmp_path, "tp", **steps)
    write(tmp_path, "ddp", hybrid=("replicate", {}))
    return Results(tmp_path)


def test_claims_are_judged_by_what_was_counted(results):
    claim = {one.name: judging.judge(one, results) for one in claims.load()}
    (adamw,) = [f for f in claim["adam_shards_freely"].findings if not f.missing]
    assert adamw.value == adamw.high == 0 and adamw.condition.endswith(": adamw")
    muon = claim["muon_needs_communication"]
    assert muon.verdict == judging.CONFIRMED
    assert [(f.low, f.high, f.n) for f in muon.findings] == [(300, 600, 3)]
    assert claim["blockwise_needs_no_communication"].verdict == judging.CONFIRMED
    heads = claim["per_head_needs_no_communication"]
    assert heads.verdict == judging.CONFIRMED and heads.findings[0].value == 0.25
    both = claim["muon_needs_gather_and_scatter"]
    assert both.verdict == judging.DEPENDS
    assert {f.holds: f.condition.count("8 all_to_all") for f in both.findings} == {
        True: 1,
        False: 0,
    }
    assert any("replicate: no collective" in f.condition for f in both.findings)


def test_an_extrapolation_decides_nothing(results):
    for one in claims.load():
        if one.measure[0]["_target_"].endswith("at_scale"):
            verdict = judging.judge(one, results)
            assert verdict.verdict == judging.OPEN and "extrapolated" in verdict.condition


def test_the_hidden_share_is_of_what_is_waited_for_where_nothing_is_hidden():
    def ms(least: float) -> dict:
        return {"least": {"median": least, "p10": least, "p90": least}}

    waited = {"communication": ms(1.0), "bare_communication": ms(4.0), "orthogonalization": None}
    assert stepping.hidden_share(waited) == 0.75
    assert stepping.hidden_share(waited | {"communication": ms(5.0)}) == -0.25
    for nothing in ({"bare_communication": ms(0.0)}, {"bare_communication": None}):
        assert stepping.hidden_share(waited | nothing) is None
    step = {"ms": waited, "hidden_share": 0.75}
    step["predicted_ms"] = {"communication": 2.0, "orthogonalization": None}
    cells = tables.times(step)
    assert (cells[0].text, cells[0].small) == ("1", "1 to 1; 75% hidden")
    assert cells[1].small == "measured / predicted 2"  # of what nothing hides


@pytest.mark.long
@pytest.mark.parametrize("predicted", [None, 2.0])
def test_somebody_elses_muon_whose_parts_are_not_told_apart_has_a_dash(predicted):
    ms = {"least": {"median": 3.0, "p10": 2.0, "p90": 4.0}}
    step = {
        "ms": {"communication": ms, "orthogonalization": None},
        "predicted_ms": {"communication": 1.5, "orthogonalization": predicted},
    }
    cells = tables.times(step)
    assert [cell.text for cell in cells] == ["3", "1.5", "–", "–"]
    assert cells[1].small == "measured / predicted 2"


@pytest.mark.more
def test_the_report_shows_it_and_marks_what_is_extrapolated(two, tmp_path):
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / f"{two['name']}.json").write_text(json.dumps(two))
    content = report_content.gather(Results(tmp_path))
    assert not content.steps and list(content.shared) == [two["name"]]
    picture = markdown.picture(markdown.EXTRAPOLATED)
    assert pictures.every(content).keys() == {picture}
    text = markdown.results_page(content, {picture})
    _, measured, scale = re.split(r"## Communication|### Communication at scale", text)
    assert "4 all-gather" in measured and "8 all-to-all" in measured and "~" not in measured
    assert scale.startswith(", extrapolated") and "EXTRAPOLATED" in scale and picture in scale
    page = report_page.page(content)
    assert page.count("EXTRAPOLATED, nothing of it measured") == 1
    content.shared.clear()
    assert "EXTRAPOLATED" not in report_page.page(content)


# settings -----------------------------------------------------------------------------------------


def test_an_entry_may_say_what_becomes_of_the_matrices(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    found = settle("parallel=fsdp2", 'optimizers=[hybrid,"hybrid parallel.muon=gather"]')
    assert [arm.parallel["muon"] for arm in found.arms.values()] == [
        "distribute", "distribute", "gather",
    ]  # fmt: skip
    assert found.name == f"gpt2_nano-{found.arms['adamw'].train.device}-fsdp2-3"
    assert all(batch % 3 == 0 for batch in found.batches)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["parallel=fsdp2", "batches=[3,4,6]"], ["batches=[3, 4, 6]", "over 3 processes"]),
        (["parallel=fsdp2_tp"], ["parallel.tensor=2", "3 processes"]),
        (["parallel=ddp", "parallel.muon=gather"], ["parallel.muon=gather", "replicate"]),
        (['optimizers=["hybrid parallel.muon=gather"]'], ["parallel.muon"]),
        (
            ["parallel=tp", 'optimizers=["hybrid parallel.timeout=3"]'],
            ["parallel.timeout", "parallel.muon"],
        ),
        (
            ["parallel=tp", 'optimizers=["hybrid parallel.muon=replicate"]'],
            ["parallel.muon=replicate", "blockwise"],
        ),
    ],
)
def test_a_mistake_is_one_line(overrides, words, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError) as caught:
        settle(*overrides)
    assert all(word in str(caught.value) for word in words), caught.value
    assert len(str(caught.value).splitlines()) == 1
