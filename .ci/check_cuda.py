"""The CUDA kernels as compiled, and what they move as executed on the host: one table, and exit status 1 on any violation.

Per kernel and architecture: 128-bit global loads and stores, nothing in local memory (no spills, no stack), registers, and
with them the share of a multiprocessor's threads that can be resident. Per kernel: bytes per element that its source loads
and stores, counted by tests/cuda_on_host, against the least possible. For the newest architecture: PTX. Of norm_leaky_relu,
whose calls are several launches (tests/cuda_on_host/test_norm_kernels.py counts their bytes): instructions per element.

Usage: check_cuda.py LIBRARY, which tests/cuda_on_host/build.py has made.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

import leakyrelu_ext
from leakyrelu_ext import _C

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cuda_on_host"))
from emulated import ops, report, tile

# Resident threads of a multiprocessor (CUDA C++ Programming Guide, "Compute Capabilities"); each has 65,536 registers, given
# to warps in units of 256.
THREADS = {"75": 1024, "80": 2048, "86": 1536, "89": 1536, "90": 2048, "100": 2048, "120": 1536}
REGISTERS, REGISTER_UNIT, BLOCK, NORM_BLOCK = 65536, 8, 128, 256
# The least share of those threads that must be resident. Strided kernels hold addresses too; two 16-byte loads a thread keep
# 48 KiB in flight on the largest (32 KiB with 64-bit addresses, of tensors from 2^31 elements on). The forward of
# bias_leaky_relu has one load per thread, two with a residual: 24 or 48 KiB. The sums of the bias' gradient take registers:
# two loads per thread, 32 KiB.
OCCUPANCY = {
    "dense": 1.0,
    "strided, 32 bits": 0.75,
    "strided, 64 bits": 0.5,
    "bias_leaky_relu, forward": 0.75,
    "bias_leaky_relu, backward": 1.0,
    "bias_leaky_relu, backward, bias": 0.5,
    "bias_leaky_relu, sum of partials": 0.5,
}
# norm_leaky_relu's: as their launch bounds say. In columns a thread has statistics of several channels in registers. 512
# threads with two loads from each of two tensors have 32 KiB in flight, 768 with two from one 24 KiB.
NORM_OCCUPANCY = {
    "moments": 0.37,
    "forward": 0.37,
    "held forward": 0.37,
    "held backward": 0.37,
    "sums": 0.25,
    "backward": 0.25,
}
# A GPU whose memory feeds 30 instructions per 16-bit element in and out (H200) stays at the roof below 60 % of them, so for
# each tensor that a pass reads or writes. For newer ones nvcc writes loops several times, by what is wanted; for 7.5 it
# rounds to bfloat16 in software.
BUDGETED = "90"
INSTRUCTIONS_PER_TENSOR = {"float16": 9, "bfloat16": 9, "float32": 18, "float64": 36}

DTYPES = {"float": "float32", "double": "float64", "c10::Half": "float16", "c10::BFloat16": "bfloat16"}
ORDERS = {"Dense": "dense", "Strided<unsigned int>": "strided, 32 bits", "Strided<unsigned long>": "strided, 64 bits"}
KERNEL = re.compile(
    r"leaky_relu_kernel<(?P<dtype>[\w:]+), \(leakyrelu_ext::cuda::Pass\)(?P<is_backward>[01]), "
    r"leakyrelu_ext::cuda::(?P<parts>Plain|BiasLeakyReLUParts)<[\w:]+ ?>, "
    r"leakyrelu_ext::cuda::(?P<input>[\w ]+(?:<[\w ]+>)?), leakyrelu_ext::cuda::(?P<output>[\w ]+(?:<[\w ]+>)?) ?>"
)
BIAS_KERNEL = re.compile(r"grad_bias_kernel<(?P<dtype>[\w:]+)>")
PARTIALS_KERNEL = re.compile(r"sum_partials_kernel<(?P<opmath>float|double), (?P<dtype>[\w:]+)>")
TRUE = ("true", "(bool)1")
FLAG = r"(?:, (?P<{}>true|false|\(bool\)[01]))?"
NORM_KERNEL = re.compile(
    rf"norm_(?P<what>[a-z_]+)_kernel<(?P<dtype>[\w:]+|\(bool\)[01]) ?"
    rf"{FLAG.format('first')}{FLAG.format('second')}{FLAG.format('third')}>"
)
# Of norm_leaky_relu: what there is in planes and in columns, and with what each is there once more.
NORM_LAYOUTS = ("moments", "forward", "sums", "backward")
NORM_EXTRAS = {
    "forward": "residual",
    "sums": "mask",
    "backward": "mask",
    "held forward": "residual",
    "held backward": "mask",
}
NORM_TENSORS = {
    "moments": 1,
    "forward": 2,
    "forward, residual": 3,
    "sums": 2,
    "sums, mask": 2,
    "backward": 3,
    "backward, mask": 3,
}
# Per dtype: dense, strided (also forward in place) twice, bias_leaky_relu, sum of partials.
KERNELS = 2 + 3 + 3 + 3 + 2
NORM_KERNELS = 2 + 8 + 4 + 8 + 2 + 2 + 3  # per dtype: in the order of NORM_LAYOUTS, held, finish and update
NORM_JOINS = 2


@dataclass(frozen=True, order=True)
class Kernel:
    order: str
    what: str
    dtype: str

    @property
    def of_norm(self) -> bool:
        return self.order == "norm_leaky_relu"

    @property
    def block(self) -> int:
        return NORM_BLOCK if self.of_norm else BLOCK

    @property
    def occupancy(self) -> float:
        """At least."""
        if self.of_norm:
            return NORM_OCCUPANCY.get(self.what.split(",")[0], 0.5)
        what = "sum of partials" if not self.moves_chunks else self.what
        return OCCUPANCY[f"bias_leaky_relu, {what}" if self.order == "bias_leaky_relu" else self.order]

    @property
    def moves_chunks(self) -> bool:
        return not self.what.startswith(("sum of partials", "finish", "update", "join"))

    @property
    def stores_chunks(self) -> bool:
        return self.moves_chunks and not (self.of_norm and self.what.startswith(("moments", "sums")))


@dataclass
class Code:
    """Of one kernel for one architecture."""

    registers: int = 0
    local: int = 0  # bytes of stack and local memory
    instructions: Counter[str] = field(default_factory=Counter)
    listing: list[tuple[int, str]] = field(default_factory=list)  # address, opcode and operands

    def occupancy(self, arch: str, block: int) -> float:
        per_thread = -(-self.registers // REGISTER_UNIT) * REGISTER_UNIT
        threads = REGISTERS // per_thread // block * block
        return min(1.0, threads / THREADS[arch])

    def instructions_per_access(self) -> float:
        """Of the shortest loop with 16-byte loads, per such load."""
        found = []
        for address, text in self.listing:
            target = re.search(r"BRA\S*.*?(0x[0-9a-f]+)", text)
            if target and int(target[1], 16) < address:
                loop = [line for at, line in self.listing if int(target[1], 16) <= at <= address]
                if loads := sum(bool(re.search(r"LDG\.E\S*\.128", line)) for line in loop):
                    found.append(len(loop) / loads)
        return min(found, default=float("inf"))


def find_cuobjdump() -> str:
    """From the toolkit, or the copy that Triton's wheel ships."""
    if found := shutil.which("cuobjdump"):
        return found
    if triton := importlib.util.find_spec("triton"):
        for folder in triton.submodule_search_locations or ():
            if (shipped := Path(folder) / "backends/nvidia/bin/cuobjdump").exists():
                return str(shipped)
    sys.exit("no cuobjdump: neither on PATH nor in a triton wheel")


def cuobjdump(*options: str) -> str:
    command = [find_cuobjdump(), *options, _C.__file__]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return subprocess.run(["c++filt"], check=True, input=dumped, capture_output=True, text=True).stdout


def norm_kernel(found: re.Match[str]) -> Kernel:
    what = found["what"].replace("_", " ")
    if what == "join":  # of doubles
        return Kernel("norm_leaky_relu", "join moments" if found["dtype"] in TRUE else "join sums", "float64")
    yes = [found[name] in TRUE for name in ("first", "second", "third") if found[name]]
    layout = [("columns" if yes.pop(0) else "planes")] if what in NORM_LAYOUTS else []
    extras = [extra for extra, there in zip((NORM_EXTRAS.get(what), "folded"), yes, strict=False) if there]
    return Kernel("norm_leaky_relu", ", ".join([what, *layout, *extras]), DTYPES[found["dtype"]])


def kernel_named(demangled: str) -> Kernel | None:
    if found := NORM_KERNEL.search(demangled):
        return norm_kernel(found)
    if found := BIAS_KERNEL.search(demangled):
        return Kernel("bias_leaky_relu", "backward, bias", DTYPES[found["dtype"]])
    if found := PARTIALS_KERNEL.search(demangled):
        return Kernel("bias_leaky_relu", f"sum of partials, {DTYPES[found['opmath']]}", DTYPES[found["dtype"]])
    if not (found := KERNEL.search(demangled)):
        return None
    what = "backward" if found["is_backward"] == "1" else "forward"
    inplace = " in place" if found["output"] != "Dense" else ""
    order = "bias_leaky_relu" if found["parts"] == "BiasLeakyReLUParts" else ORDERS[found["input"].strip()]
    return Kernel(order, what + inplace, DTYPES[found["dtype"]])


def dumped(option: str) -> Iterator[tuple[Kernel, str, str]]:
    """The lines of a dump that are about a kernel: kernel, architecture, line."""
    arch, kernel = "", None
    for line in cuobjdump(option).splitlines():
        if found := re.search(r"arch = sm_(\w+)", line):
            arch, kernel = found[1], None
        elif found := re.search(r"Function ?:? (.+)", line):
            kernel = kernel_named(found[1])
        elif kernel:
            yield kernel, arch, line


def compiled() -> dict[Kernel, dict[str, Code]]:
    """What the library holds, by kernel and architecture."""
    codes: dict[Kernel, dict[str, Code]] = {}
    for kernel, arch, line in dumped("--dump-resource-usage"):
        if found := re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", line):
            codes.setdefault(kernel, {})[arch] = Code(int(found[1]), int(found[2]) + int(found[3]))
    for kernel, arch, line in dumped("--dump-sass"):
        if found := re.search(r"/\*([0-9a-f]{4,})\*/\s+((?:@!?\w+ )?([A-Z][\w.]+).*?);", line):
            codes[kernel][arch].instructions[found[3]] += 1
            if kernel.of_norm:
                codes[kernel][arch].listing.append((int(found[1], 16), found[2]))
    return codes


def violations_of(code: Code, kernel: Kernel, arch: str) -> list[str]:
    def count(pattern: str) -> int:
        return sum(n for name, n in code.instructions.items() if re.match(pattern, name))

    found = []
    if kernel.moves_chunks and not count(r"LDG\.E\S*\.128"):
        found.append("no 128-bit global load")
    if kernel.stores_chunks and not count(r"STG?\.E\S*\.128"):
        found.append("no 128-bit global store")
    if code.local or count(r"(LDL|STL)\b"):
        found.append(f"{code.local} bytes of local memory, {count('(LDL|STL)')} accesses to it")
    if flushing := count(r"F(MUL|FMA|ADD|SETP)\S*\.FTZ"):
        found.append(f"{flushing} instructions flush subnormals to zero")
    if code.occupancy(arch, kernel.block) < kernel.occupancy:
        found.append(f"{code.registers} registers: {code.occupancy(arch, kernel.block):.0%} of the threads")
    if arch == BUDGETED and (tensors := norm_tensors(kernel)):
        needed, budget = instructions_per_element(code, kernel), tensors * INSTRUCTIONS_PER_TENSOR[kernel.dtype]
        if needed > budget:
            found.append(f"{needed:.1f} instructions per element, {budget} at most")
    return found


def norm_tensors(kernel: Kernel) -> int:
    """That a pass of norm_leaky_relu reads or writes; 0 for what is no such pass."""
    return NORM_TENSORS.get(re.sub(", (planes|columns|folded)", "", kernel.what), 0) if kernel.of_norm else 0


def instructions_per_element(code: Code, kernel: Kernel) -> float:
    stores = 1 if kernel.stores_chunks else 0
    elements = 16 // getattr(torch, kernel.dtype).itemsize
    return code.instructions_per_access() * (norm_tensors(kernel) - stores) / elements


def run_bias_leaky_relu(what: str, dtype: torch.dtype, n: int) -> float:
    """With all parts. The bytes per element that are needed at least."""
    x = torch.randn(4, 4, n // 16).to(dtype)
    bias = torch.randn(4).to(torch.promote_types(dtype, torch.float32))
    bits = 2 / 8
    if what == "forward":
        ops.bias_leaky_relu_forward(x, bias, 0.1, x.clone(), clamp=1.0)
        return 3 * dtype.itemsize + bits + bias.nbytes / n
    with_bias = what == "backward, bias"
    mask = torch.zeros(n // 4, dtype=torch.uint8)
    ops.bias_leaky_relu_backward(x, mask, 0.1, None, 1.0, 0.0, 1, bias.dtype, [True, with_bias])
    return 2 * dtype.itemsize + bits + (bias.nbytes / n if with_bias else 0)


def moved(kernel: Kernel) -> tuple[float, float, float, float]:
    """Bytes per element loaded, stored and at least needed in all; sectors (32 bytes) asked for per sector needed."""
    dtype = getattr(torch, kernel.dtype)
    n = 16 * tile(dtype)
    needed_bytes = 2 * dtype.itemsize + 1 / 8
    if kernel.order == "bias_leaky_relu":
        needed_bytes = run_bias_leaky_relu(kernel.what, dtype, n)
    else:
        run_plain(kernel, dtype, n)
    got = report()
    asked = got.loads.request_sectors + got.stores.request_sectors
    needed = got.loads.sectors + got.stores.sectors
    return got.loads.bytes / n, got.stores.bytes / n, needed_bytes, asked / needed


def run_plain(kernel: Kernel, dtype: torch.dtype, n: int) -> None:
    if kernel.order == "dense":
        x = torch.randn(n).to(dtype)
    elif kernel.order == "strided, 32 bits":  # rows with gaps
        x = torch.randn(16, 2 * n // 16).to(dtype)[:, : n // 16]
    else:  # two such, further than 2^31 elements apart
        x = torch.empty(2**31 + n, dtype=dtype).as_strided((2, n // 2), (2**31, 1)).normal_()
    if kernel.what == "backward":
        ops.leaky_relu_backward(x, torch.zeros(n // 8, dtype=torch.uint8), 0.1, None)
    elif kernel.what == "forward":
        ops.leaky_relu_forward(x, 0.1)
    else:
        ops.leaky_relu_forward_(x, 0.1)


def main() -> None:
    torch.ops.load_library(sys.argv[1])
    wanted = str(leakyrelu_ext.build_info()["cuda_archs"]).replace(".", "").removesuffix("+PTX").split(";")
    codes = compiled()
    violations = []
    expected = {str(BLOCK): len(DTYPES) * KERNELS, str(NORM_BLOCK): len(DTYPES) * NORM_KERNELS + NORM_JOINS}
    if len(codes) != sum(expected.values()):
        violations.append(f"{len(codes)} kernels instead of {sum(expected.values())}")
    ptx = set(re.findall(r"\.sm_(\w+)\.ptx", cuobjdump("--list-ptx")))
    if wanted[-1] not in ptx:
        violations.append(f"no PTX for {wanted[-1]}, only for {ptx or 'none'}")

    bounds = Counter(re.findall(r"\.maxntid (\d+)", cuobjdump("--dump-ptx")))
    if bounds != expected:
        violations.append(f"launch bounds of {dict(bounds)} threads instead of {expected}")

    header = f"{'order':17} {'pass':32} {'dtype':9}" + "".join(f"{'sm_' + arch:>10}" for arch in wanted)
    print("Registers, and the share of a multiprocessor's threads that they let be resident; bytes per element, counted")
    print(header + f"{'loaded':>9}{'stored':>9}{'minimum':>9}{'sectors':>9}")
    for kernel, by_arch in sorted(codes.items()):
        line = f"{kernel.order:17} {kernel.what:32} {kernel.dtype:9}"
        for arch in wanted:
            code = by_arch.get(arch)
            if code is None:
                violations.append(f"{kernel}: no machine code for sm_{arch}")
                line += f"{'MISSING':>10}"
                continue
            violations += [f"{kernel}, sm_{arch}: {what}" for what in violations_of(code, kernel, arch)]
            line += f"{code.registers:5} {code.occupancy(arch, kernel.block):4.0%}"
        if norm_tensors(kernel) and (code := by_arch.get(BUDGETED)):
            line += f"{instructions_per_element(code, kernel):9.1f} instructions"
        if kernel.of_norm or not kernel.moves_chunks:  # next to nothing
            print(line)
            continue
        loaded, stored, minimum, sectors = moved(kernel)
        print(line + f"{loaded:9.3f}{stored:9.3f}{minimum:9.3f}{sectors:8.2f}x")
        sums = 0.001 if kernel.what == "backward, bias" else 0  # written and read again
        if not minimum <= loaded + stored <= minimum * (1 + sums):
            violations.append(f"{kernel}: moves {loaded + stored} bytes per element, {minimum} would do")
        # Biases, and mask bytes that several requests share, come from the cache.
        if sectors > (1.1 if kernel.order == "bias_leaky_relu" else 1):
            violations.append(f"{kernel}: asks {sectors:.2f} times for a sector")
    print(f"PTX for compute_{', compute_'.join(sorted(ptx))}; 128-bit loads and stores, no local memory")
    if violations:
        sys.exit("\n".join(["VIOLATIONS", *violations]))


if __name__ == "__main__":
    main()
