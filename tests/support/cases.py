"""Inputs and comparisons that the tests share."""

import math
import struct
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SLOPES = (0.0, 0.01, 0.2, 1.0, 2.0, -0.5, math.inf, math.nan)
# Products of a bfloat16 with the first are subnormal or zero, with the second those of all below 2^-60; the third overflows.
# The fourth makes subnormals of powers of two, just so; products with the last end in as many ones as there are.
EXTREME_SLOPES = (2.0**-140, -(2.0**-66), 2.0**100, float.fromhex("0x1.5619e4p-32"), float.fromhex("0x1.9bfffep-3"))
HALF_DTYPES = (torch.bfloat16, torch.float16)
DTYPES = (torch.float64, torch.float32, *HALF_DTYPES)

DEVICE = torch.device("cpu")  # where the inputs are: --device (conftest.py)

_INTEGER_OF_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64, device="cpu").to(DEVICE, dtype)


def every_bit_pattern(dtype: torch.dtype) -> Tensor:
    """All 65,536 values of a 16-bit dtype."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32, device=DEVICE).to(torch.int16).view(dtype)


def random_bit_patterns(dtype: torch.dtype, count: int = 100_003, seed: int = 0) -> Tensor:
    """Random bits, and among them both zeros, infinities, NaN, the smallest and largest subnormals and normals."""
    integer = torch.iinfo(integer_dtype(dtype))
    values = torch.randint(
        integer.min, integer.max, (count,), generator=generator(seed), dtype=integer_dtype(dtype), device="cpu"
    ).view(dtype)
    limits = torch.finfo(dtype)
    largest_subnormal = limits.tiny * (1 - limits.eps)
    special = torch.tensor(
        [0.0, math.inf, math.nan, limits.tiny, limits.max, limits.tiny * limits.eps, largest_subnormal, 1.0],
        dtype=dtype,
        device="cpu",
    )
    values[: 2 * len(special)] = torch.cat([special, -special])
    return values[torch.randperm(count, generator=generator(seed), device="cpu")].to(DEVICE)


def integer_dtype(dtype: torch.dtype) -> torch.dtype:
    """The integer dtype of the same width."""
    return _INTEGER_OF_SIZE[dtype.itemsize]


def bits(tensor: Tensor) -> Tensor:
    """The tensor as integers, every NaN as the same one: its payload is not part of the contract."""
    return torch.where(tensor.isnan(), math.nan, tensor).view(integer_dtype(tensor.dtype))


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.device == expected.device
    actual, expected = actual.detach(), expected.detach()
    different = bits(actual) != bits(expected)
    if different.any():
        where = different.nonzero()[0].tolist()
        raise AssertionError(
            f"{int(different.sum())} of {different.numel()} elements differ, first at {where}: "
            f"{actual[tuple(where)].item()!r} instead of {expected[tuple(where)].item()!r}"
        )


def keeps_a_mask(tensor: Tensor) -> bool:
    """Whether the node that made the tensor is one of ours."""
    return hasattr(tensor.grad_fn, "_saved_mask")


class Observer(TorchDispatchMode):
    """Looks on, and notes the ops in ``seen``."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.seen.append(str(op))
        return op(*args, **(kwargs or {}))


def misaligned(tensor: Tensor, offset: int = 1) -> Tensor:
    """A contiguous copy that begins ``offset`` elements into its storage."""
    storage = tensor.new_empty(tensor.numel() + offset)
    return storage[offset:].view(tensor.shape).copy_(tensor)


NAN_WITH_LOW_PAYLOAD = struct.unpack("<d", (0x7FFF_FFFF_FFFF_FFFF).to_bytes(8, "little"))[0]

LAYOUTS: dict[str, Callable[[torch.dtype], Tensor]] = {
    "0-dim": lambda dtype: randn(dtype=dtype),
    "empty": lambda dtype: randn(0, dtype=dtype),
    "empty 3-D": lambda dtype: randn(2, 0, 3, dtype=dtype),
    "contiguous": lambda dtype: randn(3, 5, 7, 9, dtype=dtype),
    "one element, 4-D": lambda dtype: randn(1, 1, 1, 1, dtype=dtype),
    "transposed": lambda dtype: randn(33, 17, dtype=dtype).t(),
    "permuted": lambda dtype: randn(3, 5, 7, 9, dtype=dtype).permute(2, 0, 3, 1),
    "channels_last": lambda dtype: randn(2, 3, 5, 7, dtype=dtype).contiguous(memory_format=torch.channels_last),
    "channels_last_3d": lambda dtype: randn(2, 3, 4, 5, 6, dtype=dtype).contiguous(memory_format=torch.channels_last_3d),
    "one channel, channels_last": lambda dtype: randn(2, 1, 5, 7, dtype=dtype).contiguous(memory_format=torch.channels_last),
    "every other row": lambda dtype: randn(8, 13, dtype=dtype)[::2],
    "every other column": lambda dtype: randn(8, 13, dtype=dtype)[:, ::2],
    "cropped channels_last": lambda dtype: randn(2, 5, 6, 7, dtype=dtype).contiguous(memory_format=torch.channels_last)[
        :, 1:4, ::2
    ],
    "expanded": lambda dtype: randn(5, 1, 3, dtype=dtype).expand(5, 4, 3),
    "overlapping windows": lambda dtype: randn(40, dtype=dtype).unfold(0, 8, 3),
    "misaligned": lambda dtype: misaligned(randn(7, 41, dtype=dtype)),
    "misaligned, strided": lambda dtype: misaligned(randn(8, 12, dtype=dtype), 2)[:, 1::3],
}
# In the first of the others memory is shared between elements, in the second windows overlap: no place to write to.
WRITABLE = [name for name in LAYOUTS if name not in ("expanded", "overlapping windows")]
