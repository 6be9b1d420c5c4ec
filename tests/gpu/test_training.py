"""Training, resuming, measuring and sharing on each device."""

import json
import math

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from bench.laboratory import cases, cost
from bench.measuring import flops, meter
from bench.processes import parallel
from bench.processes.world import ALONE
from bench.stepping import run as step_run
from bench.training.feeding import Feed
from models import gpt2
from optimizers.recipe import hybrid
from tests.helpers import commands, laboratory, runs, steps
from tests.helpers.commands import TINY
from tests.helpers.passes import Counted

pytestmark = pytest.mark.more  # on the CPU


@pytest.mark.parametrize("model", ["gpt2_nano", "vit_nano"])
def test_a_run_trains_and_its_record_is_whole(device, model, train):
    outcome, record, _ = train(f"model={model}", f"train.device={device}", "optimizer.lr_scale=0.1")
    assert outcome["how"] == "finished" and math.isfinite(record["test_loss"])
    assert (record["environment"]["gpu"] is not None) == (device == "cuda")
    assert record["optimizer_state_bytes"]["total"] == record["optimizer_state_bytes"]["predicted"]
    assert record["peak_memory_bytes"] is None or record["peak_memory_bytes"] > 0
    assert record["overhead"]["n"] > 0 and record["optimizer_ms"]["median"] > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(
    device, precision, train, tmp_path, monkeypatch
):
    asked = (f"train.device={device}", f"train.precision={precision}", "optimizer=muon")
    _, whole, _ = train(*asked, results=tmp_path / "whole")
    runs.stop_at(monkeypatch, 4, RuntimeError("killed"))
    outcome, _, _ = train(*asked)
    assert outcome["how"] == "failed"
    _, resumed, said = train(*asked)
    assert "resuming from step 4" in said
    # Sums of a GPU's backward pass are in no fixed order.
    assert resumed["test_loss"] == pytest.approx(
        whole["test_loss"], rel=0 if device == "cpu" else 1e-3
    )


def test_the_parts_of_a_step_arrive_prepared_or_not(device):
    asked = commands.settle(f"train.device={device}", "train.batch_size=4", "train.accumulate=2")
    fed = Feed(Counted(), asked.train, ALONE)
    for step, number in ((3, 0), (3, 1), (4, 0), (7, 1)):
        part = fed.take(step, number)
        fed.prepare(step, number)
        assert part["labels"].device.type == device
        assert part["labels"].tolist() == [100 * step + 4 * number + i for i in range(4)]


def test_memory_is_that_of_a_known_allocation(device):
    """Two of 4 MB at once, one of which stays."""
    kept = []

    def work():
        first = torch.zeros(2**20, device=device)
        kept.append(torch.zeros(2**20, device=device))
        del first

    assert meter.held(device, work) == meter.Held(peak=2**23, left=2**22)
    assert meter.available(device) > 2**20


def test_a_step_is_measured(device, tmp_path, monkeypatch):
    monkeypatch.setattr(flops, "LARGE_SQUARE", {device: 64})
    monkeypatch.setattr(flops, "SECONDS", 0.0)
    asked = [*steps.TEXT, f"train.device={device}", "optimizers=[muon]"]
    benchmark = steps.settle(*asked, f"results_dir={tmp_path}")
    outcome = step_run.run(benchmark, lambda line: None)
    assert outcome["how"] == "finished"
    record = json.loads((tmp_path / "steps" / f"gpt2_nano-{device}.json").read_text())
    own = record["optimizers"]["muon"]
    assert own["flops"] > 0 and own["orthogonalization_gemm_share"] > 0
    assert own["peak_temporary_bytes"] > 0
    assert (own["marginal_ms"] is not None) == (device == "cuda")
    assert (own["span_ms"] is not None) == (device == "cuda")
    assert (record["environment"]["gpu"] is not None) == (device == "cuda")


def test_the_laboratory_runs(device, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.001)
    monkeypatch.setattr(cost, "SQUARES", {device: (64,)})
    monkeypatch.setattr(flops, "SECONDS", 0.0)
    cost.gemm_peak.cache_clear()
    asked = ["shapes=64x96", "dtypes=[fp32,bf16]", "steps=5", "methods=keller", "samples=4"]
    settings = laboratory.settle(
        *asked, f"device={device}", f"results_dir={tmp_path}", "pictures=false"
    )
    found = cases.run(settings, lambda line: None)
    cost.gemm_peak.cache_clear()
    there = [one for one in found if one["form"] != "recursion"]
    close = {"fp32": 1e-4, "bf16": 0.1}
    assert {one["dtype"] for one in there} == set(close)
    assert all(one["recursion_difference"] < close[one["dtype"]] for one in there)
    assert all(one["ms"]["median"] > 0 and one["flops"] > 0 for one in there)
    assert all((one["environment"]["gpu"] is not None) == (device == "cuda") for one in found)


@pytest.fixture
def group(device):
    """This process as a group of its own: NCCL on a GPU."""
    leave()
    backend = {"cpu": "gloo", "cuda": "nccl"}[device]
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    yield
    leave()


def leave():
    if dist.is_initialized():
        dist.destroy_process_group()
    parallel.connect.cache_clear()
    parallel.device_mesh.cache_clear()


def test_ddp_of_one_process_steps_as_the_bare_model(device, group):
    torch.manual_seed(0)
    ids = torch.randint(64, (4, 16), device=device)
    models = []
    for shared in (False, True):
        torch.manual_seed(1)
        bare = gpt2.build(vocab_size=64, layers=2, heads=4, width=32, positions=16).to(device)
        optimizer = hybrid(bare)
        forward = DistributedDataParallel(bare) if shared else bare
        for _ in range(2):
            optimizer.zero_grad()
            forward(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
        models.append(bare)
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(p, q, atol=1e-5)


@pytest.mark.more
def test_a_command_of_one_process_under_torchrun(device, tmp_path):
    asked = [*TINY, f"train.device={device}", "parallel=fsdp2", "tracker=none"]
    done = commands.torchrun(1, *asked, f"results_dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    (one,) = commands.records(tmp_path).values()
    assert one["status"] == "finished"
