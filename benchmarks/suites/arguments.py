"""What a command's arguments ask for: which cases, how thoroughly, in which state of the process."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch

import leakyrelu_ext

from ..measure.contest import Group
from ..measure.plan import Timing
from ..measure.timing import HOST, CudaStopwatch


class NothingToDoError(ValueError):
    """The arguments leave nothing to measure, or nothing that can be; the message says which."""


class Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


def chosen(arguments: Namespace, what: str, cases: Iterable[T], quick: Callable[[T], bool] = lambda _: True) -> list[T]:
    """Those with ``--only`` in their names; without that, with ``--quick`` the ``quick`` ones. ``what`` they are.

    Raises:
        NothingToDoError: there is none.
    """
    found = [case for case in cases if arguments.only in case.name]
    if not found:
        raise NothingToDoError(f"argument --only: no {what} has {arguments.only!r} in its name")
    return [case for case in found if quick(case)] if arguments.quick and not arguments.only else found


@dataclass(frozen=True)
class Level:
    """How thoroughly: passes over everything, and seconds per case and mode in all passes together."""

    passes: int
    seconds: float


# By suite: --quick, neither, --full.
LEVELS = {
    "ops": (Level(3, 0.2), Level(3, 0.5), Level(4, 1.0)),
    "fused": (Level(3, 0.5), Level(3, 3.0), Level(5, 6.0)),
    "norm": (Level(3, 0.5), Level(3, 3.0), Level(5, 6.0)),
    "compile": (Level(3, 4.0), Level(3, 12.0), Level(5, 30.0)),
    "models": (Level(3, 6.0), Level(3, 15.0), Level(5, 40.0)),
}
# Not where models are compiled, which takes longer than to measure them.
IN_OWN_PROCESSES = ("ops", "fused", "norm")


def settle(arguments: Namespace) -> None:
    """Brings a process into the state that ``arguments`` ask for; before its plan is made.

    PyTorch's own ops run on its own kernels, whatever the environment says: ours are not compared with themselves.
    """
    leakyrelu_ext.uninstall()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.device.type == "cuda":
        torch.cuda.set_device(arguments.device)


Make = Callable[[Namespace], tuple[Timing, list[str]]]


def again(make: Make, arguments: Namespace) -> Timing:
    """In another process."""
    settle(arguments)
    return make(arguments)[0]


def timing(suite: str, groups: Sequence[Group], arguments: Namespace, make: Make) -> Timing:
    """``make``: the function that makes this plan, at the top of its module."""
    quick, usual, full = LEVELS[suite]
    level = quick if arguments.quick else full if arguments.full else usual
    stopwatch = CudaStopwatch(arguments.device) if arguments.device.type == "cuda" else HOST
    own = partial(again, make, arguments) if suite in IN_OWN_PROCESSES else None
    return Timing(groups, level.passes, arguments.seconds or level.seconds, stopwatch, own)
