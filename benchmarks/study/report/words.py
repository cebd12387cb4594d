"""A study's figures as words, the same on a terminal, on a page and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...report.notation import NOTHING
from ..claims.effects import VERDICTS, Effect
from ..study import ArmResult, Cost
from ..training.names import ACTIVATIONS, INITIALISATIONS, OPTIMISERS, REGULARISATIONS, SCHEDULES

# The verdict first: a phone shows three columns or four.
EFFECTS = ("verdict", "dataset", "arm", "against", "measure", "effect (+ as claimed)", "95 % interval", "margin", "seeds")
ARMS = (
    "dataset",
    "arm",
    "metric",
    "learning rate",
    "test score",
    "95 % interval",
    "epochs",
    "diverged",
    "dead units",
    "gradient ratio",
    "ms/epoch",
)
DATASETS = ("dataset", "domain", "task", "source", "metric", "classes", "train", "validation", "test")
SKIPPED = ("dataset", "why", "install it with")
COSTS = ("dataset", "activation", "training step", "against relu", "95 % interval")
# What a label leaves unsaid, by the words that would stand there.
_TOLD: dict[str, tuple[str, ...]] = {"he": INITIALISATIONS, "none": REGULARISATIONS, "adam": OPTIMISERS}
_UNTOLD: dict[str, tuple[str, ...]] = {"constant": SCHEDULES, "early stopping": ("no early stopping",)}
# By unit: the factor, how it is written and with how many decimals.
_UNITS = {
    "share": (100.0, " %", 1),
    "points": (1.0, " points", 2),
    "log10": (1.0, " log10", 2),
    "nats": (1.0, " nats", 3),
    "ratio": (1.0, "", 3),
}


def _parts(label: str) -> list[str]:
    return label.replace(" at learning rate ", ", learning rate ").split(", ")


def shared(labels: Sequence[str]) -> list[str]:
    """The parts of an arm's label that all of ``labels`` have."""
    first, *rest = [_parts(label) for label in labels]
    return [part for part in first if all(part in other for other in rest)]


def told_apart(labels: Sequence[str]) -> list[str]:
    """Of each label what the others do not have, too, and what it leaves unsaid where they say another: "relu" and
    "leaky_relu 0.01", whatever else both are; "adam" and "sgd"."""
    common = shared(labels)
    own = [[part for part in _parts(label) if part not in common] for label in labels]
    differing = {part for parts in own for part in parts}

    def named(label: str, parts: list[str]) -> str:
        def unsaid(kinds: dict[str, tuple[str, ...]]) -> list[str]:
            return [usual for usual, kind in kinds.items() if differing & set(kind) and not set(parts) & set(kind)]

        functions = [part for part in parts if part == parts[0] and part.split(" ")[0] in ACTIVATIONS]
        whole = functions + unsaid(_TOLD) + parts[len(functions) :]
        return ", ".join(whole or unsaid(_UNTOLD)) or label

    return [named(label, parts) for label, parts in zip(labels, own, strict=True)]


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # no "-0.00"


def _figures(of: Effect) -> tuple[str, str, str]:
    """The mean, the interval and the unit."""
    factor, unit, digits = _UNITS.get(of.unit, (1.0, f" {of.unit}", 3))
    mean, low, high = (NOTHING if math.isnan(x) else _signed(factor * x, digits) for x in (of.mean, of.low, of.high))
    return mean, NOTHING if NOTHING in (low, high) else f"{low} … {high}", unit * (mean != NOTHING)


def without_unit(of: Effect) -> str:
    return _figures(of)[0]


def contrast(of: Effect, among: Sequence[Effect]) -> tuple[str, str]:
    """Arm and baseline by what tells them apart; in brackets what both are and not all of ``among`` on that dataset."""
    arm, baseline = told_apart([of.arm, of.baseline])
    beside = [each for each in among if each.dataset == of.dataset]
    common = shared([label for each in beside for label in (each.arm, each.baseline)])
    both = [part for part in shared([of.arm, of.baseline]) if part not in common]
    return (f"{arm} ({', '.join(both)})" if both else arm), baseline


def effect(of: Effect, among: Sequence[Effect]) -> list[str]:
    """Cells under EFFECTS; ``among``: all of its claim."""
    mean, bounds, unit = _figures(of)
    factor = _UNITS.get(of.unit, (1.0,))[0]
    margin = f"{factor * of.margin:g}"
    return [of.verdict, of.dataset, *contrast(of, among), of.measure, mean + unit, bounds, margin, str(of.seeds)]


def _score(of: ArmResult) -> tuple[str, str]:
    """In percent of the metric, and its interval."""
    mean, low, high = (100 * value for value in (of.score.mean, of.score.low, of.score.high))
    return f"{mean:.1f}", NOTHING if math.isnan(low) else f"{low:.1f} … {min(high, 100.0):.1f}"


def names(arms: Sequence[ArmResult]) -> list[str]:
    """Of each what tells it apart from the others on its dataset."""
    found: dict[int, str] = {}
    for dataset in {each.dataset for each in arms}:
        numbers = [number for number, each in enumerate(arms) if each.dataset == dataset]
        found.update(zip(numbers, told_apart([arms[number].label for number in numbers]), strict=True))
    return [found[number] for number in range(len(arms))]


def common(arms: Sequence[ArmResult]) -> str:
    """What the names leave out: a sentence for each dataset, or nothing."""
    by_dataset: dict[str, list[str]] = {}
    for each in arms:
        by_dataset.setdefault(each.dataset, []).append(each.label)
    sentences: dict[str, list[str]] = {}
    for dataset, labels in by_dataset.items():
        if len(labels) > 1 and (parts := shared(labels)):
            sentences.setdefault(", ".join(parts), []).append(dataset)
    return " ".join(f"All on {', '.join(datasets)}: {parts}." for parts, datasets in sentences.items())


def _arm(of: ArmResult, name: str) -> list[str]:
    mean, bounds = _score(of)
    return [
        of.dataset,
        name,
        of.metric,
        f"{of.learning_rate:g}" + " (given)" * (not of.sweep),
        mean,
        bounds,
        f"{of.epochs:.1f}",
        f"{of.diverged} of {len(of.scores)}",
        NOTHING if of.dead_share is None else f"{of.dead_share:.1%}",
        NOTHING if of.gradient_norm_ratio is None else f"{of.gradient_norm_ratio:.2g}",
        f"{of.seconds_per_epoch * 1e3:.0f}",
    ]


def arms(of: Sequence[ArmResult]) -> list[list[str]]:
    """Cells under ARMS."""
    return [_arm(each, name) for each, name in zip(of, names(of), strict=True)]


def cost(of: Cost) -> list[str]:
    """Cells under COSTS."""
    bounds = NOTHING if math.isnan(of.ratio.low) else f"{of.ratio.low:.3f} … {of.ratio.high:.3f}"
    return [of.dataset, of.function, f"{of.seconds * 1e3:.2f} ms", f"{of.ratio.mean:.3f}", bounds]


def datasets(of: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Cells under DATASETS."""
    return [[name, *(str(facts.get(column, NOTHING)) for column in DATASETS[1:])] for name, facts in of.items()]


def counted(effects: Sequence[Effect]) -> str:
    """How many have which verdict: "3 supported, 1 undecided"."""
    verdicts = [each.verdict for each in effects]
    return ", ".join(f"{verdicts.count(each)} {each}" for each in VERDICTS if each in verdicts) or "no effect measured"
