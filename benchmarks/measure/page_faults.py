"""Page faults: how many there were, and what one costs on this machine."""

from __future__ import annotations

import mmap
import resource
import statistics
import time

import torch


def minor_faults() -> int:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def fault_seconds(huge: bool) -> float | None:
    """What one page fault costs here, on one thread: writing to fresh pages less writing to them again, per page.

    None where there are no such pages.
    """
    size, page = 2**26, 2**21 if huge else mmap.PAGESIZE
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    costs = []
    try:
        for _ in range(5):
            with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
                if hasattr(mmap, "MADV_HUGEPAGE"):
                    memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
                block = torch.frombuffer(memory, dtype=torch.uint8)
                before = minor_faults()
                begin = time.perf_counter()
                block.fill_(1)
                fresh = time.perf_counter()
                block.fill_(2)
                again = time.perf_counter()
                faults = minor_faults() - before
                del block
            if faults > 2 * size / page + 2 * 512:
                return None  # smaller pages than those asked for
            costs.append(((fresh - begin) - (again - fresh)) / (size / page))
    except OSError:
        return None
    finally:
        torch.set_num_threads(threads)
    return statistics.median(costs)
