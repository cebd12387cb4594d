"""Fused layers in more than one process: after a fork, and on two ranks over gloo (what these do:
fused_distributed_checks.py)."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as mp

from fused_distributed_checks import CHECKS
from fused_families import AREAS, Family, assert_same, batch, each_area, step
from ranks import RANKS, results


def feature(name: str) -> pytest.MarkDecorator:
    """The page's section is the family's."""
    return pytest.mark.feature("", name)


def work(name: str, queue: mp.SimpleQueue) -> None:
    torch.set_num_threads(1)  # the parent's OpenMP threads are not there after a fork
    queue.put([tensor.tolist() for tensor in step(AREAS[name].net(True), batch())])


@feature("multiprocessing: fork, after use in the parent")
@each_area
def test_fork(family: Family) -> None:
    expected = step(family.net(False), batch())
    step(family.net(True), batch())
    context = mp.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(family.name, queue))
    process.start()
    actual = queue.get()
    process.join(60)
    assert process.exitcode == 0
    assert_same([torch.tensor(values, dtype=t.dtype) for values, t in zip(actual, expected, strict=True)], expected)


DISTRIBUTED = {
    "ddp": "DistributedDataParallel: gradients of one process; static graph, bucket views",
    "broadcast_buffers": "DistributedDataParallel: buffers broadcast",
    "no_sync": "DistributedDataParallel: no_sync",
    "fsdp2": "FSDP2 (fully_shard), resharding after the forward",
    "checkpointed_fsdp2": "FSDP2 with activation checkpointing",
    "mixed_precision_fsdp2": "FSDP2 with bfloat16 parameters (MixedPrecisionPolicy): results or errors as PyTorch's",
    "dtensor": "DTensor: Replicate and Shard(0), parameters distributed or not: results or errors as PyTorch's",
    "pipeline": "pipeline parallel (GPipe schedule)",
}


def test_every_check_has_a_row() -> None:
    assert DISTRIBUTED.keys() == CHECKS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("check", [pytest.param(name, marks=feature(text)) for name, text in DISTRIBUTED.items()])
@each_area
def test_distributed(family: Family, check: str) -> None:
    assert results("fused_distributed_checks.py", family.name)[check] == [""] * RANKS
