"""The suite `memory`, first part: bytes that an activation keeps for the backward, alone and between convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import leakyrelu_ext

from ..measure.compiling import compiled, first_line
from ..measure.contest import MismatchError
from ..measure.saved import saved_bytes
from ..results import Quantiles, Row
from .variants import COMPILED, IN_PLACE, OURS_OUT_OF_PLACE, OUT_OF_PLACE, Variant

MODE = "saved for the backward"
ALONE = "activation alone"
# The next convolution keeps its input, the activation's output. In place, the built-in keeps that same tensor and nothing
# else: against it nothing is saved there.
BETWEEN = "conv -> activation -> conv"
SHAPES = {ALONE: (2**20,), BETWEEN: (8, 32, 64, 64)}  # 2^20 elements, both
RIVALS = (OUT_OF_PLACE, IN_PLACE, COMPILED)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_SLOPE = 0.01


@dataclass(frozen=True)
class Case:
    name: str  # ALONE or BETWEEN
    dtype: torch.dtype

    @property
    def label(self) -> str:
        return f"{self.name}, {str(self.dtype).removeprefix('torch.')}"


CASES = tuple(Case(name, dtype) for name in SHAPES for dtype in DTYPES)


def _net(case: Case, variant: Variant, seed: int, device: torch.device) -> nn.Module:
    torch.manual_seed(seed)
    activation = (leakyrelu_ext.LeakyReLU if variant.ours else nn.LeakyReLU)(_SLOPE, variant.inplace or False)
    if case.name == ALONE:
        return activation
    channels = SHAPES[case.name][1]
    convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
    return nn.Sequential(convolutions[0], activation, convolutions[1]).to(device, case.dtype)


def kept(case: Case, variant: Variant, seed: int, device: torch.device) -> int:
    """Bytes kept beyond the parameters, and between convolutions beyond the net's input, which are there anyway.

    Raises:
        MismatchError: eager ours gives another output than the built-in out of place.
        Exception: whatever that variant cannot do here, compiling for instance.
    """
    module = _net(case, variant, seed, device)
    x = torch.randn(SHAPES[case.name], generator=torch.Generator().manual_seed(seed)).to(device, case.dtype)
    if case.name == ALONE:
        x.requires_grad_()

    def forward(x: Tensor) -> Tensor:
        output: Tensor = module(x)
        return output

    called: Callable[[Tensor], Tensor] = compiled(forward) if variant.compiled else forward  # type: ignore[arg-type]

    def call() -> Tensor:
        # A leaf may not be overwritten; multiplying by a number keeps nothing.
        return called(x * 1 if variant.inplace and case.name == ALONE else x)

    if not variant.compiled:  # compiled, a sum may come out rounded otherwise
        expected = _net(case, OUT_OF_PLACE, seed, device)(x)
        if not torch.equal(call(), expected):
            raise MismatchError(f"{case.label}: the output of {variant.name!r} differs from the built-in's")
    there = list(module.parameters()) if case.name == ALONE else [*module.parameters(), x]
    return saved_bytes(call, besides=there)


def rows(case: Case, seed: int, device: torch.device, compile: bool = True) -> Iterator[Row]:
    """Counted, not measured: without noise. ``compile``: with the compiled rival."""
    dtype = str(case.dtype).removeprefix("torch.")
    ours = kept(case, OURS_OUT_OF_PLACE, seed, device)
    for rival in RIVALS:
        if rival.compiled and not compile:
            continue
        figures: dict[str, object] = {}
        try:
            theirs = kept(case, rival, seed, device)
        except MismatchError:
            raise
        except Exception as error:  # whatever a compiler or a backend raises stands in the row
            figures["obstacle"] = first_line(error)
        else:
            ratio = theirs / ours
            figures = {
                "ours_value": Quantiles(ours, ours, ours),
                "rival_value": Quantiles(theirs, theirs, theirs),
                "ratio": ratio,
                "ratio_low": ratio,
                "ratio_high": ratio,
                "noise": 0.0,
            }
        yield Row(
            "memory", case.name, SHAPES[case.name], dtype, "contiguous", MODE, "", "bytes", OURS_OUT_OF_PLACE.name,
            rival.name, f"torch {torch.__version__}", **figures,  # type: ignore[arg-type]
        )  # fmt: skip
