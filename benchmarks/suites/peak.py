"""``python -m leakyrelu_bench.suites.peak``: the memory that training steps of one variant take, in a process of its own.

Prints a JSON object a line as soon as it is known:

- ``{"obstacle": "…"}``: nothing can be measured, and why;
- ``{"mismatch": "…"}``: ours does not compute what the built-in does;
- ``{"batch": n, "peak_bytes": […], "held_bytes": n}``: of several steps, what each took at most beyond what was there before
  it; and parameters, buffers and inputs, which were;
- ``{"largest": n, "largest_bytes": n}``: the largest batch that fits, and what it takes in all; or
  ``{"largest_obstacle": "…"}``.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

import leakyrelu_ext

from ..measure.compiling import first_line
from ..measure.parent import end_with_parent
from ..models import MODELS, Model, loss
from .agreement import Agreement
from .largest import largest_batch
from .variants import OURS, OURS_OUT_OF_PLACE, OUT_OF_PLACE, VARIANTS, Made, Variant, make

STEPS = 3
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


def _difference(model: Model, variant: Variant, made: Made, inputs: tuple[torch.Tensor, ...], seed: int) -> str | None:
    reference = make(model, OUT_OF_PLACE, seed, inputs[0].device)
    return Agreement(reference, inputs, seed, training=True).difference(variant, made)


def run(arguments: argparse.Namespace, tell: Callable[[dict[str, Any]], None]) -> None:
    device, seed = arguments.device, arguments.seed
    model = next(model for model in MODELS if model.name == arguments.model)
    variant = next(variant for variant in VARIANTS if variant.name == arguments.variant)

    def inputs_of(batch: int) -> tuple[torch.Tensor, ...]:
        return tuple(x.to(device) for x in model.inputs(batch, torch.Generator().manual_seed(seed)))

    try:
        meter = CudaAllocator(device) if device.type == "cuda" else ResidentSet()
        made = make(model, variant, seed, device)
        inputs = inputs_of(arguments.batch)
        name = _difference(model, variant, made, inputs, seed) if arguments.check else None
        if name is not None:
            key = "mismatch" if variant in (OURS, OURS_OUT_OF_PLACE) else "obstacle"
            return tell({key: f"computes something else: {name} differs from the built-in's out of place"})
        peaks = measure(made, inputs, meter, STEPS)
        tell({"batch": arguments.batch, "peak_bytes": peaks, "held_bytes": held_bytes(made, inputs)})
        del inputs
    except Exception as error:  # whatever a model, its compiler or the system raises stands in the row
        return tell({"obstacle": first_line(error)})
    if not arguments.budget:
        return None
    totals: dict[int, float] = {}

    def bytes_of(batch: int) -> float:
        try:
            inputs = inputs_of(batch)
            totals[batch] = held_bytes(made, inputs) + max(measure(made, inputs, meter, 1))
        except torch.OutOfMemoryError:
            totals[batch] = math.inf
        return totals[batch]

    try:
        largest = largest_batch(bytes_of, arguments.budget, model.batch)
        return tell({"largest": largest, "largest_bytes": totals.get(largest, 0)})
    except Exception as error:
        return tell({"largest_obstacle": first_line(error)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=[model.name for model in MODELS])
    parser.add_argument("--variant", required=True, choices=[variant.name for variant in VARIANTS])
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--budget", type=int, metavar="BYTES", help="also look for the largest batch that fits into it")
    parser.add_argument("--check", action="store_true", help="first compare outputs and gradients with the built-in's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process does")
    arguments = parser.parse_args()
    if arguments.parent:
        end_with_parent(arguments.parent)
    leakyrelu_ext.uninstall()  # what the environment may have installed
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    run(arguments, lambda line: print(json.dumps(line), flush=True))


if __name__ == "__main__":
    main()
