"""Compiles csrc/cuda for the host: ``build.py LIBRARY``. No CUDA toolkit, no GPU."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


TORCH_INCLUDES = [f"-isystem{path}" for path in cpp_extension.include_paths()]
OPS = ("leaky_relu", "bias_leaky_relu", "norm_leaky_relu")


def build_emulator(folder: Path) -> list[Path]:
    """What does not depend on the CUDA sources."""
    objects = [folder / f"{name}.o" for name in ("emulator", "ops")]
    for compiled in objects:
        source = (HERE / compiled.name).with_suffix(".cpp")
        subprocess.run([*COMPILE, "-O2", *TORCH_INCLUDES, "-c", str(source), "-o", str(compiled)], check=True)
    return objects


def build(library: Path, emulator: list[Path], csrc: Path = ROOT / "csrc", ops: tuple[str, ...] = OPS) -> None:
    """Links the compiled ``emulator`` and ``ops``, with ``csrc``'s CUDA sources in them."""
    includes = [f"-I{HERE / 'shim'}", f"-I{csrc.parent}", f"-I{HERE}", *TORCH_INCLUDES]
    before = ["-include", str(HERE / "shim" / "cuda_runtime.h")]

    def compiled(name: str) -> Path:
        to = library.with_name(f"host_{name}.o")
        subprocess.run(
            [*COMPILE, *INSTRUMENT, *includes, *before, "-c", str(HERE / f"{name}.cpp"), "-o", str(to)], check=True
        )
        return to

    with ThreadPoolExecutor(len(ops)) as pool:
        objects = [*pool.map(compiled, ops), *emulator]
    torch_libraries = Path(torch.__file__).parent / "lib"
    linked = [*map(str, objects), f"-L{torch_libraries}", f"-Wl,-rpath,{torch_libraries}", "-lc10", "-ltorch_cpu"]
    subprocess.run([COMPILER, "-shared", *linked, "-o", str(library)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    to = parser.parse_args().library
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        build(to, build_emulator(to.parent))
    except subprocess.CalledProcessError as error:
        sys.exit(f"build.py: {Path(error.cmd[0]).name} failed")
