"""How the figures of a study are drawn: panels of lines, intervals below their labels, intervals beside their labels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ...report.drawing import Line, Style, Theme
from ...report.notation import plain
from ..claims.effects import NOT_SUPPORTED, SUPPORTED

_WIDTH, LINE, SMALL, _FONT, _TITLE = 4.2, 0.17, 8.5, 9.5, 11.0
_HALF, _WHOLE = 1.35, 1.15  # inches high: panels that stand beside others, and those that do not
_LEFT, _RIGHT = 0.55, 0.12  # inches beside the panels, as lay_out leaves them
_LABELS = 1.5  # inches for labels to the left
_PER_LINE = 62  # characters
_TICKS = (1, 2, 5, 10)


def lay_out(
    theme: Theme,
    title: str,
    legend: Sequence[Line2D | Patch],
    heights: Sequence[float],
    columns: int = 1,
    bottom: float = 0.5,
) -> Figure:
    """A figure with a title, a legend below it, rows of panels of ``heights`` and ``bottom`` below them (inches)."""
    wrapped = textwrap.wrap(plain(title), 42)
    labels = [str(entry.get_label()) for entry in legend]
    # As many legend columns as their texts leave room for.
    per_row = max(1, min(len(labels), int(52 / (max(map(len, labels), default=1) + 5))))
    top = 0.12 + 0.19 * len(wrapped) + (0.06 + 0.19 * math.ceil(len(labels) / per_row) if labels else 0.0)
    gap = 0.42
    first_gap = 0.08 if columns == 1 else 0.26  # panels that stand beside others have titles
    height = top + first_gap + sum(heights) + gap * (len(heights) - 1) + bottom
    drawn = Figure(figsize=(_WIDTH, height), facecolor=theme.background)
    drawn.text(
        0.1 / _WIDTH,
        1 - 0.08 / height,
        "\n".join(wrapped),
        ha="left",
        va="top",
        size=_TITLE,
        weight="bold",
        color=theme.text,
    )
    if labels:
        drawn.legend(
            handles=legend,
            loc="upper left",
            bbox_to_anchor=(0.02 / _WIDTH, 1 - (0.1 + 0.19 * len(wrapped)) / height),
            ncols=per_row,
            frameon=False,
            labelcolor=theme.text,
            fontsize=_FONT,
            handlelength=1.6,
            columnspacing=1.2,
            handletextpad=0.5,
            labelspacing=0.25,
        )
    left, right, between = (0.55, 0.12, 0.14) if columns > 1 else (0.14, 0.14, 0.0)
    width = (_WIDTH - left - right - between * (columns - 1)) / columns
    y = height - top
    for index, panel_height in enumerate(heights):
        y -= panel_height + (gap if index else first_gap)
        for column in range(columns):
            x = left + column * (width + between)
            axes = drawn.add_axes(
                (x / _WIDTH, y / height, width / _WIDTH, panel_height / height), facecolor=theme.background
            )
            axes.tick_params(colors=theme.text, labelsize=SMALL, length=2.5, color=theme.faint, pad=2)
            for side, spine in axes.spines.items():
                spine.set_visible(side == "bottom")
                spine.set_color(theme.faint)
    return drawn


@dataclass(frozen=True)
class Panel:
    """``scale``: what is done to its axes once its lines are there. ``wide``: across the whole figure, with a scale of its
    own; the others stand in pairs and share theirs."""

    title: str
    lines: Sequence[Line]
    scale: Callable[[Axes], object]
    wide: bool = False


@dataclass(frozen=True)
class Interval:
    """``band``: what would matter to nobody."""

    label: str
    mean: float
    low: float
    high: float
    band: tuple[float, float] = (0.0, 0.0)
    verdict: str = SUPPORTED


def round_logs(low: float, high: float) -> list[float]:
    """A few round numbers between two on a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(found) <= 5:
            return found
    return found[:: math.ceil(len(found) / 5)]


def _wrapped(text: str, bold: bool = False) -> list[str]:
    return textwrap.wrap(plain(text), _PER_LINE - 5 * bold)


def _count(text: str, bold: bool = False) -> int:
    return len(_wrapped(text, bold))


def _rows(panels: Sequence[Panel]) -> list[list[Panel]]:
    rows: list[list[Panel]] = []
    for panel in panels:
        if rows and not panel.wide and not rows[-1][0].wide and len(rows[-1]) == 1:
            rows[-1].append(panel)
        else:
            rows.append([panel])
    return rows


def _spread(drawn: Figure, axes: Axes, left: float = _LEFT) -> None:
    """From ``left`` inches to the figure's right edge."""
    width, of = drawn.get_figwidth(), axes.get_position()
    axes.set_position((left / width, of.y0, (width - left - _RIGHT) / width, of.height))


def _below(note: str) -> float:
    """Inches that ``note`` takes, with the ticks' labels above it."""
    return 0.34 + 0.14 * _count(note)


def _note(theme: Theme, drawn: Figure, note: str) -> None:
    text = "\n".join(_wrapped(note))
    left, bottom = 0.1 / drawn.get_figwidth(), 0.06 / drawn.get_figheight()
    drawn.text(left, bottom, text, va="bottom", size=SMALL, linespacing=1.1, color=theme.text)


def _plot(theme: Theme, axes: Axes, panel: Panel) -> None:
    axes.set_title(plain(panel.title), loc="left", size=9.5, color=theme.text, pad=3)
    for line in panel.lines:
        x, y, low, high = zip(*line.points, strict=True)
        axes.fill_between(x, low, high, color=line.style.color, alpha=0.18, linewidth=0)
        axes.plot(
            x, y, color=line.style.color, linewidth=1.4, linestyle="--" if line.style.dashed else "-",
            marker=line.style.marker, markersize=3.4, markevery=max(1, len(x) // 6),
            markerfacecolor=theme.background if line.style.dashed else line.style.color,
        )  # fmt: skip
    axes.grid(axis="y", color=theme.faint, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(theme: Theme, panels: Sequence[Panel]) -> list[Line2D]:
    styles = {line.label: line.style for panel in panels for line in panel.lines}
    return [
        Line2D(
            [], [], label=plain(label), color=style.color, linestyle="--" if style.dashed else "-",
            marker=style.marker, markersize=4, markerfacecolor=theme.background if style.dashed else style.color,
        )
        for label, style in styles.items()
    ]  # fmt: skip


def panels(theme: Theme, title: str, of: Sequence[Panel], note: str, over: Callable[[Axes], object]) -> Figure:
    """Small multiples; ``over``: what is done to the horizontal axis of each."""
    rows = _rows(of)
    heights = [_WHOLE if row[0].wide else _HALF for row in rows]
    drawn = lay_out(theme, title, _legend(theme, of), heights, columns=2, bottom=_below(note))
    first, sharing = drawn.axes[0], None
    shown = []
    for row, beside in zip(rows, zip(drawn.axes[::2], drawn.axes[1::2], strict=True), strict=True):
        for axes, panel in zip(beside, row, strict=False):
            if axes is not first:
                axes.sharex(first)
            if not panel.wide:
                if sharing:
                    axes.sharey(sharing)
                sharing = axes
            _plot(theme, axes, panel)
            shown.append((axes, panel))
        beside[1].set_visible(len(row) == 2)
        if row[0].wide:
            _spread(drawn, beside[0])
        beside[1].tick_params(axis="y", labelleft=False, length=0)
    for axes, panel in shown:
        panel.scale(axes)
        axes.yaxis.set_minor_locator(NullLocator())
        over(axes)
        axes.xaxis.set_minor_locator(NullLocator())
    _note(theme, drawn, note)
    return drawn


def _interval(theme: Theme, axes: Axes, of: Interval, y: float, style: Style) -> None:
    if of.band[0] < of.band[1]:
        axes.barh(y, of.band[1] - of.band[0], 0.94, left=of.band[0], color=theme.faint, alpha=0.35, linewidth=0)
    axes.hlines(y, of.low, of.high, color=style.color, linewidth=1.6)
    # Verdicts are told apart without colour: full, crossed out, empty.
    marker = "x" if of.verdict == NOT_SUPPORTED else style.marker
    face = style.color if of.verdict == SUPPORTED and not style.dashed else theme.background
    axes.plot([of.mean], [y], color=style.color, marker=marker, markersize=5.5, markerfacecolor=face, markeredgewidth=1.4)


def _logarithmic_from(intervals: Sequence[Interval]) -> float | None:
    """Somewhat more than what matters, where one effect would hide the others on a linear axis."""
    margin = max(abs(end) for each in intervals for end in each.band)
    farthest = max(abs(end) for each in intervals for end in (each.low, each.high))
    return 10.0 ** math.ceil(math.log10(margin)) if 0 < 60 * margin < farthest else None


def _logarithmic(axes: Axes, start: float) -> None:
    axes.set_xscale("symlog", linthresh=start)
    farthest = max(map(abs, axes.get_xlim()))
    powers = [start * 10.0**power for power in range(math.ceil(math.log10(farthest / start)) + 1)]
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(FixedLocator([x for x in (*(-p for p in powers), 0.0, *powers) if low <= x <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def forest(theme: Theme, title: str, groups: Sequence[tuple[str, Sequence[Interval]]], note: str) -> Figure:
    """Each interval below its label, groups below their names, one axis for all and a line across at 0."""
    intervals = [row for _, rows in groups for row in rows]
    start = _logarithmic_from(intervals)
    note += f" Logarithmic beyond {start:g}." if start else ""
    total = sum(_count(name, bold=True) + sum(_count(row.label) + 1 for row in rows) + 0.4 for name, rows in groups)
    drawn = lay_out(theme, title, [], [total * LINE], bottom=_below(note))
    (axes,) = drawn.axes
    axes.set_ylim(total, 0)
    style = Style(theme.text, "o")
    y = 0.0

    def write(text: str, bold: bool = False) -> None:
        nonlocal y
        axes.text(
            0, y + 0.1, "\n".join(_wrapped(text, bold)), transform=axes.get_yaxis_transform(), size=SMALL,
            color=theme.text, va="top", weight="bold" if bold else "normal", linespacing=1.1,
        )  # fmt: skip
        y += _count(text, bold)

    for name, rows in groups:
        write(name, bold=True)
        for row in rows:
            write(row.label)
            axes.vlines(0, y, y + 1, color=theme.text, linewidth=0.9, zorder=1)
            _interval(theme, axes, row, y + 0.5, style)
            y += 1
        y += 0.4
    axes.margins(x=0.04)
    if start:
        _logarithmic(axes, start)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=_TICKS))
    axes.yaxis.set_visible(False)
    _note(theme, drawn, note)
    return drawn


def labelled(
    theme: Theme, title: str, groups: Sequence[tuple[str, Sequence[tuple[Interval, Style]]]], start: float, note: str
) -> Figure:
    """Each interval beside its label, a panel for each group, with the same axis and a line across at ``start``."""
    drawn = lay_out(theme, title, [], [len(rows) * LINE for _, rows in groups], columns=2, bottom=_below(note))
    everything = [end for _, rows in groups for row, _ in rows for end in (row.low, row.high, start)]
    room = 0.04 * (max(everything) - min(everything) or 1.0)
    for axes, hidden, (name, rows) in zip(drawn.axes[::2], drawn.axes[1::2], groups, strict=True):
        hidden.set_visible(False)
        _spread(drawn, axes, _LABELS)
        axes.set_title(plain(name), loc="left", size=9.5, weight="bold", color=theme.text, pad=3)
        axes.axvline(start, color=theme.text, linewidth=0.9, zorder=1)
        for y, (row, style) in enumerate(rows):
            _interval(theme, axes, row, y, style)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [plain(row.label) for row, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(min(everything) - room, max(everything) + room)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=_TICKS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
        axes.grid(axis="x", color=theme.faint, alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
    _note(theme, drawn, note)
    return drawn
