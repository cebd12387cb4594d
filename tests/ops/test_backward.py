"""The backward is bit for bit the built-in's, from one bit per element."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import aten
from cases import (
    DTYPES,
    EXTREME_SLOPES,
    HALF_DTYPES,
    LAYOUTS,
    SLOPES,
    assert_same_bits,
    every_bit_pattern,
    misaligned,
    randn,
    random_bit_patterns,
)
from leakyrelu_ext import LeakyReLU, leaky_relu


def gradient(function, x, slope, grad_output):
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(function(leaf, slope), leaf, grad_output)[0]


def assert_same_gradient(x, slope, grad_output):
    actual = gradient(leaky_relu, x, slope, grad_output)
    assert_same_bits(actual, gradient(aten.leaky_relu, x, slope, grad_output))
    return actual


def saved_tensors(function, x):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        function(x)
    return saved


@pytest.mark.parametrize("slope", [*SLOPES, *EXTREME_SLOPES])
@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_every_half_pattern_matches_the_builtin(dtype, slope):
    patterns = every_bit_pattern(dtype)
    noise = randn(patterns.numel(), dtype=dtype)
    assert_same_gradient(patterns, slope, noise)
    assert_same_gradient(noise, slope, patterns)


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_patterns_match_the_builtin(dtype, slope):
    assert_same_gradient(random_bit_patterns(dtype, seed=0), slope, random_bit_patterns(dtype, seed=1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_sizes_match_the_builtin(dtype):
    for size in range(301):
        x, grad = randn(size, dtype=dtype), randn(size, dtype=dtype, seed=1)
        assert_same_gradient(misaligned(x, size % 4), 0.1, misaligned(grad, size % 3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_match_the_builtin(layout, dtype):
    x = LAYOUTS[layout](dtype)
    actual = assert_same_gradient(x, 0.2, randn(*x.shape, dtype=dtype, seed=1))
    assert actual.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "permuted", "every other column"])
def test_gradients_of_any_layout(layout):
    x = LAYOUTS[layout](torch.float32)
    grad = randn(*x.shape, seed=1)
    for grad_output in (
        grad,
        grad.transpose(0, -1).contiguous().transpose(0, -1),
        randn(1, seed=2).expand(x.shape),
        torch.stack([grad, grad], -1)[..., 0],
    ):
        assert_same_gradient(x, -0.3, grad_output)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_many_elements_match_the_builtin_on_any_number_of_threads(dtype, threads):
    x = randn(2**18 + 37, dtype=dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same_gradient(x, 0.2, randn(2**18 + 37, dtype=dtype, seed=1))
    finally:
        torch.set_num_threads(before)


def test_expanded_gradient_of_sum_is_not_written_into():
    x = randn(3, 4).requires_grad_()
    seen = []
    y = leaky_relu(x, 0.1)
    y.register_hook(seen.append)
    y.sum().backward()
    assert seen[0].stride() == (0, 0)
    assert torch.equal(seen[0], torch.ones(3, 4))
    assert torch.equal(x.grad, torch.where(x > 0, 1.0, 0.1))


def test_given_gradient_is_not_written_into():
    x, grad = randn(100).requires_grad_(), randn(100, seed=1)
    before = grad.clone()
    leaky_relu(x, 0.1).backward(grad)
    assert torch.equal(grad, before)


@pytest.mark.native
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000])
@pytest.mark.parametrize("function", [leaky_relu, LeakyReLU(), lambda x: leaky_relu(x * 1, inplace=True)])
def test_one_bit_per_element_is_saved(function, size, dtype):
    x = randn(size, dtype=dtype).requires_grad_()
    (mask,) = (tensor for tensor in saved_tensors(function, x) if tensor.dtype == torch.uint8)
    assert mask.nbytes == (size + 7) // 8
    expected = sum((x > 0).to(torch.float64)).item() if size else 0
    assert sum(byte.bit_count() for byte in mask.tolist()) == expected


def test_builtin_saves_the_whole_input():
    """What the figure in the README is compared with."""
    assert sum(tensor.nbytes for tensor in saved_tensors(aten.leaky_relu, randn(1000).requires_grad_())) == 4000


@pytest.mark.native
def test_nothing_is_saved_when_no_gradient_is_wanted():
    assert saved_tensors(leaky_relu, randn(10)) == []
    with torch.no_grad():
        assert saved_tensors(leaky_relu, randn(10).requires_grad_()) == []


@pytest.mark.native
def test_input_and_output_may_be_overwritten_before_the_backward():
    x = randn(100).requires_grad_()
    hidden = x * 1
    z = leaky_relu(hidden, 0.1)
    with torch.no_grad():
        hidden.zero_()
    z.mul_(2)
    z.sum().backward()
    assert torch.equal(x.grad, torch.where(x > 0, 2.0, 0.2))


@pytest.mark.native
def test_input_storage_may_be_freed_before_the_backward():
    x = randn(100).requires_grad_()
    hidden = x * 1
    y = leaky_relu(hidden, 0.1)
    hidden.untyped_storage().resize_(0)
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(x > 0, 1.0, 0.1))


def test_second_backward_needs_retain_graph():
    x = randn(10).requires_grad_()
    y = leaky_relu(x)
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert torch.equal(x.grad, 2 * torch.where(x > 0, 1.0, 0.01))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(use_reentrant):
    x = randn(10).requires_grad_()
    checkpoint(lambda t: leaky_relu(t * 2, 0.1), x, use_reentrant=use_reentrant).sum().backward()
    assert torch.equal(x.grad, torch.where(x > 0, 2.0, 0.2))


def test_saved_tensors_may_be_packed():
    x = randn(100).requires_grad_()
    with torch.autograd.graph.save_on_cpu():
        y = leaky_relu(x, 0.1)
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(x > 0, 1.0, 0.1))


def test_undefined_gradient():
    class DropsGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return None

    x = randn(10).requires_grad_()
    y = leaky_relu(x)
    (DropsGradient.apply(y).sum() + x.sum()).backward()
    assert torch.equal(x.grad, torch.ones(10))


def test_retained_gradients_and_hooks():
    x = randn(10).requires_grad_()
    y = leaky_relu(x, 0.1)
    y.retain_grad()
    y.register_hook(lambda grad: grad * 3)
    y.sum().backward()
    assert torch.equal(y.grad, torch.full((10,), 3.0))
    assert torch.equal(x.grad, torch.where(x > 0, 3.0, 3.0 * 0.1))


@pytest.mark.native
@pytest.mark.own_name
def test_the_graph_names_the_op():
    grad_fn = leaky_relu(randn(3).requires_grad_()).grad_fn
    assert grad_fn.name() == type(grad_fn).__name__ == "LeakyReLUBackward"
    assert isinstance(grad_fn, torch.autograd.graph.Node)
    assert [type(function).__name__ for function, _ in grad_fn.next_functions] == ["AccumulateGrad"]
