"""Contests of a net's whole steps, in several variants that are held against the built-in before anything is timed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..measure.contest import Contest, Facts, Group, MismatchError, Prepared, excused
from ..measure.timing import Timed
from ..models import Model, loss
from .agreement import Agreement, restored_buffers, set_buffers
from .variants import Made, Variant, make

TRAINING, INFERENCE = "training step", "inference step"

Inputs = tuple[Tensor, ...]
Step = Callable[[], None]
# Of a variant in a mode, from its step; None where there is none.
Fact = Callable[[Variant, Made, str, Inputs, Step], float | None]


def step(made: Made, mode: str, inputs: Inputs) -> Step:
    """Forward, loss and backward, without an optimiser; or the forward alone, without grad."""

    def train() -> None:
        made.module.zero_grad(set_to_none=True)
        loss(made.call(*inputs)).backward()  # type: ignore[no-untyped-call]

    def infer() -> None:
        with torch.no_grad():
            made.call(*inputs)

    return train if mode == TRAINING else infer


@dataclass
class Net:
    """One model in all its ``variants``, the first of them the eager built-in; the contests of all modes share it."""

    model: Model
    batch: int
    variants: Sequence[Variant]
    seed: int
    device: torch.device
    facts: Mapping[str, Fact]
    made: dict[Variant, Made] = field(default_factory=dict)
    statistics: dict[Variant, list[Tensor]] = field(default_factory=dict)
    obstacles: dict[str, str] = field(default_factory=dict)
    told: dict[str, tuple[dict[str, str], Facts]] = field(default_factory=dict)  # by mode, in the first pass

    def make(self) -> None:
        for variant in self.variants:
            try:
                self.made[variant] = make(self.model, variant, self.seed, self.device)
            except ValueError as error:
                self.obstacles[variant.name] = str(error)
        for variant, made in self.made.items():
            self.statistics[variant] = [buffer.clone() for buffer in made.module.buffers()]

    def inputs(self, number: int) -> Inputs:
        drawn = self.model.inputs(self.batch, torch.Generator().manual_seed(self.seed + number))
        return tuple(x.to(self.device) for x in drawn)

    def prepare(self, mode: str, number: int) -> Prepared:
        """Every pass has new inputs, and begins with the running statistics that a new model has."""
        for variant, made in self.made.items():
            set_buffers(made.module.train(mode == TRAINING), self.statistics[variant])
        inputs = self.inputs(number)
        steps = {variant: step(made, mode, inputs) for variant, made in self.made.items()}
        if number == 0:
            failed = self._check(mode, inputs, steps)
            facts: dict[str, dict[str, float]] = {name: {} for name in self.facts}
            for variant, made in self.made.items():
                for name, fact in self.facts.items() if variant.name not in failed else ():
                    with restored_buffers(made.module):
                        value = fact(variant, made, mode, inputs, steps[variant])
                    facts[name] |= {} if value is None else {variant.name: value}
            self.told[mode] = {**self.obstacles, **failed}, facts
        obstacles, told = self.told[mode]
        calls = {variant.name: Timed(each) for variant, each in steps.items() if variant.name not in obstacles}
        return Prepared(calls, obstacles, facts=told)

    def _check(self, mode: str, inputs: Inputs, steps: Mapping[Variant, Step]) -> dict[str, str]:
        """Those that cannot take part.

        Raises:
            MismatchError: eager ours does not give the built-in's bits.
        """
        failed: dict[str, str] = {}
        reference, *others = self.made
        agreement = Agreement(self.made[reference], inputs, self.seed, mode == TRAINING)
        agreement.prepare()
        for variant in others:
            with excused(variant.name, failed, fatal=not variant.compiled):
                if name := agreement.difference(variant, self.made[variant]):
                    if variant.compiled:
                        raise MismatchError(f"computes something else: {name} differs from the built-in's beyond rounding")
                    raise MismatchError(f"{self.model.name}, {mode}: {name} of {variant.name!r} differs from the built-in's")
                with restored_buffers(self.made[variant].module):
                    steps[variant]()  # compiled with dropout: not what was compared
        return failed


def group(suite: str, net: Net, rivals: Mapping[str, str], ours: Sequence[Variant], modes: Sequence[str]) -> Group:
    """A contest per mode. ``rivals``: with the version of each."""
    names = tuple(variant.name for variant in ours)

    @contextlib.contextmanager
    def contests() -> Iterator[list[Contest]]:
        torch._dynamo.reset()
        try:
            net.make()
            of_case = (suite, net.model.name, tuple(net.inputs(0)[0].shape), "float32", "")
            yield [Contest(*of_case, mode, "", names, rivals, partial(net.prepare, mode)) for mode in modes]
        finally:
            net.made.clear()  # or whoever keeps a contest keeps the models
            net.statistics.clear()
            torch._dynamo.reset()

    return Group(len(modes), contests)
