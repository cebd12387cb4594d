"""In place: the same values, the same refusals (before a byte is written), one step of the version counter."""

import pytest
import torch

import aten
import leakyrelu_ext
from cases import DTYPES, LAYOUTS, SLOPES, WRITABLE, assert_same_bits, every_bit_pattern, randn
from leakyrelu_ext import LeakyReLU, leaky_relu, leaky_relu_

CALLS = {
    "functional": lambda x, slope: leaky_relu(x, slope, inplace=True),
    "leaky_relu_": leaky_relu_,
    "module": lambda x, slope: LeakyReLU(slope, inplace=True)(x),
    "op": pytest.param(lambda x, slope: torch.ops.leakyrelu_ext.leaky_relu_(x, slope), marks=pytest.mark.native),
    "op that returns the mask": pytest.param(
        lambda x, slope: (torch.ops.leakyrelu_ext.leaky_relu_forward_(x, slope), x)[1], marks=pytest.mark.native
    ),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def with_strides_of(like, values):
    """A new tensor of ``values`` with the strides, and so the gaps, of ``like``; part of the graph of ``values``."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).copy_(values)


@every_call
def test_every_way_overwrites_and_returns_its_input(call):
    x = randn(100)
    expected = aten.leaky_relu(x, 0.1)
    assert call(x, 0.1) is x
    assert_same_bits(x, expected)


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_pattern_matches_the_builtin(dtype, slope):
    x = every_bit_pattern(dtype)
    assert_same_bits(leaky_relu_(x.clone(), slope), aten.leaky_relu(x, slope))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", WRITABLE)
@pytest.mark.parametrize("slope", [0.2, -0.5])
def test_layouts_forward_and_backward(slope, layout, dtype):
    x = LAYOUTS[layout](dtype)
    expected = aten.leaky_relu(x, slope)
    leaf = x.detach().clone().requires_grad_()
    hidden = with_strides_of(x, leaf)
    y = leaky_relu_(hidden, slope)
    assert y is hidden
    assert y.stride() == x.stride()
    assert_same_bits(y, expected)
    grad = randn(*x.shape, dtype=dtype, seed=1)
    (actual,) = torch.autograd.grad(y, leaf, grad)
    out_of_place = x.detach().requires_grad_()
    (expected_grad,) = torch.autograd.grad(aten.leaky_relu(out_of_place, slope), out_of_place, grad)
    assert_same_bits(actual, expected_grad)


def test_only_the_view_is_written():
    x = randn(8, 12)
    before = x.clone()
    leaky_relu_(x[:, ::2], -3.0)
    assert torch.equal(x[:, 1::2], before[:, 1::2])
    assert_same_bits(x[:, ::2], aten.leaky_relu(before[:, ::2], -3.0))


@pytest.mark.parametrize("slope", [0.3, 0.0, -0.3])
def test_gradient_through_a_view_of_a_hidden_tensor(slope):
    x = randn(6, 4).requires_grad_()
    hidden = x * 2
    leaky_relu_(hidden[1:3, ::2], slope)
    hidden.sum().backward()
    factor = torch.full((6, 4), 2.0)
    factor[1:3, ::2] = torch.where(x[1:3, ::2] > 0, 2.0, 2 * slope)
    torch.testing.assert_close(x.grad, factor)


@pytest.mark.native
def test_two_activations_on_one_buffer():
    x = randn(100).requires_grad_()
    hidden = x * 1
    leaky_relu_(leaky_relu_(hidden, -0.5), 0.1)
    hidden.sum().backward()
    # -0.5 turns the negative inputs positive, so the second slope touches no one but exact zeros
    assert torch.equal(x.grad, torch.where(x > 0, 1.0, -0.5))


@pytest.mark.native
@every_call
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("layout", ["contiguous", "every other column"])
def test_version_counter_moves_once(layout, mode, requires_grad, call):
    x = LAYOUTS[layout](torch.float32)
    hidden = with_strides_of(x, x.detach().requires_grad_(requires_grad))
    before = hidden._version
    with mode():
        call(hidden, -0.1)
    assert hidden._version == before + 1


@pytest.mark.parametrize("slope", [0.1, -0.1])
def test_a_saved_tensor_overwritten_in_place_is_noticed(slope):
    x = randn(10).requires_grad_()
    hidden = x * 1
    y = hidden * hidden  # saves hidden
    leaky_relu_(hidden, slope)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def leaf():
    return randn(4).requires_grad_()


def view_of_leaf():
    return randn(4).requires_grad_()[:2]


def one_of_several_views():
    return (randn(4).requires_grad_() * 1).unbind()[0]


def view_made_without_grad():
    hidden = randn(4).requires_grad_() * 1
    with torch.no_grad():
        return hidden[:2]


def inference_tensor():
    with torch.inference_mode():
        return randn(4) * 1


def expanded():
    return randn(1).expand(4)


@pytest.mark.parametrize(
    "make",
    [
        leaf,
        view_of_leaf,
        one_of_several_views,
        view_made_without_grad,
        pytest.param(inference_tensor, marks=pytest.mark.native),  # the built-in itself writes before it refuses this one
        expanded,
    ],
)
@pytest.mark.parametrize("slope", [0.1, -0.1])
@every_call
def test_what_the_builtin_refuses_is_refused_before_a_byte_is_written(call, slope, make, pytestconfig):
    if make is inference_tensor and pytestconfig.getoption("--installed"):
        pytest.skip("PyTorch's own op writes before it refuses")
    with pytest.raises(RuntimeError) as builtin:
        aten.leaky_relu(make(), slope, inplace=True)
    x = make()
    before = x.detach().clone()
    with pytest.raises(RuntimeError) as ours:
        call(x, slope)
    assert torch.equal(x, before)
    first_words = str(builtin.value).split()[:4]
    if make is not expanded:
        assert str(ours.value).split()[:4] == first_words
    elif leakyrelu_ext.build_info()["native"]:
        assert "unsupported operation: more than one element of the written-to tensor, argument 'input'" in str(ours.value)


def test_leaves_may_be_overwritten_without_grad():
    x = leaf()
    expected = aten.leaky_relu(x.detach(), -0.1)
    with torch.no_grad():
        leaky_relu_(x, -0.1)
    assert_same_bits(x, expected)


@pytest.mark.native
def test_hooks_and_retained_gradient_of_an_overwritten_tensor_as_in_the_builtin():
    def run(function):
        x = randn(10).requires_grad_()
        hidden = x * 1
        calls = []
        hidden.register_hook(lambda grad: calls.append(grad.clone()))
        hidden.retain_grad()
        function(hidden, 0.1)
        (hidden * 2).sum().backward()
        return calls[0], hidden.grad, x.grad

    for actual, expected in zip(run(leaky_relu_), run(lambda x, s: aten.leaky_relu(x, s, inplace=True)), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("slope", [0.1, -0.1])
def test_lazily_negated_tensors(slope, pytestconfig):
    if slope < 0 and pytestconfig.getoption("--installed"):
        pytest.skip("lazily negated tensors get PyTorch's own, which refuses a negative slope in place")

    def run(function):
        x = randn(6, dtype=torch.float32).to(torch.complex64).mul(1 + 2j).requires_grad_()
        imaginary = (x * 1).conj().imag
        assert imaginary.is_neg()
        y = function(imaginary)
        return y.resolve_neg(), torch.autograd.grad(y.sum(), x)[0]

    actual, expected = run(lambda t: leaky_relu_(t, slope)), run(lambda t: aten.leaky_relu(t, slope))
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.native
def test_lazily_negated_tensors_of_the_op_with_mask():
    imaginary = torch.view_as_complex(randn(6, 2)).conj().imag
    before = imaginary.clone().resolve_neg()
    mask = torch.ops.leakyrelu_ext.leaky_relu_forward_(imaginary, -0.5)
    assert torch.equal(imaginary, aten.leaky_relu(before, -0.5))
    assert torch.equal(mask, torch.ops.leakyrelu_ext.leaky_relu_forward(before, -0.5)[1])


def test_copy_on_write_tensors_are_not_written_through():
    x = randn(100)
    lazy = x._lazy_clone()
    before = x.clone()
    leaky_relu_(lazy, -2.0)
    assert torch.equal(x, before)
    assert_same_bits(lazy, aten.leaky_relu(before, -2.0))
