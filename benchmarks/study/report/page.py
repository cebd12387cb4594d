"""A study as a section of the HTML page: what the template shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...report.html import Drawn, Section, drawn, facts
from ...report.markdown import where
from ...report.notation import plain
from ..claims.effects import Effect
from ..study import ArmResult, ClaimResult, Study
from . import words
from .figures import of_claim, of_grid


@dataclass(frozen=True)
class Table:
    """``texts``: how many columns come before those of figures. ``note``: what goes for all rows."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int
    note: str = ""


@dataclass(frozen=True)
class Claim:
    name: str
    statement: str
    source: str
    method: str
    verdict: str
    counted: str
    effects: Table
    pictures: Sequence[Drawn]
    folded: Sequence[Table]


def _table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int, note: str = "") -> Table:
    return Table(title, headings, [[plain(cell) for cell in row] for row in rows], texts, plain(note))


def _effects(title: str, effects: Sequence[Effect], among: Sequence[Effect]) -> Table:
    return _table(title, words.EFFECTS, [words.effect(each, among) for each in effects], 5)


def _arms(arms: Sequence[ArmResult]) -> Table:
    return _table("All arms", words.ARMS, words.arms(arms), 3, words.common(arms))


def _claim(study: Study, of: ClaimResult) -> Claim:
    among = of.effects + of.others
    folded = [
        _effects("Beside that", of.others, among),
        _table("All training steps", words.COSTS, map(words.cost, of.costs), 2),
        _arms(of.arms),
    ]
    return Claim(
        plain(of.name),
        plain(of.statement),
        plain(of.source),
        plain(of.method),
        of.verdict,
        words.counted(of.effects),
        _effects("Effects", of.effects, among),
        drawn(of_claim(study, of)),
        [table for table in folded if table.rows],
    )


def section(number: int, study: Study) -> Section:
    """``number``: of the run on the page."""
    folded = [
        _arms(study.arms),
        _table("Datasets", words.DATASETS, words.datasets(study.datasets), 6),
        _table("Skipped", words.SKIPPED, words.skipped(study.skipped), 3),
    ]
    told = {
        "where": plain(where(study)),
        "interrupted": study.interrupted,
        "claims": [_claim(study, claim) for claim in study.claims],
        "folded": [table for table in folded if table.rows],
        "pictures": drawn(of_grid(study)),
    }
    title = "Trainings: is it true what they say of Leaky ReLU?"
    return Section(f"run-{number}", title, "train", facts(study), "study/report/study.html.j2", told)
