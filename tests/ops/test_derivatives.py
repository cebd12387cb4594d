"""Derivatives of any order, in both modes, and under torch.func's transforms."""

import math

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import aten
from cases import keeps_a_mask, randn
from leakyrelu_ext import LeakyReLU, LeakyReLUFunction, leaky_relu

# Function, and as the last one the op that users can call without our Python code.
FUNCTIONS = {
    "functional": leaky_relu,
    "in place": lambda x, slope: leaky_relu(x * 1, slope, inplace=True),
    "Function": LeakyReLUFunction.apply,
    "op": pytest.param(lambda x, slope: torch.ops.leakyrelu_ext.leaky_relu(x, slope), marks=pytest.mark.native),
    "op with mask": pytest.param(
        lambda x, slope: torch.ops.leakyrelu_ext.leaky_relu_forward(x, slope)[0], marks=pytest.mark.native
    ),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
every_slope = pytest.mark.parametrize("slope", [0.0, 0.01, -0.5, 2.0])


@pytest.fixture(autouse=True)
def _beyond_the_builtin(request):
    """Transforms get PyTorch's own kernel, also where ours is installed."""
    if request.config.getoption("--installed") and hasattr(request.node, "callspec"):
        params = request.node.callspec.params
        in_place = params.get("function") is FUNCTIONS["in place"] or "in_place" in request.node.name
        if in_place and not params.get("slope", 0) >= 0:
            pytest.skip("PyTorch's own refuses a negative slope in place")


def double(*shape):
    return randn(*shape, dtype=torch.float64).requires_grad_()


LEAVES = {
    "contiguous": lambda: double(3, 5),
    "channels_last": lambda: double(2, 3, 2, 2).detach().contiguous(memory_format=torch.channels_last).requires_grad_(),
    "strided": lambda: double(4, 6).detach()[:, ::2].requires_grad_(),
    "0-dim": double,
}


@pytest.mark.feature("torch.func and derivatives", "first derivative: backward, forward mode, batched")
@every_function
@every_slope
@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
def test_first_derivative(leaf, slope, function):
    assert gradcheck(lambda x: function(x, slope), leaf(), check_forward_ad=True, check_batched_grad=True)


@pytest.mark.feature("torch.func and derivatives", "second derivative: also forward over reverse")
@every_function
@every_slope
@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
def test_second_derivative(leaf, slope, function):
    assert gradgradcheck(lambda x: function(x, slope), leaf(), check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.feature("torch.func and derivatives", "third derivative")
@every_function
def test_third_derivative(function):
    x = double(20)

    def derivatives(activation):
        value = activation(x, 0.1) ** 4
        for _ in range(3):
            (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        return value

    torch.testing.assert_close(derivatives(function), derivatives(aten.leaky_relu))
    assert derivatives(function).abs().max() > 1


@pytest.mark.feature("torch.func and derivatives", "forward-mode AD")
@every_function
@every_slope
def test_forward_mode(slope, function):
    x, tangent = randn(30), randn(30, seed=1)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        actual = forward_ad.unpack_dual(function(dual, slope)).tangent
    assert torch.equal(actual, torch.where(x > 0, tangent, tangent * slope))


@pytest.mark.feature("torch.func and derivatives", "vmap, grad, jvp, vjp, jacrev, jacfwd, hessian, and nested")
@every_function
@every_slope
def test_transforms_match_the_builtin(slope, function):
    x = randn(4, 6)

    def ours(t):
        return function(t, slope)

    def builtin(t):
        return aten.leaky_relu(t, slope)

    def cube(activation):
        return lambda t: (activation(t) ** 3).sum()

    assert torch.equal(vmap(ours)(x), vmap(builtin)(x))
    assert torch.equal(vmap(ours, in_dims=1, out_dims=1)(x), builtin(x))
    assert torch.equal(grad(cube(ours))(x), grad(cube(builtin))(x))
    assert torch.equal(vmap(grad(cube(ours)))(x), vmap(grad(cube(builtin)))(x))
    assert torch.equal(vmap(grad(cube(ours)), in_dims=1)(x), vmap(grad(cube(builtin)), in_dims=1)(x))
    assert torch.equal(jacrev(ours)(x), jacrev(builtin)(x))
    assert torch.equal(jacfwd(ours)(x), jacfwd(builtin)(x))
    torch.testing.assert_close(hessian(cube(ours))(x), hessian(cube(builtin))(x))
    assert torch.equal(grad(lambda t: grad(cube(ours))(t).sum())(x), grad(lambda t: grad(cube(builtin))(t).sum())(x))
    for actual, expected in zip(jvp(ours, (x,), (x,)), jvp(builtin, (x,), (x,)), strict=True):
        assert torch.equal(actual, expected)
    assert torch.equal(vjp(ours, x)[1](x)[0], vjp(builtin, x)[1](x)[0])


@pytest.mark.native
def test_the_native_path_comes_back_after_a_transform():
    x = randn(10).requires_grad_()
    vmap(grad(lambda t: leaky_relu(t).sum()))(x)
    assert keeps_a_mask(leaky_relu(x))


@pytest.mark.feature("torch.func and derivatives", "is_grads_batched")
@pytest.mark.native
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_batched_gradients_of_one_graph(layout):
    x = LEAVES[layout]()
    y = leaky_relu(x, 0.1)
    assert keeps_a_mask(y)
    grads = randn(3, *x.shape, dtype=torch.float64, seed=1)
    (actual,) = torch.autograd.grad(y, x, grads, is_grads_batched=True)
    assert torch.equal(actual, torch.where(x > 0, grads, grads * 0.1))


@pytest.mark.feature("torch.func and derivatives", "in place under vmap")
def test_in_place_under_vmap():
    x = randn(4, 6)
    actual = vmap(lambda t: leaky_relu(t.clone(), -0.5, inplace=True))(x)
    assert torch.equal(actual, aten.leaky_relu(x, -0.5))


@pytest.mark.feature("torch.func and derivatives", "functionalize")
@pytest.mark.native  # the fallback copies back with copy_, which has no derivative under functionalize
@pytest.mark.parametrize("slope", [0.5, -0.5, math.nan])
def test_functionalize_in_place(slope):
    x = randn(4)

    def sum_of(function):
        return lambda t: function(t * 1, slope).sum()

    for transform in (grad, lambda f: lambda t: jvp(f, (t,), (t,))[1]):
        actual = transform(torch.func.functionalize(sum_of(lambda t, s: leaky_relu(t, s, inplace=True))))(x)
        torch.testing.assert_close(actual, transform(sum_of(aten.leaky_relu))(x), equal_nan=True)


@pytest.mark.parametrize("slope", [-0.5, 0.0, math.nan, math.inf])
def test_any_slope_in_place_under_grad(slope):
    x = randn(10)
    actual = grad(lambda t: leaky_relu(t * 1, slope, inplace=True).sum())(x)
    torch.testing.assert_close(actual, torch.where(x > 0, 1.0, slope), equal_nan=True)


@pytest.mark.feature("torch.func and derivatives", "stack_module_state, ensembles")
def test_modules_of_an_ensemble():
    models = [torch.nn.Sequential(torch.nn.Linear(3, 3), LeakyReLU(0.1)) for _ in range(4)]
    parameters, buffers = torch.func.stack_module_state(models)
    x = randn(5, 3)
    actual = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(actual, torch.stack([model(x) for model in models]))
