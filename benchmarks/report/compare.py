"""`leakyrelu-bench compare`: what changed between two runs beyond the noise of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from ..results import TOO_LITTLE, Row, Run
from .table import Column
from .terminal import case_name, table, wrapped

# What must be the same for a change to be ours.
_COMPARED = ("device", "cpu_tier", "threads", "torch", "huge_pages", "allocator", "settings")


@dataclass(frozen=True)
class Change:
    """``factor``: the second ratio / the first, above 1 ours gained on that rival. ``noise``: of the factor."""

    before: Row
    after: Row

    @property
    def factor(self) -> float:
        before, after = self.before.ratio, self.after.ratio
        assert before is not None
        assert after is not None
        return after / before

    @property
    def noise(self) -> float:
        logs = (math.log1p(row.noise or 0.0) for row in (self.before, self.after))
        return math.expm1(math.hypot(*logs))

    @property
    def verdict(self) -> str:
        if abs(math.log(self.factor)) <= math.log1p(self.noise):
            return "same"
        return "better" if self.factor > 1 else "worse"


@dataclass(frozen=True)
class Comparison:
    changes: Sequence[Change]
    lost: Sequence[Row]  # measured before, failing now
    gained: Sequence[Row]  # the other way round
    only_before: int
    only_after: int
    differences: Sequence[str]  # of the environments

    def regressions(self, threshold: float) -> list[Change | Row]:
        """What got worse beyond the noise and by more than ``threshold`` (a fraction), and what fails now."""
        limit = -math.log1p(threshold)
        worse = [change for change in self.changes if change.verdict == "worse" and math.log(change.factor) < limit]
        return [*sorted(worse, key=lambda change: change.factor), *self.lost]


def compare(before: Run, after: Run) -> Comparison:
    """Row by row, by what was measured; ratios, which were measured side by side, not times of different runs."""
    old, new = ({row.key: row for row in run.rows} for run in (before, after))
    both = [(old[key], new[key]) for key in old if key in new]
    environments = (before.environment, after.environment)
    differences = [
        f"{name}: {one} before, {other} after"
        for name in _COMPARED
        for one, other in [tuple(environment.get(name) for environment in environments)]
        if one != other
    ]
    differences += [f"{when} was interrupted" for when, run in (("before", before), ("after", after)) if run.interrupted]
    return Comparison(
        [Change(one, other) for one, other in both if one.ratio and other.ratio],
        [other for one, other in both if one.ratio and not other.ratio and other.obstacle != TOO_LITTLE],
        [other for one, other in both if other.ratio and not one.ratio],
        len(old.keys() - new.keys()),
        len(new.keys() - old.keys()),
        differences,
    )


def _texts(heading: str, of: Callable[[Row], str]) -> Column[Change]:
    return Column(heading, lambda change: of(change.after), number=False)


_KEYS = (
    _texts("case", case_name),
    _texts("dtype", lambda row: row.dtype),
    _texts("mode", lambda row: row.mode),
    _texts("ours", lambda row: row.ours),
    _texts("against", lambda row: row.rival),
)
_CAPTION = (
    "before, after: how many times better ours is than that rival, measured side by side in each run. change: after / "
    "before, above 1 ours gained. noise: of the change, half a 95 % interval: 1 row in 20 may be here by chance."
)


def lines(comparison: Comparison, threshold: float, width: int) -> Iterator[Text]:
    """What changed beyond the noise, the worst first."""
    shown = sorted((change for change in comparison.changes if change.verdict != "same"), key=lambda change: change.factor)

    def verdict(change: Change) -> str:
        regression = math.log(change.factor) < -math.log1p(threshold)
        return "worse" if regression else "better" if change.factor > 1 else ""

    values = (
        Column[Change]("before", lambda change: f"{change.before.ratio:.2f}"),
        Column[Change]("after", lambda change: f"{change.after.ratio:.2f}"),
        Column[Change]("change", lambda change: f"{change.factor:.2f}", verdict=verdict),
        Column[Change]("noise", lambda change: f"±{change.noise:.0%}"),
    )
    if shown:
        yield from table("Changes beyond the noise", _KEYS, values, shown, width, split=False)
        yield from wrapped(_CAPTION, width)


def show(comparison: Comparison, threshold: float, console: Console) -> None:
    told = [part for line in summary(comparison, threshold).splitlines() for part in wrapped(line, console.width)]
    for line in (*lines(comparison, threshold, console.width), *told):
        console.print(line, highlight=False, soft_wrap=True)


def summary(comparison: Comparison, threshold: float) -> str:
    changes = comparison.changes
    verdicts = [change.verdict for change in changes]
    lines = [f"not alike: {difference}" for difference in comparison.differences]
    for rows, what in ((comparison.lost, "fails now"), (comparison.gained, "failed before")):
        lines += [f"{what}: {case_name(row)}, {row.mode}, {row.ours} against {row.rival}: {row.obstacle}" for row in rows]
    if comparison.only_before or comparison.only_after:
        lines.append(f"only before: {comparison.only_before} rows; only after: {comparison.only_after}")
    share = verdicts.count("same") / len(changes) if changes else 1.0
    lines.append(
        f"{len(changes)} rows in both: {verdicts.count('same')} the same within the noise ({share:.1%}), "
        f"{verdicts.count('better')} better, {verdicts.count('worse')} worse; "
        f"{len(comparison.regressions(threshold))} regressions over {threshold:.0%}"
    )
    return "\n".join(lines)
