"""A norm and Leaky ReLU: ours and PyTorch's own composition, under one signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import leakyrelu_ext
from cases import randn

KINDS = ("batch", "instance", "group")
GROUPS = 2
EMULATED = hasattr(torch.ops.cuda_on_host, "report")  # --cuda-on-host
MEMORY_FORMATS = {
    "contiguous": {},
    "channels_last": {4: torch.channels_last, 5: torch.channels_last_3d},
}


class Operands(NamedTuple):
    """Of one call; running statistics are None for group norm, ``residual`` may be."""

    input: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    residual: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Operands:
        """Copies of another dtype, in the same memory order."""
        return Operands(*(None if t is None else t.detach().to(dtype, copy=True) for t in self))

    def leaves(self) -> Operands:
        """Copies, of which all but the running statistics require grad."""
        copies = [None if t is None else t.detach().clone() for t in self]
        for index in (0, 1, 2, 5):
            if copies[index] is not None:
                copies[index].requires_grad_()
        return Operands(*copies)

    def differentiable(self) -> dict[str, Tensor]:
        return {name: t for name, t in self._asdict().items() if t is not None and t.requires_grad}


def operands(
    kind: str,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    residual: bool = False,
    parameters: torch.dtype | None = None,
    mean: float = 0.0,
) -> Operands:
    channels, of_parameters = shape[1], parameters or dtype
    input = (randn(*shape, dtype=torch.float64) + mean).to(dtype)
    other = randn(*shape, dtype=dtype, seed=4)
    memory_format = MEMORY_FORMATS[layout].get(len(shape), torch.contiguous_format)
    running = kind != "group"
    return Operands(
        input.contiguous(memory_format=memory_format),
        randn(channels, dtype=of_parameters, seed=1) * 0.3 + 1,
        randn(channels, dtype=of_parameters, seed=2) * 0.3,
        (randn(channels, dtype=torch.float64, seed=3) + mean).to(of_parameters) if running else None,
        randn(channels, dtype=of_parameters, seed=5).square() + 0.5 if running else None,
        other.contiguous(memory_format=memory_format) if residual else None,
    )


def ours(
    kind: str, given: Operands, training: bool = True, slope: float = 0.1, eps: float = 1e-5, momentum: float = 0.1
) -> Tensor:
    input, weight, bias, mean, var, residual = given
    if kind == "group":
        return leakyrelu_ext.group_norm_leaky_relu(input, GROUPS, weight, bias, eps, slope, residual=residual)
    function = leakyrelu_ext.batch_norm_leaky_relu if kind == "batch" else leakyrelu_ext.instance_norm_leaky_relu
    return function(input, mean, var, weight, bias, training, momentum, eps, slope, residual=residual)


def composition(
    kind: str, given: Operands, training: bool = True, slope: float = 0.1, eps: float = 1e-5, momentum: float = 0.1
) -> Tensor:
    input, weight, bias, mean, var, residual = given
    if kind == "group":
        normalized = F.group_norm(input, GROUPS, weight, bias, eps)
    else:
        norm = F.batch_norm if kind == "batch" else F.instance_norm
        normalized = norm(input, mean, var, weight, bias, training, momentum, eps)
    return F.leaky_relu(normalized if residual is None else normalized + residual, slope)


def elementary(kind: str, given: Operands, training: bool = True, slope: float = 0.1, eps: float = 1e-5) -> Tensor:
    """In training, by sums and products: PyTorch's own batch norm has no right third derivatives (2.13)."""
    assert training
    input, weight, bias, _, _, residual = given
    samples, channels = input.shape[:2]
    groups = {"batch": channels, "instance": channels, "group": GROUPS}[kind]
    x = input.reshape(samples, groups, channels // groups, -1)
    dims = (0, 2, 3) if kind == "batch" else (2, 3)
    distance = x - x.mean(dims, keepdim=True)
    normalized = (distance / (distance.square().mean(dims, keepdim=True) + eps).sqrt()).reshape(input.shape)
    shape = (channels,) + (1,) * (input.dim() - 2)
    normalized = normalized * weight.view(shape) + bias.view(shape)
    return F.leaky_relu(normalized if residual is None else normalized + residual, slope)


def results(
    function: Callable[..., Tensor], kind: str, given: Operands, grad_output: Tensor, **settings: Any
) -> dict[str, Tensor]:
    """The result, the gradients and the running statistics, by name."""
    leaves = given.leaves()
    output = function(kind, leaves, **settings)
    wanted = leaves.differentiable()
    grads = torch.autograd.grad(output, list(wanted.values()), grad_output.to(output.dtype))
    running = {"running_mean": leaves.running_mean, "running_var": leaves.running_var}
    found = {"output": output.detach(), **dict(zip(wanted, grads, strict=True))}
    return found | {name: statistic for name, statistic in running.items() if statistic is not None}


def contiguous(given: Operands) -> Operands:
    return Operands(*(None if t is None else t.contiguous() for t in given))


def assert_as_exact_as_pytorch(kind: str, given: Operands, factor: float = 1.1, **settings: Any) -> dict[str, Tensor]:
    """The largest error against float64 is at most PyTorch's own in its better layout, or that of rounding the result."""
    grad_output = randn(*given.input.shape, dtype=given.input.dtype, seed=9)
    exact = results(composition, kind, contiguous(given).to(torch.float64), grad_output, **settings)
    theirs = results(composition, kind, contiguous(given), grad_output, **settings)
    actual = results(ours, kind, given, grad_output, **settings)
    for name, value in actual.items():
        assert value.dtype == theirs[name].dtype
        expected = exact[name]
        rounding = torch.finfo(value.dtype).eps * expected.abs().max()
        if EMULATED and name == "running_mean":  # next to PyTorch's on the CPU, whose sums are of float64
            rounding = rounding + torch.finfo(value.dtype).eps * given.input.double().std()
        error, accepted = (((r.double() - expected).abs()).max() for r in (value, theirs[name]))
        accepted = accepted.nan_to_num(0, posinf=0)  # torch 2.7's group norm overflows at 1e30
        assert error <= factor * accepted + 2 * rounding, (name, error, accepted, rounding)
    return actual
