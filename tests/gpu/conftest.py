"""The set `pytest -m gpu`: every test here takes a device, and runs on the CPU in any suite."""

import pytest
import torch

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU: torch sees none")
    return request.param
