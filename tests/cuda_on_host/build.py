"""Compiles csrc/cuda for the host: ``build.py OUTPUT [--csrc FOLDER]``. No CUDA toolkit, no GPU."""

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


def build(output: Path, csrc: Path = ROOT / "csrc") -> None:
    """Links emulator.cpp and ops.cpp (with ``csrc``'s CUDA sources in it) into the library ``output``."""
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "g++")
    common = [
        compiler, "-std=c++20", "-fPIC", "-g1", "-Wall", "-Wno-unknown-pragmas",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
    ]  # fmt: skip
    emulator, ops = output.with_suffix(".emulator.o"), output.with_suffix(".ops.o")
    includes = [f"-I{HERE / 'shim'}", f"-I{csrc.parent}"]
    includes += [f"-isystem{path}" for path in cpp_extension.include_paths()]
    shim = ["-include", str(HERE / "shim" / "cuda_runtime.h")]
    folder = Path(torch.__file__).parent / "lib"
    run = [
        [*common, "-O2", "-c", str(HERE / "emulator.cpp"), "-o", str(emulator)],
        [*common, *INSTRUMENT, *includes, *shim, "-c", str(HERE / "ops.cpp"), "-o", str(ops)],
        [compiler, "-shared", str(ops), str(emulator), f"-L{folder}", f"-Wl,-rpath,{folder}", "-lc10", "-ltorch_cpu",
         "-o", str(output)],
    ]  # fmt: skip
    for command in run:
        subprocess.run(command, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--csrc", type=Path, default=ROOT / "csrc")
    arguments = parser.parse_args()
    try:
        build(arguments.output, arguments.csrc)
    except subprocess.CalledProcessError as error:
        sys.exit(f"build.py: {Path(error.cmd[0]).name} failed")
