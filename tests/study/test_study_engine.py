"""Runs, sweeps, journals: a study gives the same however it is run, and loses nothing."""

import itertools
import json
import math
import signal
from dataclasses import asdict, replace

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pydantic")
pytest.importorskip("scipy")
pytest.importorskip("rich")
from leakyrelu_bench.results import ResultsError
from leakyrelu_bench.study import as_json
from leakyrelu_bench.study import data as datasets
from leakyrelu_bench.study.claims import arms, plan, presets
from leakyrelu_bench.study.claims.effects import interval
from leakyrelu_bench.study.study import Cost
from leakyrelu_bench.study.training import names, running
from leakyrelu_bench.study.training import train as training
from leakyrelu_bench.study.training.configuration import Arm, Written
from leakyrelu_bench.study.training.journal import Journal
from leakyrelu_bench.study.training.outcome import Outcome
from pydantic import TypeAdapter

from study_runs import SMALL, outcome

pytestmark = pytest.mark.cpu_only
CPU = torch.device("cpu")
CONFIGURATION, OUTCOME = TypeAdapter(Written), TypeAdapter(Outcome)


@pytest.fixture(autouse=True)
def one_thread():
    """As runs have: with more, small layers wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def comparable(outcome):
    """All but how long it took; NaN made equal to itself."""
    entry = OUTCOME.dump_python(outcome, mode="json")
    del entry["seconds"]
    return json.dumps(entry)


def setting(jobs=1, threads=1):
    return running.Setting(CPU, jobs, threads, None)


def test_names_are_in_step():
    assert datasets.NAMES == names.DATASETS
    assert tuple(preset.name for preset in presets.PRESETS) == names.CLAIMS
    assert {name for preset in presets.PRESETS for name in preset.datasets} <= set(names.DATASETS)


def test_a_key_tells_runs_apart_and_lasts():
    assert SMALL.key == replace(SMALL).key == as_json.read(CONFIGURATION, json.dumps(asdict(SMALL))).key
    changes = {
        "dataset": "digits",
        "learning_rate": 0.02,
        "seed": 1,
        "negative_slope": 0.2,
        "initialisation": "xavier",
        "regularisation": "l2",
        "optimiser": "sgd",
        "schedule": "step",
        "network": "mlp",
        "depth": 4,
        "epochs": 9,
        "patience": None,
        "batch_size": 7,
        "observe": True,
    }
    keys = {replace(SMALL, **{name: value}).key for name, value in changes.items()}
    assert len(keys | {SMALL.key}) == len(changes) + 1


@pytest.mark.parametrize("change", [{"activation": "relu"}, {"negative_slope": None}])
def test_a_slope_is_leaky_relus(change):
    with pytest.raises(ValueError, match="negative_slope"):
        replace(SMALL, **change)


@pytest.mark.parametrize("change", [{"seed": "0"}, {"epochs": 1.5}, {"observe": None}, {"dataset": 3}])
def test_a_damaged_configuration(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        as_json.read(CONFIGURATION, json.dumps({**asdict(SMALL), **change}))


@pytest.mark.parametrize("regularisation", names.REGULARISATIONS)
@pytest.mark.parametrize("optimiser", names.OPTIMISERS)
def test_every_optimiser_and_regularisation_learns(regularisation, optimiser):
    rates = arms.LEARNING_RATES[optimiser]
    of = replace(SMALL, regularisation=regularisation, optimiser=optimiser, learning_rate=rates[-1], epochs=8)
    found = running.run(of, CPU, None)
    assert not found.diverged
    losses = found.curves["validation_loss"]
    assert min(losses) < 0.8 * losses[0]
    assert found.test_score > 0.6
    assert found.steps == found.epochs * math.ceil(len(running.dataset("wine", None).train) / 32)


@pytest.mark.parametrize("how", names.INITIALISATIONS)
def test_every_initialisation_is_its_own(how):
    data = running.dataset("wine", None)
    weights = {
        name: [p.detach().clone() for p in training.build(replace(SMALL, initialisation=name), data).parameters()]
        for name in names.INITIALISATIONS
    }
    others = [weights[name] for name in weights if name != how]
    assert all(any(not torch.equal(a, b) for a, b in zip(weights[how], other, strict=True)) for other in others)


@pytest.mark.parametrize("function", names.ACTIVATIONS)
def test_every_activation_is_watched(function):
    slope = 0.2 if function == "leaky_relu" else None
    found = running.run(replace(SMALL, activation=function, negative_slope=slope, observe=True), CPU, None)
    assert len(found.layers["before"]) == len(found.layers["after"]) == SMALL.depth
    assert all(0 <= share <= 1 for share in found.curves["dead_share"] + found.curves["negative_share"])
    still = found.curves["zero_gradient_share"]
    assert still == found.curves["dead_share"] if function == "relu" else not any(still)
    assert all(ratio > 0 for ratio in found.curves["gradient_norm_ratio"])
    assert all(layer["gradient_norm"] > 0 for layer in found.layers["before"] + found.layers["after"])


def test_watching_changes_nothing():
    watched = running.run(replace(SMALL, observe=True, regularisation="dropout"), CPU, None)
    plain = running.run(replace(SMALL, regularisation="dropout"), CPU, None)
    assert watched.test_score == plain.test_score
    assert watched.curves["validation_loss"] == plain.curves["validation_loss"]


def test_divergence_stops_a_run_and_is_said():
    found = running.run(replace(SMALL, optimiser="sgd", learning_rate=1e30, patience=None, epochs=6), CPU, None)
    assert found.diverged
    assert found.epochs < 6
    assert 0 <= found.test_score <= 1
    written = json.dumps(OUTCOME.dump_python(found, mode="json"), allow_nan=False)
    assert as_json.read(OUTCOME, written).diverged


def test_early_stopping_keeps_the_best_weights_and_training_to_the_end_the_last():
    of = replace(SMALL, optimiser="adam", learning_rate=0.05, epochs=60, patience=2)
    found = running.run(of, CPU, None)
    losses = found.curves["validation_loss"]
    assert found.epochs < 60
    assert found.best_epoch == losses.index(min(losses)) == found.epochs - 2
    whole = running.run(replace(of, patience=None, epochs=8), CPU, None)
    assert (whole.epochs, whole.best_epoch) == (8, 8)


def test_the_test_split_sees_the_weights_of_the_best_epoch(monkeypatch):
    """What is asked for last has the validation loss of that epoch again."""
    seen = []
    evaluate = training.evaluate

    def spy(module, split, metric, device):
        data = running.dataset("wine", None)
        if split is data.test:
            seen.append(evaluate(module, data.validation, metric, device)[0])
        return evaluate(module, split, metric, device)

    monkeypatch.setattr(training, "evaluate", spy)
    found = running.run(replace(SMALL, learning_rate=0.05, epochs=60, patience=2), CPU, None)
    assert found.best_epoch < found.epochs
    assert seen == [found.best_validation_loss]


@pytest.mark.parametrize("regularisation", names.REGULARISATIONS)
def test_a_regularisation_is_what_it_is_called(regularisation):
    from leakyrelu_bench.study.training import choices

    of = replace(SMALL, regularisation=regularisation)
    net = training.build(of, running.dataset("wine", None))
    kinds = [type(module) for module in net.modules()]
    assert kinds.count(torch.nn.BatchNorm1d) == SMALL.depth * (regularisation == "batch-norm")
    dropouts = [module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts == [choices.DROPOUT_P] * SMALL.depth * (regularisation == "dropout")
    for optimiser in names.OPTIMISERS:
        made = choices.optimiser(replace(of, optimiser=optimiser), net.parameters())
        assert made.param_groups[0]["weight_decay"] == choices.L2 * (regularisation == "l2")
        assert made.param_groups[0].get("momentum", 0) == choices.MOMENTUM * (optimiser == "momentum")


def test_scores():
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 2])
    assert training.score("accuracy", torch.zeros(10, dtype=torch.int64), labels) == pytest.approx(0.8)
    # Of the rare classes nothing is found: F1 is 2 * 0.8 / 1.8 for the first, 0 for the others.
    assert training.score("macro-F1", torch.zeros(10, dtype=torch.int64), labels) == pytest.approx(1.6 / 1.8 / 3)


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_schedules_end_low(schedule):
    from leakyrelu_bench.study.training import choices

    of = replace(SMALL, schedule=schedule, epochs=6, learning_rate=1.0)
    optimiser = choices.optimiser(of, [torch.nn.Parameter(torch.zeros(1))])
    scheduler = choices.scheduler(of, optimiser)
    rates = []
    for _ in range(6):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1


def test_a_seed_decides_everything_and_jobs_nothing(tmp_path):
    runs = [replace(SMALL, seed=seed, dataset=name) for name in ("wine", "digits") for seed in range(2)]
    runs = [replace(run, epochs=1) if run.dataset == "digits" else run for run in runs]
    found = []
    for jobs in (1, 2):
        journal, steps = Journal(None), []
        running.run_all(runs, setting(jobs), journal, steps.append)
        assert len(steps) == len(runs)
        found.append([comparable(journal.find(run)) for run in runs])
    assert found[0] == found[1]
    assert len(set(found[0])) == len(runs)


def test_what_is_finished_is_not_run_again(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    runs = [replace(SMALL, seed=seed, epochs=1) for seed in range(3)]
    running.run_all(runs[:2], setting(), Journal(path), lambda _: None)
    taken, steps = Journal(path, resume=True), []
    running.run_all(runs, setting(), taken, steps.append)
    assert [each.configuration.seed for each in steps] == [2]
    assert len(path.read_text().splitlines()) == 4
    again = Journal(path, resume=True)
    assert [comparable(again.find(run)) for run in runs] == [comparable(taken.find(run)) for run in runs]


def test_a_line_that_was_not_finished_is_taken_off(tmp_path):
    path = tmp_path / "a.jsonl"
    journal = Journal(path)
    journal.add(outcome(SMALL))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "12')
    found = Journal(path, resume=True)
    assert len(found.outcomes) == 1
    assert path.read_bytes() == whole
    found.add_costs("wine", [Cost("wine", "relu", 1e-3, interval([1.0, 1.0]))])
    assert Journal(path, resume=True).costs("wine") == found.costs("wine")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a journal"),
        ("[]\n", "not a journal"),
        ("no\n", "not a journal"),
        ('{"format": "leakyrelu-bench"}\n', "not a journal"),
        ('{"format": "leakyrelu-bench-journal"}\n{}\n', "line 2 is damaged"),
        ('{"format": "leakyrelu-bench-journal"}\n\n', "line 2 is damaged"),
        ('{"format": "leakyrelu-bench-journal"}\n\xff\n', "line 2 is damaged"),
    ],
)
def test_foreign_and_damaged_journals(content, message, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ResultsError, match=message) as error:
        Journal(path, resume=True)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content.encode("latin-1")


def test_a_journal_is_not_overwritten_unasked(tmp_path):
    path = tmp_path / "a.jsonl"
    Journal(path).add(outcome(SMALL))
    with pytest.raises(ResultsError, match="is there already"):
        Journal(path)
    assert len(Journal(path, resume=True).outcomes) == 1
    assert Journal(path, force=True).outcomes == []


def test_what_a_run_raises_comes_through_from_its_process():
    of = replace(SMALL, dataset="no such")
    with pytest.raises(ValueError, match="no such"):
        running.run_all([of, replace(of, seed=1)], setting(2), Journal(None), lambda _: None)


def test_processes_start_with_interrupts_held(monkeypatch):
    """Or Ctrl-C would reach one that does not ignore it yet, which prints a traceback."""
    held = []

    class Executor(running.ProcessPoolExecutor):
        def submit(self, *arguments):
            held.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            return super().submit(*arguments)

    monkeypatch.setattr(running, "ProcessPoolExecutor", Executor)
    of = replace(SMALL, epochs=1)
    running.run_all([of, replace(of, seed=1)], setting(2), Journal(None), lambda _: None)
    assert held == [True, True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


# --- sweeps


def test_the_lowest_validation_loss_chooses_and_what_diverged_never_does():
    runs = [(0.001, (2, 1.5)), (0.01, (2, 0.7)), (0.1, (2, math.nan))]
    found = [outcome(replace(SMALL, learning_rate=rate), losses) for rate, losses in runs]
    assert arms.chosen(found) == 0.01
    assert arms.chosen(found[::-1]) == 0.01
    tie = [outcome(replace(SMALL, learning_rate=rate), (2, 0.7)) for rate in (0.1, 0.01)]
    assert arms.chosen(tie) == 0.01


def test_the_mean_over_the_seeds_of_a_sweep_chooses():
    runs = [(0.001, -1, 0.5), (0.001, -2, 0.6), (0.01, -1, 0.2), (0.01, -2, 1.0), (0.1, -1, 0.1), (0.1, -2, math.nan)]
    found = [outcome(replace(SMALL, learning_rate=rate, seed=seed), (2, loss)) for rate, seed, loss in runs]
    found[-1].curves["validation_loss"][:] = [math.nan]
    assert arms.losses(found) == pytest.approx({0.001: 0.55, 0.01: 0.6, 0.1: math.inf})
    assert arms.chosen(found) == 0.001


def test_every_arm_gets_the_same_sweep_with_a_seed_of_its_own():
    effort = arms.Effort(4, 3, sweep_seeds=2, first_seed=5)
    for preset in presets.PRESETS:
        for entry in plan.entries_of({name: preset.arms(name) for name in preset.datasets}):
            swept = effort.sweep(entry.arm)
            of_sweep = [(each.learning_rate, each.seed) for each in swept]
            assert of_sweep == list(itertools.product(effort.rates_of(entry.arm), (-6, -7)))
            assert len(set(effort.rates_of(entry.arm))) == 3
            runs = effort.runs(entry.arm, 0.5)
            assert [each.seed for each in runs] == [5, 6, 7, 8]
            assert not {each.seed for each in swept} & {each.seed for each in runs}
            assert {Arm(each) for each in swept + runs} == {entry.arm}


def test_arms_of_a_preset_differ_in_one_thing_and_have_labels_of_their_own():
    for preset in presets.PRESETS:
        entries = plan.entries_of({name: preset.arms(name) for name in preset.datasets})
        labels = [(entry.arm.of.dataset, presets.label(entry)) for entry in entries]
        assert len(set(labels)) == len(labels), preset.name


def test_measure_and_collect_know_what_is_missing():
    effort = arms.Effort(2, 2, sweep_seeds=3)
    relu = replace(SMALL, activation="relu", negative_slope=None)
    entries = [arms.Entry(Arm(replace(SMALL, epochs=1))), arms.Entry(Arm(relu), 0.01)]
    journal = Journal(None)
    ran = []

    def run_all(configurations):
        ran.append(len(configurations))
        for each in configurations:
            journal.add(replace(outcome(each), configuration=each))

    arms.measure(entries, effort, run_all, journal.find)
    assert ran == [6, 4]
    data = {"wine": running.dataset("wine", None)}
    results = arms.collect(entries, effort, data, journal.find)
    assert list(results.of) == entries
    assert results.result(entries[0]).sweep == {"0.001": 0.5, "0.003": 0.5}
    assert results.result(entries[1]).sweep == {}
    assert results.result(entries[0]).scores == [0.9, 0.9]
    empty = arms.collect(entries, effort, data, Journal(None).find)
    assert empty.of == {}
