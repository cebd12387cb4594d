"""All that one call of `leakyrelu-bench train` has found, as a file that `leakyrelu-bench report` reads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..results import FORMAT, STUDY, VERSION, ResultsError, document, write
from .claims.effects import VERDICTS, Effect, Interval
from .training import outcome as outcomes
from .training.configuration import Arm, from_dict
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
    verdict: str
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
    interrupted: bool = False

    def of_arm(self, result: ArmResult) -> list[Outcome]:
        """Its finished runs, by seed, without the sweep's."""
        chosen = [o for o in self.outcomes if Arm(o.configuration) == result.arm]
        chosen = [o for o in chosen if o.configuration.learning_rate == result.learning_rate and o.configuration.seed >= 0]
        return sorted(chosen, key=lambda o: o.configuration.seed)


def _plain(value: Any) -> Any:
    """For JSON: None for what is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value


def save(study: Study, path: Path) -> None:
    """Writes it as JSON, a line a run.

    Raises:
        ResultsError: the file cannot be written.
    """
    head = {
        "format": FORMAT,
        "version": VERSION,
        "suite": STUDY,
        "interrupted": study.interrupted,
        **{of.name: _plain(_entries(getattr(study, of.name))) for of in fields(Study) if of.name not in _APART},
    }
    for claim, entry in zip(study.claims, head["claims"], strict=True):
        for effect, line in zip(claim.effects + claim.others, entry["effects"] + entry["others"], strict=True):
            line["verdict"] = effect.verdict
    lines = ",\n  ".join(json.dumps(outcomes.to_dict(each), ensure_ascii=False, allow_nan=False) for each in study.outcomes)
    text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False)[:-2]
    write(path, f'{text},\n "outcomes": [\n  {lines}\n ]\n}}\n' if lines else f'{text},\n "outcomes": []\n}}\n')


_APART = ("outcomes", "interrupted")


def _entries(value: Any) -> Any:
    if isinstance(value, list):
        return [asdict(each) for each in value]
    return value


def _interval(entry: dict[str, Any]) -> Interval:
    return Interval(_number(entry["mean"]), _number(entry["low"]), _number(entry["high"]), int(entry["count"]))


def _number(value: Any) -> float:
    """None stands for what is not finite."""
    return math.nan if value is None else float(value)


def _effect(entry: dict[str, Any]) -> Effect:
    kinds: dict[str, Callable[[Any], Any]] = {
        "mean": _number,
        "low": _number,
        "high": _number,
        "margin": float,
        "seeds": int,
    }
    return Effect(**{of.name: kinds.get(of.name, str)(entry[of.name]) for of in fields(Effect)})


def _arm(entry: dict[str, Any]) -> ArmResult:
    return ArmResult(
        arm=Arm(from_dict(entry["arm"]["of"])),
        domain=str(entry["domain"]),
        metric=str(entry["metric"]),
        learning_rate=float(entry["learning_rate"]),
        sweep={str(rate): None if loss is None else float(loss) for rate, loss in entry["sweep"].items()},
        score=_interval(entry["score"]),
        scores=[float(score) for score in entry["scores"]],
        diverged=int(entry["diverged"]),
        epochs=float(entry["epochs"]),
        dead_share=None if entry["dead_share"] is None else float(entry["dead_share"]),
        gradient_norm_ratio=None if entry["gradient_norm_ratio"] is None else float(entry["gradient_norm_ratio"]),
        seconds_per_epoch=float(entry["seconds_per_epoch"]),
    )


def cost_from_json(entry: dict[str, Any]) -> Cost:
    return Cost(str(entry["dataset"]), str(entry["function"]), float(entry["seconds"]), _interval(entry["ratio"]))


def _claim(entry: dict[str, Any]) -> ClaimResult:
    if entry["verdict"] not in VERDICTS:
        raise ValueError(f"verdict {entry['verdict']!r}")
    return ClaimResult(
        name=str(entry["name"]),
        statement=str(entry["statement"]),
        source=str(entry["source"]),
        method=str(entry["method"]),
        verdict=entry["verdict"],
        effects=[_effect(each) for each in entry["effects"]],
        others=[_effect(each) for each in entry["others"]],
        arms=[_arm(each) for each in entry["arms"]],
        costs=[cost_from_json(each) for each in entry["costs"]],
    )


def load(path: Path) -> Study:
    """Reads what :func:`save` wrote.

    Raises:
        ResultsError: the file is missing, unreadable, not JSON, not of this program, or of a later version of it.
    """
    found = document(path)
    if found.get("suite") != STUDY:
        raise ResultsError(f"{path}: of the suite {found.get('suite')!r}, not {STUDY!r}")
    try:
        return Study(
            dict(found["arguments"]),
            dict(found["environment"]),
            {name: dict(of) for name, of in found["datasets"].items()},
            [Skipped(str(each["dataset"]), str(each["why"]), str(each["command"])) for each in found["skipped"]],
            [_claim(each) for each in found["claims"]],
            [_arm(each) for each in found["arms"]],
            [outcomes.from_json(each) for each in found["outcomes"]],
            bool(found["interrupted"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ResultsError(f"{path}: damaged: {type(error).__name__}: {error}") from error
