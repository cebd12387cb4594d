"""`leakyrelu-bench memory`: what is kept for the backward, the peak of a training step, the largest batch in a budget."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..measure.budget import available_bytes
from ..models import MODELS, Model
from ..report.notation import size
from ..results import Roof, Row
from . import memory_peak, memory_saved
from .choice import NothingToDoError, named
from .peak_process import Answer, Question
from .variants import COMPILED, Variant

QUICK_MODELS = ("DCGAN discriminator", "GAT")
QUICK_BUDGET, BUDGET, FULL_BUDGET = 2**27, 2**30, 2**31
# Of each model's own batch: with more samples, activations outweigh parameters, as in training they do.
BATCHES, FULL_BATCHES = 4, 8
# A batch that proves too large takes more than the budget.
OVERSHOOT = 1.5


@dataclass(frozen=True)
class Plan:
    """``cases`` take a step each; of ``models`` every variant does."""

    cases: Sequence[memory_saved.Case]
    models: Sequence[Model]
    variants: Sequence[Variant]
    batches: int
    budget: int
    search_compiled: bool
    seed: int
    device: torch.device
    threads: int | None

    @property
    def steps(self) -> int:
        return len(self.cases) + len(self.models) * len(self.variants)

    def rows(self, step: Callable[[str], None]) -> Iterator[list[Row]]:
        """Calls ``step`` with what comes next before each step, and yields all rows known after it.

        Raises:
            MismatchError: ours does not compute what the built-in does.
        """
        compiles = COMPILED in self.variants
        done: list[Row] = []
        for case in self.cases:
            step(case.label)
            rows = memory_saved.rows(case, self.seed, self.device, compiles)
            done += rows
            yield list(done)
        for model in self.models:
            answers: dict[Variant, Answer] = {}
            of_model: list[Row] = []
            for variant in self.variants:
                step(f"{model.name}, {variant.name}")
                search = self.search_compiled or not variant.compiled
                question = Question(
                    model.name,
                    variant.name,
                    self.batches * model.batch,
                    self.seed,
                    self.device,
                    self.threads,
                    budget=self.budget if search else None,
                )
                answers[variant] = memory_peak.ask_about(question, model, variant)
                counted = self.device.type == "cuda"
                of_model = memory_peak.rows(model, question.batch, self.budget, answers, counted)
                yield [*done, *of_model]
            done += of_model

    def results(self, step: Callable[[str], None]) -> Iterator[Callable[[], tuple[list[Row], list[Roof]]]]:
        """:meth:`rows`, as :class:`.session.Plan` wants them."""
        for rows in self.rows(step):
            yield lambda rows=rows: (rows, [])  # type: ignore[misc]


def plan(arguments: Namespace) -> Plan:
    """From ``budget``, ``only``, ``no_compile``, ``no_models``, and ``quick``, ``full``, ``seed``, ``device``, ``threads``.

    Raises:
        NothingToDoError: nothing has ``only`` in its name, or there is not the memory to try what ``budget`` holds.
    """
    quick, full, device = arguments.quick, arguments.full, arguments.device
    cases = [case for case in memory_saved.CASES if arguments.only in case.label]
    if quick and not arguments.only:
        cases = [case for case in cases if case.dtype is not torch.float16]
    models = [] if arguments.no_models else [model for model in MODELS if arguments.only in model.name]
    if quick and not arguments.only:
        models = [model for model in models if model.name in QUICK_MODELS]
    named(arguments, "case or model", [*(case.label for case in cases), *(model.name for model in models)])
    budget = arguments.budget or (QUICK_BUDGET if quick else FULL_BUDGET if full else BUDGET)
    if models and OVERSHOOT * budget > (available := available_bytes(device)):
        raise NothingToDoError(
            f"argument --budget: to see what does not fit into {size(budget)} takes up to {size(OVERSHOOT * budget)}, and "
            f"{size(available)} are to be had"
        )
    rivals = [rival for rival in memory_peak.RIVALS if not (rival.compiled and arguments.no_compile)]
    return Plan(
        cases,
        models,
        [*memory_peak.OURS, *rivals],
        1 if quick else FULL_BATCHES if full else BATCHES,
        budget,
        full,
        arguments.seed,
        device,
        arguments.threads,
    )
