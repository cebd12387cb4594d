"""Results as one HTML page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ..results import Measured, Quantiles, Row, Run
from .drawing import DARK, LIGHT, Picture
from .figures import pictures
from .markdown import where
from .notation import NOTHING, elements, figure, page_faults, plain, ratio, setting, unit_of_extra
from .summary import COUNTS, Summary, by_rival, in_words, lost, main_results, name_of, obstacles
from .table import Column, Table

_TITLES = {
    "ops": "The op alone",
    "fused": "bias_leaky_relu: what surrounds the activation in the same pass",
    "norm": "Norm and activation as one op",
    "models": "Whole models",
    "memory": "Memory",
    "compile": "Small nets, eager and compiled",
}
_OF_RUN = "report/section.html.j2"
_WORST = 8
_WORDS = {"better": "better", "same": "same, within noise", "worse": "worse", "none": "no figures"}
_OUTPUTS = {"fresh": "by default", "warm": "used before"}


Drawn = tuple[str, str, str]  # a picture: light and dark data URIs, and what it shows


@dataclass(frozen=True)
class Section:
    """``facts``: of the environment, by name; ``template`` shows ``of`` as the section."""

    anchor: str
    title: str
    suite: str
    facts: Mapping[str, str]
    template: str
    of: Any


@dataclass(frozen=True)
class _Case:
    title: str
    table: Table[Row]
    verdicts: Sequence[str]  # of its rows


def facts(run: Measured) -> dict[str, str]:
    """Of its environment and its arguments, by name."""
    told = {name: setting(name, value) for name, value in run.environment.items()}
    told |= {f"argument {name}": setting(name, value) for name, value in run.arguments.items()}
    told["interrupted"] = "yes, rows are missing" if run.interrupted else "no"
    return {plain(name.replace("_", " ")): plain(text) for name, text in told.items()}


def _summary(entries: Sequence[Summary], several: bool) -> Table[Summary]:
    columns = (
        Column[Summary]("rival", lambda of: f"{of.ours} against {of.rival}" if several else of.rival, number=False),
        Column[Summary]("mode", lambda of: of.mode, number=False),
        *COUNTS,
        Column[Summary]("no figures", lambda of: str(of.without)),
        Column[Summary](
            "lowest ratio", lambda of: f"{ratio(of.worst)} – {name_of(of.worst)}" if of.worst else "", number=False
        ),
    )
    return Table.filled(columns, entries)


def _verdict(rows: Sequence[Row]) -> str:
    compared = [row for row in rows if row.ratio is not None]
    if not compared:
        return "No row has figures." if rows else "There are no rows."
    better, worse = (sum(row.verdict == verdict for row in compared) for verdict in ("better", "worse"))
    return (
        f"Of {len(compared)} comparisons, ours is better in {better}, worse in {worse}, "
        f"and the same within the noise in {len(compared) - better - worse}."
    )


def _spread(value: Quantiles | None, unit: str) -> str:
    if value is None:
        return NOTHING
    median = figure(value.median, unit)
    return median if value.low == value.high else f"{median} ({figure(value.low, unit)} – {figure(value.high, unit)})"


def _columns(run: Run) -> list[Column[Row]]:
    """What decides comes first: a phone shows three columns or four."""
    several = len({row.ours for row in run.rows}) > 1
    extras = dict.fromkeys(name for row in run.rows for name in row.extra)

    def bounds(row: Row) -> str:
        return NOTHING if row.ratio_low is None or row.ratio_high is None else f"{row.ratio_low:.2f} – {row.ratio_high:.2f}"

    def extra(name: str) -> Callable[[Row], str]:
        def pair(row: Row) -> str:
            """Rows hold ours first; a ratio is the rival's / ours, and so is this."""
            values = reversed(row.extra.get(name, ()))
            return " / ".join(NOTHING if value is None else figure(value, unit_of_extra(name)) for value in values)

        return pair

    return [
        Column("mode", lambda row: row.mode, number=False),
        Column("ours", lambda row: row.ours * several, number=False),
        Column("rival", lambda row: row.rival, number=False),
        Column("ratio", lambda row: ratio(row).removesuffix(" (same)")),
        Column("± noise", lambda row: f"{row.noise:.1%}" if row.noise else NOTHING),
        Column("ours is", lambda row: _WORDS[row.verdict] + (f": {row.obstacle}" if row.obstacle else ""), number=False),
        Column("outputs in memory", lambda row: _OUTPUTS.get(row.outputs, row.outputs), number=False),
        Column("rival", lambda row: _spread(row.rival_value, row.unit)),
        Column("ours", lambda row: _spread(row.ours_value, row.unit)),
        Column("ratio of rounds", bounds),
        *(Column(plain(name.replace("_", " ")), extra(name)) for name in extras),
        Column("rival's version", lambda row: row.version, number=False),
    ]


def _cases(run: Run) -> list[_Case]:
    """All rows, a table per case, shape, type and layout; columns that are empty in the whole run are left out."""
    cases: dict[str, list[Row]] = {}
    for row in run.rows:
        parts = (row.case, elements(row.shape) if row.shape else "", row.dtype, row.layout)
        cases.setdefault(", ".join(part for part in parts if part), []).append(row)
    columns = Table.filled(_columns(run), run.rows).columns
    return [_Case(plain(title), Table(columns, rows), [row.verdict for row in rows]) for title, rows in cases.items()]


def sections(runs: Sequence[Run]) -> list[Section]:
    """One of each, numbered."""
    found = pictures(runs)
    return [_section(number, run, [of for of in found if of.run is run]) for number, run in enumerate(runs, 1)]


def drawn(found: Sequence[Picture]) -> list[Drawn]:
    return [(picture.data_uri(LIGHT), picture.data_uri(DARK), plain(picture.alt)) for picture in found]


def _section(number: int, run: Run, of_run: Sequence[Picture]) -> Section:
    worst = lost(run.rows)
    # The least won are worth as much to a reader as what is lost.
    lowest = worst or sorted((row for row in run.rows if row.ratio is not None), key=lambda row: row.ratio or 0.0)[:3]
    several = len({row.ours for row in run.rows}) > 1
    seconds = all(row.unit == "seconds" for row in run.rows)  # one mean of bytes and samples says nothing
    told = {
        "where": plain(where(run)),
        "interrupted": run.interrupted,
        "answers": [*(f"{plain(in_words(entry))}." for entry in main_results(run)), _verdict(run.rows)],
        "pictures": drawn(of_run),
        "summary": _summary(by_rival(run), several) if seconds else None,
        "by_mode": _summary(by_rival(run, modes=True), several),
        "worst": [plain(f"{ratio(row)}: {row.ours} against {row.rival}, {name_of(row)}") for row in lowest[:_WORST]],
        "not_named": max(0, len(lowest) - _WORST),
        "any_lost": bool(worst),
        "obstacles": [
            plain(f"{sides}: {reason} ({len(rows)} row{'s' * (len(rows) > 1)}, first {name_of(rows[0])})")
            for reason, (sides, rows) in obstacles(run.rows).items()
        ],
        "cases": _cases(run),
        "faults": page_faults(run.environment),
    }
    title = _TITLES.get(run.suite, plain(run.suite))
    return Section(f"run-{number}", title, plain(run.suite), facts(run), _OF_RUN, told)


def page(of: Sequence[Section]) -> str:
    """The page of these sections."""
    names = dict.fromkeys(name for section in of for name in section.facts)
    told = {name: [section.facts.get(name, NOTHING) for section in of] for name in names}
    benches = [section for section in of if section.template == _OF_RUN]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1], encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return (
        environment.get_template("report/report.html.j2").render(
            sections=of,
            benches=benches,
            same=[(name, cells[0]) for name, cells in told.items() if len(set(cells)) == 1],
            differing=[(name, cells) for name, cells in told.items() if len(set(cells)) > 1],
            faults={section.facts.get("device", ""): cost for section in benches if (cost := section.of["faults"])},
        )
        + "\n"
    )
