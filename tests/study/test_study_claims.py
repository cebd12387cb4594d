"""Effects and verdicts say what the figures say, in the direction of the claim."""

import math
from dataclasses import replace

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pydantic")
pytest.importorskip("scipy")
pytest.importorskip("rich")
from leakyrelu_bench.study.claims import arms, cost, effects, measures, plan, presets
from leakyrelu_bench.study.claims.effects import NOT_SUPPORTED, SUPPORTED, UNDECIDED, Effect
from leakyrelu_bench.study.study import Cost

from study_runs import outcome

pytestmark = pytest.mark.cpu_only
SEEDS = 5


class Data:
    """As much of a dataset as a result tells."""

    def __init__(self, name):
        self.name, self.domain, self.metric = name, "image", "accuracy"


def effect(mean, low, high, margin=0.5):
    return Effect("wine", "tabular", "test score", "points", "a", "b", mean, low, high, 5, margin)


def test_the_interval_is_students():
    found = effects.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451052 * math.sqrt(2.5 / 5)
    assert (found.mean, found.low, found.high, found.count) == pytest.approx((3.0, 3.0 - half, 3.0 + half, 5))
    assert math.isnan(effects.interval([1.0]).low)
    assert math.isnan(effects.interval([]).mean)


def test_pairing_takes_out_what_seeds_share():
    seeds = [10.0, 20.0, 30.0, 40.0]
    found = effects.paired([seed + 1 for seed in seeds], seeds)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (effect(2.0, 1.0, 3.0), SUPPORTED),
        (effect(2.0, -0.1, 4.1), UNDECIDED),
        (effect(0.1, 0.05, 0.15), NOT_SUPPORTED),  # sure, and too little to matter
        (effect(0.3, 0.1, 0.7), UNDECIDED),
        (effect(-2.0, -3.0, -1.0), NOT_SUPPORTED),
        (effect(0.0, -0.4, 0.4), NOT_SUPPORTED),
        (effect(2.0, math.nan, math.nan), UNDECIDED),
        # No worse than by half a point:
        (effect(-0.1, -0.4, 0.2, margin=-0.5), SUPPORTED),
        (effect(-0.1, -0.6, 0.4, margin=-0.5), UNDECIDED),
        (effect(-2.0, -3.0, -1.0, margin=-0.5), NOT_SUPPORTED),
    ],
)
def test_verdicts(found, verdict):
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("of", "verdict"),
    [
        ([SUPPORTED, SUPPORTED], SUPPORTED),
        ([SUPPORTED, UNDECIDED], SUPPORTED),
        ([NOT_SUPPORTED, UNDECIDED], NOT_SUPPORTED),
        ([SUPPORTED, NOT_SUPPORTED], UNDECIDED),
        ([UNDECIDED], UNDECIDED),
        ([], UNDECIDED),
    ],
)
def test_of_several(of, verdict):
    examples = {SUPPORTED: effect(2.0, 1.0, 3.0), NOT_SUPPORTED: effect(0.0, -0.1, 0.1), UNDECIDED: effect(0.0, -9.0, 9.0)}
    assert effects.overall([examples[each] for each in of]) == verdict


def entries(preset, datasets):
    return plan.entries_of({name: preset.arms(name) for name in datasets})


def results(preset, datasets, figures):
    """As if trained: ``figures(configuration)`` gives the keywords of its outcome."""
    effort = arms.Effort(SEEDS, 2)
    found = arms.Results({name: Data(name) for name in datasets})
    for entry in entries(preset, datasets):
        runs = effort.runs(entry.arm, entry.learning_rate or 0.01)
        found.of[entry] = [outcome(of, **figures(of)) for of in runs]
    return found


PRESETS = {preset.name: preset for preset in presets.PRESETS}


def decided(name, figures, datasets=("digits",)):
    preset = PRESETS[name]
    found, of_datasets = results(preset, datasets, figures), [preset.arms(dataset) for dataset in datasets]
    decide, others = (presets.effects(contrasts, found, of_datasets) for contrasts in (preset.decide, preset.beside))
    assert all(each.seeds == SEEDS for each in decide + others)
    return effects.overall(decide), decide


def wobble(of):
    return 0.001 * (of.seed % 3)


@pytest.mark.parametrize(
    ("leaky", "relu", "verdict"), [(0.0, 0.4, SUPPORTED), (0.4, 0.4, NOT_SUPPORTED), (0.4, 0.0, NOT_SUPPORTED)]
)
def test_dying_relu(leaky, relu, verdict):
    def figures(of):
        dead = (relu if of.activation == "relu" else leaky) + wobble(of)
        return {"dead_share": [0.0, 0.0, 0.5], "zero_gradient_share": [0.0, 0.0, dead]}

    assert decided("dying-relu", figures)[0] == verdict


def test_convergence_is_of_the_whole_curve():
    def figures(of):
        slow = of.activation == "relu"
        return {"losses": (2.0, 1.0 + slow, 0.5 + slow, 0.6 + 4 * slow, 0.5 + wobble(of))}

    verdict, decide = decided("convergence", figures)
    assert verdict == SUPPORTED
    assert [each.verdict for each in decide] == [SUPPORTED, SUPPORTED]
    assert decided("convergence", lambda of: {"losses": (2.0, 1.0, 0.5 + wobble(of))})[0] == NOT_SUPPORTED


@pytest.mark.parametrize(
    ("leaky", "others", "verdict"),
    [(1.0, 1e-6, SUPPORTED), (0.5, 0.5, NOT_SUPPORTED), (1e5, 0.5, NOT_SUPPORTED)],  # exploding is no better
)
def test_vanishing_gradients(leaky, others, verdict):
    def figures(of):
        ratio = (leaky if of.activation in ("relu", "leaky_relu") else others) * (1 + wobble(of))
        return {"gradient_norm_ratio": [ratio, 1.0, 1.0]}

    assert decided("vanishing-gradients", figures)[0] == verdict


def test_initialisation():
    def figures(of):
        return {"score": 0.9 - 0.2 * (of.initialisation != "he") + wobble(of)}

    assert decided("initialisation", figures)[0] == SUPPORTED


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ({0.01: 0.9, 0.1: 0.9, 0.2: 0.9, 1.0: 0.6}, SUPPORTED),
        ({0.01: 0.9, 0.1: 0.95, 0.2: 0.95, 1.0: 0.6}, UNDECIDED),  # linear is worse, but 0.01 is not the best
        ({0.01: 0.9, 0.1: 0.95, 0.2: 0.95, 1.0: 0.9}, NOT_SUPPORTED),
    ],
)
def test_slope(scores, verdict):
    assert decided("slope", lambda of: {"score": scores.get(of.negative_slope, 0.8) + wobble(of)})[0] == verdict


def test_regularisation_and_early_stopping():
    def figures(of):
        return {"score": 0.8 + 0.1 * (of.regularisation != "none") - 0.1 * (of.patience is None) + wobble(of)}

    verdict, decide = decided("regularisation", figures)
    assert verdict == SUPPORTED
    assert len(decide) == 4


def test_optimiser():
    def figures(of):
        return {"score": 0.8 + 0.1 * (of.optimiser != "sgd") + 0.05 * (of.schedule != "constant") + wobble(of)}

    assert decided("optimiser", figures)[0] == SUPPORTED


def test_domains():
    def figures(of):
        return {"score": 0.8 + 0.1 * (of.dataset == "digits") * (of.activation == "leaky_relu") + wobble(of)}

    verdict, decide = decided("domains", figures, ("digits", "wine"))
    assert [each.verdict for each in decide] == [SUPPORTED, NOT_SUPPORTED]
    assert verdict == UNDECIDED


@pytest.mark.parametrize(("elu", "verdict"), [(1.5, SUPPORTED), (1.0, NOT_SUPPORTED), (0.7, NOT_SUPPORTED)])
def test_cost(elu, verdict):
    ratios = {"relu": 1.0, "leaky_relu 0.01": 1.0, "elu": elu}
    costs = [
        Cost("wine", function, 1e-3, effects.interval([ratio, ratio * 1.001, ratio * 0.999]))
        for function, ratio in ratios.items()
    ]
    decide, _ = cost.effects([Data("wine")], costs)
    assert effects.overall(decide) == verdict


def test_a_network_that_diverged_is_not_asked_for_its_dead_units():
    of = presets.arm("digits", "relu").run(0.1, 0)
    run = replace(outcome(of, (2.0, 1.0, math.nan), zero_gradient_share=[0.0, 0.25, 0.9]), diverged=True)
    assert measures.DEAD.of(run) == 25.0
    assert measures.DEAD.of(replace(run, diverged=False)) == 90.0


def test_a_run_that_diverged_counts_as_untrained_from_there_on():
    of = presets.arm("digits", "relu").run(0.1, 0)
    diverged = replace(outcome(of, (2.0, 1.0, math.nan)), configuration=replace(of, epochs=4))
    assert measures.losses(diverged) == [1.0, 2.0, 2.0, 2.0]
