"""Leaky ReLU composed of PyTorch's own ops, for torch.compile and export, and if the compiled library is missing.

Masks are bool tensors of the input's shape, not packed bits: the compiled library never gets them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._torch_versions import DtypeError

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def leaky_relu(input: Tensor, negative_slope: float) -> Tensor:
    return F.leaky_relu(input, negative_slope)


def leaky_relu_(input: Tensor, negative_slope: float) -> Tensor:
    if isinstance(negative_slope, (int, float)) and negative_slope >= 0:
        return F.leaky_relu(input, negative_slope, inplace=True)
    # The built-in infers the sign from its output: with a negative slope its gradient raises, and under Inductor it is
    # silently wrong.
    output = F.leaky_relu(torch.clone(input), negative_slope)
    return input.copy_(output)


def leaky_relu_forward(input: Tensor, negative_slope: float) -> tuple[Tensor, Tensor]:
    """Like the op of the same name, but with a bool mask of ``input``'s shape."""
    return F.leaky_relu(input, negative_slope), input > 0


def leaky_relu_backward(
    grad_output: Tensor, mask: Tensor, negative_slope: float, output_strides: tuple[int, ...] | None
) -> Tensor:
    return torch.where(mask, grad_output, grad_output * negative_slope)


def check_bias_leaky_relu(
    op: str,
    input: Tensor,
    bias: Tensor | None = None,
    negative_slope: float = 0.01,
    residual: Tensor | None = None,
    dim: int = 1,
    gain: float = 1.0,
    clamp: float | None = None,
    dropout_p: float = 0.0,
) -> None:
    """Raises what the compiled ops raise, with the same messages. ``op``: their name, which ends in ``_`` if in place."""
    bound = 0.0 if clamp is None else clamp
    numbers = {"negative_slope": negative_slope, "gain": gain, "clamp": bound, "dropout_p": dropout_p}
    if isinstance(dim, bool) or not isinstance(dim, (int, torch.SymInt)):
        raise TypeError(f"{op}(): argument 'dim' must be int, not {type(dim).__name__}")
    for name, tensor in (("input", input), ("bias", bias), ("residual", residual)):
        if not isinstance(tensor, Tensor) and (name == "input" or tensor is not None):
            raise TypeError(f"{op}(): argument '{name}' must be Tensor, not {type(tensor).__name__}")
        if tensor is not None and tensor.dtype not in FLOATING:
            raise DtypeError(
                f"{op}(): argument '{name}' must be of dtype float64, float32, bfloat16 or float16, got {tensor.dtype}"
            )
        if tensor is not None and tensor.device != input.device:
            raise RuntimeError(
                f"{op}(): argument '{name}' must be on the device of 'input' ({input.device}), got {tensor.device}"
            )
    if bias is not None:
        if not -input.dim() <= dim < input.dim():
            raise IndexError(
                f"{op}(): argument 'dim' must be a dimension of 'input', from {-input.dim()} to {input.dim() - 1}, got {dim}"
            )
        if bias.dim() != 1 or bias.size(0) != input.size(dim):
            raise RuntimeError(
                f"{op}(): argument 'bias' must be of shape ({input.size(dim)},), the size of 'input' in dim {dim}, "
                f"got {tuple(bias.shape)}"
            )
    if residual is not None:
        sizes, other = (1,) * (residual.dim() - input.dim()) + tuple(input.shape), tuple(residual.shape)
        aligned = (1,) * (len(sizes) - len(other)) + other
        if residual.dim() > input.dim() or any(r not in (1, n) for r, n in zip(aligned, sizes, strict=True)):
            raise RuntimeError(
                f"{op}(): argument 'residual' must broadcast to the shape of 'input' {tuple(input.shape)}, got {other}"
            )
        if op.endswith("_") and torch.promote_types(input.dtype, residual.dtype) != input.dtype:
            raise RuntimeError(
                f"{op}(): argument 'residual' of dtype {residual.dtype} makes results that 'input' of dtype {input.dtype} "
                "cannot hold in place"
            )
    for name, number in numbers.items():
        if not isinstance(number, (int, float, torch.SymInt, torch.SymFloat)):
            raise TypeError(f"{op}(): argument '{name}' must be float, not {type(number).__name__}")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"{op}(): argument 'clamp' must be at least 0, or None, got {clamp}")
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"{op}(): argument 'dropout_p' must be from 0 to 1, got {dropout_p}")


def bias_leaky_relu(
    input: Tensor,
    bias: Tensor | None,
    negative_slope: float,
    residual: Tensor | None,
    dim: int,
    gain: float,
    clamp: float | None,
    dropout_p: float,
) -> Tensor:
    check_bias_leaky_relu("bias_leaky_relu", input, bias, negative_slope, residual, dim, gain, clamp, dropout_p)
    dtype = input.dtype if residual is None else torch.promote_types(input.dtype, residual.dtype)
    # Like the kernels: float arithmetic for the 16-bit dtypes, rounded once at the end.
    opmath = torch.promote_types(dtype, torch.float32)
    x = input.to(opmath)
    if bias is not None:
        shape = [1] * input.dim()
        shape[dim] = -1
        x = x + bias.to(opmath).view(shape)
    if residual is not None:
        x = x + residual.to(opmath)
    x = F.leaky_relu(x, negative_slope)
    if gain != 1:
        x = x * gain
    if clamp is not None:
        bound = clamp if clamp <= torch.finfo(opmath).max else math.inf  # torch raises for a bound beyond the dtype's range
        x = x.clamp(-bound, bound)
    if dropout_p:
        x = F.dropout(x, dropout_p)
    return x.to(dtype)


def bias_leaky_relu_(input: Tensor, *arguments: Any) -> Tensor:
    check_bias_leaky_relu("bias_leaky_relu_", input, *arguments)
    return input.copy_(bias_leaky_relu(input.clone(), *arguments))


def _after_norm(input: Tensor, normalized: Tensor, residual: Tensor | None, negative_slope: float) -> Tensor:
    output = F.leaky_relu(normalized if residual is None else normalized + residual, negative_slope)
    memory_format = {4: torch.channels_last, 5: torch.channels_last_3d}.get(input.dim())  # which instance norm loses
    # The stride first: vmap cannot tell about memory formats.
    if memory_format is None or input.stride(1) != 1 or input.is_contiguous():
        return output
    return output.contiguous(memory_format=memory_format) if input.is_contiguous(memory_format=memory_format) else output


def batch_norm_leaky_relu(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    negative_slope: float,
    residual: Tensor | None,
) -> Tensor:
    normalized = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _after_norm(input, normalized, residual, negative_slope)


def instance_norm_leaky_relu(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    negative_slope: float,
    residual: Tensor | None,
) -> Tensor:
    normalized = F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return _after_norm(input, normalized, residual, negative_slope)


def group_norm_leaky_relu(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    negative_slope: float,
    residual: Tensor | None,
) -> Tensor:
    return _after_norm(input, F.group_norm(input, num_groups, weight, bias, eps), residual, negative_slope)
