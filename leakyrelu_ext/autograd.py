"""Leaky ReLU as a torch.autograd.Function, for use in custom Functions."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from . import _composite
from ._library import native

_ops: Any = torch.ops.leakyrelu_ext if native else _composite


class _LeakyReLUWithMask(torch.autograd.Function):
    """Returns the mask besides the output, because setup_context can save only what forward takes or returns."""

    @staticmethod
    def forward(input: Tensor, negative_slope: float) -> tuple[Tensor, Tensor]:
        output, mask = _ops.leaky_relu_forward(input, negative_slope)
        return output, mask

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        _, ctx.negative_slope = inputs
        result, mask = output
        ctx.output_strides = result.stride()
        ctx.mark_non_differentiable(mask)
        ctx.save_for_backward(mask)
        ctx.save_for_forward(mask)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _grad_mask: None) -> tuple[Tensor | None, None]:
        return _scale(ctx, grad_output), None

    @staticmethod
    def jvp(ctx: Any, input_tangent: Tensor | None, _slope_tangent: None) -> tuple[Tensor | None, None]:
        return _scale(ctx, input_tangent), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, None], input: Tensor, negative_slope: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        batched = torch.vmap(_ops.leaky_relu_forward, in_dims=(in_dims[0], None), randomness=info.randomness)
        return batched(input, negative_slope), (0, 0)


def _scale(ctx: Any, tangent: Tensor | None) -> Tensor | None:
    """The derivative is diagonal: forward and reverse mode multiply by the same factors."""
    if tangent is None:
        return None
    (mask,) = ctx.saved_tensors
    scaled: Tensor = _ops.leaky_relu_backward(tangent, mask, ctx.negative_slope, ctx.output_strides)
    return scaled


class LeakyReLUFunction(_LeakyReLUWithMask):
    """Leaky ReLU as a Function that saves one bit per element: ``LeakyReLUFunction.apply(input, negative_slope)``.

    It uses the forward and backward ops of :func:`leakyrelu_ext.leaky_relu`, whose C++ autograd costs less per call. It
    supports higher derivatives, forward mode and :mod:`torch.func`. :func:`torch.compile` refuses any Function with a
    ``jvp`` when gradients are needed: compile :func:`leakyrelu_ext.leaky_relu` instead.

    Do not derive from it: ``forward`` also returns the mask, which ``apply`` hides.
    """

    @classmethod
    def apply(cls, input: Tensor, negative_slope: float = 0.01) -> Tensor:
        """Applies Leaky ReLU.

        Args:
            input: floating-point tensor of any shape ``(*)`` and memory format.
            negative_slope: slope for ``x <= 0`` (dimensionless, any float). Default: 0.01.

        Returns:
            Tensor of ``input``'s shape, dtype and strides (those of ``torch.empty_like(input)``).

        Raises:
            TypeError: ``input`` is not a tensor, or ``negative_slope`` is not a number.
            NotImplementedError: ``input`` is integral, bool or complex (torch 2.7: RuntimeError).
        """
        if not isinstance(input, Tensor):
            raise TypeError(
                f"LeakyReLUFunction.apply(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}"
            )
        if not isinstance(negative_slope, Real):
            raise TypeError(
                "LeakyReLUFunction.apply(): argument 'negative_slope' (position 2) must be Number, not "
                f"{type(negative_slope).__name__}"
            )
        # Not super().apply(): functorch calls apply again, on the class it was given, and needs both outputs.
        output: Tensor
        output, _ = _LeakyReLUWithMask.apply(input, float(negative_slope))
        return output
