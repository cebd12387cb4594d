"""The same learning-rate sweep for each arm, then its runs with fresh seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..data import Dataset
from ..study import ArmResult
from ..training.choices import LEARNING_RATES
from ..training.configuration import Arm, Configuration
from ..training.outcome import Outcome
from .effects import interval

RunAll = Callable[[Sequence[Configuration]], None]
Find = Callable[[Configuration], Outcome | None]


@dataclass(frozen=True)
class Entry:
    """An arm at the learning rate that its sweep chooses, or at a given one."""

    arm: Arm
    learning_rate: float | None = None


@dataclass(frozen=True)
class Effort:
    """``seeds``: of the runs that count. ``rates``: how many of each optimiser's learning rates are tried, each with
    ``sweep_seeds`` seeds."""

    seeds: int
    rates: int
    sweep_seeds: int = 1
    first_seed: int = 0

    def rates_of(self, arm: Arm) -> tuple[float, ...]:
        """The middle ones of the optimiser's."""
        rates = LEARNING_RATES[arm.of.optimiser]
        skip = (len(rates) - self.rates) // 2
        return rates[skip : skip + self.rates] if self.rates < len(rates) else rates

    def sweep(self, arm: Arm) -> list[Configuration]:
        # Seeds that no run has that counts: choosing by them favours none of them.
        seeds = [-1 - self.first_seed - number for number in range(self.sweep_seeds)]
        return [arm.run(rate, seed) for rate in self.rates_of(arm) for seed in seeds]

    def runs(self, arm: Arm, learning_rate: float) -> list[Configuration]:
        return [arm.run(learning_rate, self.first_seed + number) for number in range(self.seeds)]


def _lowest(outcome: Outcome) -> float:
    """The lowest validation loss of a run, infinite where there is none."""
    losses = [loss for loss in outcome.curves["validation_loss"] if math.isfinite(loss)]
    return min(losses, default=math.inf)


def losses(sweep: Sequence[Outcome]) -> dict[float, float]:
    """By learning rate the lowest validation loss, mean over the seeds; infinite where a run has none."""
    found: dict[float, list[float]] = {}
    for outcome in sweep:
        found.setdefault(outcome.configuration.learning_rate, []).append(_lowest(outcome))
    return {rate: statistics.fmean(of) for rate, of in found.items()}


def chosen(sweep: Sequence[Outcome]) -> float:
    """The learning rate of the lowest loss; of equals the lower one."""
    return min((loss, rate) for rate, loss in losses(sweep).items())[1]


@dataclass(frozen=True)
class Results:
    """The outcomes of each entry, by seed, and of each arm's sweep."""

    datasets: Mapping[str, Dataset]
    of: dict[Entry, list[Outcome]] = field(default_factory=dict)
    sweeps: dict[Arm, list[Outcome]] = field(default_factory=dict)

    def result(self, entry: Entry) -> ArmResult:
        outcomes, dataset = self.of[entry], self.datasets[entry.arm.of.dataset]
        sweep = {
            f"{rate:g}": loss if math.isfinite(loss) else None
            for rate, loss in losses(self.sweeps[entry.arm] if entry.learning_rate is None else []).items()
        }
        scores = [each.test_score for each in outcomes]
        dead = [each.last("zero_gradient_share") for each in outcomes if "zero_gradient_share" in each.curves]
        ratios = [each.curves["gradient_norm_ratio"][0] for each in outcomes if "gradient_norm_ratio" in each.curves]
        flows = all(ratio > 0 and math.isfinite(ratio) for ratio in ratios)
        return ArmResult(
            entry.arm,
            dataset.domain,
            dataset.metric,
            outcomes[0].configuration.learning_rate,
            sweep,
            interval(scores),
            scores,
            sum(each.diverged for each in outcomes),
            statistics.fmean(each.epochs for each in outcomes),
            statistics.fmean(dead) if dead else None,
            statistics.geometric_mean(ratios) if ratios and flows else None,
            statistics.fmean(each.seconds / max(1, each.epochs) for each in outcomes),
        )


def collect(entries: Sequence[Entry], effort: Effort, datasets: Mapping[str, Dataset], find: Find) -> Results:
    """The results of those ``entries`` of which every run is finished."""
    results = Results(datasets)
    for entry in entries:
        rate = entry.learning_rate
        if rate is None:
            swept = [find(each) for each in effort.sweep(entry.arm)]
            if not all(swept):
                continue
            results.sweeps[entry.arm] = [each for each in swept if each]
            rate = chosen(results.sweeps[entry.arm])
        found = [find(each) for each in effort.runs(entry.arm, rate)]
        if all(found):
            results.of[entry] = [each for each in found if each]
    return results


def measure(entries: Sequence[Entry], effort: Effort, run_all: RunAll, find: Find) -> None:
    """Runs what ``entries`` need: sweeps where they leave the learning rate open, then every seed of each."""
    swept = dict.fromkeys(entry.arm for entry in entries if entry.learning_rate is None)
    run_all([each for arm in swept for each in effort.sweep(arm)])
    rates = {arm: chosen([outcome for each in effort.sweep(arm) if (outcome := find(each)) is not None]) for arm in swept}
    run_all([each for entry in entries for each in effort.runs(entry.arm, entry.learning_rate or rates[entry.arm])])
