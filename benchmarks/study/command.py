"""`leakyrelu-bench train`: from its arguments to a study, its tables and its files."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from ..measure import environment
from ..results import ResultsError, refuse_to_overwrite, write
from . import study
from .claims import arms, cost
from .claims.judging import study_of
from .claims.plan import COST, Plan, effort_of, entries_of, level, plan_of, present
from .data import Dataset
from .report import tables
from .training import journal as journals
from .training import ranks
from .training.configuration import Configuration
from .training.journal import Journal
from .training.outcome import Outcome
from .training.running import RunError, Setting, run_all

# Passes, and seconds of each for all activations.
COST_PASSES = {"quick": (3, 1.0), "usual": (7, 3.0), "full": (10, 6.0)}
# What a claim decides for itself.
OF_GRID = (
    *("activation", "slope", "init", "regularisation", "optimiser", "schedule", "network", "depth"),
    *("observe", "patience", "learning_rate"),
)


def _measure(plan: Plan, here: Mapping[str, Dataset], journal: Journal, arguments: Namespace) -> None:
    effort = effort_of(arguments)
    setting = Setting(arguments.device, arguments.jobs, arguments.threads or 1, arguments.data)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2, disable=not ranks.first()) as progress:
        swept = {entry.arm for entry in plan.entries if entry.learning_rate is None}
        total = len(swept) * effort.rates + len(plan.entries) * effort.seeds
        task = progress.add_task("train", total=total)

        def run(configurations: Sequence[Configuration]) -> None:
            done = sum(journal.find(each) is not None for each in configurations)
            progress.update(task, advance=done)

            def step(outcome: Outcome) -> None:
                of = outcome.configuration
                progress.update(task, description=f"{of.dataset}, {of.function}", advance=1)

            run_all(configurations, setting, journal, step)

        # Claim by claim: whoever stops it has some whole ones.
        for preset, by_dataset in plan.claims.items():
            arms.measure(entries_of(by_dataset), effort, run, journal.find)
            for name in by_dataset if preset.name == COST else ():
                if journal.costs(name) is None:
                    progress.update(task, description=f"cost, {name}")
                    journal.add_costs(name, cost.measure(here[name], *COST_PASSES[level(arguments)]))
        arms.measure(plan.grid, effort, run, journal.find)


def _launch(arguments: Namespace, raw: Sequence[str]) -> int:
    """The same call by ``arguments.nproc`` processes under torchrun."""
    own = list(raw)
    at = next(i for i, word in enumerate(own) if word.split("=")[0] == "--nproc")
    del own[at : at + (1 if "=" in own[at] else 2)]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.nproc}"]
    return subprocess.run([sys.executable, *launcher, "-m", "leakyrelu_bench", *own], check=False).returncode


def check(arguments: Namespace) -> None:
    """Raises ResultsError for arguments that do not go together; sets those that follow from others."""
    if arguments.claim and (given := [name for name in OF_GRID if _given(getattr(arguments, name))]):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ResultsError(f"argument --claim: decides by its own arms, not with {options}")
    if arguments.slope and arguments.activation and "leaky_relu" not in arguments.activation:
        raise ResultsError("argument --slope: is leaky_relu's, which --activation leaves out")
    if arguments.nproc and {COST, "all"} & set(arguments.claim):
        raise ResultsError("argument --nproc: the claim cost is timed, by one process")
    arguments.journal = arguments.journal or (arguments.json.with_suffix(".jsonl") if arguments.json else None)
    if arguments.resume and not arguments.journal:
        raise ResultsError("argument --resume: goes on with a journal: give --journal FILE or the --json FILE of before")
    if arguments.device.type == "cuda" and arguments.jobs is None:
        arguments.jobs = 1
    files = [path for path in (arguments.json, arguments.html, arguments.journal) if path]
    if twice := {path for path in files if files.count(path) > 1}:
        raise ResultsError(f"{twice.pop()}: is given twice")


def _given(value: object) -> bool:
    return value is not None and value is not False and value not in ([], "default")


def main(arguments: Namespace, raw: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 after a failure, 130 after Ctrl-C (what is finished is shown and kept).

    Raises:
        ResultsError: bad arguments or files.
    """
    check(arguments)
    taken_up = arguments.resume and arguments.json and arguments.json.is_file()
    if taken_up:
        study.load(arguments.json)  # what an interrupted call left, its successor replaces; nothing else
    refuse_to_overwrite((None if taken_up else arguments.json, arguments.html), arguments.force)
    if arguments.journal:
        journals.refuse(arguments.journal, arguments.resume, arguments.force)
    if arguments.nproc and not ranks.launched():
        return _launch(arguments, raw)
    arguments.jobs = arguments.jobs or torch.get_num_threads()
    with ranks.joined(arguments.device):
        return _run(arguments)


def _run(arguments: Namespace) -> int:
    here, skipped = present(arguments)
    plan = plan_of(here, arguments)
    journal = Journal(arguments.journal if ranks.first() else None, arguments.resume, arguments.force)
    if ranks.count() > 1:
        for outcome in ranks.of_first(journal.outcomes):
            if not ranks.first():
                journal.add(outcome)
    console = Console()
    if not console.is_terminal:
        console.width = 200
    facts = environment.collect(arguments.device)
    facts["processes"] = ranks.count()
    say: Callable[..., None] = console.print if ranks.first() else lambda *_, **__: None
    say(environment.describe(facts), highlight=False, soft_wrap=True, markup=False)
    status = 0
    try:
        _measure(plan, here, journal, arguments)
    except RunError as error:
        print(f"leakyrelu-bench train: error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    if not ranks.first():
        return status
    found = study_of(arguments, facts, here, skipped, plan, journal, status != 0)
    if arguments.json:
        study.save(found, arguments.json)
    if arguments.html:
        from ..report.html import page
        from .report.page import section

        write(arguments.html, page([section(1, found)]))
    for table in tables.of(found):
        say(table)
    say(tables.summary(found), highlight=False, soft_wrap=True, markup=False)
    return status if here else 1
