"""bias_leaky_relu under derivatives of any order, transforms, torch.compile, tracing and overrides; and what it refuses."""

import copy

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jvp, vmap
from torch.overrides import TorchFunctionMode

from bias_formula import formula
from cases import assert_same_bits, randn
from leakyrelu_ext import bias_leaky_relu, leaky_relu, set_compile_target
from leakyrelu_ext._torch_versions import DtypeError


def feature(name):
    return pytest.mark.feature("Fused: bias, residual and Leaky ReLU", name)


def leaves(*shape, dtype=torch.float64):
    return (
        randn(*shape, dtype=dtype).requires_grad_(),
        randn(shape[1], dtype=dtype, seed=1).requires_grad_(),
        randn(1, *shape[1:], dtype=dtype, seed=2).requires_grad_(),
    )


def call(x, bias, residual, **keywords):
    return bias_leaky_relu(x, bias, 0.2, residual=residual, gain=1.3, **keywords)


@feature("gradcheck (also batched) and gradgradcheck")
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_derivatives(clamp, inplace):
    inputs = leaves(3, 4, 2)

    def function(x, bias, residual):
        return call(x * 1 if inplace else x, bias, residual, clamp=clamp, inplace=inplace)

    assert gradcheck(function, inputs, check_forward_ad=not inplace, check_batched_grad=True)
    assert gradgradcheck(function, inputs)


@feature("gradcheck and gradgradcheck through dropout")
def test_derivatives_through_dropout():
    inputs = leaves(3, 4, 5)

    def function(x, bias, residual):
        torch.manual_seed(0)
        return call(x, bias, residual, dropout_p=0.5)

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@feature("third derivatives")
def test_third_derivatives():
    x, bias, residual = leaves(2, 3, 4)
    results = []
    for function in (bias_leaky_relu, formula):
        y = function(x, bias, 0.2, residual=residual, gain=1.3, clamp=0.9).pow(3).sum()
        for _ in range(3):
            (derivative,) = torch.autograd.grad(y, x, create_graph=True)
            y = (derivative * x.detach().cos()).sum()
        results.append([derivative, *torch.autograd.grad(y, (bias, residual), allow_unused=True)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@feature("a gradient penalty")
def test_a_gradient_penalty():
    """The gradient of a gradient's norm, as StyleGAN's R1: bias and weights of earlier layers get one."""
    x, bias, _ = leaves(4, 3, 5, dtype=torch.float32)
    weight = randn(3, 5, seed=4).requires_grad_()
    results = []
    for function in (bias_leaky_relu, formula):
        y = (function(x * weight, bias, 0.2, gain=1.4) ** 2).sum()
        (of_x,) = torch.autograd.grad(y, x, create_graph=True)
        results.append(torch.autograd.grad(of_x.square().sum(), (weight, bias)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@feature("forward-mode AD")
def test_forward_mode():
    x, bias, residual = (tensor.detach() for tensor in leaves(3, 4, 2))
    tangent = randn(4, dtype=torch.float64, seed=5)
    with forward_ad.dual_level():
        dual = call(x, forward_ad.make_dual(bias, tangent), residual)
        actual = forward_ad.unpack_dual(dual).tangent
    expected = jvp(lambda b: formula(x, b, 0.2, residual=residual, gain=1.3), (bias,), (tangent,))[1]
    torch.testing.assert_close(actual, expected)


@feature("torch.func: vmap, grad, hessian, and nested")
def test_transforms():
    x, bias, residual = (tensor.detach() for tensor in leaves(3, 4, 2))
    batched = vmap(lambda a, b: bias_leaky_relu(a, b, 0.2, dim=0))(x, torch.stack([bias] * 3))
    torch.testing.assert_close(batched, formula(x, bias, 0.2))
    for transform in (grad, hessian):
        actual = transform(lambda b: call(x, b, residual).square().sum())(bias)
        expected = transform(lambda b: formula(x, b, 0.2, residual=residual, gain=1.3).square().sum())(bias)
        torch.testing.assert_close(actual, expected)


@feature("torch.compile of the functions, fullgraph, static and dynamic shapes")
@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("inplace", [False, True])
def test_compiled(inplace, backend):
    torch._dynamo.reset()

    def function(x, bias, residual):
        return call(x * 1, bias, residual, clamp=0.8, inplace=inplace)

    compiled = torch.compile(function, fullgraph=True, backend=backend)
    for size in (4, 6):  # the second makes the shape dynamic
        inputs = leaves(3, size, 5, dtype=torch.float32)
        actual, expected = compiled(*inputs), function(*inputs)
        torch.testing.assert_close(actual, expected)
        grad_output = randn(3, size, 5)
        torch.testing.assert_close(
            torch.autograd.grad(actual, inputs, grad_output), torch.autograd.grad(expected, inputs, grad_output)
        )


@feature("torch.compile of dropout")
@pytest.mark.slow
def test_compiled_dropout():
    torch._dynamo.reset()
    x = torch.ones(10_000, requires_grad=True)
    y = torch.compile(lambda t: bias_leaky_relu(t, dropout_p=0.25), fullgraph=True)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert abs((y == 0).float().mean() - 0.25) < 0.03
    assert_same_bits(gradient, y.detach())


@pytest.mark.native
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_op_itself_compiled(backend):
    torch._dynamo.reset()

    def function(x, bias, residual):
        return torch.ops.leakyrelu_ext.bias_leaky_relu(x * 1, bias, 0.2, residual, 1, 1.3, 0.8) * 2

    inputs = leaves(3, 4, 5, dtype=torch.float32)
    actual, expected = torch.compile(function, fullgraph=True, backend=backend)(*inputs), function(*inputs)
    torch.testing.assert_close(actual, expected)
    grad_output = randn(3, 4, 5)
    torch.testing.assert_close(
        torch.autograd.grad(actual, inputs, grad_output), torch.autograd.grad(expected, inputs, grad_output)
    )


@feature("set_compile_target('op')")
@pytest.mark.native
def test_as_compile_target():
    torch._dynamo.reset()
    targets = []

    def backend(graph, _):
        targets.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph

    inputs = leaves(3, 4, 5, dtype=torch.float32)
    set_compile_target("op")
    try:
        actual = torch.compile(call, fullgraph=True, backend=backend)(*inputs, clamp=0.8)
    finally:
        set_compile_target("builtin")
    assert_same_bits(actual, call(*inputs, clamp=0.8))
    assert targets == [torch.ops.leakyrelu_ext.bias_leaky_relu]


@feature("compiled autograd")
@pytest.mark.native
def test_compiled_autograd():
    from torch._dynamo import compiled_autograd

    inputs = leaves(3, 4, 5, dtype=torch.float32)
    expected = torch.autograd.grad(call(*inputs).sum(), inputs)
    loss = call(*inputs).sum()
    with compiled_autograd._enable(torch.compile(backend="eager")):
        loss.backward()
    torch.testing.assert_close([leaf.grad for leaf in inputs], list(expected))


@feature("torch.export, torch.jit.trace and torch.fx.symbolic_trace of the functions")
def test_export():
    class Layer(torch.nn.Module):
        def forward(self, x, bias):
            return bias_leaky_relu(x, bias, 0.2, gain=1.3)

    x, bias, _ = (tensor.detach() for tensor in leaves(3, 4, 5, dtype=torch.float32))
    exported = torch.export.export(Layer(), (x, bias))
    torch.testing.assert_close(exported.module()(x, bias), formula(x, bias, 0.2, gain=1.3))
    assert not any("leakyrelu_ext" in str(node.target) for node in exported.graph.nodes)


@feature("torch.export, torch.jit.trace and torch.fx.symbolic_trace of the functions")
def test_jit_trace():
    x, bias, residual = (tensor.detach() for tensor in leaves(3, 4, 5, dtype=torch.float32))
    traced = torch.jit.trace(call, (x, bias, residual))
    torch.testing.assert_close(traced(x + 1, bias, residual), call(x + 1, bias, residual))


@feature("torch.export, torch.jit.trace and torch.fx.symbolic_trace of the functions")
def test_fx_trace():
    class Layer(torch.nn.Module):
        def forward(self, x, bias):
            return bias_leaky_relu(x, bias, 0.2, gain=1.3)

    traced = torch.fx.symbolic_trace(Layer())
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [bias_leaky_relu]
    x, bias, _ = leaves(3, 4, 5)
    assert_same_bits(copy.deepcopy(traced)(x, bias), Layer()(x, bias))


@feature("TorchFunctionMode")
def test_overrides():
    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    x, bias, _ = leaves(3, 4, 5)
    with Mode():
        bias_leaky_relu(x, bias)
    assert bias_leaky_relu in seen


@feature("autocast of the functions")
def test_autocast():
    conv = torch.nn.Conv1d(4, 6, 3, bias=False)
    bias = randn(6, seed=1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = bias_leaky_relu(conv(randn(2, 4, 9)), bias)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert bias.grad.dtype == torch.float32


@feature("meta tensors")
def test_meta_tensors():
    x, bias, residual = (tensor.detach().to("meta") for tensor in leaves(3, 4, 5))
    y = call(x.transpose(0, 1).contiguous().transpose(0, 1), bias, residual)
    assert y.is_meta
    assert y.stride() == (5, 15, 1)


@feature("torch.library.opcheck: schema, autograd, fake tensors, AOTAutograd")
@pytest.mark.native
@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad, clamp):
    ops = torch.ops.leakyrelu_ext
    x, bias, residual = (t.detach().requires_grad_(requires_grad) for t in leaves(3, 4, 5, dtype=torch.float32))
    rest = (bias, 0.2, residual, 1, 1.3, clamp, 0.0)
    torch.library.opcheck(ops.bias_leaky_relu.default, (x, *rest))
    torch.library.opcheck(ops.bias_leaky_relu_forward.default, (x, *rest))
    torch.library.opcheck(ops.bias_leaky_relu_.default, (x.clone(), *rest))
    torch.library.opcheck(ops.bias_leaky_relu_forward_.default, (x.clone(), *rest))
    output, mask = ops.bias_leaky_relu_forward(x.detach(), *rest)
    for wanted in ([True, True], [True, False]):
        torch.library.opcheck(
            ops.bias_leaky_relu_backward.default,
            (x, mask, 0.2, output.stride(), 1.3, 0.0, 1, torch.float32, wanted),
        )
    torch.library.opcheck(
        ops.bias_leaky_relu_backward_.default, (x.detach().clone(), mask, 0.2, 1.3, 0.0, 1, torch.float32, True)
    )


X = (2, 3, 4)
REFUSED = {
    "bias of another length": (RuntimeError, "bias", lambda: {"bias": torch.ones(4)}),
    "bias of two dimensions": (RuntimeError, "bias", lambda: {"bias": torch.ones(3, 1)}),
    "bias elsewhere": (RuntimeError, "bias", lambda: {"bias": torch.ones(3, device="meta")}),
    "bias of integers": (DtypeError, "bias", lambda: {"bias": torch.ones(3, dtype=torch.int64)}),
    "bias that is no tensor": (TypeError, "bias", lambda: {"bias": [1.0, 2.0, 3.0]}),
    "dim too large": (IndexError, "dim", lambda: {"bias": torch.ones(3), "dim": 3}),
    "dim too small": (IndexError, "dim", lambda: {"bias": torch.ones(3), "dim": -4}),
    "negative clamp": (ValueError, "clamp", lambda: {"clamp": -1.0}),
    "NaN as clamp": (ValueError, "clamp", lambda: {"clamp": float("nan")}),
    "p below 0": (ValueError, "dropout_p", lambda: {"dropout_p": -0.1}),
    "p above 1": (ValueError, "dropout_p", lambda: {"dropout_p": 1.1}),
    "p is NaN": (ValueError, "dropout_p", lambda: {"dropout_p": float("nan")}),
    "residual of another shape": (RuntimeError, "residual", lambda: {"residual": torch.ones(5)}),
    "residual of more dimensions": (RuntimeError, "residual", lambda: {"residual": torch.ones(1, 2, 3, 4)}),
    "residual larger than input": (RuntimeError, "residual", lambda: {"residual": torch.ones(2, 3, 8)}),
    "residual elsewhere": (RuntimeError, "residual", lambda: {"residual": torch.ones(4, device="meta")}),
    "residual of bools": (DtypeError, "residual", lambda: {"residual": torch.ones(4, dtype=torch.bool)}),
    "input of integers": (DtypeError, "input", lambda: {"input": torch.ones(X, dtype=torch.int32)}),
    "input that is no tensor": (TypeError, "input", lambda: {"input": 3.0}),
    "a tensor as gain": (TypeError, "gain", lambda: {"gain": torch.ones(1)}),
    "text as clamp": (TypeError, "clamp", lambda: {"clamp": "a"}),
    "no dropout_p": (TypeError, "dropout_p", lambda: {"dropout_p": None}),
    "dim of another type": (TypeError, "dim", lambda: {"dim": 1.0}),
    "wider residual in place": (
        RuntimeError,
        "residual",
        lambda: {"residual": torch.ones(4, dtype=torch.float64), "inplace": True},
    ),
}


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_argument(case, requires_grad):
    error, argument, make = REFUSED[case]
    x = torch.zeros(X, requires_grad=requires_grad)
    keywords = {"input": x * 1} | make()
    with pytest.raises(error, match=f"argument '{argument}'"):
        bias_leaky_relu(**keywords)
    with pytest.raises(error, match=f"argument '{argument}'"):
        torch.compile(lambda **k: bias_leaky_relu(**k), backend="eager")(**keywords)
    assert not x.any()


@pytest.mark.native
@pytest.mark.parametrize(
    "make", [lambda t: t.to_sparse(), lambda t: t.to_mkldnn(), lambda t: torch.nested.nested_tensor([t, t])]
)
def test_layouts_of_bias_and_residual_are_refused_by_name(make):
    x = torch.zeros(X)
    for name, tensor in (("bias", torch.ones(3)), ("residual", torch.ones(X))):
        with pytest.raises((NotImplementedError, RuntimeError), match=f"argument '{name}'"):
            bias_leaky_relu(x, **{name: make(tensor)})


@pytest.mark.native
def test_a_mask_of_too_few_bits_is_refused():
    ops = torch.ops.leakyrelu_ext
    grad, mask = torch.ones(8, 8), torch.zeros(8, dtype=torch.uint8)
    for requires_grad in (False, True):
        for device in ("cpu", "meta"):
            arguments = (grad.to(device).requires_grad_(requires_grad), mask.to(device), 0.1, None, 1.0, 0.5, 1)
            with pytest.raises(RuntimeError, match="argument 'mask'"):
                ops.bias_leaky_relu_backward(*arguments, torch.float32, [True, False])
            with pytest.raises(DtypeError, match="argument 'bias_dtype'"):
                ops.bias_leaky_relu_backward(*arguments[:5], 0.0, 1, torch.int32, [True, True])


@pytest.mark.native
def test_functionalized_in_place_refuses_a_wider_residual():
    x, residual = torch.ones(4, dtype=torch.half), torch.ones(4)
    for op in (torch.ops.leakyrelu_ext.bias_leaky_relu_, torch.ops.leakyrelu_ext.bias_leaky_relu_forward_):
        with pytest.raises(RuntimeError, match="argument 'residual'"):
            torch.func.functionalize(lambda t, op=op: op(t.clone(), residual=residual))(x)


def test_a_bound_beyond_float32_bounds_nothing():
    x = torch.tensor([[3e38, -1.0]])
    for function in (bias_leaky_relu, torch.compile(bias_leaky_relu, backend="eager")):
        assert_same_bits(function(x, clamp=1e300), bias_leaky_relu(x))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("name", "value"), [("residual", 3), ("dim", "1"), ("gain", None), ("clamp", "1"), ("dropout_p", "0.5")]
)
def test_keyword_only_arguments_are_quoted_by_name(name, value, inplace):
    with pytest.raises(TypeError, match=rf"argument '{name}' must be \w+, not {type(value).__name__}") as raised:
        bias_leaky_relu(randn(2, 3), inplace=inplace, **{name: value})
    assert "position" not in str(raised.value)


@feature("dropout under vmap")
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_dropout_under_vmap(randomness):
    """As F.dropout: one draw for all, or one for each."""
    x = torch.ones(4, 1000)
    torch.manual_seed(0)
    y = torch.func.vmap(lambda row: bias_leaky_relu(row, dim=0, dropout_p=0.25), randomness=randomness)(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert bool((y == y[0]).all()) == (randomness == "same")
    assert 0.2 < (y == 0).float().mean() < 0.3
    inner = torch.func.vmap(lambda row: bias_leaky_relu(row, dim=0, dropout_p=0.25), randomness=randomness)
    assert torch.func.vmap(inner, randomness=randomness)(torch.ones(2, 3, 10)).shape == (2, 3, 10)


@feature("saved-tensor hooks that cast")
@pytest.mark.native
@pytest.mark.parametrize("function", [leaky_relu, lambda x: bias_leaky_relu(x, clamp=1.0)], ids=["plain", "family"])
def test_saved_tensor_hooks_that_cast(function):
    """What is no floating point they must leave alone; a mask that went through a cast is refused, and it says why."""
    x = randn(100).requires_grad_()

    def pack(tensor):
        return tensor.bfloat16() if tensor.is_floating_point() else tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t.float() if t.is_floating_point() else t):
        function(x).sum().backward()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.bfloat16(), lambda t: t.float()):
        y = function(x)
    with pytest.raises(
        RuntimeError, match=r"Saved-tensor hooks that cast must leave integer tensors .* is_floating_point\(\)"
    ):
        y.sum().backward()
