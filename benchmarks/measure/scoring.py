"""Rows of results from what was timed: medians, ratios, and the noise that a ratio must exceed to mean something."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..results import TOO_LITTLE, Quantiles, Roof, Row
from .contest import AGAIN, COPY, SCALE, TRIAD, Seen


def _metrics(seen: Seen, name: str) -> dict[str, float]:
    metrics = {"page_faults": statistics.fmean(each.faults[name] for each in seen.passes)}
    metrics |= {fact: values[name] for fact, values in seen.passes[-1].facts.items() if name in values}
    if "moved_bytes" in metrics:
        median = seen.values(name).median
        metrics |= {"bytes_per_second": metrics.pop("moved_bytes") / median} if median > 0 else {}
    return metrics


def _extra(seen: Seen, ours: str, rival: str) -> dict[str, tuple[float | None, float | None]]:
    mine, theirs = _metrics(seen, ours), _metrics(seen, rival)
    return {name: (mine.get(name), theirs.get(name)) for name in dict.fromkeys((*mine, *theirs))}


# A row's few passes tell little of its own noise: the suite's median row has the weight of this many more.
PRIOR_PASSES = 3
# Standard errors on either side. Two runs share less than the passes of one do, which are a minute apart: so it is not 1.96
# but what covered 19 of 20 rows and more when runs of `ops --quick` followed one another.
COVERAGE = 4.0
LEAST_NOISE = 0.01


def _variance(ratios: Sequence[float], again: Sequence[float]) -> float:
    """Of the logarithm of a pass's ratio: from how passes differ, and from how ours differs from itself (``again``)."""
    logs = [math.log(ratio) for ratio in ratios]
    centre = statistics.fmean(logs)
    squares = [(value - centre) ** 2 for value in logs] + [math.log(ratio) ** 2 for ratio in again]
    return sum(squares) / (2 * len(logs) - 1)


def _noise(variance: float, typical: float, passes: int) -> float:
    """What a ratio may be off by: half of a 95 % interval, from the passes of its row and, by ``typical``, of all rows."""
    freedom = 2 * passes - 1
    weighted = (freedom * variance + PRIOR_PASSES * typical) / (freedom + PRIOR_PASSES)
    return max(LEAST_NOISE, math.expm1(COVERAGE * math.sqrt(weighted / passes)))


def _row(seen: Seen, ours: str, rival: str) -> tuple[Row, float | None]:
    """Without its noise, but with the variance of what it was measured by."""
    row, obstacles = seen.contest.row(ours, rival), seen.obstacles
    if obstacle := obstacles.get(ours) or obstacles.get(rival):
        return replace(row, obstacle=obstacle), None
    ratios, again = seen.pass_ratios(rival, ours), seen.pass_ratios(AGAIN, seen.contest.ours[0])
    row = replace(row, ours_value=seen.values(ours), rival_value=seen.values(rival), extra=_extra(seen, ours, rival))
    if not all(each > 0 for each in (*ratios, *again)):  # NaN is not
        return replace(row, obstacle=TOO_LITTLE), None
    rounds = Quantiles.of(seen.round_ratios(rival, ours) or ratios)
    row = replace(row, ratio=statistics.median(ratios), ratio_low=rounds.low, ratio_high=rounds.high)
    return row, _variance(ratios, again)


def rows_of(all_seen: Iterable[Seen]) -> list[Row]:
    """A row for each of ours and each rival."""
    found = [(seen, ours, rival) for seen in all_seen for ours in seen.contest.ours for rival in seen.contest.rivals]
    rows = [(*_row(*each), len(each[0].passes)) for each in found]
    typical = statistics.median([variance for _, variance, _ in rows if variance is not None] or [0.0])
    return [
        row if variance is None else replace(row, noise=_noise(variance, typical, passes)) for row, variance, passes in rows
    ]


def roofs_of(all_seen: Iterable[Seen]) -> list[Roof]:
    roofs = []
    for seen in all_seen:
        if COPY in seen.passes[0].seconds:
            contest, nbytes = seen.contest, seen.passes[0].nbytes
            tensors = ((2, COPY), (3, TRIAD), (2, SCALE))
            bandwidths = (count * nbytes / seen.values(name).median for count, name in tensors)
            roofs.append(Roof(contest.case, contest.dtype, contest.layout, contest.outputs, nbytes, *bandwidths))
    return roofs


# Of a tensor; for less, the time of the plain operations is that of calling them.
ROOF_FROM_BYTES = 2**17


def with_roof_shares(rows: Iterable[Row], roofs: Iterable[Roof]) -> list[Row]:
    """The rows with ``roof_share``: bandwidth as a share of what plain operations reached on that case."""
    by_case = {(roof.case, roof.dtype, roof.layout, roof.outputs): roof for roof in roofs if roof.nbytes >= ROOF_FROM_BYTES}
    shown = []
    for row in rows:
        extra = dict(row.extra)
        overwrites = extra.pop("overwrites", (None, None))
        roof, bandwidths = by_case.get((row.case, row.dtype, row.layout, row.outputs)), extra.get("bytes_per_second")
        if roof and bandwidths:
            mine, theirs = (
                None if bandwidth is None else bandwidth / roof.bytes_per_second(bool(in_place))
                for bandwidth, in_place in zip(bandwidths, overwrites, strict=True)
            )
            extra["roof_share"] = (mine, theirs)
        shown.append(replace(row, extra=extra))
    return shown
