"""The `leakyrelu-bench` command line."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

import leakyrelu_ext

T = TypeVar("T", int, float)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def _within(kind: Callable[[str], T], low: T, high: T) -> Callable[[str], T]:
    def parse(text: str) -> T:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}, got {text}")
        return value

    parse.__name__ = kind.__name__  # argparse's word for it in its messages
    return parse


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="leakyrelu-bench",
        description="leakyrelu_ext against PyTorch's own Leaky ReLU, side by side in one process.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    ops = commands.add_parser(
        "ops",
        help="time forward, backward and both over real activations and sizes 2^6 … 2^24",
        description=(
            "Times the built-in and ours in turn and prints medians. First it asserts, for every input, that both compute "
            "the same bits; if not, it ends with exit status 1."
        ),
    )
    ops.add_argument("--dtype", choices=DTYPES, action="append", help="repeatable; default: float32 and bfloat16")
    ops.add_argument("--threads", type=_within(int, 1, os.cpu_count() or 1), help="default: torch's own choice")
    ops.add_argument("--seconds", type=_within(float, 0.001, 3600.0), default=1.0, help="per row; default: %(default)s")
    ops.add_argument("--max-size", type=_within(int, 1, 2**40), help="leave out noise of more elements than this")
    ops.add_argument(
        "--seed",
        type=_within(int, 0, 2**63 - 1),
        default=0,
        help="of weights and noise; default: %(default)s",
    )
    return top


def _ops(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from . import environment, ops, tables
    from .inputs import SIZES, noise_inputs, real_inputs
    from .timing import settle_allocator

    info = leakyrelu_ext.build_info()
    if not info["native"]:
        print(f"leakyrelu-bench: error: nothing to compare with the built-in: {info['obstacle']}", file=sys.stderr)
        return 1
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtypes = [DTYPES[name] for name in arguments.dtype or ("float32", "bfloat16")]
    sizes = tuple(size for size in SIZES if arguments.max_size is None or size <= arguments.max_size)
    console, progress_console = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no width of its own; the table needs this much
    console.print(environment.describe(), highlight=False)
    settle_allocator()
    real = real_inputs(arguments.seed)
    rows = []
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress_console) as progress:
        task = progress.add_task("ops", total=(len(real) + len(sizes)) * len(dtypes) * len(ops.MODES))
        try:
            for row in ops.run(itertools.chain(real, noise_inputs(arguments.seed, sizes)), dtypes, arguments.seconds):
                rows.append(row)
                progress.update(task, advance=1, description=row.input)
        except ops.MismatchError as error:
            print(f"leakyrelu-bench: error: {error}", file=sys.stderr)
            return 1
    console.print(tables.ops_table(rows))
    console.print(tables.ops_summary(rows), highlight=False, soft_wrap=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parser().parse_args(arguments)
    try:
        return _ops(parsed)
    except ModuleNotFoundError as error:
        print(f"leakyrelu-bench: error: {error}. Install the extra: pip install 'leakyrelu_ext[bench]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
