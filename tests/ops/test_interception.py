"""Whoever intercepts PyTorch's calls (subclasses, modes, tracers) sees the built-in or our function, never an unknown op."""

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.testing._internal.two_tensor import TwoTensor

import aten
from cases import Observer, assert_same_bits, randn
from leakyrelu_ext import LeakyReLU, leaky_relu, leaky_relu_
from leakyrelu_ext._torch_versions import RELEASE
from releases import since


class Logged(torch.Tensor):
    """A __torch_function__ subclass."""

    seen: list = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.seen.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


class Wrapped(torch.Tensor):
    """A __torch_dispatch__ subclass that knows ATen's leaky_relu and nothing of ours."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, requires_grad=inner.requires_grad)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        if op.namespace != "aten":
            raise NotImplementedError(op)
        unwrapped = [arg.inner if isinstance(arg, cls) else arg for arg in args]
        result = op(*unwrapped, **(kwargs or {}))
        return cls(result) if isinstance(result, torch.Tensor) and op is torch.ops.aten.leaky_relu.default else args[0]


@pytest.mark.feature("Subclasses, modes and other tensors", "__torch_function__ subclasses, parameters")
def test_torch_function_subclasses():
    Logged.seen.clear()
    y = leaky_relu(randn(10).as_subclass(Logged), 0.1)
    assert type(y) is Logged
    assert leaky_relu in Logged.seen
    assert_same_bits(y.as_subclass(torch.Tensor), aten.leaky_relu(randn(10), 0.1))
    parameter = nn.Parameter(randn(10))
    assert type(leaky_relu(parameter)) is torch.Tensor


@pytest.mark.feature("Subclasses, modes and other tensors", "__torch_dispatch__ subclasses")
def test_torch_dispatch_subclasses():
    assert_same_bits(leaky_relu(Wrapped(randn(10)), 0.1).inner, aten.leaky_relu(randn(10), 0.1))
    wrapped = Wrapped(randn(10))
    assert leaky_relu_(wrapped, 0.1) is wrapped
    assert_same_bits(wrapped.inner, aten.leaky_relu(randn(10), 0.1))


@pytest.mark.feature("Subclasses, modes and other tensors", "TorchFunctionMode")
def test_torch_function_modes():
    class Mode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    seen = []
    with Mode():
        leaky_relu(randn(3))
    assert leaky_relu in seen


@pytest.mark.feature("Subclasses, modes and other tensors", "TorchDispatchMode")
def test_torch_dispatch_modes():
    x = randn(10).requires_grad_()
    with Observer() as observer:
        y = leaky_relu(x, 0.1)
    assert "aten.leaky_relu.default" in observer.seen
    assert_same_bits(y, aten.leaky_relu(x, 0.1))


@pytest.mark.feature("Subclasses, modes and other tensors", "torch.set_default_device")
def test_default_device():
    torch.set_default_device("meta")
    try:
        assert leaky_relu(torch.empty(3)).is_meta
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(mode):
    graph = make_fx(lambda x: leaky_relu(leaky_relu(x, 0.1), 0.2, inplace=True), tracing_mode=mode)(randn(3))
    assert "leakyrelu_ext" not in graph.code
    assert graph.code.count("aten.leaky_relu") == 2
    assert_same_bits(graph(randn(5)), aten.leaky_relu(aten.leaky_relu(randn(5), 0.1), 0.2))


def test_symbolic_trace():
    model = nn.Sequential(nn.Linear(3, 3), LeakyReLU(0.1))
    traced = torch.fx.symbolic_trace(model)
    x = randn(2, 3)
    assert_same_bits(traced(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_jit_trace_holds_the_builtin():
    traced = torch.jit.trace(LeakyReLU(0.1), randn(2, 3))
    kinds = [node.kind() for node in traced.inlined_graph.nodes()]
    assert "aten::leaky_relu" in kinds
    assert not any("leakyrelu_ext" in kind for kind in kinds)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("inplace", [False, True])
def test_jit_trace_keeps_a_slope_that_depends_on_the_shape(inplace):
    traced = torch.jit.trace(lambda x: leaky_relu(x * 1, x.shape[0] * 0.1, inplace), randn(4))
    assert_same_bits(traced(randn(8)), aten.leaky_relu(randn(8), 0.8))


def test_make_fx_keeps_a_slope_that_depends_on_data():
    graph = make_fx(lambda x, slope: leaky_relu(x, slope.item()), tracing_mode="symbolic")(randn(3), torch.tensor(0.5))
    assert_same_bits(graph(randn(5), torch.tensor(0.25)), aten.leaky_relu(randn(5), 0.25))


@pytest.mark.feature("Subclasses, modes and other tensors", "__torch_dispatch__ subclasses as gradients")
def test_gradients_of_a_dispatch_subclass():
    x = randn(10).requires_grad_()
    (grad,) = torch.autograd.grad(leaky_relu(x, 0.1), x, TwoTensor(torch.ones(10), torch.full((10,), 2.0)))
    assert torch.equal(grad.a, torch.where(x > 0, 1.0, 0.1))
    assert torch.equal(grad.b, 2 * grad.a)


@pytest.mark.feature("Subclasses, modes and other tensors", "jagged nested tensors")
@since(2, 12, "the built-in takes jagged nested tensors")
def test_jagged_nested_tensors():
    x = torch.nested.nested_tensor([randn(2), randn(3, seed=1)], layout=torch.jagged)
    assert_same_bits(leaky_relu(x, 0.1).values(), aten.leaky_relu(x.values(), 0.1))
    assert_same_bits(leaky_relu_(x, 0.1).values(), x.values())


@pytest.mark.skipif(RELEASE >= (2, 12), reason="the built-in takes jagged nested tensors from torch 2.12 on")
def test_jagged_nested_tensors_are_refused_as_by_the_builtin():
    x = torch.nested.nested_tensor([randn(2), randn(3, seed=1)], layout=torch.jagged)
    for function in (aten.leaky_relu, aten.leaky_relu_, leaky_relu, leaky_relu_):
        with pytest.raises(NotImplementedError):
            function(x, 0.1)


@pytest.mark.feature("Subclasses, modes and other tensors", "FakeTensorMode")
def test_fake_tensors():
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last)
        y = leaky_relu(x)
    assert y.stride() == x.stride()
