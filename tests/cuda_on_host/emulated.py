"""What the emulator says about the last call, by name."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

ops = torch.ops.leakyrelu_ext
MAP_NORESERVE = 0x4000  # of Linux; Python names it from 3.13 on


@dataclass(frozen=True)
class Traffic:
    """Of one direction: ``emulator.h``'s struct of the same name."""

    bytes: int
    sectors: int
    requests: int
    request_sectors: int
    widest_requests: int


@dataclass(frozen=True)
class Report:
    launches: int
    blocks: int
    threads: int
    loads: Traffic
    stores: Traffic


def report() -> Report:
    launches, blocks, threads, *traffic = torch.ops.cuda_on_host.report()
    return Report(launches, blocks, threads, Traffic(*traffic[:5]), Traffic(*traffic[5:]))


@contextmanager
def only_blocks(*blocks: int) -> Iterator[None]:
    """Runs only these blocks (negative: from the end) of every launch within."""
    torch.ops.cuda_on_host.only_blocks(blocks)
    try:
        yield
    finally:
        torch.ops.cuda_on_host.only_blocks(())


@contextmanager
def warp_size(threads: int) -> Iterator[None]:
    torch.ops.cuda_on_host.warp_size(threads)
    try:
        yield
    finally:
        torch.ops.cuda_on_host.warp_size(32)


@contextmanager
def norms_folded_up_to(nbytes: int) -> Iterator[None]:
    """Norms of larger tensors take a launch between their passes."""
    before = torch.ops.cuda_on_host.fold_norms_up_to(nbytes)
    try:
        yield
    finally:
        torch.ops.cuda_on_host.fold_norms_up_to(before)


def tile(dtype: torch.dtype) -> int:
    """Elements of a block, as csrc/cuda/kernels.cuh has them."""
    return 128 * 8 * (2 if dtype.itemsize == 2 else 1)


def packed(positive: Tensor) -> Tensor:
    """The mask that these bools make: eight to a byte, the first lowest."""
    padded = torch.nn.functional.pad(positive.flatten(), (0, -positive.numel() % 8)).view(-1, 8)
    return (padded.to(torch.int64) << torch.arange(8)).sum(1).to(torch.uint8)


def unbacked(n: int) -> Tensor:
    """n float16 elements that take memory only where they are written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return torch.frombuffer(mmap.mmap(-1, 2 * n, flags=flags), dtype=torch.float16)
