"""The `leakyrelu-bench` command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import torch

import leakyrelu_ext

from .measure.budget import parse_bytes
from .results import ResultsError, load, refuse_to_overwrite
from .study import options
from .suites import compiled, fused, models, norm, ops
from .suites.arguments import NothingToDoError, settle
from .suites.inputs import DTYPES
from .suites.memory import plan as memory

T = TypeVar("T", int, float)

_EPILOG = """\
exit status: 0 measured; 1 ours computed something else than the built-in, a process failed, the compiled library or an
extra is missing, or compare found a regression; 2 bad arguments or files; 130 interrupted
What was measured until then is shown and saved.

examples:
  leakyrelu-bench ops --quick                      is it worth it on this machine? (a minute)
  leakyrelu-bench ops --only 2^20 --dtype bfloat16
  leakyrelu-bench memory --budget 2GiB --only nnU-Net
  leakyrelu-bench models --only GAN --json mine.json --html mine.html
  leakyrelu-bench train --claim dying-relu         is it true, what they say of Leaky ReLU?
  leakyrelu-bench compare before.json after.json   what changed beyond the noise
  leakyrelu-bench report *.json --html all.html    one page of several runs"""


def _within(kind: Callable[[str], T], low: T, high: T) -> Callable[[str], T]:
    def parse(text: str) -> T:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}, got {text}")
        return value

    parse.__name__ = kind.__name__  # argparse's word for it in its messages
    return parse


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:N, got {text}")
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise argparse.ArgumentTypeError(f"there is no device {device} here")
        if not leakyrelu_ext.build_info()["cuda"]:
            raise argparse.ArgumentTypeError(f"{device}: leakyrelu_ext was built without CUDA kernels")
    return device


def _cpu(text: str) -> torch.device:
    if text != "cpu":
        raise argparse.ArgumentTypeError(f"this suite runs on cpu only, got {text}")
    return torch.device("cpu")


def _amount(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _option(name: str, **settings: Any) -> _Parser:
    """A parser with this option alone, for others to take over."""
    parser = _Parser(add_help=False)
    parser.add_argument(name, **settings)
    return parser


_LEVEL = _Parser(add_help=False)
_how = _LEVEL.add_mutually_exclusive_group()
_how.add_argument("--quick", action="store_true", help="fewer cases, less time on each")
_how.add_argument("--full", action="store_true", help="more passes, more time on each: for figures to publish")
_CPU = torch.device("cpu")
_DEVICE = _option("--device", type=_device, default=_CPU, help="cpu, cuda or cuda:N; default: cpu")
_ON_CPU = _option("--device", type=_cpu, default=_CPU, help="cpu: this suite has no other")
_COUNT = _within(int, 1, os.cpu_count() or 1)
_THREADS = _option("--threads", type=_COUNT, help="default: torch's own choice")
_OF_EACH_RUN = _option("--threads", type=_COUNT, help="of each run, whose rounding depends on it; default: 1")
_ONLY = _option("--only", metavar="TEXT", default="", help="only cases with this in their names, as in the table")
_WIDE = _option("--wide", action="store_true", help="all columns in the terminal, as in a pipe or a file")
_RESULTS = [
    _option("--seed", type=_within(int, 0, 2**63 - 1), default=0, help="of weights and noise; default: 0"),
    _option("--json", type=Path, metavar="FILE", help="write the results there, for compare and report"),
    _option("--html", type=Path, metavar="FILE", help="write them as a page that needs no network"),
    _option("--force", action="store_true", help="overwrite these files"),
]
_BUDGET = """for the largest batch, such as 2GiB: parameters, gradients, inputs and what the step needs, not Python and the
libraries; default: 1 GiB, --quick 128 MiB, --full 2 GiB"""
# What some suites have.
_SECONDS = _option(
    "--seconds", type=_within(float, 0.001, 3600.0), help="per case and mode, in all passes; default: by --quick, --full"
)
_NO_COMPILE = _option("--no-compile", action="store_true", help="leave out torch.compile, and the wait for it")
_OF_OPS = [
    _option(
        "--dtype",
        choices=DTYPES,
        action="append",
        help="repeatable; default: float32, bfloat16 and, not with --quick, float16",
    ),
    _option("--max-size", type=_within(int, 1, 2**40), help="leave out noise of more elements than this"),
    _option("--no-peers", action="store_true", help="leave out JAX, ONNX Runtime and NumPy"),
]
_OF_MEMORY = [
    _option("--no-models", action="store_true", help="only what single activations keep for the backward"),
    _option("--budget", type=_amount, metavar="SIZE", help=_BUDGET),
]

# By command: a module, which has a function plan and whose docstring explains it; a line of help; its own options.
SUITES: dict[str, tuple[ModuleType, str, list[_Parser]]] = {
    "ops": (ops, "forward, in place, backward and both, over real activations, layouts, dtypes and sizes 2^6 … 2^26",
            [_DEVICE, _SECONDS, _NO_COMPILE, *_OF_OPS]),
    "fused": (fused, "bias_leaky_relu against the same composed from PyTorch's ops, eager and under torch.compile",
              [_DEVICE, _SECONDS, _NO_COMPILE]),
    "norm": (norm, "norm and activation as one op against the two, eager, in place, inverted and under torch.compile",
             [_DEVICE, _SECONDS, _NO_COMPILE]),
    "compile": (compiled, "training steps of small nets, eager and under torch.compile", [_ON_CPU, _SECONDS]),
    "models": (models, "whole training and inference steps of published architectures", [_DEVICE, _SECONDS, _NO_COMPILE]),
    "memory": (memory, "bytes kept for the backward, the peak of a training step, the largest batch in a budget",
               [_DEVICE, _NO_COMPILE, *_OF_MEMORY]),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="leakyrelu-bench",
        description="leakyrelu_ext against PyTorch's own Leaky ReLU and its other rivals, side by side in one run.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, description: str | None, parents: Sequence[_Parser] = ()) -> _Parser:
        raw = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(name, help=help, description=description, formatter_class=raw, parents=parents)

    for name, (module, help, own) in SUITES.items():
        add(name, help, module.__doc__, [_THREADS, _LEVEL, _ONLY, _WIDE, *_RESULTS, *own])
    of_runs = [_DEVICE, _OF_EACH_RUN, _LEVEL, *_RESULTS]
    what = "is it true, what is said of Leaky ReLU? Trainings on real data that decide"
    train = add("train", what, options.DESCRIPTION, of_runs)
    options.add(train, lambda low, high: _within(int, low, high), lambda low, high: _within(float, low, high))

    compare = add(
        "compare",
        "what got better or worse between two files of results, beyond the noise of both",
        "Compares row by row how many times better ours is than a rival that was measured beside it. Times of different\n"
        "runs are not compared: machines change. Exit status 1 if a row got worse by more than --threshold and its noise,\n"
        "or fails where it did not.",
    )
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    compare.add_argument(
        "--threshold",
        type=_within(float, 0.0, 100.0),
        default=0.05,
        help="a fraction: worse by more than this is a regression; default: %(default)s",
    )
    report = add(
        "report",
        "files of results as one HTML page, as figures, as documents, and in a README",
        "Reads what --json of the other commands wrote. The page has summary, figures, all rows and the environment, and\n"
        "needs no network. README's block is written between <!-- results: begin --> and <!-- results: end -->. Of several\n"
        " runs of a suite documents show the first.",
    )
    report.add_argument("files", nargs="+", type=Path, metavar="A.json")
    report.add_argument("--html", type=Path, metavar="FILE", help="one page of all")
    report.add_argument("--png", type=Path, metavar="FOLDER", help="the figures, a folder a suite")
    report.add_argument("--results", type=Path, metavar="RESULTS.md", help="a document of all, with the figures of --png")
    report.add_argument("--readme", type=Path, metavar="README.md", help="write the block between its markers anew")
    report.add_argument(
        "--study",
        type=Path,
        metavar="STUDY.md",
        help="write what a training study found as a document, with the figures of --png",
    )
    report.add_argument("--force", action="store_true", help="overwrite the page, the figures and the documents")
    return top


def _measure(arguments: argparse.Namespace) -> int:
    from . import session

    info = leakyrelu_ext.build_info()
    if not info["native"]:
        print(f"leakyrelu-bench: error: nothing to compare with the built-in: {info['obstacle']}", file=sys.stderr)
        return 1
    if arguments.json is not None and arguments.json == arguments.html:
        raise ResultsError(f"{arguments.json}: is both --json and --html")
    refuse_to_overwrite((arguments.json, arguments.html), arguments.force)
    settle(arguments)
    plan, notes = SUITES[arguments.command][0].plan(arguments)
    return session.run(arguments.command, plan, arguments, notes)


def _compare(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from .report import compare

    before, after = (load(path) for path in (arguments.before, arguments.after))
    if before.suite != after.suite:
        raise ResultsError(f"{arguments.after}: of the suite {after.suite!r}, {arguments.before} of {before.suite!r}")
    comparison = compare.compare(before, after)
    if not comparison.changes and not comparison.lost:
        raise ResultsError(f"{arguments.after}: no measurement in common with {arguments.before}")
    console = Console()
    if not console.is_terminal:
        console.width = 160
    compare.show(comparison, arguments.threshold, console)
    return 1 if comparison.regressions(arguments.threshold) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    top = parser()
    parsed = top.parse_args(arguments)
    try:
        if parsed.command == "train":
            from .study import command

            return command.main(parsed, sys.argv[1:] if arguments is None else arguments)
        if parsed.command == "report":
            if not (parsed.html or parsed.png or parsed.results or parsed.readme or parsed.study):
                files = "--html FILE, --png FOLDER, --results RESULTS.md, --readme README.md, --study STUDY.md or several"
                top.error(f"report has nothing to write: give {files}")
            from . import publish

            return publish.main(parsed)
        return _compare(parsed) if parsed.command == "compare" else _measure(parsed)
    except (ResultsError, NothingToDoError) as error:
        print(f"leakyrelu-bench {parsed.command}: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = "study" if parsed.command == "train" else "bench"
        print(f"leakyrelu-bench: error: {error}. Install the extra: pip install 'leakyrelu_ext[{extra}]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
