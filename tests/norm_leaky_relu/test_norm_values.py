"""Values, gradients and running statistics of norm and Leaky ReLU, against float64 and PyTorch's own composition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import leakyrelu_ext
from cases import DTYPES, HALF_DTYPES, assert_same_bits, misaligned, randn
from leakyrelu_ext import batch_norm_leaky_relu, group_norm_leaky_relu, instance_norm_leaky_relu
from norm_formula import (
    EMULATED,
    KINDS,
    MEMORY_FORMATS,
    Operands,
    assert_as_exact_as_pytorch,
    composition,
    contiguous,
    operands,
    ours,
    results,
)

NATIVE = leakyrelu_ext.build_info()["native"]
# Odd sizes around the width of every tier's registers; rows shorter than one; rows and images of several lots.
SHAPES = [(2, 6, 5, 7), (3, 4, 9), (2, 34, 3, 11), (2, 4, 130, 129), (1, 6, 7, 9, 8), (3, 2, 1, 5)]


@pytest.mark.native
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, *HALF_DTYPES])
@pytest.mark.parametrize("kind", KINDS)
def test_errors(kind, dtype, layout, residual, training):
    for shape in SHAPES:
        if kind == "group" and not training:
            continue
        given = operands(kind, shape, dtype, layout, residual)
        found = assert_as_exact_as_pytorch(kind, given, training=training)
        assert found["output"].stride() == given.input.stride()
        assert found["input"].stride() == given.input.stride()


@pytest.mark.native
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF_DTYPES])
def test_rows_end_anywhere_in_a_register(dtype, residual):
    """With given statistics, an element's results do not depend on where it lies in memory."""
    for channels in range(2, 67, 3 if EMULATED else 1):
        given = operands("batch", (2, channels, 1, 70 - channels), dtype, "channels_last", residual)
        grad_output = randn(*given.input.shape, dtype=dtype, seed=9)
        found, expected = (results(ours, "batch", g, grad_output, training=False) for g in (given, contiguous(given)))
        for name in ("output", "input", *["residual"] * residual):
            assert_same_bits(found[name].contiguous(), expected[name])


@pytest.mark.native
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF_DTYPES])
@pytest.mark.parametrize("kind", KINDS)
def test_channels_around_the_width_of_registers(kind, dtype, residual):
    for channels in (6, 8, 14, 18, 24, 30, 34, 48, 62):
        assert_as_exact_as_pytorch(kind, operands(kind, (2, channels, 9, 5), dtype, "channels_last", residual))


@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_float64(kind, layout, residual):
    for shape in SHAPES:
        given = operands(kind, shape, torch.float64, layout, residual)
        grad_output = randn(*shape, dtype=torch.float64, seed=9)
        actual, expected = (results(f, kind, contiguous(g), grad_output) for f, g in ((ours, given), (composition, given)))
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_slopes(kind, slope):
    given = operands(kind, (2, 6, 5, 7), torch.float64)
    grad_output = randn(2, 6, 5, 7, dtype=torch.float64, seed=9)
    actual, expected = (results(f, kind, given, grad_output, slope=slope) for f in (ours, composition))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-11, atol=1e-11)


@pytest.mark.native
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("mean", [1e3, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mean_far_from_zero(kind, mean, layout):
    assert_as_exact_as_pytorch(kind, operands(kind, (4, 16, 32, 32), layout=layout, mean=mean))


@pytest.mark.native
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_one_huge_value(kind, dtype, layout):
    for place in (0, 70):
        given = operands(kind, (2, 4, 33, 9), dtype, layout)
        given.input[0, 1].view(-1)[place] = 1e4
        assert_as_exact_as_pytorch(kind, given)


@pytest.mark.native
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_large_and_small_magnitudes(kind, layout):
    given = operands(kind, (2, 4, 33, 9), layout=layout)
    assert_as_exact_as_pytorch(kind, given._replace(input=given.input * 1e30, running_mean=None, running_var=None))
    assert_as_exact_as_pytorch(kind, given._replace(input=given.input * 1e-40, running_mean=None, running_var=None))


@pytest.mark.native  # PyTorch's own results are up to 1e6 off for the last value
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("value", [0.0, 3.0, -1e10])
@pytest.mark.parametrize("kind", KINDS)
def test_constant_channels(kind, value, layout):
    """Without variance nothing is left but the bias, to the bit."""
    given = operands(kind, (2, 4, 5, 7), layout=layout)
    given.input.fill_(value)
    shift = torch.nn.functional.leaky_relu(given.bias, 0.1).view(1, 4, 1, 1).expand(2, 4, 5, 7)
    assert_same_bits(ours(kind, given).contiguous(), shift.contiguous())


@pytest.mark.native
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
def test_variances_that_vanish_in_float32(layout):
    """Squares of 1e-30 are 0 in float32; the mean is 0, to the bit."""
    signs = torch.tensor([1.0, -1.0]).repeat(32)
    x = (
        (signs * 1e-30)
        .view(1, 1, 8, 8)
        .expand(2, 2, 8, 8)
        .contiguous(memory_format=MEMORY_FORMATS[layout].get(4, torch.contiguous_format))
    )
    expected = torch.where(signs > 0, 1.0, -0.25).view(1, 1, 8, 8).expand(2, 2, 8, 8)
    torch.testing.assert_close(instance_norm_leaky_relu(x, eps=1e-300, negative_slope=0.25), expected)


@pytest.mark.native
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("kind", KINDS)
def test_infinities_and_nan_land_where_pytorch_s_land(kind, special, layout):
    for samples, place in (((1,), 0), ((1,), 17), ((0, 1), 3)):
        for training in (True, False):
            if kind == "group" and not training:
                continue
            given = operands(kind, (2, 4, 5, 7), layout=layout)
            for sample in samples:
                given.input[sample, 2].view(-1)[place] = special
            grad_output = randn(2, 4, 5, 7, seed=9)
            actual, expected = (
                results(f, kind, g, grad_output, training=training)
                for f, g in ((ours, given), (composition, contiguous(given)))
            )
            for name in ("output", "input", "bias", "running_mean", "running_var"):
                if name in expected:
                    torch.testing.assert_close(actual[name].nan_to_num(7, 8, 9), expected[name].nan_to_num(7, 8, 9))


@pytest.mark.native
@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_what_rounds_to_zero_takes_the_slope(dtype):
    """As in the composition, whose activation sees the rounded result."""
    tiny = torch.finfo(dtype).tiny * torch.finfo(dtype).eps  # the smallest subnormal
    x = randn(2, 3, 4, 4, dtype=dtype)
    zero = torch.zeros(3)
    for bias, expected in ((tiny / 2, 0.25), (tiny, 1.0)):
        b = torch.full((3,), bias, requires_grad=True)
        batch_norm_leaky_relu(x, zero, zero + 1, zero, b, negative_slope=0.25).sum().backward()
        assert_same_bits(b.grad, torch.full((3,), 32 * expected))


@pytest.mark.native
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_backward_finds_the_signs_again(kind, dtype, layout):
    """A residual's signs are kept as bits, else they are computed again: with a residual of zeros nothing may differ."""
    given = operands(kind, (2, 34, 13, 11), dtype, layout)
    grad_output = randn(*given.input.shape, dtype=dtype, seed=9)
    recomputed = results(ours, kind, given, grad_output)
    kept = results(ours, kind, given._replace(residual=torch.zeros_like(given.input)), grad_output)
    for name, value in recomputed.items():
        assert_same_bits(kept[name], value)


@pytest.mark.native
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 6, 130, 131), (40, 64, 16, 16)])
def test_the_number_of_threads_changes_nothing(kind, layout, shape):
    given = operands(kind, shape, layout=layout)
    grad_output = randn(*shape, seed=9)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(results(ours, kind, given, grad_output))
    finally:
        torch.set_num_threads(threads)
    for name, value in found[0].items():
        assert_same_bits(found[1][name], value)
        assert_same_bits(found[2][name], value)


@pytest.mark.native
@pytest.mark.parametrize("dtype", HALF_DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_parameters_of_a_16_bit_input(kind, dtype):
    given = operands(kind, (2, 6, 9, 7), dtype, parameters=torch.float32)
    found = assert_as_exact_as_pytorch(kind, given)
    assert found["weight"].dtype == torch.float32


@pytest.mark.parametrize("missing", [("weight",), ("bias",), ("weight", "bias"), ("running_mean", "running_var")])
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_optional(kind, missing):
    if kind == "group" and missing == ("weight",):
        pytest.skip("PyTorch's own group norm raises in the backward with a bias and no weight")
    given = operands(kind, (2, 6, 9, 7), torch.float64)._replace(**dict.fromkeys(missing))
    grad_output = randn(2, 6, 9, 7, dtype=torch.float64, seed=9)
    actual, expected = (results(f, kind, given, grad_output) for f in (ours, composition))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-11, atol=1e-11)


@pytest.mark.native  # PyTorch's instance norm refuses it
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_a_float32_bias_without_weight(kind):
    """Its gradient is not rounded to the input's 16 bits."""
    given = operands(kind, (8, 2, 128, 128), torch.float16, parameters=torch.float32)._replace(weight=None)
    given.bias.fill_(5)
    found = results(ours, kind, given, torch.ones(8, 2, 128, 128))
    assert_same_bits(found["bias"], torch.full((2,), 131072.0))


@pytest.mark.native
@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1e10, 1e17, 1e30])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_at_any_scale(kind, scale):
    """Of the input and of the gradient. Factors like rstd cubed would vanish or overflow."""
    given = operands(kind, (2, 4, 9, 7))._replace(running_mean=None, running_var=None)
    given = given._replace(input=given.input * scale)
    for of_grad in (1e-20, 1.0):
        grad_output = (randn(2, 4, 9, 7, seed=9) + 1) * of_grad
        eps = 0.0 if kind != "batch" else 1e-44
        actual, theirs = (results(f, kind, given, grad_output, eps=eps)["input"] for f in (ours, composition))
        exact = results(composition, kind, given.to(torch.float64), grad_output, eps=eps)["input"]
        error, accepted = (((g.double() - exact).abs()).max() for g in (actual, theirs))
        assert error <= 1.5 * accepted + 4 * torch.finfo(torch.float32).eps * exact.abs().max() or not accepted.isfinite()


@pytest.mark.parametrize("wanted", ["input", "weight", "bias", "residual"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_gradient_alone(kind, wanted):
    """Unwanted ones are not computed; the wanted one is the same."""
    given = operands(kind, (2, 6, 9, 7), residual=True)
    grad_output = randn(2, 6, 9, 7, seed=9)
    everything = results(ours, kind, given, grad_output)
    alone = Operands(*(None if t is None else t.clone() for t in given))
    getattr(alone, wanted).requires_grad_()
    (grad,) = torch.autograd.grad(ours(kind, alone), getattr(alone, wanted), grad_output)
    assert_same_bits(grad, everything[wanted])


@pytest.mark.native
@pytest.mark.parametrize("of_weight", [torch.float16, torch.bfloat16, torch.float64])
def test_gradients_are_of_the_weight_s_dtype(of_weight):
    """Of the bare op, which takes weights that no forward does."""
    ops = torch.ops.leakyrelu_ext
    x, weight = randn(4, 6, 5, 7), randn(6, seed=1)
    _, statistics, mask = ops.norm_leaky_relu_forward(x, weight, None, None, None, None, 0, True, 0.1, 1e-5, 0.1, False)
    rest = (mask, 0, True, 1e-5, 0.1, [False, True, True, False])
    _, *expected, _ = ops.norm_leaky_relu_backward(x, x, statistics, weight, *rest)
    _, *found, _ = ops.norm_leaky_relu_backward(x, x, statistics, weight.to(of_weight), *rest)
    for actual, grad in zip(found, expected, strict=True):
        assert_same_bits(actual, grad.to(of_weight))
    with pytest.raises(RuntimeError, match="argument 'weight' must be floating-point of shape"):
        ops.norm_leaky_relu_backward(x, x, statistics, weight > 0, *rest)


@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_running_statistics(kind):
    given = operands(kind, (3, 4, 5, 7), torch.float64)
    for momentum in (0.0, 0.3, 1.0):
        actual, expected = given.to(torch.float64), given.to(torch.float64)
        for _ in range(2):
            ours(kind, actual, momentum=momentum)
            composition(kind, expected, momentum=momentum)
        torch.testing.assert_close(actual.running_mean, expected.running_mean, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(actual.running_var, expected.running_var, rtol=1e-13, atol=1e-13)
    before = given.to(torch.float64)
    ours(kind, before, training=False)
    assert_same_bits(before.running_mean, given.running_mean)
    assert_same_bits(before.running_var, given.running_var)


@st.composite
def strided(draw):
    """A shape, a dtype, and how its elements lie in memory."""
    shape = (
        draw(st.integers(1, 3)),
        2 * draw(st.integers(1, 9)),
        *draw(st.lists(st.integers(1, 20), min_size=1, max_size=3)),
    )
    order = draw(st.permutations(range(len(shape))))
    return shape, draw(st.sampled_from([torch.float32, torch.bfloat16])), order, draw(st.integers(0, 3))


@pytest.mark.native
@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=strided(), kind=st.sampled_from(KINDS), of_grad=st.booleans())
def test_any_strides(case, kind, of_grad):
    """A copy in another memory order gives the same as the contiguous tensor, up to roundings; results are contiguous."""
    shape, dtype, order, offset = case
    if math.prod(shape[2:]) * (shape[0] if kind == "batch" else 1) == 1:
        return
    plain = operands(kind, shape, dtype)
    permuted = plain.input.permute(order).contiguous().permute([order.index(d) for d in range(len(shape))])
    strange = misaligned(permuted, offset) if permuted.is_contiguous() else permuted
    grad_output = randn(*shape, dtype=dtype, seed=9)
    if of_grad:
        grad_output = grad_output.permute(order).contiguous().permute([order.index(d) for d in range(len(shape))])
    actual, expected = (results(ours, kind, plain._replace(input=x), grad_output) for x in (strange, plain.input))
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, **tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_an_expanded_gradient(kind):
    given = operands(kind, (2, 6, 9, 7), torch.float64).leaves()
    ours(kind, given).sum().backward()
    other = given.leaves()
    composition(kind, other).sum().backward()
    torch.testing.assert_close(given.input.grad, other.input.grad, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3), (2, 0, 3, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_empty(kind, shape):
    """Results, or PyTorch's own errors."""
    given = operands(kind, shape)
    outcomes = []
    for function in (ours, composition):
        try:
            outcomes.append(results(function, kind, given, randn(*shape)))
        except (IndexError, RuntimeError, ValueError) as error:
            outcomes.append((type(error), str(error)))
    actual, expected = outcomes
    if isinstance(expected, dict):
        for name, value in expected.items():
            assert_same_bits(actual[name], value)
    else:
        assert actual == expected


@pytest.mark.parametrize("kind", KINDS)
def test_two_dimensions(kind):
    x = randn(5, 6, dtype=torch.float64)
    if kind == "batch":
        actual, expected = (f(x, None, None, training=True) for f in (batch_norm_leaky_relu, torch.nn.functional.batch_norm))
    elif kind == "group":
        actual, expected = group_norm_leaky_relu(x, 2), torch.nn.functional.group_norm(x, 2)
    else:
        with pytest.raises(ValueError, match="Expected more than 1 spatial element"):
            instance_norm_leaky_relu(x)
        return
    torch.testing.assert_close(actual, torch.nn.functional.leaky_relu(expected))


@pytest.mark.native
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved(kind, residual):
    """The input, some numbers per channel and group, and a bit per element if there is a residual."""
    saved = []
    given = operands(kind, (2, 8, 16, 16), residual=residual).leaves()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        output = ours(kind, given)
    assert saved[0].data_ptr() == given.input.data_ptr()
    others = sum(t.nbytes for t in saved[1:])
    entries, groups = {"batch": (8, 8), "instance": (16, 16), "group": (16, 4)}[kind]
    assert others == 4 * (3 * entries + groups) + 8 * 4 + (given.input.numel() // 8 if residual else 0)
    output.sum().backward()
