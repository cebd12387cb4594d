"""Norm and Leaky ReLU under derivatives of any order, transforms, torch.compile, tracing, autocast, modes and hooks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import leakyrelu_ext
from cases import assert_same_bits, randn
from leakyrelu_ext import batch_norm_leaky_relu, instance_norm_leaky_relu
from leakyrelu_ext._torch_versions import RELEASE
from norm_formula import KINDS, MEMORY_FORMATS, Operands, composition, elementary, operands, ours

NATIVE = leakyrelu_ext.build_info()["native"]
EVERY = [(kind, training, residual) for kind in KINDS for training in (True, False) for residual in (False, True)]
EVERY = [case for case in EVERY if case[0] != "group" or case[1]]
every_case = pytest.mark.parametrize(("kind", "training", "residual"), EVERY)


def feature(name):
    return pytest.mark.feature("Fused: norm and Leaky ReLU", name)


def as_function(kind, given, training=True, function=ours):
    """A function of the differentiable operands alone, and these."""
    leaves = given.leaves()
    names = list(leaves.differentiable())

    def call(*tensors):
        running = {n: getattr(given, n) for n in ("running_mean", "running_var")}
        copies = {n: None if t is None else t.clone() for n, t in running.items()}
        return function(kind, Operands(**dict(zip(names, tensors, strict=True)), **copies), training)

    return call, tuple(leaves.differentiable().values())


@feature("gradcheck (also batched) and gradgradcheck")
@every_case
def test_derivatives(kind, training, residual):
    call, inputs = as_function(kind, operands(kind, (2, 4, 3, 2), torch.float64, residual=residual), training)
    assert gradcheck(call, inputs, check_batched_grad=NATIVE)
    assert gradgradcheck(call, inputs)


@feature("third derivatives")
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.native  # the fallback is PyTorch's own batch norm, whose third derivatives are wrong
def test_third_derivatives(kind, layout):
    given = operands(kind, (2, 4, 5, 3), torch.float64, layout, residual=True)
    found = []
    for function in (ours, elementary):
        call, inputs = as_function(kind, given, function=function)
        y = call(*inputs).pow(3).sum()
        for _ in range(3):
            (derivative,) = torch.autograd.grad(y, inputs[0], create_graph=True)
            y = (derivative * inputs[0].detach().cos()).sum()
        found.append([derivative, *torch.autograd.grad(y, inputs[1:], allow_unused=True)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@feature("a gradient penalty")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_penalty(kind):
    """The gradient of a gradient's norm, in float32: weights of earlier layers get one."""
    given = operands(kind, (4, 4, 6, 6))
    factor = randn(4, 6, 6, seed=7)
    found = []
    for function in (ours, composition):
        leaves, w = given.leaves(), factor.clone().requires_grad_()
        y = function(kind, leaves._replace(input=leaves.input * w)).square().sum()
        (of_input,) = torch.autograd.grad(y, leaves.input, create_graph=True)
        found.append(torch.autograd.grad(of_input.square().sum(), (w, leaves.weight)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@feature("forward-mode AD")
@every_case
def test_forward_mode(kind, training, residual):
    given = operands(kind, (2, 4, 3, 2), torch.float64, residual=residual)
    if NATIVE:
        last = operands(kind, (2, 4, 3, 2), torch.float64, "channels_last", residual=residual)
        call, inputs = as_function(kind, last, training)
        jvp(call, tuple(t.detach() for t in inputs), tuple(t.detach() for t in inputs))  # PyTorch's group norm would raise
    call, inputs = as_function(kind, given, training)
    reference, _ = as_function(kind, given, training, composition)
    primals = tuple(t.detach() for t in inputs)
    tangents = tuple(randn(*t.shape, dtype=torch.float64, seed=20 + i) for i, t in enumerate(inputs))
    with forward_ad.dual_level():
        dual = call(*map(forward_ad.make_dual, primals, tangents))
        actual = forward_ad.unpack_dual(dual).tangent
    expected = jvp(reference, primals, tangents)[1]
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(jvp(call, primals, tangents)[1], expected)


@feature("torch.func: vmap, grad, hessian, and nested")
@pytest.mark.parametrize("kind", KINDS)
def test_transforms(kind):
    given = operands(kind, (2, 4, 3, 2), torch.float64)._replace(running_mean=None, running_var=None)
    (call, inputs), (reference, _) = (as_function(kind, given, function=f) for f in (ours, composition))
    primals = tuple(t.detach() for t in inputs)
    for transform in (grad, hessian):
        actual, expected = (
            transform(lambda b, f=f: f(primals[0], primals[1], b).square().sum())(primals[2]) for f in (call, reference)
        )
        torch.testing.assert_close(actual, expected)
    many = torch.stack([primals[0], primals[0] * 2])
    actual, expected = (vmap(lambda x, f=f: f(x, *primals[1:]))(many) for f in (call, reference))
    torch.testing.assert_close(actual, expected)
    actual, expected = (vmap(grad(lambda x, f=f: f(x, *primals[1:]).cos().sum()))(many) for f in (call, reference))
    torch.testing.assert_close(actual, expected)


@feature("torch.compile of the functions, fullgraph, static and dynamic shapes")
@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind, backend):
    torch._dynamo.reset()
    compiled = torch.compile(lambda given: ours(kind, given), fullgraph=True, backend=backend)
    for size in (4, 6):  # the second makes the shape dynamic
        given = operands(kind, (2, 4, size, 5), residual=True)
        found = []
        for function in (compiled, lambda g: ours(kind, g)):
            leaves = given.leaves()
            output = function(leaves)
            output.backward(randn(*output.shape, seed=9))
            found.append((output.detach(), *(t.grad for t in leaves.differentiable().values()), leaves.running_mean))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)


@feature("compiled autograd")
@pytest.mark.native
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_autograd(kind):
    from torch._dynamo import compiled_autograd

    given = operands(kind, (2, 4, 3, 5), residual=True)
    eager, compiled = given.leaves(), given.leaves()
    ours(kind, eager).cos().sum().backward()
    loss = ours(kind, compiled).cos().sum()
    with compiled_autograd._enable(torch.compile(backend="eager")):
        loss.backward()
    for one, other in zip(compiled.differentiable().values(), eager.differentiable().values(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@feature("torch.export, torch.jit.trace and torch.fx.symbolic_trace of the functions")
@pytest.mark.parametrize("kind", KINDS)
def test_export_and_traces(kind):
    class Layer(torch.nn.Module):
        def forward(self, x, weight, bias):
            return ours(kind, Operands(x, weight, bias))

    given = operands(kind, (2, 4, 3, 5))[:3]
    expected = composition(kind, Operands(*given))
    exported = torch.export.export(Layer(), given)
    assert not any("leakyrelu_ext" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*given), expected)
    traced = torch.jit.trace(Layer(), given)
    torch.testing.assert_close(traced(*given), expected)
    symbolic = torch.fx.symbolic_trace(Layer())
    torch.testing.assert_close(copy.deepcopy(symbolic)(*given), expected)


@feature("torch.library.opcheck: schema, autograd, fake tensors, AOTAutograd")
@pytest.mark.native
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@every_case
def test_opcheck(kind, training, residual, layout):
    given = operands(kind, (2, 4, 5, 3), residual=residual, layout=layout).leaves()
    input, weight, bias, mean, var, residual = given
    groups = {"batch": 0, "instance": 4, "group": 2}[kind]
    arguments = (input, weight, bias, mean, var, residual, groups, training, 0.1, 1e-5, 0.2)
    # torch 2.7's own decomposition of group norm raises for a dynamic number of channels.
    shapes = "static" if kind == "group" and RELEASE < (2, 13) else "dynamic"
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", f"test_aot_dispatch_{shapes}")
    torch.library.opcheck(torch.ops.leakyrelu_ext.norm_leaky_relu.default, arguments, test_utils=checks)
    with torch.no_grad():
        with_mask = residual is not None
        forward = torch.ops.leakyrelu_ext.norm_leaky_relu_forward.default
        plain = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
        torch.library.opcheck(forward, (*plain, with_mask), test_utils=checks)
        output, statistics, mask = forward(*plain, with_mask)
        backward = torch.ops.leakyrelu_ext.norm_leaky_relu_backward.default
        of_backward = (output, plain[0], statistics, plain[1], mask, groups, training, 1e-5, 0.2, [True] * 4)
        torch.library.opcheck(backward, of_backward, test_utils=checks)


@feature("autocast of the functions")
@pytest.mark.parametrize("kind", KINDS)
def test_cpu_autocast(kind):
    """As the composition: these norms are in no list of autocast on CPUs."""
    given = operands(kind, (2, 4, 5, 3), torch.bfloat16, parameters=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(kind, given).dtype == composition(kind, given).dtype == torch.bfloat16
        whole = operands(kind, (2, 4, 5, 3))
        assert ours(kind, whole).dtype == composition(kind, whole).dtype


@feature("activation checkpointing of the functions")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_checkpoint(kind, reentrant):
    """Recomputation updates running statistics once more, as PyTorch's own norm does."""
    given = operands(kind, (2, 4, 5, 3))
    found = []
    for function in (ours, composition):
        leaves = given.leaves()
        output = checkpoint(
            lambda x, g=leaves, f=function: f(kind, g._replace(input=x)), leaves.input, use_reentrant=reentrant
        )
        output.cos().sum().backward()
        found.append((leaves.input.grad, leaves.weight.grad, leaves.running_mean, leaves.running_var))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@feature("TorchDispatchMode: FlopCounterMode")
@pytest.mark.parametrize("kind", KINDS)
def test_modes(kind):
    """What lets calls run changes nothing."""
    given = operands(kind, (2, 4, 5, 3), residual=True)
    plain, counted = given.leaves(), given.leaves()
    ours(kind, plain).cos().sum().backward()
    with FlopCounterMode(display=False):
        ours(kind, counted).cos().sum().backward()
    for one, other in zip(counted.differentiable().values(), plain.differentiable().values(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_input_is_noticed(kind):
    given = operands(kind, (2, 4, 5, 3)).leaves()
    x = given.input * 1
    output = ours(kind, given._replace(input=x))
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@feature("bias and running statistics changed before the backward")
@pytest.mark.native
@pytest.mark.parametrize("changed", ["bias", "running_mean", "running_var"])
def test_what_may_change_before_the_backward(changed):
    """The backward does not read them: with DistributedDataParallel's broadcasts of buffers it stays right."""
    given = operands("batch", (2, 4, 5, 3), torch.float64)
    found = []
    for change in (False, True):
        leaves = given.leaves()
        output = ours("batch", leaves, training=False)
        if change:
            with torch.no_grad():
                getattr(leaves, changed).add_(3)
        output.cos().sum().backward()
        found.append(leaves.input.grad)
    assert_same_bits(*found)


@feature("saved-tensor hooks that change the memory order")
@pytest.mark.parametrize("kind", KINDS)
def test_hooks_that_change_the_memory_order(kind):
    """Of what is saved: a copy on a disk or in NumPy comes back contiguous."""
    given = operands(kind, (2, 8, 4, 4), layout="channels_last", residual=True)
    found = []
    for hook in (lambda t: t, lambda t: t.contiguous()):
        leaves = given.leaves()
        with torch.autograd.graph.saved_tensors_hooks(hook, lambda t: t):
            output = ours(kind, leaves)
        output.backward(randn(2, 8, 4, 4, seed=9))
        found.append([t.grad for t in leaves.differentiable().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@feature("torch.func: vmap, jacfwd, jacrev, hessian of channels_last")
@pytest.mark.native
@pytest.mark.parametrize("kind", KINDS)
def test_transforms_of_channels_last(kind):
    given = operands(kind, (2, 4, 3, 2), torch.float64, "channels_last")._replace(running_mean=None, running_var=None)
    plain = Operands(*(None if t is None else t.contiguous() for t in given))
    found = []
    for operand in (given, plain):
        call, inputs = as_function(kind, operand)
        x, weight, bias = (t.detach() for t in inputs)
        results = [vmap(lambda w, c=call, x=x, b=bias: c(x, w, b))(torch.stack([weight, 2 * weight]))]
        results += [vmap(lambda t, c=call, w=weight, b=bias: c(t, w, b))(torch.stack([x, 2 * x]))]
        for transform in (torch.func.jacfwd, torch.func.jacrev, hessian):
            results.append(transform(lambda t, c=call, w=weight, b=bias: c(t, w, b).square().sum())(x))
        found.append(results)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@feature("running statistics that may not be written: PyTorch's errors")
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_running_statistics_that_may_not_be_written(kind):
    """PyTorch's own errors: ones that require grad, inference tensors, elements that share memory."""
    given = operands(kind, (2, 4, 5, 3))
    with torch.inference_mode():
        inference = torch.ones(4)
    for mean in (torch.ones(4, requires_grad=True), inference, torch.ones(1).expand(4)):
        outcomes = []
        for function in (ours, composition):
            leaves = given.leaves()._replace(running_mean=mean)
            try:
                function(kind, leaves).sum().backward()
                outcomes.append(None)
            except RuntimeError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


@feature("version counters of running statistics")
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_version_counters_of_running_statistics(kind):
    """As PyTorch's: instance norm counts its update, batch norm does not."""
    for grad_mode in (True, False):
        versions = []
        for function in (ours, composition):
            given = operands(kind, (2, 4, 5, 3)).leaves()
            with torch.set_grad_enabled(grad_mode):
                function(kind, given)
            versions.append((given.running_mean._version > 0, given.running_var._version > 0))
        assert versions[0] == versions[1]


def test_inference_mode():
    given = operands("batch", (2, 4, 5, 3))
    expected = ours("batch", given.to(torch.float32))
    with torch.inference_mode():
        assert_same_bits(ours("batch", given), expected)


@feature("__torch_dispatch__ subclasses see ATen's ops")
def test_subclasses_see_aten():
    """A subclass that intercepts ops knows PyTorch's, not ours."""
    seen = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
            seen.append(str(op))
            plain = torch.utils._pytree.tree_map(lambda t: t._plain if isinstance(t, Watched) else t, (args, kwargs or {}))
            return op(*plain[0], **plain[1])

        __torch_function__ = torch._C._disabled_torch_function_impl

    x = randn(2, 4, 5, 3)
    watched = torch.Tensor._make_wrapper_subclass(Watched, x.shape, dtype=x.dtype)
    watched._plain = x
    torch.testing.assert_close(instance_norm_leaky_relu(watched), F.leaky_relu(F.instance_norm(x)))
    assert seen
    assert not any("leakyrelu_ext" in name for name in seen)


@feature("__torch_function__")
def test_overrides():
    """Tensor-likes and torch-function modes get our functions by name."""

    class Like:
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function.__name__, kwargs["residual"]

    assert batch_norm_leaky_relu(Like(), None, None, residual=3) == ("batch_norm_leaky_relu", 3)
    assert instance_norm_leaky_relu(Like(), residual=4) == ("instance_norm_leaky_relu", 4)
    assert leakyrelu_ext.group_norm_leaky_relu(Like(), 2, residual=5) == ("group_norm_leaky_relu", 5)


@feature("torch.func: functional_call, stack_module_state, vmap of a net and of its gradient")
def test_functional_call_and_ensembles():
    """torch.func's way to train many models at once."""
    models = [
        torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), leakyrelu_ext.InstanceNormLeakyReLU2d(4, affine=True))
        for _ in range(3)
    ]
    parameters, buffers = torch.func.stack_module_state(models)
    x = randn(2, 2, 6, 6)
    together = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    for index, model in enumerate(models):
        torch.testing.assert_close(together[index], model(x))
