"""The processes that train one network together (torchrun), or the only one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def launched() -> bool:
    """Whether torchrun started this process."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """The process is one of a group (nccl between GPUs, else gloo) meanwhile, if torchrun started it."""
    if not launched():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this process is the one that writes and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def distributed(module: nn.Module) -> nn.Module:
    """``module``, its gradients averaged over the processes."""
    return nn.parallel.DistributedDataParallel(module) if dist.is_initialized() else module


def share(batch: Tensor) -> Tensor:
    """What this process takes of a batch's indices."""
    return batch[dist.get_rank() :: dist.get_world_size()] if dist.is_initialized() else batch


def total(value: float) -> float:
    """The sum over the processes; in each the same."""
    if not dist.is_initialized():
        return value
    values: list[float] = [0.0] * count()
    dist.all_gather_object(values, value)
    return sum(values)


def of_first(value: T) -> T:
    """The first process's ``value``."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
