"""The state of the C library's heap, which decides whether an output lies in memory that the process has already."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence

import torch

from .contest import Contest, Group

# glibc gives a freed block back to the system at once, until one of that size has been freed before; for blocks (headers
# included) up to 32 MiB, the ceiling of its dynamic mmap threshold. A training process is past that after its first steps.
SETTLING_BYTES = tuple(mebibytes * 2**20 for mebibytes in (31, 16, 8, 4, 2, 1))
SETTLING_TURNS = 12
WARM_BYTES = 2**26


def _trim() -> None:
    """Gives what is free back to the system: what comes next gets other pages, and is not decided by those of before."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def settle_allocator() -> None:
    """Brings the heap into the state of a running training process: large blocks come and go without page faults."""
    _trim()
    for size in SETTLING_BYTES:
        for _ in range(SETTLING_TURNS):
            torch.ones(size, dtype=torch.uint8)


def warm_up() -> None:
    """Within :func:`warm_outputs`: brings large blocks into the heap."""
    _trim()
    for _ in range(SETTLING_TURNS):  # glibc moves on through fresh memory for a while before it returns
        torch.ones(WARM_BYTES, dtype=torch.uint8)


@contextlib.contextmanager
def warm_outputs() -> Iterator[bool]:
    """Within, freed memory stays with the process, as with other allocators than glibc's: large outputs come warm.

    Yields False where the C library cannot do that. Memory got meanwhile stays with the process for good.
    """
    m_trim_threshold, m_mmap_max, default_mmap_max = -1, -4, 65536
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield False
        return
    done = mallopt(m_mmap_max, 0) == 1 and mallopt(m_trim_threshold, 2**31 - 1) == 1
    try:
        if done:
            warm_up()
        yield done
    finally:
        mallopt(m_mmap_max, default_mmap_max)


def outputs(device: torch.device, warm: bool) -> str:
    """What rows call their outputs. On CUDA torch's allocator keeps what is freed, so all are warm."""
    return "warm" if warm or device.type == "cuda" else "fresh"


def group(contests: Sequence[Contest], warm: bool) -> Group:
    """Of contests with fresh outputs or with warm ones; of none where the C library cannot give warm ones."""

    @contextlib.contextmanager
    def entered() -> Iterator[Sequence[Contest]]:
        with warm_outputs() if warm else contextlib.nullcontext(True) as possible:
            yield contests if possible else []

    return Group(len(contests), entered, warm_up if warm else settle_allocator)
