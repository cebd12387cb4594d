"""What activations cost: whole training steps, all of them in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from ...measure.timing import Timed, interleave
from ..data import Dataset
from ..study import Cost
from ..training import choices
from ..training.configuration import ACTIVATIONS, Configuration
from ..training.train import build
from .effects import Effect, Interval, interval
from .presets import arm

BASELINE = "relu"
# A fortieth of a step, and what a clock on a shared machine can tell apart.
MARGIN = 0.025


def _step(configuration: Configuration, dataset: Dataset) -> Callable[[], None]:
    module = build(configuration, dataset).train()
    optimiser = choices.optimiser(configuration, module.parameters())
    batch = dataset.train.take(torch.arange(min(configuration.batch_size, len(dataset.train))))

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(module(*batch.inputs), batch.labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def _configurations(dataset: str) -> list[Configuration]:
    return [arm(dataset, function).run(1e-3, 0) for function in ACTIVATIONS]


def measure(dataset: Dataset, passes: int, seconds: float) -> list[Cost]:
    """A training step of ``dataset``'s network with each activation, ``seconds`` for all in each of ``passes``."""
    times: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for number in range(passes):
        # New networks in every pass: they come to lie elsewhere.
        steps = {each.function: Timed(_step(replace(each, seed=number), dataset)) for each in _configurations(dataset.name)}
        rounds, _ = interleave(list(steps.values()), seconds, seed=number)
        of = dict(zip(steps, rounds, strict=True))
        for function, values in of.items():
            times.setdefault(function, []).append(statistics.median(values))
            pairs = zip(values, of[BASELINE], strict=True)
            ratios.setdefault(function, []).append(statistics.median(one / other for one, other in pairs))
    return [
        Cost(dataset.name, function, statistics.median(times[function]), interval(ratios[function])) for function in times
    ]


def _effect(dataset: Dataset, costs: Sequence[Cost], function: str, baseline: str) -> Effect:
    by_function = {cost.function: cost for cost in costs if cost.dataset == dataset.name}
    one, other = by_function[function], by_function[baseline]
    # Of two ratios to the same step; their errors are taken for independent, which makes the interval rather too wide.
    mean = one.ratio.mean / other.ratio.mean - 1
    half = (1 + mean) * (_relative(one.ratio) ** 2 + _relative(other.ratio) ** 2) ** 0.5
    return Effect(
        dataset.name,
        dataset.domain,
        "time of a training step, more than the baseline's",
        "share",
        function,
        baseline,
        mean,
        mean - half,
        mean + half,
        one.ratio.count,
        MARGIN,
    )


def _relative(of: Interval) -> float:
    return (of.high - of.low) / 2 / of.mean


def effects(datasets: Sequence[Dataset], costs: Sequence[Cost]) -> tuple[list[Effect], list[Effect]]:
    leaky = _configurations("")[ACTIVATIONS.index("leaky_relu")].function
    decide = [_effect(dataset, costs, "elu", leaky) for dataset in datasets]
    others = [_effect(dataset, costs, leaky, BASELINE) for dataset in datasets]
    return decide, others
