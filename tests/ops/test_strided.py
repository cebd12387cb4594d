"""Tensors with gaps, transposed or expanded, of sizes at which rows, tiles and blocks of the kernels begin and end."""

import pytest
import torch

import aten
from cases import DTYPES, assert_same_bits, randn
from leakyrelu_ext import leaky_relu, leaky_relu_

CHANNELS_LAST = torch.channels_last

# Names and functions of a dtype. Each has more elements than one thread takes, but for the first.
GAPS = {
    "a few blocks of steps of two": lambda dtype: randn(3, 700, dtype=dtype)[:, 1::2],
    "steps of two": lambda dtype: randn(2, 7, 20_000, dtype=dtype)[:, :, ::2],
    "steps of three": lambda dtype: randn(70_001, 3, dtype=dtype)[:, 1],
    "rows of whole registers": lambda dtype: randn(40, 70, 192, dtype=dtype)[:, 1::2, :128],
    "rows of whole registers, misaligned": lambda dtype: randn(1000, 200, dtype=dtype)[:, 3:131],
    "rows of odd length": lambda dtype: randn(1000, 100, dtype=dtype)[:, :93],
    "rows of three": lambda dtype: randn(40_000, 5, dtype=dtype)[:, 1:4],
    "every other channel": lambda dtype: randn(2, 6, 100, 103, dtype=dtype)[:, ::2],
    "some channels of channels_last": lambda dtype: randn(4, 96, 21, 11, dtype=dtype).contiguous(
        memory_format=CHANNELS_LAST
    )[:, :64],
    "one odd channel of channels_last": lambda dtype: randn(4, 3, 151, 151, dtype=dtype).contiguous(
        memory_format=CHANNELS_LAST
    )[:, 1:2],
    "cropped": lambda dtype: randn(3, 4, 60, 130, dtype=dtype)[:, :, 3:-3, 5:-5],
    "permuted, cropped": lambda dtype: randn(12, 34, 56, 20, dtype=dtype).permute(3, 1, 0, 2)[1:, :, ::3],
}
EXPANDED = {
    "one value": lambda dtype: randn(1, 1, dtype=dtype).expand(300, 301),
    "rows of one value": lambda dtype: randn(300, 1, dtype=dtype).expand(300, 304),
    "equal rows": lambda dtype: randn(1, 301, dtype=dtype).expand(300, 301),
    "overlapping windows": lambda dtype: randn(5000, dtype=dtype).unfold(0, 64, 3),
}
# Layouts of a gradient for an output of shape [2, 48, 33, 40]: dense permutations, gaps, broadcasts.
GRADIENTS = {
    "channels_last": lambda grad: grad.contiguous(memory_format=CHANNELS_LAST),
    "reversed": lambda grad: grad.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "last two swapped": lambda grad: grad.transpose(2, 3).contiguous().transpose(2, 3),
    "gaps": lambda grad: torch.stack([grad, grad], -1)[..., 1],
    "gaps, channels_last": lambda grad: torch.cat([grad, grad], 1).contiguous(memory_format=CHANNELS_LAST)[:, 48:],
    "expanded": lambda grad: grad[:, :1, :, :1].expand(grad.shape),
    "one value": lambda grad: grad[:1, :1, :1, :1].expand(grad.shape),
    "windows, two dimensions without gaps": lambda grad: grad.contiguous().as_strided(grad.shape, (60, 1, 1, 1000)),
}


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [*GAPS, *EXPANDED])
def test_forward_and_backward(layout, dtype, pytestconfig):
    x = (GAPS | EXPANDED)[layout](dtype)
    outputs, gradients = [], []
    for function in (leaky_relu, aten.leaky_relu):
        leaf = x.detach().requires_grad_()
        outputs.append(function(leaf, -0.3))
        gradients += torch.autograd.grad(outputs[-1], leaf, randn(*x.shape, dtype=dtype, seed=1))
    assert_same_bits(*outputs)
    assert_same_bits(*gradients)
    assert_same_bits(leaky_relu(x, -0.3), outputs[1])
    like = outputs[1] if pytestconfig.getoption("--installed") else torch.empty_like(x)
    assert outputs[0].stride() == like.stride()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", GAPS)
def test_in_place_leaves_the_gaps_alone(layout, dtype):
    x = GAPS[layout](dtype)
    expected_memory = x._base.clone() if x._base is not None else x.clone()
    expected = aten.leaky_relu(x, 0.3)
    torch.as_strided(expected_memory, x.shape, x.stride(), x.storage_offset()).copy_(expected)
    assert leaky_relu_(x, 0.3) is x
    assert_same_bits(x, expected)
    assert_same_bits(x._base, expected_memory)


@pytest.mark.parametrize("layout", GAPS)
def test_in_place_gradient(layout):
    gradients = []
    for function in (leaky_relu_, lambda x, slope: aten.leaky_relu(x, slope, inplace=True)):
        x = GAPS[layout](torch.float32)
        base = x._base.detach().requires_grad_()
        y = function(torch.as_strided(base * 1, x.shape, x.stride(), x.storage_offset()), 0.3)
        gradients += torch.autograd.grad(y, base, randn(*x.shape, seed=1))
    assert_same_bits(*gradients)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_gradient_of_another_layout(memory_format, gradient, dtype):
    x = randn(2, 48, 33, 40, dtype=dtype).contiguous(memory_format=memory_format)
    grad_output = GRADIENTS[gradient](randn(*x.shape, dtype=dtype, seed=1))
    results = []
    for function in (leaky_relu, aten.leaky_relu):
        leaf = x.detach().requires_grad_()
        results += torch.autograd.grad(function(leaf, 0.3), leaf, grad_output)
    assert_same_bits(*results)


@pytest.mark.native  # the built-in, where it stands in, writes as it reads
@pytest.mark.parametrize(
    ("size", "stride"), [((131, 8), (3, 1)), ((600, 9), (8, 1)), ((9, 600), (1, 8)), ((9, 2, 300), (1, 7, 20))]
)
def test_windows_that_overlap_are_all_read_before_one_is_written(size, stride):
    data = randn(7000)
    windows = data.clone().as_strided(size, stride)
    expected = data.as_strided(size, stride)
    expected.copy_(aten.leaky_relu(expected, 0.3))
    leaky_relu_(windows, 0.3)
    assert_same_bits(windows._base, data)
