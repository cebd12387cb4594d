"""Interleaved timing of two callables in one process."""

from __future__ import annotations

import gc
import operator
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# A sample is at least this long, so that the clock's own cost and resolution (below 0.1 us) do not show.
SAMPLE_SECONDS = 200e-6
MIN_ROUNDS, MAX_ROUNDS = 15, 1501
# glibc gives a freed block back to the system at once, until one of that size has been freed before; for blocks (headers
# included) up to 32 MiB, the ceiling of its dynamic mmap threshold. A training process is past that after its first steps.
SETTLING_BYTES = tuple(mebibytes * 2**20 for mebibytes in (31, 16, 8, 4, 2, 1))
SETTLING_TURNS = 12


@dataclass(frozen=True)
class Sample:
    """Median time of one call, and minor page faults per call (mean over the timed calls)."""

    seconds: float
    faults: float


def _minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@dataclass(frozen=True)
class Pair:
    """Two callables timed in turn. ``ratio`` is the median over the rounds of one's time / the other's in that round.

    Not the ratio of the medians: where a shared machine is now fast and now slow, the two medians can fall into different
    states of it, while the two halves of a round meet the same.
    """

    one: Sample
    other: Sample
    ratio: float


def settle_allocator() -> None:
    """Brings the heap into the state of a running training process: large blocks come and go without page faults."""
    for size in SETTLING_BYTES:
        for _ in range(SETTLING_TURNS):
            torch.ones(size, dtype=torch.uint8)


def measure_pair(one: Callable[[], object], other: Callable[[], object], budget: float) -> Pair:
    """Times both in turn, A B B A A B …, for about ``budget`` seconds in all.

    Every round times as many calls of each as fill a sample, so both sides meet the same states of the machine. Python's
    garbage collector is off meanwhile, as in :mod:`timeit`.
    """
    sides = (one, other)
    for function in sides:
        function()
    begin = time.perf_counter()
    for function in sides:
        function()
    per_call = max((time.perf_counter() - begin) / 2, 1e-7)
    calls = max(1, round(SAMPLE_SECONDS / per_call))
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, round(min(budget / (2 * calls * per_call), MAX_ROUNDS))))
    seconds: tuple[list[float], list[float]] = ([], [])
    faults = [0, 0]
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for side in (0, 1) if turn % 2 else (1, 0):
                function = sides[side]
                faults_before = _minor_faults()
                begin = time.perf_counter()
                for _ in range(calls):
                    function()
                seconds[side].append((time.perf_counter() - begin) / calls)
                faults[side] += _minor_faults() - faults_before
    finally:
        if collecting:
            gc.enable()
    one_sample, other_sample = (
        Sample(statistics.median(times), count / (rounds * calls)) for times, count in zip(seconds, faults, strict=True)
    )
    return Pair(one_sample, other_sample, statistics.median(map(operator.truediv, *seconds)))
