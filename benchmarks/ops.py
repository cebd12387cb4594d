"""`leakyrelu-bench ops`: forward, backward and both, the built-in against ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import leakyrelu_ext

from .inputs import SLOPE, Input
from .timing import Pair, Sample, measure_pair

MODES = ("forward", "backward", "forward+backward")


class MismatchError(Exception):
    """Both sides did not compute the same bits: there is nothing to time."""


@dataclass(frozen=True)
class Side:
    """One contestant: the function and the module it is used through."""

    function: Callable[[Tensor, float], Tensor]
    module: nn.Module


@dataclass(frozen=True)
class Row:
    input: str
    dtype: torch.dtype
    mode: str
    times: Pair  # the built-in's and ours
    nbytes: int  # of the input
    builtin_saved: int  # bytes kept for the backward
    ours_saved: int

    @property
    def traffic(self) -> tuple[tuple[int, Sample], tuple[int, Sample]]:
        """The bytes that each side must read and write, with its sample."""
        # The built-in's backward reads the input once more; ours reads the mask that its forward wrote.
        n, mask = self.nbytes, self.ours_saved
        builtin = {"forward": 2 * n, "backward": 3 * n, "forward+backward": 5 * n}
        ours = {"forward": 2 * n, "backward": 2 * n + mask, "forward+backward": 4 * n + 2 * mask}
        return (builtin[self.mode], self.times.one), (ours[self.mode], self.times.other)


def sides() -> tuple[Side, Side]:
    return Side(F.leaky_relu, nn.LeakyReLU(SLOPE)), Side(leakyrelu_ext.leaky_relu, leakyrelu_ext.LeakyReLU(SLOPE))


def saved_bytes(module: nn.Module, x: Tensor) -> int:
    """Bytes that one forward keeps for its backward, as saved-tensor hooks see them."""
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x)
    return sum(kept)


def _bits(tensor: Tensor) -> Tensor:
    """The tensor as integers, every NaN as one (its payload is not part of the contract)."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return torch.where(tensor.isnan(), math.nan, tensor).view(integer)


def check_same_bits(builtin: Side, ours: Side, x: Tensor, grad: Tensor, name: str) -> None:
    """Raises MismatchError unless outputs and gradients agree bit for bit."""
    results = []
    for side in (builtin, ours):
        leaf = x.detach().requires_grad_()
        output = side.module(leaf)
        results.append((side.function(x, SLOPE), output.detach(), *torch.autograd.grad(output, leaf, grad)))
    for what, expected, actual in zip(("function", "module", "gradient"), *results, strict=True):
        if expected.stride() != actual.stride() or not torch.equal(_bits(expected), _bits(actual)):
            raise MismatchError(f"{name}, {x.dtype}: the {what} differs from the built-in's; nothing was timed")


def _calls(side: Side, mode: str, x: Tensor, grad: Tensor) -> Callable[[], object]:
    if mode == "forward":
        return lambda: side.function(x, SLOPE)
    leaf = x.detach().requires_grad_()
    if mode == "backward":
        output = side.module(leaf)
        return lambda: torch.autograd.grad(output, leaf, grad, retain_graph=True)

    def both() -> None:
        leaf.grad = None
        side.module(leaf).backward(grad)

    return both


def run(inputs: Iterable[Input], dtypes: Iterable[torch.dtype], budget: float) -> Iterator[Row]:
    """Yields a row per input, dtype and mode; each takes about ``budget`` seconds.

    Raises:
        MismatchError: before anything is timed on an input on which the two sides differ.
    """
    dtypes = tuple(dtypes)
    builtin, ours = sides()
    for case in inputs:
        for dtype in dtypes:
            x = case.make().to(dtype)
            grad = torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(1))
            check_same_bits(builtin, ours, x, grad, case.name)
            leaf = x.detach().requires_grad_()
            builtin_saved, ours_saved = saved_bytes(builtin.module, leaf), saved_bytes(ours.module, leaf)
            for mode in MODES:
                times = measure_pair(_calls(builtin, mode, x, grad), _calls(ours, mode, x, grad), budget)
                yield Row(case.name, dtype, mode, times, x.nbytes, builtin_saved, ours_saved)


def geometric_mean(ratios: Iterable[float]) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))
