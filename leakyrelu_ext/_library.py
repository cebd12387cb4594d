"""Loads the compiled library and registers the ops' fake kernels; without the library, the built-in is used."""

from __future__ import annotations

import importlib
import os
import platform
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._composite import FLOATING, check_bias_leaky_relu
from ._torch_versions import DtypeError
from ._version import __version__

_FOLDER = Path(__file__).parent


def is_set(variable: str) -> bool:
    """True if the environment variable is set, and not to 0, false, no or off."""
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no", "off")


class _Torch(NamedTuple):
    """A build of torch: its version, and that of its GPU platform, if it has one."""

    version: str
    cuda: str | None = None
    hip: str | None = None
    xpu: str | None = None

    def __str__(self) -> str:
        names = {"CUDA": self.cuda, "ROCm": self.hip, "XPU": self.xpu}
        return f"torch {self.version} ({next((f'{name} {value}' for name, value in names.items() if value), 'CPU')} build)"


def _same_abi(built: _Torch, running: _Torch) -> bool:
    """Patch releases of torch share a C++ ABI, and so do minor versions of CUDA and ROCm; pre-releases promise nothing."""
    release = re.compile(r"(\d+\.\d+)\.\d+(\+[\w.]+)?")
    one, other = release.fullmatch(built.version), release.fullmatch(running.version)
    same_release = one[1] == other[1] if one and other else built.version == running.version
    majors = [[version and version.split(".")[0] for version in torch[1:]] for torch in (built, running)]
    return same_release and majors[0] == majors[1]


def _load() -> ModuleType:
    """Imports ``_C``, unless it was compiled against another torch: the ABI may differ even if no symbol is missing."""
    try:
        built = importlib.import_module("leakyrelu_ext._built_with")
    except ImportError as error:
        if (_FOLDER.parent / "setup.py").exists():
            raise ImportError(f"{_FOLDER} is the source tree, and nothing is compiled in it") from error
        raise
    try:
        compiled_against = _Torch(built.TORCH, built.CUDA, built.HIP, built.XPU)
    except AttributeError as error:
        raise ImportError("it was compiled by another version of this package") from error
    running = _Torch(torch.__version__, torch.version.cuda, torch.version.hip, torch.version.xpu)
    if not _same_abi(compiled_against, running):
        raise ImportError(f"it was compiled against {compiled_against}, and this is {running}")
    return importlib.import_module("leakyrelu_ext._C")


native: ModuleType | None
obstacle: str | None
try:
    native, obstacle = _load(), None
except ImportError as error:
    native, obstacle = None, str(error)
    _message = (
        f"leakyrelu_ext: the compiled library cannot be loaded ({obstacle}). "
        "Mend: in its sources, `pip install --no-build-isolation --force-reinstall --no-deps .` into this environment; then "
        "run from another folder, or add --editable."
    )
    if is_set("LEAKYRELU_EXT_REQUIRE_NATIVE"):
        raise ImportError(_message) from error
    warnings.warn(f"{_message} Until then everything runs on PyTorch's own leaky_relu.", stacklevel=3)


def build_info() -> dict[str, Any]:
    """Reports what is installed and which kernels will run.

    Returns:
        A dict with ``version``, ``native`` (the compiled library is loaded), ``obstacle`` (why not, else None),
        ``installed`` (PyTorch's ops that run on our kernels, see :func:`leakyrelu_ext.install`), ``torch``, ``python`` and
        ``platform`` (the running ones). With the compiled library also ``torch_built_with``, ``compiler``, ``cpu_tier``
        (instruction set of the CPU kernels: ``avx512_bf16``, ``avx512``, ``avx2``, ``neon`` or ``generic``; it follows
        ``ATEN_CPU_CAPABILITY`` and ``LEAKYRELU_EXT_CPU_TIER``), ``openmp`` (the CPU kernels use threads), ``cuda`` and
        ``cuda_archs`` (None without CUDA kernels).
    """
    info: dict[str, Any] = {
        "version": __version__,
        "native": native is not None,
        "obstacle": obstacle,
        "installed": ["aten::leaky_relu", "aten::leaky_relu_"] if native is not None and native.installed() else [],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if native is not None:
        info.update(native.build_info())
    return info


def stats() -> dict[str, int]:
    """Counts what the compiled library has done in this process so far.

    Returns:
        A dict of counters, all 0 without the compiled library: ``backward_calls`` (calls of native backward kernels),
        ``backward_into_grad_output`` (those of them that reused the incoming gradient's memory, which nobody else could read
        any more), ``installed_calls`` (calls of PyTorch's own op that ran on the kernels of :func:`leakyrelu_ext.install`),
        ``huge_page_requests`` (large new tensors for which the CPU kernels requested huge pages), ``streaming_calls`` (calls
        of CPU kernels whose results bypassed the caches).
    """
    names = ("backward_calls", "backward_into_grad_output", "installed_calls", "huge_page_requests", "streaming_calls")
    counts: dict[str, int] = dict.fromkeys(names, 0) if native is None else native.stats()
    return counts


def _check_floating(op: str, argument: str, tensor: Tensor) -> None:
    if tensor.dtype not in FLOATING:
        raise DtypeError(
            f"{op}(): \"leaky_relu\" not implemented for '{tensor.dtype}': argument '{argument}' must be of dtype float64, "
            "float32, bfloat16 or float16"
        )


def _empty_mask(input: Tensor) -> Tensor:
    return input.new_empty(((input.numel() + 7) // 8,), dtype=torch.uint8)


def _fake_leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    _check_floating("leaky_relu", "input", input)
    return torch.empty_like(input)


def _fake_leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    _check_floating("leaky_relu_", "input", input)
    return input


def _fake_leaky_relu_forward(input: Tensor, negative_slope: float = 0.01) -> tuple[Tensor, Tensor]:
    _check_floating("leaky_relu_forward", "input", input)
    return torch.empty_like(input), _empty_mask(input)


def _fake_leaky_relu_forward_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    _check_floating("leaky_relu_forward_", "input", input)
    return _empty_mask(input)


def _check_backward_arguments(op: str, grad_output: Tensor, mask: Tensor) -> None:
    _check_floating(op, "grad_output", grad_output)
    if mask.device != grad_output.device:
        raise RuntimeError(
            f"{op}(): argument 'mask' must be on the device of 'grad_output' ({grad_output.device}), got {mask.device}"
        )
    if mask.dtype != torch.uint8 or mask.dim() != 1 or mask.numel() != (grad_output.numel() + 7) // 8:
        raise RuntimeError(
            f"{op}(): argument 'mask' must be a uint8 tensor of shape ((numel of 'grad_output' + 7) // 8,), "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )


def _fake_leaky_relu_backward(
    grad_output: Tensor, mask: Tensor, negative_slope: float, output_strides: list[int] | None
) -> Tensor:
    _check_backward_arguments("leaky_relu_backward", grad_output, mask)
    if output_strides is not None and len(output_strides) != grad_output.dim():
        raise RuntimeError(
            "leaky_relu_backward(): argument 'output_strides' must have one entry per dimension of 'grad_output' "
            f"({grad_output.dim()}), got {output_strides}"
        )
    if output_strides is None:
        return torch.empty_like(grad_output, memory_format=torch.contiguous_format)
    return grad_output.new_empty_strided(grad_output.shape, output_strides)


def _fake_leaky_relu_backward_(grad_output: Tensor, mask: Tensor, negative_slope: float) -> None:
    _check_backward_arguments("leaky_relu_backward_", grad_output, mask)


def _fake_output_and_mask(
    op: str,
    input: Tensor,
    bias: Tensor | None = None,
    negative_slope: float = 0.01,
    residual: Tensor | None = None,
    dim: int = 1,
    gain: float = 1.0,
    clamp: float | None = None,
    dropout_p: float = 0.0,
) -> tuple[Tensor, Tensor]:
    check_bias_leaky_relu(op, input, bias, negative_slope, residual, dim, gain, clamp, dropout_p)
    dtype = input.dtype if residual is None else torch.promote_types(input.dtype, residual.dtype)
    halves = 1 if clamp is None and dropout_p == 0 else 2
    return torch.empty_like(input, dtype=dtype), input.new_empty(((input.numel() + 7) // 8 * halves,), dtype=torch.uint8)


def _fake_bias_leaky_relu(*arguments: Any, **keywords: Any) -> Tensor:
    return _fake_output_and_mask("bias_leaky_relu", *arguments, **keywords)[0]


def _fake_bias_leaky_relu_(input: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    _fake_output_and_mask("bias_leaky_relu_", input, *arguments, **keywords)
    return input


def _fake_bias_leaky_relu_forward(*arguments: Any, **keywords: Any) -> tuple[Tensor, Tensor]:
    return _fake_output_and_mask("bias_leaky_relu_forward", *arguments, **keywords)


def _fake_bias_leaky_relu_forward_(*arguments: Any, **keywords: Any) -> Tensor:
    return _fake_output_and_mask("bias_leaky_relu_forward_", *arguments, **keywords)[1]


def _check_bias_leaky_relu_backward(
    op: str, grad_output: Tensor, mask: Tensor, dropout_p: float, bias_dtype: torch.dtype
) -> None:
    _check_floating(op, "grad_output", grad_output)
    half = (grad_output.numel() + 7) // 8
    fits = mask.numel() == 2 * half or (mask.numel() == half and not dropout_p)
    if mask.dtype != torch.uint8 or mask.dim() != 1 or not fits:
        raise RuntimeError(
            f"{op}(): argument 'mask' must be a uint8 tensor of one bit per element of 'grad_output', two with clamp or "
            f"dropout, got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    if bias_dtype not in FLOATING:
        raise DtypeError(f"{op}(): argument 'bias_dtype' must be float64, float32, bfloat16 or float16, got {bias_dtype}")


def _fake_bias_leaky_relu_backward(
    grad_output: Tensor,
    mask: Tensor,
    negative_slope: float,
    output_strides: list[int] | None,
    gain: float,
    dropout_p: float,
    dim: int,
    bias_dtype: torch.dtype,
    output_mask: list[bool],
) -> tuple[Tensor, Tensor]:
    _check_bias_leaky_relu_backward("bias_leaky_relu_backward", grad_output, mask, dropout_p, bias_dtype)
    if not output_mask[0]:
        grad_input = grad_output.new_empty((0,))
    elif output_strides is None:
        grad_input = torch.empty_like(grad_output, memory_format=torch.contiguous_format)
    else:
        grad_input = grad_output.new_empty_strided(grad_output.shape, output_strides)
    return grad_input, grad_output.new_empty((grad_output.size(dim) if output_mask[1] else 0,), dtype=bias_dtype)


def _fake_bias_leaky_relu_backward_(
    grad_output: Tensor,
    mask: Tensor,
    negative_slope: float,
    gain: float,
    dropout_p: float,
    dim: int,
    bias_dtype: torch.dtype,
    with_bias: bool,
) -> Tensor:
    _check_bias_leaky_relu_backward("bias_leaky_relu_backward_", grad_output, mask, dropout_p, bias_dtype)
    return grad_output.new_empty((grad_output.size(dim) if with_bias else 0,), dtype=bias_dtype)


if native is not None:
    # For code that walks graphs and checks isinstance(grad_fn, Node).
    for _name in ("LeakyReLUBackward", "LeakyReluBackward0", "LeakyReluBackward1", "BiasLeakyReLUBackward"):
        torch.autograd.graph.Node.register(getattr(native, _name))
    torch.library.register_fake("leakyrelu_ext::leaky_relu", _fake_leaky_relu)
    torch.library.register_fake("leakyrelu_ext::leaky_relu_", _fake_leaky_relu_)
    torch.library.register_fake("leakyrelu_ext::leaky_relu_forward", _fake_leaky_relu_forward)
    torch.library.register_fake("leakyrelu_ext::leaky_relu_forward_", _fake_leaky_relu_forward_)
    torch.library.register_fake("leakyrelu_ext::leaky_relu_backward", _fake_leaky_relu_backward)
    torch.library.register_fake("leakyrelu_ext::leaky_relu_backward_", _fake_leaky_relu_backward_)
    torch.library.register_fake("leakyrelu_ext::bias_leaky_relu", _fake_bias_leaky_relu)
    torch.library.register_fake("leakyrelu_ext::bias_leaky_relu_", _fake_bias_leaky_relu_)
    torch.library.register_fake("leakyrelu_ext::bias_leaky_relu_forward", _fake_bias_leaky_relu_forward)
    torch.library.register_fake("leakyrelu_ext::bias_leaky_relu_forward_", _fake_bias_leaky_relu_forward_)
    torch.library.register_fake("leakyrelu_ext::bias_leaky_relu_backward", _fake_bias_leaky_relu_backward)
    torch.library.register_fake("leakyrelu_ext::bias_leaky_relu_backward_", _fake_bias_leaky_relu_backward_)
