"""Contests: ours and its rivals on one case, timed in turn, in several passes."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import statistics
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from ..results import Quantiles, Row
from .compiling import first_line
from .timing import HOST, CallError, Stopwatch, Timed, interleave

# The first of ours once more: what the two differ by is noise.
AGAIN = "ours again"
COPY, TRIAD, SCALE = "roof: copy", "roof: triad", "roof: scale"
_BASELINE = "baseline"

Facts = Mapping[str, Mapping[str, float]]


class MismatchError(Exception):
    """Ours did not compute what the built-in does: there is nothing to time."""


@contextlib.contextmanager
def excused(name: str, obstacles: dict[str, str], fatal: bool = False) -> Iterator[None]:
    """What fails within, whatever a compiler or another library raises, is the obstacle of ``name``, unless ``fatal``."""
    try:
        yield
    except Exception as error:
        if fatal:
            raise
        obstacles[name] = str(error) if isinstance(error, MismatchError) else first_line(error)


@dataclass(frozen=True)
class Prepared:
    """Calls on new tensors, by contestant.

    ``obstacles``: those that cannot take part, and why. ``baseline``: what every call does besides what is meant; its time
    is taken off. ``facts``: by name (its unit in it) and contestant, what is known without a clock; from ``moved_bytes``
    comes a bandwidth. ``roofs``: COPY, TRIAD and SCALE of tensors of ``nbytes``, where they are measured.
    """

    calls: Mapping[str, Timed]
    obstacles: Mapping[str, str] = field(default_factory=dict)
    baseline: Timed | None = None
    facts: Facts = field(default_factory=dict)
    roofs: Mapping[str, Timed] = field(default_factory=dict)
    nbytes: int = 0


@dataclass(frozen=True)
class Contest:
    """What is to be timed side by side: every rival against each of ours.

    ``prepare`` takes the number of the pass, the first one 0, in which it also compares results.
    """

    suite: str
    case: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    mode: str
    outputs: str
    ours: tuple[str, ...]
    rivals: Mapping[str, str]  # with the version of each
    prepare: Callable[[int], Prepared]

    @property
    def label(self) -> str:
        return f"{self.case}, {self.mode}"

    def row(self, ours: str, rival: str) -> Row:
        """The row of these two, without figures."""
        of_case = (self.suite, self.case, self.shape, self.dtype, self.layout, self.mode, self.outputs)
        return Row(*of_case, "seconds", ours, rival, self.rivals[rival])


@dataclass(frozen=True)
class Group:
    """Contests that are alive at the same time and take their passes together: ``count`` of them, made on entering.

    ``before_pass``: puts the process into the state that every pass begins in.
    """

    count: int
    contests: Callable[[], AbstractContextManager[Sequence[Contest]]]
    before_pass: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Pass:
    """One pass over one contest: seconds per call of every round, less the baseline's, and page faults, by contestant.

    ``differences``: a baseline was taken off. The rest: what the contest said of itself, as in :class:`Prepared`.
    """

    seconds: Mapping[str, Sequence[float]]
    faults: Mapping[str, float]  # per call
    pools: Mapping[str, str]
    obstacles: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)
    nbytes: int = 0
    differences: bool = False


def take(contest: Contest, number: int, budget: float, stopwatch: Stopwatch = HOST) -> Pass:
    """One pass, on new tensors. A rival that fails is an obstacle; the others are timed again without it.

    Raises:
        MismatchError: from ``contest.prepare``, before anything is timed.
        Exception: what the first of ours raises, or the baseline, or a roof.
    """
    # Later blocks come to lie elsewhere than in the pass before.
    chance = random.Random(number)
    spacers = [torch.empty(64 * chance.randrange(1, 2048), dtype=torch.uint8) for _ in range(8)]
    prepared = contest.prepare(number)
    timed = {**prepared.calls, AGAIN: prepared.calls[contest.ours[0]], **prepared.roofs}
    if prepared.baseline is not None:
        timed[_BASELINE] = prepared.baseline
    obstacles = dict(prepared.obstacles)
    while True:
        try:
            with torch.compiler.set_stance("fail_on_recompile"):
                seconds, faults = interleave(list(timed.values()), budget, stopwatch, seed=number)
            break
        except CallError as failed:
            name = next(name for name, entry in timed.items() if entry is failed.timed)
            if name not in (*contest.rivals, *contest.ours[1:]):  # without it nothing can be compared
                raise failed.error from None
            obstacles[name] = first_line(failed.error)
            del timed[name]
    del spacers
    times, counts = dict(zip(timed, seconds, strict=True)), dict(zip(timed, faults, strict=True))
    base, base_faults = times.pop(_BASELINE, None), counts.pop(_BASELINE, 0.0)
    if base is not None:
        times = {name: [one - other for one, other in zip(rounds, base, strict=True)] for name, rounds in times.items()}
    counts = {name: count - base_faults for name, count in counts.items()}
    pools = {name: entry.pool for name, entry in timed.items()}
    return Pass(times, counts, pools, obstacles, dict(prepared.facts), prepared.nbytes, base is not None)


@dataclass
class Seen:
    """What the passes over one contest have given so far."""

    contest: Contest
    passes: list[Pass] = field(default_factory=list)

    @property
    def obstacles(self) -> dict[str, str]:
        """Who fails in one pass is out."""
        return {name: why for each in self.passes for name, why in each.obstacles.items()}

    def values(self, name: str) -> Quantiles:
        return Quantiles.of([value for each in self.passes for value in each.seconds[name]])

    def round_ratios(self, one: str, other: str) -> list[float]:
        ratios: list[float] = []
        for each in self.passes:
            a, b = each.seconds[one], each.seconds[other]
            if each.pools[one] != each.pools[other]:
                b = [statistics.median(b)] * len(a)
            ratios += [x / y for x, y in zip(a, b, strict=True) if x > 0 and y > 0]
        return ratios

    def pass_ratios(self, one: str, other: str) -> list[float]:
        """Of each pass the median over its rounds of one's time / the other's.

        Not the ratio of the medians: where a shared machine is now fast and now slow, the two medians can fall into
        different states of it, while the two halves of a round meet the same. Of differences it is the ratio of the
        medians, NaN where one is not positive: a single round's difference may be nearly nothing. So it is of other
        libraries', which have rounds of their own.
        """
        ratios = []
        for each in self.passes:
            a, b = each.seconds[one], each.seconds[other]
            if each.differences or each.pools[one] != each.pools[other]:
                medians = statistics.median(a), statistics.median(b)
                ratios.append(medians[0] / medians[1] if min(medians) > 0 else math.nan)
            else:
                ratios.append(statistics.median(x / y for x, y in zip(a, b, strict=True)))
        return ratios


def collect(
    contests: Sequence[Contest], passes: int, taken: Generator[Pass], step: Callable[[str], None]
) -> Iterator[list[Seen]]:
    """Yields what is known after each Pass of ``taken``, which go over all contests ``passes`` times: so an interruption
    keeps it. Calls ``step`` with what comes next.
    """
    seen = [Seen(contest) for contest in contests]
    with contextlib.closing(taken):
        for _ in range(passes):
            for each in seen:
                step(each.contest.label)
                each.passes.append(next(taken))
                yield [each for each in seen if each.passes]
        next(taken, None)  # to its end


def take_passes(
    contests: Sequence[Contest],
    passes: int,
    budget: float,
    stopwatch: Stopwatch = HOST,
    step: Callable[[str], None] = lambda _: None,
) -> Iterator[list[Seen]]:
    """Goes over all contests ``passes`` times in this process, and about ``budget`` seconds for each contest in all.

    Passes over all rather than one contest at a time: what passes in a few seconds (a busy neighbour, the memory that a
    tensor happens to get) shows as noise and does not decide a row.

    Raises:
        MismatchError: as :func:`take`.
    """

    def taken() -> Generator[Pass]:
        try:
            for number in range(passes):
                # What is there now stays there: the collector, which runs before every contest, need not look through it.
                gc.collect()
                gc.freeze()
                for contest in contests:
                    yield take(contest, number, budget / passes, stopwatch)
        finally:
            gc.unfreeze()

    return collect(contests, passes, taken(), step)
