"""The facts about this machine that a reader needs to judge the figures."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

import leakyrelu_ext

from .timing import fault_seconds


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return name[1] if name else platform.processor() or platform.machine()


def huge_pages() -> str:
    """The kernel's transparent-huge-page mode: always, madvise or never."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    mode = re.search(r"\[(\w+)\]", setting.read_text()) if setting.exists() else None
    return mode[1] if mode else "unknown"


def describe_gpu(device: torch.device) -> str:
    gpu = torch.cuda.get_device_properties(device)
    return (
        f"{gpu.name} (sm_{gpu.major}{gpu.minor}, {gpu.multi_processor_count} multiprocessors, "
        f"{gpu.total_memory / 2**30:.0f} GiB, L2 {gpu.L2_cache_size / 2**20:.0f} MiB), CUDA {torch.version.cuda}"
    )


def describe(device: torch.device) -> str:
    info = leakyrelu_ext.build_info()
    settings = {
        name: os.environ[name]
        for name in ("THP_MEM_ALLOC_ENABLE", "LEAKYRELU_EXT_HUGE_PAGES", "LEAKYRELU_EXT_CPU_TIER", "LD_PRELOAD")
        if name in os.environ
    }
    return (
        f"leakyrelu_ext {info['version']}, {info['cpu_tier']} kernels; torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} thread(s); "
        f"Python {info['python']}; {cpu_name()}; transparent huge pages: {huge_pages()}"
        + (f"; {describe_gpu(device)}" if device.type == "cuda" else "")
        + "".join(f"; {name}={value}" for name, value in settings.items())
    )


def describe_faults() -> str:
    """What a fresh output costs here beyond the kernel's own work."""

    def microseconds(huge: bool) -> str:
        cost = fault_seconds(huge)
        return "none to be had" if cost is None else f"{cost * 1e6:.2f} µs"

    return (
        f"page faults of a fresh output, each: {microseconds(False)} (4 KiB), {microseconds(True)} (2 MiB). Virtual "
        "machines pay several times what bare metal does: judge large outputs by the warm rows too"
    )
