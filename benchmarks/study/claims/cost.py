"""What activations cost: whole training steps, all of them in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from ...measure.timing import Timed, interleave
from ..data import Dataset
from ..study import Cost
from ..training import choices
from ..training.configuration import Configuration
from ..training.names import ACTIVATIONS
from ..training.train import build
from .effects import Effect, Interval, interval
from .presets import LEAKY, RELU, arm

FUNCTIONS = [LEAKY if name == "leaky_relu" else name for name in ACTIVATIONS]
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


def measure(dataset: Dataset, passes: int, seconds: float) -> list[Cost]:
    """A training step of ``dataset``'s network with each activation, ``seconds`` for all in each of ``passes``."""
    times: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for number in range(passes):
        # New networks in every pass: they come to lie elsewhere.
        steps = [Timed(_step(arm(dataset.name, function).run(1e-3, number), dataset)) for function in FUNCTIONS]
        rounds, _ = interleave(steps, seconds, seed=number)
        of = dict(zip(FUNCTIONS, rounds, strict=True))
        for function, values in of.items():
            times.setdefault(function, []).append(statistics.median(values))
            pairs = zip(values, of[RELU], strict=True)
            ratios.setdefault(function, []).append(statistics.median(one / other for one, other in pairs))
    return [Cost(dataset.name, each, statistics.median(times[each]), interval(ratios[each])) for each in FUNCTIONS]


def _effect(dataset: Dataset, costs: Sequence[Cost], function: str, baseline: str) -> Effect:
    by_function = {cost.function: cost for cost in costs if cost.dataset == dataset.name}
    one, other = by_function[function], by_function[baseline]
    # Of two ratios to the same step; their errors are taken for independent, which makes the interval rather too wide.
    mean = one.ratio.mean / other.ratio.mean - 1
    half = (1 + mean) * math.hypot(_relative(one.ratio), _relative(other.ratio))
    measure = "time of a training step, more than the baseline's"
    figures = (mean, mean - half, mean + half, one.ratio.count, MARGIN)
    return Effect(dataset.name, dataset.domain, measure, "share", function, baseline, *figures)


def _relative(of: Interval) -> float:
    return (of.high - of.low) / 2 / of.mean


def effects(datasets: Sequence[Dataset], costs: Sequence[Cost]) -> tuple[list[Effect], list[Effect]]:
    """What decides, and what is shown beside."""
    decide = [_effect(dataset, costs, "elu", LEAKY) for dataset in datasets]
    return decide, [_effect(dataset, costs, LEAKY, RELU) for dataset in datasets]
