"""How figures are drawn, by matplotlib and without a display, for a light page and, in other colours, for a dark one."""

from __future__ import annotations

import base64
import io
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..results import Run
from .notation import plain


@dataclass(frozen=True)
class Theme:
    name: str
    background: str
    text: str
    faint: str
    colors: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return (self.background, self.text, self.faint, *self.colors)


# After Okabe and Ito, who chose colours that colour-blind readers tell apart: darker on white, lighter on black.
# Markers differ too.
LIGHT = Theme("light", "#ffffff", "#1c1f24", "#8a9099", ("#0063a6", "#c14e00", "#007e5c", "#a4477d", "#6b5f00", "#3c3f45"))
DARK = Theme("dark", "#16191f", "#e6e8eb", "#7d848e", ("#62bcf2", "#f2a13b", "#35c496", "#e08fbd", "#eee05a", "#c3c8ce"))
_IN = {theme.name: dict(zip(LIGHT.all, theme.all, strict=True)) for theme in (LIGHT, DARK)}
_MARKERS = ("o", "s", "^", "D", "v", "P")
DASHED = 6  # added to a style: the same, dashed

_WIDTH = 4.2  # inches: on a phone, where a figure is as wide as the screen, 9.5 points come to 10 pixels
_TITLE, _LEGEND, _NOTE = 42, 52, 62  # characters in a line
SMALL = 8.5


def _settings() -> Any:
    """Matplotlib's, under which a figure is drawn."""
    faces = dict.fromkeys(("figure.facecolor", "axes.facecolor"), LIGHT.background)
    texts = ("text.color", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor", "legend.labelcolor")
    faint = ("axes.edgecolor", "grid.color", "xtick.color", "ytick.color")
    sizes = {"axes.titlesize": 9.5, "legend.fontsize": 9.5, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL}
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
        "grid.alpha": 0.3,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        **{f"axes.spines.{side}": False for side in ("left", "right", "top")},
        **faces, **dict.fromkeys(texts, LIGHT.text), **dict.fromkeys(faint, LIGHT.faint), **sizes, **ticks,
    }  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure to be: ``name`` is its file's, with its folders, without an ending; ``alt`` says in words what it shows."""

    name: str
    title: str
    alt: str
    draw: Callable[[], Figure]  # in the light theme's colours
    run: Run | None = None  # whose rows it shows

    def svg(self, theme: Theme) -> str:
        return re.sub("|".join(map(re.escape, LIGHT.all)), lambda found: _IN[theme.name][found[0]], self._light)

    def png(self, dots_per_inch: int = 200) -> bytes:
        return self._saved("png", {"Software": None}, dots_per_inch)

    def data_uri(self, theme: Theme) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg(theme).encode()).decode("ascii")

    @cached_property
    def _light(self) -> str:
        return self._saved("svg", {"Date": None, "Creator": None}).decode()

    def _saved(self, kind: str, metadata: dict[str, str | None], dpi: int = 72) -> bytes:
        file = io.BytesIO()
        with mpl.rc_context(_settings()):
            self.draw().savefig(file, format=kind, dpi=dpi, metadata=metadata)
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


def look(style: int | None, joined: bool = True) -> dict[str, Any]:
    """Of a line: the same for the same ``style``, told apart without colour too; None: in the colour of texts."""
    turn, index = divmod(style or 0, DASHED)
    color = LIGHT.text if style is None else LIGHT.colors[index]
    stroke, face = ("--", LIGHT.background) if turn % 2 else ("-", color)
    return {
        "color": color,
        "marker": _MARKERS[index],
        "markerfacecolor": face,
        "linestyle": stroke if joined else "none",
    }


def wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(plain(text), width) or [""]


def figure(
    title: str, legend: Sequence[Line2D | Patch], rows: list[Any], heights: Sequence[float], note: str = ""
) -> tuple[Figure, list[Axes]]:
    """A figure with a title, a legend below it, and a note at its foot, laid out by matplotlib.

    ``rows``: the numbers of the panels in each, -1 for none; ``heights``: of the rows, in inches.
    """
    titles, notes = wrapped(title, _TITLE), wrapped(note, _NOTE)
    longest = max((len(str(entry.get_label())) for entry in legend), default=1)
    # As many legend columns as their texts leave room for.
    columns = max(1, min(len(legend), _LEGEND // (longest + 5)))
    lines = len(titles) + math.ceil(len(legend) / columns) + len(notes)
    drawn = Figure((_WIDTH, 0.1 + 0.18 * lines + sum(heights) + 0.42 * len(rows)), layout="constrained")
    axes = drawn.subplot_mosaic(rows, empty_sentinel=-1, height_ratios=heights)
    drawn.legend(
        handles=legend, loc="outside upper left", ncols=columns, alignment="left", borderaxespad=0.2,
        title="\n".join(titles), title_fontproperties={"weight": "bold", "size": 11},
        handlelength=1.6, columnspacing=1.2, handletextpad=0.5, labelspacing=0.25,
    )  # fmt: skip
    drawn.supxlabel("\n".join(notes), x=0.03, ha="left", size=SMALL, linespacing=1.1)
    return drawn, [axes[number] for number in sorted(axes)]
