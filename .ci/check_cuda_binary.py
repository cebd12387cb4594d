"""Checks that the installed library holds machine code for every CUDA architecture asked for, and PTX for the newest."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import leakyrelu_ext
from leakyrelu_ext import _C


def find_cuobjdump() -> str:
    """From the toolkit, or the copy that Triton's wheel ships."""
    if found := shutil.which("cuobjdump"):
        return found
    if triton := importlib.util.find_spec("triton"):
        for folder in triton.submodule_search_locations or ():
            if (shipped := Path(folder) / "backends/nvidia/bin/cuobjdump").exists():
                return str(shipped)
    sys.exit("no cuobjdump: neither on PATH nor in a triton wheel")


def listed(cuobjdump: str, option: str) -> set[str]:
    output = subprocess.run([cuobjdump, option, _C.__file__], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"\.sm_(\w+)\.(?:cubin|ptx)", output))


def main() -> None:
    wanted = str(leakyrelu_ext.build_info()["cuda_archs"]).replace(".", "").removesuffix("+PTX").split(";")
    cuobjdump = find_cuobjdump()
    machine_code, ptx = listed(cuobjdump, "--list-elf"), listed(cuobjdump, "--list-ptx")
    for arch in wanted:
        print(f"sm_{arch:4} machine code: {'yes' if arch in machine_code else 'MISSING'}")
    print(f"PTX: {', '.join(f'compute_{arch}' for arch in sorted(ptx)) or 'MISSING'}")
    if not machine_code.issuperset(wanted) or wanted[-1] not in ptx:
        sys.exit(f"{_C.__file__} lacks code for an architecture in {wanted}, or PTX for {wanted[-1]}")


if __name__ == "__main__":
    main()
