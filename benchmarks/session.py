"""One call of a suite: progress on the terminal, what is done kept on Ctrl-C, results as tables and as files."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from itertools import count

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from . import results
from .measure import contest, environment, processes, scoring
from .measure.compiling import first_line
from .measure.plan import Plan, Results
from .report import terminal

# A share of the cores. Below: what an idle system does by itself.
BUSY = 0.03


def _measure(suite: str, plan: Plan) -> tuple[Results, int]:
    """What is known in the end, and the exit status."""
    known: Results = lambda: ([], [])  # noqa: E731
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        task = progress.add_task(suite, total=plan.steps)
        done = count()

        def step(what: str) -> None:
            progress.update(task, description=what, completed=next(done))

        try:
            for latest in plan.results(step):
                known = latest
            progress.update(task, description=suite, completed=plan.steps)
        except KeyboardInterrupt:
            return known, 130
        except Exception as error:  # also of the system, such as memory that gave out; what is done is kept
            told = isinstance(error, (contest.MismatchError, processes.PassError))
            print(f"leakyrelu-bench: error: {error if told else first_line(error)}", file=sys.stderr)
            return known, 1
    return known, 0


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
    for line in (environment.describe(facts), *notes):
        plain(line)
    neighbours = environment.Neighbours()
    known, status = _measure(suite, plan)
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
    # Before the tables: who reads them through a pipe may close it.
    if arguments.json:
        results.save(measured, arguments.json)
    if arguments.html:
        from .report import html

        results.write(arguments.html, html.page(html.sections([measured])))
    terminal.show(measured, console, wide=arguments.wide or not console.is_terminal)
    if (facts["neighbours_share"] or 0.0) > BUSY:
        plain(
            f"other processes took {facts['neighbours_share']:.0%} of this machine's cores meanwhile: with neighbours that "
            "busy, times mean little",
            style="bold",
        )
    return status
