"""`leakyrelu-bench report`: files of results as an HTML page, figures, documents and a block in README."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from .report import figures, html, readme, results_page
from .report.drawing import Picture, named_apart
from .results import STUDY, ResultsError, Run, document, load, refuse_to_overwrite, write
from .study.report import document as study_document
from .study.report import figures as study_figures
from .study.report import page as study_page
from .study.study import Study
from .study.study import load as load_study


def _apart(runs: Sequence[Run | Study]) -> tuple[list[Run], list[Study]]:
    """Benchmarks in the order in which they are told, and studies."""
    order = results_page.SUITES
    benches = [run for run in runs if isinstance(run, Run)]
    benches.sort(key=lambda run: order.index(run.suite) if run.suite in order else len(order))
    return benches, [run for run in runs if isinstance(run, Study)]


def pictures(runs: Sequence[Run | Study]) -> list[Picture]:
    benches, studies = _apart(runs)
    of_studies = [picture for study in studies for picture in study_figures.pictures(study)]
    return named_apart([*figures.pictures(benches), *of_studies])


def page(runs: Sequence[Run | Study]) -> str:
    """One HTML page about ``runs``, studies last, that needs no other file and no network."""
    benches, studies = _apart(runs)
    sections = html.sections(benches)
    sections += [study_page.section(number, study) for number, study in enumerate(studies, len(benches) + 1)]
    return html.page(sections)


def results(runs: Sequence[Run | Study], folder: str) -> str:
    """One document about ``runs``; ``folder``: of the pictures, from where it lies."""
    benches, studies = _apart(runs)
    return results_page.render(benches, folder, [study_document.overview(study, folder) for study in studies[:1]])


def write_pngs(runs: Sequence[Run | Study], folder: Path) -> list[Path]:
    """Writes every figure into folders in ``folder``, which are made if they are not there. Returns the files.

    Raises:
        ResultsError: a file or a folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(exist_ok=True)
        for picture in pictures(runs):
            path = folder / f"{picture.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, picture.png())
            written.append(path)
    except OSError as error:
        raise ResultsError(f"{error.filename or folder}: {error.strerror or error}") from error
    return written


def _from(path: Path, folder: Path) -> str:
    """``folder`` as the document at ``path`` links to it."""
    return Path(os.path.relpath(folder.absolute(), path.absolute().parent)).as_posix()


def main(arguments: argparse.Namespace) -> int:
    """Writes what is asked for, the README last.

    Raises:
        ResultsError: a file cannot be read or written, or is there already.
    """
    runs = [load_study(path) if document(path).get("suite") == STUDY else load(path) for path in arguments.files]
    benches, studies = _apart(runs)
    if arguments.study and len(studies) != 1:
        raise ResultsError(f"{arguments.study}: is about one study, got {len(studies)} among the files")
    png = arguments.png
    if arguments.readme:  # says now what is wrong with it, before the others are written
        folder = _from(arguments.readme, png or arguments.readme.parent / "docs" / "results")
        readme.updated(arguments.readme, benches, folder)
    refuse_to_overwrite([arguments.html, arguments.study, arguments.results], arguments.force)
    if png and png.is_dir():
        refuse_to_overwrite([path for of in pictures(runs) if (path := png / f"{of.name}.png").exists()], arguments.force)
    elif png:
        refuse_to_overwrite([png], force=False)
    written = write_pngs(runs, png) if png else []
    if arguments.html:
        write(arguments.html, page(runs))
        written.insert(0, arguments.html)
    if arguments.study:
        study_document.save(studies[0], arguments.study, png)
        written.append(arguments.study)
    if arguments.results:
        write(arguments.results, results(runs, _from(arguments.results, png or arguments.results.parent / "results")))
        written.append(arguments.results)
    if arguments.readme:
        write(arguments.readme, readme.updated(arguments.readme, benches, folder))
        written.append(arguments.readme)
    print("\n".join(map(str, written)))
    return 0
