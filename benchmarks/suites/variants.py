"""One architecture in the forms that are held against each other: built-in, in place, converted, installed, compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import leakyrelu_ext

from ..measure.compiling import compiled, first_line
from ..models import Model


@dataclass(frozen=True)
class Variant:
    """``ours``: with our modules; ``installed``: with PyTorch's, and our kernels under them while it is called.

    ``inplace``: of every LeakyReLU; None leaves each as the authors have it. ``target``: see set_compile_target.
    """

    name: str
    ours: bool
    inplace: bool | None = None
    installed: bool = False
    compiled: bool = False
    target: str = "builtin"  # or "op"


BUILTIN = Variant("built-in", ours=False)
OUT_OF_PLACE = Variant("built-in, out of place", ours=False, inplace=False)
IN_PLACE = Variant("built-in, in place", ours=False, inplace=True)
COMPILED = Variant("compiled built-in", ours=False, compiled=True)
OURS = Variant("ours", ours=True)
OURS_OUT_OF_PLACE = Variant("ours, out of place", ours=True, inplace=False)
OURS_IN_PLACE = Variant("ours, in place", ours=True, inplace=True)
INSTALLED = Variant("ours, installed", ours=False, installed=True)
OURS_COMPILED = Variant("compiled ours", ours=True, compiled=True)
OURS_AS_OP = Variant("compiled ours, as op", ours=True, compiled=True, target="op")
VARIANTS = [BUILTIN, OUT_OF_PLACE, IN_PLACE, COMPILED, OURS, OURS_OUT_OF_PLACE, OURS_IN_PLACE, INSTALLED, OURS_COMPILED]
VARIANTS += [OURS_AS_OP]


@dataclass(frozen=True)
class Made:
    """``module`` holds the parameters, ``call`` is what to call with its inputs (compiled, if it is to be)."""

    module: nn.Module
    call: Callable[..., Any]


def make(model: Model, variant: Variant, seed: int, device: torch.device | str = "cpu") -> Made:
    """The same weights for every variant of a seed.

    Raises:
        ValueError: ``installed``, and that cannot be had; the message is one line.
    """
    torch.manual_seed(seed)
    module = model.make().to(device)
    if variant.inplace is not None:
        for layer in module.modules():
            if isinstance(layer, nn.LeakyReLU):
                layer.inplace = variant.inplace
    if variant.ours:
        leakyrelu_ext.convert(module)
    if variant.installed:
        try:
            with leakyrelu_ext.install():
                pass
        except RuntimeError as error:
            raise ValueError(first_line(error)) from error

        def installed_call(*inputs: torch.Tensor) -> Any:
            with leakyrelu_ext.install():  # takes 25 us; the others must not have it
                return module(*inputs)

        return Made(module, installed_call)
    if not variant.compiled:
        return Made(module, module)

    def forward(*inputs: torch.Tensor) -> Any:
        return module(*inputs)

    compiled_forward = compiled(forward)  # type: ignore[arg-type]

    def call(*inputs: torch.Tensor) -> Any:
        leakyrelu_ext.set_compile_target(variant.target)  # a guard of what is compiled
        try:
            return compiled_forward(*inputs)
        finally:
            leakyrelu_ext.set_compile_target("builtin")

    return Made(module, call)
