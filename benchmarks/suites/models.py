"""Times forward, loss and backward, and inference, of nnU-Net (2-D, 3-D), DCGAN's discriminator, Darknet-53,
ESRGAN, HiFi-GAN V1 and GAT as their authors wrote them: built-in, leakyrelu_ext.convert(model),
leakyrelu_ext.install(), and compiled. Outputs and gradients are compared first: ours must give the
built-in's bits, compiled the same but for rounding. With them: the activations' share of the time
(profiler), bytes kept for the backward, and without --quick the peak of a step in a fresh process.
"""

from __future__ import annotations

import statistics
from argparse import Namespace

import torch

from ..measure.activation_share import activation_share
from ..measure.contest import Group
from ..measure.plan import Timing
from ..measure.saved import saved_bytes
from ..models import MODELS, Model
from . import arguments as given
from .memory.process import Question, ask
from .steps import INFERENCE, TRAINING, Fact, Inputs, Net, Step, group
from .variants import BUILTIN, COMPILED, INSTALLED, OURS, OURS_COMPILED, Made, Variant

MODES = (TRAINING, INFERENCE)
RIVALS = (BUILTIN, COMPILED)
OUR_VARIANTS = (OURS, INSTALLED, OURS_COMPILED)
QUICK_MODELS = ("DCGAN discriminator", "GAT")
FULL_BATCHES = 2  # of each model's own batch


def describe(model: Model) -> str:
    """The architecture in a line: paper, parameters, the published count and who published it."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in model.make().parameters())
    published = f"published {model.published}" if model.published else "no published count"
    return f"{model.name} ({model.paper}): {count:,} parameters; {published} ({model.source})"


def _group(model: Model, arguments: Namespace) -> Group:
    left_out = arguments.no_compile
    rivals, ours = ([each for each in some if not (each.compiled and left_out)] for some in (RIVALS, OUR_VARIANTS))
    batch, seed, device = model.batch * (FULL_BATCHES if arguments.full else 1), arguments.seed, arguments.device

    def share(variant: Variant, made: Made, mode: str, inputs: Inputs, step: Step) -> float | None:
        return None if variant.compiled else activation_share(step, device)

    def kept(variant: Variant, made: Made, mode: str, inputs: Inputs, step: Step) -> float | None:
        there = [*made.module.parameters(), *made.module.buffers(), *inputs]
        return saved_bytes(lambda: made.call(*inputs), besides=there) if mode == TRAINING else None

    def peak(variant: Variant, made: Made, mode: str, inputs: Inputs, step: Step) -> float | None:
        if mode == INFERENCE:
            return None
        peaks = ask(Question(model.name, variant.name, batch, seed, str(device), arguments.threads, check=False)).peak_bytes
        return statistics.median(peaks) if peaks else None

    facts: dict[str, Fact] = {"activation_share": share, "saved_bytes": kept}
    if not arguments.quick:
        facts["peak_bytes"] = peak
    versions = {rival.name: f"torch {torch.__version__}" for rival in rivals}
    return group("models", Net(model, batch, [*rivals, *ours], seed, device, facts), versions, ours, MODES)


def plan(arguments: Namespace) -> tuple[Timing, list[str]]:
    chosen = given.chosen(arguments, "model", MODELS, lambda model: model.name in QUICK_MODELS)
    groups = [_group(model, arguments) for model in chosen]
    return given.timing("models", groups, arguments, plan), [describe(model) for model in chosen]
