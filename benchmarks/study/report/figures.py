"""The figures of a study: effects, curves over epochs, dead units, gradients by depth, scores by slope, costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from ...report.drawing import MARKERS, Line, Picture, Style, Theme, named_apart, path_of
from ..claims.effects import Effect
from ..study import ArmResult, ClaimResult, Study
from ..training.configuration import DEFAULT_SLOPE
from ..training.outcome import Outcome
from . import words
from .panels import Interval, Panel, forest, labelled, panels, round_logs

Point = tuple[float, float, float, float]  # x, mean, low, high
# A function has the same colour in every figure of every study; those that are not here have one in every figure of one.
_FUNCTIONS = (
    *(f"leaky_relu {DEFAULT_SLOPE:g}", "relu", "leaky_relu 0.2", "tanh", "sigmoid", "elu"),
    *("prelu", "rrelu", "gelu", "silu"),
)
_SEEDS = "By epoch. Lines: means over seeds, bands: their range."
_STOPPED = "A run that stopped or diverged keeps its last value."
# More lines than that nobody tells apart.
_MOST = 12

Lines = Sequence[tuple[str, Sequence[Point]]]
Styles = dict[str, int]
Panels = list[Panel]


def _style(theme: Theme, number: int) -> Style:
    turn = len(theme.colors)
    return Style(theme.colors[number % turn], MARKERS[number % turn], dashed=number // turn % 2 == 1)


def _functions(study: Study) -> dict[str, int]:
    arms = [*study.arms, *(arm for claim in study.claims for arm in claim.arms)]
    others = {arm.arm.of.function for arm in arms} - set(_FUNCTIONS)
    return {name: number for number, name in enumerate((*_FUNCTIONS, *sorted(others)))}


def _numbered(study: Study, arms: Sequence[ArmResult]) -> Styles:
    """By name: that of the function where functions are what is compared, else in order."""
    names, functions = words.told_apart([arm.label for arm in arms]), [arm.arm.of.function for arm in arms]
    if len(set(functions)) == len(arms):
        of_function = _functions(study)
        return {name: of_function[function] for name, function in zip(names, functions, strict=True)}
    return {name: number for number, name in enumerate(names)}


def _lines(theme: Theme, lines: Lines, styles: Styles) -> list[Line]:
    return [Line(label, _style(theme, styles[label]), points) for label, points in lines if points]


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
        finite = [value for value in column if math.isfinite(value)]
        if finite:
            found.append((float(epoch), statistics.fmean(finite), min(finite), max(finite)))
    return found


def _log(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(round_logs(*axes.get_ylim())))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def _powers(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = (math.log10(end) for end in axes.get_ylim())
    step = max(1, math.ceil((high - low) / 5))
    axes.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(math.ceil(low), math.floor(high) + 1, step)]))
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: "10" + f"{math.log10(y):.0f}".translate(digits)))


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
    runs = dict(zip(words.told_apart([arm.label for arm in shown]), map(study.of_arm, shown), strict=True))
    last = max((outcome.epochs for of in runs.values() for outcome in of), default=0)
    styles = _numbered(study, shown)

    def of(curve: str, first: int = 0) -> Lines:
        return [(label, _over_epochs(of, curve, last, first)) for label, of in runs.items()]

    trained, validated, scored = of("train_loss", 1), of("validation_loss"), of("validation_score", 1)
    if not all(any(points for _, points in lines) for lines in (trained, validated, scored)):
        return None
    what = f", {shown[0].arm.of.function}" if len(shown) < len(arms) else ""
    title = f"{dataset}{what}: loss and {arms[0].metric}"
    alt = f"Line charts over epochs, {dataset}. At the end, validation loss and {arms[0].metric}: " + "; ".join(
        f"{label}: {losses[-1][1]:.3g}, {scores[-1][1]:.1%}"
        for (label, losses), (_, scores) in zip(validated, scored, strict=True)
        if losses and scores
    )

    def draw(theme: Theme) -> Panels:
        return [
            Panel("training loss", _lines(theme, trained, styles), _log),
            Panel("validation loss", _lines(theme, validated, styles), _log),
            Panel(f"validation {arms[0].metric}", _lines(theme, scored, styles), _share, wide=True),
        ]

    note = f"{_SEEDS} {_STOPPED}"
    return Picture(
        path_of("train", name, f"curves-{dataset}"),
        title,
        alt,
        lambda theme: panels(theme, title, draw(theme), note, _integers),
    )


def _how(arm: ArmResult) -> str:
    """What the arms of "dying-relu" share besides their functions."""
    if not arm.sweep:
        return f"learning rate {arm.learning_rate:g}"
    return "rate of its sweep" if arm.arm.of.initialisation == "he" else "biases begin at -1"


def _dead(study: Study, name: str, dataset: str, arms: Sequence[ArmResult]) -> Picture | None:
    circumstances: dict[str, list[tuple[str, list[Point]]]] = {}
    of = [(arm, study.of_arm(arm)) for arm in arms]
    last = max((run.epochs for _, runs in of for run in runs), default=0)
    for arm, runs in of:
        watched = runs if all("zero_gradient_share" in run.curves for run in runs) else []
        if points := _over_epochs(watched, "zero_gradient_share", last):
            circumstances.setdefault(_how(arm), []).append((arm.arm.of.function, points))
    if not circumstances:
        return None
    styles = _functions(study)
    title = f"{dataset}: share of dead units"
    alt = f"Line charts over epochs, {dataset}, share of dead units at the end: " + "; ".join(
        f"{label}, {how}: {points[-1][1]:.1%}" for how, lines in circumstances.items() for label, points in lines
    )
    note = f"{_SEEDS} {_STOPPED} Dead: no training sample gives it a gradient."

    def draw(theme: Theme) -> Panels:
        return [Panel(how, _lines(theme, lines, styles), _share) for how, lines in circumstances.items()]

    return Picture(
        path_of("train", name, f"dead-{dataset}"),
        title,
        alt,
        lambda theme: panels(theme, title, draw(theme), note, _integers),
    )


def _flow(study: Study, name: str, dataset: str, arms: Sequence[ArmResult]) -> Picture | None:
    """Of the gradient's norm at each activation; what is exactly 0 has no place on a logarithmic axis."""
    times: dict[str, list[tuple[str, list[Point]]]] = {}
    for when, title in (("before", "before training"), ("after", "in the last epoch")):
        for arm in arms:
            norms = [[layer.get("gradient_norm") for layer in run.layers.get(when, [])] for run in study.of_arm(arm)]
            points = []
            for depth, column in enumerate(zip(*norms, strict=False), 1):
                values = [value for value in column if isinstance(value, float) and value > 0]
                if values:
                    points.append((float(depth), statistics.geometric_mean(values), min(values), max(values)))
            if points:
                times.setdefault(title, []).append((arm.arm.of.function, points))
    if not times:
        return None
    styles = _functions(study)
    title = f"{dataset}: norm of the gradient"
    alt = f"Line charts over depth, {dataset}, norm of the gradient at the first and at the last activation: " + "; ".join(
        f"{label}, {when}: {points[0][1]:.1g} and {points[-1][1]:.1g}"
        for when, lines in times.items()
        for label, points in lines
    )
    note = "By hidden layer, at its activation. Lines: geometric means over seeds, bands: their range."

    def draw(theme: Theme) -> Panels:
        return [Panel(when, _lines(theme, lines, styles), _powers) for when, lines in times.items()]

    return Picture(
        path_of("train", name, f"gradients-{dataset}"),
        title,
        alt,
        lambda theme: panels(theme, title, draw(theme), note, _integers),
    )


def _slopes(name: str, arms: Sequence[ArmResult]) -> Picture | None:
    by_dataset: dict[str, list[Point]] = {}
    for arm in arms:
        if (slope := arm.arm.of.negative_slope) is not None and not math.isnan(arm.score.low):
            mean, low, high = (100 * value for value in (arm.score.mean, arm.score.low, arm.score.high))
            by_dataset.setdefault(f"{arm.dataset}, {arm.metric} in percent", []).append((slope, mean, low, high))
    if not any(len(points) > 2 for points in by_dataset.values()):
        return None
    title = "test score by slope"

    def scale(axes: Axes) -> None:
        axes.set_xscale("symlog", linthresh=0.01)
        axes.xaxis.set_major_locator(FixedLocator([0, 0.01, 0.1, 0.2, 0.5, 1]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))

    def draw(theme: Theme) -> Panels:
        style = _style(theme, 0)
        return [
            Panel(
                what,
                [Line("leaky_relu", style, sorted(points))],
                lambda axes: axes.yaxis.set_major_locator(MaxNLocator(4)),
                wide=True,
            )
            for what, points in by_dataset.items()
        ]

    alt = "Line charts of the test score by slope: " + "; ".join(
        f"{what}: " + ", ".join(f"{x:g}: {y:.1f}" for x, y, *_ in sorted(points)) for what, points in by_dataset.items()
    )
    note = "0 is ReLU, 1 is linear. Means over seeds and their 95 % intervals. Logarithmic above 0.01."
    return Picture(
        path_of("train", name, "scores"), title, alt, lambda theme: panels(theme, title, draw(theme), note, scale)
    )


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
    return Picture(path_of("train", name, file), title, alt, lambda theme: forest(theme, title, list(groups.items()), note))


def _costs(study: Study, name: str, claim: ClaimResult) -> Picture | None:
    of_function = _functions(study)
    groups: dict[str, list[tuple[str, Interval]]] = {}
    for each in claim.costs:
        if math.isfinite(each.ratio.low):
            row = Interval(f"{each.function} {each.ratio.mean:.2f}×", each.ratio.mean, each.ratio.low, each.ratio.high)
            groups.setdefault(each.dataset, []).append((each.function, row))
    if not groups:
        return None
    title = "time of a training step, as a multiple of relu's"
    alt = f"Intervals, {title}: " + "; ".join(
        f"{dataset}: " + ", ".join(row.label for _, row in rows) for dataset, rows in groups.items()
    )
    note = "Means over passes and their 95 % intervals. Left of 1: faster than relu."

    def draw(theme: Theme) -> list[tuple[str, list[tuple[Interval, Style]]]]:
        return [
            (dataset, [(row, _style(theme, of_function.get(function, 0))) for function, row in rows])
            for dataset, rows in groups.items()
        ]

    return Picture(path_of("train", name, "steps"), title, alt, lambda theme: labelled(theme, title, draw(theme), 1.0, note))


def of_claim(study: Study, claim: ClaimResult) -> list[Picture]:
    name = claim.name
    found: list[Picture | None] = [_costs(study, name, claim)]
    measures = list(dict.fromkeys(each.measure for each in claim.effects if not claim.costs))  # costs have their figure
    for number, measure in enumerate(measures, 1):
        effects = [each for each in claim.effects if each.measure == measure]
        found.append(_effects(name, "effects" + f"-{number}" * (number > 1), effects, claim.effects + claim.others))
    for dataset in dict.fromkeys(arm.dataset for arm in claim.arms):
        arms = [arm for arm in claim.arms if arm.dataset == dataset]
        if name == "dying-relu":
            found.append(_dead(study, name, dataset, arms))
        elif name == "vanishing-gradients":
            found.append(_flow(study, name, dataset, arms))
            found.append(_curves(study, name, dataset, arms))
        elif name not in ("slope", "domains"):
            found.append(_curves(study, name, dataset, arms))
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
