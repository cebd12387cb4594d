"""Counts what an activation keeps for its backward, alone and between convolutions. Then, for the architectures of
the command models, each variant in a fresh process: the peak of a training step (resident set; on CUDA the
allocator's), and the largest batch that fits into --budget, confirmed by a run that fits and one that does not.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ...measure.budget import available_bytes, in_words
from ...measure.contest import MismatchError
from ...measure.plan import Results, Step
from ...models import MODELS, Model
from ...results import Row
from ..arguments import NothingToDoError, chosen
from ..variants import COMPILED, Variant
from . import saved
from .process import Answer, Question, ask
from .rows import OURS, RIVALS, of_answers

QUICK_MODELS = ("DCGAN discriminator", "GAT")
QUICK_BUDGET, BUDGET, FULL_BUDGET = 2**27, 2**30, 2**31
# Of each model's own batch: with more samples, activations outweigh parameters, as in training they do.
BATCHES, FULL_BATCHES = 4, 8
# A batch that proves too large takes more than the budget.
OVERSHOOT = 1.5


@dataclass(frozen=True)
class Memory:
    """``cases`` take a step each; of ``models`` every variant does."""

    cases: Sequence[saved.Case]
    models: Sequence[Model]
    variants: Sequence[Variant]
    budget: int
    arguments: Namespace

    @property
    def steps(self) -> int:
        return len(self.cases) + len(self.models) * len(self.variants)

    def results(self, step: Step) -> Iterator[Results]:
        """Raises MismatchError where ours does not compute what the built-in does."""
        for rows in self._rows(step):
            yield lambda rows=rows: (rows, [])  # type: ignore[misc]

    def _rows(self, step: Step) -> Iterator[list[Row]]:
        given, done = self.arguments, list[Row]()
        device, counted = given.device, given.device.type == "cuda"
        for case in self.cases:
            step(case.name)
            done += saved.rows(case, given.seed, device, COMPILED in self.variants)
            yield list(done)
        for model in self.models:
            answers: dict[Variant, Answer] = {}
            batch = model.batch * (1 if given.quick else FULL_BATCHES if given.full else BATCHES)
            of_model = done
            for variant in self.variants:
                step(f"{model.name}, {variant.name}")
                budget = self.budget if given.full or not variant.compiled else None
                of_step = (model.name, variant.name, batch, given.seed, str(device), given.threads)
                answers[variant] = ask(Question(*of_step, budget=budget))
                if answers[variant].mismatch:
                    raise MismatchError(f"{model.name}, {variant.name!r}: {answers[variant].mismatch}")
                of_model = [*done, *of_answers(model, batch, self.budget, answers, counted)]
                yield of_model
            done = of_model


def plan(arguments: Namespace) -> tuple[Memory, list[str]]:
    """Raises NothingToDoError also where there is not the memory to try what ``--budget`` holds."""
    quick, full = arguments.quick, arguments.full

    def quickly(case: saved.Case | Model) -> bool:
        return case.name in QUICK_MODELS if isinstance(case, Model) else case.dtype is not torch.float16

    everything: list[saved.Case | Model] = [*saved.CASES, *([] if arguments.no_models else MODELS)]
    found = chosen(arguments, "case or model", everything, quickly)
    models = [case for case in found if isinstance(case, Model)]
    budget = arguments.budget or (QUICK_BUDGET if quick else FULL_BUDGET if full else BUDGET)
    if models and OVERSHOOT * budget > (available := available_bytes(arguments.device)):
        raise NothingToDoError(
            f"argument --budget: to see what does not fit into {in_words(budget)} takes up to "
            f"{in_words(OVERSHOOT * budget)}, and {in_words(available)} are to be had"
        )
    variants = [*OURS, *(rival for rival in RIVALS if not (rival.compiled and arguments.no_compile))]
    cases = [case for case in found if isinstance(case, saved.Case)]
    return Memory(cases, models, variants, budget, arguments), []
