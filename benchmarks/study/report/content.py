"""What a report of a study says, in the order it says it: claims with their tables, then the grid and the datasets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...report.notation import plain
from ..claims.effects import Effect
from ..study import ArmResult, ClaimResult, Study
from . import words


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
    """``others``: tables for those who want to know more."""

    name: str
    statement: str
    source: str
    method: str
    verdict: str
    counted: str
    effects: Table
    others: Sequence[Table]


def _table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int, note: str = "") -> Table:
    return Table(plain(title), headings, [[plain(cell) for cell in row] for row in rows], texts, plain(note))


def _filled(*tables: Table) -> list[Table]:
    return [table for table in tables if table.rows]


def _arms(title: str, arms: Sequence[ArmResult]) -> Table:
    return _table(title, words.ARMS, words.arms(arms), 3, words.common(arms))


def claim(of: ClaimResult) -> Claim:
    def effects(title: str, some: Sequence[Effect]) -> Table:
        return _table(title, words.EFFECTS, [words.effect(each, of.effects + of.others) for each in some], 5)

    texts = (plain(of.name), plain(of.statement), plain(of.source), plain(of.method))
    others = _filled(
        effects("Beside that", of.others),
        _table("All training steps", words.COSTS, map(words.cost, of.costs), 2),
        _arms("All arms", of.arms),
    )
    return Claim(*texts, of.verdict, words.counted(of.effects), effects("Effects", of.effects), others)


def summary(study: Study) -> list[Table]:
    """A line a claim."""
    datasets = [", ".join(dict.fromkeys(effect.dataset for effect in claim.effects)) for claim in study.claims]
    rows = [
        (claim.statement, claim.verdict, words.counted(claim.effects), on)
        for claim, on in zip(study.claims, datasets, strict=True)
    ]
    return _filled(_table("Claims", ("they say", "verdict", "effects", "on"), rows, 4))


def grid(study: Study) -> list[Table]:
    return _filled(_arms("Grid", study.arms))


def domains(study: Study) -> list[Table]:
    """By domain the arms with Leaky ReLU and ReLU as they usually are."""
    arms = [arm for claim in study.claims if claim.name == "domains" for arm in claim.arms]
    names = dict.fromkeys(arm.domain for arm in arms)
    return [_arms(domain, [arm for arm in arms if arm.domain == domain]) for domain in names]


def skipped(study: Study) -> list[Table]:
    rows = [(each.dataset, each.why, each.command) for each in study.skipped]
    return _filled(_table("Skipped", words.SKIPPED, rows, 3))


def datasets(study: Study) -> list[Table]:
    return [_table("Datasets", words.DATASETS, words.datasets(study.datasets), 6), *skipped(study)]
