"""Interleaved timing of two callables in one process, on the host's clock or on a GPU's."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import operator
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

# A sample is at least this long, so that the clock's own cost and resolution (below 0.1 us) do not show.
SAMPLE_SECONDS = 200e-6
MIN_ROUNDS, MAX_ROUNDS = 15, 1501
# glibc gives a freed block back to the system at once, until one of that size has been freed before; for blocks (headers
# included) up to 32 MiB, the ceiling of its dynamic mmap threshold. A training process is past that after its first steps.
SETTLING_BYTES = tuple(mebibytes * 2**20 for mebibytes in (31, 16, 8, 4, 2, 1))
SETTLING_TURNS = 12
WARM_BYTES = 2**26
FLUSHED_BYTES = 2**28


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
    states of it, while the two halves of a round meet the same. (Of shares it is the ratio of the medians: a single round's
    share may be nearly nothing.)
    """

    one: Sample
    other: Sample
    ratio: float


def settle_allocator() -> None:
    """Brings the heap into the state of a running training process: large blocks come and go without page faults."""
    for size in SETTLING_BYTES:
        for _ in range(SETTLING_TURNS):
            torch.ones(size, dtype=torch.uint8)


class Stopwatch(Protocol):
    def calls(self, per_call: float) -> int:
        """How many calls of about ``per_call`` seconds a sample takes."""

    def time(self, function: Callable[[], object], calls: int) -> float:
        """Seconds per call."""


class HostStopwatch:
    def calls(self, per_call: float) -> int:
        return max(1, round(SAMPLE_SECONDS / per_call))

    def time(self, function: Callable[[], object], calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - begin) / calls


class CudaStopwatch:
    """Times what a GPU does, call by call, between two events.

    Before each call it overwrites and reads more memory than the GPU's L2 cache holds: nothing is left there, and the host
    has time to enqueue the call (if it needs longer than that takes, the rest shows in the time).
    """

    def __init__(self, device: torch.device) -> None:
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        self._flushed = torch.empty(max(FLUSHED_BYTES, 4 * cache), dtype=torch.uint8, device=device)

    def calls(self, per_call: float) -> int:
        return 1

    def time(self, function: Callable[[], object], calls: int) -> float:
        milliseconds = 0.0
        for _ in range(calls):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            self._flushed.zero_()
            self._flushed.max()  # leaves clean lines: writing back the others would fall into the call
            begin.record()
            function()
            end.record()
            end.synchronize()
            milliseconds += begin.elapsed_time(end)
        return milliseconds * 1e-3 / calls


HOST = HostStopwatch()


def interleave(
    functions: Sequence[Callable[[], object]], budget: float, stopwatch: Stopwatch
) -> tuple[list[list[float]], list[float]]:
    """Times all in turn, forwards and backwards, for about ``budget`` seconds in all.

    Every round times as many calls of each as fill a sample, so all meet the same states of the machine. Python's garbage
    collector is off meanwhile, as in :mod:`timeit`. Returns each function's seconds per call by round, and its minor page
    faults per call.
    """
    for function in functions:
        stopwatch.time(function, 1)
    begin = time.perf_counter()
    for function in functions:
        stopwatch.time(function, 1)
    per_call = max((time.perf_counter() - begin) / len(functions), 1e-7)
    calls = stopwatch.calls(per_call)
    wanted = min(budget / (len(functions) * calls * per_call), MAX_ROUNDS)
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, round(wanted)))
    seconds: list[list[float]] = [[] for _ in functions]
    faults = [0] * len(functions)
    order = range(len(functions))
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for side in order if turn % 2 else reversed(order):
                faults_before = _minor_faults()
                seconds[side].append(stopwatch.time(functions[side], calls))
                faults[side] += _minor_faults() - faults_before
    finally:
        if collecting:
            gc.enable()
    return seconds, [count / (rounds * calls) for count in faults]


def measure_pair(one: Callable[[], object], other: Callable[[], object], budget: float, stopwatch: Stopwatch = HOST) -> Pair:
    """Times both in turn, A B B A A B …, for about ``budget`` seconds in all."""
    seconds, faults = interleave((one, other), budget, stopwatch)
    one_sample, other_sample = (
        Sample(statistics.median(times), count) for times, count in zip(seconds, faults, strict=True)
    )
    return Pair(one_sample, other_sample, statistics.median(map(operator.truediv, *seconds)))


def measure_shares(
    base: Callable[[], object], one: Callable[[], object], other: Callable[[], object], budget: float
) -> Pair:
    """Of two callables that do what ``base`` does and something more: what the more takes, timed in turn with ``base``."""
    (without, *seconds), (faults_without, *faults) = interleave((base, one, other), budget, HOST)
    one_sample, other_sample = (
        Sample(statistics.median(map(operator.sub, times, without)), count - faults_without)
        for times, count in zip(seconds, faults, strict=True)
    )
    return Pair(one_sample, other_sample, one_sample.seconds / other_sample.seconds)


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
            for _ in range(SETTLING_TURNS):  # glibc moves on through fresh memory for a while before it returns
                torch.ones(WARM_BYTES, dtype=torch.uint8)
        yield done
    finally:
        mallopt(m_mmap_max, default_mmap_max)


def fault_seconds(huge: bool) -> float | None:
    """What one page fault costs here, on one thread: writing to fresh pages less writing to them again, per page.

    None where there are no such pages.
    """
    size, page = 2**26, 2**21 if huge else mmap.PAGESIZE
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    costs = []
    try:
        for _ in range(5):
            with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
                if hasattr(mmap, "MADV_HUGEPAGE"):
                    memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
                block = torch.frombuffer(memory, dtype=torch.uint8)
                before = _minor_faults()
                begin = time.perf_counter()
                block.fill_(1)
                fresh = time.perf_counter()
                block.fill_(2)
                again = time.perf_counter()
                faults = _minor_faults() - before
                del block
            if faults > 2 * size / page + 2 * 512:
                return None  # smaller pages than those asked for
            costs.append(((fresh - begin) - (again - fresh)) / (size / page))
    except OSError:
        return None
    finally:
        torch.set_num_threads(threads)
    return statistics.median(costs)
