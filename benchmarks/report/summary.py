"""What many rows come to: means and counts per rival, and the rows that are lost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..results import Row, Run
from .notation import NOTHING
from .table import Column

# What users have without us; of other suites the first rival that a run names.
BASELINES = {
    "ops": "built-in",
    "fused": "eager",
    "norm": "eager",
    "compile": "eager built-in",
    "models": "built-in",
    "memory": "built-in, out of place",
}


def baseline(run: Run) -> str:
    """The rival that the run's figures are first of all about; "" without rows."""
    rivals = dict.fromkeys(row.rival for row in run.rows)
    named = BASELINES.get(run.suite)
    return named if named in rivals else next(iter(rivals), "")


def counterpart(run: Run, ours: str) -> str:
    """The rival that ``ours`` replaces: compiled for compiled, in place for in place, else the baseline."""
    rivals = dict.fromkeys(row.rival for row in run.rows if row.ours == ours)
    if "compiled" in ours:
        return next((rival for rival in rivals if "compiled" in rival), baseline(run))
    if "in place" in ours:
        return next((rival for rival in rivals if "in place" in rival), baseline(run))
    return baseline(run)


def main_pairs(run: Run) -> list[tuple[str, str]]:
    """Each of ours and what it replaces."""
    return [(ours, counterpart(run, ours)) for ours in dict.fromkeys(row.ours for row in run.rows)]


def geometric_mean(ratios: Iterable[float]) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan


def name_of(row: Row) -> str:
    """Which case and mode, in words."""
    # Some cases have their layout or memory in their name.
    parts = (row.dtype, row.layout if row.layout != "contiguous" else "", row.mode, row.outputs)
    return ", ".join([row.case, *(part for part in parts if part and part not in row.case)])


@dataclass(frozen=True)
class Summary:
    """Of rows with the same two sides: ``mean`` is geometric, NaN if no row has a ratio; the counts are beyond the noise."""

    ours: str
    rival: str
    mode: str  # "" for all of them
    mean: float
    better: int
    same: int
    worse: int
    without: int  # rows that say why they have no figures
    worst: Row | None
    unit: str = "seconds"  # "" if there are several

    @property
    def compared(self) -> int:
        return self.better + self.same + self.worse


# What the terminal and the page tell of each.
COUNTS: Sequence[Column[Summary]] = (
    Column("ratio", lambda of: f"{of.mean:.2f}" if of.compared else NOTHING),
    Column("better", lambda of: str(of.better)),
    Column("same", lambda of: str(of.same)),
    Column("worse", lambda of: str(of.worse)),
)


def summarize(rows: Sequence[Row], mode: str = "") -> Summary:
    """Of at least one row."""
    measured = [row for row in rows if row.ratio is not None]
    verdicts = Counter(row.verdict for row in rows)
    return Summary(
        rows[0].ours,
        rows[0].rival,
        mode,
        geometric_mean(row.ratio for row in measured if row.ratio is not None),
        verdicts["better"],
        verdicts["same"],
        verdicts["worse"],
        verdicts["none"],
        min(measured, key=lambda row: row.ratio or math.inf, default=None),
        rows[0].unit if len({row.unit for row in rows}) == 1 else "",
    )


def by_rival(run: Run, modes: bool = False) -> list[Summary]:
    """A summary for each of ours and each rival, in the order in which they appear; with ``modes``, for each mode too."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in run.rows:
        groups.setdefault((row.mode if modes else "", row.ours, row.rival), []).append(row)
    return [summarize(rows, mode) for (mode, _, _), rows in groups.items()]


def lost(rows: Iterable[Row]) -> list[Row]:
    """Rows in which ours is worse beyond the noise, the worst first."""
    return sorted((row for row in rows if row.verdict == "worse"), key=lambda row: row.ratio or 0.0)


def obstacles(rows: Iterable[Row]) -> dict[str, tuple[str, list[Row]]]:
    """By reason: the contestants that all of those rows share, and the rows, which have no ratio."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.ratio is None:
            found.setdefault(row.obstacle or "no figures", []).append(row)
    return {reason: (_shared(without), without) for reason, without in found.items()}


def _shared(rows: Sequence[Row]) -> str:
    """A row does not say which side failed; one that takes part in all of several pairs did."""
    ours, rivals = (list(dict.fromkeys(names)) for names in ((row.ours for row in rows), (row.rival for row in rows)))
    if len(ours) > 1 and len(rivals) > 1:
        return "several"
    if len(ours) == len(rivals):
        return f"{ours[0]} against {rivals[0]}"
    return ours[0] if len(ours) == 1 else rivals[0]


def gain(summary: Summary) -> str:
    """How much better ours is, in the mean; "" where that says nothing."""
    if summary.worst is None or not summary.unit:
        return ""
    what = "as fast as" if summary.unit == "seconds" else "better than"
    mode = f"{summary.mode}: " if summary.mode else ""
    return f"{mode}{summary.ours} is {summary.mean:.2f} times {what} {summary.rival}"


def in_words(summary: Summary) -> str:
    """:func:`gain`, and of what."""
    same = f"{summary.same} the same within the noise"
    return f"{gain(summary)}, geometric mean of all {summary.compared} ratios ({same})"


def main_results(run: Run) -> list[Summary]:
    """Each of ours against what it replaces; by mode where different things were measured."""
    modes = any(row.unit != "seconds" for row in run.rows)
    return [entry for entry in by_rival(run, modes) if (entry.ours, entry.rival) in main_pairs(run) and gain(entry)]


def less(run: Run, extra: str) -> tuple[float, float] | None:
    """How many times less of ``extra`` ours takes than the baseline: the least and the most."""
    found = []
    for row in run.rows:
        ours, rival = row.extra.get(extra, (None, None))
        if row.rival == baseline(run) and "compiled" not in row.ours and ours and rival:
            found.append(rival / ours)
    return (min(found), max(found)) if found else None
