"""Leaky ReLU as modules."""

from __future__ import annotations

from torch import Tensor, nn

from .functional import leaky_relu


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
