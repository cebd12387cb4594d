"""The facts about this machine that a reader needs to judge the figures."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch

import leakyrelu_ext


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return name[1] if name else platform.processor() or platform.machine()


def huge_pages() -> str:
    """The kernel's transparent-huge-page mode: always, madvise or never."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    mode = re.search(r"\[(\w+)\]", setting.read_text()) if setting.exists() else None
    return mode[1] if mode else "unknown"


def describe() -> str:
    info = leakyrelu_ext.build_info()
    return (
        f"leakyrelu_ext {info['version']}, {info['cpu_tier']} kernels; torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} thread(s); "
        f"Python {info['python']}; {cpu_name()}; transparent huge pages: {huge_pages()}"
    )
