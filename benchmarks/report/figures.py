"""The figures of the report: which rows they show, and what they say about them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from ..results import Quantiles, Row, Run
from .charts import Bar, Line, Panel, Point, bars_from, listed, over_sizes, panels, ratio_scale, share_scale, times
from .drawing import DASHED, LIGHT, Picture, look, named_apart, path_of
from .notation import figure, plain, ratio
from .summary import baseline, counterpart, name_of


def _over_sizes(rows: Iterable[Row]) -> list[Row]:
    """Rows of one size each that lie on one curve: noise without gaps (or, without any noise, all that has no gaps)."""
    dense = [row for row in rows if row.layout in ("contiguous", "") and math.prod(row.shape) > 0]
    return [row for row in dense if row.case.startswith("noise")] or dense


def _ratio_points(rows: Iterable[Row]) -> list[Point]:
    return [
        (math.prod(row.shape), row.ratio, row.ratio / (1 + (row.noise or 0)), row.ratio * (1 + (row.noise or 0)))
        for row in rows
        if row.ratio is not None
    ]


def _over_size(
    name: str,
    rows: Sequence[Row],
    title: str,
    alt: str,
    lines: Callable[[str], Sequence[Line]],
    scale: Callable[[Axes, Sequence[float]], None],
) -> Picture | None:
    """A panel for each mode of ``rows``, with the ``lines`` of it; None if there are none."""
    of_mode = {mode: [line for line in lines(mode) if line.points] for mode in dict.fromkeys(row.mode for row in rows)}
    points = [point for of in of_mode.values() for line in of for point in line.points]
    if not points:
        return None
    values = [value for _, *bounds in points for value in bounds]
    of = [Panel(mode, found, lambda axes: scale(axes, values)) for mode, found in of_mode.items() if found]
    over = over_sizes([size for size, *_ in points])
    return _picture(name, title, alt, lambda: panels(title, of, "By elements in the tensor.", over))


def speed_up(run: Run, dtype: str) -> Picture | None:
    """Over sizes, ours against the built-in, a panel a mode; None if the run has no such rows."""
    rival = baseline(run)
    rows = [row for row in run.rows if (row.rival, row.dtype) == (rival, dtype) and row.ratio is not None]
    curve = _over_sizes(rows)
    if not curve:
        return None
    photos = [row for row in rows if row not in curve and row.layout in ("contiguous", "") and row.outputs != "warm"]
    fresh, warm = ([row for row in curve if (row.outputs == "warm") == used] for used in (False, True))

    def lines(mode: str) -> list[Line]:
        kinds = (("memory by default", fresh, True), ("memory used before", warm, True), ("photographs", photos, False))
        return [
            Line(label, style, _ratio_points(row for row in of if row.mode == mode), joined)
            for style, (label, of, joined) in enumerate(kinds)
        ]

    ratios = [row.ratio for row in curve if row.ratio is not None]
    alt = (
        f"Line charts, {dtype}, one per mode: {rival}'s time divided by ours over 2^{_power(curve, min)} to "
        f"2^{_power(curve, max)} elements; from {min(ratios):.2f} to {max(ratios):.2f}. The numbers are in the tables."
    )
    title = f"{dtype}: {rival}'s time / ours by size; higher is better, bands are noise"
    return _over_size(path_of(run.suite, f"speedup-{dtype}"), rows, title, alt, lines, ratio_scale)


def rivals(run: Run, dtype: str) -> Picture | None:
    """Over sizes, every rival against ours, in memory as it comes by default; None if there are no two rivals."""
    rows = [row for row in _over_sizes(run.rows) if row.dtype == dtype and row.outputs != "warm" and row.ratio is not None]
    names = list(dict.fromkeys(row.rival for row in rows))
    if len(names) < 2:
        return None

    def lines(mode: str) -> list[Line]:
        return [
            Line(name, style, _ratio_points(row for row in rows if (row.mode, row.rival) == (mode, name)))
            for style, name in enumerate(names)
        ]

    title = f"{dtype}: each rival's time / ours by size; higher is better"
    alt = f"Line charts, {dtype}, one per mode: the time of {', '.join(names)}, each divided by ours, over sizes."
    return _over_size(path_of(run.suite, f"rivals-{dtype}"), rows, title, alt, lines, ratio_scale)


def roofline(run: Run, dtype: str) -> Picture | None:
    """Over sizes, the share of the roof that ours and the built-in reach; None where no roof was measured."""
    rival = baseline(run)
    rows = [row for row in _over_sizes(run.rows) if (row.rival, row.dtype) == (rival, dtype) and "roof_share" in row.extra]

    def points(mode: str, warm: bool, side: int) -> list[Point]:
        found = [row for row in rows if row.mode == mode and (row.outputs == "warm") == warm]
        shares = [(math.prod(row.shape), row.extra["roof_share"][side]) for row in found]
        return [(size, share, share, share) for size, share in shares if share is not None]

    def lines(mode: str) -> list[Line]:
        return [
            Line(name + ", used memory" * warm, side + DASHED * warm, points(mode, warm, side))
            for warm in (False, True)
            for side, name in enumerate(("ours", rival))
        ]

    title = f"{dtype}: bytes per second, as a share of what plain operations reach"
    alt = (
        f"Line charts, {dtype}, one per mode: bytes per second of ours and of {rival} over the number of elements, as a "
        "percentage of the bandwidth of plain operations (copy, triad; in place: scale) measured in the same rounds."
    )
    return _over_size(path_of(run.suite, f"roof-{dtype}"), rows, title, alt, lines, share_scale)


def step_ratios(run: Run, mode: str) -> Picture | None:
    """Bars per case: each of ours against what it replaces, with the noise; None if the run has no such rows."""
    rows = [row for row in run.rows if row.mode == mode and row.rival == counterpart(run, row.ours)]
    if all(row.ratio is None for row in rows):
        return None
    groups: dict[str, list[Bar]] = {}
    several = len({row.dtype for row in rows}) > 1
    for row in rows:
        contestant = f"{row.ours} / {row.rival}"
        if row.ratio is None:
            bar = Bar(contestant, 1.0, textwrap.shorten(plain(row.obstacle), 30, placeholder=" …"))
        else:
            ((_, value, low, high),) = _ratio_points([row])
            bar = Bar(contestant, value, ratio(row), (low, high))
        groups.setdefault(row.case + f", {row.dtype}" * several, []).append(bar)
    title = f"{mode}: the rival's time / ours; right of “same” ours is faster, thin lines are noise"
    alt = (
        f"Bars, {mode}: " + "; ".join(f"{name_of(row)}, {row.ours} against {row.rival}: {ratio(row)}" for row in rows) + "."
    )
    return _picture(path_of(run.suite, mode), title, alt, lambda: bars_from(title, list(groups.items()), 1.0, times))


def dots(run: Run, mode: str) -> Picture | None:
    """A line per case, a dot per rival; None if the run has no such rows."""
    rows = [row for row in run.rows if row.mode == mode and row.ratio is not None]
    names = list(dict.fromkeys(row.rival for row in rows))
    if not rows:
        return None
    cases: dict[str, list[Row]] = {}
    for row in rows:
        parts = [part for part in (row.dtype, row.outputs if row.outputs == "warm" else "") if part and part not in row.case]
        cases.setdefault(", ".join([row.case, *parts]), []).append(row)

    def draw() -> Figure:
        looks = {name: look(index, joined=False) for index, name in enumerate(names)}
        legend = [Line2D([], [], label=plain(name), markersize=5, **of) for name, of in looks.items()]
        drawn, axes, starts = listed(title, legend, list(cases), [1.3] * len(cases))
        axes.set_xscale("log", base=2)
        ends = [value for row in rows for _, _, low, high in _ratio_points([row]) for value in (low, high)]
        axes.set_xlim(min(*ends, 0.7) / 1.06, max(*ends, 1.5) * 1.06)
        for y, of_case in zip(starts, cases.values(), strict=True):
            axes.axhline(y + 0.4, color=LIGHT.faint, linewidth=0.5, alpha=0.5)
            for row in of_case:
                ((_, value, low, high),) = _ratio_points([row])
                axes.hlines(y + 0.4, low, high, color=looks[row.rival]["color"], linewidth=1.2)
                axes.plot(value, y + 0.4, markersize=5, markeredgewidth=0.5, **looks[row.rival])
        axes.axvline(1, color=LIGHT.text, linewidth=0.9)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: times(x)))
        return drawn

    title = f"{mode}: each rival's time / ours; right of “same” ours is faster"
    alt = f"Dots, {mode}, a line per case: the time of {', '.join(names)}, each divided by ours."
    return _picture(path_of(run.suite, mode), title, alt, draw)


def amounts(run: Run, mode: str) -> Picture | None:
    """Bars per case: bytes or samples of every contestant, as a share of the baseline's; None without such rows."""
    unit = next((row.unit for row in run.rows if row.mode == mode), "")
    cases: dict[tuple[str, str], dict[str, Quantiles]] = {}
    for row in run.rows:
        if row.mode == mode:
            sides = ((row.rival, row.rival_value), (row.ours, row.ours_value))
            cases.setdefault((row.case, row.dtype), {}).update({name: value for name, value in sides if value is not None})
    # Theirs first, in every case in the same order.
    order = list(dict.fromkeys([row.rival for row in run.rows] + [row.ours for row in run.rows]))
    groups = []
    for (case, dtype), values in cases.items():
        whole = (
            values[baseline(run)].median
            if baseline(run) in values
            else max((v.median for v in values.values()), default=0.0)
        )
        written = [
            Bar(name, values[name].median / whole, figure(values[name].median, unit))
            for name in order
            if name in values and whole > 0
        ]
        if written:
            several = len({other for _, other in cases}) > 1
            groups.append((case + f", {dtype}" * several, written))
    if not groups:
        return None
    better = {"bytes": "bytes, less is better", "samples": "samples, more is better"}.get(unit, unit)
    title = f"{mode}: {better}, as a share of {baseline(run)}"
    alt = f"Bars, {mode}: " + "; ".join(
        f"{case}: " + ", ".join(f"{bar.contestant} {bar.label}" for bar in bars) for case, bars in groups
    )

    def draw() -> Figure:
        return bars_from(title, groups, 0.0, lambda share: f"{share:.0%}")

    return _picture(path_of(run.suite, mode), title, alt + ".", draw)


def _picture(name: str, title: str, alt: str, draw: Callable[..., Figure]) -> Picture:
    return Picture(name, plain(title), plain(alt), draw)


def _power(rows: Iterable[Row], least_or_most: Callable[[Iterable[float]], float]) -> str:
    return f"{math.log2(least_or_most(math.prod(row.shape) for row in rows)):.3g}"


def pictures(runs: Sequence[Run]) -> list[Picture]:
    """All that these runs have rows for, with a name each; later runs of a suite have theirs numbered."""
    drawn: list[Picture] = []
    for run in runs:
        modes = list(dict.fromkeys(row.mode for row in run.rows))
        if run.suite == "ops":
            dtypes = list(dict.fromkeys(row.dtype for row in run.rows))
            found = [kind(run, dtype) for kind in (speed_up, roofline) for dtype in dtypes]
            found += [rivals(run, dtype) for dtype in dtypes[:1]]
        elif run.suite in ("fused", "norm"):
            found = [dots(run, mode) for mode in modes]
        else:
            seconds = {row.mode for row in run.rows if row.unit == "seconds"}
            found = [step_ratios(run, mode) if mode in seconds else amounts(run, mode) for mode in modes]
        drawn += [replace(picture, run=run) for picture in found if picture]
    return named_apart(drawn)
