"""What only a GPU can show of norm_leaky_relu. `make gpu-check` runs it, with the rest of the suite, on `--device cuda`."""

import pytest
import torch
import torch.nn.functional as F

import cases
from cases import HALF_DTYPES, assert_same_bits, randn
from leakyrelu_ext import InstanceNormLeakyReLU2d, instance_norm_leaky_relu
from norm_formula import KINDS, MEMORY_FORMATS, assert_as_exact_as_pytorch, operands

pytestmark = [pytest.mark.gpu, pytest.mark.native]
GIB = 2**30
# What a block holds, planes in several splits, columns: these two once small, once with a launch between the passes.
INPUTS = {
    "held": lambda seed: randn(4, 8, 16, 16, seed=seed),
    "planes": lambda seed: randn(4, 8, 256, 256, seed=seed),
    "columns": lambda seed: randn(4, 64, 32, 32, seed=seed).contiguous(memory_format=torch.channels_last),
    "large planes": lambda seed: randn(8, 8, 256, 320, seed=seed),
    "large columns": lambda seed: randn(8, 64, 96, 96, seed=seed).contiguous(memory_format=torch.channels_last),
}


def step(module: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    y = module(x * 1)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])]


@pytest.mark.parametrize("of_seed", INPUTS.values(), ids=INPUTS)
def test_side_streams_and_graphs(of_seed) -> None:
    """On a stream of its own, captured and replayed: the same bits, running statistics included."""
    static = of_seed(0).requires_grad_()
    modules = [InstanceNormLeakyReLU2d(static.size(1), affine=True, track_running_stats=True) for _ in range(2)]
    captured, eager = modules
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)
        step(captured, static)
        step(eager, static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step(captured, static)
    for seed in (1, 2):
        with torch.no_grad():
            static.copy_(of_seed(seed))
        graph.replay()
        for actual, expected in zip(found, step(eager, static), strict=True):
            assert_same_bits(actual, expected)
    assert_same_bits(captured.running_var, eager.running_var)


@pytest.mark.parametrize("of_seed", INPUTS.values(), ids=INPUTS)
def test_the_same_each_time(of_seed) -> None:
    module, x = InstanceNormLeakyReLU2d(of_seed(0).size(1), affine=True), of_seed(0).requires_grad_()
    first = step(module, x)
    for _ in range(20):
        for actual, expected in zip(step(module, x), first, strict=True):
            assert_same_bits(actual, expected)


@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, *HALF_DTYPES])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_large_tensors(kind: str, dtype: torch.dtype, layout: str, residual: bool) -> None:
    """Beyond 16 MiB there is a launch between the passes (those below: test_norm_values.py)."""
    assert_as_exact_as_pytorch(kind, operands(kind, (16, 16, 200, 240), dtype, layout, residual))


def test_no_synchronisation() -> None:
    module, x = InstanceNormLeakyReLU2d(8, affine=True, track_running_stats=True), INPUTS["planes"](0).requires_grad_()
    step(module, x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(module, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True], ids=["planes", "columns"])
def test_more_than_2_31_elements(channels_last: bool) -> None:
    """The last sample, whose elements lie beyond, is normalized as if it were alone."""
    shape = (3, 16, 8192, 8192)
    if torch.cuda.mem_get_info(cases.DEVICE)[0] < 10 * 2 * 3 * 2**30:
        pytest.skip("needs 60 GiB of GPU memory")
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.empty(shape, dtype=torch.float16, memory_format=memory_format).normal_().requires_grad_()
    y = instance_norm_leaky_relu(x)
    (grad,) = torch.autograd.grad(y, x, y)
    last = x[2:].detach().contiguous(memory_format=memory_format).requires_grad_()
    of_last = instance_norm_leaky_relu(last)
    (grad_of_last,) = torch.autograd.grad(of_last, last, of_last)
    torch.testing.assert_close(y[2:], of_last, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(grad[2:], grad_of_last, rtol=1e-2, atol=1e-2)
    assert (F.leaky_relu(last.detach(), 0.01) - of_last).abs().max() < 0.05  # its mean is 0 and its deviation 1
