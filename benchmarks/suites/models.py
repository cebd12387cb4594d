"""`leakyrelu-bench models`: whole training and inference steps of published architectures, ours against the built-in."""

from __future__ import annotations

import contextlib
import statistics
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..measure.activation_share import activation_share
from ..measure.compiling import first_line
from ..measure.contest import Contest, Group, MismatchError, Prepared
from ..measure.saved import saved_bytes
from ..measure.timing import Timed
from ..models import MODELS, Model, loss
from .agreement import Agreement, restored_buffers
from .choice import named
from .peak_process import Question, ask
from .variants import BUILTIN, COMPILED, INSTALLED, OURS, OURS_COMPILED, Made, Variant, make

TRAINING, INFERENCE = "training step", "inference step"
MODES = (TRAINING, INFERENCE)
RIVALS = (BUILTIN, COMPILED)
OUR_VARIANTS = (OURS, INSTALLED, OURS_COMPILED)
EXACT = (OURS, INSTALLED)
QUICK_MODELS = ("DCGAN discriminator", "GAT")
FULL_BATCHES = 2  # of each model's own batch


def describe(model: Model) -> str:
    """The architecture in a line: paper, parameters, the published count and who published it."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in model.make().parameters())
    published = "no published count"
    if model.published is not None:
        # Exact ones as they are, rounded ones with the digits that were printed.
        digits = f"{model.published / 1e6:g} M" if model.tolerance else f"{model.published:,.0f}"
        published = f"published {digits}"
    return f"{model.name} ({model.paper}): {count:,} parameters; {published} ({model.source})"


@dataclass
class Architecture:
    """One architecture in all its variants, alive; both modes' contests share it."""

    model: Model
    batch: int
    seed: int
    device: torch.device
    threads: int | None
    peaks: bool  # also measure what a training step takes in memory, in processes of their own
    made: dict[Variant, Made] = field(default_factory=dict)
    obstacles: dict[str, str] = field(default_factory=dict)
    statistics: dict[Variant, list[Tensor]] = field(default_factory=dict)
    facts: dict[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)  # by mode
    failed: dict[str, dict[str, str]] = field(default_factory=dict)  # by mode, what showed in the first pass

    def make(self, variants: Sequence[Variant]) -> None:
        for variant in variants:
            try:
                self.made[variant] = make(self.model, variant, self.seed, self.device)
            except ValueError as error:
                self.obstacles[variant.name] = str(error)
        for variant, made in self.made.items():
            self.statistics[variant] = [buffer.clone() for buffer in made.module.buffers()]

    def inputs(self, number: int) -> tuple[Tensor, ...]:
        drawn = self.model.inputs(self.batch, torch.Generator().manual_seed(self.seed + number))
        return tuple(x.to(self.device) for x in drawn)

    def prepare(self, mode: str, number: int) -> Prepared:
        """Every pass has new inputs, and begins with the running statistics that a new model has."""
        for variant, made in self.made.items():
            made.module.train(mode == TRAINING)
            with torch.no_grad():
                for buffer, value in zip(made.module.buffers(), self.statistics[variant], strict=True):
                    buffer.copy_(value)
        inputs = self.inputs(number)
        if number == 0:
            self.failed[mode] = self._check(mode, inputs)
        obstacles = {**self.obstacles, **self.failed[mode]}
        there = {variant: made for variant, made in self.made.items() if variant.name not in obstacles}
        steps = {variant: _step(made, mode, inputs) for variant, made in there.items()}
        if number == 0:
            self.facts[mode] = self._facts(mode, there, steps, inputs)
        calls = {variant.name: Timed(step) for variant, step in steps.items()}
        return Prepared(calls, obstacles, facts=self.facts[mode])

    def _check(self, mode: str, inputs: tuple[Tensor, ...]) -> dict[str, str]:
        """Holds every variant against the built-in; returns those that cannot take part.

        Raises:
            MismatchError: eager ours, converted or installed, does not give the built-in's bits.
        """
        failed: dict[str, str] = {}
        agreement = Agreement(self.made[BUILTIN], inputs, self.seed, mode == TRAINING)
        agreement.prepare()
        for variant, made in self.made.items():
            if variant is BUILTIN:
                continue
            try:
                name = agreement.difference(variant, made)
                if name is None:
                    with restored_buffers(made.module):
                        _step(made, mode, inputs)()  # compiled with dropout: not what was compared
            except Exception as error:
                if variant in EXACT:
                    raise
                failed[variant.name] = first_line(error)
                continue
            if name is not None and variant in EXACT:
                raise MismatchError(f"{self.model.name}, {mode}: {name} of {variant.name!r} differs from the built-in's")
            if name is not None:
                failed[variant.name] = f"computes something else: {name} differs from the built-in's beyond rounding"
        return failed

    def _facts(
        self,
        mode: str,
        made: Mapping[Variant, Made],
        steps: Mapping[Variant, Callable[[], object]],
        inputs: tuple[Tensor, ...],
    ) -> dict[str, dict[str, float]]:
        facts: dict[str, dict[str, float]] = {"activation_share": {}}
        for variant, step in steps.items():
            if not variant.compiled:
                with restored_buffers(made[variant].module):
                    share = activation_share(step, self.device)
                facts["activation_share"] |= {} if share is None else {variant.name: share}
        if mode == INFERENCE:
            return facts
        facts["saved_bytes"] = {variant.name: _kept(each, inputs) for variant, each in made.items()}
        if self.peaks:
            facts["peak_bytes"] = {}
            for variant in made:
                question = Question(
                    self.model.name, variant.name, self.batch, self.seed, self.device, self.threads, check=False
                )
                answer = ask(question)
                if answer.peak_bytes:
                    facts["peak_bytes"][variant.name] = statistics.median(answer.peak_bytes)
        return facts


def _step(made: Made, mode: str, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    def train() -> None:
        made.module.zero_grad(set_to_none=True)
        loss(made.call(*inputs)).backward()  # type: ignore[no-untyped-call]

    def infer() -> None:
        with torch.no_grad():
            made.call(*inputs)

    return train if mode == TRAINING else infer


def _kept(made: Made, inputs: tuple[Tensor, ...]) -> int:
    """For the backward, beyond parameters, buffers and inputs."""
    there = [*made.module.parameters(), *made.module.buffers(), *inputs]
    with restored_buffers(made.module):
        return saved_bytes(lambda: made.call(*inputs), besides=there)


def _group(model: Model, arguments: Namespace) -> Group:
    wanted = [variant for variant in (*RIVALS, *OUR_VARIANTS) if not (variant.compiled and arguments.no_compile)]
    batch = model.batch * (FULL_BATCHES if arguments.full else 1)

    @contextlib.contextmanager
    def contests() -> Iterator[list[Contest]]:
        architecture = Architecture(
            model, batch, arguments.seed, arguments.device, arguments.threads, peaks=not arguments.quick
        )
        torch._dynamo.reset()
        try:
            architecture.make(wanted)
            shape = tuple(architecture.inputs(0)[0].shape)
            ours = tuple(variant.name for variant in OUR_VARIANTS if variant in wanted)
            rivals = {rival.name: f"torch {torch.__version__}" for rival in RIVALS if rival in wanted}
            yield [
                Contest(
                    "models", model.name, shape, "float32", "", mode, "", ours, rivals, partial(architecture.prepare, mode)
                )
                for mode in MODES
            ]
        finally:
            architecture.made.clear()  # or whoever keeps a contest keeps the models
            architecture.statistics.clear()
            torch._dynamo.reset()

    return Group(len(MODES), contests)


def chosen(arguments: Namespace) -> list[Model]:
    """From ``only`` and ``quick``.

    Raises:
        NothingToDoError: no model has ``only`` in its name.
    """
    wanted = named(arguments, "model", (model.name for model in MODELS))
    if arguments.quick and not arguments.only:
        wanted = list(QUICK_MODELS)
    return [model for model in MODELS if model.name in wanted]


def groups(arguments: Namespace) -> list[Group]:
    """A group per architecture :func:`chosen`, of a contest per mode.

    From ``only``, ``no_compile``, ``quick``, ``full``, ``seed``, ``device`` and ``threads``. Raises what ``chosen`` does.
    """
    return [_group(model, arguments) for model in chosen(arguments)]
