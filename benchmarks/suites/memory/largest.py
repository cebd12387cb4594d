"""The largest batch that fits into so much memory: predicted on a line, then confirmed by runs."""

from __future__ import annotations

import math
from collections.abc import Callable

# After so many runs halve what is left open: memory is no line then.
RUNS_ON_THE_LINE = 8
# Never predict more than this many times the largest batch measured: small batches tell little of the slope.
GROWTH = 32


def largest_batch(bytes_of: Callable[[int], float], budget: float, first: int) -> int:
    """Samples n such that a run with n takes at most ``budget`` bytes, and one with n + 1 more; both have been run.

    ``bytes_of``: runs with that many samples; infinity if memory gave out. ``first``: a small batch to begin with; the
    second is twice as large. Returns 0 if a single sample is too much.
    """
    measured: dict[int, float] = {}
    batch = first
    while True:
        measured[batch] = bytes_of(batch)
        fits = max((n for n, taken in measured.items() if taken <= budget), default=0)
        too_much = min((n for n, taken in measured.items() if not taken <= budget), default=math.inf)
        if too_much == fits + 1:
            return fits
        batch = 2 * first if len(measured) == 1 and fits else _predict(measured, budget, fits, too_much)


def _predict(measured: dict[int, float], budget: float, fits: int, too_much: float) -> int:
    """The batch to run next, between ``fits`` and ``too_much``."""
    highest = too_much - 1 if too_much < math.inf else GROWTH * max(fits, 1)
    guess: float = (fits + highest + 1) // 2
    # Of the finite ones, the two nearest to the budget.
    known = sorted((n for n in measured if measured[n] < math.inf), key=lambda n: abs(measured[n] - budget))[:2]
    if len(known) == 2 and len(measured) < RUNS_ON_THE_LINE:
        one, other = sorted(known)
        slope = (measured[other] - measured[one]) / (other - one)
        if slope > 0:
            guess = math.floor(one + (budget - measured[one]) / slope)
    # On the line itself the guess is what fits; once that has been run, the next one is to be shown not to.
    return int(min(max(guess, fits + 1), highest))
