"""What a call of `leakyrelu-bench train` is to run, from its arguments."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...results import ResultsError
from ..data import Dataset, MissingDatasetError
from ..study import Skipped
from ..training.configuration import ACTIVATIONS, DATASETS, Arm
from ..training.running import dataset
from . import presets
from .arms import Effort, Entry
from .presets import PRESETS, Preset

EFFORTS = {"quick": Effort(3, 2), "usual": Effort(5, 3, sweep_seeds=2), "full": Effort(10, 4, sweep_seeds=3)}
# --quick: half the epochs, and of a grid these activations.
QUICK_ACTIVATIONS = ("relu", "leaky_relu", "elu", "tanh")
SLOPES = (0.01, 0.2)
# The claim that is timed, not trained.
COST = "cost"


@dataclass(frozen=True)
class Plan:
    """What is to be run: the entries of each preset, or those of a grid."""

    claims: Mapping[Preset, list[Entry]]
    grid: list[Entry]

    @property
    def entries(self) -> list[Entry]:
        return list(dict.fromkeys([*itertools.chain.from_iterable(self.claims.values()), *self.grid]))


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


def fitted(entry: Entry, arguments: Namespace) -> Entry:
    """With the epochs, patience, … of the arguments."""
    of = entry.arm.of
    epochs = arguments.epochs or (max(1, of.epochs // 2) if arguments.quick else of.epochs)
    of = replace(of, epochs=epochs, batch_size=arguments.batch_size or of.batch_size)
    return replace(entry, arm=Arm(of))


def _grid(names: Sequence[str], arguments: Namespace) -> list[Entry]:
    found = []
    functions: list[tuple[str, float | None]] = []
    for activation in arguments.activation or (QUICK_ACTIVATIONS if arguments.quick else ACTIVATIONS):
        slopes = arguments.slope or SLOPES
        functions += [(activation, slope) for slope in slopes] if activation == "leaky_relu" else [(activation, None)]
    axes = (
        arguments.init or ["he"],
        arguments.regularisation or ["none"],
        arguments.optimiser or ["adam"],
        arguments.schedule or ["constant"],
        arguments.depth or [None],
    )
    for name, (activation, slope), *values in itertools.product(names, functions, *axes):
        initialisation, regularisation, optimiser, schedule, depth = values
        arm = presets.arm(
            name,
            activation,
            slope,
            initialisation=initialisation,
            regularisation=regularisation,
            optimiser=optimiser,
            schedule=schedule,
            network=arguments.network,
            observe=arguments.observe,
        )
        of = replace(arm.of, depth=depth or arm.of.depth)
        if arguments.patience is not None:
            of = replace(of, patience=arguments.patience or None)
        found.append(Entry(Arm(of), arguments.learning_rate))
    return found


def plan_of(here: Mapping[str, Dataset], arguments: Namespace) -> Plan:
    claims = {}
    for preset in _presets(arguments):
        names = [name for name in preset.datasets if name in here]
        claims[preset] = [fitted(entry, arguments) for entry in preset.entries(names)]
    grid = [] if claims else [fitted(entry, arguments) for entry in _grid(list(here), arguments)]
    return Plan(claims, grid)
