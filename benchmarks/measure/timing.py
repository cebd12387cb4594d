"""Interleaved timing of callables in one process, on the host's clock or on a GPU's."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from .page_faults import minor_faults

# A sample is at least this long, so that the clock's own cost and resolution (below 0.1 us) do not show.
SAMPLE_SECONDS = 200e-6
MIN_ROUNDS, MAX_ROUNDS = 5, 501
# Where as few as MIN_ROUNDS would take longer than that (whole models), two must do.
PATIENCE_SECONDS = 30.0
# The threads of a pool spin for a while after their work (libgomp's for 2 to 4 ms, others' longer) and would take a core
# from the next pool; whose threads, caches and clock rate need a while to be what they are in the middle of its work.
POOL_SETTLES_SECONDS = 50e-3
POOL_WARMS_SECONDS = 5e-3
FLUSHED_BYTES = 2**28


@dataclass(frozen=True)
class Timed:
    """A callable, and the thread pool that it works in."""

    call: Callable[[], object]
    pool: str = "torch"


class CallError(Exception):
    """``timed`` raised ``error`` while it was timed."""

    def __init__(self, timed: Timed, error: Exception) -> None:
        super().__init__(timed, error)
        self.timed, self.error = timed, error


class Stopwatch:
    """The host's clock."""

    def calls(self, per_call: float) -> int:
        """How many calls of about ``per_call`` seconds a sample takes."""
        return max(1, round(SAMPLE_SECONDS / per_call))

    def time(self, function: Callable[[], object], calls: int) -> float:
        """Seconds per call."""
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - begin) / calls


class CudaStopwatch(Stopwatch):
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


HOST = Stopwatch()


def _time(entry: Timed, stopwatch: Stopwatch, calls: int) -> float:
    try:
        return stopwatch.time(entry.call, calls)
    except Exception as error:
        raise CallError(entry, error) from error


def _first_calls(timed: Sequence[Timed], stopwatch: Stopwatch) -> list[tuple[float, float]]:
    """Each one's time, and what it takes to measure that (on a GPU, to flush the cache)."""
    taken = []
    for entry in timed:
        begin = time.perf_counter()
        seconds = _time(entry, stopwatch, 1)
        taken.append((seconds, time.perf_counter() - begin))
    return taken


def _rounds(
    timed: Sequence[Timed], budget: float, stopwatch: Stopwatch, chance: random.Random
) -> tuple[list[list[float]], list[float]]:
    first = _first_calls(timed, stopwatch)
    if sum(elapsed for _, elapsed in first) < PATIENCE_SECONDS / MIN_ROUNDS:  # or the first call is as good as the second
        first = _first_calls(timed, stopwatch)
    calls = [stopwatch.calls(max(seconds, 1e-7)) for seconds, _ in first]
    of_round = max(sum(count * elapsed for count, (_, elapsed) in zip(calls, first, strict=True)), 1e-7)
    least = MIN_ROUNDS if MIN_ROUNDS * of_round <= PATIENCE_SECONDS else 2
    rounds = min(MAX_ROUNDS, max(least, round(budget / of_round)))
    seconds: list[list[float]] = [[] for _ in timed]
    faults = [0] * len(timed)
    order = list(range(len(timed)))
    for _ in range(rounds):
        chance.shuffle(order)
        for side in order:
            faults_before = minor_faults()
            seconds[side].append(_time(timed[side], stopwatch, calls[side]))
            faults[side] += minor_faults() - faults_before
    return seconds, [count / (rounds * n) for count, n in zip(faults, calls, strict=True)]


def interleave(
    timed: Sequence[Timed], budget: float, stopwatch: Stopwatch = HOST, seed: int = 0
) -> tuple[list[list[float]], list[float]]:
    """Times all for about ``budget`` seconds in all, those of one thread pool in turn, in another order every round.

    Every round takes one sample of each, as many calls as fill it, so all of a pool meet the same states of the machine, and
    each comes after every other. Pools, which would disturb each other, follow one another; in between threads get the time
    to fall asleep, and calls that are not timed warm the next ones up. Python's garbage collector is off meanwhile, as in
    :mod:`timeit`. Returns each one's seconds per call by round, and its minor page faults per call.

    Raises:
        CallError: one of them raises.
    """
    chance = random.Random(seed)
    pools = list(dict.fromkeys(entry.pool for entry in timed))
    chance.shuffle(pools)
    of_pools: dict[str, Iterator[tuple[list[float], float]]] = {}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn, pool in enumerate(pools):
            of_pool = [entry for entry in timed if entry.pool == pool]
            if turn:
                time.sleep(POOL_SETTLES_SECONDS)
            warm = time.perf_counter() + POOL_WARMS_SECONDS
            while len(pools) > 1:
                _time(of_pool[0], HOST, 1)
                if time.perf_counter() >= warm:
                    break
            seconds, faults = _rounds(of_pool, budget * len(of_pool) / len(timed), stopwatch, chance)
            of_pools[pool] = zip(seconds, faults, strict=True)
    finally:
        if collecting:
            gc.enable()
    in_order = [next(of_pools[entry.pool]) for entry in timed]
    return [seconds for seconds, _ in in_order], [faults for _, faults in in_order]
