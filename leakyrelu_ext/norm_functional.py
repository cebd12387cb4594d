"""A norm and Leaky ReLU in one, as functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from . import _composite
from ._library import native


def _ops() -> Any:
    return native if native is not None and not torch.compiler.is_compiling() else _composite


def batch_norm_leaky_relu(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    negative_slope: float = 0.01,
    *,
    residual: Tensor | None = None,
) -> Tensor:
    """``leaky_relu(batch_norm(input) + residual)``, with the arguments of :func:`torch.nn.functional.batch_norm`.

    On CPUs and NVIDIA GPUs it reads memory as often as a norm alone has to, and saves ``input`` and a few numbers per
    channel for the backward, nothing else of ``input``'s size (with ``residual`` one more bit per element). It adds up
    some values in float32 (on a CPU sixteen) and these sums in float64, computes in float32 (all in float64 for float64)
    and rounds once; PyTorch rounds after the norm, too. On other devices, under :func:`torch.compile`, export and tracing
    it becomes PyTorch's own norm and activation.

    Args:
        input: floating-point tensor of shape ``(N, C, *)``; contiguous and channels_last ones are read as they are.
        running_mean: of shape ``(C,)``; updated if ``training``, else used. None: not updated.
        running_var: the same for variances.
        weight: factor per channel, of shape ``(C,)``. Default: 1. Parameters are of ``input``'s dtype, or float32 if that is
            float16 or bfloat16; PyTorch takes no others.
        bias: summand per channel, of shape ``(C,)``. Default: 0.
        training: normalize with the batch's mean and variance.
        momentum: weight of the batch's statistics in the update of the running ones (dimensionless).
        eps: summand to the variance.
        negative_slope: slope for sums ``<= 0`` (dimensionless; any float).
        residual: added before the activation; of ``input``'s shape, or one that broadcasts with it. Default: none.

    Returns:
        Tensor of ``input``'s shape, dtype and memory format (contiguous or channels_last).

    Raises:
        ValueError: ``training``, and a channel has only one value.
        RuntimeError: what :func:`torch.nn.functional.batch_norm` raises: wrong shapes, devices, no statistics.
        NotImplementedError: a dtype that PyTorch's norm does not take.

    Ioffe, Szegedy: Batch Normalization, ICML 2015.
    """
    tensors = (input, running_mean, running_var, weight, bias, residual)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            batch_norm_leaky_relu,
            tensors,
            input,
            running_mean,
            running_var,
            weight=weight,
            bias=bias,
            training=training,
            momentum=momentum,
            eps=eps,
            negative_slope=negative_slope,
            residual=residual,
        )
    ops = _ops() if eps > 0 else _composite  # PyTorch's own function refuses others, where its op does not
    return ops.batch_norm_leaky_relu(  # type: ignore[no-any-return]
        input, running_mean, running_var, weight, bias, training, momentum, eps, negative_slope, residual
    )


def instance_norm_leaky_relu(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    negative_slope: float = 0.01,
    *,
    residual: Tensor | None = None,
) -> Tensor:
    """``leaky_relu(instance_norm(input) + residual)``, with the arguments of :func:`torch.nn.functional.instance_norm`.

    Everything that :func:`batch_norm_leaky_relu` says holds here, but that each channel of each sample is normalized by
    itself; running statistics are updated with the samples' mean. A channels_last input stays so (PyTorch's instance norm
    returns a contiguous tensor).

    Args:
        input: floating-point tensor of shape ``(N, C, *)``.
        running_mean: of shape ``(C,)``, or None.
        running_var: of shape ``(C,)``, or None.
        weight: of shape ``(C,)``, or None for 1.
        bias: of shape ``(C,)``, or None for 0.
        use_input_stats: normalize with ``input``'s own statistics; else with the running ones.
        momentum: weight of ``input``'s statistics in the update of the running ones (dimensionless).
        eps: summand to the variance.
        negative_slope: slope for sums ``<= 0`` (dimensionless; any float).
        residual: added before the activation. Default: none.

    Returns:
        Tensor of ``input``'s shape, dtype and memory format (contiguous or channels_last).

    Raises:
        ValueError: ``use_input_stats``, and a channel of a sample has only one value.
        RuntimeError: what :func:`torch.nn.functional.instance_norm` raises: wrong shapes, devices, no statistics.
        NotImplementedError: a dtype that PyTorch's norm does not take.

    Ulyanov, Vedaldi, Lempitsky: Instance Normalization, arXiv 1607.08022, 2016.
    """
    tensors = (input, running_mean, running_var, weight, bias, residual)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            instance_norm_leaky_relu,
            tensors,
            input,
            running_mean=running_mean,
            running_var=running_var,
            weight=weight,
            bias=bias,
            use_input_stats=use_input_stats,
            momentum=momentum,
            eps=eps,
            negative_slope=negative_slope,
            residual=residual,
        )
    return _ops().instance_norm_leaky_relu(  # type: ignore[no-any-return]
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, negative_slope, residual
    )


def group_norm_leaky_relu(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    negative_slope: float = 0.01,
    *,
    residual: Tensor | None = None,
) -> Tensor:
    """``leaky_relu(group_norm(input) + residual)``, with the arguments of :func:`torch.nn.functional.group_norm`.

    Everything that :func:`batch_norm_leaky_relu` says holds here, but that ``C / num_groups`` channels of a sample are
    normalized together.

    Args:
        input: floating-point tensor of shape ``(N, C, *)``.
        num_groups: number of groups, which divides ``C``.
        weight: of shape ``(C,)``, or None for 1.
        bias: of shape ``(C,)``, or None for 0.
        eps: summand to the variance.
        negative_slope: slope for sums ``<= 0`` (dimensionless; any float).
        residual: added before the activation. Default: none.

    Returns:
        Tensor of ``input``'s shape, dtype and memory format (contiguous or channels_last).

    Raises:
        ValueError: there is only one value per group and one group to normalize.
        RuntimeError: what :func:`torch.nn.functional.group_norm` raises: wrong shapes, devices, no statistics.
        NotImplementedError: a dtype that PyTorch's norm does not take.

    Wu, He: Group Normalization, ECCV 2018.
    """
    tensors = (input, weight, bias, residual)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            group_norm_leaky_relu,
            tensors,
            input,
            num_groups,
            weight=weight,
            bias=bias,
            eps=eps,
            negative_slope=negative_slope,
            residual=residual,
        )
    return _ops().group_norm_leaky_relu(  # type: ignore[no-any-return]
        input, num_groups, weight, bias, eps, negative_slope, residual
    )
