"""The facts about this machine that a reader needs to judge the figures."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import leakyrelu_ext

from .kernel_files import told
from .page_faults import fault_seconds

# Variables that change what is measured.
_SETTINGS = (
    "ATEN_CPU_CAPABILITY", "GLIBC_TUNABLES", "LD_PRELOAD", "LEAKYRELU_EXT_CPU_TIER", "LEAKYRELU_EXT_HUGE_PAGES",
    "MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE",
)  # fmt: skip


def cpu_name() -> str:
    return told("/proc/cpuinfo", r"^model name\s*:\s*(.+)") or platform.processor() or platform.machine()


def huge_pages() -> str:
    """The kernel's transparent-huge-page mode: always, madvise or never."""
    return told("/sys/kernel/mm/transparent_hugepage/enabled", r"\[(\w+)\]") or "unknown"


def allocator() -> str:
    """The C library, whose malloc torch's CPU tensors come from, or what is preloaded in its place."""
    return os.environ.get("LD_PRELOAD") or " ".join(platform.libc_ver()).strip() or "unknown"


def commit() -> str | None:
    """Of the sources that run; None where git does not track them, as in somebody's project that has them installed."""

    def git(*arguments: str) -> str | None:
        try:
            command = ["git", "-C", str(Path(__file__).parent), *arguments]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    tracked = git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    return git("describe", "--always", "--dirty", "--exclude=*") if tracked else None


def _busy_seconds() -> float | None:
    """Of all processes on all cores since the start of the system."""
    cpu = told("/proc/stat", r"^cpu +(.*)")
    if cpu is None:
        return None
    user, nice, system, _, _, irq, softirq, *_ = map(int, cpu.split())
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Neighbours:
    """What share of the cores other processes took since this was made: if it is not small, times mean little."""

    def __init__(self) -> None:
        self._begin = self._now()

    @staticmethod
    def _now() -> tuple[float | None, float, float]:
        return _busy_seconds(), sum(os.times()[:4]), time.monotonic()

    def share(self) -> float | None:
        """None where the system does not tell."""
        (busy, own, begin), (busy_now, own_now, now) = self._begin, self._now()
        if busy is None or busy_now is None or now - begin < 1:
            return None
        return max(0.0, busy_now - busy - (own_now - own)) / ((now - begin) * (os.cpu_count() or 1))


def describe_gpu(device: torch.device) -> str:
    gpu = torch.cuda.get_device_properties(device)
    return (
        f"{gpu.name} (sm_{gpu.major}{gpu.minor}, {gpu.multi_processor_count} multiprocessors, "
        f"{gpu.total_memory / 2**30:.0f} GiB, L2 {gpu.L2_cache_size / 2**20:.0f} MiB), CUDA {torch.version.cuda}"
    )


def collect(device: torch.device, faults: bool = False) -> dict[str, Any]:
    """The environment as it goes into a file of results; ``faults``: also measure what page faults cost (0.5 s)."""
    info = leakyrelu_ext.build_info()
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": describe_gpu(device) if device.type == "cuda" else cpu_name(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "threads": torch.get_num_threads(),
        "cpu_tier": info["cpu_tier"],
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "leakyrelu_ext": info["version"],
        "commit": commit(),
        "torch": torch.__version__,
        "python": info["python"],
        "kernel": platform.release(),
        "allocator": allocator(),
        "huge_pages": huge_pages(),
        "small_page_fault_seconds": fault_seconds(huge=False) if faults else None,
        "huge_page_fault_seconds": fault_seconds(huge=True) if faults else None,
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }


def describe(environment: dict[str, Any]) -> str:
    """Those facts in a few lines."""
    device, cpu = environment["device"], environment["cpu"]
    lines = [
        f"leakyrelu_ext {environment['leakyrelu_ext']} (commit {environment['commit'] or 'unknown'}), "
        f"{environment['cpu_tier']} kernels; torch {environment['torch']} ({environment['torch_cpu_capability']}), "
        f"{environment['threads']} thread(s); Python {environment['python']}",
        f"{cpu}, {environment['cores']} core(s), {environment['memory_bytes'] / 2**30:.0f} GiB; "
        f"Linux {environment['kernel']}; {environment['allocator']}; transparent huge pages: {environment['huge_pages']}"
        + (f"; {device}" if device != cpu else "")
        + "".join(f"; {name}={value}" for name, value in environment["settings"].items()),
    ]
    if (small := environment["small_page_fault_seconds"]) is not None:
        huge = environment["huge_page_fault_seconds"]
        lines.append(
            f"page faults of a fresh output, each: {small * 1e6:.2f} µs (4 KiB), "
            + ("none to be had" if huge is None else f"{huge * 1e6:.1f} µs")
            + " (2 MiB). Virtual machines pay several times what bare metal does: judge large outputs by the warm rows too"
        )
    return "\n".join(lines)
