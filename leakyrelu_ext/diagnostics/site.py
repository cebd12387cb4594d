"""Statistics of one activation, kept on the device until they are read."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_MERGED_AT = 256


def _sum_and_norm(x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum and the 2-norm of all elements, as float64 tensors on their device."""

    def norm(wide: torch.dtype) -> Tensor:
        # Per sample first: a float32 norm of millions of elements is accurate to five digits only.
        norms = torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim())) or None, dtype=wide)
        whole: Tensor = torch.linalg.vector_norm(norms, dtype=torch.float64)
        return whole

    # GPUs convert as they read. A CPU would take five times as long, but reading its norm does not wait: check whether
    # float32 held the squares. Those of vanishing or exploding gradients are out of its range.
    if x.device.type == "cpu" and x.dtype != torch.float64:
        found = norm(torch.float32)
        if 1e-12 < found.item() / math.sqrt(x.numel()) < math.inf:
            return x.sum(dtype=torch.float32).double(), found
    return x.sum(dtype=torch.float64), norm(torch.float64)


class _Moments:
    """Moments over all calls with finite values. Each call's results stay on the device; some hundred are read at once."""

    def __init__(self) -> None:
        self._calls = self._count = 0
        self._sum = self._squares = 0.0
        self._numels: list[int] = []
        self._unread: list[Tensor] = []

    def add(self, numel: int, total: Tensor, norm: Tensor) -> None:
        if self._unread and self._unread[0].device != norm.device:  # the model has moved
            self._merge()
        self._numels.append(numel)
        self._unread += (total, norm)
        if len(self._numels) == _MERGED_AT:
            self._merge()

    def _merge(self) -> None:
        values = torch.stack(self._unread).tolist() if self._unread else []
        for numel, total, norm in zip(self._numels, values[::2], values[1::2], strict=True):
            if math.isfinite(norm * norm):
                self._calls += 1
                self._count += numel
                self._sum += total
                self._squares += norm * norm
        self._numels.clear()
        self._unread.clear()

    def read(self) -> tuple[float | None, float | None, float | None]:
        """Mean, variance, and root mean square over calls of the whole tensor's 2-norm."""
        self._merge()
        if not self._count:
            return None, None, None
        mean = self._sum / self._count
        return mean, max(0.0, self._squares / self._count - mean**2), math.sqrt(self._squares / self._calls)


class _Peaks:
    """The largest value of each unit so far; NaN if there was one."""

    def __init__(self) -> None:
        self._peaks: Tensor | None = None
        self._differ = False

    def add(self, peaks: Tensor) -> None:
        # If the number of units changes, they cannot be matched.
        self._differ |= self._peaks is not None and self._peaks.shape != peaks.shape
        if self._peaks is not None and not self._differ:
            peaks = torch.maximum(self._peaks.to(peaks.device), peaks)
        self._peaks = peaks

    def never_positive(self) -> tuple[int | None, int | None]:
        """The number of units, and the number of those without a positive or NaN value."""
        if self._peaks is None or self._differ:
            return None, None
        return self._peaks.numel(), int((self._peaks <= 0).sum())


class Site:
    """One place in the model where an activation is called."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.calls = self.elements = 0
        self.negative: Tensor | int = 0
        self.nonfinite: Tensor | int = 0
        self.peaks, self.gradient_peaks = _Peaks(), _Peaks()
        self.inputs, self.outputs, self.gradients = _Moments(), _Moments(), _Moments()

    def see_input(self, x: Tensor, dim: int) -> None:
        self.calls += 1
        self.elements += x.numel()
        if not x.numel():
            return
        if isinstance(self.negative, Tensor) and self.negative.device != x.device:  # the model has moved
            self.negative, self.nonfinite = int(self.negative), int(self.nonfinite)
        total, norm = _sum_and_norm(x)
        self.inputs.add(x.numel(), total, norm)
        self.negative = self.negative + (x < 0).count_nonzero()
        if x.device.type != "cpu" or not math.isfinite(norm.item()):
            self.nonfinite = self.nonfinite + (~x.isfinite()).count_nonzero()
        others = [each for each in range(x.dim()) if each != dim]
        self.peaks.add(x.amax(others) if others else x.clone())  # a fraction of the time of (x > 0).any(others)

    def see_output(self, x: Tensor) -> None:
        if x.numel():
            self.outputs.add(x.numel(), *_sum_and_norm(x))

    def see_gradient(self, gradient: Tensor, dim: int) -> None:
        if not gradient.numel():
            return
        self.gradients.add(gradient.numel(), *_sum_and_norm(gradient))
        others = [each for each in range(gradient.dim()) if each != dim]
        self.gradient_peaks.add(torch.maximum(gradient.amax(others), -gradient.amin(others)) if others else gradient.abs())

    def to_dict(self) -> dict[str, Any]:
        units, dead = self.peaks.never_positive()
        _, still = self.gradient_peaks.never_positive()
        mean, variance, _ = self.outputs.read()
        pre_mean, pre_variance, _ = self.inputs.read()
        gradient_mean, gradient_variance, gradient_norm = self.gradients.read()
        return {
            "name": self.name,
            "kind": self.kind,
            "calls": self.calls,
            "elements": self.elements,
            "units": units,
            "negative_share": int(self.negative) / self.elements if self.elements else None,
            "dead_units": dead,
            "dead_share": dead / units if units and dead is not None else None,
            "zero_gradient_units": still,
            "zero_gradient_share": still / units if units and still is not None else None,
            "mean": mean,
            "variance": variance,
            "pre_mean": pre_mean,
            "pre_variance": pre_variance,
            "gradient_mean": gradient_mean,
            "gradient_variance": gradient_variance,
            "gradient_norm": gradient_norm,
            "nonfinite": int(self.nonfinite),
        }
