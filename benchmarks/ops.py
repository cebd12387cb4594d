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
from .timing import HOST, Pair, Sample, Stopwatch, measure_pair, measure_shares

# forward: the function, without grad.
# backward op: the op alone, as autograd calls it.
# backward, forward+backward: the module through autograd, with a gradient that the caller keeps.
# owned backward: what the activation adds to the backward of a chain, where its incoming gradient is an op's result that
# nobody else holds.
MODES = ("forward", "backward op", "backward", "forward+backward", "owned backward")
# Elements from which on each is shown: below, Python's part of the call or the chain's own time hides it.
FROM_ELEMENTS = {"backward op": 2**16, "owned backward": 2**20}


class MismatchError(Exception):
    """Both sides did not compute the same bits: there is nothing to time."""


@dataclass(frozen=True)
class Side:
    """One contestant: the function and the module it is used through, and a call of its backward op (of input, gradient)."""

    function: Callable[[Tensor, float], Tensor]
    module: nn.Module
    backward_op: Callable[[Tensor, Tensor], Callable[[], object]]


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
        if self.mode == "forward":
            builtin = ours = 2 * n
        elif self.mode == "forward+backward":
            builtin, ours = 5 * n, 4 * n + 2 * mask
        else:
            builtin, ours = 3 * n, 2 * n + mask
        return (builtin, self.times.one), (ours, self.times.other)


def _builtin_backward_op(x: Tensor, grad: Tensor) -> Callable[[], object]:
    return lambda: torch.ops.aten.leaky_relu_backward(grad, x, SLOPE, False)


def _our_backward_op(x: Tensor, grad: Tensor) -> Callable[[], object]:
    output, mask = torch.ops.leakyrelu_ext.leaky_relu_forward(x, SLOPE)
    strides = None if output.is_contiguous() else output.stride()
    return lambda: torch.ops.leakyrelu_ext.leaky_relu_backward(grad, mask, SLOPE, strides)


def sides() -> tuple[Side, Side]:
    return (
        Side(F.leaky_relu, nn.LeakyReLU(SLOPE), _builtin_backward_op),
        Side(leakyrelu_ext.leaky_relu, leakyrelu_ext.LeakyReLU(SLOPE), _our_backward_op),
    )


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


def same_bits(one: Tensor, other: Tensor) -> bool:
    return one.stride() == other.stride() and torch.equal(_bits(one), _bits(other))


def check_same_bits(builtin: Side, ours: Side, x: Tensor, grad: Tensor, name: str) -> None:
    """Raises MismatchError unless outputs and gradients agree bit for bit."""
    results = []
    for side in (builtin, ours):
        leaf = x.detach().requires_grad_()
        output = side.module(leaf)
        of_op = side.backward_op(x, grad)()
        assert isinstance(of_op, Tensor)
        gradients = (*torch.autograd.grad(output, leaf, grad), torch.empty_like(x).copy_(of_op))
        results.append((side.function(x, SLOPE), output.detach(), *gradients))
    for what, expected, actual in zip(("function", "module", "gradient", "backward op"), *results, strict=True):
        if not same_bits(expected, actual):
            raise MismatchError(f"{name}, {x.dtype}: the {what} differs from the built-in's; nothing was timed")


def _calls(side: Side, mode: str, x: Tensor, grad: Tensor) -> Callable[[], object]:
    if mode == "forward":
        return lambda: side.function(x, SLOPE)
    if mode == "backward op":
        return side.backward_op(x, grad)
    leaf = x.detach().requires_grad_()
    if mode == "backward":
        output = side.module(leaf)
        return lambda: torch.autograd.grad(output, leaf, grad, retain_graph=True)

    def both() -> None:
        leaf.grad = None
        side.module(leaf).backward(grad)

    return both


def _chain(activation: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Callable[[], object]:
    leaf = x.detach().requires_grad_()
    output = activation(leaf) * 2  # its backward makes a tensor that only the engine holds
    return lambda: torch.autograd.grad(output, leaf, grad, retain_graph=True)


def modes(x: Tensor) -> list[str]:
    # On CUDA no gradient's memory is reused: an owned backward is a backward.
    wanted = [mode for mode in MODES if mode != "owned backward" or x.is_cpu]
    return [mode for mode in wanted if x.numel() >= FROM_ELEMENTS.get(mode, 0)]


def run(inputs: Iterable[Input], dtypes: Iterable[torch.dtype], budget: float, stopwatch: Stopwatch = HOST) -> Iterator[Row]:
    """Yields a row per input, dtype and mode; each takes about ``budget`` seconds.

    Raises:
        MismatchError: before anything is timed on an input on which the two sides differ.
    """
    dtypes = tuple(dtypes)
    builtin, ours = sides()
    for case in inputs:
        for dtype in dtypes:
            x = case.make(dtype)
            grad = torch.empty_like(x).normal_(generator=torch.Generator(x.device).manual_seed(1))
            check_same_bits(builtin, ours, x, grad, case.name)
            leaf = x.detach().requires_grad_()
            builtin_saved, ours_saved = saved_bytes(builtin.module, leaf), saved_bytes(ours.module, leaf)
            for mode in modes(x):
                if mode == "owned backward":
                    without = _chain(nn.Identity(), x, grad)
                    times = measure_shares(without, _chain(builtin.module, x, grad), _chain(ours.module, x, grad), budget)
                else:
                    theirs, mine = (_calls(side, mode, x, grad) for side in (builtin, ours))
                    times = measure_pair(theirs, mine, budget, stopwatch)
                yield Row(case.name, dtype, mode, times, x.nbytes, builtin_saved, ours_saved)


def geometric_mean(ratios: Iterable[float]) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))
