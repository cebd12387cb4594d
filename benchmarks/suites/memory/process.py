"""A fresh process that tells what one variant's training step takes in memory, and how large a batch fits."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

import leakyrelu_ext

from ...measure.compiling import first_line
from ...measure.processes import end_with_parent
from ...models import MODELS, Model
from ..agreement import Agreement
from ..variants import OURS, OURS_OUT_OF_PLACE, OUT_OF_PLACE, VARIANTS, Made, Variant, make
from .largest import largest_batch
from .meters import cuda_allocator, held_bytes, measure, resident_set

STEPS = 3
# These put another allocator in the place of glibc's, which the process sets so that what is freed does not count.
_ALLOCATORS = ("LD_PRELOAD",)


@dataclass(frozen=True)
class Question:
    """``check``: compare results first. ``budget``: in bytes, of parameters, inputs and the step in all."""

    model: str
    variant: str
    batch: int
    seed: int
    device: str
    threads: int | None = None
    check: bool = True
    budget: int | None = None


@dataclass(frozen=True)
class Answer:
    """``obstacle``: why there are no peaks; ``largest_obstacle``: why there is no largest batch.

    ``mismatch``: ours does not compute what the built-in does.
    """

    obstacle: str | None = None
    mismatch: str | None = None
    peak_bytes: tuple[int, ...] = ()  # what each of several steps took at most beyond what was there before it
    held_bytes: int = 0  # parameters, buffers and inputs, which were
    largest: int | None = None  # samples
    largest_bytes: int | None = None  # that the largest batch takes in all
    largest_obstacle: str | None = None


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    """Why the process ended as it should not, in a line."""
    if done.returncode == -signal.SIGKILL:
        return "killed, as the system does when memory gives out"
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def ask(question: Question) -> Answer:
    """Runs that process to its end; it is killed when this one ends or is interrupted meanwhile."""
    environment = {name: value for name, value in os.environ.items() if name not in _ALLOCATORS}
    environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of processes that would outlive it
    command = [sys.executable, "-c", f"from {__name__} import main; main()", json.dumps(asdict(question)), str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    told: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            told |= json.loads(line)
    if done.returncode:
        told["largest_obstacle" if "peak_bytes" in told else "obstacle"] = _ending(done)
    return Answer(**{**told, "peak_bytes": tuple(told.get("peak_bytes", ()))})


def _difference(model: Model, variant: Variant, made: Made, inputs: tuple[torch.Tensor, ...], seed: int) -> str | None:
    reference = make(model, OUT_OF_PLACE, seed, inputs[0].device)
    return Agreement(reference, inputs, seed, training=True).difference(variant, made)


def answer(question: Question, tell: Callable[[dict[str, Any]], None]) -> None:
    """In the process: tells parts of an Answer as soon as they are known, so that they outlive what comes next."""
    device, seed = torch.device(question.device), question.seed
    model = next(model for model in MODELS if model.name == question.model)
    variant = next(variant for variant in VARIANTS if variant.name == question.variant)
    totals: dict[int, float] = {}

    def inputs_of(batch: int) -> tuple[torch.Tensor, ...]:
        return tuple(x.to(device) for x in model.inputs(batch, torch.Generator().manual_seed(seed)))

    def bytes_of(batch: int) -> float:
        try:
            inputs = inputs_of(batch)
            totals[batch] = held_bytes(made, inputs) + max(measure(made, inputs, meter, 1))
        except torch.OutOfMemoryError:
            totals[batch] = math.inf
        return totals[batch]

    trouble = "obstacle"
    try:
        meter = cuda_allocator(device) if device.type == "cuda" else resident_set()
        made = make(model, variant, seed, device)
        inputs = inputs_of(question.batch)
        if question.check and (name := _difference(model, variant, made, inputs, seed)):
            key = "mismatch" if variant in (OURS, OURS_OUT_OF_PLACE) else "obstacle"
            return tell({key: f"computes something else: {name} differs from the built-in's out of place"})
        tell({"peak_bytes": measure(made, inputs, meter, STEPS), "held_bytes": held_bytes(made, inputs)})
        del inputs
        trouble = "largest_obstacle"
        if question.budget:
            largest = largest_batch(bytes_of, question.budget, model.batch)
            tell({"largest": largest, "largest_bytes": totals.get(largest, 0)})
    except Exception as error:  # whatever a model, its compiler or the system raises stands in the row
        tell({trouble: first_line(error)})


def main() -> None:
    question = Question(**json.loads(sys.argv[1]))
    end_with_parent(int(sys.argv[2]))
    leakyrelu_ext.uninstall()  # what the environment may have installed
    if question.threads:
        torch.set_num_threads(question.threads)
    answer(question, lambda told: print(json.dumps(told), flush=True))
