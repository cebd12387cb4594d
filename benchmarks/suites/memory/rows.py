"""Rows of the suite `memory`: what was counted or measured of ours and of a rival, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch

from ...measure.budget import in_words
from ...models import Model
from ...results import Quantiles, Row
from ..variants import COMPILED, IN_PLACE, OURS_IN_PLACE, OURS_OUT_OF_PLACE, OUT_OF_PLACE, Variant
from .process import Answer

PEAK = "peak of a training step"
RIVALS = (OUT_OF_PLACE, IN_PLACE, COMPILED)
OURS = (OURS_OUT_OF_PLACE, OURS_IN_PLACE)
# The resident set of the same step differs by less than this between processes: the kernel counts pages per core and adds
# them up now and then, and small blocks come to lie otherwise in the heap.
SCATTER_BYTES = 2**19
ONLY_FULL = "not looked for: it compiles anew for every batch; --full does"
NOT_ONE = "not one sample fits"


def row(case: str, shape: tuple[int, ...], mode: str, ours: Variant, rival: Variant, unit: str = "bytes") -> Row:
    of_case = ("memory", case, shape, "float32", "", mode, "", unit)
    return Row(*of_case, ours.name, rival.name, f"torch {torch.__version__}")


def with_figures(
    row: Row, ours: Sequence[int], theirs: Sequence[int], noise: float, **extra: tuple[float | None, float | None]
) -> Row:
    one, other = (theirs, ours) if row.unit == "bytes" else (ours, theirs)  # fewer bytes are better, more samples
    ratios = Quantiles.of([a / b for a in one for b in other])
    return replace(
        row,
        ours_value=Quantiles.of(ours),
        rival_value=Quantiles.of(theirs),
        ratio=statistics.median(one) / statistics.median(other),
        ratio_low=ratios.low,
        ratio_high=ratios.high,
        noise=noise,
        extra=extra,
    )


@cache
def _shape(model: Model, batch: int) -> tuple[int, ...]:
    return tuple(model.inputs(batch, torch.Generator().manual_seed(0))[0].shape)


def _with_peaks(row: Row, ours: Answer, theirs: Answer, counted: bool) -> Row:
    if obstacle := ours.obstacle or theirs.obstacle:
        return replace(row, obstacle=obstacle)
    # How far single steps differ, and what processes do.
    spread = sum(max(answer.peak_bytes) - min(answer.peak_bytes) for answer in (ours, theirs))
    noise = (spread + (0 if counted else SCATTER_BYTES)) / min(*ours.peak_bytes, *theirs.peak_bytes)
    return with_figures(row, ours.peak_bytes, theirs.peak_bytes, noise, held_bytes=(ours.held_bytes, theirs.held_bytes))


def _with_largest(row: Row, ours: Answer, theirs: Answer, noise: float) -> Row:
    for answer in (ours, theirs):
        if obstacle := answer.obstacle or answer.largest_obstacle or (NOT_ONE if answer.largest == 0 else None):
            return replace(row, obstacle=obstacle)
    if not (ours.largest and theirs.largest and ours.largest_bytes and theirs.largest_bytes):
        return replace(row, obstacle=ONLY_FULL)
    within = ours.largest_bytes, theirs.largest_bytes
    return with_figures(row, [ours.largest], [theirs.largest], noise, within_bytes=within)


def of_answers(model: Model, batch: int, budget: int, answers: Mapping[Variant, Answer], counted: bool) -> list[Row]:
    """Of the variants that have answered: a row for each of ours, each rival and either mode.

    ``counted``: by an allocator (CUDA's), exactly; else it is the resident set. The shape in rows of the largest batch is
    that of one sample.
    """
    pairs = [(ours, rival) for ours in OURS for rival in RIVALS if ours in answers and rival in answers]
    # A batch is confirmed by a run that fits and one that does not; they are off by what peaks are, of all that is held.
    noise, largest = 0.0 if counted else 2 * SCATTER_BYTES / budget, f"largest batch within {in_words(budget)}"
    peaks, batches = [], []
    for pair in pairs:
        ours, theirs = (answers[variant] for variant in pair)
        peaks.append(_with_peaks(row(model.name, _shape(model, batch), PEAK, *pair), ours, theirs, counted))
        of_one = row(model.name, _shape(model, 1), largest, *pair, unit="samples")
        batches.append(_with_largest(of_one, ours, theirs, noise))
    return [*peaks, *batches]
