"""LeakyReLUFunction, the public autograd.Function. Its derivatives are in test_derivatives.py."""

import pytest
import torch

import aten
from cases import DTYPES, LAYOUTS, assert_same_bits, randn
from leakyrelu_ext import LeakyReLUFunction


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_matches_the_builtin(layout, dtype):
    x = LAYOUTS[layout](dtype)
    grad = randn(*x.shape, dtype=dtype, seed=1)
    leaves = [x.detach().requires_grad_() for _ in range(2)]
    actual, expected = LeakyReLUFunction.apply(leaves[0], -0.2), aten.leaky_relu(leaves[1], -0.2)
    assert_same_bits(actual, expected)
    grads = (torch.autograd.grad(y, leaf, grad)[0] for y, leaf in zip((actual, expected), leaves, strict=True))
    assert_same_bits(*grads)


def test_default_slope():
    assert LeakyReLUFunction.apply(torch.tensor([-1.0])).item() == pytest.approx(0.01 * -1)


def test_is_an_autograd_function_with_the_current_protocol():
    assert issubclass(LeakyReLUFunction, torch.autograd.Function)
    for method in ("forward", "setup_context", "backward", "jvp", "vmap"):
        assert getattr(LeakyReLUFunction, method) is not getattr(torch.autograd.Function, method)


@pytest.mark.native
def test_one_bit_per_element_is_saved():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        LeakyReLUFunction.apply(randn(1001).requires_grad_(), 0.1)
    assert [tensor.nbytes for tensor in saved] == [126]


def test_inside_another_function():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            with torch.enable_grad():
                ctx.leaf = x.detach().requires_grad_()
                ctx.y = LeakyReLUFunction.apply(ctx.leaf, 0.1)
            return 2 * ctx.y.detach()

        @staticmethod
        def backward(ctx, grad):
            return torch.autograd.grad(ctx.y, ctx.leaf, 2 * grad)[0]

    x = randn(10).requires_grad_()
    Doubled.apply(x).sum().backward()
    assert torch.equal(x.grad, torch.where(x > 0, 2.0, 0.2))
