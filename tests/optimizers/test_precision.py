"""When bf16 is chosen: by a processor's flag where that settles it, else by the clock."""

import pytest
import torch

from optimizers import precision
from optimizers.orthogonalize import Orthogonalizer, iteration

pytestmark = pytest.mark.cpu

bf16_pays = getattr(precision.bf16_pays, "measured", precision.bf16_pays)  # BF16=faster|slower


@pytest.fixture
def flags(monkeypatch):
    """Set what torch says of the processor; the answer is cached, so it is forgotten around."""
    bf16_pays.cache_clear()

    def choose(amx, avx512_bf16, timing=None):
        def timed():
            if timing is None:
                pytest.fail("the clock was asked although a flag settles it")
            asked.append(True)
            return timing

        asked = []
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False
        )
        monkeypatch.setattr(precision, "_bf16_beats_fp32", timed)
        return asked

    yield choose
    bf16_pays.cache_clear()


def test_amx_settles_it_without_timing(flags):
    flags(amx=True, avx512_bf16=True)
    assert bf16_pays("cpu") is True


def test_no_bf16_hardware_settles_it_without_timing(flags):
    flags(amx=False, avx512_bf16=False)
    assert bf16_pays("cpu") is False


@pytest.mark.parametrize("faster", [True, False])
def test_avx512_bf16_is_decided_by_the_clock_and_once(flags, faster):
    asked = flags(amx=False, avx512_bf16=True, timing=faster)
    assert bf16_pays("cpu") is faster
    assert bf16_pays("cpu") is faster
    assert len(asked) == 1


def test_a_torch_without_the_private_flags_means_no(flags, monkeypatch):
    flags(amx=True, avx512_bf16=True)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert bf16_pays("cpu") is False


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_answers_for_itself_without_emulation(flags, monkeypatch, supported):
    flags(amx=not supported, avx512_bf16=False)

    def answer(including_emulation=True):
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    assert bf16_pays("cuda") is supported


def test_other_devices_stay_in_fp32(flags):
    flags(amx=True, avx512_bf16=True)
    assert bf16_pays("mps") is False


@pytest.mark.parametrize(
    ("bf16_seconds", "pays"), [(0.5, True), (0.7, True), (0.95, False), (2.0, False)]
)
def test_the_clock_wants_a_clear_lead_of_the_best_products(monkeypatch, bf16_seconds, pays):
    """A fake product moves a fake clock; every third one is delayed, as on a busy machine."""
    now, calls = [0.0], [0]
    real = torch.mm

    def product(a, b):
        calls[0] += 1
        seconds = bf16_seconds if a.dtype == torch.bfloat16 else 1.0
        now[0] += seconds + (5.0 if calls[0] % 3 == 0 else 0.0)
        return real(a, b)

    monkeypatch.setattr(precision.torch, "mm", product)
    monkeypatch.setattr(precision.time, "process_time", lambda: now[0])
    assert precision._bf16_beats_fp32(size=2) is pays


@pytest.mark.parametrize(
    ("asked", "pays", "got"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("fp16", False, torch.float16),
        ("fp64", True, torch.float64),
    ],
)
def test_the_iteration_takes_the_dtype_asked_for_or_the_faster_one(monkeypatch, asked, pays, got):
    monkeypatch.setattr(iteration, "bf16_pays", lambda device_type: pays)
    assert Orthogonalizer(dtype=asked).iteration_dtype("cpu") == got
