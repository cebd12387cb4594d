"""Times forward and backward of convolutional nets with and without normalisation or residuals, and of perceptrons
with and without dropout: eager and compiled, with the built-in, with ours (which compiles to the built-in),
and compiled with ours kept as one op (leakyrelu_ext.set_compile_target). Needs the C++ compiler that
torch.compile needs.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import torch

from ..measure.plan import Timing
from ..measure.saved import saved_bytes
from ..models.small import NETS
from . import arguments as given
from .steps import TRAINING, Inputs, Net, Step, group
from .variants import BUILTIN, COMPILED, OURS, OURS_AS_OP, OURS_COMPILED, Made, Variant

RIVALS = (replace(BUILTIN, name="eager built-in"), COMPILED)
OUR_VARIANTS = (replace(OURS, name="eager ours"), OURS_COMPILED, OURS_AS_OP)


def _kept(variant: Variant, made: Made, mode: str, inputs: Inputs, step: Step) -> float:
    return saved_bytes(lambda: made.call(*inputs))


def plan(arguments: Namespace) -> tuple[Timing, list[str]]:
    variants, facts = [*RIVALS, *OUR_VARIANTS], {"saved_bytes": _kept}
    nets = given.chosen(arguments, "net", NETS)
    made = [Net(net, net.batch, variants, arguments.seed, arguments.device, facts) for net in nets]
    versions = {rival.name: f"torch {torch.__version__}" + " (Inductor)" * rival.compiled for rival in RIVALS}
    groups = [group("compile", net, versions, OUR_VARIANTS, [TRAINING]) for net in made]
    return given.timing("compile", groups, arguments, plan), []
