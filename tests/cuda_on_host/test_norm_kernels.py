"""norm_leaky_relu's CUDA source, run thread by thread on the host, where its paths part: what a block holds and what not,
planes and columns, accesses of 16 bytes and of one element, one split and several, what stands between the passes. What all
devices have in common: tests/norm_leaky_relu/test_norm_values.py, which runs on the emulator too."""

from collections.abc import Iterator

import pytest
import torch

from cases import DTYPES, HALF_DTYPES, assert_same_bits, misaligned, randn
from emulated import norms_folded_up_to, only_blocks, ops, report
from norm_formula import KINDS, Operands, composition, contiguous, operands, ours, results

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
    "columns, groups across stripes": ((2, 40, 5, 24), "channels_last"),
    "columns, many pairs of a group": ((1, 256, 12, 12), "channels_last"),
}


@pytest.fixture(params=["folded", "launches"])
def folded(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether what lies between the passes is part of the second one, as in small tensors, or of a launch of its own."""
    with norms_folded_up_to(1 << 24 if request.param == "folded" else 0):
        yield request.param == "folded"


def check(given: Operands, kind: str) -> None:
    """Against float64: a few roundings of the largest result. (The error next to PyTorch's own: test_norm_values.py.)"""
    grad_output = torch.empty_like(given.input).copy_(randn(*given.input.shape, dtype=given.input.dtype, seed=9))
    actual = results(ours, kind, given, grad_output)
    expected = results(composition, kind, contiguous(given).to(torch.float64), grad_output)
    for name, value in expected.items():
        # PyTorch's own is as far from the truth in float64; sums that become a parameter's gradient are of float32.
        roundings = 1000 if given.input.dtype == torch.float64 else 8
        eps = torch.finfo(actual[name].dtype).eps
        assert (actual[name].double() - value).abs().max() <= roundings * eps * value.abs().max(), (kind, name)


@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(dtype: torch.dtype, layout: str, residual: bool, folded: bool) -> None:
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
def test_memory_moves_no_more_than_it_must(dtype: torch.dtype, layout: str, folded: bool) -> None:
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
def test_a_launch_between_makes_the_same(layout: str) -> None:
    """Up to the order in which doubles are added up."""
    shape, memory_format = LAYOUTS[layout]
    for kind in KINDS:
        given = operands(kind, shape, torch.float64, memory_format, residual=True)
        grad_output = randn(*shape, dtype=torch.float64, seed=9)
        found = results(ours, kind, given, grad_output)
        with norms_folded_up_to(0):
            for name, value in results(ours, kind, given, grad_output).items():
                torch.testing.assert_close(found[name], value, rtol=1e-13, atol=1e-13, msg=f"{kind} {name}")


def launches_of_step(
    kind: str,
    shape: tuple[int, ...],
    memory_format: str,
    training: bool = True,
    num_groups: int = 32,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[int, int]:
    given = operands("batch", shape, dtype, memory_format)
    running = (given.running_mean, given.running_var) if kind == "batch" else (None, None)
    groups = {"batch": 0, "instance": shape[1], "group": num_groups}[kind]
    _, statistics, mask = ops.norm_leaky_relu_forward(
        given.input, given.weight, given.bias, *running, None, groups, training, 0.1, 1e-5, 0.1, False
    )
    forward = report().launches
    ops.norm_leaky_relu_backward(
        given.input, given.input, statistics, given.weight, mask, groups, training, 1e-5, 0.1, [True, True, True, False]
    )
    return forward, report().launches


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 320, 8, 64), (32, 1024, 13, 13), (8, 256, 26, 26)], ids=str)
def test_small_layers_take_two_launches_each_way(shape: tuple[int, ...], memory_format: str, folded: bool) -> None:
    with only_blocks(0):
        for kind in ("batch", "instance", "group"):
            if (kind, shape[0], memory_format) == ("group", 32, "contiguous"):
                continue  # 32,768 blocks with 32 channels to a group would read 16 MiB of sums
            launches = launches_of_step(kind, shape, memory_format)
            assert max(launches) <= 2 or not folded, kind
            # Some pairs of a group are too many for one block; some groups are held.
            assert memory_format == "contiguous" or folded or min(launches) >= 3, kind
        forward, backward = launches_of_step("batch", shape, memory_format, training=False)
        assert forward == (1 if folded else 2)
        assert backward == (1 if memory_format == "contiguous" else 2 if folded else 3)  # held, or not


def test_a_second_pass_takes_many_pairs_of_a_group_as_they_are() -> None:
    with only_blocks(0, -1):
        launches = launches_of_step("group", (1, 15, 347, 119), "channels_last", num_groups=1, dtype=torch.float64)
    assert launches == (2, 2)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "many" not in name])
def test_the_same_each_time(layout: str) -> None:
    shape, memory_format = LAYOUTS[layout]
    for kind in KINDS:
        given = operands(kind, shape, torch.float32, memory_format, residual=True)
        first, again = (results(ours, kind, given, randn(*shape, seed=9)) for _ in range(2))
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
