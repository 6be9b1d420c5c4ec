"""Records of a CPU and of a GPU in one folder: side by side everywhere, each with its device."""

import csv
import json
import re

import pytest

from bench.communication import tables as communication_tables
from bench.records import record
from bench.reporting import cost_charts, front, page, sections
from bench.reporting import tables as report_tables
from bench.reporting.content import gather
from bench.stepping import tables as step_tables
from bench.studies.results import Results
from bench.verdicts import communication, evidence, judging
from bench.verdicts.claims import Claim
from bench.verdicts.judging import DEPENDS
from tests.helpers import fake_results
from tests.reporting.test_report import made

GPU = "Imagined GPU"


def on_both(folder, experiment: str, conditions: list[str], worse: str) -> None:
    """An experiment's records of both devices; on the GPU an arm has a higher loss."""
    fake_results.fill(folder, experiment, conditions)
    for file in list((folder / "records" / experiment).glob("*.json")):
        one = json.loads(file.read_text())
        changes = {"test_loss": one["test_loss"] + 1} if one["arm"] == worse else {}
        one["cell"] += "-gpu"
        gpu = one["environment"] | {"gpu": GPU}
        train = one["config"]["train"] | {"device": "cuda"}
        changes |= {"environment": gpu, "config": one["config"] | {"train": train}}
        fake_results.write(folder, one | changes)


def step_on_gpu(file) -> None:
    one = json.loads(file.read_text())
    one |= {"device": "cuda", "environment": one["environment"] | {"gpu": GPU}}
    record.write_json(file.with_name(file.name.replace("cpu", "cuda")), one)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    on_both(folder, "optimizers", ["language"], "hybrid")
    on_both(folder, "cost", ["gpt2"], "hybrid")
    step_on_gpu(fake_results.step(folder, "gpt2-cpu", ("hybrid",)))
    step_on_gpu(fake_results.shared(folder, "gpt2-cpu-fsdp2-2", ("hybrid",)))
    return Results(folder)


def test_each_device_has_a_whole_comparison_and_none_leaves_another_out(both):
    cpu, gpu = both.comparisons("optimizers", ["language"])
    assert (cpu.condition, gpu.condition) == ("language on cpu", "language on cuda")
    for one in (cpu, gpu):
        assert one.missing == 0 and one.left_out == [] and len(one.arms) == len(one.study.arms)
        assert {str(run.record["config"]["train"]["device"]) for run in one.runs} == {one.device}
    assert cpu.arm("hybrid").test_loss.mean == pytest.approx(gpu.arm("hybrid").test_loss.mean - 1)


def test_with_one_device_the_condition_has_its_plain_name(tmp_path):
    fake_results.fill(tmp_path, "optimizers", ["language"])
    (one,) = Results(tmp_path).comparisons("optimizers", ["language"])
    assert one.condition == "language" and one.device is None


@pytest.mark.usefixtures("judged")
def test_a_claim_is_judged_on_each_device(both):
    measure = dict(_target_="bench.verdicts.evidence.difference", experiment="optimizers")
    measure |= dict(arm="hybrid", conditions=["language"])
    base = both.comparisons("optimizers", ["language"])[0].arm("hybrid").difference.estimate.mean
    claim = Claim("x", "x", "Notes A: x", "quality", [measure], {"below": base + 0.5})
    found = judging.judge(claim, both)
    assert found.verdict == DEPENDS
    assert "(optimizers, language on cpu)" in found.findings[0].condition
    assert "(optimizers, language on cuda)" in found.findings[1].condition
    files = [set(one.records) for one in found.findings]
    assert all(files) and not files[0] & files[1]


def test_what_is_saved_names_the_device(both):
    found = evidence.saving(both, experiment="cost", arm="muon", of="peak", conditions=["gpt2"])
    assert [one.condition for one in found] == ["gpt2 on cpu, muon", "gpt2 on cuda, muon"]


@pytest.mark.more
def test_the_markdown_has_both_and_its_pictures_are_there(both):
    assert made(both.folder) == 0
    text = (both.folder / "README.md").read_text()
    for device in ("cpu", "cuda"):
        assert f"### optimizers, language on {device}" in text
        assert f"**language on {device}**" in text
        assert f"## A step: gpt2-{device}\n" in text
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert "pictures/optimizers-language-on-cuda-loss.svg" in pictures
    assert all((both.folder / place).exists() for place in pictures)
    assert GPU in text
    columns = [row["device"] for row in csv.DictReader((both.folder / "records.csv").open())]
    assert columns.count("cpu") == columns.count("cuda") > 0


def test_the_front_has_the_time_of_a_step_on_both(both):
    rows = front.table(gather(both)).rows
    longer = [row for row in rows if "extra time per step" in row[0].text]
    assert {row[0].small for row in longer} == {GPU, f"{fake_results.ENVIRONMENT['cpu']}, a CPU"}
    assert all(row[1].text.lstrip("~").startswith(("+", "−", "none")) for row in longer)
    assert sum("optimizer memory" in row[0].text for row in rows) == 1


def test_the_page_has_both_and_calls_no_condition_absent(both):
    content = gather(both)
    shown = sections.experiment(content.comparisons["cost"], content)
    assert [one["name"] for one in shown["conditions"]] == ["gpt2 on cpu", "gpt2 on cuda"]
    assert shown["absent"] == ["vit"]
    text = page.page(content)
    assert not re.findall(r'id="[^"]* [^"]*"', text)


def test_a_step_says_what_it_was_measured_on(both):
    cpu, gpu = (both.json(f"steps/gpt2-{device}.json") for device in ("cpu", "cuda"))
    notes = [json.dumps(cost_charts.overhead(one).to_dict()) for one in (cpu, gpu)]
    assert "gpt2 on cpu, fp32" in notes[0] and f"gpt2 on {GPU}, fp32" in notes[1]
    assert "fp32 on cuda" in step_tables.times(gpu)[0]


def test_what_a_step_adds_to_a_streak_is_shown_where_it_was_measured(both):
    record = both.json("steps/gpt2-cuda.json")
    heads = [cell.text for cell in report_tables.steps(record).heads]
    assert "marginal ms" not in heads
    optimizers = {k: v | {"marginal_ms": None} for k, v in record["optimizers"].items()}
    ms = {"median": 0.254, "p10": 0.24, "p90": 0.26, "n": 5}
    optimizers["hybrid"] |= {"marginal_ms": ms}
    table = report_tables.steps(record | {"optimizers": optimizers})
    at = [cell.text for cell in table.heads].index("marginal ms")
    assert [row[at].text for row in table.rows] == ["–", "0.25"]
    assert {len(row) for row in table.rows} == {len(table.heads)}


def test_what_is_communicated_names_another_device_than_the_cpu(both):
    table = communication_tables.measured(gather(both).shared)
    assert {row[0].small for row in table.rows} == {"gpt2", "gpt2 on cuda"}
    found = communication.step_collectives(both, parallel=["fsdp2"])
    assert sum("gpt2 on cuda, fsdp2" in one.condition for one in found) == 1
