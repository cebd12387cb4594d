"""How figures are drawn, by matplotlib and without a display, each for a light and for a dark page."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..results import Run
from .notation import plain


@dataclass(frozen=True)
class Theme:
    name: str
    background: str
    text: str
    faint: str
    colors: tuple[str, ...]


# After Okabe and Ito, who chose colours that colour-blind readers tell apart: darker on white, lighter on black.
# Markers differ too.
LIGHT = Theme("light", "#ffffff", "#1c1f24", "#8a9099", ("#0063a6", "#c14e00", "#007e5c", "#a4477d", "#6b5f00", "#3c3f45"))
DARK = Theme("dark", "#16191f", "#e6e8eb", "#7d848e", ("#62bcf2", "#f2a13b", "#35c496", "#e08fbd", "#eee05a", "#c3c8ce"))
MARKERS = ("o", "s", "^", "D", "v", "P")

# Inches. So narrow that on a phone, where it is as wide as the screen, 9.5 points come to 10 pixels.
_WIDTH = 4.2
_FONT, SMALL, _TITLE = 9.5, 8.5, 11.0
LINE = 0.17  # of text, inches
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": _FONT,
    "svg.fonttype": "path",  # the same on every device
    "svg.hashsalt": "leakyrelu-bench",  # the same file from the same rows
    "text.parse_math": False,  # a "$" in a name is a "$"
    "axes.unicode_minus": False,
}


@dataclass(frozen=True)
class Picture:
    """A figure to be: ``name`` is its file's, with its folders, without an ending; ``alt`` says in words what it shows."""

    name: str
    title: str
    alt: str
    draw: Callable[[Theme], Figure]
    run: Run | None = None  # whose rows it shows

    def svg(self, theme: Theme) -> bytes:
        return self._saved(theme, "svg", {"Date": None, "Creator": None})

    def png(self, theme: Theme, dots_per_inch: int = 200) -> bytes:
        return self._saved(theme, "png", {"Software": None}, dots_per_inch)

    def data_uri(self, theme: Theme) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg(theme)).decode("ascii")

    def _saved(self, theme: Theme, kind: str, metadata: dict[str, str | None], dpi: int = 72) -> bytes:
        file = io.BytesIO()
        with mpl.rc_context(_SETTINGS):
            self.draw(theme).savefig(file, format=kind, dpi=dpi, metadata=metadata)
        return file.getvalue()


def file_name(text: str) -> str:
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()) or "rows"


def path_of(*parts: str) -> str:
    """A name for a picture: its folders, then its file, of any texts."""
    return "/".join(map(file_name, parts))


def named_apart(pictures: Iterable[Picture]) -> list[Picture]:
    """The same, numbered where names would be the same."""
    drawn: dict[str, Picture] = {}
    for picture in pictures:
        name, number = picture.name, 2
        while name in drawn:
            name, number = f"{picture.name}-{number}", number + 1
        drawn[name] = replace(picture, name=name)
    return list(drawn.values())


@dataclass(frozen=True)
class Style:
    color: str
    marker: str
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """Over x: y, and the bounds of what it may be."""

    label: str
    style: Style
    points: Sequence[tuple[float, float, float, float]]  # x, y, low, high
    joined: bool = True


def _superscript(power: int) -> str:
    return "2" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(power))


def backing(theme: Theme) -> dict[str, object]:
    """Of texts that lie across a line."""
    return {"facecolor": theme.background, "linewidth": 0, "pad": 0.6}


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


def panels_over_size(
    theme: Theme,
    title: str,
    panels: Sequence[tuple[str, Sequence[Line]]],
    scale: Callable[[Axes, Sequence[float]], None],
) -> Figure:
    """Small multiples over the number of elements, two in a row, with the same axes and a line across at 1."""
    styles = {line.label: line for _, lines in panels for line in lines}
    legend = [
        Line2D(
            [],
            [],
            label=label,
            color=line.style.color,
            marker=line.style.marker,
            markersize=4,
            linestyle=("--" if line.style.dashed else "-") if line.joined else "none",
            markerfacecolor=theme.background if line.style.dashed else line.style.color,
        )
        for label, line in styles.items()
    ]
    drawn = lay_out(theme, title, legend, [1.15] * math.ceil(len(panels) / 2), columns=2)
    everything = [point for _, lines in panels for line in lines for point in line.points]
    powers = [math.log2(x) for x, *_ in everything]
    first, last = math.floor(min(powers)), math.ceil(max(powers))
    steps = [step for step in range(1, last - first + 2) if (last - first) / step <= 4]
    step = next((step for step in steps[:4] if (last - first) % step == 0), steps[0])
    for index, axes in enumerate(drawn.axes):
        if index >= len(panels):
            axes.set_visible(False)
            continue
        name, lines = panels[index]
        axes.set_title(plain(name), loc="left", size=_FONT, color=theme.text, pad=3)
        axes.axhline(1, color=theme.text, linewidth=0.9)
        for line in lines:
            x, y, low, high = zip(*sorted(line.points), strict=True)
            style = line.style
            if line.joined:
                axes.fill_between(x, low, high, color=style.color, alpha=0.22, linewidth=0)
            else:
                axes.vlines(x, low, high, color=style.color, linewidth=1)
            axes.plot(
                x,
                y,
                color=style.color,
                marker=style.marker,
                markersize=3.4,
                markeredgewidth=0.9,
                markerfacecolor=theme.background if style.dashed else style.color,
                linewidth=1.4,
                linestyle=("--" if style.dashed else "-") if line.joined else "none",
            )
        axes.set_xscale("log", base=2)
        axes.set_xlim(2 ** (first - 0.6), 2 ** (last + 0.6))
        axes.xaxis.set_major_locator(FixedLocator([2**power for power in range(first, last + 1, step)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _superscript(round(math.log2(x)))))
        scale(axes, [value for _, *values in everything for value in values])
        axes.grid(axis="y", color=theme.faint, alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
        if index % 2:
            axes.tick_params(axis="y", labelleft=False, length=0)
    drawn.text(
        0.5, 0.06 / drawn.get_figheight(), "elements in the tensor", ha="center", va="bottom", size=SMALL, color=theme.text
    )
    return drawn


def times(value: float) -> str:
    return "same" if math.isclose(value, 1) else f"{value:g}×"


def ratio_scale(axes: Axes, values: Sequence[float]) -> None:
    low, high = min(*values, 0.8) / 1.05, max(*values, 1.25) * 1.05
    axes.set_yscale("log", base=2)
    axes.set_ylim(low, high)
    step = max(1, math.ceil(math.log2(high / low) / 5))
    powers = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
    axes.yaxis.set_major_locator(FixedLocator([2.0**power for power in powers if power % step == 0]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: times(y)))


def share_scale(axes: Axes, values: Sequence[float]) -> None:
    axes.set_ylim(0, max(*values, 1.0) * 1.08)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))


@dataclass(frozen=True)
class Bar:
    contestant: str
    length: float
    label: str
    whisker: tuple[float, float] | None = None


def write_lines(axes: Axes, theme: Theme, y: float, lines: Sequence[str]) -> float:
    """Writes ``lines`` at the left, each one high, from ``y`` downwards; returns where they end."""
    for text in lines:
        axes.text(
            0,
            y + 0.5,
            text,
            transform=axes.get_yaxis_transform(),
            size=SMALL,
            color=theme.text,
            va="center",
            bbox=backing(theme),
        )
        y += 1
    return y


def bars_from(theme: Theme, title: str, groups: Sequence[tuple[str, Sequence[Bar]]], start: float) -> Figure:
    """Horizontal bars from ``start``, in groups, each below its name."""
    names = list(dict.fromkeys(bar.contestant for _, bars in groups for bar in bars))
    colors = {name: theme.colors[index % len(theme.colors)] for index, name in enumerate(names)}
    wrapped = [textwrap.wrap(plain(name), 54)[:3] or [""] for name, _ in groups]
    total = sum(len(lines) + len(bars) + 0.5 for lines, (_, bars) in zip(wrapped, groups, strict=True))
    drawn = lay_out(theme, title, [Patch(color=colors[name], label=plain(name)) for name in names], [total * LINE])
    (axes,) = drawn.axes
    axes.set_ylim(total, 0)
    ends = [end for _, bars in groups for bar in bars for end in (bar.length, *(bar.whisker or ()))]
    low, high = min(start, *ends), max(start, *ends)
    room = (high - low) or 1.0
    # Labels stand outside the bars, to the right, or to the left of those that go left.
    axes.set_xlim(low - (0.25 * room if low < start else 0.0), high + 0.27 * room)
    y = 0.0
    for lines, (_, bars) in zip(wrapped, groups, strict=True):
        y = write_lines(axes, theme, y, lines)
        for bar in bars:
            axes.barh(y + 0.5, bar.length - start, 0.78, left=start, color=colors[bar.contestant])
            tip = bar.length
            if bar.whisker:
                axes.hlines(y + 0.5, *bar.whisker, color=theme.text, linewidth=1)
                tip = bar.whisker[1] if bar.length >= start else bar.whisker[0]
            leftward = bar.length < start
            axes.annotate(
                plain(bar.label), (tip, y + 0.5), (-4 if leftward else 4, 0), textcoords="offset points",
                ha="right" if leftward else "left", va="center", size=SMALL, color=theme.text,
            )  # fmt: skip
            y += 1
        y += 0.5
    axes.axvline(start, color=theme.text, linewidth=0.9)
    axes.yaxis.set_visible(False)
    return drawn


def ratio_bars(theme: Theme, title: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> Figure:
    drawn = bars_from(theme, title, groups, 1.0)
    (axes,) = drawn.axes
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: times(x)))
    return drawn
