"""README's block of figures: the telling results of files of results, between markers that stay where they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..results import ResultsError, Row, Run
from .markdown import of as table
from .markdown import text, where
from .notation import NOTHING, figure, ratio
from .results_page import images
from .summary import baseline, geometric_mean
from .table import Column

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


@dataclass(frozen=True)
class _Result:
    what: str
    sides: tuple[str, str]  # PyTorch's and ours
    ratio: str
    command: str


def _of_row(what: str, row: Row, command: str) -> _Result:
    rival, ours = (figure(value.median, row.unit) if value else NOTHING for value in (row.rival_value, row.ours_value))
    return _Result(what, (rival, ours), ratio(row), command)


def _results(runs: dict[str, Run]) -> Iterator[_Result]:
    """Those that these runs have figures for."""

    def rows(suite: str, **facts: str) -> list[Row]:
        run = runs.get(suite)
        against = [row for row in run.rows if row.rival == baseline(run) and row.ratio] if run else []
        return [row for row in against if all(getattr(row, name) == value for name, value in facts.items())]

    if ratios := [row.ratio for row in rows("ops") if row.ratio]:
        same, worse = (sum(row.verdict == verdict for row in rows("ops")) for verdict in ("same", "worse"))
        what = f"the op, geometric mean of {len(ratios)} comparisons ({same} the same within the noise, {worse} slower)"
        yield _Result(
            what,
            (NOTHING, NOTHING),
            f"{geometric_mean(ratios):.2f}",
            f"leakyrelu-bench ops{' --full' * bool(runs['ops'].arguments.get('full'))}",
        )
    for row in rows("ops", case="noise, 2^20", dtype="bfloat16", mode="forward", outputs="fresh"):
        yield _of_row("forward of 2^20 elements, bfloat16", row, "leakyrelu-bench ops --only 2^20 --dtype bfloat16")
    for row in rows("memory", case="activation alone", dtype="float32", ours="ours, out of place"):
        yield _of_row("kept for the backward of 2^20 elements, float32", row, "leakyrelu-bench memory --no-models")
    stylegan = "StyleGAN2: bias + lrelu + gain, 8x64x128x128"
    for row in rows("fused", case=stylegan, dtype="float32", mode="forward+backward", outputs="fresh"):
        yield _of_row(f"forward and backward of {stylegan}, float32, in one pass each", row, "leakyrelu-bench fused")
    peaks = [(row, *row.extra["peak_bytes"]) for row in rows("models", ours="ours") if "peak_bytes" in row.extra]
    if found := [(theirs / ours, row, ours, theirs) for row, ours, theirs in peaks if ours and theirs]:
        most, row, ours, theirs = max(found, key=lambda entry: entry[0])
        least = min(entry[0] for entry in found)
        what = f"peak memory of a training step, {row.case} (the most of {len(found)} models, the least {least:.2f})"
        yield _Result(what, (figure(theirs, "bytes"), figure(ours, "bytes")), f"{most:.2f}", "leakyrelu-bench models")


def _call(run: Run) -> str:
    return f"leakyrelu-bench {run.suite}" + " --full" * bool(run.arguments.get("full"))


def block(runs: Sequence[Run], folder: str) -> str:
    """The Markdown between the markers; of several runs of a suite the first counts. ``folder``: of the pictures."""
    first = {run.suite: run for run in reversed(runs)}
    columns = (
        Column[_Result]("what", lambda of: of.what, number=False),
        Column[_Result]("PyTorch", lambda of: of.sides[0]),
        Column[_Result]("ours", lambda of: of.sides[1]),
        Column[_Result]("times better", lambda of: of.ratio),
    )
    found = list(_results(first))
    if not found:
        return "No results.\n"
    lines = table(columns, found).splitlines()
    commands = ["command", "---", *(f"`{of.command}`" for of in found)]
    parts = ["\n".join(f"{line} {command} |" for line, command in zip(lines, commands, strict=True))]
    steps = (
        [row for row in first["models"].rows if (row.ours, row.rival) == ("ours", "built-in")] if "models" in first else []
    )
    if steps:
        same = sum(row.verdict == "same" for row in steps)
        mean = geometric_mean(row.ratio for row in steps if row.ratio)
        parts.append(f"Steps of whole models: {mean:.2f} times as fast, {same} of {len(steps)} the same within the noise.")
    shown = first.get("ops") or runs[0]
    parts.append(f"Measured: {text(where(shown))}.")
    if picture := images(shown, runs, folder, most=1):
        parts.append(picture)
    return "\n\n".join(parts) + "\n"


def updated(path: Path, runs: Sequence[Run], folder: str) -> str:
    """What ``path`` is to hold.

    Raises:
        ResultsError: it cannot be read, or a marker is missing, there twice, or after its end.
    """
    try:
        found = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if found.count(BEGIN) != 1 or found.count(END) != 1 or found.index(BEGIN) > found.index(END):
        raise ResultsError(f"{path}: needs these markers, once each and in this order: {BEGIN} … {END}")
    before, rest = found.split(BEGIN)
    return f"{before}{BEGIN}\n{block(runs, folder)}{END}{rest.split(END)[1]}"
