"""`python -m leakyrelu_ext`: what is installed and which kernels will run; `... run`: a program with our kernels."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import torch

from ._library import build_info
from ._run import run
from .installation import install

# Variables that decide which kernels run, and how.
_VARIABLES = re.compile(r"LEAKYRELU_EXT_|ATEN_CPU_CAPABILITY$|THP_MEM_|OMP_|CUDA_VISIBLE_DEVICES$|LD_PRELOAD$|PYTORCH_")


def _found(path: str, pattern: str) -> str:
    """What ``pattern`` finds in a file of Linux, or "unknown"."""
    file = Path(path)
    found = re.search(pattern, file.read_text()) if file.exists() else None
    return found[1] if found else "unknown"


def _print_info() -> None:
    """In a form that can be pasted into an issue."""
    info = build_info()
    threads = torch.get_num_threads() if info.get("openmp") else 1
    gpus = range(torch.cuda.device_count())
    facts = {
        **info,
        "cpu": _found("/proc/cpuinfo", r"model name\s*:\s*(.+)"),
        "gpu": ", ".join(torch.cuda.get_device_name(gpu) for gpu in gpus) or "none",
        "huge pages": _found("/sys/kernel/mm/transparent_hugepage/enabled", r"\[(\w+)\]"),
        "environment": " ".join(f"{name}={value}" for name, value in sorted(os.environ.items()) if _VARIABLES.match(name))
        or "nothing that matters here",
        "kernels on CPU": f"native, {info['cpu_tier']}, {threads} thread(s)" if info["native"] else "built-in",
        "kernels on CUDA": "native" if info.get("cuda") else "built-in",
    }
    print("```")
    for name, value in facts.items():
        print(f"{name:17} {value}")
    print("```")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m leakyrelu_ext",
        description="Without a command: what is installed, and which kernels will run, as text for an issue.",
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
