"""The benchmark times what it says: in turn, in pools that do not disturb each other, on the host's clock or a GPU's."""

import itertools
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("rich")
from leakyrelu_bench.measure import environment, timing
from leakyrelu_bench.measure.timing import Timed, interleave

pytestmark = pytest.mark.cpu_only


def in_its_own_process(code):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when it is told to; sleeping moves it."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_every_one_gets_its_own_time(clock):
    def taking(seconds):
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    seconds, faults = interleave([Timed(taking(1.0)), Timed(taking(3.0)), Timed(taking(1e-5))], budget=100)
    assert [pytest.approx(expected) for expected in (1.0, 3.0, 1e-5)] == [rounds[0] for rounds in seconds]
    assert len(set(map(len, seconds))) == 1
    assert len(faults) == 3


def test_a_sample_of_a_short_call_is_many_calls(clock):
    calls = []

    def short():
        calls.append(1)
        clock[0] += 1e-6

    seconds, _ = interleave([Timed(short)], budget=0.01)
    rounds = len(seconds[0])
    assert len(calls) == 2 + rounds * round(timing.SAMPLE_SECONDS / 1e-6)
    assert seconds[0] == pytest.approx([1e-6] * rounds)


def test_each_comes_after_every_other(clock):
    order = []

    def call(name):
        def function():
            order.append(name)
            clock[0] += 0.1

        return Timed(function)

    interleave([call(name) for name in "abc"], budget=30)
    rounds = order[6:]
    assert all(set(rounds[i : i + 3]) == set("abc") for i in range(0, len(rounds), 3))
    assert set(itertools.permutations("abc", 2)) <= set(itertools.pairwise(rounds))


def test_the_same_seed_gives_the_same_order(clock):
    def order(seed):
        names = []

        def call(name):
            def function():
                names.append(name)
                clock[0] += 1.0

            return Timed(function)

        interleave([call(name) for name in "abcd"], budget=40, seed=seed)
        return names

    assert order(1) == order(1) != order(2)


def test_pools_follow_one_another_when_the_last_ones_threads_sleep(clock):
    """And what warms the next one up is not timed."""
    log = []

    def call(name, pool, units):
        def function():
            log.append((pool, clock[0]))
            clock[0] += units

        return Timed(function, pool)

    timed = [call("a", "torch", 1e-3), call("c", "JAX", 4e-3), call("b", "torch", 2e-3)]
    for seed in range(4):
        log.clear()
        seconds, _ = interleave(timed, budget=0.3, seed=seed)
        assert [rounds[0] for rounds in seconds] == pytest.approx([1e-3, 4e-3, 2e-3])
        assert len(seconds[0]) == len(seconds[2])
        switches = [(one, other) for one, other in itertools.pairwise(log) if one[0] != other[0]]
        ((last, first),) = switches
        assert first[1] - last[1] >= timing.POOL_SETTLES_SECONDS
        calls = {pool: sum(entry[0] == pool for entry in log) for pool in ("torch", "JAX")}
        assert calls["JAX"] >= len(seconds[1]) + 2 + timing.POOL_WARMS_SECONDS / 4e-3
        assert calls["torch"] >= 2 * (len(seconds[0]) + 2) + timing.POOL_WARMS_SECONDS / 2e-3


def test_rounds_fill_the_budget(clock):
    def call():
        clock[0] += 0.5

    seconds, _ = interleave([Timed(call), Timed(call)], budget=20)
    assert len(seconds[0]) == 20
    seconds, _ = interleave([Timed(call), Timed(call)], budget=0.01)
    assert len(seconds[0]) == timing.MIN_ROUNDS


def test_what_takes_minutes_is_not_timed_for_an_hour(clock):
    calls = []

    def call():
        calls.append(1)
        clock[0] += 20.0

    seconds, _ = interleave([Timed(call), Timed(call)], budget=1.0)
    assert len(seconds[0]) == 2
    assert len(calls) == 2 * 3


def test_time_on_a_gpu_is_that_between_the_events_of_each_call(monkeypatch):
    """On a GPU that works off what is enqueued: 3 ms for what is timed, 100 ms for the flush before."""
    queue, now = [], [0.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            queue.append(self)

        def synchronize(self):
            for entry in queue:
                if isinstance(entry, Event):
                    entry.at = now[0]
                else:
                    now[0] += entry
            queue.clear()

        def elapsed_time(self, end):
            return end.at - self.at

    class Memory:
        def zero_(self):
            queue.append(60.0)

        def max(self):
            queue.append(40.0)

    stopwatch = object.__new__(timing.CudaStopwatch)
    stopwatch._flushed = Memory()
    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert stopwatch.calls(1e-6) == 1
    assert stopwatch.time(lambda: queue.append(3.0), 4) == pytest.approx(3e-3)
    one, other = interleave([Timed(lambda: queue.append(3.0)), Timed(lambda: queue.append(1.5))], 0.001, stopwatch)[0]
    assert one == pytest.approx([3e-3] * len(one))
    assert other == pytest.approx([1.5e-3] * len(other))


def test_warm_outputs_and_the_cost_of_a_fault():
    """In a process of its own: both change how memory is had."""
    shown = in_its_own_process(
        "import torch\n"
        "from leakyrelu_bench.measure import heap, page_faults\n"
        "def faults():\n"
        "    before = page_faults.minor_faults()\n"
        "    torch.ones(2**26, dtype=torch.uint8)\n"
        "    return page_faults.minor_faults() - before\n"
        "fresh = [faults() for _ in range(4)][-1]\n"
        "with heap.warm_outputs() as possible:\n"
        "    assert possible\n"
        "    warm = faults()\n"
        "small, huge = page_faults.fault_seconds(False), page_faults.fault_seconds(True)\n"
        "assert 1e-8 < small < 1e-3, small\n"
        "assert huge is None or small < huge < 1e-1, huge\n"
        "print(fresh > 1000, warm < 100)\n"
    )
    if "THP_MEM_ALLOC_ENABLE" not in os.environ and environment.huge_pages() != "always":
        assert shown.split() == ["True", "True"]


def test_settling_keeps_large_blocks_in_the_heap():
    """After it, 16 MiB tensors come and go without page faults; in a new process each of the first costs 4096."""
    shown = in_its_own_process(
        "import torch\n"
        "from leakyrelu_bench.measure import heap, page_faults\n"
        "heap.settle_allocator()\n"
        "counts = []\n"
        "for _ in range(9):\n"
        "    before = page_faults.minor_faults()\n"
        "    torch.ones(2**24, dtype=torch.uint8)\n"
        "    counts.append(page_faults.minor_faults() - before)\n"
        "print(sorted(counts)[4])\n"
    )
    assert int(shown) < 100
