"""`python -m leakyrelu_ext`: what is installed and which kernels will run; `... run`: a program with our kernels."""

from __future__ import annotations

import argparse
import sys

import torch

from ._library import build_info
from ._run import run
from .installation import install


def _print_info() -> None:
    info = build_info()
    for key, value in info.items():
        print(f"{key:17} {value}")
    threads = torch.get_num_threads() if info.get("openmp") else 1
    cpu = f"native, {info['cpu_tier']}, {threads} thread(s)" if info["native"] else "built-in"
    cuda = "native" if info.get("cuda") else "built-in"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU here"
    print(f"{'kernels on CPU':17} {cpu}")
    print(f"{'kernels on CUDA':17} {cuda} ({gpu})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m leakyrelu_ext",
        description="Without a command: what is installed, and which kernels will run.",
    )
    commands = parser.add_subparsers(dest="command")
    program = commands.add_parser(
        "run",
        help="a program, unedited, with our kernels under PyTorch's own leaky_relu",
        description="Runs a program as it is, with leakyrelu_ext.install() in effect in each of its processes: those that\n"
        "it forks, spawns or starts with the environment it got (DataLoader workers, torchrun's ranks).",
        epilog="examples:\n"
        "  python -m leakyrelu_ext run train.py --epochs 3\n"
        "  python -m leakyrelu_ext run -m package.train --epochs 3\n"
        "  python -m leakyrelu_ext run torchrun --nproc-per-node 2 train.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    program.add_argument("--stats", action="store_true", help="each process says at its end what ran on our kernels in it")
    program.add_argument("-m", action="store_true", dest="is_module", help="the program is a module, as of python -m")
    program.add_argument("program", help="a Python file, or a program on PATH")
    program.add_argument("arguments", nargs="*", help="of the program")
    return parser


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our own words, to the program's name, and the program's, which argparse would not leave as they are."""
    names = [number for number, word in enumerate(words) if not word.startswith("-")]
    end = names[1] + 1 if len(names) > 1 else len(words)  # the first is "run"
    return words[:end], words[end:]


def main() -> None:
    parser = _parser()
    own, program = _split(sys.argv[1:])
    arguments = parser.parse_args(own)
    if arguments.command is None:
        _print_info()
        return
    try:
        install()  # what can be refused is refused here, in one sentence, before the program begins
        run(arguments.program, program, is_module=arguments.is_module, stats=arguments.stats)
    except (OSError, RuntimeError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
