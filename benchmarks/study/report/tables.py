"""A study on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table

from ..claims.effects import NOT_SUPPORTED, SUPPORTED
from ..study import ArmResult, ClaimResult, Study
from . import words

_COLOURS = {SUPPORTED: "green", NOT_SUPPORTED: "red"}


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> Table:
    """``texts``: how many columns come before those of figures."""
    table = Table(title=escape(title), title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < texts else "right")
    dataset = columns.index("dataset")
    last = None
    for row in rows:
        if last not in (None, row[dataset]):
            table.add_section()
        last = row[dataset]
        table.add_row(*(f"[{_COLOURS[cell]}]{cell}[/]" if cell in _COLOURS else escape(cell) for cell in row))
    return table


def _arms(title: str, arms: Sequence[ArmResult]) -> Table:
    return _table(f"{title}: arms. {words.common(arms)}".strip(), words.ARMS, words.arms(arms), 3)


def _of_claim(claim: ClaimResult) -> list[Table]:
    among = claim.effects + claim.others
    effects, others = ([words.effect(each, among) for each in of] for of in (claim.effects, claim.others))
    title = f"{claim.name}: “{claim.statement}” {claim.verdict.upper()}"
    tables = [_table(title, words.EFFECTS, effects, 5)]
    if others:
        tables.append(_table(f"{claim.name}: beside that", words.EFFECTS, others, 5))
    if claim.costs:
        tables.append(_table(f"{claim.name}: training steps", words.COSTS, map(words.cost, claim.costs), 2))
    if claim.arms:
        tables.append(_arms(claim.name, claim.arms))
    return tables


def of(study: Study) -> list[Table]:
    tables = [table for claim in study.claims for table in _of_claim(claim)]
    if study.arms:
        tables.append(_arms("grid", study.arms))
    if study.skipped:
        tables.append(_table("Skipped", words.SKIPPED, words.skipped(study.skipped), 3))
    return tables


def summary(study: Study) -> str:
    lines = []
    if study.interrupted:
        lines.append("interrupted: only what was finished until then; --resume goes on")
    if not (study.claims or study.arms):
        lines.append("nothing is finished")
    lines += [words.verdict(claim) for claim in study.claims]
    return "\n".join(lines)
