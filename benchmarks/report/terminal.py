"""How results are shown in a terminal: the answer first, then tables that are no wider than the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from ..results import Row, Run
from .notation import NOTHING, figure, page_faults, plain, ratio, size
from .summary import COUNTS, Summary, baseline, by_rival, gain, less, lost, main_pairs, main_results, name_of, obstacles
from .table import Column, Table

T = TypeVar("T")
Line = Sequence[Row]  # of one contest and one of ours: a row for each rival

_STYLES = {"better": "green", "worse": "red"}
_WIDTH = 80  # of the summary
_NAMED = 2  # of the rows that are lost
_GAP = "  "
# Heading, name in Row.extra, how a value is shown: ours / the first rival's.
_EXTRAS: Sequence[tuple[str, str, Callable[[float], str]]] = (
    ("GB/s", "bytes_per_second", lambda value: f"{value / 1e9:.1f}"),
    ("of the roof", "roof_share", lambda value: f"{value:.0%}"),
    ("saved", "saved_bytes", size),
    ("peak", "peak_bytes", size),
    ("activation", "activation_share", lambda value: f"{value:.0%}"),
    ("faults", "page_faults", lambda value: f"{value:.0f}"),
)
_CAPTION = (
    "ratio: how many times better ours is, median over passes and rounds; above 1 it takes less time or memory, or more "
    "samples fit. same: within the noise. noise: half a 95 % interval. –: not measured."
)


def case_name(row: Row) -> str:
    return f"{row.case}, warm" if row.outputs == "warm" else row.case


def table(
    title: str, keys: Sequence[Column[T]], values: Sequence[Column[T]], entries: Sequence[T], width: int, split: bool = True
) -> Iterator[Text]:
    """Lines of at most ``width`` characters in which nothing is cut.

    ``keys`` say what an entry is; the first is its group. Those that are the same everywhere are in the title. If a line is
    too long, the group stands above its entries. If that is not enough, there are several tables, or, if they may not
    ``split``, more keys stand above.
    """
    keys, values = (Table.filled(columns, entries).columns for columns in (keys, values))
    same = [key for key in keys if len({key.cell(entry) for entry in entries}) == 1]
    title = ", ".join([title, *(plain(key.cell(entries[0])) for key in same)])
    columns = [*(key for key in keys if key not in same), *values]
    rows = Table(columns, entries).rows
    lengths = [max(len(text) for text in texts) for texts in zip([column.heading for column in columns], *rows, strict=True)]
    first = len(columns) - len(values)

    def room(above: int, shown: Sequence[int]) -> int:
        """What is left of the width beside the keys that are not above, and the values ``shown``."""
        indent = len(_GAP) if above else 0
        taken = [lengths[index] + len(_GAP) for index in (*range(above, first), *shown)]
        return int(width - indent - sum(taken) + len(_GAP))

    everything = range(first, len(columns))
    above = next((n for n in (0, 1) if room(n, everything) >= 0), -1)
    if above < 0 and split and all(room(1, [index]) >= 0 for index in everything):
        above = 1
    if above < 0:
        above = next((n for n in range(2, first) if room(n, everything) >= 0), first)
    left = list(everything)
    while left:
        part = [left.pop(0)]
        while left and room(above, [*part, left[0]]) >= 0:
            part.append(left.pop(0))
        yield from (Text(line, "bold") for line in textwrap.wrap(title, width))
        shown = [*range(above, first), *part]
        told = [index for index, texts in enumerate(rows) if any(texts[of] not in ("", NOTHING) for of in part)]
        kept = [entries[index] for index in told]
        yield from _lines(columns, [rows[index] for index in told], kept, lengths, shown, above, width)
        yield Text()
        title = title.removesuffix(", continued") + ", continued"


def _lines(
    columns: Sequence[Column[T]], rows: Sequence[Sequence[str]], entries: Sequence[T], lengths: Sequence[int],
    shown: Sequence[int], above: int, width: int,
) -> Iterator[Text]:  # fmt: skip
    def line(texts: Sequence[str], styles: Sequence[str], style: str = "") -> Text:
        parts = [_GAP] if above else []
        written = Text(style=style)
        for index in shown:
            text = texts[index].rjust(lengths[index]) if columns[index].number else texts[index].ljust(lengths[index])
            written.append("".join(parts)).append(text, styles[index] or None)
            parts = [_GAP]
        written.rstrip()
        return written

    yield line([column.heading for column in columns], [""] * len(columns), "bold")
    before = 0  # entries in the last group
    for group, numbers in groupby(range(len(rows)), key=lambda number: rows[number][: max(above, 1)]):
        members = list(numbers)
        if above:
            yield from (Text(part, "underline") for part in textwrap.wrap(", ".join(group), width))
        elif before > 1 or (before and len(members) > 1):
            yield Text()
        before = len(members)
        for number in members:
            styles = [_STYLES.get(column.verdict(entries[number]), "") if column.verdict else "" for column in columns]
            yield line(rows[number], styles)


def _of(line: Line, rival: str) -> Row | None:
    return next((row for row in line if row.rival == rival), None)


def _main(line: Line, rival: str) -> Row:
    """Against what ours replaces or, where that cannot do this, against the first that can."""
    return _of(line, rival) or line[0]


def _cell(row: Row | None) -> str:
    if row is not None and row.ratio is None:
        return "absent" if (row.obstacle or "").startswith("not installed") else "fails" if row.rival_value is None else "?"
    return ratio(row) if row else NOTHING


def _ratio(heading: str, of: Callable[[Line], Row | None]) -> Column[Line]:
    def verdict(line: Line) -> str:
        row = of(line)
        return row.verdict if row else ""

    return Column(heading, lambda line: _cell(of(line)), verdict=verdict)


def _ours(line: Line) -> str:
    return next((figure(row.ours_value.median, row.unit) for row in line if row.ours_value), "fails")


def _noise(line: Line, rows: Callable[[Line], Sequence[Row]]) -> str:
    noise = max(row.noise or 0.0 for row in rows(line))
    return f"±{noise:.0%}" if noise else ""


def _extra(heading: str, name: str, form: Callable[[float], str], main: Callable[[Line], Row]) -> Column[Line]:
    def cell(line: Line) -> str:
        ours = next((row.extra[name][0] for row in line if name in row.extra), None)
        pair = (ours, main(line).extra.get(name, (None, None))[1])
        return NOTHING if pair == (None, None) else " / ".join(NOTHING if value is None else form(value) for value in pair)

    return Column(heading, cell)


_KEYS: Sequence[Column[Line]] = (
    Column("case", lambda line: case_name(line[0]), number=False),
    Column("dtype", lambda line: line[0].dtype, number=False),
    Column("mode", lambda line: line[0].mode, number=False),
)


def _tables(run: Run, width: int, wide: bool) -> Iterator[Text]:
    """For each of ours: against what it replaces, then against the other rivals; ``wide``: both and what else is known."""
    for ours, rival in main_pairs(run):
        lines: dict[tuple[object, ...], list[Row]] = {}
        for row in run.rows:
            if row.ours == ours:
                lines.setdefault(row.contest, []).append(row)
        entries = list(lines.values())

        def main(line: Line, rival: str = rival) -> Row:
            return _main(line, rival)

        def theirs(line: Line, rival: str = rival) -> str:
            row = _main(line, rival)
            return figure(row.rival_value.median, row.unit) if row.rival_value else NOTHING

        rivals = list(dict.fromkeys(row.rival for row in run.rows if row.ours == ours))
        others = [name for name in rivals if name != rival]
        against = [_ratio(plain(name), lambda line, name=name: _of(line, name)) for name in others]  # type: ignore[misc]
        values = [Column(plain(ours), _ours), Column(plain(rival), theirs), _ratio("ratio", main)]
        if wide:
            extras = [_extra(*extra, main) for extra in _EXTRAS]
            noise = Column[Line]("noise", lambda line: _noise(line, lambda line: line))
            vs = [Column(f"vs {column.heading}", column.cell, verdict=column.verdict) for column in against]
            yield from table(f"{ours} against {rival} and others", _KEYS, [*values, *vs, noise, *extras], entries, width)
            continue
        values.append(Column("noise", lambda line, main=main: _noise(line, lambda line: [main(line)])))  # type: ignore[misc]
        yield from table(f"{ours} against {rival}", _KEYS, values, entries, width, split=False)
        instead = {(line[0].mode, main(line).rival) for line in entries if main(line).rival != rival}
        for mode, name in sorted(instead):
            yield from wrapped(f"{mode}: against {name}", width)
        beside = [line for line in entries if any(row.rival in others for row in line)]
        if beside:
            yield from table(f"Times better than others: {ours}", _KEYS, against, beside, width)


def wrapped(text: str, width: int, indent: str = "") -> list[Text]:
    return [Text(line) for line in textwrap.wrap(plain(text), width, subsequent_indent=indent, break_on_hyphens=False)]


def _summary(run: Run, width: int) -> Iterator[Text]:
    """What is better by how much, what is the same, what is lost, what memory is kept, what page faults cost."""
    if run.interrupted:
        yield from wrapped("interrupted: only what was measured until then", width)
    yield from _answer(run, width)
    yield Text()
    pairs = main_pairs(run)
    several, mixed = len(pairs) > 1, len({row.unit for row in run.rows}) > 1
    entries = [
        entry
        for pair in pairs
        for entry in by_rival(run, modes=mixed or not several)
        if (entry.ours, entry.rival) == pair and entry.compared
    ]
    entries += [entry for entry in by_rival(run) if (entry.ours, entry.rival) not in pairs and entry.unit and entry.compared]
    keys = (
        Column[Summary]("against", lambda entry: f"{entry.ours} vs " * several + entry.rival, number=False),
        Column[Summary]("in", lambda entry: entry.mode, number=False),
    )
    if entries:
        lowest = Column[Summary]("lowest", lambda entry: ratio(entry.worst).split()[0] if entry.worst else NOTHING)
        yield from table("Times better", keys, (*COUNTS, lowest), entries, width, split=False)
    worse = lost(run.rows)
    compared = sum(row.ratio is not None for row in run.rows)
    named = "; ".join(
        f"{ratio(row)} {f'{row.ours} ' * several}against {row.rival}: {name_of(row)}" for row in worse[:_NAMED]
    )
    found = [f"lost beyond the noise: {len(worse)} of {compared}" + f", most: {named}" * bool(worse)]
    for what, name in (("kept for the backward", "saved_bytes"), ("peak memory", "peak_bytes")):
        if ends := less(run, name):
            found.append(f"{what}: {' to '.join(f'{end:.3g}' for end in ends)} times less than {baseline(run)}")
    if cost := page_faults(run.environment):
        faulting = [row for row in run.rows if None not in row.extra.get("page_faults", (None,))]
        most = max(faulting, key=lambda row: row.extra["page_faults"][1] or 0.0, default=None)
        ours, theirs = most.extra["page_faults"] if most else (0.0, 0.0)
        calls = f"; up to {ours:.0f} a call, {most.rival} {theirs:.0f}" if most else ""
        found.append(f"page faults: {cost.replace(' and', ',')}{calls}")
    if missing := len(run.rows) - compared:
        found.append(f"not measured: {missing} of {len(run.rows)} rows; why is said below the tables")
    for line in found:
        yield from wrapped(line, width, _GAP)


def _answer(run: Run, width: int) -> Iterator[Text]:
    for entry in main_results(run):
        if entry.unit == "seconds" or entry.ours == run.rows[0].ours:
            words = f"{gain(entry)} (geometric mean of {entry.compared}, {entry.same} the same)"
            yield from wrapped(words, width, _GAP)


def show(run: Run, console: Console, wide: bool = False) -> None:
    """Prints ``run`` for the width of ``console``; ``wide``: with all columns."""
    width = console.width
    lines = [*_summary(run, min(width, _WIDTH)), Text(), *_tables(run, width, wide), *wrapped(_CAPTION, width)]
    if wide:
        lines += wrapped("Behind a slash: of the rival named first.", width)
    for reason, (sides, rows) in obstacles(run.rows).items():
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        lines += wrapped(f"not measured: {sides} ({name_of(rows[0])}{more}): {reason}", width, _GAP)
    lines += _answer(run, width)  # once more: where there are many rows the first lines are out of sight
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
