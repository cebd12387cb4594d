"""The fused families, and beside each what it stands for: PyTorch's own modules, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import leakyrelu_ext
from cases import randn

CHANNELS, SLOPE, GAIN, CLAMP = 8, 0.2, 1.5, 1.25


class NormThenActivation(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.activation = norm, nn.LeakyReLU(SLOPE)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        normalized = self.norm(input)
        return self.activation(normalized if residual is None else normalized + residual)


class BiasThenActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(CHANNELS))

    def forward(self, input: Tensor) -> Tensor:
        return (F.leaky_relu(input + self.bias.view(-1, 1, 1), SLOPE) * GAIN).clamp(-CLAMP, CLAMP)


class AddThenActivation(nn.Module):
    def forward(self, input: Tensor, residual: Tensor) -> Tensor:
        return F.leaky_relu(input + residual, SLOPE) * GAIN


# The layer, and the end of a residual block; each fused and separate.
Pair = tuple[Callable[[], nn.Module], Callable[[], nn.Module]]


def norms(fused: type[nn.Module], norm: type[nn.Module], *arguments: Any, **options: Any) -> tuple[Pair, Pair]:
    pair = (
        lambda: fused(*arguments, CHANNELS, **options, negative_slope=SLOPE),
        lambda: NormThenActivation(norm(*arguments, CHANNELS, **options)),
    )
    return pair, pair


LAYERS: dict[str, tuple[Pair, Pair]] = {
    "batch": norms(leakyrelu_ext.BatchNormLeakyReLU2d, nn.BatchNorm2d),
    "instance": norms(leakyrelu_ext.InstanceNormLeakyReLU2d, nn.InstanceNorm2d, affine=True, track_running_stats=True),
    "group": norms(leakyrelu_ext.GroupNormLeakyReLU, nn.GroupNorm, 2),
    "bias": (
        (lambda: leakyrelu_ext.BiasLeakyReLU(CHANNELS, SLOPE, GAIN, CLAMP), BiasThenActivation),
        (lambda: leakyrelu_ext.AddLeakyReLU(SLOPE, gain=GAIN), AddThenActivation),
    ),
}


class Residual(nn.Module):
    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.conv(x), x)


@dataclass(frozen=True)
class Family:
    name: str
    kinds: tuple[str, ...]

    @property
    def area(self) -> str:
        """Of docs/compatibility.md."""
        return "Fused: bias, residual and Leaky ReLU" if self.kinds == ("bias",) else "Fused: norm and Leaky ReLU"

    def layers(self, fused: bool, dtype: torch.dtype = torch.float64) -> list[nn.Module]:
        """One of each kind, without what is around them."""
        return [noisy(LAYERS[kind][0][not fused]().to(dtype)) for kind in self.kinds]

    def net(self, fused: bool, dtype: torch.dtype = torch.float64) -> nn.Sequential:
        """A small network with each kind as a layer and at the end of a residual block. Fused or not: the same numbers."""
        torch.manual_seed(0)
        blocks: list[nn.Module] = [nn.Conv2d(3, CHANNELS, 3)]
        for kind in self.kinds:
            layer, end = (pair[not fused] for pair in LAYERS[kind])
            blocks += [layer(), Residual(end())]
        return noisy(nn.Sequential(*blocks, nn.Conv2d(CHANNELS, 2, 1)).to(dtype))

    def nets(self, dtype: torch.dtype = torch.float64) -> list[nn.Sequential]:
        """Ours, and the reference."""
        return [self.net(fused, dtype) for fused in (True, False)]


FAMILIES = {kind: Family(kind, (kind,)) for kind in LAYERS}
# For what takes long: a net with all norms instead of one for each.
AREAS = {"norm": Family("norm", ("batch", "instance", "group")), "bias": FAMILIES["bias"]}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
each_area = pytest.mark.parametrize("family", AREAS.values(), ids=list(AREAS))


def noisy(module: nn.Module) -> nn.Module:
    """Parameters that are not ones and zeros; of the two sides, the same."""
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.add_(randn(*parameter.shape, dtype=parameter.dtype, seed=30 + index) * 0.3)
    return module


def batch(samples: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return randn(samples, 3, 7, 6, dtype=dtype, seed=seed)


def step(model: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    """Output, every gradient and every buffer of a training step. ``call``: the model with something around it."""
    x = x.detach().clone().requires_grad_()
    output = (call or model)(x)
    output.float().square().mean().backward() if output.dtype.itemsize == 2 else output.square().mean().backward()
    return [output.detach(), x.grad, *(p.grad for p in model.parameters()), *(b.clone() for b in model.buffers())]


def assert_same(actual: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)
