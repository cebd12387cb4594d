"""A net as the benchmark knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Model:
    """``make``: with nn.LeakyReLU, weights from torch's generator. ``inputs``: its arguments, from batch size and generator.

    ``published``: the parameter count as ``source`` prints it.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], tuple[Tensor, ...]]
    batch: int = 1
    paper: str = ""
    published: str = ""
    source: str = ""


def noise(*shape: int) -> Callable[[int, torch.Generator], tuple[Tensor, ...]]:
    return lambda batch, generator: (torch.randn(batch, *shape, generator=generator),)


def loss(output: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """Something to differentiate: the mean of squares, of several outputs (deep supervision) the sum of theirs."""
    outputs = (output,) if isinstance(output, Tensor) else output
    return torch.stack([each.square().mean() for each in outputs]).sum()
