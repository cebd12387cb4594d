"""Asks a fresh process (:mod:`.peak`) what one variant's training step takes, and how large a batch fits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import torch

# These put another allocator in the place of glibc's, which the process sets so that what is freed does not count.
_ALLOCATORS = ("LD_PRELOAD",)


@dataclass(frozen=True)
class Question:
    """``check``: compare results first. ``budget``: in bytes, of parameters, inputs and the step in all."""

    model: str
    variant: str
    batch: int
    seed: int
    device: torch.device
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
    peak_bytes: tuple[int, ...] = ()  # of single steps
    held_bytes: int = 0  # parameters, buffers and inputs
    largest: int | None = None  # samples
    largest_bytes: int | None = None  # that the largest batch takes in all
    largest_obstacle: str | None = None


def _arguments(question: Question) -> list[str]:
    arguments = ["--model", question.model, "--variant", question.variant, "--batch", str(question.batch)]
    arguments += ["--seed", str(question.seed), "--device", str(question.device), "--parent", str(os.getpid())]
    if question.threads is not None:
        arguments += ["--threads", str(question.threads)]
    if question.check:
        arguments.append("--check")
    if question.budget is not None:
        arguments += ["--budget", str(question.budget)]
    return arguments


def _ending(done: subprocess.CompletedProcess[str]) -> str | None:
    """Why the process ended as it should not, in a line."""
    if done.returncode == -signal.SIGKILL:
        return "killed, as the system does when memory gives out"
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return None


def ask(question: Question) -> Answer:
    """Runs that process to its end; it is killed when this one ends or is interrupted meanwhile."""
    environment = {name: value for name, value in os.environ.items() if name not in _ALLOCATORS}
    environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of processes that would outlive it
    done = subprocess.run(
        [sys.executable, "-m", "leakyrelu_bench.suites.peak", *_arguments(question)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    told: dict[str, object] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            told |= json.loads(line)
    ending = _ending(done)
    if ending is not None:
        told["largest_obstacle" if "peak_bytes" in told else "obstacle"] = ending
    told.pop("batch", None)
    if "peak_bytes" in told:
        told["peak_bytes"] = tuple(told["peak_bytes"])  # type: ignore[arg-type]
    return Answer(**told)  # type: ignore[arg-type]
