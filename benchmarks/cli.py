"""The `leakyrelu-bench` command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
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


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:N, got {text}")
    return device


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="leakyrelu-bench",
        description="leakyrelu_ext against PyTorch's own Leaky ReLU, side by side in one process.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    ops = commands.add_parser(
        "ops",
        help="time forward, backward and both over real activations, layouts and sizes 2^6 … 2^26",
        description=(
            "Times the built-in and ours in turn and prints medians. First it asserts, for every input, that both compute "
            "the same bits; if not, it ends with exit status 1. A second table holds our kernels against a plain copy."
        ),
    )
    ops.add_argument("--dtype", choices=DTYPES, action="append", help="repeatable; default: float32, bfloat16 and float16")
    ops.add_argument(
        "--device",
        type=_device,
        default="cpu",
        help=(
            "cpu, cuda or cuda:N; default: %(default)s. On CUDA: GPU time of single calls between events, the L2 cache "
            "flushed before each"
        ),
    )
    ops.add_argument("--threads", type=_within(int, 1, os.cpu_count() or 1), help="default: torch's own choice")
    ops.add_argument("--seconds", type=_within(float, 0.001, 3600.0), default=0.7, help="per row; default: %(default)s")
    ops.add_argument("--max-size", type=_within(int, 1, 2**40), help="leave out noise of more elements than this")
    ops.add_argument("--only", metavar="TEXT", default="", help="only inputs with this in their names, as in the table")
    compiled = commands.add_parser(
        "compile",
        help="time training steps of small nets, eager and under torch.compile",
        description=(
            "Times forward and backward of convolutional nets with and without normalisation or residuals, and of "
            "perceptrons with and without dropout: eager and compiled, with the built-in, with ours (which compiles to the "
            "built-in), "
            "eager after leakyrelu_ext.convert(net, fuse=True), and compiled with ours kept as one op "
            "(leakyrelu_ext.set_compile_target). Needs the C++ compiler that torch.compile needs."
        ),
    )
    compiled.add_argument("--threads", type=_within(int, 1, os.cpu_count() or 1), help="default: torch's own choice")
    compiled.add_argument("--seconds", type=_within(float, 0.001, 3600.0), default=4.0, help="per row; default: %(default)s")
    fused = commands.add_parser(
        "fused",
        help="time bias_leaky_relu against the same composed from PyTorch's ops, eager and under torch.compile",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Times bias + Leaky ReLU + gain, with residual, clamp or dropout, forward and forward+backward, on shapes of\n"
            "StyleGAN2, nnU-Net and perceptrons and on photographs' activations. All of a row take turns:\n"
            "  eager      the plain line: F.leaky_relu(x + bias.view(-1, 1, 1), 0.2) * gain\n"
            "  in place   the same, each op into the tensor before it wherever autograd allows that\n"
            "  reference  StyleGAN's composition, restated (its rows only)\n"
            "  compiled   torch.compile of the plain line (compiles two functions a case; needs a C++ compiler)\n"
            "  ours       leakyrelu_ext.bias_leaky_relu(x, bias, 0.2, gain=gain)\n"
            "First it asserts, for every row, that all give the same results: the same bits in float32 (compiled: up to\n"
            "four roundings), in bfloat16 up to four roundings, under dropout the same scale and share;\n"
            "gradients of bias up to the order of summation. If not, it ends with exit status 1."
        ),
        epilog="example: leakyrelu-bench fused --only StyleGAN2 --no-compile --seconds 1",
    )
    fused.add_argument("--threads", type=_within(int, 1, os.cpu_count() or 1), help="default: torch's own choice")
    fused.add_argument("--seconds", type=_within(float, 0.001, 3600.0), default=3.0, help="per row; default: %(default)s")
    fused.add_argument("--only", metavar="TEXT", default="", help="only cases with this in their names, as in the table")
    fused.add_argument("--no-compile", action="store_true", help="leave out torch.compile, and the wait for it")
    for command in (ops, compiled, fused):
        command.add_argument(
            "--seed",
            type=_within(int, 0, 2**63 - 1),
            default=0,
            help="of weights and noise; default: %(default)s",
        )
    return top


def _native() -> bool:
    info = leakyrelu_ext.build_info()
    if not info["native"]:
        print(f"leakyrelu-bench: error: nothing to compare with the built-in: {info['obstacle']}", file=sys.stderr)
    return bool(info["native"])


def _compile(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from . import compiled, environment, tables

    if not _native():
        return 1
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console()
    console.print(environment.describe(torch.device("cpu")), highlight=False, soft_wrap=True)
    console.print(tables.compiled_table(list(compiled.run(arguments.seed, arguments.seconds))))
    return 0


def _fused(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    from . import environment, fused, tables
    from .ops import MismatchError
    from .timing import settle_allocator, warm_outputs

    if not _native():
        return 1
    cases, warm_cases = (
        [case for case in group if arguments.only in case.name] for group in (fused.CASES, fused.WARM_CASES)
    )
    if not cases and not warm_cases:
        print(f"leakyrelu-bench: error: no case has {arguments.only!r} in its name", file=sys.stderr)
        return 1
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console()
    if not console.is_terminal:
        console.width = 220  # a file or a pipe has no width of its own; the table needs this much
    console.print(environment.describe(torch.device("cpu")), highlight=False, soft_wrap=True)
    console.print(environment.describe_faults(), highlight=False, soft_wrap=True)
    settle_allocator()
    rows: list[fused.Row] = []
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("fused", total=len(cases) + len(warm_cases))

        def shown(group: Iterable[fused.Case]) -> Iterator[fused.Case]:
            for case in group:
                progress.update(task, description=case.name)
                yield case
                progress.advance(task)

        def run(group: Iterable[fused.Case]) -> None:
            rows.extend(fused.run(shown(group), arguments.seed, arguments.seconds, not arguments.no_compile))

        try:
            run(cases)
            if warm_cases:
                with warm_outputs() as possible:
                    run(warm_cases if possible else [])
        except MismatchError as error:
            print(f"leakyrelu-bench: error: {error}", file=sys.stderr)
            return 1
    console.print(tables.fused_table(rows))
    console.print(tables.fused_summary(rows), highlight=False, soft_wrap=True)
    return 0


def _ops(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from . import environment, ops, roof, tables
    from .inputs import SIZES, Input, layout_inputs, noise_inputs, real_inputs
    from .timing import HOST, CudaStopwatch, settle_allocator, warm_outputs

    if not _native():
        return 1
    device: torch.device = arguments.device
    on_gpu = device.type == "cuda"
    if on_gpu and (device.index or 0) >= torch.cuda.device_count():
        print(f"leakyrelu-bench: error: there is no device {device} here", file=sys.stderr)
        return 1
    if on_gpu and not leakyrelu_ext.build_info()["cuda"]:
        print("leakyrelu-bench: error: leakyrelu_ext was built without CUDA kernels", file=sys.stderr)
        return 1
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtypes = tuple(DTYPES[name] for name in arguments.dtype or ("float32", "bfloat16", "float16"))
    seed, budget = arguments.seed, arguments.seconds
    largest = arguments.max_size or max(SIZES)

    def noise(sizes: Iterable[int]) -> list[Input]:
        cases = noise_inputs(seed, device, (n for n in sizes if n <= largest))
        return [case for case in cases if arguments.only in case.name]

    others = [*real_inputs(seed, device), *(layout_inputs(seed, device) if largest >= 2**20 else [])]
    fresh = [*(case for case in others if arguments.only in case.name), *noise(SIZES)]
    warm = [replace(case, name=f"{case.name}, warm") for case in noise([2**24])]
    roofs = noise([2**16, 2**20, 2**22, *([2**26] if on_gpu else [])])
    if not fresh:
        print(f"leakyrelu-bench: error: no input has {arguments.only!r} in its name", file=sys.stderr)
        return 1

    console, progress_console = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no width of its own; the table needs this much
    console.print(environment.describe(device), highlight=False, soft_wrap=True)
    if on_gpu:
        torch.cuda.set_device(device)
        warm = []  # torch's allocator for CUDA keeps what is freed: all outputs are warm
    else:
        console.print(environment.describe_faults(), highlight=False, soft_wrap=True)
        settle_allocator()
    stopwatch = CudaStopwatch(device) if on_gpu else HOST
    rows: list[ops.Row] = []
    shares: list[roof.Roof] = []
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress_console) as progress:
        task = progress.add_task("ops", total=(len(fresh) + len(warm) + len(roofs)) * len(dtypes))

        def shown(case: Input) -> Input:
            def make(dtype: torch.dtype) -> torch.Tensor:
                progress.update(task, advance=1, description=case.name)
                return case.make(dtype)

            return replace(case, make=make)

        try:
            rows += ops.run(map(shown, fresh), dtypes, budget, stopwatch)
            shares += roof.run(map(shown, roofs), dtypes, budget, stopwatch)
            if warm:
                with warm_outputs() as possible:
                    rows += ops.run(map(shown, warm if possible else []), dtypes, budget)
        except ops.MismatchError as error:
            print(f"leakyrelu-bench: error: {error}", file=sys.stderr)
            return 1
    console.print(tables.ops_table(rows))
    if shares:
        console.print(tables.roof_table(shares))
    console.print(tables.ops_summary(rows), highlight=False, soft_wrap=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parser().parse_args(arguments)
    try:
        return {"ops": _ops, "compile": _compile, "fused": _fused}[parsed.command](parsed)
    except ModuleNotFoundError as error:
        print(f"leakyrelu-bench: error: {error}. Install the extra: pip install 'leakyrelu_ext[bench]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
