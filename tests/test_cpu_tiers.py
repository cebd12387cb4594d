"""Forward, backward and in place on every instruction-set tier, with one thread and with two.

The tier is fixed when a process first runs a kernel, so each gets a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
AVAILABLE = {"AVX512": ["avx512", "avx2", "default"], "AVX2": ["avx2", "default"]}.get(
    torch.backends.cpu.get_cpu_capability(), ["default"]
)


KERNEL_TESTS = ["test_forward.py", "test_backward.py", "test_inplace.py", "test_ops.py"]


def run(capability, threads, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        env=os.environ
        | {
            "ATEN_CPU_CAPABILITY": capability,
            "OMP_NUM_THREADS": str(threads),
            "LEAKYRELU_EXT_REQUIRE_NATIVE": "1",
        },
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


@pytest.mark.native
@pytest.mark.parametrize("capability", AVAILABLE)
def test_bit_patterns_and_tails(capability):
    run(capability, 2, "-k", "(pattern or odd) and not slow", "test_forward.py", "test_backward.py")


@pytest.mark.slow
@pytest.mark.native
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("capability", AVAILABLE)
def test_kernels(capability, threads):
    run(capability, threads, "-m", "not slow", *KERNEL_TESTS)
