"""Leaky ReLU as modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .functional import bias_leaky_relu, leaky_relu


class LeakyReLU(nn.LeakyReLU):
    r"""Drop-in :class:`torch.nn.LeakyReLU` on :func:`leakyrelu_ext.leaky_relu`: same constructor, repr and (empty) state.

    Args:
        negative_slope: slope for ``x <= 0`` (dimensionless; any float, also negative, also in place). Default: 0.01.
        inplace: overwrite the input. Default: ``False``.

    Shape:
        - Input: :math:`(*)`, any number of dimensions, floating point.
        - Output: :math:`(*)`, same shape, dtype and memory format.

    Example::

        >>> LeakyReLU(0.1)(torch.tensor([-1.0, 2.0]))
        tensor([-0.1000,  2.0000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return leaky_relu(input, self.negative_slope, self.inplace)


def _unusual(module: nn.Module, **defaults: object) -> str:
    return "".join(f", {name}={getattr(module, name)}" for name in defaults if getattr(module, name) != defaults[name])


class BiasLeakyReLU(nn.Module):
    """Bias, Leaky ReLU, gain, clamp and dropout in one pass each way, on :func:`leakyrelu_ext.bias_leaky_relu`.

    Defaults and state (one tensor, ``bias``) are those of StyleGAN2's ``FusedLeakyReLU``. When called, it raises the errors
    of :func:`leakyrelu_ext.bias_leaky_relu`.

    Args:
        num_features: length of ``bias``, the input's size in dimension ``dim``.
        negative_slope: slope for sums ``<= 0`` (dimensionless; any float). Default: 0.2.
        gain: factor after the activation (dimensionless). Default: ``2 ** 0.5``, which keeps the variance.
        clamp: results stay within ``[-clamp, clamp]``; NaN stays NaN. Default: none.
        dropout_p: probability that an element becomes 0 in training; the others are divided by ``1 - dropout_p``.
        dim: the dimension of the input that ``bias`` belongs to. Default: 1; ``-1`` after :class:`torch.nn.Linear`.
        bias: whether to have a bias. Default: ``True``.
        inplace: overwrite the input. Default: ``False``.
        device: of ``bias``.
        dtype: of ``bias``, any floating dtype; it need not be the input's. Default: ``torch.get_default_dtype()``.

    Attributes:
        bias: parameter of shape ``(num_features,)``, zero at first; None if there is no bias.

    Shape:
        - Input: :math:`(*)`, with ``num_features`` in dimension ``dim``; float64, float32, bfloat16 or float16.
        - Output: :math:`(*)`, same shape, dtype and memory format.

    Example::

        >>> BiasLeakyReLU(3, negative_slope=0.5, gain=2.0)(torch.tensor([[-1.0, 0.0, 2.0]]))
        tensor([[-1.,  0.,  4.]], grad_fn=...)

    Karras et al.: Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020.
    """

    def __init__(
        self,
        num_features: int,
        negative_slope: float = 0.2,
        gain: float = 2**0.5,
        clamp: float | None = None,
        dropout_p: float = 0.0,
        dim: int = 1,
        bias: bool = True,
        inplace: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.negative_slope = negative_slope
        self.gain = gain
        self.clamp = clamp
        self.dropout_p = dropout_p
        self.dim = dim
        self.inplace = inplace
        self.bias: nn.Parameter | None
        if bias:
            self.bias = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return bias_leaky_relu(
            input,
            self.bias,
            self.negative_slope,
            dim=self.dim,
            gain=self.gain,
            clamp=self.clamp,
            dropout_p=self.dropout_p,
            training=self.training,
            inplace=self.inplace,
        )

    def extra_repr(self) -> str:
        shown = f"{self.num_features}, negative_slope={self.negative_slope}, gain={self.gain:.6g}"
        shown += _unusual(self, clamp=None, dropout_p=0.0, dim=1)
        return shown + (", bias=False" if self.bias is None else "") + _unusual(self, inplace=False)


class AddLeakyReLU(nn.Module):
    """The end of a residual block, ``leaky_relu(input + residual)``, in one pass each way.

    On :func:`leakyrelu_ext.bias_leaky_relu`, whose errors it raises when called; no parameters.

    Args:
        negative_slope: slope for sums ``<= 0`` (dimensionless; any float). Default: 0.01.
        inplace: overwrite the input. Default: ``False``.
        gain: factor after the activation (dimensionless). Default: 1.
        clamp: results stay within ``[-clamp, clamp]``; NaN stays NaN. Default: none.
        dropout_p: probability that an element becomes 0 in training; the others are divided by ``1 - dropout_p``.

    Shape:
        - Input: :math:`(*)`, any number of dimensions; float64, float32, bfloat16 or float16.
        - Residual: any shape that broadcasts to the input's.
        - Output: :math:`(*)`, same shape and memory format as the input; of the dtype that the two promote to.

    Example::

        >>> AddLeakyReLU(0.5)(torch.tensor([-1.0, 2.0]), torch.tensor([-1.0, 1.0]))
        tensor([-1.,  3.])

    He et al.: Deep Residual Learning for Image Recognition, CVPR 2016.
    """

    def __init__(
        self,
        negative_slope: float = 0.01,
        inplace: bool = False,
        *,
        gain: float = 1.0,
        clamp: float | None = None,
        dropout_p: float = 0.0,
    ) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace
        self.gain = gain
        self.clamp = clamp
        self.dropout_p = dropout_p

    def forward(self, input: Tensor, residual: Tensor) -> Tensor:
        return bias_leaky_relu(
            input,
            None,
            self.negative_slope,
            residual=residual,
            gain=self.gain,
            clamp=self.clamp,
            dropout_p=self.dropout_p,
            training=self.training,
            inplace=self.inplace,
        )

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + _unusual(self, gain=1.0, clamp=None, dropout_p=0.0, inplace=False)
