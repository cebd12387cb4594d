"""Runs many configurations: some at a time, each on threads of its own, all results independent of how many at a time."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import torch

from ...measure.processes import belong_to, interrupts_held
from .. import data as datasets
from . import ranks
from .configuration import Configuration
from .journal import Journal
from .outcome import Outcome


class RunError(RuntimeError):
    """A run's process ended as it should not; the message is a line."""


@dataclass(frozen=True)
class Setting:
    """Where runs take place. ``threads``: of each run, on which its rounding depends. ``folder``: of datasets."""

    device: torch.device
    jobs: int
    threads: int
    folder: Path | None


@functools.cache
def dataset(name: str, folder: Path | None) -> datasets.Dataset:
    return datasets.load(name, folder)


def _start(parent: int, threads: int) -> None:
    belong_to(parent)
    torch.set_num_threads(threads)


def run(configuration: Configuration, device: torch.device, folder: Path | None) -> Outcome:
    from .train import train

    return train(configuration, dataset(configuration.dataset, folder), device)


def _one_at_a_time(configurations: Sequence[Configuration], setting: Setting) -> Iterator[Outcome]:
    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        for configuration in configurations:
            yield run(configuration, setting.device, setting.folder)
    finally:
        torch.set_num_threads(threads)


def _side_by_side(configurations: Sequence[Configuration], setting: Setting) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    executor = ProcessPoolExecutor(setting.jobs, context, _start, (os.getpid(), setting.threads))
    # Not concurrent.futures.wait: Ctrl-C may come while that takes the locks of all futures, and it would keep some.
    finished: SimpleQueue[Future[Outcome]] = SimpleQueue()
    try:
        with interrupts_held():  # here they start
            for configuration in configurations:
                executor.submit(run, configuration, setting.device, setting.folder).add_done_callback(finished.put)
        for _ in configurations:
            yield finished.get().result()
        executor.shutdown()
    except BrokenProcessPool as error:
        raise RunError("the process of a run ended before it was through (killed, or out of memory?)") from error
    finally:
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        # Waits: a pool still closing down when the interpreter ends may find a pipe gone, and say so.
        executor.shutdown(cancel_futures=True)


def run_all(
    configurations: Sequence[Configuration], setting: Setting, journal: Journal, step: Callable[[Outcome], None]
) -> None:
    """Runs those that ``journal`` does not have yet; their outcomes go into it one by one.

    Raises:
        RunError: a process was killed.
    """
    todo = [configuration for configuration in dict.fromkeys(configurations) if journal.find(configuration) is None]
    # The longest last ones would leave the other processes idle.
    todo.sort(key=lambda configuration: (configuration.dataset, -configuration.epochs))
    alone = setting.jobs == 1 or ranks.count() > 1 or len(todo) < 2
    for outcome in (_one_at_a_time if alone else _side_by_side)(todo, setting):
        journal.add(outcome)
        step(outcome)
