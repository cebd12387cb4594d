"""The share of a step's time that its activations take, by PyTorch's profiler."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile

STEPS = 3


def _is_activation(name: str) -> bool:
    """Forward or backward op or autograd node, the built-in's or ours: leaky_relu_backward, LeakyReluBackward0, …"""
    return "leakyrelu" in name.lower().replace("_", "")


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Nothing is written to the terminal, not by C++ either: Kineto announces itself there."""
    sys.stderr.flush()
    before = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def activation_share(step: Callable[[], object], device: torch.device) -> float | None:
    """Of the ops' own CPU time, on CUDA of the kernels' time; None if nothing was seen.

    What ours is fused with counts as activation. The profiler's own cost is in it, on every op: where ops are small, the
    share comes out nearer to that of their number.
    """
    cuda = device.type == "cuda"
    step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with _without_stderr(), profile(activities=activities) as profiler:
        for _ in range(STEPS):
            step()
        if cuda:
            torch.cuda.synchronize(device)
    # Ops only: their kernels, which are events of their own, would count twice.
    times = {
        event.key: event.self_device_time_total if cuda else event.self_cpu_time_total
        for event in profiler.key_averages()
        if event.device_type.name == "CPU"
    }
    total = sum(times.values())
    return sum(time for name, time in times.items() if _is_activation(name)) / total if total else None
