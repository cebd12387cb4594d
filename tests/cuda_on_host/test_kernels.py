"""The CUDA backend's source, run thread by thread on the host: its results are the built-in's bit for bit, whatever size,
dtype, alignment and layout. The emulator itself fails a call that touches memory it should not."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cases import DTYPES, HALF_DTYPES, assert_same_bits, every_bit_pattern, misaligned, randn, random_bit_patterns
from emulated import only_blocks, ops, packed, report, tile, unbacked, warp_size

SLOPE = 0.01


def sizes(dtype: torch.dtype) -> list[int]:
    """Around a mask byte, a row of 32 threads (of one byte each) and a block's tile."""
    whole = tile(dtype)
    return [1, 7, 8, 9, 31, 32, 33, 255, 256, 257, whole - 1, whole, whole + 1, 3 * whole + 5]


def builtin_backward(grad: Tensor, x: Tensor, slope: float) -> Tensor:
    return torch.ops.aten.leaky_relu_backward(grad, x, slope, False)


def check(x: Tensor, grad: Tensor, slope: float = SLOPE) -> None:
    """Forward with and without a mask, the mask itself, backward."""
    expected = F.leaky_relu(x, slope)
    output, mask = ops.leaky_relu_forward(x, slope)
    assert_same_bits(output, expected)
    assert output.stride() == torch.empty_like(x).stride()
    dense = torch.empty_like(x).copy_(x)
    in_memory_order = dense.as_strided((dense.numel(),), (1,))
    assert torch.equal(mask, packed(in_memory_order > 0))
    assert_same_bits(ops.leaky_relu(x, slope), expected)
    grad_input = ops.leaky_relu_backward(grad, mask, slope, output.stride())
    assert_same_bits(grad_input, builtin_backward(grad, x, slope))


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "misaligned"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes(dtype: torch.dtype, offset: int) -> None:
    for n in sizes(dtype):
        x, grad = randn(n, dtype=dtype), randn(n, dtype=dtype, seed=1)
        check(misaligned(x, offset), misaligned(grad, offset))
        assert report().blocks == -(-n // tile(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place(dtype: torch.dtype) -> None:
    for n in sizes(dtype):
        for offset in (0, 1, 3):
            x = misaligned(randn(n, dtype=dtype), offset)
            expected, positive = F.leaky_relu(x, SLOPE), x > 0
            mask = ops.leaky_relu_forward_(x, SLOPE)
            assert_same_bits(x, expected)
            assert torch.equal(mask, packed(positive))


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_in_place(dtype: torch.dtype) -> None:
    for n in sizes(dtype):
        for offset in (0, 1, 3):
            x, grad = randn(n, dtype=dtype), misaligned(randn(n, dtype=dtype, seed=1), offset)
            expected = builtin_backward(grad, x, SLOPE)
            ops.leaky_relu_backward_(grad, packed(x > 0), SLOPE)
            assert_same_bits(grad, expected)


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0, 2.0, -0.5, float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(dtype: torch.dtype, slope: float) -> None:
    x = every_bit_pattern(dtype) if dtype in HALF_DTYPES else random_bit_patterns(dtype, 20_001)
    check(x, x.flip(0), slope)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided(dtype: torch.dtype) -> None:
    wide = randn(3, 40, 2 * 48, dtype=dtype)
    layouts = {
        "rows of 16-byte chunks": wide[:, :, :48],
        "the same, misaligned": wide[:, :, 1:49],
        "rows of 16-byte chunks at odd distances": randn(40, 49, dtype=dtype)[:, :48],
        "rows of no whole mask bytes": wide[:, :, :13],
        "every third element": wide[:, :, ::3],
        "cropped, permuted": randn(5, 9, 11, 7, dtype=dtype).permute(3, 0, 2, 1)[1:, :, 2:9, 1::2],
        "expanded": randn(33, 1, 17, dtype=dtype).expand(33, 9, 17),
        "of one element": randn(1, dtype=dtype).expand(tile(dtype) + 3),
    }
    for name, x in layouts.items():
        grad = randn(*x.shape, dtype=dtype, seed=1)
        check(x, torch.empty_like(x).copy_(grad))
        if "expanded" not in name and "one element" not in name:
            storage = x.clone().new_empty(x.untyped_storage().nbytes() // x.itemsize)
            inplace = storage.as_strided(x.shape, x.stride(), x.storage_offset()).copy_(x)
            ops.leaky_relu_(inplace, SLOPE)
            assert_same_bits(inplace, F.leaky_relu(x, SLOPE))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_another_layout(dtype: torch.dtype) -> None:
    x = randn(4, 12, 7, 9, dtype=dtype).contiguous(memory_format=torch.channels_last)
    check(x, randn(*x.shape, dtype=dtype, seed=1))
    check(x, torch.ones((), dtype=dtype).expand(x.shape))
    check(x.contiguous(), randn(*x.shape, dtype=dtype, seed=1).contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("dtype", DTYPES)
def test_whatever_the_warp_size(dtype: torch.dtype) -> None:
    with warp_size(64):
        for offset in (0, 1):
            x, grad = randn(2 * tile(dtype) + 77, dtype=dtype), randn(2 * tile(dtype) + 77, dtype=dtype, seed=1)
            check(misaligned(x, offset), grad)


def near(*blocks: int, n: int) -> list[slice]:
    """What these blocks cover, of n elements of float16."""
    whole = tile(torch.float16)
    return [slice(block * whole, min((block + 1) * whole, n)) for block in blocks]


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "misaligned"])
@pytest.mark.parametrize("power", [31, 32, 34])  # 2^34 elements have 2^31 mask bytes
def test_many_elements(power: int, offset: int) -> None:
    n = 2**power + 3 * tile(torch.float16) + 5
    boundary = 2**power // tile(torch.float16)
    x = unbacked(n + offset)[offset:]
    places = near(0, boundary - 1, boundary, boundary + 3, n=n)
    for seed, place in enumerate(places):
        x[place] = randn(place.stop - place.start, dtype=torch.float16, seed=seed)
    before = [x[place].clone() for place in places]
    with only_blocks(0, boundary - 1, boundary, -1):
        mask = ops.leaky_relu_forward_(x, SLOPE)
        for place, values in zip(places, before, strict=True):
            assert_same_bits(x[place], F.leaky_relu(values, SLOPE))
            assert torch.equal(mask[place.start // 8 : -(-place.stop // 8)], packed(values > 0))
        forward = [x[place].clone() for place in places]
        ops.leaky_relu_backward_(x, mask, 0.5)
    for place, values, grad in zip(places, before, forward, strict=True):
        assert_same_bits(x[place], builtin_backward(grad, values, 0.5))


@pytest.mark.parametrize("stride", [2**31, 2**31 + 1], ids=["of 16-byte chunks", "odd"])
def test_offsets_beyond_2_32(stride: int) -> None:
    rows, columns = 3, 11 * 8
    x = unbacked(rows * stride).as_strided((rows, columns), (stride, 1))
    x.copy_(randn(rows, columns, dtype=torch.float16))
    check(x, randn(rows, columns, dtype=torch.float16, seed=1))
    expected = F.leaky_relu(x, SLOPE)
    ops.leaky_relu_(x, SLOPE)
    assert_same_bits(x, expected)


@pytest.mark.parametrize("rows", [32736, 32737, 32769, 65473], ids=["below 2^31", "just above", "above", "above 2^32"])
def test_many_strided_elements(rows: int) -> None:
    row = randn(65600, dtype=torch.float16)
    n = rows * 65600
    last = (n - 1) // tile(torch.float16)
    with only_blocks(0, 1, last // 2, last - 1, last):
        output = ops.leaky_relu(row.expand(rows, 65600), SLOPE).view(-1)
    for place in near(0, 1, last // 2, last - 1, last, n=n):
        assert_same_bits(output[place], F.leaky_relu(row[torch.arange(place.start, place.stop) % 65600], SLOPE))


def test_a_launch_that_fails_is_an_error() -> None:
    torch.ops.cuda_on_host.fail_next_launch()
    with pytest.raises(RuntimeError, match="CUDA error: too many resources"):
        ops.leaky_relu(randn(5), SLOPE)
    check(randn(5), randn(5, seed=1))


@pytest.mark.parametrize("strided", [False, True])
def test_copy_on_write_tensors_are_not_written_through(strided: bool) -> None:
    x = randn(16, 16)
    copy = torch._lazy_clone(x)
    expected = F.leaky_relu(x, SLOPE)
    ops.leaky_relu_(copy[:, ::2] if strided else copy, SLOPE)
    assert_same_bits(copy[:, ::2], expected[:, ::2])
    assert_same_bits(x, randn(16, 16))


def test_many_dimensions() -> None:
    x = randn(400).as_strided((2,) * 12, tuple(range(1, 36, 3)))  # none runs on into another
    check(x, randn(*x.shape, seed=1))
    with pytest.raises(RuntimeError, match=r"at most 25 dimensions on CUDA .* got 26"):
        ops.leaky_relu(randn(2000).as_strided((2,) * 26, tuple(range(1, 78, 3))), SLOPE)
