"""What training code does around a layer: checkpointing, hooks, offloading, autocast, functional calls, copies, threads."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import aten
from cases import assert_same_bits, randn
from models import Discriminator, UNet, example_inputs
from sides import Side


def feature(name: str, **more: str) -> pytest.MarkDecorator:
    return pytest.mark.feature("Training", name, **more)


def stack(side: Side, inplace: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), side.module(0.2, inplace), nn.Linear(8, 4), side.module(-0.5))


def expected_step(model: nn.Sequential, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Output and gradients of ``stack``, in plain ops."""
    hidden = F.linear(x, model[0].weight, model[0].bias)
    hidden = F.linear(torch.where(hidden > 0, hidden, hidden * 0.2), model[2].weight, model[2].bias)
    output = torch.where(hidden > 0, hidden, hidden * -0.5)
    return output, list(torch.autograd.grad(output.square().sum(), list(model.parameters())))


def assert_step(model: nn.Sequential, x: torch.Tensor, output: torch.Tensor, grads: list[torch.Tensor]) -> None:
    expected, expected_grads = expected_step(model, x)
    torch.testing.assert_close(output, expected)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad)


def gradients(model: nn.Module, output: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(output.square().sum(), list(model.parameters())))


@feature("activation checkpointing (both kinds)")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_checkpoint(side: Side, inplace: bool, reentrant: bool) -> None:
    model, x = stack(side, inplace), randn(5, 6)
    output = checkpoint(model, x.requires_grad_(), use_reentrant=reentrant)
    model.zero_grad()
    output.square().sum().backward()
    assert_step(model, x, output, [parameter.grad for parameter in model.parameters()])


@feature("checkpoint_sequential")
def test_checkpoint_sequential(side: Side) -> None:
    model, x = stack(side), randn(5, 6)
    output = checkpoint_sequential(model, 2, x.requires_grad_(), use_reentrant=False)
    assert_step(model, x, output, gradients(model, output))


@feature("save_on_cpu and saved-tensor hooks")
def test_saved_tensor_hooks(side: Side) -> None:
    model, x = stack(side), randn(5, 6)
    with torch.autograd.graph.save_on_cpu():
        output = model(x)
    assert_step(model, x, output, gradients(model, output))
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or len(packed) - 1, lambda i: packed[i]):
        output = model(x)
    assert_step(model, x, output, gradients(model, output))
    assert len(packed) >= 4


@pytest.mark.native
@feature("allow_mutation_on_saved_tensors")
def test_allow_mutation_on_saved_tensors(side: Side) -> None:
    x = randn(10).requires_grad_()
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        hidden = x * 1
        y = side.function(hidden, 0.1)
        hidden.zero_()
        (grad,) = torch.autograd.grad(y.sum(), x)
    assert_same_bits(grad, torch.where(x > 0, 1.0, 0.1))


@feature("module hooks: forward, pre-forward, full backward; tensor hooks")
def test_hooks(side: Side) -> None:
    module, seen = side.module(0.1), []
    module.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    module.register_forward_hook(lambda m, args, output: output * 3)
    module.register_full_backward_hook(lambda m, grads_in, grads_out: seen.append((grads_in[0], grads_out[0])))
    x = randn(10).requires_grad_()
    y = module(x)
    assert_same_bits(y, aten.leaky_relu(x * 2, 0.1) * 3)
    hidden = x * 1
    hidden.register_hook(lambda grad: grad * 5)
    (side.function(hidden, 0.1) + y).sum().backward()
    assert len(seen) == 1
    factor = torch.where(x > 0, 1.0, 0.1)
    torch.testing.assert_close(x.grad, factor * 5 + factor * 6)


@feature("autocast, bfloat16 and float16")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(side: Side, dtype: torch.dtype) -> None:
    model, x = stack(side), randn(5, 6)
    with torch.autocast("cpu", dtype=dtype):
        output = model(x)
        assert output.dtype == dtype
        assert side.function(x).dtype == torch.float32
    assert all(torch.isfinite(grad).all() for grad in gradients(model, output.float()))


@feature("GradScaler")
def test_grad_scaler(side: Side) -> None:
    model, x = stack(side), randn(5, 6)
    expected = [grad.clone() for grad in expected_step(model, x)[1]]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(model.parameters(), 0.1)
    scaler.scale(model(x).square().sum()).backward()
    scaler.step(optimizer)
    for parameter, old, grad in zip(model.parameters(), before, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.1 * grad)


@feature("no_grad, inference_mode, inference tensors")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_grad(side: Side, mode) -> None:
    x = randn(10).requires_grad_()
    with mode():
        y = side.function(x, 0.1)
        assert not y.requires_grad
        inference = side.function(side.function(randn(5), 0.1), 0.1, inplace=True)
    assert_same_bits(y, aten.leaky_relu(x, 0.1))
    if inference.is_inference():
        with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
            side.function(inference, 0.1, inplace=True)


@feature("torch.func.functional_call and stack_module_state")
def test_functional_call(side: Side) -> None:
    model, x = stack(side), randn(5, 6)
    other = {name: parameter * 0.5 for name, parameter in model.named_parameters()}
    output = functional_call(model, other, (x,))
    twin = stack(side)
    twin.load_state_dict(other)
    assert_same_bits(output, twin(x))
    models = [stack(side) for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    actual = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(actual, torch.stack([model(x) for model in models]))


@feature("nn.utils.parametrize, weight_norm and spectral_norm around it")
def test_parametrize(side: Side) -> None:
    class Symmetric(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight.triu() + weight.triu(1).transpose(-1, -2)

    model = nn.Sequential(nn.Linear(6, 6), side.module(0.1), nn.Linear(6, 6), side.module(0.1))
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    nn.utils.parametrizations.weight_norm(model[2])
    x = randn(5, 6)
    expected = aten.leaky_relu(model[2](aten.leaky_relu(model[0](x), 0.1)), 0.1)
    torch.testing.assert_close(model(x), expected)
    assert all(grad.abs().sum() > 0 for grad in gradients(model, model(x)))


@feature("copy.deepcopy, state_dict, torch.save and load")
def test_copies(side: Side, tmp_path) -> None:
    model, x = UNet(side.module), example_inputs(UNet(side.module))[0]
    expected = model(x)
    assert_same_bits(copy.deepcopy(model)(x), expected)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    twin = UNet(side.module)
    twin.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert_same_bits(twin(x), expected)
    torch.save(model, tmp_path / "model.pt")
    assert_same_bits(torch.load(tmp_path / "model.pt", weights_only=False)(x), expected)


@feature("backward from several threads at once")
def test_threads(side: Side) -> None:
    model, x = UNet(side.module), example_inputs(UNet(side.module))[0]
    expected = [grad.clone() for grad in gradients(model, model(x))]
    results: list[list[torch.Tensor]] = []

    def work() -> None:
        for _ in range(3):
            results.append(gradients(model, model(x)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    for grads in results:
        for grad, expected_grad in zip(grads, expected, strict=True):
            torch.testing.assert_close(grad, expected_grad)


@feature("in place between layers: convolution, norm, residual")
def test_in_place_between_layers(side: Side) -> None:
    torch.manual_seed(0)
    conv, norm, activation = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), side.module(0.1, inplace=True)
    x = randn(2, 3, 8, 8)
    hidden = norm(conv(x))
    expected = aten.leaky_relu(hidden, 0.1) + x[:, :1, :6, :6]
    actual = activation(norm(conv(x))) + x[:, :1, :6, :6]
    torch.testing.assert_close(actual, expected)
    for grad, expected_grad in zip(
        torch.autograd.grad(actual.sum(), list(conv.parameters())),
        torch.autograd.grad(expected.sum(), list(conv.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(grad, expected_grad)


@feature("a negative slope in place, with gradients", builtin_cannot="refuses the backward")
def test_negative_slope_in_place(side: Side) -> None:
    x = randn(10).requires_grad_()
    side.function(x * 1, -0.5, inplace=True).sum().backward()
    assert_same_bits(x.grad, torch.where(x > 0, 1.0, -0.5))


@pytest.mark.native
@feature("the input overwritten before the backward", builtin_cannot="keeps its input")
def test_input_overwritten(side: Side) -> None:
    x = randn(10).requires_grad_()
    hidden = x * 1
    y = side.function(hidden, 0.1)
    hidden.zero_()
    y.sum().backward()
    assert_same_bits(x.grad, torch.where(x > 0, 1.0, 0.1))


@pytest.mark.native
@feature("the output of the in-place form overwritten before the backward", builtin_cannot="keeps its output")
def test_output_overwritten(side: Side) -> None:
    x = randn(10).requires_grad_()
    side.function(x * 1, 0.1, inplace=True).mul_(2).sum().backward()
    assert_same_bits(x.grad, torch.where(x > 0, 2.0, 0.2))


@feature("profiler, anomaly mode, deterministic algorithms")
def test_debugging_modes(side: Side) -> None:
    model, x = Discriminator(side.module), example_inputs(Discriminator())[0]
    expected = model(x)
    with torch.profiler.profile() as profile, torch.autograd.detect_anomaly(check_nan=True):
        model(x).sum().backward()
    assert any("leaky_relu" in event.key for event in profile.key_averages())
    torch.use_deterministic_algorithms(True)
    try:
        assert_same_bits(model(x), expected)
    finally:
        torch.use_deterministic_algorithms(False)
