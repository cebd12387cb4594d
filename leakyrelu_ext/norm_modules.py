"""A norm and Leaky ReLU in one, as modules: constructor and state are those of the norm."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from .norm_functional import batch_norm_leaky_relu, group_norm_leaky_relu, instance_norm_leaky_relu


def _traced_as_leaf(module: nn.Module, input: Tensor | fx.Proxy) -> bool:
    """Whether FX asks: it goes into modules that are not of torch.nn, and these check shapes and count batches."""
    return isinstance(input, fx.Proxy) and getattr(input.tracer, "root", module) is not module


def _leaf(module: nn.Module, *arguments: Any) -> Any:
    """What FX makes of PyTorch's own norms: a node that calls the module."""
    tracer = arguments[0].tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(module), arguments, {})


class _BatchNormLeakyReLU(_NormBase):
    """No subclass of PyTorch's batch norms: what replaces those (``convert_sync_batchnorm``) would drop the activation."""

    _dims: tuple[int, ...]

    def __init__(self, *args: Any, negative_slope: float = 0.01, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.negative_slope = negative_slope

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self._dims:
            raise ValueError(f"expected {' or '.join(f'{dims}D' for dims in self._dims)} input (got {input.dim()}D input)")

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        if _traced_as_leaf(self, input):
            return _leaf(self, input, residual)  # type: ignore[no-any-return]
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the mean over all batches
                momentum = 1.0 / float(self.num_batches_tracked)
        use_buffers = not self.training or self.track_running_stats
        return batch_norm_leaky_relu(
            input,
            self.running_mean if use_buffers else None,
            self.running_var if use_buffers else None,
            self.weight,
            self.bias,
            self.training or (self.running_mean is None and self.running_var is None),
            momentum,
            self.eps,
            self.negative_slope,
            residual=residual,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, negative_slope={self.negative_slope}"  # type: ignore[no-untyped-call]


class BatchNormLeakyReLU1d(_BatchNormLeakyReLU):
    """:class:`BatchNormLeakyReLU2d` for inputs of shape ``(N, C)`` or ``(N, C, L)``."""

    _dims = (2, 3)


class BatchNormLeakyReLU2d(_BatchNormLeakyReLU):
    """Batch norm and Leaky ReLU in one, on :func:`leakyrelu_ext.batch_norm_leaky_relu`.

    Constructor and state are those of :class:`torch.nn.BatchNorm2d`, whose checkpoints it loads. It is no subclass of it:
    ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` leaves it as it is, so its statistics stay those of one process.

    Args:
        *args: arguments of :class:`torch.nn.BatchNorm2d`: ``num_features``, ``eps``, ``momentum``, ``affine``,
            ``track_running_stats``, ``device``, ``dtype``.
        negative_slope: slope for sums ``<= 0`` (dimensionless; any float). Keyword only. Default: 0.01.
        **kwargs: the same arguments by name.

    Shape:
        - Input: ``(N, C, H, W)``; float64, float32, bfloat16 or float16.
        - Residual (optional second argument): added before the activation; of the input's shape.
        - Output: shape, dtype and memory format of the input.

    Example::

        >>> norm = BatchNormLeakyReLU2d(8, negative_slope=0.1)
        >>> norm.load_state_dict(torch.nn.BatchNorm2d(8).state_dict())
        <All keys matched successfully>
    """

    _dims = (4,)


class BatchNormLeakyReLU3d(_BatchNormLeakyReLU):
    """:class:`BatchNormLeakyReLU2d` for inputs of shape ``(N, C, D, H, W)``."""

    _dims = (5,)


class _InstanceNormLeakyReLU(_InstanceNorm):
    _dims_without_batch: int  # no method: Dynamo of torch 2.7 cannot trace PyTorch's in a strict export

    def __init__(self, *args: Any, negative_slope: float = 0.01, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        if _traced_as_leaf(self, input):
            return _leaf(self, input, residual)  # type: ignore[no-any-return]
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        dim = input.dim() - self._dims_without_batch
        if input.size(dim) != self.num_features:
            message = (
                f"expected input's size at dim={dim} to match num_features ({self.num_features}), got {input.size(dim)}"
            )
            if self.affine:
                raise ValueError(message)
            warnings.warn(f"{message}; without affine=True it is not used", stacklevel=2)
        if dim == 0:  # no batch
            return self.forward(input.unsqueeze(0), None if residual is None else residual.unsqueeze(0)).squeeze(0)
        return instance_norm_leaky_relu(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
            self.negative_slope,
            residual=residual,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, negative_slope={self.negative_slope}"  # type: ignore[no-untyped-call]


class InstanceNormLeakyReLU1d(_InstanceNormLeakyReLU, nn.InstanceNorm1d):
    """:class:`InstanceNormLeakyReLU2d` for inputs of shape ``(N, C, L)`` or ``(C, L)``."""

    _dims_without_batch = 2


class InstanceNormLeakyReLU2d(_InstanceNormLeakyReLU, nn.InstanceNorm2d):
    """Instance norm and Leaky ReLU in one, on :func:`leakyrelu_ext.instance_norm_leaky_relu`.

    Constructor and state are those of :class:`torch.nn.InstanceNorm2d`, whose checkpoints it loads.

    Args:
        *args: arguments of :class:`torch.nn.InstanceNorm2d`: ``num_features``, ``eps``, ``momentum``, ``affine``,
            ``track_running_stats``, ``device``, ``dtype``.
        negative_slope: slope for values ``<= 0`` (dimensionless; any float). Keyword only. Default: 0.01.
        **kwargs: the same arguments by name.

    Shape:
        - Input: ``(N, C, H, W)`` or ``(C, H, W)``; float64, float32, bfloat16 or float16.
        - Residual (optional second argument): added before the activation; of the input's shape.
        - Output: shape, dtype and memory format of the input.

    Example::

        >>> InstanceNormLeakyReLU2d(3, affine=True, negative_slope=0.2)(torch.randn(2, 3, 4, 4)).shape
        torch.Size([2, 3, 4, 4])
    """

    _dims_without_batch = 3


class InstanceNormLeakyReLU3d(_InstanceNormLeakyReLU, nn.InstanceNorm3d):
    """:class:`InstanceNormLeakyReLU2d` for inputs of shape ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""

    _dims_without_batch = 4


class GroupNormLeakyReLU(nn.GroupNorm):
    """Group norm and Leaky ReLU in one, on :func:`leakyrelu_ext.group_norm_leaky_relu`.

    Constructor and state are those of :class:`torch.nn.GroupNorm`, whose checkpoints it loads.

    Args:
        *args: arguments of :class:`torch.nn.GroupNorm`: ``num_groups``, ``num_channels``, ``eps``, ``affine``, ``device``,
            ``dtype``.
        negative_slope: slope for sums ``<= 0`` (dimensionless; any float). Keyword only. Default: 0.01.
        **kwargs: the same arguments by name.

    Shape:
        - Input: ``(N, C, *)``; float64, float32, bfloat16 or float16.
        - Residual (optional second argument): added before the activation; of the input's shape.
        - Output: shape, dtype and memory format of the input.

    Example::

        >>> GroupNormLeakyReLU(2, 8)(torch.randn(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, *args: Any, negative_slope: float = 0.01, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return group_norm_leaky_relu(
            input, self.num_groups, self.weight, self.bias, self.eps, self.negative_slope, residual=residual
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, negative_slope={self.negative_slope}"
