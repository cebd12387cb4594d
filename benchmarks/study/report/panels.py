"""How the figures of a study are drawn: panels of lines, and intervals beside their labels. Matplotlib lays them out."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ...report.drawing import MARKERS, Style, Theme
from ...report.notation import plain
from ..claims.effects import NOT_SUPPORTED, SUPPORTED

WIDTH = 4.2  # inches: on a phone, where a figure is as wide as the screen, 9.5 points come to 10 pixels
_TITLE, _LEGEND, _NOTE, _LABEL = 42, 52, 62, 27  # characters in a line
_LINE, _AROUND = 0.18, 0.42  # inches: a line of text; title and ticks of a panel
Point = tuple[float, float, float, float]  # x, mean, low, high
Scale = Callable[[Axes], object]  # what is done to axes once all lines are there


@dataclass(frozen=True)
class Line:
    """``style``: a number, the same in every figure for the same thing."""

    label: str
    style: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Panel:
    """``wide``: across the whole figure, with a scale of its own; the others stand in pairs and share theirs."""

    title: str
    lines: Sequence[Line]
    scale: Scale
    wide: bool = False


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


def _style(theme: Theme, number: int | None) -> Style:
    if number is None:
        return Style(theme.text, MARKERS[0])
    turn, index = divmod(number, len(theme.colors))
    return Style(theme.colors[index], MARKERS[index], dashed=turn % 2 == 1)


def _look(theme: Theme, style: Style) -> dict[str, Any]:
    face = theme.background if style.dashed else style.color
    line = "--" if style.dashed else "-"
    return {"color": style.color, "linestyle": line, "marker": style.marker, "markerfacecolor": face}


def settings(theme: Theme) -> dict[Any, Any]:
    """Matplotlib's, under which a figure is made."""
    faces = dict.fromkeys(("figure.facecolor", "axes.facecolor"), theme.background)
    texts = ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor", "axes.titlecolor")
    faint = ("axes.edgecolor", "grid.color", "xtick.color", "ytick.color")
    spines = {f"axes.spines.{side}": False for side in ("left", "right", "top")}
    sizes = {"axes.titlesize": 9.5, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.fontsize": 9.5}
    grid = {"axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3, "grid.linewidth": 0.6}
    ticks = {"xtick.major.size": 2.5, "ytick.major.size": 0.0, "xtick.major.pad": 2, "ytick.major.pad": 2}
    colours = {**faces, **dict.fromkeys(texts, theme.text), **dict.fromkeys(faint, theme.faint)}
    return {**colours, **spines, **sizes, **grid, **ticks, "axes.titlelocation": "left", "axes.titlepad": 3}


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(plain(text), width) or [""]


def _figure(
    title: str, legend: Sequence[Line2D], rows: list[Any], heights: Sequence[float], note: str
) -> tuple[Figure, list[Axes]]:
    """``rows``: the numbers of the axes in each, -1 for none; ``heights``: of the rows, in inches."""
    titles, notes = _wrapped(title, _TITLE), _wrapped(note, _NOTE)
    longest = max((len(str(handle.get_label())) for handle in legend), default=1)
    columns = max(1, min(len(legend), _LEGEND // (longest + 5)))
    lines = len(titles) + math.ceil(len(legend) / columns) + len(notes)
    drawn = Figure((WIDTH, sum(heights) + _AROUND * len(rows) + _LINE * lines + 0.1), layout="constrained")
    axes = drawn.subplot_mosaic(rows, empty_sentinel=-1, height_ratios=heights)
    drawn.legend(
        handles=legend, loc="outside upper left", ncols=columns, alignment="left", frameon=False, borderaxespad=0.2,
        title="\n".join(titles), title_fontproperties={"weight": "bold", "size": 11},
        handlelength=1.6, columnspacing=1.2, handletextpad=0.5, labelspacing=0.25,
    )  # fmt: skip
    drawn.supxlabel("\n".join(notes), x=0.03, ha="left", size=8.5, linespacing=1.1)
    return drawn, [axes[number] for number in sorted(axes)]


def round_logs(low: float, high: float) -> list[float]:
    """A few round numbers between two on a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(found) <= 5:
            return found
    return found[:: math.ceil(len(found) / 5)]


def panels(theme: Theme, title: str, of: Sequence[Panel], note: str, over: Scale) -> Figure:
    """Small multiples; ``over``: what is done to the horizontal axis of each."""
    styles = {line.label: _style(theme, line.style) for panel in of for line in panel.lines}
    legend = [Line2D([], [], label=plain(label), markersize=4, **_look(theme, style)) for label, style in styles.items()]
    narrow = [number for number, panel in enumerate(of) if not panel.wide]
    rows = [[*narrow[first : first + 2], -1][:2] for first in range(0, len(narrow), 2)]
    rows += [[number, number] for number, panel in enumerate(of) if panel.wide]
    drawn, axes_of = _figure(title, legend, rows, [1.1] * len(rows), note)
    for axes, panel in zip(axes_of, of, strict=True):
        if axes is not axes_of[0]:
            axes.sharex(axes_of[0])
        if not panel.wide and axes is not axes_of[narrow[0]]:
            axes.sharey(axes_of[narrow[0]])
        axes.set_title(plain(panel.title))
        axes.grid(visible=False, axis="x")
        for line in panel.lines:
            x, y, low, high = zip(*line.points, strict=True)
            look = _look(theme, styles[line.label])
            axes.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
            axes.plot(x, y, linewidth=1.4, markersize=3.4, markevery=max(1, len(x) // 6), **look)
    for number, (axes, panel) in enumerate(zip(axes_of, of, strict=True)):
        panel.scale(axes)
        over(axes)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.tick_params(labelleft=panel.wide or any(row[0] == number for row in rows))
    return drawn


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


def forest(
    theme: Theme, title: str, groups: Sequence[tuple[str, Sequence[Interval]]], note: str, start: float, form: str
) -> Figure:
    """Each interval beside its label, a panel for each group, with the same axis and a line across at ``start``.

    ``form``: of the numbers below.
    """
    logarithmic = _logarithmic_from([row for _, rows in groups for row in rows])
    note += f" Logarithmic beyond {logarithmic:g}." if logarithmic else ""
    labels = [[_wrapped(row.label, _LABEL) for row in rows] for _, rows in groups]
    # A row is as high as its label.
    heights = [[len(lines) + 0.25 for lines in of_group] for of_group in labels]
    inches = [0.16 * sum(each) for each in heights]
    drawn, axes_of = _figure(title, [], [[number] for number in range(len(groups))], inches, note)
    for axes, (name, rows), texts, of_group in zip(axes_of, groups, labels, heights, strict=True):
        if axes is not axes_of[0]:
            axes.sharex(axes_of[0])
        axes.set_title(plain(name), weight="bold")
        axes.grid(visible=False, axis="y")
        axes.axvline(start, color=theme.text, linewidth=0.9, zorder=1)
        middles = [sum(of_group[:number]) + height / 2 for number, height in enumerate(of_group)]
        for row, y, height in zip(rows, middles, of_group, strict=True):
            style = _style(theme, row.style)
            if row.band[0] < row.band[1]:
                axes.barh(y, row.band[1] - row.band[0], 0.9 * height, left=row.band[0], color=theme.faint, alpha=0.35)
            # Verdicts are told apart without colour: full, crossed out, empty.
            look = _look(theme, style) | {"linestyle": "-"}
            if row.verdict == NOT_SUPPORTED:
                look["marker"] = "x"
            elif row.verdict != SUPPORTED:
                look["markerfacecolor"] = theme.background
            sides = [[row.mean - row.low], [row.high - row.mean]]
            axes.errorbar([row.mean], [y], xerr=sides, elinewidth=1.6, markersize=5.5, markeredgewidth=1.4, **look)
        axes.set_ylim(sum(of_group), 0)
        axes.set_yticks(middles, ["\n".join(lines) for lines in texts])
    for axes in axes_of:
        axes.margins(x=0.04)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        if logarithmic:
            _logarithmic(axes, logarithmic)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: form.format(x)))
    return drawn
