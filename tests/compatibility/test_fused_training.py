"""What training code does around a fused layer. Each step is compared with that of PyTorch's own modules, one after the
other: output, gradients and buffers, so running statistics move as theirs do."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from fused_families import Family, assert_same, batch, each_family, step


def feature(name: str) -> pytest.MarkDecorator:
    """The page's section is the family's."""
    return pytest.mark.feature("", name)


def assert_same_steps(family: Family, around: Callable[[nn.Module], Callable[[Tensor], Tensor]], steps: int = 2) -> None:
    """``around``: what a model is called through."""
    ours, reference = family.nets()
    calls = around(ours), around(reference)
    for seed in range(steps):
        assert_same(step(ours, batch(seed=seed), calls[0]), step(reference, batch(seed=seed), calls[1]))


@feature("activation checkpointing (both kinds); running statistics move twice, as PyTorch's")
@each_family
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(family: Family, reentrant: bool) -> None:
    assert_same_steps(family, lambda model: lambda x: checkpoint(model, x, use_reentrant=reentrant))


@feature("checkpoint_sequential")
@each_family
def test_checkpoint_sequential(family: Family) -> None:
    assert_same_steps(family, lambda model: lambda x: checkpoint_sequential(model, 2, x, use_reentrant=False))


@feature("save_on_cpu and saved-tensor hooks")
@each_family
def test_saved_tensor_hooks(family: Family) -> None:
    packed: list[Tensor] = []

    def by_index() -> torch.autograd.graph.saved_tensors_hooks:
        return torch.autograd.graph.saved_tensors_hooks(
            lambda t: packed.append(t.clone()) or len(packed) - 1, lambda index: packed[index]
        )

    for context in (torch.autograd.graph.save_on_cpu, by_index):

        def within(model: nn.Module, context: Callable = context) -> Callable[[Tensor], Tensor]:
            def call(x: Tensor) -> Tensor:
                with context():
                    return model(x)

            return call

        assert_same_steps(family, within)
    assert packed


@feature("module hooks: forward, pre-forward, full backward; tensor hooks")
@each_family
def test_hooks(family: Family) -> None:
    seen: dict[int, list[Tensor]] = {}

    def hooked(model: nn.Sequential) -> nn.Module:
        layer, found = model[1], seen.setdefault(len(seen), [])
        layer.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
        layer.register_forward_hook(lambda m, args, output: output * 3)
        layer.register_full_backward_hook(lambda m, grads_in, grads_out: found.extend([*grads_in, *grads_out]))
        model[2].register_forward_hook(lambda m, args, output: output.register_hook(lambda grad: grad * 5) and output)
        return model

    assert_same_steps(family, hooked)
    assert len(seen[0]) == 4
    assert_same(seen[0], seen[1])


@feature("autocast, bfloat16 and float16")
@each_family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(family: Family, dtype: torch.dtype) -> None:
    found = []
    for model in family.nets(torch.float32):
        with torch.autocast("cpu", dtype=dtype):
            found.append(step(model, batch(dtype=torch.float32)))
        assert found[-1][0].dtype == dtype
    assert_same(*found, rtol=0.05, atol=8 * torch.finfo(dtype).eps)


@feature("GradScaler, also a step that it skips")
@each_family
def test_grad_scaler(family: Family) -> None:
    found = []
    for model in family.nets():
        scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(model.parameters(), 0.1)
        for seed in range(3):
            x = batch(seed=seed) * (float("inf") if seed == 1 else 1)
            optimizer.zero_grad()
            scaler.scale(model(x).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append([*model.parameters(), torch.tensor(scaler.get_scale())])
    assert found[0][-1] == 2**15
    assert_same(*found)


@feature("no_grad, inference_mode, inference tensors; training and evaluation")
@each_family
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_grad(family: Family, mode: Callable) -> None:
    found = []
    for model in family.nets():
        outputs = []
        with mode():
            outputs += [model(batch()), model.eval()(batch())]
            x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert not any(output.requires_grad for output in outputs)
        try:
            outputs.append(model[1](x).detach())
        except RuntimeError as error:  # a norm keeps its input, and inference tensors may not be kept
            outputs.append(str(error))
        found.append([*outputs, *model.buffers()])
    assert str(found[0][2]) == str(found[1][2])
    assert_same(*([t for t in tensors if not isinstance(t, str)] for tensors in found))


@feature("torch.func: functional_call, stack_module_state, vmap of a net and of its gradient")
@each_family
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_functional_call(family: Family, training: bool) -> None:
    found = []
    for fused in (True, False):
        models, x = [family.net(fused).train(training) for _ in range(2)], batch()
        halves = {name: value * 0.5 for name, value in models[0].state_dict().items()}
        outputs = [functional_call(models[0], halves, (x,))]
        models[1].load_state_dict(halves)
        parameters, buffers = stack_module_state(models)

        def loss(p: dict, b: dict, model: nn.Module = models[0], x: Tensor = x) -> Tensor:
            return functional_call(model, (p, b), (x,)).square().mean()

        outputs += [vmap(loss)(parameters, buffers), *buffers.values()]
        if not training:  # a function that is differentiated may not write to buffers from outside of it
            outputs += vmap(grad(loss))(parameters, buffers).values()
        found.append([output.detach() for output in outputs])
    assert_same(*found)


@feature("nn.utils.parametrize on its own parameters, weight_norm around it")
@each_family
def test_parametrize(family: Family) -> None:
    class Doubled(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return value + value.flip(0)

    def parametrized(model: nn.Sequential) -> nn.Module:
        nn.utils.parametrizations.weight_norm(model[0])
        owner = getattr(model[1], "norm", model[1])
        for name in [name for name, _ in owner.named_parameters()]:
            parametrize.register_parametrization(owner, name, Doubled())
        return model

    assert_same_steps(family, parametrized)


@feature("backward from several threads at once")
@each_family
def test_threads(family: Family) -> None:
    ours, reference = family.nets()
    expected = step(reference, batch())[2 : 2 + len(list(reference.parameters()))]
    results: list[list[Tensor]] = []

    def work() -> None:
        for _ in range(3):
            results.append(list(torch.autograd.grad(ours(batch()).square().mean(), list(ours.parameters()))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    for grads in results:
        assert_same(grads, expected)


@feature("profiler, anomaly mode, deterministic algorithms")
@each_family
def test_debugging_modes(family: Family) -> None:
    with torch.profiler.profile() as profile, torch.autograd.detect_anomaly(check_nan=True):
        assert_same_steps(family, lambda model: model)
    assert any("leaky_relu" in event.key for event in profile.key_averages())
    found = []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            found.append(step(family.net(True), batch()))
        finally:
            torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, *found))
