"""bias_leaky_relu's CUDA source, run thread by thread on the host: outputs, masks and gradients of the input are bit for bit
the formula in PyTorch's own ops, rounded once; gradients of the bias are within the bound of their sums."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from cases import DTYPES, assert_same_bits, misaligned, randn, random_bit_patterns
from emulated import only_blocks, ops, packed, tile, unbacked, warp_size

SLOPE, GAIN = 0.2, math.sqrt(2)
CL = torch.channels_last


@dataclass
class Call:
    """The arguments of one forward, and what the formula makes of them."""

    input: Tensor
    bias: Tensor | None = None
    residual: Tensor | None = None
    dim: int = 1
    slope: float = SLOPE
    gain: float = GAIN
    clamp: float | None = None
    p: float = 0.0
    kept: Tensor | None = field(default=None)  # of the last call, in memory order

    @property
    def arguments(self) -> tuple[object, ...]:
        return self.bias, self.slope, self.residual, self.dim, self.gain, self.clamp, self.p

    @property
    def opmath(self) -> torch.dtype:
        return torch.promote_types(self.input.dtype, torch.float32)

    @property
    def scale(self) -> float:
        return 1 / (1 - self.p) if self.p < 1 else 0.0

    @property
    def has_passed(self) -> bool:
        return self.clamp is not None or self.p > 0

    def activated(self) -> tuple[Tensor, Tensor, Tensor]:
        """Before rounding: the outputs, which sums are positive, where a gradient passes."""
        x = self.input.to(self.opmath)
        if self.bias is not None:
            shape = [1] * x.dim()
            shape[self.dim] = -1
            x = x + self.bias.to(self.opmath).view(shape)
        if self.residual is not None:
            x = x + self.residual.to(self.opmath)
        value = torch.where(x > 0, x, x * self.slope) * self.gain
        kept = torch.ones_like(x, dtype=torch.bool)
        if self.p > 0:
            kept = in_layout_of(self.input, kept_elements(x.numel(), self.p))
        passed = kept
        if self.clamp is not None:
            passed = kept & passes_clamp(value, self.clamp)
            value = value.clamp(-self.clamp, self.clamp)
        return torch.where(kept, value * self.scale, 0.0), x > 0, passed

    def gradient(self, grad: Tensor, positive: Tensor, passed: Tensor) -> Tensor:
        """Before rounding."""
        grad = grad.to(self.opmath) * (self.gain * self.scale)
        return torch.where(passed, torch.where(positive, grad, grad * self.slope), 0.0)


def passes_clamp(value: Tensor, clamp: float) -> Tensor:
    """Where the built-in passes a gradient. Whether it does at the bound depends on the release (csrc/torch_versions.h)."""
    value = value.detach().requires_grad_()
    (grad,) = torch.autograd.grad(value.clamp(-clamp, clamp), value, torch.ones_like(value))
    return grad != 0


def in_memory_order(tensor: Tensor, like: Tensor) -> Tensor:
    dense = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
    return dense.as_strided((dense.numel(),), (1,))


def in_layout_of(like: Tensor, flat: Tensor) -> Tensor:
    return flat.as_strided(like.shape, torch.empty_like(like).stride())


def kept_elements(n: int, p: float) -> Tensor:
    """By Philox4x32-10, as csrc/element/philox.h has it; int64 products keep the low 64 bits."""
    low = 0xFFFF_FFFF
    seed, offset = torch.ops.cuda_on_host.random_state()
    offset |= 1 << 63
    index = torch.arange(-(-n // 4))
    c = [index & low, index >> 32, torch.full_like(index, offset & low), torch.full_like(index, offset >> 32 & low)]
    key0, key1 = seed & low, seed >> 32 & low
    for _ in range(10):
        product0, product1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [
            (product1 >> 32 & low) ^ c[1] ^ key0,
            product1 & low,
            (product0 >> 32 & low) ^ c[3] ^ key1,
            product0 & low,
        ]
        key0, key1 = key0 + 0x9E3779B9 & low, key1 + 0xBB67AE85 & low
    return torch.stack(c, 1).flatten()[:n] < int((1 - p) * 2.0**32)


def check_grad_bias(actual: Tensor, grad: Tensor, dim: int) -> None:
    """Against the float64 sum of the opmath gradients: a sum of m terms in any order is off by less than m u sum |grad|."""
    rest = [d for d in range(grad.dim()) if d != dim % grad.dim()]
    exact, size = (t.double().sum(rest) if rest else t.double() for t in (grad, grad.abs()))
    terms = grad.numel() // grad.size(dim)
    bound = terms * torch.finfo(grad.dtype).eps / 2 * size + torch.finfo(actual.dtype).eps / 2 * exact.abs()
    assert ((actual.double() - exact).abs() <= bound * 1.01 + torch.finfo(actual.dtype).tiny).all()


def check(call: Call, grad: Tensor | None = None, *, bias_dtype: torch.dtype | None = None) -> None:
    """Forward with a mask and without, in place; backward for every subset of the results, in place."""
    x, dtype = call.input, call.input.dtype
    torch.manual_seed(1)
    output, mask = ops.bias_leaky_relu_forward(x, *call.arguments)
    value, positive, passed = call.activated()
    assert_same_bits(output, value.to(dtype))
    assert output.stride() == torch.empty_like(x).stride()
    planes = [packed(in_memory_order(plane, x)) for plane in ((positive, passed) if call.has_passed else (positive,))]
    assert torch.equal(mask, torch.cat(planes))
    torch.manual_seed(1)
    assert_same_bits(ops.bias_leaky_relu(x, *call.arguments), output)
    inplace = misaligned(torch.empty(x.numel(), dtype=dtype), (x.data_ptr() % 16) // x.itemsize)
    inplace = inplace.as_strided(x.shape, torch.empty_like(x).stride(), inplace.storage_offset()).copy_(x)
    torch.manual_seed(1)
    assert torch.equal(ops.bias_leaky_relu_forward_(inplace, *call.arguments), mask)
    assert_same_bits(inplace, output)

    grad = randn(*x.shape, dtype=dtype, seed=9) if grad is None else grad
    expected = call.gradient(grad, positive, passed)
    bias_dtype = bias_dtype or call.opmath
    rest = call.slope, output.stride(), call.gain, call.p, call.dim, bias_dtype
    grad_input, grad_bias = ops.bias_leaky_relu_backward(grad, mask, *rest, [True, True])
    assert_same_bits(grad_input, expected.to(dtype))
    assert grad_input.stride() == output.stride()
    assert grad_bias.dtype == bias_dtype
    if expected.isfinite().all():
        check_grad_bias(grad_bias, expected, call.dim)
    only_input, none = ops.bias_leaky_relu_backward(grad, mask, *rest, [True, False])
    assert none.numel() == 0
    assert_same_bits(only_input, grad_input)
    none, only_bias = ops.bias_leaky_relu_backward(grad, mask, *rest, [False, True])
    assert none.numel() == 0
    assert_same_bits(only_bias, grad_bias)
    inplace.copy_(grad)
    rest = call.slope, call.gain, call.p, call.dim, bias_dtype
    if grad.data_ptr() % 16 == inplace.data_ptr() % 16:  # else the sums may be in another order
        assert_same_bits(ops.bias_leaky_relu_backward_(inplace, mask, *rest, True), grad_bias)
    else:
        ops.bias_leaky_relu_backward_(inplace, mask, *rest, False)
    assert_same_bits(inplace, grad_input)


def everything(x: Tensor, dim: int = 1) -> Call:
    bias = randn(x.size(dim), dtype=torch.promote_types(x.dtype, torch.float32), seed=1)
    residual = torch.empty_like(x).copy_(randn(*x.shape, dtype=x.dtype, seed=2))
    return Call(x, bias, residual, dim, clamp=0.75, p=0.3)


# Shape, dim, memory format. The comments are about float32.
LAYOUTS: dict[str, tuple[tuple[int, ...], int, torch.memory_format]] = {
    "channels_last": ((5, 24, 7, 9), 1, CL),
    "channels_last, odd count": ((5, 13, 7, 9), 1, CL),
    "channels_last, stripes": ((3, 300, 5, 3), 1, CL),
    "rows": ((700, 48), 1, torch.contiguous_format),  # several splits
    "rows, odd count": ((37, 13), -1, torch.contiguous_format),
    "rows, odd stripes": ((9, 333), 1, torch.contiguous_format),
    "short runs": ((20, 8, 7, 7), 1, torch.contiguous_format),
    "short runs, odd": ((3, 5, 3, 3), 1, torch.contiguous_format),
    "long runs": ((3, 3, 32, 48), 1, torch.contiguous_format),
    "long runs, odd": ((2, 3, 1031), 1, torch.contiguous_format),
    "long runs, odd, few rows": ((3, 8, 301), 1, torch.contiguous_format),
    "long runs, odd, many rows": ((16, 8, 301), 1, torch.contiguous_format),
    "long runs, several splits": ((1, 2, 12_300), 1, torch.contiguous_format),
    "5-D": ((2, 3, 4, 5, 6), 2, torch.contiguous_format),
    "5-D, channels_last": ((2, 3, 4, 5, 6), 1, torch.channels_last_3d),
    "the first dimension": ((6, 40), 0, torch.contiguous_format),
    "one dimension": ((1000,), 0, torch.contiguous_format),
    "one channel": ((4, 1, 301), 1, torch.contiguous_format),
    "one element": ((1, 1), 1, torch.contiguous_format),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(dtype: torch.dtype, layout: str) -> None:
    shape, dim, memory_format = LAYOUTS[layout]
    check(everything(randn(*shape, dtype=dtype).contiguous(memory_format=memory_format), dim))


PARTS: dict[str, Callable[[Tensor], Call]] = {
    "nothing": lambda x: Call(x, gain=1.0),
    "bias": lambda x: Call(x, randn(16, dtype=x.dtype, seed=1), gain=1.0),
    "misaligned bias": lambda x: Call(x, misaligned(randn(16, dtype=torch.promote_types(x.dtype, torch.float32), seed=1))),
    "residual": lambda x: Call(x, residual=torch.empty_like(x).copy_(randn(*x.shape, dtype=x.dtype, seed=2))),
    "misaligned residual": lambda x: Call(
        x.contiguous(), residual=misaligned(randn(*x.shape, dtype=x.dtype, seed=2)), clamp=1.0
    ),
    "residual of another format": lambda x: Call(
        x, randn(16, dtype=x.dtype), randn(*x.shape, dtype=x.dtype, seed=2).transpose(2, 3).contiguous().transpose(2, 3)
    ),
    "expanded residual": lambda x: Call(x, randn(16, dtype=x.dtype), randn(16, 1, 9, dtype=x.dtype, seed=2)),
    "clamp": lambda x: Call(x, clamp=0.5),
    "clamp at 0": lambda x: Call(x, clamp=0.0),
    "dropout": lambda x: Call(x, p=0.4),
    "all dropped": lambda x: Call(x, randn(16, dtype=x.dtype), p=1.0),
    "none dropped": lambda x: Call(x, p=2.0**-40),
    "negative slope and gain": lambda x: Call(x, randn(16, dtype=x.dtype), slope=-0.5, gain=-2.0, clamp=1.0),
}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_parts(dtype: torch.dtype, parts: str) -> None:
    x = randn(7, 16, 5, 9, dtype=dtype)
    check(PARTS[parts](x))
    check(PARTS[parts](x.contiguous(memory_format=CL)))


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "misaligned"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes(dtype: torch.dtype, offset: int) -> None:
    whole = tile(dtype)
    for n in (1, 7, 8, 9, 255, 257, whole - 1, whole, whole + 1, 2 * whole + 5):
        x = misaligned(randn(n, 1, dtype=dtype), offset)
        check(everything(x), misaligned(randn(n, 1, dtype=dtype, seed=9), offset))
        check(everything(x.view(1, n)), misaligned(randn(1, n, dtype=dtype, seed=9), offset))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided(dtype: torch.dtype) -> None:
    x = randn(6, 16, 40, dtype=dtype)
    bias = randn(16, dtype=dtype, seed=1)
    check(Call(x[:, :, 3:17], bias, x[:, :, 20:34], clamp=1.0))
    check(Call(x[::2].transpose(1, 2), bias, dim=2))
    check(Call(x[:, :, :1].expand(6, 16, 9), bias))
    contiguous = Call(randn(6, 16, 9, 7, dtype=dtype), bias, clamp=1.0)
    check(contiguous, randn(6, 16, 9, 7, dtype=dtype, seed=9).contiguous(memory_format=CL))
    check(contiguous, torch.ones((), dtype=dtype).expand(6, 16, 9, 7))


@pytest.mark.parametrize("dtype", DTYPES)
def test_values(dtype: torch.dtype) -> None:
    x = random_bit_patterns(dtype, 4096).view(64, 64)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 1e-30], dtype=dtype)
    for clamp in (None, 1.0, math.inf):
        check(
            Call(
                x,
                special.to(torch.promote_types(dtype, torch.float32)).repeat(8),
                special.repeat(8, 1).T.reshape(-1)[:64],
                clamp=clamp,
            )
        )
    zeros = torch.tensor([[0.0, -0.0] * 40], dtype=dtype)
    check(Call(zeros, gain=1.0))
    check(Call(zeros, torch.tensor([-0.0, -0.0] * 40), gain=-1.0, clamp=0.0))


@pytest.mark.parametrize("bias_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_of_the_bias(dtype: torch.dtype, bias_dtype: torch.dtype) -> None:
    check(Call(randn(30, 24, dtype=dtype), randn(24, dtype=bias_dtype)), bias_dtype=bias_dtype)


def test_gradients_of_the_bias_are_the_same_each_time() -> None:
    grad, mask = randn(600, 40, 3, dtype=torch.float16), torch.full((9000,), 0x5A, dtype=torch.uint8)
    first, again = (
        ops.bias_leaky_relu_backward(grad, mask, SLOPE, None, GAIN, 0.0, 1, torch.float32, [False, True])[1]
        for _ in range(2)
    )
    assert_same_bits(first, again)


@pytest.mark.parametrize("dtype", DTYPES)
def test_whatever_the_warp_size(dtype: torch.dtype) -> None:
    with warp_size(64):
        check(everything(randn(3, 8, 32, 33, dtype=dtype)))
        check(everything(misaligned(randn(50, 24, dtype=dtype))))


def test_dropout_keeps_as_many_as_it_should() -> None:
    x = torch.ones(1 << 16)
    for p in (0.1, 0.5, 0.9):
        y = ops.bias_leaky_relu(x, dim=0, dropout_p=p)
        kept = (y != 0).double().mean().item()
        assert abs(kept - (1 - p)) < 5 * math.sqrt(p * (1 - p) / x.numel())
        assert (y[y != 0] == 1 / (1 - p)).all()


def test_dropout_follows_the_seed() -> None:
    x = torch.ones(999)

    def dropped() -> Tensor:
        return ops.bias_leaky_relu(x, dim=0, dropout_p=0.5) == 0

    torch.manual_seed(5)
    first, second = dropped(), dropped()
    torch.manual_seed(5)
    assert torch.equal(dropped(), first)
    assert not torch.equal(first, second)


def test_dropout_in_a_graph_takes_the_state_at_each_replay() -> None:
    torch.ops.cuda_on_host.capture(True)
    try:
        check(everything(randn(8, 24)))
    finally:
        torch.ops.cuda_on_host.capture(False)


def test_many_elements() -> None:
    count, whole = 1000, tile(torch.float16)
    n = (2**32 + 3 * whole) // count * count
    boundary = 2**32 // whole
    x = unbacked(n).view(-1, count)
    places = [slice(block * whole, min((block + 1) * whole, n)) for block in (0, boundary - 1, boundary, (n - 1) // whole)]
    for seed, place in enumerate(places):
        x.view(-1)[place] = randn(place.stop - place.start, dtype=torch.float16, seed=seed)
    before = [x.view(-1)[place].clone() for place in places]
    bias = randn(count, seed=1)
    with only_blocks(0, boundary - 1, boundary, -1):
        ops.bias_leaky_relu_(x, bias, SLOPE, None, 1, GAIN, None, 0.0)
    for place, values in zip(places, before, strict=True):
        total = values.float() + bias[torch.arange(place.start, place.stop) % count]
        assert_same_bits(x.view(-1)[place], (torch.where(total > 0, total, total * SLOPE) * GAIN).half())


def test_channels_longer_than_2_31() -> None:
    whole = tile(torch.float16)
    n = 2**32 + 2 * whole
    x = unbacked(n).view(2, -1)
    block = 2**31 // whole  # the first channel's last
    place = slice(block * whole, (block + 2) * whole)
    x.view(-1)[place] = 1
    with only_blocks(block, block + 1):
        ops.bias_leaky_relu_(x, torch.tensor([1.0, 2.0]), SLOPE, None, 0, 1.0, None, 0.0)
    assert_same_bits(x.view(-1)[place], torch.tensor([2.0, 3.0]).half().repeat_interleave(whole))


def test_a_launch_that_fails_is_an_error() -> None:
    for run in (
        lambda: ops.bias_leaky_relu(randn(5, 3), randn(3)),
        lambda: ops.bias_leaky_relu_backward(
            randn(5, 3), torch.zeros(2, dtype=torch.uint8), 0.1, None, 1.0, 0.0, 1, torch.float32, [True, True]
        ),
    ):
        torch.ops.cuda_on_host.fail_next_launch()
        with pytest.raises(RuntimeError, match="CUDA error: too many resources"):
            run()


def test_copy_on_write_tensors_are_not_written_through() -> None:
    x = randn(16, 16)
    copy = torch._lazy_clone(x)
    expected = ops.bias_leaky_relu(x, randn(16, seed=1))
    ops.bias_leaky_relu_(copy, randn(16, seed=1))
    assert_same_bits(copy, expected)
    assert_same_bits(x, randn(16, 16))
