"""README's sections of figures, written from files of results, between markers that stay where they are.

``<!-- results: begin -->`` and ``<!-- results: end -->`` stand around what `ops` measured, and so do ``fused``, ``compile``,
``models``, ``memory`` and, of a training study, ``train``.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ..results import STUDY, Quantiles, ResultsError, Row, Run, write
from ..study.report import document as study_document
from ..study.study import Study
from .figures import pictures
from .markdown import table as _table
from .markdown import text as _text
from .markdown import where
from .notation import NOTHING, figure, plain, ratio, size
from .summary import baseline, by_rival, counterpart, name_of, obstacles

T = TypeVar("T")
K = TypeVar("K")

MARKERS = {"ops": "results"}  # of a suite; others have a marker of their own name
PICTURES = "docs/results"  # beside README
_SHOWN = 12  # rows of a table none of which is among the telling ones


def _list(names: Sequence[str], word: str) -> str:
    return f"{'; '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else "".join(names)


def _in_all(run: Run) -> str:
    """Of every row against the baseline (and, where ours replaces another rival, against that): mean and worst."""
    if any(row.unit != "seconds" for row in run.rows):
        return ""  # a mean of bytes and samples says nothing, and the table has all rows
    sentences = []
    for summary in by_rival(run):
        if summary.worst is None or summary.rival not in (baseline(run), counterpart(run, summary.ours)):
            continue
        sentences.append(
            f"{_text(summary.ours)} against {_text(summary.rival)}, geometric mean of all {summary.compared} ratios: "
            f"{summary.mean:.2f}; worst {_text(ratio(summary.worst))} ({_text(name_of(summary.worst))}); "
            f"{summary.better} better, {summary.same} the same, {summary.worse} worse"
        )
    return "".join(f"- {sentence}.\n" for sentence in sentences)


def _missing(run: Run) -> str:
    return "".join(
        f"- Not compared: {_text(sides)}: {_text(reason)} ({len(rows)} of {len(run.rows)} rows).\n"
        for reason, (sides, rows) in obstacles(run.rows).items()
    )


def _one(rows: Iterable[Row], of: Callable[[Row], str]) -> str:
    return next((text for row in rows if (text := of(row)) not in ("", NOTHING)), NOTHING)


def _saved(row: Row) -> str:
    ours, rival = row.extra.get("saved_bytes", (None, None))
    return NOTHING if ours is None or rival is None else f"{size(rival)} / {size(ours)}"


def _telling_op(row: Row) -> bool:
    small = row.dtype == "float16" and row.case != "noise, 2^20"
    return (
        bool(re.search(r"^photos, stem [12]$|^noise, 2\^(6|12|16|20|24)$|::2\]", row.case.removesuffix(", warm")))
        and not small
    )


def _telling_fusion(row: Row) -> bool:
    return bool(re.search(r"^StyleGAN2.*(8x64x128x128|2x32x8x8|clamp)|residual block|dropout", row.case))


def _chosen(rows: Sequence[Row], telling: Callable[[Row], bool]) -> list[Row]:
    return [row for row in rows if telling(row)] or list(
        rows[: _SHOWN * len({(row.mode, row.ours, row.rival) for row in rows})]
    )


def _by(entries: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    return groups


def _input(row: Row) -> str:
    layout = row.layout if row.layout not in ("", "contiguous", "strided") and row.layout not in row.case else ""
    warm = "warm" if row.outputs == "warm" and "warm" not in row.case else ""
    return ", ".join(part for part in (row.case, layout, warm) if part)


def _ops(run: Run) -> str:
    rival = baseline(run)
    rows = [row for row in run.rows if row.rival == rival]
    modes = list(dict.fromkeys(row.mode for row in rows))
    # In small tensors no page is new: there warm outputs say nothing more.
    fresh = {row.case for row in rows if row.outputs != "warm" and math.prod(row.shape) < 2**20}
    rows_shown = [row for row in _chosen(rows, _telling_op) if row.outputs != "warm" or row.case not in fresh]
    lines = []
    for (case, dtype), group in _by(rows_shown, lambda row: (_input(row), row.dtype)).items():
        ratios = [_text(_one((row for row in group if row.mode == mode), ratio)) for mode in modes]
        lines.append([_text(case), _text(dtype), *ratios, _text(_one(group, _saved))])
    table = _table(["input", "dtype", *modes, f"saved for the backward, {rival} / ours"], lines, texts=2)
    return (
        f"Ratios are {_text(rival)}'s time / ours: above 1 ours is faster, “same” is within the noise. "
        f"A selection of the {len(rows)} rows against {_text(rival)}. "
        f"“warm”: large outputs get memory that was used before, not new pages.\n\n{table}"
    )


def _fused(run: Run) -> str:
    rivals = list(dict.fromkeys(row.rival for row in run.rows))
    modes = list(dict.fromkeys(row.mode for row in run.rows))
    lines = []
    for (case, dtype), group in _by(_chosen(run.rows, _telling_fusion), lambda row: (_input(row), row.dtype)).items():
        of_side = {(row.mode, row.rival): ratio(row) for row in group}
        cells = [", ".join(of_side.get((mode, rival), NOTHING) for rival in rivals) for mode in modes]
        saved = _one((row for row in group if row.rival == baseline(run)), _saved)
        lines.append([_text(case), _text(dtype), *map(_text, cells), _text(saved)])
    headings = [f"{mode}: {', '.join(rivals)}" for mode in modes]
    table = _table(["operation, input", "dtype", *headings, f"saved, {baseline(run)} / ours"], lines, texts=2)
    return (
        "Each rival's time / `bias_leaky_relu`'s: above 1 ours is faster, “same” is within the noise. "
        f"A selection of all {len(run.rows)} rows.\n\n{table}"
    )


def _steps(run: Run) -> str:
    """Of `compile` and `models`: a column for each of ours, against what it replaces."""
    pairs = list(dict.fromkeys((row.mode, row.ours, counterpart(run, row.ours)) for row in run.rows))
    modes = list(dict.fromkeys(mode for mode, *_ in pairs))
    several = len({row.dtype for row in run.rows}) > 1
    lines = []
    for case, group in _by(run.rows, lambda row: row.case + f", {row.dtype}" * several).items():
        of_side = {(row.mode, row.ours, row.rival): row for row in group}
        cells = [ratio(of_side[pair]) if pair in of_side else NOTHING for pair in pairs]
        main = [row for row in group if row.rival == baseline(run)]
        share = _one(main, lambda row: _pair(row, "activation_share", "share"))
        lines.append(
            [_text(case), *map(_text, cells), share, _one(main, _saved), _one(main, lambda row: _pair(row, "peak_bytes"))]
        )
    headings = ["net", *(f"{mode}: {ours}" if len(modes) > 1 else ours for mode, ours, _ in pairs)]
    headings += [
        f"{what}, {baseline(run)} / ours" for what in ("time in activations", "saved for the backward", "peak memory")
    ]
    filled = [i for i in range(len(headings)) if i == 0 or any(line[i] != NOTHING for line in lines)]
    table = _table([headings[i] for i in filled], [[line[i] for i in filled] for line in lines], texts=1)
    others = {ours: rival for _, ours, rival in pairs if rival != baseline(run)}
    against = _list([baseline(run), *dict.fromkeys(others.values())], "or")
    but = f" ({_list(list(others), 'and')}: against {_list(list(dict.fromkeys(others.values())), 'or')})" if others else ""
    return (
        f"The time of a {_text(_list(modes, 'or'))} with {_text(against)} / ours{_text(but)}: "
        f"above 1 ours is faster, “same” is within the noise.\n\n{table}"
    )


def _pair(row: Row, name: str, unit: str = "bytes") -> str:
    ours, rival = row.extra.get(name, (None, None))
    return NOTHING if ours is None or rival is None else f"{figure(rival, unit)} / {figure(ours, unit)}"


def _memory(run: Run) -> str:
    """A column for each contestant, theirs first."""
    names = list(dict.fromkeys([row.rival for row in run.rows] + [row.ours for row in run.rows]))
    lines = []
    several = {row.case for row in run.rows if len({other.dtype for other in run.rows if other.case == row.case}) > 1}
    for (case, dtype, mode, unit), group in _by(run.rows, lambda row: (row.case, row.dtype, row.mode, row.unit)).items():
        values: dict[str, Quantiles] = {}
        for row in group:
            sides = ((row.rival, row.rival_value), (row.ours, row.ours_value))
            values.update({name: value for name, value in sides if value is not None})
        cells = [figure(values[name].median, unit) if name in values else NOTHING for name in names]
        lines.append([_text(f"{case}, {dtype}" if case in several else case), _text(mode), *cells])
    return f"Bytes, or samples in a batch, of every contestant.\n\n{_table(['net', 'what', *names], lines, texts=2)}"


_BODIES: dict[str, Callable[[Run], str]] = {
    "ops": _ops,
    "fused": _fused,
    "compile": _steps,
    "models": _steps,
    "memory": _memory,
}


def _images(run: Run, runs: Sequence[Run]) -> str:
    drawn = [picture for picture in pictures(runs) if picture.run is run]
    # What decides first: per dtype speed-ups, or per mode.
    shown = [picture for picture in drawn if run.suite != "ops" or "-speedup-" in picture.name][:2]
    images = [
        f'<img src="{PICTURES}/{picture.name}.png" width="49%" alt="{html.escape(picture.title)}">' for picture in shown
    ]
    return "<p>\n" + "\n".join(images) + "\n</p>\n\n" if images else ""


def render(runs: Sequence[Run | Study]) -> dict[str, str]:
    """By marker, the Markdown between the two lines of it. The first run of a suite is shown; all are summed up."""
    sections = {}
    benches = [run for run in runs if isinstance(run, Run)]
    for suite, of_suite in _by(benches, lambda run: run.suite).items():
        shown = of_suite[0]
        body = _BODIES.get(suite, _steps)(shown) if shown.rows else "No rows."
        text = f"`leakyrelu-bench {_text(suite)}`, {_text(where(shown))}. {body}\n\n{_images(shown, benches)}"
        for number, run in enumerate(of_suite):
            if number:
                text += f"\nAnother run, {_text(where(run))}:\n\n"
            text += (_in_all(run) + _missing(run)) or "- Nothing was compared.\n"
        sections[MARKERS.get(suite, suite)] = text
    for study in runs:
        if isinstance(study, Study):
            sections.setdefault(STUDY, study_document.of_readme(study, PICTURES))
    return sections


def updated(path: Path, runs: Sequence[Run | Study]) -> str:
    """What ``path`` would hold after :func:`update`.

    Raises:
        ResultsError: it cannot be read, or a marker is missing, there twice, or after its end.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    wrong = []
    for name, section in render(runs).items():
        begin, end = (f"<!-- {plain(name)}: {which} -->" for which in ("begin", "end"))
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            wrong.append(f"{begin} … {end}")
            continue
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{section}{end}{rest.split(end)[1]}"
    if wrong:
        raise ResultsError(f"{path}: needs these markers, once each and in this order: {', '.join(wrong)}")
    return text


def update(path: Path, runs: Sequence[Run | Study]) -> None:
    """Writes the sections of ``runs`` anew.

    Raises:
        ResultsError: as :func:`updated`; or ``path`` cannot be written.
    """
    write(path, updated(path, runs))


def check(path: Path, runs: Sequence[Run | Study]) -> bool:
    """Whether ``path`` holds what :func:`update` would write.

    Raises:
        ResultsError: as :func:`updated`.
    """
    return updated(path, runs) == path.read_text(encoding="utf-8")
