"""What travels while other matrices are orthogonalized: in overlapped_steps.py, on processes."""

import pytest
import torch.multiprocessing

from tests.helpers import overlapped_steps


@pytest.mark.more
@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.long)])
def test_overlapped_steps_of_several_processes(size, tmp_path):
    torch.multiprocessing.spawn(overlapped_steps.main, (size, tmp_path / "meeting"), nprocs=size)
