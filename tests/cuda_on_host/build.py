"""Compiles csrc/cuda for the host: ``build.py LIBRARY``. No CUDA toolkit, no GPU."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils import cpp_extension

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# Calls before each access (emulator.cpp defines them), and nothing else of a sanitizer. Not optimised: accesses as written.
INSTRUMENT = (
    "-O0", "-fsanitize=kernel-address", "--param=asan-instrumentation-with-call-threshold=0",
    "--param=asan-stack=0", "--param=asan-globals=0", "-fno-sanitize-address-use-after-scope",
)  # fmt: skip
COMPILER = os.environ.get("CXX", "g++")
COMPILE = (COMPILER, "-std=c++20", "-fPIC", "-Wall", "-Wno-unknown-pragmas")


def build_emulator(output: Path) -> Path:
    subprocess.run([*COMPILE, "-O2", "-c", str(HERE / "emulator.cpp"), "-o", str(output)], check=True)
    return output


def build(library: Path, emulator: Path, csrc: Path = ROOT / "csrc") -> None:
    """Links the compiled ``emulator`` and ops.cpp, with ``csrc``'s CUDA sources in it."""
    ops = library.with_suffix(".o")
    includes = [f"-I{HERE / 'shim'}", f"-I{csrc.parent}", *(f"-isystem{path}" for path in cpp_extension.include_paths())]
    before = ["-include", str(HERE / "shim" / "cuda_runtime.h")]
    torch_libraries = Path(torch.__file__).parent / "lib"
    subprocess.run([*COMPILE, *INSTRUMENT, *includes, *before, "-c", str(HERE / "ops.cpp"), "-o", str(ops)], check=True)
    linked = [str(ops), str(emulator), f"-L{torch_libraries}", f"-Wl,-rpath,{torch_libraries}", "-lc10", "-ltorch_cpu"]
    subprocess.run([COMPILER, "-shared", *linked, "-o", str(library)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    to = parser.parse_args().library
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        build(to, build_emulator(to.parent / "emulator.o"))
    except subprocess.CalledProcessError as error:
        sys.exit(f"build.py: {Path(error.cmd[0]).name} failed")
