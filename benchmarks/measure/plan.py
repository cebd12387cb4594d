"""What a command measures, step by step."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..results import Roof, Row
from . import scoring
from .contest import Contest, Group, MismatchError, Pass, Seen, collect, take, take_passes
from .processes import child
from .timing import Stopwatch

Step = Callable[[str], None]
Results = Callable[[], tuple[list[Row], list[Roof]]]


class Plan(Protocol):
    """What is to be measured, in ``steps`` of about the same length."""

    @property
    def steps(self) -> int: ...

    def results(self, step: Step) -> Iterator[Results]:
        """Calls ``step`` with what comes next before each step; yields what tells all that is known after it."""


@dataclass(frozen=True)
class Timing:
    """A plan: groups of contests one after the other, each ``passes`` times over.

    ``again``: makes the same plan in another process, so it must be picklable; then each pass has a process of its own.
    """

    groups: Sequence[Group]
    passes: int
    budget: float  # seconds per contest
    stopwatch: Stopwatch
    again: Callable[[], Timing] | None = None

    @property
    def steps(self) -> int:
        return self.passes * sum(group.count for group in self.groups)

    def results(self, step: Step) -> Iterator[Results]:
        for seen in self._here(step) if self.again is None else self._in_own_processes(step):
            yield lambda seen=seen: (scoring.rows_of(seen), scoring.roofs_of(seen))  # type: ignore[misc]

    def _here(self, step: Step) -> Iterator[list[Seen]]:
        done: list[Seen] = []
        for group in self.groups:
            seen: list[Seen] = []
            with group.contests() as contests:
                for seen in take_passes(contests, self.passes, self.budget, self.stopwatch, step):
                    yield [*done, *seen]
            done += seen

    def _in_own_processes(self, step: Step) -> Iterator[list[Seen]]:
        contests: list[Contest] = []
        for group in self.groups:
            with group.contests() as made:
                contests += made

        def passes() -> Generator[Pass]:
            for number in range(self.passes):
                with child(take_pass, self.again, number) as receive:
                    for contest in contests:
                        yield receive(f"{contest.label}: the process of pass {number}")

        return collect(contests, self.passes, passes(), step)


def take_pass(send: Callable[[Pass | MismatchError], None], again: Callable[[], Timing], number: int) -> None:
    """In a process of its own: sends a Pass over each contest of that plan, or the MismatchError that ended it."""
    plan = again()
    gc.collect()
    gc.freeze()  # what is there stays there, and need not be looked through before every contest
    try:
        for group in plan.groups:
            with group.contests() as contests:
                group.before_pass()
                for contest in contests:
                    send(take(contest, number, plan.budget / plan.passes, plan.stopwatch))
    except MismatchError as error:
        send(error)
