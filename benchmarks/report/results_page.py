"""Results as one document in Markdown: a selection of each suite's rows as tables, its pictures, and what they come to."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import jinja2

from ..results import Row, Run
from .figures import pictures
from .markdown import of as table
from .markdown import text, where
from .notation import NOTHING, figure, ratio
from .summary import baseline, by_rival, counterpart, in_words, main_pairs, name_of, obstacles
from .table import Column

K = TypeVar("K")
Group = Sequence[Row]  # what one line of a table is about

# In the order in which they are told.
SUITES = ("ops", "fused", "norm", "models", "memory", "compile")
_SHOWN = 16  # rows of a table none of which is among the telling ones


def _listed(names: Sequence[str], word: str) -> str:
    return f"{'; '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else "".join(names)


def _sums(run: Run) -> Iterable[str]:
    """What each of ours comes to against the baseline and what it replaces; what could not be compared."""
    for entry in by_rival(run):
        # A mean of bytes and samples says nothing, and the table has all rows.
        wanted = entry.rival == baseline(run) or (entry.ours, entry.rival) in main_pairs(run)
        if wanted and entry.worst and all(row.unit == "seconds" for row in run.rows):
            yield text(
                f"{in_words(entry)}; worst {ratio(entry.worst)} ({name_of(entry.worst)}); {entry.better} better, "
                f"{entry.same} the same, {entry.worse} worse."
            )
    for reason, (sides, rows) in obstacles(run.rows).items():
        yield text(f"Not compared: {sides}: {reason} ({len(rows)} of {len(run.rows)} rows).")


def _one(rows: Iterable[Row], of: Callable[[Row], str]) -> str:
    return next((found for row in rows if (found := of(row)) not in ("", NOTHING)), NOTHING)


def _pair(name: str, unit: str, rival: str) -> Callable[[Group], str]:
    """What is known of ``rival`` and of ours beside it."""

    def cell(row: Row) -> str:
        ours, theirs = row.extra.get(name, (None, None))
        return NOTHING if ours is None or theirs is None else f"{figure(theirs, unit)} / {figure(ours, unit)}"

    return lambda group: _one((row for row in group if row.rival == rival), cell)


def _telling_op(row: Row) -> bool:
    telling = re.search(r"^photos, stem [12]$|^noise, 2\^(6|12|16|20|24)$|::2\]", row.case.removesuffix(", warm"))
    return bool(telling) and (row.dtype != "float16" or row.case == "noise, 2^20")


def _telling_fusion(row: Row) -> bool:
    return bool(re.search(r"^StyleGAN2.*(8x64x128x128|2x32x8x8|clamp)|residual block|dropout", row.case))


def _chosen(rows: Sequence[Row], telling: Callable[[Row], bool]) -> list[Row]:
    sides = {(row.mode, row.ours, row.rival) for row in rows}
    return [row for row in rows if telling(row)] or list(rows[: _SHOWN * len(sides)])


def _by(rows: Iterable[Row], key: Callable[[Row], K]) -> list[Group]:
    groups: dict[K, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _input(row: Row) -> str:
    layout = row.layout if row.layout not in ("", "contiguous", "strided") and row.layout not in row.case else ""
    warm = "warm" if row.outputs == "warm" and "warm" not in row.case else ""
    return ", ".join(part for part in (row.case, layout, warm) if part)


def _text(heading: str, of: Callable[[Row], str]) -> Column[Group]:
    return Column(heading, lambda group: of(group[0]), number=False)


def _ops(run: Run) -> str:
    rival = baseline(run)
    rows = [row for row in run.rows if row.rival == rival]
    # In small tensors no page is new: there warm outputs say nothing more.
    small = {row.case for row in rows if row.outputs != "warm" and math.prod(row.shape) < 2**20}
    shown = [row for row in _chosen(rows, _telling_op) if row.outputs != "warm" or row.case not in small]

    def of_mode(mode: str) -> Column[Group]:
        return Column(mode, lambda group: _one((row for row in group if row.mode == mode), ratio))

    columns = [_text("input", _input), _text("dtype", lambda row: row.dtype)]
    columns += [of_mode(mode) for mode in dict.fromkeys(row.mode for row in rows)]
    columns.append(Column(f"saved for the backward, {rival} / ours", _pair("saved_bytes", "bytes", rival)))
    return table(columns, _by(shown, lambda row: (_input(row), row.dtype)))


def _fusions(run: Run) -> str:
    names = list(dict.fromkeys(row.rival for row in run.rows))

    def of_mode(mode: str) -> Column[Group]:
        def cell(group: Group) -> str:
            found = {row.rival: ratio(row) for row in group if row.mode == mode}
            return ", ".join(found.get(name, NOTHING) for name in names)

        return Column(f"{mode}: {', '.join(names)}", cell)

    columns = [_text("operation, input", _input), _text("dtype", lambda row: row.dtype)]
    columns += [of_mode(mode) for mode in dict.fromkeys(row.mode for row in run.rows)]
    columns.append(Column(f"saved, {baseline(run)} / ours", _pair("saved_bytes", "bytes", baseline(run))))
    return table(columns, _by(_chosen(run.rows, _telling_fusion), lambda row: (_input(row), row.dtype)))


def _steps(run: Run) -> str:
    """Of `compile` and `models`: a column for each of ours, against what it replaces."""
    modes = list(dict.fromkeys(row.mode for row in run.rows))
    several = len({row.dtype for row in run.rows}) > 1

    def of_pair(mode: str, ours: str) -> Column[Group]:
        def cell(group: Group) -> str:
            sides = (mode, ours, counterpart(run, ours))
            return _one((row for row in group if (row.mode, row.ours, row.rival) == sides), ratio)

        return Column(f"{mode}: {ours}" if len(modes) > 1 else ours, cell)

    columns = [_text("net", lambda row: row.case + f", {row.dtype}" * several)]
    columns += [of_pair(mode, ours) for mode, ours in dict.fromkeys((row.mode, row.ours) for row in run.rows)]
    for what, name, unit in (
        ("time in activations", "activation_share", "share"),
        ("saved for the backward", "saved_bytes", "bytes"),
        ("peak memory", "peak_bytes", "bytes"),
    ):
        columns.append(Column(f"{what}, {baseline(run)} / ours", _pair(name, unit, baseline(run))))
    return table(columns, _by(run.rows, lambda row: (row.case, row.dtype)))


def _memory(run: Run) -> str:
    """A column for each contestant, theirs first."""
    several = {row.case for row in run.rows for other in run.rows if row.case == other.case and row.dtype != other.dtype}

    def of(name: str) -> Column[Group]:
        def cell(row: Row) -> str:
            sides = ((row.rival, row.rival_value), (row.ours, row.ours_value))
            return next((figure(value.median, row.unit) for side, value in sides if side == name and value), NOTHING)

        return Column(name, lambda group: _one(group, cell))

    columns = [
        _text("net", lambda row: f"{row.case}, {row.dtype}" if row.case in several else row.case),
        _text("what", lambda row: row.mode),
        *map(of, dict.fromkeys([row.rival for row in run.rows] + [row.ours for row in run.rows])),
    ]
    return table(columns, _by(run.rows, lambda row: (row.case, row.dtype, row.mode, row.unit)))


_TABLES: dict[str, Callable[[Run], str]] = {"ops": _ops, "fused": _fusions, "norm": _fusions, "memory": _memory}


def images(run: Run, runs: Sequence[Run], folder: str, most: int = 2) -> str:
    """The first pictures of ``run``: they show what decides."""
    drawn = [picture for picture in pictures(runs) if picture.run is run]
    shown = [picture for picture in drawn if run.suite != "ops" or "/speedup-" in picture.name][:most]
    return "\n".join(
        f'<img src="{html.escape(folder)}/{picture.name}.png" width="49%" alt="{html.escape(picture.title)}">'
        for picture in shown
    )


def render(runs: Sequence[Run], folder: str, trainings: Sequence[str] = ()) -> str:
    """The document about ``runs``, in this order; ``folder``: of their pictures. Of several runs of a suite the first is
    shown, the others are summed up. ``trainings``: what is said of studies."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    sections = [
        {
            "suite": text(first.suite),
            "call": text(first.suite + " --full" * bool(first.arguments.get("full"))),
            "where": text(where(first)),
            "rows": len(first.rows),
            "rival": text(baseline(first)),
            "table": _TABLES.get(first.suite, _steps)(first) if first.rows else "No rows.",
            "images": images(first, runs, folder),
            "sums": [(text(where(run)), list(_sums(run)) or ["Nothing was compared."]) for run in of_suite],
            "others": _others(first),
        }
        for of_suite in ([run for run in runs if run.suite == suite] for suite in dict.fromkeys(run.suite for run in runs))
        for first in of_suite[:1]
    ]
    written = environment.get_template("results.md.j2").render(sections=sections, trainings=trainings)
    return re.sub(r"\n{3,}", "\n\n", written).rstrip() + "\n"


def _others(run: Run) -> str:
    """Which of ours replace another rival than the baseline, and which that is."""
    others = {ours: rival for ours, rival in main_pairs(run) if rival != baseline(run)}
    if not others:
        return ""
    return text(f"({_listed(list(others), 'and')}: {_listed(list(dict.fromkeys(others.values())), 'or')}'s)")
