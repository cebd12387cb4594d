"""The memory that training steps take at most, in a process that does nothing else."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ...measure.kernel_files import told_number
from ...models import loss
from ..variants import Made

# <linux/prctl.h>, <malloc.h>
_PR_SET_THP_DISABLE = 41
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
# Every block from this size on is got from the system and given back on its own, so that the resident set is what is alive.
# With glibc's own, rising threshold the same step takes up to half as much again, by the state of the heap. A block costs at
# most a page more than it is: too much for those of less than a few pages.
MMAP_FROM_BYTES = 2**14


@dataclass
class Meter:
    """Bytes at most in use since ``start``, beyond what was then."""

    begin: Callable[[], int]  # in use now; from here on counts what ``most`` tells
    most: Callable[[], int]
    _before: int = 0

    def start(self) -> None:
        gc.collect()
        self._before = self.begin()

    def bytes(self) -> int:
        return self.most() - self._before


def resident_set() -> Meter:
    """Of this process, on Linux: page by page, in small pages (a huge one would count what is not used of it)."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        raise OSError("this C library has no mallopt: freed memory would count")
    settings = {_M_MMAP_THRESHOLD: MMAP_FROM_BYTES, _M_TRIM_THRESHOLD: MMAP_FROM_BYTES, _M_TOP_PAD: 0, _M_ARENA_MAX: 1}
    for setting, value in settings.items():
        libc.mallopt(setting, value)
    libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)

    def status(name: str) -> int:
        kibibytes = told_number("/proc/self/status", rf"^{name}:\s+(\d+) kB")
        if kibibytes is None:
            raise OSError(f"/proc/self/status does not tell {name}")
        return kibibytes * 1024

    def begin() -> int:
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        return status("VmRSS")

    return Meter(begin, lambda: status("VmHWM"))


def cuda_allocator(device: torch.device) -> Meter:
    """Of PyTorch's allocator: what tensors take, not what it keeps in reserve."""

    def begin() -> int:
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)

    return Meter(begin, lambda: torch.cuda.max_memory_allocated(device))


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
