"""norm_leaky_relu's CUDA source, run thread by thread on the host, where its paths part: what a block holds and what not,
planes and columns, accesses of 16 bytes and of one element, one split and several. What all devices have in common:
tests/norm_leaky_relu/test_norm_values.py, which runs on the emulator too."""

import pytest
import torch
from torch import Tensor

from cases import DTYPES, HALF_DTYPES, assert_same_bits, misaligned, randn
from emulated import ops, report
from norm_formula import KINDS, Operands, composition, operands, ours

# Shape, memory format. A block holds 16 KiB of a channel (of all samples in batch norm).
LAYOUTS: dict[str, tuple[tuple[int, ...], str]] = {
    "held": ((3, 4, 16, 24), "contiguous"),
    "held, odd": ((3, 4, 13, 11), "contiguous"),
    "held, one access": ((2, 6, 2, 4), "contiguous"),
    "planes": ((2, 2, 128, 136), "contiguous"),  # several splits
    "planes, odd": ((2, 2, 131, 127), "contiguous"),
    "planes of several samples": ((40, 2, 16, 32), "contiguous"),
    "columns": ((2, 24, 16, 25), "channels_last"),
    "columns, odd": ((2, 6, 31, 43), "channels_last"),
    "columns, stripes": ((2, 264, 3, 5), "channels_last"),
    "columns, odd stripes": ((2, 74, 3, 5), "channels_last"),
    "columns, many pairs of a group": ((1, 256, 12, 12), "channels_last"),
}


def results(given: Operands, kind: str, grad_output: Tensor, function=ours) -> dict[str, Tensor]:
    leaves = given.leaves()
    output = function(kind, leaves)
    wanted = leaves.differentiable()
    grads = torch.autograd.grad(output, list(wanted.values()), grad_output.to(output.dtype))
    running = {"running_mean": leaves.running_mean, "running_var": leaves.running_var}
    found = {"output": output.detach(), **dict(zip(wanted, grads, strict=True))}
    return found | {name: statistic for name, statistic in running.items() if statistic is not None}


def check(given: Operands, kind: str) -> None:
    """Against float64: a few roundings of the largest result. (The error next to PyTorch's own: test_norm_values.py.)"""
    grad_output = torch.empty_like(given.input).copy_(randn(*given.input.shape, dtype=given.input.dtype, seed=9))
    actual = results(given, kind, grad_output)
    contiguous = Operands(*(None if t is None else t.contiguous() for t in given))
    expected = results(contiguous.to(torch.float64), kind, grad_output, composition)
    for name, value in expected.items():
        # PyTorch's own is as far from the truth in float64; sums that become a parameter's gradient are of float32.
        roundings = 1000 if given.input.dtype == torch.float64 else 8
        eps = torch.finfo(actual[name].dtype).eps
        assert (actual[name].double() - value).abs().max() <= roundings * eps * value.abs().max(), (kind, name)


@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(dtype: torch.dtype, layout: str, residual: bool) -> None:
    shape, memory_format = LAYOUTS[layout]
    for kind in KINDS:
        check(operands(kind, shape, dtype, memory_format, residual), kind)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "many" not in name])
def test_where_float_sums_go_wrong(layout: str) -> None:
    """Large and small magnitudes, and a line whose samples are far from all else."""
    shape, memory_format = LAYOUTS[layout]
    for kind in KINDS:
        given = operands(kind, shape, torch.float32, memory_format)._replace(running_mean=None, running_var=None)
        for scale in (1e30, 1e-15):
            scaled = given._replace(input=given.input * scale)
            exact = composition(kind, scaled.to(torch.float64))
            assert (ours(kind, scaled).double() - exact).abs().max() <= 1e-6 * exact.abs().max()
        apart = given.input.clone(memory_format=torch.preserve_format)
        apart[0, :, :, 0] += 1e4
        check(given._replace(input=apart), kind)


@pytest.mark.parametrize("dtype", DTYPES)
def test_misaligned(dtype: torch.dtype) -> None:
    for shape in ((3, 4, 16, 24), (1, 2, 128, 136)):
        for kind in KINDS:
            given = operands(kind, shape, dtype, residual=True)
            check(given._replace(input=misaligned(given.input)), kind)
            check(given._replace(residual=misaligned(given.residual)), kind)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_signs_are_the_outputs(dtype: torch.dtype, layout: str) -> None:
    """Those that a forward keeps in its mask, and those that a backward finds without one."""
    shape, memory_format = LAYOUTS[layout]
    given = operands("batch", shape, dtype, memory_format, residual=True)
    arguments = (given.weight, given.bias, None, None)
    for groups in (0, shape[1], 2):
        x, ones = given.input, torch.ones_like(given.input)
        settings = (groups, True, 0.1, 1e-5, 0.0)
        for residual in (None, given.residual):
            output, statistics, mask = ops.norm_leaky_relu_forward(x, *arguments, residual, *settings, residual is not None)
            slopes = ops.norm_leaky_relu_backward(
                ones, x, statistics, given.weight, mask, groups, True, 1e-5, 0.0, [False, False, False, True]
            )[3]
            assert_same_bits(slopes, (output > 0).to(dtype))


@pytest.mark.parametrize("layout", ["planes", "columns"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_moves_no_more_than_it_must(dtype: torch.dtype, layout: str) -> None:
    shape, memory_format = LAYOUTS[layout]
    given = operands("instance", shape, dtype, memory_format)._replace(running_mean=None, running_var=None)
    x, nbytes = given.input, given.input.nbytes
    settings = (shape[1], True, 0.1, 1e-5, 0.1)
    little = nbytes // 5  # pairs, statistics, coefficients
    _, statistics, mask = ops.norm_leaky_relu_forward(x, given.weight, given.bias, None, None, None, *settings, False)
    moved = report()
    assert 2 * nbytes <= moved.loads.bytes <= 2 * nbytes + little
    assert nbytes <= moved.stores.bytes <= nbytes + little
    assert moved.loads.widest_requests >= 2 * nbytes // (16 * 32)
    assert moved.stores.widest_requests >= nbytes // (16 * 32)
    ops.norm_leaky_relu_backward(
        torch.ones_like(x), x, statistics, given.weight, mask, shape[1], True, 1e-5, 0.1, [True, True, True, False]
    )
    moved = report()
    assert 4 * nbytes <= moved.loads.bytes <= 4 * nbytes + little
    assert nbytes <= moved.stores.bytes <= nbytes + little
    assert moved.loads.widest_requests >= 4 * nbytes // (16 * 32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_a_block_holds_is_read_once(dtype: torch.dtype) -> None:
    shape, _ = LAYOUTS["held"]
    given = operands("instance", shape, dtype)
    x, nbytes, groups = given.input, given.input.nbytes, shape[0] * shape[1]
    settings = (shape[1], True, 0.1, 1e-5, 0.1)
    _, statistics, mask = ops.norm_leaky_relu_forward(x, given.weight, given.bias, None, None, None, *settings, False)
    moved = report()
    assert moved.blocks == groups
    parameters = given.weight.nbytes + given.bias.nbytes
    assert (moved.loads.bytes, moved.stores.bytes) == (nbytes + parameters, nbytes + statistics.nbytes)
    ops.norm_leaky_relu_backward(
        torch.ones_like(x), x, statistics, given.weight, mask, shape[1], True, 1e-5, 0.1, [True, False, False, False]
    )
    moved = report()
    assert moved.blocks == groups
    assert (moved.loads.bytes, moved.stores.bytes) == (2 * nbytes + statistics.nbytes, nbytes)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "many" not in name])
def test_the_same_each_time(layout: str) -> None:
    shape, memory_format = LAYOUTS[layout]
    for kind in KINDS:
        given = operands(kind, shape, torch.float32, memory_format, residual=True)
        first, again = (results(given, kind, randn(*shape, seed=9)) for _ in range(2))
        for name, value in first.items():
            assert_same_bits(again[name], value)


def test_a_launch_that_fails_is_an_error() -> None:
    for shape in ((3, 4, 16, 24), (1, 2, 128, 136)):
        given = operands("batch", shape)
        torch.ops.cuda_on_host.fail_next_launch()
        with pytest.raises(RuntimeError, match="CUDA error: too many resources"):
            ours("batch", given)
        leaves = given.leaves()
        output = ours("batch", leaves)
        torch.ops.cuda_on_host.fail_next_launch()
        with pytest.raises(RuntimeError, match="CUDA error: too many resources"):
            output.sum().backward()


@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_in_the_memory_of_the_incoming_one(layout: str, residual: bool) -> None:
    shape, memory_format = LAYOUTS[layout]
    given = operands("instance", shape, torch.float32, memory_format, residual)
    settings = (shape[1], True, 0.1, 1e-5, 0.1)
    _, statistics, mask = ops.norm_leaky_relu_forward(
        given.input, given.weight, given.bias, None, None, given.residual, *settings, residual
    )
    grad = torch.empty_like(given.input).copy_(randn(*shape, seed=9))
    rest = (given.input, statistics, given.weight, mask, shape[1], True, 1e-5, 0.1)
    expected = ops.norm_leaky_relu_backward(grad, *rest, [True] * 4)
    others = ops.norm_leaky_relu_backward_(grad, *rest, [True] * 3)
    for actual, wanted in zip((grad, *others), expected, strict=True):
        assert_same_bits(actual, wanted)
