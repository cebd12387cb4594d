"""`leakyrelu-bench report`: files of results as one HTML page, as PNGs, and in README."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..results import STUDY, ResultsError, Row, Run, document, load, refuse_to_overwrite, write
from ..study.report import document as study_document
from ..study.report import figures as study_figures
from ..study.report import page as study_page
from ..study.study import Study
from ..study.study import load as load_study
from . import readme
from .drawing import DARK, LIGHT, Picture, named_apart
from .figures import pictures
from .listing import Listing, listings
from .markdown import where
from .notation import NOTHING, page_faults, plain, ratio, size
from .summary import Summary, by_rival, lost, name_of, obstacles

_TITLES = {
    "ops": "The op alone",
    "fused": "bias_leaky_relu: what surrounds the activation in the same pass",
    "compile": "Small nets, eager and compiled",
    "models": "Whole models",
    "memory": "Memory",
}
_WORST = 8


@dataclass(frozen=True)
class _Section:
    """One run, in the words of the page."""

    anchor: str
    title: str
    suite: str
    where: str
    interrupted: bool
    verdict: str
    summary: Sequence[Sequence[str]]
    by_mode: Sequence[Sequence[str]]
    worst: Sequence[str]
    not_named: int
    obstacles: Sequence[str]
    pictures: Sequence[tuple[str, str, str]]  # light and dark data URIs, and what they show
    listings: Sequence[Listing]


def _summary_cells(summary: Summary, several: bool) -> list[str]:
    worst = f"{ratio(summary.worst)} – {name_of(summary.worst)}" if summary.worst else NOTHING
    mean = NOTHING if math.isnan(summary.mean) else f"{summary.mean:.2f}"
    counts = (summary.better, summary.same, summary.worse, summary.without)
    sides = f"{summary.ours} against {summary.rival}" if several else summary.rival
    return [plain(cell) for cell in (sides, summary.mode, mean, *counts, worst)]


def _verdict(rows: Sequence[Row]) -> str:
    compared = [row for row in rows if row.ratio is not None]
    if not compared:
        return "No row has figures." if rows else "There are no rows."
    better, worse = (sum(row.verdict == verdict for row in compared) for verdict in ("better", "worse"))
    return (
        f"Of {len(compared)} comparisons, ours is better in {better}, worse in {worse}, "
        f"and the same within the noise in {len(compared) - better - worse}."
    )


def _section(number: int, run: Run, drawn: Sequence[Picture]) -> _Section:
    worst = lost(run.rows)
    if not worst:  # the least won are worth as much to a reader
        worst = sorted((row for row in run.rows if row.ratio is not None), key=lambda row: row.ratio or 0.0)[:3]
    several = len({row.ours for row in run.rows}) > 1
    seconds = all(row.unit == "seconds" for row in run.rows)
    return _Section(
        f"run-{number}",
        _TITLES.get(run.suite, plain(run.suite)),
        plain(run.suite),
        plain(where(run)),
        run.interrupted,
        _verdict(run.rows),
        [_summary_cells(summary, several) for summary in by_rival(run)]
        if seconds
        else [],  # one mean of bytes and samples says nothing
        [_summary_cells(summary, several) for summary in by_rival(run, modes=True)],
        [plain(f"{ratio(row)}: {row.ours} against {row.rival}, {name_of(row)}") for row in worst[:_WORST]],
        max(0, len(worst) - _WORST),
        [
            plain(f"{sides}: {reason} ({len(rows)} row{'s' * (len(rows) > 1)}, first {name_of(rows[0])})")
            for reason, (sides, rows) in obstacles(run.rows).items()
        ],
        [(picture.data_uri(LIGHT), picture.data_uri(DARK), picture.alt) for picture in drawn],
        listings(run),
    )


def _written(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{key}={_written('', entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_written("", entry) for entry in value) or "none"
    if name.endswith("_bytes") and isinstance(value, (int, float)):
        return size(value)
    if name.endswith("fault_seconds") and isinstance(value, (int, float)):
        return f"{value * 1e6:.3g} µs"
    return str(value)


def _benches(runs: Sequence[Run | Study]) -> list[Run]:
    return [run for run in runs if isinstance(run, Run)]


def _studies(runs: Sequence[Run | Study]) -> list[Study]:
    return [run for run in runs if isinstance(run, Study)]


def _pictures(runs: Sequence[Run | Study]) -> list[Picture]:
    of_studies = [picture for study in _studies(runs) for picture in study_figures.pictures(study)]
    return named_apart([*pictures(_benches(runs)), *of_studies])


def _facts(run: Run | Study) -> dict[str, str]:
    facts = {name: plain(_written(name, value)) for name, value in run.environment.items()}
    facts |= {f"argument {name}": plain(_written(name, value)) for name, value in run.arguments.items()}
    facts["interrupted"] = "yes, rows are missing" if run.interrupted else "no"
    return {plain(name.replace("_", " ")): fact for name, fact in facts.items()}


def _environment(runs: Sequence[Run | Study]) -> tuple[list[tuple[str, str]], list[tuple[str, list[str]]]]:
    """What is the same in all runs, and what is not, with a cell for each run."""
    facts = [_facts(run) for run in runs]
    same, differing = [], []
    for name in dict.fromkeys(name for of_run in facts for name in of_run):
        cells = [of_run.get(name, NOTHING) for of_run in facts]
        if len(set(cells)) == 1:
            same.append((name, cells[0]))
        else:
            differing.append((name, cells))
    return same, differing


def page(runs: Sequence[Run | Study]) -> str:
    """One HTML page about ``runs``, studies last, that needs no other file and no network."""
    import jinja2

    benches, studies = _benches(runs), _studies(runs)
    drawn = pictures(benches)
    sections = []
    for number, run in enumerate(benches, 1):
        sections.append(_section(number, run, [picture for picture in drawn if picture.run is run]))
    of_studies = [study_page.section(number, study) for number, study in enumerate(studies, len(benches) + 1)]
    same, differing = _environment([*benches, *studies])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1], encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("report/report.html.j2")
    faults = {plain(run.environment.get("device")): cost for run in benches if (cost := page_faults(run.environment))}
    return template.render(sections=sections, studies=of_studies, same=same, differing=differing, faults=faults) + "\n"


def write_html(runs: Sequence[Run | Study], path: Path) -> None:
    """Writes the page about ``runs``, over what is there.

    Raises:
        ResultsError: the file cannot be written.
    """
    write(path, page(runs))


def write_pngs(runs: Sequence[Run | Study], folder: Path) -> list[Path]:
    """Writes every figure, light, into ``folder``, which is made if it is not there. Returns the files.

    Raises:
        ResultsError: a file or the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(exist_ok=True)
        for picture in _pictures(runs):
            path = folder / f"{picture.name}.png"
            write(path, picture.png(LIGHT))
            written.append(path)
    except OSError as error:
        raise ResultsError(f"{error.filename or folder}: {error.strerror or error}") from error
    return written


def main(arguments: argparse.Namespace) -> int:
    """Writes what is asked for, the README last.

    Raises:
        ResultsError: a file cannot be read or written, or is there already.
    """
    runs = [_load(path) for path in arguments.files]
    studies = _studies(runs)
    if arguments.study and len(studies) != 1:
        raise ResultsError(f"{arguments.study}: is about one study, got {len(studies)} among the files")
    if arguments.readme:
        readme.updated(arguments.readme, runs)  # says now what is wrong with it, before the others are written
    refuse_to_overwrite([arguments.html, arguments.study], arguments.force)
    if arguments.png and arguments.png.is_dir():
        refuse_to_overwrite([arguments.png / f"{picture.name}.png" for picture in _pictures(runs)], arguments.force)
    elif arguments.png:
        refuse_to_overwrite([arguments.png], force=False)
    written = []
    if arguments.html:
        write_html(runs, arguments.html)
        written.append(arguments.html)
    if arguments.png:
        written += write_pngs(runs, arguments.png)
    if arguments.study:
        study_document.save(studies[0], arguments.study, arguments.png)
        written.append(arguments.study)
    if arguments.readme:
        readme.update(arguments.readme, runs)
        written.append(arguments.readme)
    print("\n".join(map(str, written)))
    return 0


def _load(path: Path) -> Run | Study:
    return load_study(path) if document(path).get("suite") == STUDY else load(path)
