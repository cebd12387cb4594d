"""The kinds of charts that figures consist of: panels of lines, and rows below their names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .drawing import LIGHT, SMALL, figure, look, wrapped
from .notation import plain

_NAME = 54  # characters in a line
_LINE = 0.17  # inches: of text
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
Point = tuple[float, float, float, float]  # x, y, and the bounds of what y may be
Scale = Callable[[Axes], object]  # what is done to axes once all lines are there


@dataclass(frozen=True)
class Line:
    """``style``: a number, see :func:`.drawing.look`."""

    label: str
    style: int
    points: Sequence[Point]
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """``wide``: across the whole figure, with a scale of its own; the others stand in pairs and share theirs."""

    title: str
    lines: Sequence[Line]
    scale: Scale
    wide: bool = False


def panels(title: str, of: Sequence[Panel], note: str, over: Scale) -> Figure:
    """Small multiples; ``over``: what is done to the horizontal axis of each."""
    lines = {line.label: line for panel in of for line in panel.lines}
    legend = [
        Line2D([], [], label=plain(label), markersize=4, **look(line.style, line.joined)) for label, line in lines.items()
    ]
    narrow = [number for number, panel in enumerate(of) if not panel.wide]
    rows = [[*narrow[first : first + 2], -1][:2] for first in range(0, len(narrow), 2)]
    rows += [[number, number] for number, panel in enumerate(of) if panel.wide]
    drawn, axes_of = figure(title, legend, rows, [1.1] * len(rows), note)
    for axes, panel in zip(axes_of, of, strict=True):
        if axes is not axes_of[0]:
            axes.sharex(axes_of[0])
        if not panel.wide and axes is not axes_of[narrow[0]]:
            axes.sharey(axes_of[narrow[0]])
        axes.set_title(plain(panel.title))
        axes.grid(axis="y")
        for line in panel.lines:
            x, y, low, high = zip(*sorted(line.points), strict=True)
            of_line = look(line.style, line.joined)
            if line.joined:
                axes.fill_between(x, low, high, color=of_line["color"], alpha=0.2, linewidth=0)
            else:
                axes.vlines(x, low, high, color=of_line["color"], linewidth=1)
            axes.plot(x, y, linewidth=1.4, markersize=3.4, markevery=max(1, len(x) // 8), **of_line)
    for number, (axes, panel) in enumerate(zip(axes_of, of, strict=True)):
        panel.scale(axes)
        over(axes)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.tick_params(labelleft=panel.wide or any(row[0] == number for row in rows))
    return drawn


def over_sizes(sizes: Sequence[float]) -> Scale:
    """A horizontal axis for numbers of elements."""
    powers = [math.log2(size) for size in sizes]
    first, last = math.floor(min(powers)), math.ceil(max(powers))
    steps = [step for step in range(1, last - first + 2) if (last - first) / step <= 4]
    step = next((step for step in steps[:4] if (last - first) % step == 0), steps[0])

    def scale(axes: Axes) -> None:
        axes.set_xscale("log", base=2)
        axes.set_xlim(2 ** (first - 0.6), 2 ** (last + 0.6))
        axes.xaxis.set_major_locator(FixedLocator([2**power for power in range(first, last + 1, step)]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "2" + f"{math.log2(x):.0f}".translate(_SUPERSCRIPTS)))

    return scale


def times(value: float) -> str:
    return "same" if math.isclose(value, 1) else f"{value:g}×"


def _line_at_1(axes: Axes) -> None:
    axes.axhline(1, color=LIGHT.text, linewidth=0.9)


def ratio_scale(axes: Axes, values: Sequence[float]) -> None:
    _line_at_1(axes)
    low, high = min(*values, 0.8) / 1.05, max(*values, 1.25) * 1.05
    axes.set_yscale("log", base=2)
    axes.set_ylim(low, high)
    step = max(1, math.ceil(math.log2(high / low) / 5))
    powers = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
    axes.yaxis.set_major_locator(FixedLocator([2.0**power for power in powers if power % step == 0]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: times(y)))


def share_scale(axes: Axes, values: Sequence[float]) -> None:
    _line_at_1(axes)
    axes.set_ylim(0, max(*values, 1.0) * 1.08)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))


def listed(
    title: str, legend: Sequence[Line2D | Patch], names: Sequence[str], rows: Sequence[float]
) -> tuple[Figure, Axes, list[float]]:
    """One panel in which each of ``names`` is written above room for so many ``rows``; where that begins."""
    texts = [wrapped(name, _NAME)[:3] for name in names]
    total = sum(len(lines) + count for lines, count in zip(texts, rows, strict=True))
    drawn, (axes,) = figure(title, legend, [[0]], [total * _LINE])
    axes.set_ylim(total, 0)
    axes.yaxis.set_visible(False)
    y, starts = 0.0, []
    box = {"facecolor": axes.get_facecolor(), "linewidth": 0, "pad": 0.6}  # across a line
    place: Any = {"transform": axes.get_yaxis_transform(), "size": SMALL, "va": "top", "in_layout": False}
    for lines, count in zip(texts, rows, strict=True):
        axes.text(0, y, "\n".join(lines), bbox=box, **place)
        starts.append(y + len(lines))
        y += len(lines) + count
    return drawn, axes, starts


@dataclass(frozen=True)
class Bar:
    contestant: str
    length: float
    label: str
    whisker: tuple[float, float] | None = None


def bars_from(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], start: float, tick: Callable[[float], str]) -> Figure:
    """Horizontal bars from ``start``, in groups, each below its name; ``tick``: how values are written on the axis."""
    names = list(dict.fromkeys(bar.contestant for _, bars in groups for bar in bars))
    colors = {name: LIGHT.colors[index % len(LIGHT.colors)] for index, name in enumerate(names)}
    legend = [Patch(color=color, label=plain(name)) for name, color in colors.items()]
    drawn, axes, starts = listed(title, legend, [name for name, _ in groups], [len(bars) + 0.5 for _, bars in groups])
    ends = [end for _, bars in groups for bar in bars for end in (bar.length, *(bar.whisker or ()))]
    low, high = min(start, *ends), max(start, *ends)
    room = (high - low) or 1.0
    # Labels stand outside the bars, to the right, or to the left of those that go left.
    axes.set_xlim(low - (0.25 * room if low < start else 0.0), high + 0.27 * room)
    for first, (_, bars) in zip(starts, groups, strict=True):
        for y, bar in enumerate(bars, 1):
            axes.barh(first + y - 0.5, bar.length - start, 0.78, left=start, color=colors[bar.contestant])
            leftward = bar.length < start
            tip = bar.length
            if bar.whisker:
                axes.hlines(first + y - 0.5, *bar.whisker, color=LIGHT.text, linewidth=1)
                tip = bar.whisker[not leftward]
            axes.annotate(
                plain(bar.label), (tip, first + y - 0.5), (-4 if leftward else 4, 0), textcoords="offset points",
                ha="right" if leftward else "left", va="center", size=SMALL,
            )  # fmt: skip
    axes.axvline(start, color=LIGHT.text, linewidth=0.9)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
    return drawn
