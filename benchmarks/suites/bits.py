"""Whether two tensors are the same, bit for bit or up to rounding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    """The tensor as integers, every NaN as one (its payload is not part of the contract)."""
    return torch.where(tensor.isnan(), math.nan, tensor).view(_INTEGERS[tensor.element_size()])


def same_bits(one: Tensor, other: Tensor) -> bool:
    """In the same strides, too."""
    return one.stride() == other.stride() and torch.equal(_bits(one), _bits(other))


def close(actual: Tensor, expected: Tensor, roundings: int) -> bool:
    """Within so many roundings of ``expected``'s dtype, element by element: relative to it, of subnormals to their step."""
    kind = torch.finfo(expected.dtype)
    tolerance = expected.double().abs().clamp(min=kind.smallest_normal) * (roundings * kind.eps / 2)
    return bool(((actual.double() - expected.double()).abs() <= tolerance).all())
