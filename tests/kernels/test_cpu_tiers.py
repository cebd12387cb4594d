"""Forward, backward and in place on every instruction-set tier, with one thread and with two.

The tier is fixed when a process first runs a kernel, so each gets a process of its own.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu_only
TESTS = Path(__file__).parents[1]
CAPABILITY = {"avx512_bf16": "avx512", "avx512": "avx512", "avx2": "avx2", "generic": "default"}
KERNEL_TESTS = ["ops/test_forward.py", "ops/test_backward.py", "ops/test_inplace.py", "ops/test_ops.py"]
NORM_TESTS = ["norm_leaky_relu/test_norm_values.py"]
BIAS_TESTS = ["bias_leaky_relu/test_bias_leaky_relu.py", "bias_leaky_relu/test_bias_dropout.py"]


def environment(tier, threads=2):
    return os.environ | {
        "ATEN_CPU_CAPABILITY": CAPABILITY[tier],
        "LEAKYRELU_EXT_CPU_TIER": tier,
        "OMP_NUM_THREADS": str(threads),
        "LEAKYRELU_EXT_REQUIRE_NATIVE": "1",
    }


@functools.cache
def available(tier):
    code = "import torch, leakyrelu_ext; leakyrelu_ext.leaky_relu(torch.ones(3))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(tier), capture_output=True, text=True, check=False)
    return done.returncode == 0


def run(tier, threads, *arguments):
    if not available(tier):
        pytest.skip(f"this CPU has no {tier}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        env=environment(tier, threads),
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


@pytest.mark.native
def test_a_tier_is_available():
    assert any(map(available, CAPABILITY))


@pytest.mark.native
@pytest.mark.parametrize("tier", CAPABILITY)
def test_bit_patterns_and_tails(tier):
    run(tier, 2, "-k", "(pattern or odd_sizes or zeros) and not slow", *KERNEL_TESTS[:2], BIAS_TESTS[0])


@pytest.mark.slow
@pytest.mark.native
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tier", CAPABILITY)
def test_kernels(tier, threads):
    run(tier, threads, "-m", "not slow", "-k", "not opcheck", *KERNEL_TESTS)


@pytest.mark.slow
@pytest.mark.native
@pytest.mark.parametrize("tier", CAPABILITY)
def test_strided_and_fused(tier):
    """These set the number of threads themselves, to 1 and to 2."""
    run(tier, 2, "-m", "not slow", "ops/test_strided.py", *BIAS_TESTS, *NORM_TESTS)
