"""`leakyrelu-bench compile`: training steps with the built-in and with ours: eager, fused, compiled, and as one op."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import leakyrelu_ext

from .timing import HOST, interleave

# fused: after leakyrelu_ext.convert(net, fuse=True).
CONTESTANTS = (
    "eager built-in",
    "eager ours",
    "eager ours, fused",
    "compiled built-in",
    "compiled ours",
    "compiled ours, as op",
)


@dataclass(frozen=True)
class Net:
    """``make(activation)``: the net with that class of activation; ``batch``: its input's shape."""

    name: str
    make: Callable[[type[nn.LeakyReLU]], nn.Module]
    batch: tuple[int, ...]


def _convolutions(activation: type[nn.LeakyReLU], norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(4):
        layers += [nn.Conv2d(channels, 32, 3, padding=1), *([nn.BatchNorm2d(32)] if norm else []), activation(0.1)]
        channels = 32
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    def __init__(self, activation: type[nn.LeakyReLU]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(4))
        self.activation = activation(0.1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = self.activation(conv(x) + x)
        return x


def _perceptron(activation: type[nn.LeakyReLU], dropout_p: float = 0.0) -> nn.Module:
    layers: list[nn.Module] = []
    features = 256
    for _ in range(2):
        layers += [nn.Linear(features, 1024), activation(0.1), *([nn.Dropout(dropout_p)] if dropout_p else [])]
        features = 1024
    return nn.Sequential(*layers, nn.Linear(features, 10))


NETS = (
    Net("4 x (conv, norm, activation)", lambda activation: _convolutions(activation, norm=True), (4, 3, 64, 64)),
    Net("4 x (conv, norm, activation), large", lambda activation: _convolutions(activation, norm=True), (8, 3, 128, 128)),
    Net("4 x (conv, activation)", lambda activation: _convolutions(activation, norm=False), (4, 3, 64, 64)),
    Net("4 x (conv, activation), large", lambda activation: _convolutions(activation, norm=False), (8, 3, 128, 128)),
    Net("4 x (conv, add, activation)", _Residual, (4, 32, 64, 64)),
    Net("perceptron", _perceptron, (512, 256)),
    Net("perceptron, dropout", lambda activation: _perceptron(activation, 0.1), (512, 256)),
)


@dataclass(frozen=True)
class Row:
    net: str
    contestant: str
    seconds: float  # of a training step (forward, backward; no optimiser), median
    ratio: float  # eager built-in / this one, median over the rounds
    saved: int  # bytes kept for the backward, every storage once


def saved_bytes(call: Callable[[], object]) -> int:
    """Bytes that what ``call`` returns keeps for its backward, every storage once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = call()  # alive, and so what it keeps
    del output
    return sum(kept.values())


def _prepare(net: Net, contestant: str, seed: int) -> tuple[Callable[[], object], int]:
    """A training step, compiled if it is to be, and the bytes that its forward keeps."""
    x = torch.randn(net.batch, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    made = net.make(leakyrelu_ext.LeakyReLU if "ours" in contestant else nn.LeakyReLU)
    if "fused" in contestant:
        made = leakyrelu_ext.convert(made, fuse=True)
    called = torch.compile(made, fullgraph=True) if "compiled" in contestant else made

    def forward() -> Tensor:
        leakyrelu_ext.set_compile_target("op" if "as op" in contestant else "builtin")  # a guard of what is compiled
        return called(x)  # type: ignore[no-any-return]

    def step() -> None:
        made.zero_grad(set_to_none=True)
        forward().sum().backward()  # type: ignore[no-untyped-call]

    step()
    return step, saved_bytes(forward)


def run(seed: int, budget: float, nets: tuple[Net, ...] = NETS) -> Iterator[Row]:
    """Yields a row per net and contestant; each net takes about ``budget`` seconds per contestant, and its compilation."""
    for net in nets:
        torch._dynamo.reset()
        try:
            prepared = [_prepare(net, contestant, seed) for contestant in CONTESTANTS]
            with torch.compiler.set_stance("fail_on_recompile"):
                seconds, _ = interleave([step for step, _ in prepared], budget * len(prepared), HOST)
        finally:
            leakyrelu_ext.set_compile_target("builtin")
        for contestant, times, (_, saved) in zip(CONTESTANTS, seconds, prepared, strict=True):
            ratio = statistics.median(map(float.__truediv__, seconds[0], times))
            yield Row(net.name, contestant, statistics.median(times), ratio, saved)
