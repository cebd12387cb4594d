"""The figures of a study: effects, curves over epochs, dead units, gradients by depth, scores by slope, costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from ...report.charts import Line, Panel, Point, panels
from ...report.drawing import Picture, named_apart, path_of
from ..claims.effects import Effect
from ..study import ArmResult, ClaimResult, Study
from ..training.configuration import DEFAULT_SLOPE
from ..training.outcome import Outcome
from . import words
from .forest import Interval, forest

# A function has the same colour in every figure of every study; those that are not here have one in every figure of one.
_FUNCTIONS = (
    *(f"leaky_relu {DEFAULT_SLOPE:g}", "relu", "leaky_relu 0.2", "tanh", "sigmoid", "elu"),
    *("prelu", "rrelu", "gelu", "silu"),
)
_SEEDS = "By epoch. Lines: means over seeds, bands: their range."
_STOPPED = "A run that stopped or diverged keeps its last value."
# More lines than that nobody tells apart.
_MOST = 12


def _functions(study: Study) -> dict[str, int]:
    arms = [*study.arms, *(arm for claim in study.claims for arm in claim.arms)]
    others = {arm.arm.of.function for arm in arms} - set(_FUNCTIONS)
    return {name: number for number, name in enumerate((*_FUNCTIONS, *sorted(others)))}


def _numbered(study: Study, arms: Sequence[ArmResult]) -> dict[str, int]:
    """By name: that of the function where functions are what is compared, else in order."""
    names, functions = words.told_apart([arm.label for arm in arms]), [arm.arm.of.function for arm in arms]
    if len(set(functions)) == len(arms):
        of_function = _functions(study)
        return {name: of_function[function] for name, function in zip(names, functions, strict=True)}
    return {name: number for number, name in enumerate(names)}


def _spread(values: Sequence[float], x: float, mean: Callable[[Sequence[float]], float] = statistics.fmean) -> list[Point]:
    return [(x, mean(values), min(values), max(values))] if values else []


def _picture(name: str, title: str, alt: str, draw: Callable[..., Figure], *what: Any) -> Picture:
    """``draw``: of charts or of forest; what it takes after the title is ``what``."""
    return Picture(name, title, alt, lambda: draw(title, *what))


def _over_epochs(outcomes: Sequence[Outcome], curve: str, last: int, first: int = 0) -> list[Point]:
    """Mean and range over seeds, to the epoch ``last``; a run that stopped goes on with its last finite value."""
    curves = []
    for each in outcomes:
        values = list(each.curves[curve][first:]) or [math.nan]
        for index in range(1, len(values)):
            if not math.isfinite(values[index]):
                values[index] = values[index - 1]
        curves.append(values + values[-1:] * (last + 1 - first - len(values)))
    found = []
    for epoch, column in enumerate(zip(*curves, strict=True), first):
        found += _spread([value for value in column if math.isfinite(value)], float(epoch))
    return found


def _round_logs(low: float, high: float) -> list[float]:
    """A few round numbers between two on a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(found) <= 5:
            return found
    return found[:: math.ceil(len(found) / 5)]


def _log(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(_round_logs(*axes.get_ylim())))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def _share(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _integers(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10), integer=True))


def _of_one_function(arms: Sequence[ArmResult]) -> Sequence[ArmResult]:
    """Where each of several functions comes in several ways, those of the first: others are in the tables."""
    functions = [arm.arm.of.function for arm in arms]
    if len(arms) in (len(set(functions)), functions.count(functions[0])):
        return arms
    return [arm for arm in arms if arm.arm.of.function == functions[0]]


def _curves(study: Study, name: str, dataset: str, arms: Sequence[ArmResult]) -> Picture | None:
    shown = _of_one_function(arms)
    styles = _numbered(study, shown)
    runs = dict(zip(words.told_apart([arm.label for arm in shown]), map(study.of_arm, shown), strict=True))
    last = max((outcome.epochs for of in runs.values() for outcome in of), default=0)

    def of(curve: str, first: int = 0) -> list[Line]:
        lines = [Line(label, styles[label], _over_epochs(of, curve, last, first)) for label, of in runs.items()]
        return [line for line in lines if line.points]

    trained, validated, scored = of("train_loss", 1), of("validation_loss"), of("validation_score", 1)
    if not (trained and validated and scored):
        return None
    metric, what = arms[0].metric, f", {shown[0].arm.of.function}" if len(shown) < len(arms) else ""
    losses, scores = ({line.label: line.points[-1][1] for line in lines} for lines in (validated, scored))
    alt = f"Line charts over epochs, {dataset}. At the end, validation loss and {metric}: " + "; ".join(
        f"{label}: {loss:.3g}, {scores[label]:.1%}" for label, loss in losses.items() if label in scores
    )
    of_panels = [
        Panel("training loss", trained, _log),
        Panel("validation loss", validated, _log),
        Panel(f"validation {metric}", scored, _share, wide=True),
    ]
    title = f"{dataset}{what}: loss and {metric}"
    return _picture(
        path_of("train", name, f"curves-{dataset}"), title, alt, panels, of_panels, f"{_SEEDS} {_STOPPED}", _integers
    )


def _how(arm: ArmResult) -> str:
    """What the arms of "dying-relu" share besides their functions."""
    if not arm.sweep:
        return f"learning rate {arm.learning_rate:g}"
    return "rate of its sweep" if arm.arm.of.initialisation == "he" else "biases begin at -1"


def _dead(study: Study, name: str, dataset: str, arms: Sequence[ArmResult]) -> Picture | None:
    by_circumstances: dict[str, list[Line]] = {}
    styles, of = _functions(study), [(arm, study.of_arm(arm)) for arm in arms]
    last = max((run.epochs for _, runs in of for run in runs), default=0)
    for arm, runs in of:
        watched = runs if all("zero_gradient_share" in run.curves for run in runs) else []
        if points := _over_epochs(watched, "zero_gradient_share", last):
            function = arm.arm.of.function
            by_circumstances.setdefault(_how(arm), []).append(Line(function, styles[function], points))
    if not by_circumstances:
        return None
    alt = f"Line charts over epochs, {dataset}, share of dead units at the end: " + "; ".join(
        f"{line.label}, {how}: {line.points[-1][1]:.1%}" for how, lines in by_circumstances.items() for line in lines
    )
    note = f"{_SEEDS} {_STOPPED} Dead: no training sample gives it a gradient."
    of_panels = [Panel(how, lines, _share) for how, lines in by_circumstances.items()]
    return _picture(
        path_of("train", name, f"dead-{dataset}"), f"{dataset}: share of dead units", alt, panels, of_panels, note, _integers
    )


def _flow(study: Study, name: str, dataset: str, arms: Sequence[ArmResult]) -> Picture | None:
    """Of the gradient's norm at each activation; what is exactly 0 has no place on a logarithmic axis."""
    times: dict[str, list[Line]] = {}
    styles = _functions(study)
    for when, title in (("before", "before training"), ("after", "in the last epoch")):
        for arm in arms:
            norms = [[layer.get("gradient_norm") for layer in run.layers.get(when, [])] for run in study.of_arm(arm)]
            points: list[Point] = []
            for depth, column in enumerate(zip(*norms, strict=False), 1):
                values = [value for value in column if isinstance(value, float) and value > 0]
                points += _spread(values, float(depth), statistics.geometric_mean)
            if points:
                function = arm.arm.of.function
                times.setdefault(title, []).append(Line(function, styles[function], points))
    if not times:
        return None
    alt = f"Line charts over depth, {dataset}, norm of the gradient at the first and at the last activation: " + "; ".join(
        f"{line.label}, {when}: {line.points[0][1]:.1g} and {line.points[-1][1]:.1g}"
        for when, lines in times.items()
        for line in lines
    )
    note = "By hidden layer, at its activation. Lines: geometric means over seeds, bands: their range."
    of_panels = [Panel(when, lines, _log) for when, lines in times.items()]
    return _picture(
        path_of("train", name, f"gradients-{dataset}"),
        f"{dataset}: norm of the gradient",
        alt,
        panels,
        of_panels,
        note,
        _integers,
    )


def _over_slopes(axes: Axes) -> None:
    axes.set_xscale("symlog", linthresh=0.01)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.01, 0.1, 0.2, 0.5, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _slopes(name: str, arms: Sequence[ArmResult]) -> Picture | None:
    by_dataset: dict[str, list[Point]] = {}
    for arm in arms:
        if (slope := arm.arm.of.negative_slope) is not None and not math.isnan(arm.score.low):
            mean, low, high = (100 * value for value in (arm.score.mean, arm.score.low, arm.score.high))
            by_dataset.setdefault(f"{arm.dataset}, {arm.metric} in percent", []).append((slope, mean, low, high))
    if not any(len(points) > 2 for points in by_dataset.values()):
        return None
    alt = "Line charts of the test score by slope: " + "; ".join(
        f"{what}: " + ", ".join(f"{x:g}: {y:.1f}" for x, y, *_ in sorted(points)) for what, points in by_dataset.items()
    )
    note = "0 is ReLU, 1 is linear. Means over seeds and their 95 % intervals. Logarithmic above 0.01."
    of_panels = [
        Panel(what, [Line("leaky_relu", 0, sorted(points))], lambda axes: axes.locator_params("y", nbins=4), wide=True)
        for what, points in by_dataset.items()
    ]
    return _picture(path_of("train", name, "scores"), "test score by slope", alt, panels, of_panels, note, _over_slopes)


def _effects(name: str, file: str, effects: Sequence[Effect], among: Sequence[Effect]) -> Picture | None:
    """Of one measure. A contrast that all have in common is said once, in the title."""
    effects = [each for each in effects if not math.isnan(each.low)]
    if not effects:
        return None
    contrasts = [" against ".join(words.contrast(each, among)) for each in effects]
    one = len(set(contrasts)) == 1
    title = f"{contrasts[0] if one else 'effects'}: {effects[0].measure}"
    groups: dict[str, list[Interval]] = {}
    for each, contrast in zip(effects, contrasts, strict=True):
        label = f"{each.dataset if one else contrast}: {words.without_unit(each)}, {each.verdict}"
        band = min(0.0, each.margin), max(0.0, each.margin)
        row = Interval(label, each.mean, each.low, each.high, band, each.verdict)
        groups.setdefault("" if one else each.dataset, []).append(row)
    alt = f"Intervals, {title}. " + "; ".join(
        f"{dataset} {row.label}".strip() for dataset, rows in groups.items() for row in rows
    )
    note = f"In {effects[0].unit}; lines: 95 % intervals over seeds. Right of 0: as claimed. Grey: too little to matter."
    return _picture(path_of("train", name, file), title, alt, forest, list(groups.items()), note, 0.0, "{:g}")


def _costs(study: Study, claim: ClaimResult) -> Picture | None:
    styles = _functions(study)
    groups: dict[str, list[Interval]] = {}
    for each in claim.costs:
        if math.isfinite(each.ratio.low):
            mean, style = each.ratio.mean, styles.get(each.function, 0)
            row = Interval(f"{each.function} {mean:.2f}×", mean, each.ratio.low, each.ratio.high, style=style)
            groups.setdefault(each.dataset, []).append(row)
    if not groups:
        return None
    title = "time of a training step, as a multiple of relu's"
    alt = f"Intervals, {title}: " + "; ".join(
        f"{dataset}: " + ", ".join(row.label for row in rows) for dataset, rows in groups.items()
    )
    note = "Means over passes and their 95 % intervals. Left of 1: faster than relu."
    return _picture(path_of("train", claim.name, "steps"), title, alt, forest, list(groups.items()), note, 1.0, "{:g}×")


def of_claim(study: Study, claim: ClaimResult) -> list[Picture]:
    name = claim.name
    found: list[Picture | None] = [_costs(study, claim)]
    measures = list(dict.fromkeys(each.measure for each in claim.effects if not claim.costs))  # costs have their figure
    for number, measure in enumerate(measures, 1):
        effects = [each for each in claim.effects if each.measure == measure]
        found.append(_effects(name, "effects" + f"-{number}" * (number > 1), effects, claim.effects + claim.others))
    of_dataset = {"dying-relu": (_dead,), "vanishing-gradients": (_flow, _curves), "slope": (), "domains": ()}
    for dataset in dict.fromkeys(arm.dataset for arm in claim.arms):
        arms = [arm for arm in claim.arms if arm.dataset == dataset]
        found += [draw(study, name, dataset, arms) for draw in of_dataset.get(name, (_curves,))]
    if name == "slope":
        found.append(_slopes(name, claim.arms))
    return named_apart(picture for picture in found if picture)


def of_grid(study: Study) -> list[Picture]:
    found = []
    for dataset in dict.fromkeys(arm.dataset for arm in study.arms):
        arms = [arm for arm in study.arms if arm.dataset == dataset]
        if len(_of_one_function(arms)) <= _MOST:
            found.append(_curves(study, "grid", dataset, arms))
    return named_apart(picture for picture in found if picture)


def pictures(study: Study) -> list[Picture]:
    return [picture for claim in study.claims for picture in of_claim(study, claim)] + of_grid(study)
