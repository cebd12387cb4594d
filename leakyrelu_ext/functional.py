"""Leaky ReLU as functions, which check arguments and choose the implementation for each call."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary, has_torch_function_variadic

from . import _composite
from ._library import native
from ._torch_versions import is_exporting

_eager = native or _composite
_under_compile: Any = _composite


def set_compile_target(target: str) -> None:
    """Sets what our functions and modules become under :func:`torch.compile`, in the whole process.

    Calls with dropout always become PyTorch's own ops. Export and tracing always get the built-in. Code that is compiled
    already is compiled again.

    Args:
        target: ``"builtin"`` (the default), which Inductor fuses with its neighbours, or ``"op"``: the eager kernels as one
            opaque op, which saves one bit per element. Where there is nothing to fuse with (convolution, activation,
            convolution; no norm between), the op was faster in training on CPUs, see ``leakyrelu-bench compile``.
            AOTAutograd has no second derivatives for either target, but does not notice one that goes through the op alone.

    Raises:
        ValueError: ``target`` is neither.
        RuntimeError: ``target`` is ``"op"``, and the compiled library is missing.
    """
    global _under_compile
    if target not in ("builtin", "op"):
        raise ValueError(f"argument 'target' must be 'builtin' or 'op', got {target!r}")
    if target == "op" and native is None:
        raise RuntimeError("argument 'target' cannot be 'op': the compiled library is missing (see build_info())")
    _under_compile = torch.ops.leakyrelu_ext if target == "op" else _composite


def _when_compiling() -> Any:
    return _composite if is_exporting() else _under_compile


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """Leaky ReLU, bit for bit :func:`torch.nn.functional.leaky_relu`: ``x if x > 0 else negative_slope * x``.

    Saves one bit per element for the backward instead of ``input``, so ``input`` and output may be overwritten before it.
    Saved-tensor hooks that cast must leave this mask, a uint8 tensor, as it is (cast only tensors that are
    ``is_floating_point()``). Under :func:`torch.compile`, export and tracing it becomes the built-in, which those can fuse
    (see :func:`set_compile_target`).

    Args:
        input: floating-point tensor of any shape ``(*)`` and memory format.
        negative_slope: slope for ``x <= 0`` (dimensionless; any float, also negative, also in place).
        inplace: overwrite ``input``.

    Returns:
        Tensor of ``input``'s shape, dtype and strides (those of ``torch.empty_like(input)``); ``input`` if ``inplace``.

    Raises:
        TypeError: ``input`` is not a tensor, or ``negative_slope`` is not a number.
        NotImplementedError: ``input`` is integral, bool or complex (torch 2.7: RuntimeError), sparse COO, or a strided
            nested tensor.
        RuntimeError: ``input`` has another sparse layout; ``negative_slope`` overflows ``input``'s precision; ``inplace`` on
            a leaf that requires grad, on a view of one, or on an expanded tensor.

    Maas, Hannun, Ng: Rectifier Nonlinearities Improve Neural Network Acoustic Models, ICML 2013.
    """
    # TorchScript does not compile the else branch.
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return F.leaky_relu(input, negative_slope, inplace)
    else:  # noqa: RET505
        if has_torch_function_unary(input):  # subclasses, FX proxies
            return handle_torch_function(leaky_relu, (input,), input, negative_slope=negative_slope, inplace=inplace)
        # Under torch.compile an opaque op would stop Inductor from fusing; the native library is for eager mode.
        ops = _when_compiling() if torch.compiler.is_compiling() else _eager
        if inplace:
            return ops.leaky_relu_(input, negative_slope)  # type: ignore[no-any-return]
        return ops.leaky_relu(input, negative_slope)  # type: ignore[no-any-return]


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """In-place version of :func:`leaky_relu`."""
    return leaky_relu(input, negative_slope, inplace=True)


def bias_leaky_relu(
    input: Tensor,
    bias: Tensor | None = None,
    negative_slope: float = 0.01,
    *,
    residual: Tensor | None = None,
    dim: int = 1,
    gain: float = 1.0,
    clamp: float | None = None,
    dropout_p: float = 0.0,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    """Bias, residual, Leaky ReLU, gain, clamp and dropout, each optional, in one pass forward and one backward.

    ``dropout(clamp(gain * leaky_relu(input + bias + residual)))``.

    Computes in float32 (float64 for float64) and rounds once. Saves one bit per element for the backward, two with clamp or
    dropout. The gradient of ``bias`` is summed in the same pass as the gradient of ``input``, in the same order for the same
    shape, memory format and number of threads. Under :func:`torch.compile`, export and tracing it becomes the same formula
    in PyTorch's own ops, which those can fuse.

    Args:
        input: floating-point tensor of shape ``(*)`` and any memory format.
        bias: of shape ``(input.size(dim),)`` and any floating dtype. It is read in float32 (float64 if the computation is),
            not rounded to ``input``'s dtype. Default: none.
        negative_slope: slope for sums ``<= 0`` (dimensionless; any float).
        residual: added to ``input``; of any shape that broadcasts to ``input``'s and any memory format. Default: none.
        dim: the dimension of ``input`` that ``bias`` belongs to.
        gain: factor after the activation (dimensionless; StyleGAN: ``2 ** 0.5``).
        clamp: results stay within ``[-clamp, clamp]``; NaN stays NaN. The gradient is that of :func:`torch.clamp`, also
            where a value equals a bound: 0 from torch 2.14 on, 1 before. Default: none.
        dropout_p: probability that an element becomes 0; the others are divided by ``1 - dropout_p``. Random numbers come
            from the device's default generator (:func:`torch.manual_seed`).
        training: if false, ``dropout_p`` counts as 0.
        inplace: overwrite ``input``.

    Returns:
        Tensor of ``input``'s shape and strides (those of ``torch.empty_like(input)``); of its dtype, or of the one that
        ``input`` and ``residual`` promote to; ``input`` if ``inplace``.

    Raises:
        TypeError: an argument has the wrong type.
        NotImplementedError: ``input``, ``bias`` or ``residual`` is not of a real floating-point dtype (torch 2.7:
            RuntimeError).
        RuntimeError: ``bias`` or ``residual`` has the wrong shape or is on another device; ``inplace`` on a leaf that
            requires grad, on a view of one, on an expanded tensor, or with a ``residual`` of a wider dtype.
        IndexError: ``dim`` is out of range.
        ValueError: ``clamp`` is negative or NaN, or ``dropout_p`` is outside [0, 1].

    Karras et al.: Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020 (bias, activation, gain). Srivastava et
    al.: Dropout: A Simple Way to Prevent Neural Networks from Overfitting, JMLR 2014.
    """
    tensors = (input, bias, residual)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            bias_leaky_relu,
            tensors,
            input,
            bias,
            negative_slope,
            residual=residual,
            dim=dim,
            gain=gain,
            clamp=clamp,
            dropout_p=dropout_p,
            training=training,
            inplace=inplace,
        )
    dropout_p = dropout_p if training else 0.0
    ops = _when_compiling() if torch.compiler.is_compiling() else _eager
    if dropout_p and torch.compiler.is_compiling():
        ops = _composite  # AOTAutograd would merge two equal calls, unless PyTorch's own ops draw the random numbers
    op = ops.bias_leaky_relu_ if inplace else ops.bias_leaky_relu
    return op(input, bias, negative_slope, residual, dim, gain, clamp, dropout_p)  # type: ignore[no-any-return]
