"""`leakyrelu-bench compile`: training steps with the built-in and with ours: eager, fused, compiled, and as one op."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import leakyrelu_ext

from .compiling import first_line
from .contest import Contest, Group, Prepared
from .saved import saved_bytes
from .timing import Timed

RIVALS = ("eager built-in", "compiled built-in")
# fused: after leakyrelu_ext.convert(net, fuse=True).
OURS = ("eager ours", "eager ours, fused", "compiled ours", "compiled ours, as op")


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


def _prepare_all(net: Net, seed: int) -> Prepared:
    calls: dict[str, Timed] = {}
    saved: dict[str, float] = {}
    obstacles: dict[str, str] = {}
    for contestant in (*RIVALS, *OURS):
        try:
            step, saved[contestant] = _prepare(net, contestant, seed)
            calls[contestant] = Timed(step)
        except Exception as error:  # whatever a compiler raises, the row says it
            if "compiled" not in contestant:
                raise
            obstacles[contestant] = first_line(error)
    return Prepared(calls, obstacles, facts={"saved_bytes": saved})


def group(net: Net, seed: int) -> Group:
    """The contest of one net: a training step (forward, backward; no optimiser), every rival against each of ours."""
    versions = {name: f"torch {torch.__version__}" + " (Inductor)" * ("compiled" in name) for name in RIVALS}
    prepared: list[Prepared] = []

    def prepare(_: int) -> Prepared:
        if not prepared:  # weights and what is compiled last; activations are new at every step
            prepared.append(_prepare_all(net, seed))
        return prepared[0]

    @contextlib.contextmanager
    def entered() -> Iterator[Sequence[Contest]]:
        torch._dynamo.reset()
        try:
            yield [Contest("compile", net.name, net.batch, "float32", "", "training step", "", OURS, versions, prepare)]
        finally:
            leakyrelu_ext.set_compile_target("builtin")
            prepared.clear()

    return Group(1, entered)
