"""Records of the laboratory: complete, honest, and on the front where nothing beats them."""

import json
import math

import pytest

from bench.laboratory import cases, cost, recursion, spectra
from optimizers.coefficients import per_step
from tests.helpers.laboratory import settle

CONTRACT = {
    *("method", "coefficients", "shape", "steps", "dtype", "source", "samples", "status", "mse"),
    *("s_min", "s_max", "quantiles", "slope_at_zero", "matmuls", "flops", "ms"),
}
TINY = ["shapes=[16x16,8x32]", "steps=[3,5]", "dtypes=[fp32,bf16]", "samples=4", "pictures=false"]


@pytest.fixture(autouse=True)
def short_timings(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.001)
    monkeypatch.setattr(cost, "gemm_peak", lambda dtype, device: 1e11)


@pytest.fixture
def laboratory_run(tmp_path):
    def start(*overrides):
        said = []
        settings = settle(*TINY, f"results_dir={tmp_path}", *overrides)
        return cases.run(settings, said.append), said

    return start


def test_every_case_leaves_a_whole_record(laboratory_run, tmp_path):
    records, _ = laboratory_run("methods=[keller,cubic5]", "forms=[newton_schulz,gram]")
    assert len(records) == 2 * 2 * 2 * (1 + 2 * 2)
    files = {f.stem: json.loads(f.read_text()) for f in (tmp_path / "ortho").glob("*.json")}
    assert set(files) == {one["case"] for one in records}
    for one in files.values():
        assert one.keys() >= CONTRACT and one["status"] == "ok"
        assert one["mse"]["low"] <= one["mse"]["mean"] <= one["mse"]["high"]
        assert 0 <= one["s_min"] <= one["quantiles"]["0.5"] <= one["s_max"] < 2
        assert sum(one["histogram"]["counts"]) == 4 * min(one["shape"])
        assert len(one["coefficients"]) == one["steps"]
        if one["form"] == "recursion":
            assert one["ms"] is None and one["dtype"] == "fp64"
        else:
            assert one["ms"]["median"] > 0 and one["share_of_peak"] > 0
            assert one["recursion_difference"] < {"fp32": 1e-4, "bf16": 0.2}[one["dtype"]]


def test_a_recursion_record_is_the_recursion_on_the_spectra(laboratory_run):
    records, _ = laboratory_run("methods=su", "steps=3", "shapes=8x32", "seed=5")
    (one,) = (r for r in records if r["form"] == "recursion")
    triples = per_step("su", 3)
    expected = recursion.mse(spectra.gaussian(8, 32, 4, seed=5), triples)
    assert one["mse"] == pytest.approx(expected._asdict())
    assert one["relative_error"] == pytest.approx(math.sqrt(one["mse"]["mean"]), rel=0.05)
    assert one["slope_at_zero"] == pytest.approx(3.3748**3)
    assert one["thresholds"]["0.5-1.5"] == recursion.threshold(triples, 0.5, 1.5)


def test_divergence_is_a_result_with_its_step(laboratory_run):
    records, _ = laboratory_run("methods=[[4,5,1]]", "steps=8", "dtypes=fp16")
    assert {r["status"] for r in records} == {"diverged"}
    assert all(1 <= r["diverged_step"] <= 8 and r["mse"] is None for r in records)
    json.dumps(records, allow_nan=False)


def test_auto_is_the_form_it_stands_for_and_no_case_comes_twice(laboratory_run):
    records, _ = laboratory_run(
        "methods=keller", "steps=5", "forms=[auto,newton_schulz,gram,exact]"
    )
    names = [r["case"] for r in records]
    assert len(names) == len(set(names)) == 2 * (1 + 2 * 3)
    assert {r["form"] for r in records} == {"recursion", "newton_schulz", "gram", "exact"}
    exact = [r for r in records if r["form"] == "exact"]
    assert all(r["flops"] is None and r["steps"] is None for r in exact)
    assert all(r["mse"]["mean"] < 1e-4 for r in exact if r["dtype"] == "fp32")
    assert not laboratory_run("forms=exact", "shapes=2000x2000")[0]


def test_the_front_is_what_nothing_beats_at_its_cost(laboratory_run):
    records, _ = laboratory_run("methods=[keller,su,you5,cubic5,taylor]", "steps=[2,3,5]")
    for shape in ((16, 16), (8, 32)):
        for dtype in ("fp32", "bf16"):
            group = [
                r
                for r in records
                if r["shape"] == list(shape) and r["dtype"] == dtype and r["form"] != "recursion"
            ]
            for one in group:
                beaten = any(
                    other["flops"] <= one["flops"] and other["mse"]["mean"] < one["mse"]["mean"]
                    for other in group
                )
                assert one["pareto"] != beaten


def test_one_sample_has_no_interval(laboratory_run):
    records, _ = laboratory_run("methods=keller", "steps=5", "samples=1")
    json.dumps(cases.record.plain(records), allow_nan=False)
    assert all(math.isnan(r["mse"]["low"]) and r["mse"]["mean"] > 0 for r in records)


def test_a_second_run_replaces_its_records_and_says_so(laboratory_run, tmp_path):
    _, first = laboratory_run("methods=keller", "steps=5")
    records, second = laboratory_run("methods=keller", "steps=5", "seed=1")
    assert not any("replaced" in line for line in first)
    assert sum("replaced" in line for line in second) == 2
    file = tmp_path / "ortho" / f"{records[0]['case']}.json"
    assert json.loads(file.read_text())["seed"] == 1


def test_an_interrupt_keeps_what_is_finished(laboratory_run, tmp_path, monkeypatch):
    done = []
    measured = cases.measured

    def third_is_interrupted(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(measured(*arguments))
        return done[-1]

    monkeypatch.setattr(cases, "measured", third_is_interrupted)
    with pytest.raises(KeyboardInterrupt):
        laboratory_run("methods=keller")
    files = {f.stem for f in (tmp_path / "ortho").glob("*.json")}
    assert files == {one["case"] for one in done}


def test_pictures_are_drawn_and_the_same_each_time(laboratory_run, tmp_path):
    few = ["methods=[keller,[4,5,1]]", "shapes=8x32", "sources=low_rank", "pictures=true"]
    laboratory_run(*few)
    pictures = {f.name: f.read_bytes() for f in (tmp_path / "ortho").glob("*.svg")}
    assert "curves.svg" in pictures and "pareto-8x32-low_rank_0.1.svg" in pictures
    assert "spectra-8x32-low_rank_0.1.svg" in pictures
    laboratory_run(*few)
    again = (tmp_path / "ortho" / "curves.svg").read_bytes()
    assert again == pictures["curves.svg"] and b"<svg" in again


def test_on_a_gpu_the_form_and_its_flops_are_that_devices(monkeypatch):
    """Where no kernel takes symmetric products, each is a whole one; a CPU computes half of them
    once, in fp32."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: (9, 0))
    case = ("gram", (768, 3072), per_step("keller", 5), "fp32")
    here, there = cost.count(*case), cost.count(*case, "cuda")
    assert there.matmuls == here.matmuls and there.flops > 1.1 * here.flops
    assert cost.resolved("auto", *case[1:], "cuda") == "gram"


def test_records_of_another_device_lie_apart(laboratory_run, tmp_path, monkeypatch):
    """meta stands for it."""
    asked, measured = [], cases.measured

    def on_cpu(settings, *rest):
        asked.append(settings.device)
        settings.device = "cpu"
        try:
            return measured(settings, *rest)
        finally:
            settings.device = "meta"

    monkeypatch.setattr(cases, "measured", on_cpu)
    monkeypatch.setattr("bench.laboratory.settings.device", lambda setting, name: "meta")
    laboratory_run("methods=keller", "steps=3", "shapes=8x32")
    assert set(asked) == {"meta"}
    assert not list((tmp_path / "ortho").glob("*.json"))
    assert list((tmp_path / "ortho" / "meta").glob("keller-*.json"))
