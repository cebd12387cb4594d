"""From finished runs to a study: results of arms, effects and verdicts."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from ..data import Dataset
from ..study import ClaimResult, Skipped, Study
from ..training.journal import Journal
from . import arms, cost, effects, presets
from .plan import COST, Plan, effort_of, entries_of
from .presets import Arms, Preset


def _claim(preset: Preset, by_dataset: Mapping[str, Arms], results: arms.Results, journal: Journal) -> ClaimResult | None:
    """None where something is missing that it needs."""
    entries = entries_of(by_dataset)
    costs = [journal.costs(dataset) for dataset in by_dataset] if preset.name == COST else []
    if not by_dataset or None in costs or not all(entry in results.of for entry in entries):
        return None
    timed = [each for of in costs for each in of or ()]
    if preset.name == COST:
        decide, others = cost.effects([results.datasets[dataset] for dataset in by_dataset], timed)
    else:
        of_datasets = list(by_dataset.values())
        decide, others = (presets.effects(of, results, of_datasets) for of in (preset.decide, preset.beside))
    return ClaimResult(
        preset.name,
        preset.statement,
        preset.source,
        preset.method,
        effects.overall(decide),
        decide,
        others,
        [results.result(entry) for entry in entries],
        timed,
    )


def _described(of: Dataset) -> dict[str, Any]:
    facts = {name: getattr(of, name) for name in ("domain", "task", "source", "metric", "classes")}
    return {**facts, **{name: len(getattr(of, name)) for name in ("train", "validation", "test")}}


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
    claims = [_claim(preset, by_dataset, results, journal) for preset, by_dataset in plan.claims.items()]
    used = {outcome.configuration: outcome for of in (*results.of.values(), *results.sweeps.values()) for outcome in of}
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
        [results.result(entry) for entry in plan.grid if entry in results.of],
        list(used.values()),
        interrupted,
    )
