"""All that one call of `leakyrelu-bench train` has found, as a file that `leakyrelu-bench report` reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ..results import FORMAT, STUDY, VERSION, ResultsError, document, write
from .as_json import read
from .claims.effects import Effect, Interval, Verdict
from .training.configuration import Arm
from .training.outcome import Outcome


@dataclass(frozen=True)
class Skipped:
    """A dataset that is not here: ``command`` installs it."""

    dataset: str
    why: str
    command: str


@dataclass(frozen=True)
class ArmResult:
    """One arm after its sweep: ``sweep`` holds the lowest validation loss by learning rate, mean over its seeds (None: one
    diverged at once); it is empty where the learning rate was given.

    ``scores``: of the test split, one of each seed; the other lists go with them, None where not watched.
    """

    arm: Arm
    domain: str
    metric: str
    learning_rate: float
    sweep: dict[str, float | None]
    score: Interval
    scores: list[float]
    diverged: int  # of its seeds
    epochs: float  # trained, mean
    dead_share: float | None  # units without a gradient from any sample, at the end, mean over seeds
    gradient_norm_ratio: float | None  # before training, geometric mean over seeds
    seconds_per_epoch: float

    @property
    def dataset(self) -> str:
        return self.arm.of.dataset

    @property
    def label(self) -> str:
        return self.arm.label


@dataclass(frozen=True)
class Cost:
    """A training step of one network with one activation, all activations in turn; ``ratio``: its time / relu's."""

    dataset: str
    function: str
    seconds: float
    ratio: Interval


@dataclass(frozen=True)
class ClaimResult:
    """``effects`` decide; ``others`` are shown beside, such as the same comparison with another slope."""

    name: str
    statement: str
    source: str  # who says it
    method: str  # what was run, in a sentence
    verdict: Verdict
    effects: list[Effect]
    others: list[Effect]
    arms: list[ArmResult]
    costs: list[Cost]


@dataclass(frozen=True)
class Study:
    """``claims``: of the presets that were run; ``arms``: of a grid, without one."""

    arguments: dict[str, Any]
    environment: dict[str, Any]
    datasets: dict[str, dict[str, Any]]  # of those used: task, source, metric, classes, sizes of the splits
    skipped: list[Skipped]
    claims: list[ClaimResult]
    arms: list[ArmResult]
    outcomes: list[Outcome]
    interrupted: bool

    def of_arm(self, result: ArmResult) -> list[Outcome]:
        """Its finished runs, by seed, without the sweep's."""
        chosen = [o for o in self.outcomes if Arm(o.configuration) == result.arm]
        chosen = [o for o in chosen if o.configuration.learning_rate == result.learning_rate and o.configuration.seed >= 0]
        return sorted(chosen, key=lambda o: o.configuration.seed)


_STUDY = TypeAdapter(Study)


def save(study: Study, path: Path) -> None:
    """Writes it as JSON, a line a run.

    Raises:
        ResultsError: the file cannot be written.
    """
    head = {"format": FORMAT, "version": VERSION, "suite": STUDY, **_STUDY.dump_python(study, mode="json")}
    lines = ",\n  ".join(json.dumps(each, ensure_ascii=False, allow_nan=False) for each in head.pop("outcomes"))
    text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False)[:-2]
    write(path, f'{text},\n "outcomes": [\n  {lines}\n ]\n}}\n' if lines else f'{text},\n "outcomes": []\n}}\n')


def load(path: Path) -> Study:
    """Reads what :func:`save` wrote.

    Raises:
        ResultsError: the file is missing, unreadable, not JSON, not of this program, or of a later version of it.
    """
    found = document(path)
    if found.get("suite") != STUDY:
        raise ResultsError(f"{path}: of the suite {found.get('suite')!r}, not {STUDY!r}")
    try:
        return read(_STUDY, json.dumps(found))
    except ValueError as error:
        raise ResultsError(f"{path}: damaged: {error}") from error
