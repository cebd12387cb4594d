"""Leaky ReLU in PyTorch's own ops: under torch.compile and export, and where the compiled library is missing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def leaky_relu(input: Tensor, negative_slope: float) -> Tensor:
    return F.leaky_relu(input, negative_slope)


def leaky_relu_(input: Tensor, negative_slope: float) -> Tensor:
    if negative_slope < 0:
        # The built-in takes the sign from its output: its gradient raises here, and under Inductor is silently wrong.
        return input.copy_(F.leaky_relu(input.clone(), negative_slope))
    return F.leaky_relu(input, negative_slope, inplace=True)


def leaky_relu_forward(input: Tensor, negative_slope: float) -> tuple[Tensor, Tensor]:
    """As the op of that name, but with a bool mask of ``input``'s shape."""
    return F.leaky_relu(input, negative_slope), input > 0


def leaky_relu_backward(
    grad_output: Tensor, mask: Tensor, negative_slope: float, output_strides: tuple[int, ...] | None
) -> Tensor:
    return torch.where(mask, grad_output, grad_output * negative_slope)
