"""torch.compile of whole models and steps; ../ops/test_compile.py holds what concerns our ops alone."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch._dynamo import compiled_autograd
from torch._dynamo.testing import CompileCounter
from torch._inductor.utils import run_and_get_code

from cases import assert_same_bits, randn
from models import MODELS, Discriminator, GraphAttention, UNet, example_inputs
from sides import BUILTIN, OURS, Side

BACKENDS = ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def feature(name: str, **more: str) -> pytest.MarkDecorator:
    return pytest.mark.feature("torch.compile", name, **more)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make(name: str, side: Side) -> nn.Module:
    torch.manual_seed(0)
    return {
        "U-Net": lambda: UNet(side.module),
        "discriminator": lambda: Discriminator(side.module),
        "GAT": lambda: GraphAttention(5, 4, side.function),
    }[name]()


def step(model: nn.Module, called: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    output = called(*inputs)
    return [output.detach(), *torch.autograd.grad(output.square().sum(), list(model.parameters()))]


@feature("whole models, fullgraph, forward and backward; backends eager, aot_eager, inductor")
@every_backend
@pytest.mark.parametrize("name", MODELS)
def test_models(side: Side, name: str, backend: str) -> None:
    model = make(name, side)
    inputs = example_inputs(model)
    expected = step(model, model, inputs)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for actual, wanted in zip(step(model, compiled, inputs), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-3)


@feature("dynamic shapes, one graph for all")
@every_backend
@pytest.mark.parametrize("inplace", [False, True])
def test_dynamic_shapes(side: Side, inplace: bool, backend: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), side.module(0.2, inplace))
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    with torch.compiler.set_stance("default"):
        compiled(randn(4, 3))
        with torch.compiler.set_stance("fail_on_recompile"):
            for rows in (5, 17, 64):
                torch.testing.assert_close(compiled(randn(rows, 3)), model(randn(rows, 3)))


@feature("no recompilation when only data change")
def test_no_recompilation(side: Side) -> None:
    counter = CompileCounter()
    model = nn.Sequential(nn.Linear(3, 3), side.module(0.2), nn.Linear(3, 3), side.module(0.2, inplace=True))
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for seed in range(5):
        compiled(randn(4, 3, seed=seed)).sum().backward()
    assert counter.frame_count == 1


@feature("a slope that changes, or is another module's")
def test_slopes(side: Side) -> None:
    model, x = nn.Sequential(side.module(0.2), side.module(-0.5)), randn(10)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same_bits(compiled(x), model(x))
    model[0].negative_slope = 0.7
    assert_same_bits(compiled(x), model(x))


@feature("autocast, bfloat16")
@every_backend
def test_autocast(side: Side, backend: str) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), side.module(0.2), nn.Linear(8, 8), side.module(0.1)), randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, actual = model(x), torch.compile(model, backend=backend, fullgraph=True)(x)
    assert actual.dtype == torch.bfloat16
    actual.float().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)


@feature("compiled autograd")
@every_backend
def test_compiled_autograd(side: Side, backend: str) -> None:
    model, inputs = make("U-Net", side), example_inputs(make("U-Net", side))
    expected = step(model, model, inputs)
    with compiled_autograd._enable(torch.compile(backend=backend)):
        model(*inputs).square().sum().backward()
    for parameter, wanted in zip(model.parameters(), expected[1:], strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@feature('modes "reduce-overhead" and "max-autotune-no-cudagraphs"')
@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune-no-cudagraphs"])
def test_modes(side: Side, mode: str) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), side.module(0.2)), randn(4, 8)
    torch.testing.assert_close(torch.compile(model, mode=mode, fullgraph=True)(x), model(x))


@feature("under checkpointing, compiled")
def test_checkpoint(side: Side) -> None:
    model, x = nn.Sequential(nn.Linear(6, 6), side.module(0.2), nn.Linear(6, 6)), randn(4, 6)
    compiled = torch.compile(
        lambda t: torch.utils.checkpoint.checkpoint(model, t, use_reentrant=False), backend="aot_eager", fullgraph=True
    )
    grads = torch.autograd.grad(compiled(x).sum(), list(model.parameters()))
    for grad, expected in zip(grads, torch.autograd.grad(model(x).sum(), list(model.parameters())), strict=True):
        torch.testing.assert_close(grad, expected)


@feature("torch.func transforms, compiled")
def test_transforms(side: Side) -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        return (side.function(x, 0.1) ** 3).sum()

    x = randn(4, 6)
    transforms = [
        torch.func.grad,
        lambda f: torch.func.vmap(torch.func.grad(f)),
        lambda f: torch.func.vmap(torch.func.grad(f), in_dims=1),
        torch.func.jacrev,
    ]
    for transform in transforms:
        compiled = torch.compile(transform(loss), backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), transform(loss)(x))


@feature("the module's own compile()")
def test_module_compile(side: Side) -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), side.module(0.2)), randn(4, 3)
    expected = model(x)
    model.compile(backend="aot_eager")
    assert_same_bits(model(x), expected)


def generated(name: str, side: Side) -> list[str]:
    """What Inductor writes for a training step, without its comments (they cite source lines)."""
    model = make(name, side)
    inputs = example_inputs(model)
    _, codes = run_and_get_code(step, model, torch.compile(model, fullgraph=True), inputs)
    return [re.sub(r"(?m)^\s*#.*$|/tmp/\S+|[0-9a-z]{40,}", "", code) for code in codes]


@pytest.mark.slow
@pytest.mark.feature("torch.compile", "Inductor generates the very code that it does for the built-in")
@pytest.mark.parametrize("name", MODELS)
def test_the_same_generated_code(name: str) -> None:
    expected = generated(name, BUILTIN)
    torch._dynamo.reset()
    assert generated(name, OURS) == expected
    assert len(expected) == 2  # forward and backward
