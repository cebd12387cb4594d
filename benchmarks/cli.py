"""The `leakyrelu-bench` command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import torch

import leakyrelu_ext

from .measure.budget import parse_bytes
from .results import ResultsError, load, refuse_to_overwrite
from .study import options
from .suites.choice import NothingToDoError
from .suites.inputs import DTYPES

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


def _measuring(command: argparse.ArgumentParser, devices: bool, cases: bool = True) -> None:
    """The options that all suites share; ``cases``: has some that are chosen by their names."""
    command.add_argument(
        "--device",
        type=_device if devices else _cpu,
        default=torch.device("cpu"),
        help="cpu, cuda or cuda:N; default: cpu" if devices else "cpu: this suite has no other",
    )
    command.add_argument(
        "--threads",
        type=_within(int, 1, os.cpu_count() or 1),
        help="default: torch's own choice" if cases else "of each run, whose rounding depends on it; default: 1",
    )
    how = command.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="fewer cases, less time on each")
    how.add_argument("--full", action="store_true", help="more passes, more time on each: for figures to publish")
    if cases:
        command.add_argument(
            "--only", metavar="TEXT", default="", help="only cases with this in their names, as in the table"
        )
        command.add_argument("--wide", action="store_true", help="all columns in the terminal, as in a pipe or a file")
    command.add_argument("--seed", type=_within(int, 0, 2**63 - 1), default=0, help="of weights and noise; default: 0")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the results there, for compare and report")
    command.add_argument("--html", type=Path, metavar="FILE", help="write them as a page that needs no network")
    command.add_argument("--force", action="store_true", help="overwrite these files")


def _timing(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--seconds", type=_within(float, 0.001, 3600.0), help="per case and mode, in all passes; default: by --quick, --full"
    )


def _without_compile(command: argparse.ArgumentParser) -> None:
    command.add_argument("--no-compile", action="store_true", help="leave out torch.compile, and the wait for it")


def _amount(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _cpu(text: str) -> torch.device:
    if text != "cpu":
        raise argparse.ArgumentTypeError(f"this suite runs on cpu only, got {text}")
    return torch.device("cpu")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="leakyrelu-bench",
        description="leakyrelu_ext against PyTorch's own Leaky ReLU and its other rivals, side by side in one run.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=help, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    ops = add(
        "ops",
        "forward, in place, backward and both, over real activations, layouts, dtypes and sizes 2^6 … 2^26",
        "Times the built-in (eager, in place, compiled), ours, and where installed JAX, ONNX Runtime and NumPy in turn.\n"
        "First it asserts, for every input, that the built-in and ours compute the same bits; if not, it ends with exit\n"
        "status 1. In the same rounds it times a copy and a triad: the roof that memory sets.\n\n"
        "modes\n"
        "  forward           the function, without grad\n"
        "  in place          the same, overwriting its input\n"
        "  backward op       the op alone, as autograd calls it\n"
        "  backward          the module's backward through autograd, with a gradient that the caller keeps\n"
        "  forward+backward  both, of the module\n"
        "  owned backward    what the activation adds to the backward of a chain of ops, whose gradients nobody else holds\n"
        "  chain             what it adds to forward and backward of such a chain, where it may overwrite its input\n\n"
        "warm: outputs get memory that the process has used before; otherwise large ones cost page faults.\n"
        "On CUDA: GPU time of single calls between events, the L2 cache flushed before each.",
    )
    _measuring(ops, devices=True)
    _timing(ops)
    _without_compile(ops)
    ops.add_argument(
        "--dtype",
        choices=DTYPES,
        action="append",
        help="repeatable; default: float32, bfloat16 and, not with --quick, float16",
    )
    ops.add_argument("--max-size", type=_within(int, 1, 2**40), help="leave out noise of more elements than this")
    ops.add_argument("--no-peers", action="store_true", help="leave out JAX, ONNX Runtime and NumPy")

    fused = add(
        "fused",
        "bias_leaky_relu against the same composed from PyTorch's ops, eager and under torch.compile",
        "Times bias + Leaky ReLU + gain, with residual, clamp or dropout, forward and forward+backward, on shapes of\n"
        "StyleGAN2, nnU-Net and perceptrons and on photographs' activations. All of a row take turns:\n"
        "  eager      the plain line: F.leaky_relu(x + bias.view(-1, 1, 1), 0.2) * gain\n"
        "  in place   the same, each op into the tensor before it wherever autograd allows that\n"
        "  reference  StyleGAN's composition, restated (its rows only)\n"
        "  compiled   torch.compile of the plain line (compiles two functions a case; needs a C++ compiler)\n"
        "  ours       leakyrelu_ext.bias_leaky_relu(x, bias, 0.2, gain=gain)\n"
        "First it asserts, for every row, that all give the same results: the same bits in float32 (compiled: up to\n"
        "four roundings), in bfloat16 up to four roundings, under dropout the same scale and share;\n"
        "gradients of bias up to the order of summation. If ours do not, it ends with exit status 1.\n"
        "On CUDA: GPU time of single calls between events, the L2 cache flushed before each.",
    )
    _measuring(fused, devices=True)
    _timing(fused)
    _without_compile(fused)

    compiled = add(
        "compile",
        "training steps of small nets, eager and under torch.compile",
        "Times forward and backward of convolutional nets with and without normalisation or residuals, and of perceptrons\n"
        "with and without dropout: eager and compiled, with the built-in, with ours (which compiles to the built-in),\n"
        "and compiled with ours kept as one op (leakyrelu_ext.set_compile_target). Needs the C++ compiler that\n"
        "torch.compile needs.",
    )
    _measuring(compiled, devices=False)
    _timing(compiled)

    models = add(
        "models",
        "whole training and inference steps of published architectures",
        "Times forward, loss and backward, and inference, of nnU-Net (2-D, 3-D), DCGAN's discriminator, Darknet-53,\n"
        "ESRGAN, HiFi-GAN V1 and GAT as their authors wrote them: built-in, leakyrelu_ext.convert(model),\n"
        "leakyrelu_ext.install(), and compiled. Outputs and gradients are compared first: ours must give the\n"
        "built-in's bits, compiled the same but for rounding. With them: the activations' share of the time\n"
        "(profiler), bytes kept for the backward, and without --quick the peak of a step in a fresh process.",
    )
    _measuring(models, devices=True)
    _timing(models)
    _without_compile(models)

    memory = add(
        "memory",
        "bytes kept for the backward, the peak of a training step, the largest batch in a budget",
        "Counts what an activation keeps for its backward, alone and between convolutions. Then, for the architectures of\n"
        "the command models, each variant in a fresh process: the peak of a training step (resident set; on CUDA the\n"
        "allocator's), and the largest batch that fits into --budget, confirmed by a run that fits and one that does not.",
    )
    _measuring(memory, devices=True)
    _without_compile(memory)
    memory.add_argument("--no-models", action="store_true", help="only what single activations keep for the backward")
    memory.add_argument(
        "--budget",
        type=_amount,
        metavar="SIZE",
        help="for the largest batch, such as 2GiB: parameters, gradients, inputs and what the step needs, not Python and "
        "the libraries; default: 1 GiB, --quick 128 MiB, --full 2 GiB",
    )

    train = add("train", "is it true, what is said of Leaky ReLU? Trainings on real data that decide", options.DESCRIPTION)
    _measuring(train, devices=True, cases=False)
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
    from .suites import plans

    info = leakyrelu_ext.build_info()
    if not info["native"]:
        print(f"leakyrelu-bench: error: nothing to compare with the built-in: {info['obstacle']}", file=sys.stderr)
        return 1
    if arguments.json is not None and arguments.json == arguments.html:
        raise ResultsError(f"{arguments.json}: is both --json and --html")
    refuse_to_overwrite((arguments.json, arguments.html), arguments.force)
    plans.settle(arguments)
    plan, notes = plans.PLANS[arguments.command](arguments)
    return session.run(arguments.command, plan, arguments, notes)


def _train(arguments: argparse.Namespace, raw: Sequence[str]) -> int:
    from .study import command

    return command.main(arguments, raw)


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


def _report(arguments: argparse.Namespace) -> int:
    from . import publish

    return publish.main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    top = parser()
    parsed = top.parse_args(arguments)
    if parsed.command == "report" and not (parsed.html or parsed.png or parsed.results or parsed.readme or parsed.study):
        top.error(
            "report has nothing to write: give --html FILE, --png FOLDER, --results RESULTS.md, --readme README.md, "
            "--study STUDY.md or several"
        )
    run = {"compare": _compare, "report": _report}.get(parsed.command, _measure)
    try:
        if parsed.command == "train":
            return _train(parsed, sys.argv[1:] if arguments is None else arguments)
        return run(parsed)
    except (ResultsError, NothingToDoError) as error:
        print(f"leakyrelu-bench {parsed.command}: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = "study" if parsed.command == "train" else "bench"
        print(f"leakyrelu-bench: error: {error}. Install the extra: pip install 'leakyrelu_ext[{extra}]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
