"""The claims, and which few arms decide each. Every arm gets the same sweep; nothing is tuned for one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..training.choices import LEARNING_RATES
from ..training.configuration import DEFAULT_SLOPE, SIZES, USUAL_SIZE, Arm, Configuration
from ..training.names import REGULARISATIONS
from .arms import Entry, Results
from .effects import Effect, paired
from .measures import DEAD, FLOW, NEGATIVE, NO_WORSE, RISES, SCORE, SPEED, Measure

IMAGE, TEXT, SPEECH = "digits", "reuters-r8", "japanese-vowels"
OF_DOMAINS = (IMAGE, TEXT, SPEECH)
RELU, LEAKY, LEAKIER = "relu", f"leaky_relu {DEFAULT_SLOPE}", "leaky_relu 0.2"

Contrast = tuple[str, str, Measure]  # the names of an arm and of its baseline
Arms = Mapping[str, Entry]


@dataclass(frozen=True)
class Preset:
    """``arms``: of one dataset, by name. ``decide``: by which contrasts, on each dataset; ``beside``: others to show."""

    name: str
    statement: str
    source: str
    method: str
    datasets: tuple[str, ...]
    arms: Callable[[str], Arms]
    decide: tuple[Contrast, ...] = ()
    beside: tuple[Contrast, ...] = ()


def label(entry: Entry) -> str:
    return entry.arm.label + (f" at learning rate {entry.learning_rate:g}" if entry.learning_rate else "")


def _effect(results: Results, arm: Entry, baseline: Entry, measure: Measure) -> Effect:
    """How much better ``arm`` is, paired by seed."""
    sign = -1 if measure.less_is_better else 1
    ones, others = ([sign * measure.of(each) for each in results.of[entry]] for entry in (arm, baseline))
    found, dataset = paired(ones, others), results.datasets[arm.arm.of.dataset]
    figures = (found.mean, found.low, found.high, found.count, measure.margin)
    return Effect(dataset.name, dataset.domain, measure.name, measure.unit, label(arm), label(baseline), *figures)


def effects(contrasts: Sequence[Contrast], results: Results, of_datasets: Sequence[Arms]) -> list[Effect]:
    return [
        _effect(results, arms[arm], arms[baseline], measure) for arms in of_datasets for arm, baseline, measure in contrasts
    ]


def arm(dataset: str, function: str = LEAKY, **changes: Any) -> Arm:
    """As it usually is on ``dataset``; ``function``: "relu", or with its slope "leaky_relu 0.2"."""
    depth, epochs = SIZES.get(dataset, USUAL_SIZE)
    activation, _, slope = function.partition(" ")
    of = Configuration(dataset, activation, 0.0, 0, float(slope) if slope else None, depth=depth, epochs=epochs)
    return Arm(replace(of, **changes))


def _with(functions: Sequence[str], **changes: Any) -> Callable[[str], Arms]:
    return lambda dataset: {function: Entry(arm(dataset, function, **changes)) for function in functions}


# At the learning rate of its sweep, at a high one, and with biases that are bad on purpose.
_HIGH, _DEEP = max(LEARNING_RATES["momentum"]), 10
_DYING = {"": ("he", None), ", high": ("he", _HIGH), ", bad": ("negative-bias", None)}


def _dying(dataset: str) -> Arms:
    changes: Any = {"network": "mlp", "depth": 6, "optimiser": "momentum", "patience": None, "observe": True}
    return {
        function + way: Entry(arm(dataset, function, initialisation=initialisation, **changes), rate)
        for function in (RELU, LEAKY, LEAKIER)
        for way, (initialisation, rate) in _DYING.items()
    }


def _vanishing(dataset: str) -> Arms:
    network = "default" if dataset == SPEECH else "mlp"
    return _with((LEAKY, "sigmoid", "tanh", RELU), observe=True, depth=_DEEP, network=network)(dataset)


def _initialised(dataset: str) -> Arms:
    changes: Any = {"network": "mlp", "depth": _DEEP} if dataset == IMAGE else {"depth": 6}
    return {
        f"{how}, {function}": Entry(arm(dataset, function, initialisation=how, **changes))
        for function in (LEAKY, LEAKIER)
        for how in ("he", *_WORSE_INITIALISATIONS)
    }


_WORSE_INITIALISATIONS = ("xavier", "default", "small")


def _regularised(dataset: str) -> Arms:
    found = {name: Entry(arm(dataset, regularisation=name)) for name in REGULARISATIONS}
    return {**found, "to the end": Entry(arm(dataset, patience=None))}


def _optimised(dataset: str) -> Arms:
    found = {name: Entry(arm(dataset, optimiser=name)) for name in LEARNING_RATES}
    return {**found, **{name: Entry(arm(dataset, schedule=name)) for name in ("step", "cosine")}}


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
        _dying,
        tuple((LEAKY + way, RELU + way, DEAD) for way in _DYING),
        tuple((f + way, RELU + way, measure) for way in _DYING for measure in (NEGATIVE, SCORE) for f in (LEAKY, LEAKIER)),
    ),
    Preset(
        "convergence",
        "Networks with Leaky ReLU converge faster and more stably than with ReLU.",
        "Maas et al. 2013; Xu et al.: Empirical Evaluation of Rectified Activations, arXiv:1505.00853",
        "All epochs, without early stopping. Faster: the logarithm of the validation loss, mean over the epochs. More "
        "stably: by how much that rises from epoch to epoch.",
        OF_DOMAINS,
        _with((RELU, LEAKY, LEAKIER), patience=None),
        ((LEAKY, RELU, SPEED), (LEAKY, RELU, RISES)),
        ((LEAKIER, RELU, SPEED), (LEAKIER, RELU, RISES), (LEAKY, RELU, SCORE)),
    ),
    Preset(
        "vanishing-gradients",
        "Leaky ReLU eases vanishing gradients compared with sigmoid and tanh.",
        "Glorot, Bengio 2010; Glorot, Bordes, Bengio: Deep Sparse Rectifier Neural Networks, AISTATS 2011",
        f"Networks of {_DEEP} hidden layers, each activation with He's initialisation and its own gain (torch's "
        "calculate_gain). Of the gradient's norms at the first and at the last activation the ratio, before training.",
        (IMAGE, SPEECH),
        _vanishing,
        ((LEAKY, "sigmoid", FLOW), (LEAKY, "tanh", FLOW)),
        ((LEAKY, "sigmoid", SCORE), (LEAKY, "tanh", SCORE), (LEAKY, RELU, FLOW)),
    ),
    Preset(
        "initialisation",
        "He's initialisation suits Leaky ReLU better than others do.",
        "He et al.: Delving Deep into Rectifiers, arXiv:1502.01852",
        "Deep networks with slope 0.01 (0.2 beside): He's with the slope's gain, Xavier's with the same gain, torch's "
        "default, and a normal of standard deviation 0.01 whatever the layer's size.",
        (IMAGE, SPEECH),
        _initialised,
        tuple((f"he, {LEAKY}", f"{how}, {LEAKY}", SCORE) for how in _WORSE_INITIALISATIONS),
        tuple((f"he, {LEAKIER}", f"{how}, {LEAKIER}", SCORE) for how in _WORSE_INITIALISATIONS),
    ),
    Preset(
        "slope",
        "A slope of 0.01 is a good default, and too large a one makes the network linear.",
        "Maas et al. 2013; Xu et al., arXiv:1505.00853, who find 1/5.5 better",
        "Slopes from 0 (ReLU) to 1 (linear). A good default: not worse by half a point than 0.1 and 0.2. Linear: worse than "
        "0.01.",
        OF_DOMAINS,
        _with(("leaky_relu 0", LEAKY, "leaky_relu 0.1", LEAKIER, "leaky_relu 0.5", "leaky_relu 1")),
        ((LEAKY, "leaky_relu 0.1", NO_WORSE), (LEAKY, LEAKIER, NO_WORSE), (LEAKY, "leaky_relu 1", SCORE)),
        ((LEAKY, "leaky_relu 0", SCORE), (LEAKY, "leaky_relu 0.5", SCORE)),
    ),
    Preset(
        "regularisation",
        "Batch normalisation, dropout, L2 and early stopping help networks with Leaky ReLU.",
        "Ioffe, Szegedy 2015; Srivastava et al. 2014; Prechelt: Early Stopping – But When?, 1998",
        "Slope 0.01; each of them against none, early stopping against training to the end.",
        OF_DOMAINS,
        _regularised,
        (*((name, "none", SCORE) for name in REGULARISATIONS[1:]), ("none", "to the end", SCORE)),
    ),
    Preset(
        "optimiser",
        "Adaptive optimisers and learning-rate schedules help networks with Leaky ReLU.",
        "Kingma, Ba: Adam, ICLR 2015; Loshchilov, Hutter: SGDR, ICLR 2017",
        "Slope 0.01; Adagrad, RMSprop and Adam against plain SGD, steps and a cosine against a constant rate (Adam).",
        OF_DOMAINS,
        _optimised,
        (*((n, "sgd", SCORE) for n in ("adagrad", "rmsprop", "adam")), *((n, "adam", SCORE) for n in ("step", "cosine"))),
        (("adam", "momentum", SCORE),),
    ),
    Preset(
        "domains",
        "Leaky ReLU helps in vision, language and speech.",
        "Maas et al. 2013 (speech); Xu et al., arXiv:1505.00853 (images)",
        "Against ReLU on every domain, with the network that suits it.",
        (IMAGE, TEXT, SPEECH, "breast-cancer", "wine", "italy-power-demand", "anomaly"),
        _with((RELU, LEAKY, LEAKIER)),
        ((LEAKY, RELU, SCORE),),
        ((LEAKIER, RELU, SCORE),),
    ),
    Preset(
        "cost",
        "ELU costs more than Leaky ReLU.",
        "Clevert et al.: ELU, ICLR 2016, whose own speeds are mixed",
        "Whole training steps with Adam, all activations in turn, round by round, several passes, on all threads.",
        OF_DOMAINS,
        lambda _: {},
    ),
)
