"""`leakyrelu-bench compile`: training steps with the built-in and with ours: eager, fused, compiled, and as one op."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import leakyrelu_ext

from .agreement import Agreement
from .compiling import first_line
from .contest import Contest, Group, MismatchError, Prepared
from .models import loss
from .saved import saved_bytes
from .timing import Timed
from .variants import Made, Variant

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


def _make(net: Net, contestant: str, seed: int) -> Made:
    torch.manual_seed(seed)
    module = net.make(leakyrelu_ext.LeakyReLU if "ours" in contestant else nn.LeakyReLU)
    if "fused" in contestant:
        module = leakyrelu_ext.convert(module, fuse=True)
    called = torch.compile(module, fullgraph=True) if "compiled" in contestant else module

    def call(x: Tensor) -> Tensor:
        leakyrelu_ext.set_compile_target("op" if "as op" in contestant else "builtin")  # a guard of what is compiled
        return called(x)  # type: ignore[no-any-return]

    return Made(module, call)


def _step(made: Made, x: Tensor) -> Callable[[], None]:
    def step() -> None:
        made.module.zero_grad(set_to_none=True)
        loss(made.call(x)).backward()  # type: ignore[no-untyped-call]

    return step


def _prepare_all(net: Net, seed: int) -> Prepared:
    """Training steps that have given what eager built-in gives.

    Raises:
        MismatchError: eager ours does not.
    """
    x = torch.randn(net.batch, generator=torch.Generator().manual_seed(seed))
    agreement = Agreement(_make(net, RIVALS[0], seed), (x,), seed, training=True)
    agreement.prepare()
    calls: dict[str, Timed] = {}
    saved: dict[str, float] = {}
    obstacles: dict[str, str] = {}
    for contestant in (*RIVALS, *OURS):
        compiled, fused = "compiled" in contestant, "fused" in contestant
        try:
            made = _make(net, contestant, seed)
            step = _step(made, x)
            step()  # compiled with dropout: not what is compared
            difference = agreement.difference(Variant(contestant, "ours" in contestant, fuse=fused, compiled=compiled), made)
            kept = saved_bytes(lambda made=made: made.call(x))  # type: ignore[misc]
        except Exception as error:  # whatever a compiler raises, the row says it
            if not compiled:
                raise
            obstacles[contestant] = first_line(error)
            continue
        if difference is not None and not compiled:
            raise MismatchError(f"{net.name}: {difference} of {contestant!r} differs from the built-in's")
        if difference is not None:
            obstacles[contestant] = f"computes something else: {difference} differs beyond rounding"
            continue
        calls[contestant], saved[contestant] = Timed(step), kept
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
