# ruff: noqa: E501  # a fault is a line
"""The harness itself: each of these faults, put into the CUDA sources, must turn its tests red."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from build import ROOT, build, build_emulator

HERE = Path(__file__).parent

# Name: file of csrc, what stands there, what comes instead, what the failure says.
FAULTS = {
    "one element too many": ("kernels.cuh", "if (whole || element(b, c) < count) {\n          chunks", "if (whole || element(b, c) <= count) {\n          chunks", "out of bounds"),
    "bits in another order": ("kernels.cuh", "1u << (c * chunk + j)", "1u << (c * chunk + chunk - 1 - j)", "AssertionError"),
    "shuffles in a part of the warp only": ("kernels.cuh", "  const int lane = threadIdx.x % kRow;", "  const int lane = threadIdx.x % kRow;\n  if (static_cast<int>(threadIdx.x) >= count) {\n    return;\n  }", "same shuffle"),
    "16 bytes at any address": ("launch.cuh", "% kAccessBytes == 0", "% kAccessBytes < 16", "misaligned"),
    "block numbers of 32 bits": ("kernels.cuh", "static_cast<int64_t>(blockIdx.x) * kTile<T>", "static_cast<int>(blockIdx.x * kTile<T>)", "out of bounds"),
    "a guard for another device": ("leaky_relu.cu", "CUDAGuard guard(input.device())", "CUDAGuard guard(c10::Device(at::kCUDA, 0))", "without a guard"),
    "errors unheeded": ("leaky_relu.cu", "C10_CUDA_CHECK(run(memory, slope_as<T>(negative_slope), c10::cuda::getCurrentCUDAStream()))", "(void)run(memory, slope_as<T>(negative_slope), c10::cuda::getCurrentCUDAStream())", "DID NOT RAISE|bytes of"),
    "no channel after the last": ("bias_leaky_relu.cuh", "channel = channel + 1 == order.count ? 0 : channel + 1", "channel = channel + 1", "out of bounds"),
    "clamped and dropped elements pass": ("kernels.cuh", "planes > 1 && activated.passed ? bit : 0", "planes > 1 ? bit : 0", "AssertionError"),
    "no barrier between the sums of a block": ("grad_bias.cuh", "    __syncthreads();\n  }\n  if (active", "  }\n  if (active", "without a barrier"),
    "the last split left out": ("grad_bias.cuh", "result.splits = ceil_div(result.items, result.split)", "result.splits = std::max<int64_t>(1, result.items / result.split)", "bytes of"),
    "sums of a neighbour's channel": ("grad_bias.cuh", "thread + distance * traversal.lanes]", "thread + distance * traversal.lanes - 1]", "AssertionError|without a barrier|not written"),
    "no barrier after a block's total": ("norm_block.cuh", "  const double total = shared[0];\n  __syncthreads();", "  const double total = shared[0];", "without a barrier"),
    "a row's end overlooked": ("norm_walk.cuh", "        element_ += walk_.wrap;\n", "", "AssertionError|bytes of|out of bounds|written twice"),
    "the last split too long": ("norm_walk.cuh", "return begin < items ? begin : items;", "return begin;", "out of bounds|bytes of"),
    "a norm's bits in another place": ("norm_forward.cuh", "bits = valid ? bits << items.bit() : 0;", "bits = valid ? bits : 0;", "AssertionError"),
    "inexact sums kept": ("norm_forward.cuh", "is_finite(moments.mean) ? moments.mean : 0;\n      all_exact = all_exact && exact;", "is_finite(moments.mean) ? moments.mean : 0;", "AssertionError|not written"),
    "statistics read before they are shared": ("norm_held.cuh", "    shared[2] = affine.shift[0];\n  }\n  __syncthreads();", "    shared[2] = affine.shift[0];\n  }", "without a barrier"),
    "gradients of a neighbour's group": ("norm_backward.cuh", "const int64_t entry = group * walk.channels_of_group + k;", "const int64_t entry = group + k * walk.channels_of_group;", "AssertionError|written twice|bytes of"),
    "statistics written by every block": ("norm_forward.cuh", "if (place.split == 0) {", "if (place.split >= 0) {", "written twice"),
    "the first group's sums for all": ("norm_folded.cuh", "static_cast<int>(first - begin + i) / of_group", "0 * i", "AssertionError"),
}  # fmt: skip
# One of each kind: bounds, bits, alignment, the host's side, barriers, sums. The others are for `make cuda-check` by hand.
ALWAYS = {
    "one element too many",
    "bits in another order",
    "16 bytes at any address",
    "errors unheeded",
    "no barrier between the sums of a block",
    "sums of a neighbour's channel",
    "a row's end overlooked",
    "inexact sums kept",
}


def faulty(folder: Path, file: str, text: str, instead: str) -> Path:
    """A copy of csrc with the fault in it."""
    csrc = folder / "csrc"
    shutil.copytree(ROOT / "csrc", csrc)
    source = csrc / "cuda" / file
    before = source.read_text()
    assert before.count(text) == 1, f"{file} has {before.count(text)} times {text!r}"
    source.write_text(before.replace(text, instead))
    return csrc


def outcome(folder: Path, emulator: list[Path], file: str, text: str, instead: str) -> subprocess.CompletedProcess[str]:
    library = folder / "libfaulty.so"
    if file.startswith("norm_"):
        op, tests = "norm_leaky_relu", ["test_norm_kernels.py"]
    elif file in ("bias_leaky_relu.cuh", "grad_bias.cuh") or "passed" in text:
        op, tests = "bias_leaky_relu", ["test_bias_kernels.py"]
    else:
        op, tests = "leaky_relu", ["test_kernels.py", "test_traffic.py"]
    build(library, emulator, faulty(folder, file, text, instead), (op,))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--cuda-on-host={library}"]
    return subprocess.run([*command, *(str(HERE / test) for test in tests)], capture_output=True, text=True, cwd=HERE.parent)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[subprocess.CompletedProcess[str]]]:
    """Of all faults that are asked for, at work on as many cores as there are."""
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    emulator = build_emulator(tmp_path_factory.mktemp("emulator"))

    def start(file: str, text: str, instead: str, _: str) -> Future[subprocess.CompletedProcess[str]]:
        return pool.submit(outcome, tmp_path_factory.mktemp("fault"), emulator, file, text, instead)

    asked = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")} & FAULTS.keys()
    return {name: start(*FAULTS[name]) for name in FAULTS if name in asked}


@pytest.mark.parametrize("name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS])
def test_a_fault_turns_the_tests_red(name: str, outcomes: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    done = outcomes[name].result()
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert re.search(FAULTS[name][3], done.stdout), done.stdout
