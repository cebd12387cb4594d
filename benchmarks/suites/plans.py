"""What each suite measures, from the arguments of its command."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

import torch

import leakyrelu_ext

from ..measure import contest, peers
from ..measure.timing import HOST, CudaStopwatch, Stopwatch
from ..session import Plan, Timing
from .choice import named
from .inputs import DTYPES, Input


@dataclass(frozen=True)
class Level:
    """How thoroughly: passes over everything, and seconds per case and mode in all passes together."""

    passes: int
    seconds: float


# By suite: --quick, neither, --full.
LEVELS = {
    "ops": (Level(3, 0.2), Level(3, 0.5), Level(4, 1.0)),
    "fused": (Level(3, 0.5), Level(3, 3.0), Level(5, 6.0)),
    "compile": (Level(3, 4.0), Level(3, 12.0), Level(5, 30.0)),
    "models": (Level(3, 6.0), Level(3, 15.0), Level(5, 40.0)),
}


# Not where models are compiled, which takes longer than to measure them.
IN_OWN_PROCESSES = ("ops", "fused")


def settle(arguments: Namespace) -> None:
    """Brings a process into the state that ``arguments`` ask for; before its plan is made.

    PyTorch's own ops run on its own kernels, whatever the environment says: ours are not compared with themselves.
    """
    leakyrelu_ext.uninstall()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.device.type == "cuda":
        torch.cuda.set_device(arguments.device)


def _level(suite: str, arguments: Namespace) -> Level:
    quick, usual, full = LEVELS[suite]
    level = quick if arguments.quick else full if arguments.full else usual
    return Level(level.passes, arguments.seconds or level.seconds)


def _timing(suite: str, groups: list[contest.Group], arguments: Namespace) -> Timing:
    device: torch.device = arguments.device
    stopwatch: Stopwatch = CudaStopwatch(device) if device.type == "cuda" else HOST
    level = _level(suite, arguments)
    return Timing(suite, arguments, groups, level.passes, level.seconds, stopwatch, suite in IN_OWN_PROCESSES)


# With --quick: what says the most in a minute.
QUICK_INPUTS = ("photos, stem 2", "2^20, x[:, :, ::2]")
QUICK_MODES = ("forward", "in place", "backward op", "forward+backward", "owned backward")
# Their outputs cost page faults, unless they come warm: of these there are rows with warm outputs, too.
WARM_INPUTS = ("noise, 2^23", "noise, 2^24")


def ops(arguments: Namespace) -> tuple[Timing, list[str]]:
    """The plan, and lines to print before it."""
    from . import ops as suite
    from .inputs import FULL_SIZES, QUICK_SIZES, SIZES, layout_inputs, noise_inputs, real_inputs

    device: torch.device = arguments.device
    seed, quick = arguments.seed, arguments.quick
    sizes = QUICK_SIZES if quick else FULL_SIZES if arguments.full else SIZES
    largest = arguments.max_size or max(sizes)
    names = arguments.dtype or ["float32", "bfloat16", *([] if quick else ["float16"])]
    dtypes = [DTYPES[name] for name in dict.fromkeys(names)]
    cases: list[Input] = [
        *real_inputs(seed, device),
        *(layout_inputs(seed, device) if largest >= 2**20 else []),
        *noise_inputs(seed, device, (size for size in sizes if size <= largest)),
    ]
    if quick and not arguments.only:
        cases = [case for case in cases if case.name in QUICK_INPUTS or "noise" in case.name]
    wanted = named(arguments, "input", (case.name for case in cases))
    cases = [case for case in cases if case.name in wanted]
    # torch's allocator for CUDA keeps what is freed: all outputs are warm.
    warm = [case for case in cases if case.name in WARM_INPUTS and device.type == "cpu"]
    found, absent = peers.find() if device.type == "cpu" and not arguments.no_peers else ([], {})
    # Compiling takes longer than to measure what comes of it.
    first = dtypes if arguments.full else dtypes[: 1 if quick else 2]
    compiled = [] if arguments.no_compile else first
    rivals, of_warm = suite.Rivals(compiled, found, absent, first), suite.Rivals(compiled)
    modes = QUICK_MODES if quick else suite.MODES
    large = [case for case in cases if quick and case.name in WARM_INPUTS]
    groups = [suite.group([case for case in cases if case not in large], dtypes, device, rivals, modes)]
    if large:
        groups.append(suite.group(large, dtypes[:1], device, rivals, modes))
    if warm:
        groups.append(suite.group(warm, dtypes[:1] if quick else dtypes, device, of_warm, modes, warm=True))
    return _timing("ops", groups, arguments), [f"{name}: {why}" for name, why in absent.items()]


def fused(arguments: Namespace) -> tuple[Timing, list[str]]:
    from . import fused as suite

    device: torch.device = arguments.device
    # torch's allocator for CUDA keeps what is freed: all outputs are warm.
    cases = (suite.CASES, suite.WARM_CASES) if device.type == "cpu" else (suite.CASES,)
    wanted = named(arguments, "case", (case.name for group in cases for case in group))
    by_memory = [[case for case in group if case.name in wanted] for group in cases]
    groups = [suite.group(group, arguments.seed, not arguments.no_compile, device) for group in by_memory if group]
    return _timing("fused", groups, arguments), []


def compiled(arguments: Namespace) -> tuple[Timing, list[str]]:
    from . import compiled as suite

    wanted = named(arguments, "net", (net.name for net in suite.NETS))
    groups = [suite.group(net, arguments.seed) for net in suite.NETS if net.name in wanted]
    return _timing("compile", groups, arguments), []


def models(arguments: Namespace) -> tuple[Timing, list[str]]:
    from . import models as suite

    chosen = suite.chosen(arguments)
    return _timing("models", suite.groups(arguments), arguments), [suite.describe(model) for model in chosen]


def memory(arguments: Namespace) -> tuple[Plan, list[str]]:
    from . import memory as suite

    return suite.plan(arguments), []


PLANS: dict[str, Callable[[Namespace], tuple[Plan, list[str]]]] = {
    "ops": ops,
    "fused": fused,
    "compile": compiled,
    "models": models,
    "memory": memory,
}
