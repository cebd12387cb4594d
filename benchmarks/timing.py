"""Interleaved timing of two callables in one process."""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# A sample is at least this long, so that the clock's own cost and resolution (below 0.1 us) do not show.
SAMPLE_SECONDS = 200e-6
MIN_ROUNDS, MAX_ROUNDS = 15, 301
# glibc gives freed memory back to the system at once until a process has freed a block of 32 MiB (the ceiling of its
# dynamic mmap threshold); every training process gets past that in its first step, and so do we.
SETTLING_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Sample:
    """Median time of one call, and minor page faults per call (mean over the timed calls)."""

    seconds: float
    faults: float


def settle_allocator() -> None:
    """Brings the process's heap into the state of a running training process."""
    for _ in range(2):
        torch.ones(SETTLING_BYTES, dtype=torch.uint8)


def _minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure_pair(one: Callable[[], object], other: Callable[[], object], budget: float) -> tuple[Sample, Sample]:
    """Times both in turn, A B B A A B …, for about ``budget`` seconds in all.

    Every round times as many calls of each as fill a sample, so both sides meet the same states of the machine. Python's
    garbage collector is off meanwhile, as in :mod:`timeit`.
    """
    for function in (one, other):
        function()
    begin = time.perf_counter()
    one()
    other()
    per_call = max((time.perf_counter() - begin) / 2, 1e-7)
    calls = max(1, round(SAMPLE_SECONDS / per_call))
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, round(budget / (2 * calls * per_call))))
    seconds: dict[Callable[[], object], list[float]] = {one: [], other: []}
    faults = {one: 0, other: 0}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for function in (one, other) if turn % 2 else (other, one):
                faults_before = _minor_faults()
                begin = time.perf_counter()
                for _ in range(calls):
                    function()
                seconds[function].append((time.perf_counter() - begin) / calls)
                faults[function] += _minor_faults() - faults_before
    finally:
        if collecting:
            gc.enable()
    one_sample, other_sample = (Sample(statistics.median(seconds[f]), faults[f] / (rounds * calls)) for f in (one, other))
    return one_sample, other_sample
