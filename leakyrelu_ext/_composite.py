"""Leaky ReLU in PyTorch's own ops: under torch.compile and export, and where the compiled library is missing.

Its masks are bool tensors of the input's shape, not packed bits: they never meet the compiled library's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def leaky_relu(input: Tensor, negative_slope: float) -> Tensor:
    return F.leaky_relu(input, negative_slope)


def leaky_relu_(input: Tensor, negative_slope: float) -> Tensor:
    if isinstance(negative_slope, (int, float)) and negative_slope >= 0:
        return F.leaky_relu(input, negative_slope, inplace=True)
    # The built-in takes the sign from its output: below 0 its gradient raises, and under Inductor is silently wrong.
    output = F.leaky_relu(torch.clone(input), negative_slope)
    return input.copy_(output)


def leaky_relu_forward(input: Tensor, negative_slope: float) -> tuple[Tensor, Tensor]:
    """As the op of that name, but with a bool mask of ``input``'s shape."""
    return F.leaky_relu(input, negative_slope), input > 0


def leaky_relu_backward(
    grad_output: Tensor, mask: Tensor, negative_slope: float, output_strides: tuple[int, ...] | None
) -> Tensor:
    return torch.where(mask, grad_output, grad_output * negative_slope)
