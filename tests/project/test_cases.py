"""The helpers themselves: a comparison that cannot fail would make every other test worthless."""

import math

import pytest
import torch

from cases import DTYPES, HALF_DTYPES, LAYOUTS, assert_same_bits, every_bit_pattern, misaligned, random_bit_patterns


@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_every_bit_pattern_is_complete(dtype):
    assert every_bit_pattern(dtype).view(torch.int16).unique().numel() == 2**16


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_bit_patterns_hold_the_special_values(dtype):
    values = random_bit_patterns(dtype)
    limits = torch.finfo(dtype)
    zeros = values[values == 0]
    assert values.isnan().any()
    assert (values == math.inf).any()
    assert (values == -math.inf).any()
    assert zeros.signbit().any()
    assert not zeros.signbit().all()
    assert ((values.abs() > 0) & (values.abs() < limits.tiny)).any()
    assert (values == limits.max).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("one", "other"),
    [(0.0, -0.0), (1.0, 1.001e10), (math.nan, 1.0), (math.inf, -math.inf), (1.0, 1.0 + 2**-7)],
)
def test_different_bits_are_noticed(dtype, one, other):
    with pytest.raises(AssertionError, match="1 of 3 elements differ, first at"):
        assert_same_bits(torch.tensor([0.0, one, 2.0], dtype=dtype), torch.tensor([0.0, other, 2.0], dtype=dtype))


def test_other_dtypes_and_shapes_are_noticed():
    with pytest.raises(AssertionError):
        assert_same_bits(torch.zeros(3), torch.zeros(3, dtype=torch.float64))
    with pytest.raises(AssertionError):
        assert_same_bits(torch.zeros(3), torch.zeros(1, 3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nans_are_equal_whatever_their_payload(dtype):
    nans = torch.full((2,), math.nan, dtype=dtype)
    other = nans.clone().view(torch.uint8)
    other[0] ^= 1
    assert_same_bits(other.view(dtype), nans)


def test_misaligned_is_misaligned():
    assert misaligned(torch.zeros(4, 4)).data_ptr() % 16 == 4


def test_layouts_are_what_they_are_called():
    assert LAYOUTS["channels_last"](torch.float32).is_contiguous(memory_format=torch.channels_last)
    assert LAYOUTS["every other column"](torch.float32).stride() == (13, 2)
    assert LAYOUTS["expanded"](torch.float32).stride() == (3, 0, 1)
    assert LAYOUTS["misaligned, strided"](torch.float32).data_ptr() % 64 != 0
