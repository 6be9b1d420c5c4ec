"""Two processes under DDP step `hybrid` alike, as one process does on the whole batch."""

import copy
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel

from optimizers import hybrid
from tests.helpers.zoo import batch, tiny_gpt2, weights

pytestmark = pytest.mark.more


def steps(model, optimizer, data, count):
    for _ in range(count):
        optimizer.zero_grad()
        model(**data).loss.backward()
        optimizer.step()


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=5),
    )
    model = tiny_gpt2()
    wrapped, optimizer = DistributedDataParallel(model), hybrid(model)
    data = {name: value[2 * rank : 2 * rank + 2] for name, value in batch(model).items()}
    steps(wrapped, optimizer, data, 3)
    optimizer.zero_grad()
    saved = copy.deepcopy(get_state_dict(wrapped, optimizer))
    other = tiny_gpt2()
    again, anew = DistributedDataParallel(other), hybrid(other)
    set_state_dict(again, anew, model_state_dict=saved[0], optim_state_dict=saved[1])
    steps(wrapped, optimizer, data, 2)
    steps(again, anew, data, 2)
    torch.save([weights(model), weights(other)], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_step_alike_and_go_on_bit_for_bit(tmp_path):
    multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    ends = [end for rank in range(2) for end in torch.load(tmp_path / f"{rank}.pt")]
    for end in ends[1:]:
        assert all(map(torch.equal, ends[0], end))
    model = tiny_gpt2()
    start = weights(model)
    steps(model, hybrid(model), batch(model), 5)
    for before, one, two in zip(start, weights(model), ends[0], strict=True):
        assert (one - two).norm() < 0.02 * (one - before).norm()
