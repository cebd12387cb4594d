"""All rows of a run as tables of text, nothing selected and nothing left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..results import Quantiles, Row, Run
from .notation import NOTHING, elements, figure, plain, ratio, unit_of_extra


@dataclass(frozen=True)
class Listed:
    verdict: str
    cells: Sequence[str]


@dataclass(frozen=True)
class Listing:
    """The rows of one case. ``headings`` and whether a column holds numbers; cells in the same order."""

    title: str
    headings: Sequence[tuple[str, bool]]
    rows: Sequence[Listed]
    worse: int
    without: int


VERDICT = "ours is"
_WORDS = {"better": "better", "same": "same, within noise", "worse": "worse", "none": "no figures"}


def _spread(value: Quantiles | None, unit: str) -> str:
    if value is None:
        return NOTHING
    median = figure(value.median, unit)
    return median if value.low == value.high else f"{median} ({figure(value.low, unit)} – {figure(value.high, unit)})"


def _bounds(row: Row) -> str:
    return NOTHING if row.ratio_low is None or row.ratio_high is None else f"{row.ratio_low:.2f} – {row.ratio_high:.2f}"


def _pair(pair: tuple[float | None, float | None], unit: str) -> str:
    """Rows hold ours first; a ratio is the rival's / ours, and so is this."""
    return " / ".join(NOTHING if value is None else figure(value, unit) for value in reversed(pair))


def listings(run: Run) -> list[Listing]:
    """A table per case, shape, type and layout; columns that are empty in the whole run are left out."""
    several = len({row.ours for row in run.rows}) > 1
    extras = list(dict.fromkeys(name for row in run.rows for name in row.extra))
    # What decides comes first: a phone shows three columns or four.
    columns: list[tuple[str, bool, Callable[[Row], str]]] = [
        ("mode", False, lambda row: row.mode),
        ("ours", False, lambda row: row.ours if several else ""),
        ("rival", False, lambda row: row.rival),
        ("ratio", True, lambda row: ratio(row).removesuffix(" (same)")),
        ("± noise", True, lambda row: f"{row.noise:.1%}" if row.noise else NOTHING),
        (VERDICT, False, lambda row: _WORDS[row.verdict] + (f": {row.obstacle}" if row.obstacle else "")),
        (
            "outputs in memory",
            False,
            lambda row: {"fresh": "by default", "warm": "used before"}.get(row.outputs, row.outputs),
        ),
        ("rival", True, lambda row: _spread(row.rival_value, row.unit)),
        ("ours", True, lambda row: _spread(row.ours_value, row.unit)),
        ("ratio of rounds", True, _bounds),
    ]
    for name in extras:
        unit = unit_of_extra(name)

        def cell(row: Row, name: str = name, unit: str = unit) -> str:
            return _pair(row.extra[name], unit) if name in row.extra else ""

        columns.append((name.replace("_", " "), True, cell))
    columns.append(("rival's version", False, lambda row: row.version))
    filled = [column for column in columns if any(column[2](row) not in ("", NOTHING) for row in run.rows)]
    cases: dict[tuple[str, tuple[int, ...], str, str], list[Row]] = {}
    for row in run.rows:
        cases.setdefault((row.case, row.shape, row.dtype, row.layout), []).append(row)
    return [
        Listing(
            plain(", ".join(part for part in (case, elements(shape) if shape else "", dtype, layout) if part)),
            [(plain(heading), number) for heading, number, _ in filled],
            [Listed(row.verdict, [plain(text(row)) for *_, text in filled]) for row in rows],
            sum(row.verdict == "worse" for row in rows),
            sum(row.verdict == "none" for row in rows),
        )
        for (case, shape, dtype, layout), rows in cases.items()
    ]
