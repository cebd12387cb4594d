"""A study as a section of the HTML page: what the template shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...report.drawing import DARK, LIGHT, Picture
from ...report.markdown import where
from ...report.notation import plain
from ..study import Study
from . import content
from .figures import of_claim, of_grid

Drawn = tuple[str, str, str]  # light and dark data URIs, and what they show


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    suite: str
    where: str
    interrupted: bool
    claims: Sequence[tuple[content.Claim, Sequence[Drawn]]]
    others: Sequence[content.Table]
    pictures: Sequence[Drawn]


def _drawn(pictures: Sequence[Picture]) -> list[Drawn]:
    return [(picture.data_uri(LIGHT), picture.data_uri(DARK), plain(picture.alt)) for picture in pictures]


def section(number: int, study: Study) -> Section:
    """``number``: of the run on the page."""
    return Section(
        f"run-{number}",
        "Trainings: is it true what they say of Leaky ReLU?",
        "train",
        plain(where(study)),
        study.interrupted,
        [(content.claim(claim), _drawn(of_claim(study, claim))) for claim in study.claims],
        [*content.grid(study), *(table for table in content.datasets(study) if table.rows)],
        _drawn(of_grid(study)),
    )
