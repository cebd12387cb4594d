"""`leakyrelu-bench compile`: training steps with the built-in and with ours: eager, compiled, and as one op."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..measure.compiling import first_line
from ..measure.contest import Contest, Group, MismatchError, Prepared
from ..measure.saved import saved_bytes
from ..measure.timing import Timed
from ..models import loss
from .agreement import Agreement
from .variants import BUILTIN, COMPILED, OURS, OURS_AS_OP, OURS_COMPILED, Made, make

_EAGER_BUILTIN = replace(BUILTIN, name="eager built-in")
RIVALS = (_EAGER_BUILTIN, COMPILED)
CONVERTED = (replace(OURS, name="eager ours"), OURS_COMPILED, OURS_AS_OP)


@dataclass(frozen=True)
class Net:
    """``make``: the net with nn.LeakyReLU; ``batch``: its input's shape."""

    name: str
    make: Callable[[], nn.Module]
    batch: tuple[int, ...]


def _convolutions(norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(4):
        layers += [nn.Conv2d(channels, 32, 3, padding=1), *([nn.BatchNorm2d(32)] if norm else []), nn.LeakyReLU(0.1)]
        channels = 32
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(4))
        self.activation = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = self.activation(conv(x) + x)
        return x


def _perceptron(dropout_p: float = 0.0) -> nn.Module:
    layers: list[nn.Module] = []
    features = 256
    for _ in range(2):
        layers += [nn.Linear(features, 1024), nn.LeakyReLU(0.1), *([nn.Dropout(dropout_p)] if dropout_p else [])]
        features = 1024
    return nn.Sequential(*layers, nn.Linear(features, 10))


NETS = (
    Net("4 x (conv, norm, activation)", lambda: _convolutions(norm=True), (4, 3, 64, 64)),
    Net("4 x (conv, norm, activation), large", lambda: _convolutions(norm=True), (8, 3, 128, 128)),
    Net("4 x (conv, activation)", lambda: _convolutions(norm=False), (4, 3, 64, 64)),
    Net("4 x (conv, activation), large", lambda: _convolutions(norm=False), (8, 3, 128, 128)),
    Net("4 x (conv, add, activation)", _Residual, (4, 32, 64, 64)),
    Net("perceptron", _perceptron, (512, 256)),
    Net("perceptron, dropout", lambda: _perceptron(0.1), (512, 256)),
)


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
    agreement = Agreement(make(net, _EAGER_BUILTIN, seed), (x,), seed, training=True)
    agreement.prepare()
    calls: dict[str, Timed] = {}
    saved: dict[str, float] = {}
    obstacles: dict[str, str] = {}
    for variant in (*RIVALS, *CONVERTED):
        contestant, compiled = variant.name, variant.compiled
        try:
            made = make(net, variant, seed)
            step = _step(made, x)
            step()  # compiled with dropout: not what is compared
            difference = agreement.difference(variant, made)
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
    versions = {rival.name: f"torch {torch.__version__}" + " (Inductor)" * rival.compiled for rival in RIVALS}
    ours = tuple(variant.name for variant in CONVERTED)
    prepared: list[Prepared] = []

    def prepare(_: int) -> Prepared:
        if not prepared:  # weights and what is compiled last; activations are new at every step
            prepared.append(_prepare_all(net, seed))
        return prepared[0]

    @contextlib.contextmanager
    def entered() -> Iterator[Sequence[Contest]]:
        torch._dynamo.reset()
        try:
            yield [Contest("compile", net.name, net.batch, "float32", "", "training step", "", ours, versions, prepare)]
        finally:
            prepared.clear()

    return Group(1, entered)
