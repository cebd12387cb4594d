"""The memory that training steps take at most, in a process that does nothing else."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path
from typing import Protocol

import torch

from ...models import loss
from ..variants import Made

# <linux/prctl.h>, <malloc.h>
_PR_SET_THP_DISABLE = 41
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
# Every block from this size on is got from the system and given back on its own, so that the resident set is what is alive.
# With glibc's own, rising threshold the same step takes up to half as much again, by the state of the heap. A block costs at
# most a page more than it is: too much for those of less than a few pages.
MMAP_FROM_BYTES = 2**14


class Meter(Protocol):
    def start(self) -> None: ...

    def bytes(self) -> int:
        """At most in use since ``start``, beyond what was then."""


class ResidentSet:
    """Of this process, on Linux: page by page, in small pages (a huge one would count what is not used of it)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        if not hasattr(self._libc, "mallopt"):
            raise OSError("this C library has no mallopt: freed memory would count")
        settings = {_M_MMAP_THRESHOLD: MMAP_FROM_BYTES, _M_TRIM_THRESHOLD: MMAP_FROM_BYTES, _M_TOP_PAD: 0, _M_ARENA_MAX: 1}
        for setting, value in settings.items():
            self._libc.mallopt(setting, value)
        self._libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
        self._before = 0

    @staticmethod
    def _status(name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found is None:
            raise OSError(f"/proc/self/status does not tell {name}")
        return int(found[1]) * 1024

    def start(self) -> None:
        gc.collect()
        self._libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        self._before = self._status("VmRSS")

    def bytes(self) -> int:
        return self._status("VmHWM") - self._before


class CudaAllocator:
    """Of PyTorch's allocator: what tensors take, not what it keeps in reserve."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0

    def start(self) -> None:
        gc.collect()
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before


def measure(made: Made, inputs: tuple[torch.Tensor, ...], meter: Meter, steps: int) -> list[int]:
    """Bytes that each of ``steps`` training steps takes at most, gradients of parameters included.

    One step goes before: compiling, generated code and the libraries' caches are not the step's.
    """
    module = made.module.train()
    peaks = []
    for _ in range(1 + steps):
        meter.start()
        loss(made.call(*inputs)).backward()  # type: ignore[no-untyped-call]
        peaks.append(meter.bytes())
        module.zero_grad(set_to_none=True)
    return peaks[1:]


def held_bytes(made: Made, inputs: tuple[torch.Tensor, ...]) -> int:
    held = {tensor.data_ptr(): tensor.nbytes for tensor in (*made.module.parameters(), *made.module.buffers(), *inputs)}
    return sum(held.values())
