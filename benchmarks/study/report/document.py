"""docs/study.md: a study as a document, generated."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2

from ...report.drawing import Picture
from ...report.markdown import table as markdown_table
from ...report.markdown import text as markdown_text
from ...report.markdown import where
from ...report.notation import plain
from ...results import write
from ..study import Study
from . import content
from .figures import of_claim, of_grid

# What changes no figure, or is in the line that tells the machine.
_UNTOLD = ("device", "threads", "jobs", "data")


def _table(of: content.Table) -> str:
    table = markdown_table(of.headings, [[markdown_text(cell) for cell in row] for row in of.rows], of.texts)
    return f"{markdown_text(of.note)}\n\n{table}" if of.note else table


def _images(pictures: Sequence[Picture], folder: str | None) -> str:
    """``folder``: of the pictures; None: without them."""
    if folder is None:
        return ""
    place = html.escape(folder)
    return "".join(
        f'<img src="{place}/{picture.name}.png" width="49%" alt="{html.escape(plain(picture.alt))}">\n'
        for picture in pictures
    )


def _call(study: Study) -> str:
    """Its options but for those that change no figure; of its file only what can stand in a call."""
    parts = []
    for name, value in study.arguments.items():
        for each in value if isinstance(value, list) else [value]:
            option = f"--{name.replace('_', '-')}" + ("" if each is True else f" {each}")
            if (
                each not in (None, False, "default")
                and name not in _UNTOLD
                and re.fullmatch(r"--[\w-]+( [\w.+-]+)?", option)
            ):
                parts.append(option)
    return " ".join(parts)


def _effort(study: Study) -> str:
    """How many seeds and learning rates there were."""
    arms = [*study.arms, *(arm for claim in study.claims for arm in claim.arms)]
    seeds = sorted({len(arm.scores) for arm in arms})
    rates = sorted({len(arm.sweep) for arm in arms if arm.sweep})
    counts = [(seeds, "fresh seeds an arm"), (rates, "learning rates a sweep")]
    found = [" to ".join(dict.fromkeys((str(of[0]), str(of[-1])))) + f" {what}" for of, what in counts if of]
    if of_sweep := len({outcome.configuration.seed for outcome in study.outcomes if outcome.configuration.seed < 0}):
        found.append(f"{of_sweep} seed{'s' * (of_sweep > 1)} for each rate")
    return f"Here: {', '.join(found)}, {len(study.outcomes)} trainings in all." if found else ""


def _opening(study: Study) -> str:
    return f"`leakyrelu-bench train {_call(study)}`, {markdown_text(where(study))}."


def render(study: Study, folder: str | None) -> str:
    """The document; ``folder``: of its pictures, from where it lies; None: without pictures."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8")
    environment = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["text"] = markdown_text
    text = environment.get_template("study.md.j2").render(
        table=_table,
        opening=_opening(study),
        effort=_effort(study),
        summary=content.summary(study),
        claims=[(content.claim(claim), _images(of_claim(study, claim), folder)) for claim in study.claims],
        grid=content.grid(study),
        pictures=_images(of_grid(study), folder),
        domains=content.domains(study),
        datasets=content.datasets(study),
    )
    return re.sub(r"\n{3,}", "\n\n", text) + "\n"


def overview(study: Study, folder: str) -> str:
    """For the page of results: the claims, and the figures of the first of them."""
    tables = "".join(_table(of) + "\n" for of in content.summary(study))
    images = "".join(_images(of_claim(study, claim)[:2], folder) for claim in study.claims[:1])
    return f"{_opening(study)}\n\n{tables}\n{images}"


def save(study: Study, path: Path, pictures: Path | None) -> None:
    """Writes the document; ``pictures``: the folder that its pictures lie in, if they are to be shown.

    Raises:
        ResultsError: the file cannot be written.
    """
    folder = Path(os.path.relpath(pictures, path.absolute().parent)).as_posix() if pictures else None
    write(path, render(study, folder))
