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
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
MARKERS = ("o", "s", "^", "D", "v", "P")

_WIDTH = 4.2  # inches: on a phone, where a figure is as wide as the screen, 9.5 points come to 10 pixels
_LINE = 0.17  # inches: of text
_TITLE, _LEGEND, _NAME = 42, 52, 54  # characters in a line
_SMALL = 8.5


def _settings(theme: Theme) -> Any:
    """Matplotlib's, under which a figure is drawn."""
    faces = dict.fromkeys(("figure.facecolor", "axes.facecolor"), theme.background)
    texts = ("text.color", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor", "legend.labelcolor")
    faint = ("axes.edgecolor", "grid.color", "xtick.color", "ytick.color")
    sizes = {"axes.titlesize": 9.5, "legend.fontsize": 9.5, "xtick.labelsize": _SMALL, "ytick.labelsize": _SMALL}
    ticks = {f"{axis}tick.major.{name}": value for axis in "xy" for name, value in (("size", 2.5), ("pad", 2))}
    return {
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "font.size": 9.5,
        "svg.fonttype": "path",  # the same on every device
        "svg.hashsalt": "leakyrelu-bench",  # the same file from the same rows
        "text.parse_math": False,  # a "$" in a name is a "$"
        "axes.unicode_minus": False,
        "axes.titlelocation": "left",
        "axes.titlepad": 3,
        "axes.axisbelow": True,
        "legend.frameon": False,
        **{f"axes.spines.{side}": False for side in ("left", "right", "top")},
        **faces, **dict.fromkeys(texts, theme.text), **dict.fromkeys(faint, theme.faint), **sizes, **ticks,
    }  # fmt: skip


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
        with mpl.rc_context(_settings(theme)):
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

    def look(self, theme: Theme) -> dict[str, Any]:
        style = self.style
        face = theme.background if style.dashed else style.color
        stroke = ("--" if style.dashed else "-") if self.joined else "none"
        return {"color": style.color, "marker": style.marker, "markerfacecolor": face, "linestyle": stroke}


def figure(
    title: str, legend: Sequence[Line2D | Patch], heights: Sequence[float], columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure with a title, a legend below it, and rows of panels of ``heights`` (inches), laid out by matplotlib."""
    wrapped = textwrap.wrap(plain(title), _TITLE)
    longest = max((len(str(entry.get_label())) for entry in legend), default=1)
    # As many legend columns as their texts leave room for.
    of_legend = max(1, min(len(legend), _LEGEND // (longest + 5)))
    lines = len(wrapped) + math.ceil(len(legend) / of_legend)
    drawn = Figure((_WIDTH, 0.2 + 0.19 * lines + sum(heights) + 0.4 * len(heights)), layout="constrained")
    axes = drawn.subplots(len(heights), columns, squeeze=False, sharex=True, sharey=columns > 1, height_ratios=heights)
    drawn.legend(
        handles=legend, loc="outside upper left", ncols=of_legend, alignment="left", borderaxespad=0.2,
        title="\n".join(wrapped), title_fontproperties={"weight": "bold", "size": 11},
        handlelength=1.6, columnspacing=1.2, handletextpad=0.5, labelspacing=0.25,
    )  # fmt: skip
    return drawn, list(axes.flat)


def panels_over_size(
    theme: Theme,
    title: str,
    panels: Sequence[tuple[str, Sequence[Line]]],
    scale: Callable[[Axes, Sequence[float]], None],
) -> Figure:
    """Small multiples over the number of elements, two in a row, with the same axes and a line across at 1."""
    lines = {line.label: line for _, of_panel in panels for line in of_panel}
    legend = [Line2D([], [], label=label, markersize=4, **line.look(theme)) for label, line in lines.items()]
    drawn, axes_of = figure(title, legend, [1.1] * math.ceil(len(panels) / 2), columns=2)
    everything = [point for _, of_panel in panels for line in of_panel for point in line.points]
    powers = [math.log2(x) for x, *_ in everything]
    first, last = math.floor(min(powers)), math.ceil(max(powers))
    steps = [step for step in range(1, last - first + 2) if (last - first) / step <= 4]
    step = next((step for step in steps[:4] if (last - first) % step == 0), steps[0])
    for axes, (name, of_panel) in zip(axes_of, panels, strict=False):
        axes.set_title(plain(name))
        axes.axhline(1, color=theme.text, linewidth=0.9)
        for line in of_panel:
            x, y, low, high = zip(*sorted(line.points), strict=True)
            if line.joined:
                axes.fill_between(x, low, high, color=line.style.color, alpha=0.22, linewidth=0)
            else:
                axes.vlines(x, low, high, color=line.style.color, linewidth=1)
            axes.plot(x, y, markersize=3.4, markeredgewidth=0.9, linewidth=1.4, **line.look(theme))
        axes.set_xscale("log", base=2)
        axes.set_xlim(2 ** (first - 0.6), 2 ** (last + 0.6))
        axes.xaxis.set_major_locator(FixedLocator([2**power for power in range(first, last + 1, step)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "2" + f"{math.log2(x):.0f}".translate(_SUPERSCRIPTS)))
        scale(axes, [value for _, *values in everything for value in values])
        axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    for axes in axes_of[len(panels) :]:
        axes.set_visible(False)
        axes_of[len(panels) - 2].tick_params(labelbottom=True)
    drawn.supxlabel("elements in the tensor", size=_SMALL)
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


def listed(
    title: str, legend: Sequence[Line2D | Patch], names: Sequence[str], rows: Sequence[float]
) -> tuple[Figure, Axes, list[float]]:
    """One panel in which each of ``names`` is written above room for so many ``rows``; where that begins."""
    wrapped = [textwrap.wrap(plain(name), _NAME)[:3] or [""] for name in names]
    total = sum(len(lines) + count for lines, count in zip(wrapped, rows, strict=True))
    drawn, (axes,) = figure(title, legend, [total * _LINE])
    axes.set_ylim(total, 0)
    axes.yaxis.set_visible(False)
    y, starts = 0.0, []
    box = {"facecolor": axes.get_facecolor(), "linewidth": 0, "pad": 0.6}  # across a line
    place: Any = {"transform": axes.get_yaxis_transform(), "size": _SMALL, "va": "top", "in_layout": False}
    for lines, count in zip(wrapped, rows, strict=True):
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


def bars_from(
    theme: Theme, title: str, groups: Sequence[tuple[str, Sequence[Bar]]], start: float, tick: Callable[[float], str]
) -> Figure:
    """Horizontal bars from ``start``, in groups, each below its name; ``tick``: how values are written on the axis."""
    names = list(dict.fromkeys(bar.contestant for _, bars in groups for bar in bars))
    colors = {name: theme.colors[index % len(theme.colors)] for index, name in enumerate(names)}
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
                axes.hlines(first + y - 0.5, *bar.whisker, color=theme.text, linewidth=1)
                tip = bar.whisker[not leftward]
            axes.annotate(
                plain(bar.label), (tip, first + y - 0.5), (-4 if leftward else 4, 0), textcoords="offset points",
                ha="right" if leftward else "left", va="center", size=_SMALL,
            )  # fmt: skip
    axes.axvline(start, color=theme.text, linewidth=0.9)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
    return drawn
