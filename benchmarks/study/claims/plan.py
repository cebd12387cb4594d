"""What a call of `leakyrelu-bench train` is to run, from its arguments."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...results import ResultsError
from ..data import Dataset, MissingDatasetError
from ..study import Skipped
from ..training.configuration import Arm
from ..training.names import ACTIVATIONS, DATASETS
from ..training.running import dataset
from . import presets
from .arms import Effort, Entry
from .presets import PRESETS, Arms, Preset

EFFORTS = {"quick": Effort(3, 2), "usual": Effort(5, 3, sweep_seeds=2), "full": Effort(10, 4, sweep_seeds=3)}
# --quick: half the epochs, and of a grid these activations.
QUICK_ACTIVATIONS = ("relu", "leaky_relu", "elu", "tanh")
SLOPES = (0.01, 0.2)
# The claim that is timed, not trained.
COST = "cost"


@dataclass(frozen=True)
class Plan:
    """What is to be run: the arms of each preset on each dataset, or those of a grid."""

    claims: Mapping[Preset, Mapping[str, Arms]]
    grid: list[Entry]

    @property
    def entries(self) -> list[Entry]:
        of_claims = itertools.chain.from_iterable(entries_of(arms) for arms in self.claims.values())
        return list(dict.fromkeys([*of_claims, *self.grid]))


def entries_of(by_dataset: Mapping[str, Arms]) -> list[Entry]:
    return [entry for arms in by_dataset.values() for entry in arms.values()]


def level(arguments: Namespace) -> str:
    """How thorough: a key of EFFORTS."""
    return "quick" if arguments.quick else "full" if arguments.full else "usual"


def effort_of(arguments: Namespace) -> Effort:
    effort = EFFORTS[level(arguments)]
    return replace(effort, seeds=arguments.seeds or effort.seeds, first_seed=arguments.seed)


def _wanted(arguments: Namespace) -> list[str]:
    """The names of the datasets, in the order of DATASETS."""
    of_claims = [name for preset in _presets(arguments) for name in preset.datasets]
    usual = of_claims or (presets.OF_DOMAINS if arguments.quick else DATASETS)
    chosen = arguments.dataset or usual
    wanted = [name for name in DATASETS if name in chosen and (not of_claims or name in of_claims)]
    if not wanted:
        raise ResultsError(f"argument --dataset: none of {', '.join(chosen)} is used by {', '.join(arguments.claim)}")
    return wanted


def _presets(arguments: Namespace) -> list[Preset]:
    return [preset for preset in PRESETS if preset.name in arguments.claim or "all" in arguments.claim]


def present(arguments: Namespace) -> tuple[dict[str, Dataset], list[Skipped]]:
    here: dict[str, Dataset] = {}
    skipped: list[Skipped] = []
    for name in _wanted(arguments):
        try:
            here[name] = dataset(name, arguments.data)
        except MissingDatasetError as error:
            skipped.append(Skipped(name, str(error), error.command))
        except ValueError as error:
            raise ResultsError(str(error)) from error
    return here, skipped


def _fitted(entry: Entry, arguments: Namespace) -> Entry:
    """With the epochs and the batch size of the arguments."""
    of = entry.arm.of
    epochs = arguments.epochs or (max(1, of.epochs // 2) if arguments.quick else of.epochs)
    return replace(entry, arm=Arm(replace(of, epochs=epochs, batch_size=arguments.batch_size or of.batch_size)))


def _grid(names: Sequence[str], arguments: Namespace) -> list[Entry]:
    functions: list[str] = []
    for activation in arguments.activation or (QUICK_ACTIVATIONS if arguments.quick else ACTIVATIONS):
        slopes = arguments.slope or SLOPES
        functions += [f"leaky_relu {slope}" for slope in slopes] if activation == "leaky_relu" else [activation]
    axes = {
        "initialisation": arguments.init,
        "regularisation": arguments.regularisation,
        "optimiser": arguments.optimiser,
        "schedule": arguments.schedule,
        "depth": arguments.depth,
        "patience": [] if arguments.patience is None else [arguments.patience or None],
        "network": [arguments.network],
        "observe": [arguments.observe],
    }
    axes = {name: values for name, values in axes.items() if values}  # for the others it is as usual
    return [
        Entry(presets.arm(dataset, function, **dict(zip(axes, values, strict=True))), arguments.learning_rate)
        for dataset, function, *values in itertools.product(names, functions, *axes.values())
    ]


def plan_of(here: Mapping[str, Dataset], arguments: Namespace) -> Plan:
    claims = {
        preset: {
            dataset: {name: _fitted(entry, arguments) for name, entry in preset.arms(dataset).items()}
            for dataset in preset.datasets
            if dataset in here
        }
        for preset in _presets(arguments)
    }
    grid = [] if claims else [_fitted(entry, arguments) for entry in _grid(list(here), arguments)]
    return Plan(claims, grid)
