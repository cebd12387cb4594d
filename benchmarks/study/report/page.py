"""A study as a section of the HTML page: what the template shows."""

from __future__ import annotations

from ...report.html import Section, drawn, facts
from ...report.markdown import where
from ...report.notation import plain
from ..study import Study
from . import content
from .figures import of_claim, of_grid


def section(number: int, study: Study) -> Section:
    """``number``: of the run on the page."""
    told = {
        "where": plain(where(study)),
        "interrupted": study.interrupted,
        "claims": [(content.claim(claim), drawn(of_claim(study, claim))) for claim in study.claims],
        "others": [*content.grid(study), *(table for table in content.datasets(study) if table.rows)],
        "pictures": drawn(of_grid(study)),
    }
    title = "Trainings: is it true what they say of Leaky ReLU?"
    return Section(f"run-{number}", title, "train", facts(study), "study/report/study.html.j2", told)
