"""Bytes that an activation keeps for the backward, alone and between convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import leakyrelu_ext

from ...measure.compiling import compiled, first_line
from ...measure.contest import MismatchError
from ...measure.saved import saved_bytes
from ...results import Row
from ..variants import OURS_OUT_OF_PLACE, OUT_OF_PLACE, Variant
from .rows import RIVALS, row, with_figures

MODE = "saved for the backward"
ALONE = "activation alone"
# The next convolution keeps its input, the activation's output. In place, the built-in keeps that same tensor and nothing
# else: against it nothing is saved there.
BETWEEN = "conv -> activation -> conv"
SHAPES = {ALONE: (2**20,), BETWEEN: (8, 32, 64, 64)}  # 2^20 elements, both
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_SLOPE = 0.01


@dataclass(frozen=True)
class Case:
    place: str  # ALONE or BETWEEN
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return f"{self.place}, {str(self.dtype).removeprefix('torch.')}"


CASES = tuple(Case(place, dtype) for place in SHAPES for dtype in DTYPES)


def _net(case: Case, variant: Variant, seed: int, device: torch.device) -> nn.Module:
    torch.manual_seed(seed)
    activation = (leakyrelu_ext.LeakyReLU if variant.ours else nn.LeakyReLU)(_SLOPE, variant.inplace or False)
    if case.place == ALONE:
        return activation
    channels = SHAPES[case.place][1]
    convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
    return nn.Sequential(convolutions[0], activation, convolutions[1]).to(device, case.dtype)


def kept(case: Case, variant: Variant, seed: int, device: torch.device) -> int:
    """Bytes kept beyond the parameters, and between convolutions beyond the net's input, which are there anyway.

    Raises:
        MismatchError: eager ours gives another output than the built-in out of place.
        Exception: whatever that variant cannot do here, compiling for instance.
    """
    module, alone = _net(case, variant, seed, device), case.place == ALONE
    x = torch.randn(SHAPES[case.place], generator=torch.Generator().manual_seed(seed)).to(device, case.dtype)
    x.requires_grad_(alone)

    def forward(x: Tensor) -> Tensor:
        output: Tensor = module(x)
        return output

    called: Callable[[Tensor], Tensor] = compiled(forward) if variant.compiled else forward  # type: ignore[arg-type]

    def call() -> Tensor:
        return called(x * 1 if variant.inplace and alone else x)  # a leaf may not be overwritten; the product keeps nothing

    if not variant.compiled:  # compiled, a sum may come out rounded otherwise
        expected = _net(case, OUT_OF_PLACE, seed, device)(x)
        if not torch.equal(call(), expected):
            raise MismatchError(f"{case.name}: the output of {variant.name!r} differs from the built-in's")
    return saved_bytes(call, besides=[*module.parameters(), *([] if alone else [x])])


def rows(case: Case, seed: int, device: torch.device, compile: bool = True) -> Iterator[Row]:
    """Counted, not measured: without noise. ``compile``: with the compiled rival."""
    dtype = str(case.dtype).removeprefix("torch.")
    ours = kept(case, OURS_OUT_OF_PLACE, seed, device)
    for rival in RIVALS if compile else RIVALS[:2]:
        shape = SHAPES[case.place]
        found = replace(row(case.place, shape, MODE, OURS_OUT_OF_PLACE, rival), dtype=dtype, layout="contiguous")
        try:
            theirs = kept(case, rival, seed, device)
        except MismatchError:
            raise
        except Exception as error:  # whatever a compiler or a backend raises stands in the row
            yield replace(found, obstacle=first_line(error))
        else:
            yield with_figures(found, [ours], [theirs], noise=0.0)
