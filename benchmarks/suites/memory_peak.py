"""The suite `memory`, second part: the peak of a training step, and the largest batch that fits into a budget."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import torch

from ..measure.contest import MismatchError
from ..models import Model
from ..report.notation import size
from ..results import Quantiles, Row
from .peak_process import Answer, Question, ask
from .variants import COMPILED, IN_PLACE, OURS_IN_PLACE, OURS_OUT_OF_PLACE, OUT_OF_PLACE, Variant

MODE = "peak of a training step"
RIVALS = (OUT_OF_PLACE, IN_PLACE, COMPILED)
OURS = (OURS_OUT_OF_PLACE, OURS_IN_PLACE)
# The resident set of the same step differs by less than this between processes: the kernel counts pages per core and adds
# them up now and then, and small blocks come to lie otherwise in the heap.
SCATTER_BYTES = 2**19
ONLY_FULL = "not looked for: it compiles anew for every batch; --full does"
NOT_ONE = "not one sample fits"


def largest_mode(budget: int) -> str:
    return f"largest batch within {size(budget)}"


def ask_about(question: Question, model: Model, variant: Variant) -> Answer:
    """Raises MismatchError where ours, out of place, does not compute what the built-in does."""
    answer = ask(question)
    if answer.mismatch is not None:
        raise MismatchError(f"{model.name}, {variant.name!r}: {answer.mismatch}")
    return answer


@cache
def _shape(model: Model, batch: int) -> tuple[int, ...]:
    return tuple(model.inputs(batch, torch.Generator().manual_seed(0))[0].shape)


def _row(model: Model, batch: int, mode: str, unit: str, ours: Variant, rival: Variant) -> Row:
    version = f"torch {torch.__version__}"
    shape = _shape(model, batch)
    return Row("memory", model.name, shape, "float32", "", mode, "", unit, ours.name, rival.name, version)


def _noise(ours: Answer, theirs: Answer, counted: bool) -> float:
    """What the ratio of the peaks may be off by: how far single steps differ, and what processes do."""
    smaller = min(*ours.peak_bytes, *theirs.peak_bytes)
    spread = sum(max(answer.peak_bytes) - min(answer.peak_bytes) for answer in (ours, theirs))
    return (spread + (0 if counted else SCATTER_BYTES)) / smaller


def _peak_row(row: Row, ours: Answer, theirs: Answer, counted: bool) -> Row:
    if obstacle := ours.obstacle or theirs.obstacle:
        return replace(row, obstacle=obstacle)
    ratios = Quantiles.of([b / a for a in ours.peak_bytes for b in theirs.peak_bytes])
    return replace(
        row,
        ours_value=Quantiles.of(ours.peak_bytes),
        rival_value=Quantiles.of(theirs.peak_bytes),
        ratio=statistics.median(theirs.peak_bytes) / statistics.median(ours.peak_bytes),
        ratio_low=ratios.low,
        ratio_high=ratios.high,
        noise=_noise(ours, theirs, counted),
        extra={"held_bytes": (ours.held_bytes, theirs.held_bytes)},
    )


def _largest_row(row: Row, budget: int, ours: Answer, theirs: Answer, counted: bool) -> Row:
    for answer in (ours, theirs):
        obstacle = answer.obstacle or answer.largest_obstacle or (NOT_ONE if answer.largest == 0 else None)
        if obstacle:
            return replace(row, obstacle=obstacle)
    if ours.largest is None or theirs.largest is None:
        return replace(row, obstacle=ONLY_FULL)
    ratio = ours.largest / theirs.largest
    # A batch is confirmed by a run that fits and one that does not; the runs are off by what peaks are, of all that is held.
    noise = 0.0 if counted else 2 * SCATTER_BYTES / budget
    return replace(
        row,
        ours_value=Quantiles(ours.largest, ours.largest, ours.largest),
        rival_value=Quantiles(theirs.largest, theirs.largest, theirs.largest),
        ratio=ratio,
        ratio_low=ratio,
        ratio_high=ratio,
        noise=noise,
        extra={"within_bytes": (ours.largest_bytes, theirs.largest_bytes)},
    )


def rows(model: Model, batch: int, budget: int, answers: Mapping[Variant, Answer], counted: bool) -> list[Row]:
    """Of the variants that have answered: a row for each of ours, each rival and either mode.

    ``counted``: by an allocator (CUDA's), exactly; else it is the resident set. The shape in rows of the largest batch is
    that of one sample.
    """
    pairs = [(ours, rival) for ours in OURS for rival in RIVALS if ours in answers and rival in answers]
    peaks, batches = [], []
    for ours, rival in pairs:
        mine, theirs = answers[ours], answers[rival]
        peaks.append(_peak_row(_row(model, batch, MODE, "bytes", ours, rival), mine, theirs, counted))
        row = _row(model, 1, largest_mode(budget), "samples", ours, rival)
        batches.append(_largest_row(row, budget, mine, theirs, counted))
    return [*peaks, *batches]
