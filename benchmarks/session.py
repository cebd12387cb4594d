"""One call of a suite: progress on the terminal, what is done kept on Ctrl-C, results as tables and as files."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from . import results
from .measure import contest, environment, processes, scoring
from .measure.compiling import first_line
from .measure.timing import Stopwatch
from .report import terminal
from .results import Roof, Row

# A share of the cores. Below: what an idle system does by itself.
BUSY = 0.03

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
    """Groups of contests one after the other, each ``passes`` times over: in this process, or each pass in one of its own.

    For the latter the plan must come out the same from ``suite`` and ``arguments`` again.
    """

    suite: str
    arguments: Namespace
    groups: Sequence[contest.Group]
    passes: int
    budget: float  # seconds per contest
    stopwatch: Stopwatch
    own_processes: bool

    @property
    def steps(self) -> int:
        return self.passes * sum(group.count for group in self.groups)

    def results(self, step: Step) -> Iterator[Results]:
        for seen in self._in_own_processes(step) if self.own_processes else self._here(step):
            yield lambda seen=seen: (scoring.rows_of(seen), scoring.roofs_of(seen))  # type: ignore[misc]

    def _in_own_processes(self, step: Step) -> Iterator[list[contest.Seen]]:
        contests: list[contest.Contest] = []
        for group in self.groups:
            with group.contests() as made:
                contests += made
        return processes.take_passes(self.suite, self.arguments, contests, self.passes, step)

    def _here(self, step: Step) -> Iterator[list[contest.Seen]]:
        done: list[contest.Seen] = []
        for group in self.groups:
            seen: list[contest.Seen] = []
            with group.contests() as contests:
                for seen in contest.take_passes(contests, self.passes, self.budget, self.stopwatch, step):
                    yield [*done, *seen]
            done += seen


def run(suite: str, plan: Plan, arguments: Namespace, notes: Sequence[str] = ()) -> int:
    """Measures, shows and saves; returns the exit status: 0, 1 after a mismatch or a failure, 130 after Ctrl-C.

    Raises:
        ResultsError: a file cannot be written.
    """
    device: torch.device = arguments.device
    console = Console()
    if not console.is_terminal:
        console.width = 250  # a file or a pipe has no width of its own; the tables need this much
    facts = environment.collect(device, faults=device.type == "cpu")
    plain = partial(console.print, highlight=False, soft_wrap=True, markup=False)
    plain(environment.describe(facts))
    for note in notes:
        plain(note)
    neighbours = environment.Neighbours()
    known: Results = lambda: ([], [])  # noqa: E731
    status = 0
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        task = progress.add_task(suite, total=plan.steps)
        started = False

        def step(what: str) -> None:
            nonlocal started
            progress.update(task, description=what, advance=1 if started else 0)
            started = True

        try:
            for latest in plan.results(step):
                known = latest
            progress.update(task, description=suite, completed=plan.steps)
        except (contest.MismatchError, processes.PassError) as error:
            print(f"leakyrelu-bench: error: {error}", file=sys.stderr)
            status = 1
        except Exception as error:  # of the system, such as memory that gave out; what is done is kept
            print(f"leakyrelu-bench: error: {first_line(error)}", file=sys.stderr)
            status = 1
        except KeyboardInterrupt:
            status = 130
    rows, roofs = known()
    if not rows:
        return status
    facts["neighbours_share"] = neighbours.share()
    settings = {
        name: value if isinstance(value, (bool, int, float, str, list, type(None))) else str(value)
        for name, value in vars(arguments).items()
        if name not in ("command", "json", "html", "force", "wide")
    }
    measured = results.Run(suite, settings, facts, scoring.with_roof_shares(rows, roofs), roofs, interrupted=status != 0)
    save(measured, arguments.json, arguments.html)  # first: who reads the tables through a pipe may close it
    terminal.show(measured, console, wide=arguments.wide or not console.is_terminal)
    if (facts["neighbours_share"] or 0.0) > BUSY:
        plain(
            f"other processes took {facts['neighbours_share']:.0%} of this machine's cores meanwhile: with neighbours that "
            "busy, times mean little",
            style="bold",
        )
    return status


def save(run: results.Run, json: Path | None, html: Path | None) -> None:
    if json:
        results.save(run, json)
    if html:
        from .report.html import page, sections

        results.write(html, page(sections([run])))
