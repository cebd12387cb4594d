"""More than one process: fork, spawn, DataLoader workers, and two ranks over gloo (what these do: distributed_checks.py)."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as mp
from torch.utils.data import DataLoader, Dataset

import aten
from cases import assert_same_bits, randn
from distributed_checks import CHECKS
from ranks import RANKS, results
from sides import Side, begin


def work(side: str, queue: mp.SimpleQueue) -> None:
    torch.set_num_threads(1)  # the parent's OpenMP threads are not there after a fork
    x = randn(1000).requires_grad_()
    y = begin(side).function(x, 0.1)
    y.sum().backward()
    queue.put((y.detach().tolist(), x.grad.tolist()))


@pytest.mark.feature("Processes", "multiprocessing: fork and spawn, after use in the parent")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(side: Side, method: str) -> None:
    x = randn(1000)
    expected = side.function(x, 0.1)
    context = mp.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(side.name, queue))
    process.start()
    output, grad = queue.get()
    process.join(60)
    assert process.exitcode == 0
    assert_same_bits(torch.tensor(output), expected)
    assert_same_bits(torch.tensor(grad), torch.where(x > 0, 1.0, 0.1))


@pytest.mark.feature("Processes", "tensors in shared memory")
def test_shared_memory(side: Side) -> None:
    x = randn(100).share_memory_()
    expected = aten.leaky_relu(x, 0.1)
    assert_same_bits(side.function(x, 0.1), expected)
    side.function(x, 0.1, inplace=True)
    assert x.is_shared()
    assert_same_bits(x, expected)


class Activated(Dataset):
    def __init__(self, side: str) -> None:
        self.side = side

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return begin(self.side).module(0.1)(randn(100, seed=index))


@pytest.mark.feature("Processes", "DataLoader workers")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader(side: Side, method: str) -> None:
    loader = DataLoader(Activated(side.name), batch_size=2, num_workers=2, multiprocessing_context=method)
    expected = torch.stack([aten.leaky_relu(randn(100, seed=index), 0.1) for index in range(8)])
    assert_same_bits(torch.cat(list(loader)), expected)


DISTRIBUTED = {
    "ddp": "DistributedDataParallel: gradients of one process; static graph; no_sync",
    "fsdp2": "FSDP2 (fully_shard)",
    "dtensor": "DTensor: Shard, Replicate and Partial inputs, placements and values",
    "tensor_parallel": "tensor parallel (parallelize_module)",
    "pipeline": "pipeline parallel (GPipe schedule)",
    "checkpointed_fsdp2": "FSDP2 with activation checkpointing",
}


def test_every_check_has_a_row() -> None:
    assert DISTRIBUTED.keys() == CHECKS.keys()


def row(text: str) -> pytest.MarkDecorator:
    return pytest.mark.feature("Distributed (gloo, 2 ranks)", text)


@pytest.mark.slow
@pytest.mark.parametrize("check", [pytest.param(name, marks=row(text)) for name, text in DISTRIBUTED.items()])
def test_distributed(side: Side, check: str) -> None:
    assert results("distributed_checks.py", side.name)[check] == [""] * RANKS
