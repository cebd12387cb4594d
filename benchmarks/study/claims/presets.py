"""The claims, and which few arms decide each. Every arm gets the same sweep; nothing is tuned for one of them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..training.choices import LEARNING_RATES
from ..training.configuration import DEFAULT_SLOPE, SIZES, USUAL_SIZE, Arm, Configuration
from ..training.outcome import Outcome
from .arms import Entry, Results
from .effects import Effect, paired

IMAGE, TEXT, SPEECH = "digits", "reuters-r8", "japanese-vowels"
OF_DOMAINS = (IMAGE, TEXT, SPEECH)


@dataclass(frozen=True)
class Measure:
    """A figure of a run; ``margin``: the least difference that would matter."""

    name: str
    unit: str
    margin: float
    of: Callable[[Outcome], float]
    less_is_better: bool = False


def _losses(outcome: Outcome) -> list[float]:
    """Validation losses after each epoch; the untrained one's where a run had diverged."""
    before, *after = outcome.curves["validation_loss"]
    after = [loss if math.isfinite(loss) else before for loss in after]
    return after + [before] * (outcome.configuration.epochs - len(after))


def _speed(outcome: Outcome) -> float:
    return statistics.fmean(math.log(max(loss, 1e-6)) for loss in _losses(outcome))


def _rises(outcome: Outcome) -> float:
    logs = [math.log(max(loss, 1e-6)) for loss in _losses(outcome)]
    return sum(max(0.0, after - before) for before, after in itertools.pairwise(logs)) / max(1, len(logs) - 1)


# Powers of ten: less than float32 can tell from nothing.
_NO_FLOW = 38.0


def _flow(outcome: Outcome) -> float:
    """How far from 1 in either direction, so that what explodes does not count as better; 0 is the best."""
    ratio = outcome.curves["gradient_norm_ratio"][0]
    return min(_NO_FLOW, abs(math.log10(ratio))) if ratio > 0 and math.isfinite(ratio) else _NO_FLOW


SCORE = Measure("test score", "points", 0.5, lambda outcome: 100 * outcome.test_score)
DEAD = Measure(
    "units without a gradient from any training sample, at the end",
    "points",
    1.0,
    lambda outcome: 100 * outcome.last("zero_gradient_share"),
    less_is_better=True,
)
NEGATIVE = Measure(
    "units never positive on any training sample, at the end",
    "points",
    1.0,
    lambda outcome: 100 * outcome.last("dead_share"),
    less_is_better=True,
)
SPEED = Measure("log validation loss, mean over the epochs", "nats", 0.02, _speed, less_is_better=True)
RISES = Measure("rises of the log validation loss, mean over the epochs", "nats", 0.005, _rises, less_is_better=True)
FLOW = Measure(
    "|log10| of the gradient's norm at the first activation / at the last, before training", "log10", 0.3, _flow, True
)


def effect(results: Results, arm: Entry, baseline: Entry, measure: Measure) -> Effect:
    """How much better ``arm`` is, paired by seed."""
    sign = -1 if measure.less_is_better else 1
    ones, others = ([sign * measure.of(each) for each in results.of[entry]] for entry in (arm, baseline))
    of = paired(ones, others)
    dataset = results.datasets[arm.arm.of.dataset]
    return Effect(
        dataset.name,
        dataset.domain,
        measure.name,
        measure.unit,
        _label(arm),
        _label(baseline),
        of.mean,
        of.low,
        of.high,
        of.count,
        measure.margin,
    )


def _label(entry: Entry) -> str:
    return entry.arm.label + (f" at learning rate {entry.learning_rate:g}" if entry.learning_rate else "")


def arm(dataset: str, function: str = "leaky_relu", slope: float | None = None, **changes: Any) -> Arm:
    """``slope``: of leaky_relu, 0.01 unless given."""
    depth, epochs = SIZES.get(dataset, USUAL_SIZE)
    slope = (DEFAULT_SLOPE if slope is None else slope) if function == "leaky_relu" else None
    of = Configuration(dataset, function, 0.0, 0, slope, depth=depth, epochs=epochs)
    return Arm(replace(of, **changes))


Effects = tuple[list[Effect], list[Effect]]


@dataclass(frozen=True)
class Preset:
    """``entries`` of the datasets that are here; ``effects``: those that decide, and others to show."""

    name: str
    statement: str
    source: str
    method: str
    datasets: tuple[str, ...]
    entries: Callable[[Sequence[str]], list[Entry]]
    effects: Callable[[Results, Sequence[str]], Effects]


def _of(datasets: Iterable[str], entries: Callable[[str], list[Entry]]) -> list[Entry]:
    return [entry for dataset in datasets for entry in entries(dataset)]


# --- dying-relu

_HIGH = max(LEARNING_RATES["momentum"])
_DYING = {"network": "mlp", "depth": 6, "optimiser": "momentum", "patience": None, "observe": True}


def _dying(dataset: str) -> dict[str, Entry]:
    def with_(function: str, slope: float | None, initialisation: str, rate: float | None) -> Entry:
        return Entry(arm(dataset, function, slope, initialisation=initialisation, **_DYING), rate)

    found = {}
    for name, function, slope in (("relu", "relu", None), ("0.01", "leaky_relu", 0.01), ("0.2", "leaky_relu", 0.2)):
        found[name] = with_(function, slope, "he", None)
        found[f"{name}, high"] = with_(function, slope, "he", _HIGH)
        found[f"{name}, bad"] = with_(function, slope, "negative-bias", None)
    return found


def _dying_effects(results: Results, datasets: Sequence[str]) -> Effects:
    decide, others = [], []
    for dataset in datasets:
        of = _dying(dataset)
        for how in ("", ", high", ", bad"):
            decide.append(effect(results, of[f"0.01{how}"], of[f"relu{how}"], DEAD))
            others += [effect(results, of[f"{slope}{how}"], of[f"relu{how}"], NEGATIVE) for slope in ("0.01", "0.2")]
            others += [effect(results, of[f"{slope}{how}"], of[f"relu{how}"], SCORE) for slope in ("0.01", "0.2")]
    return decide, others


# --- convergence


def _convergence(dataset: str) -> list[Entry]:
    functions: tuple[tuple[str, float | None], ...] = (("relu", None), ("leaky_relu", 0.01), ("leaky_relu", 0.2))
    return [Entry(arm(dataset, function, slope, patience=None)) for function, slope in functions]


def _convergence_effects(results: Results, datasets: Sequence[str]) -> Effects:
    decide, others = [], []
    for dataset in datasets:
        relu, leaky, leakier = _convergence(dataset)
        decide += [effect(results, leaky, relu, SPEED), effect(results, leaky, relu, RISES)]
        others += [effect(results, leakier, relu, SPEED), effect(results, leakier, relu, RISES)]
        others += [effect(results, leaky, relu, SCORE)]
    return decide, others


# --- vanishing-gradients

_DEEP = 10


def _vanishing(dataset: str) -> list[Entry]:
    changes: dict[str, Any] = {"network": "mlp"} if dataset != SPEECH else {}
    return [
        Entry(arm(dataset, function, observe=True, depth=_DEEP, **changes))
        for function in ("leaky_relu", "sigmoid", "tanh", "relu")
    ]


def _vanishing_effects(results: Results, datasets: Sequence[str]) -> Effects:
    decide, others = [], []
    for dataset in datasets:
        leaky, sigmoid, tanh, relu = _vanishing(dataset)
        decide += [effect(results, leaky, baseline, FLOW) for baseline in (sigmoid, tanh)]
        others += [effect(results, leaky, baseline, SCORE) for baseline in (sigmoid, tanh)]
        others += [effect(results, leaky, relu, FLOW)]
    return decide, others


# --- initialisation

_INITIALISATIONS = ("he", "xavier", "default", "small")


def _initialisation(dataset: str, slope: float) -> list[Entry]:
    changes: dict[str, Any] = {"network": "mlp", "depth": _DEEP} if dataset == IMAGE else {"depth": 6}
    return [Entry(arm(dataset, slope=slope, initialisation=each, **changes)) for each in _INITIALISATIONS]


def _initialisation_effects(results: Results, datasets: Sequence[str]) -> Effects:
    def of(slope: float) -> list[Effect]:
        found = []
        for dataset in datasets:
            he, *rest = _initialisation(dataset, slope)
            found += [effect(results, he, baseline, SCORE) for baseline in rest]
        return found

    return of(0.01), of(0.2)


# --- slope

SLOPES = (0.0, 0.01, 0.1, 0.2, 0.5, 1.0)


def _slopes(dataset: str) -> list[Entry]:
    return [Entry(arm(dataset, slope=slope)) for slope in SLOPES]


def _slope_effects(results: Results, datasets: Sequence[str]) -> Effects:
    decide, others = [], []
    # A good default: no other common slope beats it by what matters. Too large: a linear net is worse by what matters.
    no_worse = replace(SCORE, margin=-SCORE.margin)
    for dataset in datasets:
        of = dict(zip(SLOPES, _slopes(dataset), strict=True))
        decide += [effect(results, of[0.01], of[slope], no_worse) for slope in (0.1, 0.2)]
        decide.append(effect(results, of[0.01], of[1.0], SCORE))
        others += [effect(results, of[0.01], of[slope], SCORE) for slope in (0.0, 0.5)]
    return decide, others


# --- regularisation


def _regularised(dataset: str) -> dict[str, Entry]:
    found = {name: Entry(arm(dataset, regularisation=name)) for name in ("none", "dropout", "l2", "batch-norm")}
    found["to the end"] = Entry(arm(dataset, patience=None))
    return found


def _regularisation_effects(results: Results, datasets: Sequence[str]) -> Effects:
    decide = []
    for dataset in datasets:
        of = _regularised(dataset)
        decide += [effect(results, of[name], of["none"], SCORE) for name in ("dropout", "l2", "batch-norm")]
        decide.append(effect(results, of["none"], of["to the end"], SCORE))
    return decide, []


# --- optimiser


def _optimised(dataset: str) -> dict[str, Entry]:
    found = {name: Entry(arm(dataset, optimiser=name)) for name in LEARNING_RATES}
    for schedule in ("step", "cosine"):
        found[schedule] = Entry(arm(dataset, schedule=schedule))
    return found


def _optimiser_effects(results: Results, datasets: Sequence[str]) -> Effects:
    decide, others = [], []
    for dataset in datasets:
        of = _optimised(dataset)
        decide += [effect(results, of[name], of["sgd"], SCORE) for name in ("adagrad", "rmsprop", "adam")]
        decide += [effect(results, of[name], of["adam"], SCORE) for name in ("step", "cosine")]
        others.append(effect(results, of["adam"], of["momentum"], SCORE))
    return decide, others


# --- domains


def _three(dataset: str) -> list[Entry]:
    return [Entry(arm(dataset, "relu")), Entry(arm(dataset)), Entry(arm(dataset, slope=0.2))]


def _domain_effects(results: Results, datasets: Sequence[str]) -> Effects:
    decide, others = [], []
    for dataset in datasets:
        relu, leaky, leakier = _three(dataset)
        decide.append(effect(results, leaky, relu, SCORE))
        others.append(effect(results, leakier, relu, SCORE))
    return decide, others


PRESETS = (
    Preset(
        "dying-relu",
        "ReLU units die during training, Leaky ReLU's do not.",
        "Maas et al. 2013; Lu et al.: Dying ReLU and Initialization, arXiv:1903.06733",
        "A perceptron of 6 hidden layers, SGD with momentum, without early stopping: at the learning rate that its sweep "
        f"chooses, at a high one ({_HIGH:g}) for all, and begun with biases of -1. Dead: no training sample gives it a "
        "gradient. Leaky ReLU's cannot be that by construction; whether its gradient of a hundredth is of any use, tell the "
        "units that are never positive and the test scores, beside.",
        ("digits", "mnist-5k"),
        lambda datasets: _of(datasets, lambda dataset: list(_dying(dataset).values())),
        _dying_effects,
    ),
    Preset(
        "convergence",
        "Networks with Leaky ReLU converge faster and more stably than with ReLU.",
        "Maas et al. 2013; Xu et al.: Empirical Evaluation of Rectified Activations, arXiv:1505.00853",
        "All epochs, without early stopping. Faster: the logarithm of the validation loss, mean over the epochs. More "
        "stably: by how much that rises from epoch to epoch.",
        OF_DOMAINS,
        lambda datasets: _of(datasets, _convergence),
        _convergence_effects,
    ),
    Preset(
        "vanishing-gradients",
        "Leaky ReLU eases vanishing gradients compared with sigmoid and tanh.",
        "Glorot, Bengio 2010; Glorot, Bordes, Bengio: Deep Sparse Rectifier Neural Networks, AISTATS 2011",
        f"Networks of {_DEEP} hidden layers, each activation with He's initialisation and its own gain (torch's "
        "calculate_gain). Of the gradient's norms at the first and at the last activation the ratio, before training.",
        (IMAGE, SPEECH),
        lambda datasets: _of(datasets, _vanishing),
        _vanishing_effects,
    ),
    Preset(
        "initialisation",
        "He's initialisation suits Leaky ReLU better than others do.",
        "He et al.: Delving Deep into Rectifiers, arXiv:1502.01852",
        "Deep networks with slope 0.01 (0.2 beside): He's with the slope's gain, Xavier's with the same gain, torch's "
        "default, and a normal of standard deviation 0.01 whatever the layer's size.",
        (IMAGE, SPEECH),
        lambda datasets: _of(datasets, lambda dataset: _initialisation(dataset, 0.01) + _initialisation(dataset, 0.2)),
        _initialisation_effects,
    ),
    Preset(
        "slope",
        "A slope of 0.01 is a good default, and too large a one makes the network linear.",
        "Maas et al. 2013; Xu et al., arXiv:1505.00853, who find 1/5.5 better",
        "Slopes from 0 (ReLU) to 1 (linear). A good default: not worse by half a point than 0.1 and 0.2. Linear: worse than "
        "0.01.",
        OF_DOMAINS,
        lambda datasets: _of(datasets, _slopes),
        _slope_effects,
    ),
    Preset(
        "regularisation",
        "Batch normalisation, dropout, L2 and early stopping help networks with Leaky ReLU.",
        "Ioffe, Szegedy 2015; Srivastava et al. 2014; Prechelt: Early Stopping – But When?, 1998",
        "Slope 0.01; each of them against none, early stopping against training to the end.",
        OF_DOMAINS,
        lambda datasets: _of(datasets, lambda dataset: list(_regularised(dataset).values())),
        _regularisation_effects,
    ),
    Preset(
        "optimiser",
        "Adaptive optimisers and learning-rate schedules help networks with Leaky ReLU.",
        "Kingma, Ba: Adam, ICLR 2015; Loshchilov, Hutter: SGDR, ICLR 2017",
        "Slope 0.01; Adagrad, RMSprop and Adam against plain SGD, steps and a cosine against a constant rate (Adam).",
        OF_DOMAINS,
        lambda datasets: _of(datasets, lambda dataset: list(_optimised(dataset).values())),
        _optimiser_effects,
    ),
    Preset(
        "domains",
        "Leaky ReLU helps in vision, language and speech.",
        "Maas et al. 2013 (speech); Xu et al., arXiv:1505.00853 (images)",
        "Against ReLU on every domain, with the network that suits it.",
        (IMAGE, TEXT, SPEECH, "breast-cancer", "wine", "italy-power-demand", "anomaly"),
        lambda datasets: _of(datasets, _three),
        _domain_effects,
    ),
    Preset(
        "cost",
        "ELU costs more than Leaky ReLU.",
        "Clevert et al.: ELU, ICLR 2016, whose own speeds are mixed",
        "Whole training steps with Adam, all activations in turn, round by round, several passes, on all threads.",
        OF_DOMAINS,
        lambda _: [],
        lambda _, __: ([], []),
    ),
)
