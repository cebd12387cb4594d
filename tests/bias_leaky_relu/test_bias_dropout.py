"""Dropout inside bias_leaky_relu: torch's generator, the share, the scale, one mask for both ways."""

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from cases import DTYPES, assert_same_bits, randn
from leakyrelu_ext import bias_leaky_relu, set_compile_target

SIZES = [1, 63, 64, 65, 1023, 1025, 40_000]


def ones(*shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype)


def dropped(n, p, seed, **keywords):
    torch.manual_seed(seed)
    return bias_leaky_relu(ones(n), dropout_p=p, **keywords)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(p, dtype):
    torch.manual_seed(0)
    n = 2**18
    y = bias_leaky_relu(ones(n, dtype=dtype), dropout_p=p)
    kept = y != 0
    assert abs(kept.sum().item() - n * (1 - p)) < 5 * math.sqrt(n * p * (1 - p))
    assert_same_bits(y[kept], torch.full_like(y[kept], 1 / (1 - p)))


@pytest.mark.parametrize("n", SIZES)
def test_seeds(n):
    assert_same_bits(dropped(n, 0.5, seed=1), dropped(n, 0.5, seed=1))
    torch.manual_seed(1)
    bias_leaky_relu(ones(3), dropout_p=0.5)
    assert n < 60 or not torch.equal(bias_leaky_relu(ones(n), dropout_p=0.5), dropped(n, 0.5, seed=1))


def test_elements_are_independent():
    """Of neighbours at every small distance, and from call to call: no correlation beyond chance."""
    kept = (dropped(2**17, 0.5, seed=0) != 0).double() - 0.5
    other = (bias_leaky_relu(ones(2**17), dropout_p=0.5) != 0).double() - 0.5
    chance = 5 * 0.25 / math.sqrt(2**17)
    for distance in [*range(1, 70), 128, 512, 1024, 2**16]:
        assert abs((kept * kept.roll(distance)).mean()) < chance
    assert abs((kept * other).mean()) < chance


@pytest.mark.native
def test_without_a_gradient_the_same_elements_are_dropped():
    torch.manual_seed(3)
    with_grad = bias_leaky_relu(ones(5000).requires_grad_(), dropout_p=0.3)
    assert_same_bits(with_grad, dropped(5000, 0.3, seed=3))


@pytest.mark.parametrize("clamp", [None, 1.5])
@pytest.mark.parametrize("shape", [(1,), (5, 7), (3, 64, 8, 8), (40, 1000)])
def test_the_backward_drops_what_the_forward_dropped(shape, clamp):
    torch.manual_seed(0)
    x = (randn(*shape) + 2).abs().add(0.1).requires_grad_()
    y = bias_leaky_relu(x, dropout_p=0.5, clamp=clamp)
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    passed = (y != 0) & (x <= clamp if clamp else True)
    assert_same_bits(grad, torch.where(passed, 2.0, 0.0))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_with_all_parts(layout):
    torch.manual_seed(0)
    format_ = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x = randn(4, 6, 16, 16).contiguous(memory_format=format_).requires_grad_()
    bias, residual = randn(6, seed=1).requires_grad_(), randn(4, 6, 16, 16, seed=2).requires_grad_()
    keywords = {"residual": residual, "gain": 1.5, "clamp": 1.0}
    y = bias_leaky_relu(x, bias, 0.2, **keywords, dropout_p=0.25)
    full = bias_leaky_relu(x, bias, 0.2, **keywords)
    kept = y != 0
    torch.testing.assert_close(y[kept], full[kept] / 0.75)
    grad_output = randn(4, 6, 16, 16, seed=3)
    grads = torch.autograd.grad(y, (x, bias, residual), grad_output)
    expected = torch.autograd.grad(full, (x, bias, residual), grad_output * kept / 0.75)
    torch.testing.assert_close(grads, expected)


def test_not_training():
    x = randn(100)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert_same_bits(bias_leaky_relu(x, dropout_p=0.5, training=False), bias_leaky_relu(x))
    assert_same_bits(bias_leaky_relu(x, dropout_p=0.0), bias_leaky_relu(x))
    assert torch.equal(torch.get_rng_state(), state)


def test_everything_dropped():
    x = randn(300).requires_grad_()
    y = bias_leaky_relu(x, dropout_p=1.0)
    assert not y.any()
    assert not torch.autograd.grad(y.sum(), x)[0].any()


def test_in_place():
    torch.manual_seed(5)
    expected = bias_leaky_relu(ones(999), dropout_p=0.5)
    torch.manual_seed(5)
    x = ones(999)
    assert bias_leaky_relu(x, dropout_p=0.5, inplace=True) is x
    assert_same_bits(x, expected)


@pytest.mark.feature("Fused: bias, residual and Leaky ReLU", "activation checkpointing of dropout (both kinds)")
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_drops_the_same_again(use_reentrant):
    torch.manual_seed(0)
    x = ones(5000).requires_grad_()
    y = checkpoint(lambda t: bias_leaky_relu(t, dropout_p=0.5), x, use_reentrant=use_reentrant)
    y.sum().backward()
    assert_same_bits(x.grad, y.detach())


@pytest.mark.native
@pytest.mark.cpu_only
def test_any_number_of_threads_drops_the_same():
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(dropped(300_001, 0.5, seed=7))
    finally:
        torch.set_num_threads(threads)
    assert_same_bits(*results)


@pytest.mark.parametrize("target", ["builtin", pytest.param("op", marks=pytest.mark.native)])
def test_two_compiled_calls_are_two_draws(target):
    torch._dynamo.reset()
    x = ones(1000).requires_grad_()
    set_compile_target(target)
    try:
        calls = [lambda t: bias_leaky_relu(t, dropout_p=0.5)] * 2
        one, other = torch.compile(lambda t: [call(t) for call in calls], backend="aot_eager")(x)
    finally:
        set_compile_target("builtin")
    assert not torch.equal(one, other)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_vmap_asks_for_a_rule(requires_grad):
    x = ones(64).requires_grad_(requires_grad)

    def draw(randomness):
        return torch.vmap(lambda i: bias_leaky_relu(x, dropout_p=0.5) + i, randomness=randomness)(torch.zeros(3))

    with pytest.raises(RuntimeError, match="randomness"):
        draw("error")
    different, same = draw("different"), draw("same")
    assert not torch.equal(different[0], different[1])
    assert torch.equal(same[0], same[1])
