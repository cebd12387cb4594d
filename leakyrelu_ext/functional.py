"""Leaky ReLU as functions: argument handling and the choice of the path a call takes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from . import _composite
from ._library import native

_eager = native or _composite


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    r"""Leaky ReLU, bit for bit :func:`torch.nn.functional.leaky_relu`: ``x if x > 0 else negative_slope * x``.

    Keeps one bit per element for the backward instead of ``input``, so ``input`` and the output may both be overwritten
    before it. Under :func:`torch.compile`, export and tracing it becomes the built-in, which those can fuse.

    Args:
        input: floating-point tensor of any shape ``(*)`` and memory format.
        negative_slope: slope for ``x <= 0`` (dimensionless; any float, also negative, also in place).
        inplace: overwrite ``input``.

    Returns:
        Tensor of ``input``'s shape, dtype and strides (those of ``torch.empty_like(input)``); ``input`` if ``inplace``.

    Raises:
        TypeError: ``input`` is not a tensor, or ``negative_slope`` is not a number.
        NotImplementedError: ``input`` is integral, bool, complex, sparse COO or a strided nested tensor.
        RuntimeError: ``input`` has another sparse layout; ``negative_slope`` overflows ``input``'s precision; ``inplace`` on
            a leaf that requires grad, on a view of one, or on an expanded tensor.

    Maas, Hannun, Ng: Rectifier Nonlinearities Improve Neural Network Acoustic Models, ICML 2013.
    """
    if torch.jit.is_scripting():  # TorchScript does not look into the else
        return F.leaky_relu(input, negative_slope, inplace)
    else:  # noqa: RET505
        if has_torch_function_unary(input):  # subclasses, FX proxies
            return handle_torch_function(leaky_relu, (input,), input, negative_slope=negative_slope, inplace=inplace)
        # Compiled, an opaque op would stop Inductor from fusing; the native library is for eager mode.
        ops = _composite if torch.compiler.is_compiling() else _eager
        if inplace:
            return ops.leaky_relu_(input, negative_slope)  # type: ignore[no-any-return]
        return ops.leaky_relu(input, negative_slope)  # type: ignore[no-any-return]


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """In-place version of :func:`leaky_relu`."""
    return leaky_relu(input, negative_slope, inplace=True)
