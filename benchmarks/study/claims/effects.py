"""How large an effect is, how sure, and whether that supports what is claimed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import computed_field

from ..as_json import Figure

CONFIDENCE = 0.95
Verdict = Literal["supported", "not supported", "undecided"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
SUPPORTED, NOT_SUPPORTED, UNDECIDED = VERDICTS


@dataclass(frozen=True)
class Interval:
    """``mean`` of paired differences (or of values), and the bounds of its 95 % interval by Student's t; NaN without two."""

    mean: Figure
    low: Figure
    high: Figure
    count: int


def interval(values: Sequence[float]) -> Interval:
    """Student's t, over seeds: they are few, and their spread is estimated from themselves."""
    from scipy import stats

    if not values:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan, len(values))
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half, len(values))


@dataclass(frozen=True)
class Effect:
    """``arm`` less ``baseline`` (or whatever ``measure`` says), positive in the direction of the claim.

    ``margin``: the least that would matter to anybody, in ``unit``; below 0 where the claim is that nothing is lost.
    """

    dataset: str
    domain: str
    measure: str
    unit: str  # "points" (of 100), "share", "log10", "nats", "ratio"
    arm: str
    baseline: str
    mean: Figure
    low: Figure
    high: Figure
    seeds: int
    margin: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """Not supported where even the upper bound is less than matters; supported where the lower one is above 0 (or above
        a margin below 0) and the effect itself matters; else undecided."""
        if math.isnan(self.low):
            return UNDECIDED
        if self.high < self.margin:
            return NOT_SUPPORTED
        return SUPPORTED if self.low > min(0.0, self.margin) and self.mean >= self.margin else UNDECIDED


def overall(effects: Sequence[Effect]) -> Verdict:
    """Of several: supported where some are and none is not, not supported where some are not and none is, else undecided."""
    verdicts = {effect.verdict for effect in effects}
    if SUPPORTED in verdicts and NOT_SUPPORTED not in verdicts:
        return SUPPORTED
    if NOT_SUPPORTED in verdicts and SUPPORTED not in verdicts:
        return NOT_SUPPORTED
    return UNDECIDED


def paired(arm: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Of differences by seed: the same seed drew the same data order for both."""
    return interval([one - other for one, other in zip(arm, baseline, strict=True)])
