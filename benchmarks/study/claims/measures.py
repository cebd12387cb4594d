"""The figures of a run that claims are decided by."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..training.outcome import Outcome


@dataclass(frozen=True)
class Measure:
    """A figure of a run; ``margin``: the least difference that would matter."""

    name: str
    unit: str
    margin: float
    of: Callable[[Outcome], float]
    less_is_better: bool = True


def losses(outcome: Outcome) -> list[float]:
    """Validation losses after each epoch; the untrained one's where a run had diverged."""
    before, *after = outcome.curves["validation_loss"]
    after = [loss if math.isfinite(loss) else before for loss in after]
    return after + [before] * (outcome.configuration.epochs - len(after))


def _logs(outcome: Outcome) -> list[float]:
    return [math.log(max(loss, 1e-6)) for loss in losses(outcome)]


def _rises(outcome: Outcome) -> float:
    logs = _logs(outcome)
    return sum(max(0.0, after - before) for before, after in itertools.pairwise(logs)) / max(1, len(logs) - 1)


# Powers of ten: less than float32 can tell from nothing.
_NO_FLOW = 38.0


def _flow(outcome: Outcome) -> float:
    """How far from 1 in either direction, so that what explodes does not count as better; 0 is the best."""
    ratio = outcome.curves["gradient_norm_ratio"][0]
    return min(_NO_FLOW, abs(math.log10(ratio))) if ratio > 0 and math.isfinite(ratio) else _NO_FLOW


def _share(curve: str) -> Callable[[Outcome], float]:
    return lambda outcome: 100 * outcome.last(curve)


SCORE = Measure("test score", "points", 0.5, lambda outcome: 100 * outcome.test_score, less_is_better=False)
NO_WORSE = replace(SCORE, margin=-SCORE.margin)
_DEAD = "units without a gradient from any training sample, at the end"
DEAD = Measure(_DEAD, "points", 1.0, _share("zero_gradient_share"))
NEGATIVE = Measure("units never positive on any training sample, at the end", "points", 1.0, _share("dead_share"))
SPEED = Measure("log validation loss, mean over the epochs", "nats", 0.02, lambda outcome: statistics.fmean(_logs(outcome)))
RISES = Measure("rises of the log validation loss, mean over the epochs", "nats", 0.005, _rises)
_FLOW = "|log10| of the gradient's norm at the first activation / at the last, before training"
FLOW = Measure(_FLOW, "log10", 0.3, _flow)
