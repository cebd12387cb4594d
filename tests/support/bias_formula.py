"""bias_leaky_relu spelled out, and inputs that reach each of its ways through memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import aten
from cases import randn


def formula(
    input: Tensor,
    bias: Tensor | None = None,
    negative_slope: float = 0.01,
    *,
    residual: Tensor | None = None,
    dim: int = 1,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    """In float (double for float64), rounded once: the promise. Differentiable."""
    dtype = input.dtype if residual is None else torch.promote_types(input.dtype, residual.dtype)
    opmath = torch.promote_types(dtype, torch.float32)
    x = input.to(opmath)
    if bias is not None:
        shape = [1] * input.dim()
        shape[dim] = bias.numel()
        x = x + bias.to(opmath).reshape(shape)
    if residual is not None:
        x = x + residual.to(opmath)
    x = aten.leaky_relu(x, negative_slope) * gain
    return (x if clamp is None else x.clamp(-clamp, clamp)).to(dtype)


# Shape and dim: channels that are long runs of whole mask bytes, that repeat soon, and neither; one channel; one element.
CHANNELS = {
    "images": ((3, 6, 8, 16), 1),
    "long rows": ((1, 2, 130, 136), 1),
    "odd images": ((3, 5, 7, 7), 1),
    "many odd images": ((2, 700, 7, 7), 1),
    "matrix": ((33, 13), 1),
    "wide matrix": ((3, 5000), 1),
    "first dim": ((13, 9), 0),
    "last dim": ((2, 3, 4, 19), -1),
    "volumes": ((2, 4, 3, 4, 8), 1),
    "one channel": ((3, 1, 5, 7), 1),
    "one element": ((1, 1), 1),
    "vector": ((37,), 0),
}


def in_layout(x: Tensor, layout: str) -> Tensor:
    """The same values in another place."""
    if layout == "reversed":  # dimensions in memory from the last to the first: channels_last, and more
        order = list(range(x.dim()))[::-1]
        return x.permute(order).contiguous().permute(order)
    if layout == "channels_last":
        order = [0, *range(2, x.dim()), 1] if x.dim() > 2 else list(range(x.dim()))
        back = [order.index(d) for d in range(x.dim())]
        return x.permute(order).contiguous().permute(back)
    if layout == "strided":
        return torch.stack([x, x + 1], -1)[..., 0]
    if layout == "misaligned":
        return x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x)
    assert layout == "contiguous"
    return x


IN_MEMORY = ("contiguous", "channels_last", "reversed", "strided", "misaligned")


def operands(shape: tuple[int, ...], dim: int, dtype: torch.dtype, layout: str = "contiguous") -> dict[str, Any]:
    """input, bias and residual as leaves, the residual in another layout than the input."""
    other = "reversed" if layout == "contiguous" else "contiguous"
    bias_dtype = torch.promote_types(dtype, torch.float32)
    return {
        "input": in_layout(randn(*shape, dtype=dtype), layout).detach().requires_grad_(),
        "bias": randn(shape[dim], dtype=bias_dtype, seed=1).requires_grad_(),
        "residual": in_layout(randn(*shape, dtype=dtype, seed=2), other).detach().requires_grad_(),
    }
