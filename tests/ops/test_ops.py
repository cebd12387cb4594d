"""The ops as torch.library sees them, and what they refuse."""

import pytest
import torch

import aten
import cases
import leakyrelu_ext
from cases import DTYPES, LAYOUTS, WRITABLE, assert_same_bits, randn

pytestmark = pytest.mark.native
assert leakyrelu_ext.__version__  # its import registers the ops
ops = torch.ops.leakyrelu_ext


def variants(layout):
    """The layout's tensor, also as a leaf that requires grad."""
    x = LAYOUTS[layout](torch.float32)
    return x, x.detach().requires_grad_()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["leaky_relu", "leaky_relu_forward"])
def test_opcheck(name, layout):
    for x in variants(layout):
        torch.library.opcheck(getattr(ops, name).default, (x, 0.1))


@pytest.mark.parametrize("layout", WRITABLE)
@pytest.mark.parametrize("name", ["leaky_relu_", "leaky_relu_forward_"])
def test_opcheck_in_place(name, layout):
    x = LAYOUTS[layout](torch.float32)
    torch.library.opcheck(getattr(ops, name).default, (x.clone(), -0.1))
    torch.library.opcheck(getattr(ops, name).default, (x.clone().requires_grad_().clone(), -0.1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_backward(layout):
    for x in variants(layout):
        output, mask = ops.leaky_relu_forward(x.detach(), 0.1)
        torch.library.opcheck(ops.leaky_relu_backward.default, (x, mask, 0.1, output.stride()))
        torch.library.opcheck(ops.leaky_relu_backward.default, (x, mask, 0.1, None))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_mask_is_one_bit_per_element_in_memory_order(layout, dtype):
    x = LAYOUTS[layout](dtype)
    output, mask = ops.leaky_relu_forward(x, 0.1)
    assert mask.dtype == torch.uint8
    assert mask.shape == ((x.numel() + 7) // 8,)
    positive = torch.empty_like(output, dtype=torch.uint8).copy_(x > 0)
    in_memory = positive.as_strided((x.numel(),), (1,))
    bits = (mask[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    assert torch.equal(bits.flatten()[: x.numel()], in_memory)
    assert not bits.flatten()[x.numel() :].any()


def test_default_slope_is_the_builtins():
    x = randn(10)
    assert_same_bits(ops.leaky_relu(x), aten.leaky_relu(x))
    assert_same_bits(ops.leaky_relu_(x.clone()), aten.leaky_relu(x))


def test_gradient_of_the_backward_op_alone():
    grad = randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    x = randn(2, 3, 4, 5, seed=1).contiguous(memory_format=torch.channels_last)
    output, mask = ops.leaky_relu_forward(x, 0.1)
    assert torch.autograd.gradgradcheck(lambda g: ops.leaky_relu_backward(g, mask, 0.1, output.stride()), grad)


@pytest.mark.parametrize("batched", ["grad_output", "both"])
def test_backward_op_under_vmap(batched):
    x = randn(5, 3, 7)
    grad = randn(5, 3, 7, seed=1)
    outputs, masks = torch.vmap(ops.leaky_relu_forward, in_dims=(0, None))(x, 0.1)
    assert_same_bits(outputs, aten.leaky_relu(x, 0.1))
    if batched == "both":
        actual = torch.vmap(ops.leaky_relu_backward, in_dims=(0, 0, None, None))(grad, masks, 0.1, None)
        assert_same_bits(actual, torch.where(x > 0, grad, grad * 0.1))
    else:
        actual = torch.vmap(ops.leaky_relu_backward, in_dims=(0, None, None, None))(grad, masks[2], 0.1, None)
        assert_same_bits(actual, torch.where(x[2] > 0, grad, grad * 0.1))


BAD_MASKS = {
    "too short": torch.zeros(1, dtype=torch.uint8),
    "too long": torch.zeros(3, dtype=torch.uint8),
    "bool": torch.zeros(2, dtype=torch.bool),
    "2-D": torch.zeros(2, 1, dtype=torch.uint8),
    "on another device": torch.zeros(2, dtype=torch.uint8, device="meta"),
}


@pytest.mark.parametrize("mask", BAD_MASKS.values(), ids=BAD_MASKS)
def test_bad_masks_are_refused(mask):
    on_meta = mask.is_meta
    if not on_meta:
        mask = mask.to(cases.DEVICE)
        with pytest.raises(RuntimeError, match="argument 'mask'"):
            ops.leaky_relu_backward(torch.empty(12, device="meta"), mask.to("meta"), 0.1, None)
    with pytest.raises(RuntimeError, match="argument 'mask'"):
        ops.leaky_relu_backward(randn(12), mask, 0.1, None)
    if not on_meta:
        with pytest.raises(RuntimeError, match="argument 'mask'"):
            torch.vmap(lambda grad: ops.leaky_relu_backward(grad, mask, 0.1, None))(randn(2, 12))


def test_strided_masks_are_read_as_they_are():
    x, grad = randn(100), randn(100, seed=1)
    mask = ops.leaky_relu_forward(x, 0.1)[1]
    assert_same_bits(
        ops.leaky_relu_backward(grad, torch.stack([mask, mask], 1)[:, 0], 0.1, None), torch.where(x > 0, grad, grad * 0.1)
    )


@pytest.mark.parametrize("strides", [(), (1,), (0, 0), (1, 1), (8, 2), (3, 1), (100, 1), (2**40, 1), (-4, 1)])
def test_strides_of_no_dense_tensor_are_refused(strides):
    with pytest.raises(RuntimeError, match="output_strides"):
        ops.leaky_relu_backward(randn(3, 4), torch.zeros(2, dtype=torch.uint8), 0.1, strides)


def test_meta_tensors():
    x = torch.empty(3, 5, device="meta", requires_grad=True)
    y = ops.leaky_relu(x, 0.1)
    y.sum().backward()
    assert y.is_meta
    assert x.grad.shape == (3, 5)
