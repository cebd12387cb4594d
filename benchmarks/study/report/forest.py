"""Intervals beside their labels, as a study's effects are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ...report.drawing import LIGHT, figure, look, wrapped
from ...report.notation import plain
from ..claims.effects import NOT_SUPPORTED, SUPPORTED

_LABEL = 27  # characters in a line


@dataclass(frozen=True)
class Interval:
    """``band``: what would matter to nobody. ``style``: None in the colour of texts."""

    label: str
    mean: float
    low: float
    high: float
    band: tuple[float, float] = (0.0, 0.0)
    verdict: str = SUPPORTED
    style: int | None = None


def _logarithmic_from(intervals: Sequence[Interval]) -> float | None:
    """Somewhat more than what matters, where one effect would hide the others on a linear axis."""
    margin = max(abs(end) for each in intervals for end in each.band)
    farthest = max(abs(end) for each in intervals for end in (each.low, each.high))
    return 10.0 ** math.ceil(math.log10(margin)) if 0 < 60 * margin < farthest else None


def _logarithmic(axes: Axes, start: float) -> None:
    axes.set_xscale("symlog", linthresh=start)
    powers = [start]
    while powers[-1] < max(map(abs, axes.get_xlim())):
        powers.append(10 * powers[-1])
    axes.xaxis.set_major_locator(FixedLocator([*(-power for power in powers), 0.0, *powers]))
    axes.xaxis.set_minor_locator(NullLocator())


def forest(title: str, groups: Sequence[tuple[str, Sequence[Interval]]], note: str, start: float, form: str) -> Figure:
    """Each interval beside its label, a panel for each group, with the same axis and a line across at ``start``.

    ``form``: of the numbers below.
    """
    logarithmic = _logarithmic_from([row for _, rows in groups for row in rows])
    note += f" Logarithmic beyond {logarithmic:g}." if logarithmic else ""
    labels = [[wrapped(row.label, _LABEL) for row in rows] for _, rows in groups]
    # A row is as high as its label.
    heights = [[len(lines) + 0.25 for lines in of_group] for of_group in labels]
    inches = [0.16 * sum(each) for each in heights]
    drawn, axes_of = figure(title, [], [[number] for number in range(len(groups))], inches, note)
    for axes, (name, rows), texts, of_group in zip(axes_of, groups, labels, heights, strict=True):
        if axes is not axes_of[0]:
            axes.sharex(axes_of[0])
        axes.set_title(plain(name), weight="bold")
        axes.grid(axis="x")
        axes.axvline(start, color=LIGHT.text, linewidth=0.9, zorder=1)
        middles = [sum(of_group[:number]) + height / 2 for number, height in enumerate(of_group)]
        for row, y, height in zip(rows, middles, of_group, strict=True):
            if row.band[0] < row.band[1]:
                axes.barh(y, row.band[1] - row.band[0], 0.9 * height, left=row.band[0], color=LIGHT.faint, alpha=0.35)
            # Verdicts are told apart without colour: full, crossed out, empty.
            mark = look(row.style) | {"linestyle": "-"}
            if row.verdict == NOT_SUPPORTED:
                mark["marker"] = "x"
            elif row.verdict != SUPPORTED:
                mark["markerfacecolor"] = LIGHT.background
            sides = [[row.mean - row.low], [row.high - row.mean]]
            axes.errorbar([row.mean], [y], xerr=sides, elinewidth=1.6, markersize=5.5, markeredgewidth=1.4, **mark)
        axes.set_ylim(sum(of_group), 0)
        axes.set_yticks(middles, ["\n".join(lines) for lines in texts])
    for axes in axes_of:
        axes.margins(x=0.04)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        if logarithmic:
            _logarithmic(axes, logarithmic)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: form.format(x)))
    return drawn
