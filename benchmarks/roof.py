"""The kernels against what memory allows: a copy, and an in-place multiplication, of the same tensor in the same run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

import leakyrelu_ext

from .inputs import SLOPE, Input
from .timing import HOST, Pair, Stopwatch, measure_pair


@dataclass(frozen=True)
class Roof:
    """``times``: the roof's and ours. Its ratio is our share of the roof's bandwidth (both move as many bytes)."""

    input: str
    dtype: torch.dtype
    what: str
    roof: str
    times: Pair
    nbytes: int  # read and written


def run(
    inputs: Iterator[Input], dtypes: tuple[torch.dtype, ...], budget: float, stopwatch: Stopwatch = HOST
) -> Iterator[Roof]:
    """Yields two rows per input and dtype: the forward, and the backward op into the gradient's own memory."""
    ops = torch.ops.leakyrelu_ext
    for case in inputs:
        for dtype in dtypes:
            x = case.make(dtype)
            out = torch.empty_like(x).copy_(x)
            _, mask = ops.leaky_relu_forward(x, SLOPE)

            def copy(x: torch.Tensor = x, out: torch.Tensor = out) -> object:
                return out.copy_(x)

            def forward(x: torch.Tensor = x) -> object:
                return leakyrelu_ext.leaky_relu(x, SLOPE)

            def multiply(out: torch.Tensor = out) -> object:
                return out.mul_(1.0)

            def backward(out: torch.Tensor = out, mask: torch.Tensor = mask) -> object:
                return ops.leaky_relu_backward_(out, mask, 1.0)  # a slope of 1: or the gradient would shrink to nothing

            pairs = (("forward", "out.copy_(x)", copy, forward), ("backward in place", "out.mul_(1.0)", multiply, backward))
            for what, roof, theirs, ours in pairs:
                yield Roof(case.name, dtype, what, roof, measure_pair(theirs, ours, budget, stopwatch), 2 * x.nbytes)
