"""From finished runs to a study: results of arms, effects and verdicts."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from ..data import Dataset
from ..study import ArmResult, ClaimResult, Cost, Skipped, Study
from ..training.journal import Journal
from . import arms, cost, effects
from .arms import Entry
from .plan import COST, Plan, effort_of, fitted
from .presets import Preset


def _as_named(results: arms.Results, preset: Preset, names: Sequence[str], arguments: Namespace) -> arms.Results:
    """``results`` by the entries that ``preset`` itself names, whatever epochs the arguments gave them."""
    of = {entry: results.of[fitted(entry, arguments)] for entry in preset.entries(names)}
    return arms.Results(results.datasets, of, results.sweeps)


def _claim(
    preset: Preset, entries: Sequence[Entry], results: arms.Results, journal: Journal, arguments: Namespace
) -> ClaimResult | None:
    """None where something is missing that it needs."""
    names = [name for name in preset.datasets if name in results.datasets]
    if not names or not all(entry in results.of for entry in entries):
        return None
    costs: list[Cost] = []
    if preset.name == COST:
        for name in names:
            of = journal.costs(name)
            if of is None:
                return None
            costs += of
        decide, others = cost.effects([results.datasets[name] for name in names], costs)
    else:
        decide, others = preset.effects(_as_named(results, preset, names, arguments), names)
    return ClaimResult(
        preset.name,
        preset.statement,
        preset.source,
        preset.method,
        effects.overall(decide),
        decide,
        others,
        [results.result(entry) for entry in entries],
        costs,
    )


def _described(of: Dataset) -> dict[str, Any]:
    return {
        "domain": of.domain,
        "task": of.task,
        "source": of.source,
        "metric": of.metric,
        "classes": of.classes,
        "train": len(of.train),
        "validation": len(of.validation),
        "test": len(of.test),
    }


def study_of(
    arguments: Namespace,
    facts: dict[str, Any],
    here: Mapping[str, Dataset],
    skipped: list[Skipped],
    plan: Plan,
    journal: Journal,
    interrupted: bool,
) -> Study:
    results = arms.collect(plan.entries, effort_of(arguments), here, journal.find)
    claims = [_claim(preset, entries, results, journal, arguments) for preset, entries in plan.claims.items()]
    grid: list[ArmResult] = [results.result(entry) for entry in plan.grid if entry in results.of]
    used = {
        outcome.configuration: outcome
        for outcomes in (results.of, results.sweeps)
        for of in outcomes.values()
        for outcome in of
    }
    settings = {
        name: value if isinstance(value, (bool, int, float, str, list, type(None))) else str(value)
        for name, value in vars(arguments).items()
        if name not in ("command", "json", "html", "journal", "resume", "force", "nproc")
    }
    return Study(
        settings,
        facts,
        {name: _described(of) for name, of in here.items()},
        skipped,
        [claim for claim in claims if claim is not None],
        grid,
        list(used.values()),
        interrupted,
    )
