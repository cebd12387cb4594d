"""Builds leakyrelu_ext._C. The package's metadata is in pyproject.toml.

Environment variables: FORCE_CUDA=1 (fail rather than leave the CUDA kernels out), FORCE_CUDA=0 (leave them out),
TORCH_CUDA_ARCH_LIST, CUDA_HOME, MAX_JOBS.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

try:
    import torch
    from torch.utils import cpp_extension
except ImportError as error:
    sys.exit(
        f"leakyrelu_ext: cannot import torch here ({error}). It compiles against the torch that you will run: "
        "install torch first, then `pip install --no-build-isolation .`"
    )

if tuple(int(number) for number in torch.__version__.split(".")[:2]) < (2, 7):
    sys.exit(f"leakyrelu_ext: needs torch >= 2.7, and this is torch {torch.__version__}")

ROOT = Path(__file__).parent
CUDA_ARCHS = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


def say(message: str) -> None:
    print(f"leakyrelu_ext: {message}", file=sys.stderr, flush=True)


def output_of(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stdout + done.stderr


def cuda_home() -> str | None:
    """The toolkit's root. nvcc itself knows it even when the nvcc on PATH is a wrapper or a link from elsewhere."""
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return home
    nvcc = shutil.which("nvcc")
    if nvcc and (top := re.search(r"TOP=(.+)", output_of(nvcc, "--dryrun", "-c", "none.cu"))):
        return os.path.realpath(top[1].strip())
    return cpp_extension.CUDA_HOME


def decide_cuda() -> tuple[bool, str]:
    """Whether to build the CUDA kernels, and why."""
    wish = os.environ.get("FORCE_CUDA", "")
    if wish == "0":
        return False, "FORCE_CUDA=0"
    if torch.version.hip and wish:
        return True, f"FORCE_CUDA={wish}, through hipify for ROCm {torch.version.hip}: untested"
    home = cuda_home()
    if torch.version.cuda is None:
        obstacle = f"torch {torch.__version__} is not a CUDA build"
    elif home is None or not (Path(home) / "bin" / "nvcc").exists():
        obstacle = f"no nvcc in {home}" if home else "no nvcc on PATH and no CUDA_HOME"
    else:
        cpp_extension.CUDA_HOME = home
        return True, f"torch for CUDA {torch.version.cuda}, toolkit in {home}"
    if wish:
        sys.exit(f"leakyrelu_ext: FORCE_CUDA={wish}, but {obstacle}")
    return False, obstacle


def decide_archs() -> str:
    if archs := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return archs
    known = output_of(f"{cpp_extension.CUDA_HOME}/bin/nvcc", "--list-gpu-arch")
    archs = [arch for arch in CUDA_ARCHS if f"compute_{arch.replace('.', '')}" in known.split()]
    return ";".join(archs) + "+PTX"


def decide_jobs(with_cuda: bool) -> int:
    """Compilers that fit: one per core, and 3 GiB of free memory each where nvcc runs, else 1.5 GiB."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    meminfo = Path("/proc/meminfo")
    free = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text()) if meminfo.exists() else None
    fitting = int(int(free[1]) / 2**20 / (3 if with_cuda else 1.5)) if free else cores
    return max(1, min(cores, fitting))


def extension() -> cpp_extension.CppExtension:
    with_cuda, reason = decide_cuda()
    say(f"CUDA kernels: {'yes' if with_cuda else 'no'} ({reason})")
    sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cpp"))
    flags = {"cxx": ["-O3", "-g0", "-Wall"]}
    defines: list[tuple[str, str | None]] = []
    if "OpenMP" in torch.__config__.parallel_info().split("ATen parallel backend:")[-1] and sys.platform == "linux":
        # At compile time only: the OpenMP runtime is the one torch has loaded. Linking another would start a second pool.
        flags["cxx"].append("-fopenmp")
    kind = cpp_extension.CppExtension
    if "MAX_JOBS" not in os.environ:
        os.environ["MAX_JOBS"] = str(decide_jobs(with_cuda))
    say(f"parallel jobs: {os.environ['MAX_JOBS']}")
    if with_cuda:
        archs = f"ROCm {torch.version.hip}" if torch.version.hip else decide_archs()
        say(f"CUDA architectures: {archs}")
        sources += sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc/cuda").glob("*.cu"))
        flags["nvcc"] = ["-O3"]
        if not torch.version.hip:
            os.environ["TORCH_CUDA_ARCH_LIST"] = archs
            flags["nvcc"].append(f"--threads={os.environ['MAX_JOBS']}")  # one source, as many architectures
        defines += [
            ("LEAKYRELU_EXT_WITH_CUDA", f'"{torch.version.cuda or torch.version.hip}"'),
            ("LEAKYRELU_EXT_CUDA_ARCHS", f'"{archs}"'),
        ]
        kind = cpp_extension.CUDAExtension
    compiler = cpp_extension.get_cxx_compiler()
    say(f"compiler: {output_of(compiler, '--version').splitlines()[0]}, {platform.machine()}, torch {torch.__version__}")
    return kind("leakyrelu_ext._C", sources, extra_compile_args=flags, define_macros=defines)


class BuildExtension(cpp_extension.BuildExtension):
    """Also notes, beside the library, the torch it was compiled against: torch's C++ ABI changes between releases."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # setuptools' own test for staleness knows neither the headers nor the torch

    def run(self) -> None:
        super().run()
        folder = Path(self.get_ext_fullpath(self.extensions[0].name)).parent
        version = torch.version
        facts = {"TORCH": torch.__version__, "CUDA": version.cuda, "HIP": version.hip, "XPU": version.xpu}
        lines = [f"{name} = {str(value)!r}" if value else f"{name} = None" for name, value in facts.items()]
        (folder / "_built_with.py").write_text("\n".join(['"""Written by setup.py."""', "", *lines, ""]))


# Objects of each torch in a folder of their own: nothing is compiled anew after another torch's turn.
BUILD = f"build/torch-{torch.__version__}"
for copied in (ROOT / BUILD).glob("lib.*"):
    shutil.rmtree(copied)  # setuptools would pack what an earlier build has copied there, also modules that are gone by now

setup(ext_modules=[extension()], cmdclass={"build_ext": BuildExtension}, options={"build": {"build_base": BUILD}})
