"""The forward is bit for bit the built-in's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import aten
from cases import (
    DTYPES,
    EXTREME_SLOPES,
    HALF_DTYPES,
    LAYOUTS,
    NAN_WITH_LOW_PAYLOAD,
    SLOPES,
    assert_same_bits,
    every_bit_pattern,
    misaligned,
    randn,
    random_bit_patterns,
)
from leakyrelu_ext import leaky_relu


@pytest.mark.parametrize("slope", [*SLOPES, *EXTREME_SLOPES])
@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_every_half_pattern_matches_the_builtin(dtype, slope):
    x = every_bit_pattern(dtype)
    assert_same_bits(leaky_relu(x, slope), aten.leaky_relu(x, slope))


@pytest.mark.parametrize("slope", [*SLOPES, *EXTREME_SLOPES])
@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_zeros_among_large_values(dtype, slope):
    """Zeros are as small as subnormals, and no reason to leave the fast path that subnormals must leave."""
    x = randn(10_000, dtype=dtype) * torch.tensor([1, 0, -1, -0.0, 4], dtype=dtype).repeat(2000)
    assert_same_bits(leaky_relu(x, slope), aten.leaky_relu(x, slope))
    leaves = x.clone().requires_grad_(), x.clone().requires_grad_()
    actual, expected = (f(leaf, slope) for f, leaf in zip((leaky_relu, aten.leaky_relu), leaves, strict=True))
    actual.backward(x.flip(0))
    expected.backward(x.flip(0))
    assert_same_bits(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_patterns_match_the_builtin(dtype, slope):
    x = random_bit_patterns(dtype)
    assert_same_bits(leaky_relu(x, slope), aten.leaky_relu(x, slope))


@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_sizes_match_the_builtin_at_every_offset(dtype):
    for size in range(301):
        for offset in range(4):
            x = misaligned(randn(size, dtype=dtype), offset)
            assert_same_bits(leaky_relu(x, 0.1), aten.leaky_relu(x, 0.1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_match_the_builtin(layout, dtype):
    x = LAYOUTS[layout](dtype)
    actual = leaky_relu(x, 0.2)
    assert_same_bits(actual, aten.leaky_relu(x, 0.2))
    assert actual.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_many_elements_match_the_builtin_on_any_number_of_threads(dtype, threads):
    x = randn(2**18 + 37, dtype=dtype)  # beyond the grain: the threads share it, unevenly
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same_bits(leaky_relu(x, 0.2), aten.leaky_relu(x, 0.2))
    finally:
        torch.set_num_threads(before)


@given(
    shape=st.lists(st.integers(0, 9), max_size=4),
    steps=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    order=st.permutations(range(4)),
    slope=st.floats(width=32),
    dtype=st.sampled_from(DTYPES),
)
def test_any_shape_stride_and_slope_matches_the_builtin(shape, steps, order, slope, dtype):
    dims = len(shape)
    whole = randn(*(size * step for size, step in zip(shape, steps, strict=False)), dtype=dtype)
    x = whole[tuple(slice(None, None, step) for step in steps[:dims])].permute([d for d in order if d < dims])
    assert_same_bits(leaky_relu(x, slope), aten.leaky_relu(x, slope))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_slope_of_any_payload_stays_nan(dtype):
    x = -torch.ones(100, dtype=dtype)
    assert leaky_relu(x, NAN_WITH_LOW_PAYLOAD).isnan().all()


def test_output_owns_new_memory():
    x = randn(10)
    assert leaky_relu(x).data_ptr() != x.data_ptr()


@pytest.mark.parametrize("slope", [1, True, torch.tensor(0.5), 1 + 0j])
def test_slopes_that_the_builtin_converts(slope):
    x = randn(100)
    assert_same_bits(leaky_relu(x, slope), aten.leaky_relu(x, slope))


def test_numpy_scalars_as_slope():
    numpy = pytest.importorskip("numpy")
    x = randn(100)
    assert_same_bits(leaky_relu(x, numpy.float32(0.3)), aten.leaky_relu(x, numpy.float32(0.3)))
    assert_same_bits(leaky_relu(x, numpy.float64(0.3)), aten.leaky_relu(x, numpy.float64(0.3)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormals_that_are_flushed(dtype):
    """Wherever they stand; the setting is the thread's own."""
    smallest = torch.finfo(dtype).smallest_normal
    x = torch.tensor([smallest / 2, -smallest / 4, smallest, 1.0, -1.0, 0.0], dtype=torch.float64).to(dtype).repeat(50)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU does not flush subnormals")
    try:
        for n in (3, 300):
            assert_same_bits(leaky_relu(x[:n].clone(), 0.1), aten.leaky_relu(x[:n].clone(), 0.1))
    finally:
        torch.set_flush_denormal(False)


def test_lazily_negated_and_conjugated_views():
    imaginary = torch.randn(50, dtype=torch.complex64).conj().imag
    assert imaginary.is_neg()
    assert_same_bits(leaky_relu(imaginary, 0.1), aten.leaky_relu(imaginary.resolve_neg(), 0.1))


@pytest.mark.slow
@pytest.mark.cpu_only
def test_more_than_2_to_31_elements():
    size = 2**31 + 2**16 + 5
    memory = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/meminfo")}  # noqa: SIM115
    if memory["MemAvailable"] * 1024 < 5 * size:
        pytest.skip(f"needs {5 * size / 2**30:.0f} GiB of free memory")
    x = torch.full((size,), -4.0, dtype=torch.bfloat16)
    x[-5:] = torch.tensor([-2.0, 3.0, -0.0, 8.0, -16.0])
    leaf = x.requires_grad_()
    y = leaky_relu(leaf, 0.5)
    assert y[-5:].tolist() == [-1.0, 3.0, -0.0, 8.0, -8.0]
    assert y[2**31 - 2 : 2**31 + 2].tolist() == [-2.0] * 4
    (grad,) = torch.autograd.grad(y, leaf, y.detach())  # the output itself serves as the gradient
    assert grad[-5:].tolist() == [-0.5, 3.0, -0.0, 8.0, -4.0]
    assert grad[2**31 - 2 : 2**31 + 2].tolist() == [-1.0] * 4
