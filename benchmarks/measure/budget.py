"""Amounts of memory as people write them, and how much of it there is."""

from __future__ import annotations

import re

import torch

from .kernel_files import told_number

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_AMOUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]+)\s*", re.ASCII)


def parse_bytes(text: str) -> int:
    """``"2GiB"``, ``"512 MiB"``, ``"1.5 GB"`` in bytes; case does not matter.

    Raises:
        ValueError: not a positive number followed by one of the units; the message is one line.
    """
    found = _AMOUNT.fullmatch(text)
    factor = {unit.lower(): factor for unit, factor in _UNITS.items()}.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ValueError(f"must be a number and one of {', '.join(_UNITS)}, such as 2GiB, got {text!r}")
    amount = round(float(found[1]) * factor)
    if not 1 <= amount < 2**63:
        raise ValueError(f"must be at least a byte and less than 8 EiB, got {text!r}")
    return amount


def in_words(amount: float) -> str:
    unit = max((unit for unit in ("B", "KiB", "MiB", "GiB") if amount >= _UNITS[unit]), key=_UNITS.__getitem__, default="B")
    return f"{amount / _UNITS[unit]:.4g} {unit}"


def available_bytes(device: torch.device) -> int:
    """Memory of ``device`` that can still be had; on the CPU, by this process (its control group's limit counts)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    available = told_number("/proc/meminfo", r"^MemAvailable:\s+(\d+) kB")
    left = 2**63 if available is None else 1024 * available
    limit, used = (told_number(f"/sys/fs/cgroup/memory.{name}", r"^(\d+)$") for name in ("max", "current"))
    if limit is not None and used is not None:
        # What the group uses includes the page cache, which gives way.
        left = min(left, limit - used + (told_number("/sys/fs/cgroup/memory.stat", r"^inactive_file (\d+)$") or 0))
    return max(left, 0)
