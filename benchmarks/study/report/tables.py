"""A study on the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from ..claims.effects import NOT_SUPPORTED, SUPPORTED
from ..study import Study
from . import content, words

_COLOURS = {SUPPORTED: "green", NOT_SUPPORTED: "red"}


def _table(title: str, of: content.Table) -> Table:
    table = Table(title=escape(f"{title}. {of.note}" if of.note else title), title_justify="left")
    for number, column in enumerate(of.headings):
        table.add_column(column, justify="left" if number < of.texts else "right")
    datasets = [row[of.headings.index("dataset")] for row in of.rows]
    for row, dataset, following in zip(of.rows, datasets, [*datasets[1:], None], strict=False):
        cells = (f"[{_COLOURS[cell]}]{cell}[/]" if cell in _COLOURS else escape(cell) for cell in row)
        table.add_row(*cells, end_section=dataset != following)
    return table


def of(study: Study) -> list[Table]:
    tables = []
    for claim in map(content.claim, study.claims):
        tables.append(_table(f"{claim.name}: “{claim.statement}” {claim.verdict.upper()}", claim.effects))
        tables += [_table(f"{claim.name}: {table.title.lower()}", table) for table in claim.others]
    return tables + [_table(table.title, table) for table in (*content.grid(study), *content.skipped(study))]


def summary(study: Study) -> str:
    lines = []
    if study.interrupted:
        lines.append("interrupted: only what was finished until then; --resume goes on")
    if not (study.claims or study.arms):
        lines.append("nothing is finished")
    lines += [f"{claim.name}: {claim.verdict} ({words.counted(claim.effects)})" for claim in study.claims]
    return "\n".join(lines)
