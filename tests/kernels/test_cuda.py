"""What only a GPU can show. `make gpu-check` runs it, with the rest of the suite, on `--device cuda`."""

import pytest
import torch

import aten
import cases
from cases import assert_same_bits, randn
from leakyrelu_ext import LeakyReLU, bias_leaky_relu, leaky_relu, leaky_relu_, stats

pytestmark = [pytest.mark.gpu, pytest.mark.native]
ops = torch.ops.leakyrelu_ext
GIB = 2**30


def busy(milliseconds: int = 50) -> None:
    """Keeps the current stream busy."""
    torch.cuda._sleep(milliseconds * 2_000_000)


def needs_memory(nbytes: int) -> None:
    if torch.cuda.mem_get_info(cases.DEVICE)[0] < nbytes:
        pytest.skip(f"needs {nbytes / GIB:.0f} GiB of GPU memory")


def test_runs_on_the_current_stream() -> None:
    x = randn(1 << 20)
    expected = aten.leaky_relu(x * 3, 0.1)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        busy()
        y = leaky_relu(x * 3, 0.1)  # on another stream it would read what is not yet written
    torch.cuda.current_stream().wait_stream(side)
    assert_same_bits(y, expected)


def test_forward_and_backward_on_a_side_stream() -> None:
    x = randn(1 << 20).requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        busy()
        y = leaky_relu(x * 2, 0.1)
    torch.cuda.current_stream().wait_stream(side)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert_same_bits(grad, torch.where(x > 0, 2.0, 0.1 * 2.0).to(x.dtype))


def test_gradients_that_another_stream_still_reads_are_not_overwritten() -> None:
    x = randn(1 << 20).requires_grad_()
    side = torch.cuda.Stream()
    slow = torch.zeros_like(x)

    class ReadsLate(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input):
            return input.view_as(input)

        @staticmethod
        def backward(ctx, grad):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                busy()
                slow.copy_(grad)
            grad.record_stream(side)
            return grad

    before = stats()["backward_into_grad_output"]
    (leaky_relu(x * 1, 0.1) * 2).sum().backward()  # on the CPU, this one is
    (ReadsLate.apply(leaky_relu(x * 1, 0.1)) * 2).sum().backward()
    torch.cuda.synchronize()
    assert stats()["backward_into_grad_output"] == before
    assert torch.equal(slow, torch.full_like(slow, 2.0))


@pytest.mark.parametrize("inplace", [False, True])
def test_capture_in_a_graph(inplace: bool) -> None:
    module, x = LeakyReLU(0.1, inplace=inplace), randn(1000, 7)
    static = x.clone().requires_grad_(not inplace)

    def step() -> tuple[torch.Tensor, torch.Tensor | None]:
        y = module(static * 1)
        return y, None if inplace else torch.autograd.grad(y.sum(), static)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y, grad = step()
    for seed in (1, 2):
        values = randn(1000, 7, seed=seed)
        with torch.no_grad():
            static.copy_(values)
        graph.replay()
        assert_same_bits(y, aten.leaky_relu(values, 0.1))
        if grad is not None:
            assert_same_bits(grad, torch.where(values > 0, 1.0, 0.1))


def test_no_synchronisation() -> None:
    x, strided = randn(1 << 16).requires_grad_(), randn(64, 64)[:, ::2]
    torch.cuda.set_sync_debug_mode("error")
    try:
        leaky_relu(x * 1, 0.1).backward(x.detach())
        leaky_relu(strided, 0.1)
        leaky_relu_(x.detach().clone(), 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    other = torch.device("cuda", (cases.DEVICE.index + 1) % torch.cuda.device_count())
    x = randn(1000).to(other).requires_grad_()
    with torch.cuda.device(cases.DEVICE):
        y = leaky_relu(x * 1, 0.1)
        y.sum().backward()
        assert torch.cuda.current_device() == cases.DEVICE.index
    assert y.device == x.grad.device == other
    assert_same_bits(y, aten.leaky_relu(x, 0.1))
    assert_same_bits(x.grad, torch.where(x > 0, 1.0, 0.1))


def test_masks_are_those_of_the_cpu() -> None:
    x = randn(70, 33)
    for tensor in (x, x.t(), x[:, ::2]):
        _, mask = ops.leaky_relu_forward(tensor, 0.1)
        assert torch.equal(mask.cpu(), ops.leaky_relu_forward(tensor.cpu(), 0.1)[1])


def test_the_family_runs_on_the_current_stream() -> None:
    x, bias = randn(64, 96, 33), randn(96, seed=1).requires_grad_()
    expected = aten.leaky_relu(x * 3 + bias[:, None], 0.1)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        busy()
        y = bias_leaky_relu(x * 3, bias, 0.1)
        busy()
        (grad,) = torch.autograd.grad(y, bias, torch.ones_like(y))
    torch.cuda.current_stream().wait_stream(side)
    assert_same_bits(y, expected)
    torch.testing.assert_close(grad, torch.where(expected > 0, 1.0, 0.1).sum((0, 2)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(512, 96), (64, 96, 7, 7), (8, 96, 56, 56)], ids=str)
def test_gradients_of_the_bias_are_the_same_each_time(shape: tuple[int, ...]) -> None:
    x, bias = randn(*shape, dtype=torch.bfloat16), randn(96, seed=1).requires_grad_()
    grad = randn(*shape, dtype=torch.bfloat16, seed=2)
    first, *others = (torch.autograd.grad(bias_leaky_relu(x, bias, 0.1), bias, grad)[0] for _ in range(10))
    for other in others:
        assert_same_bits(other, first)
    rest = [d for d in range(x.dim()) if d != 1]
    positive = x.float() + bias.detach().view(-1, *[1] * (x.dim() - 2)) > 0
    exact = torch.where(positive, grad.double(), grad.double() * 0.1).sum(rest)
    torch.testing.assert_close(first.double(), exact, rtol=1e-4, atol=1e-3)


def test_dropout_in_a_graph_differs_at_each_replay() -> None:
    x = torch.ones(1000, 96).requires_grad_()
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.autograd.grad(bias_leaky_relu(x, dropout_p=0.5).sum(), x)
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        y = bias_leaky_relu(x, dropout_p=0.5)
        (grad,) = torch.autograd.grad(y.sum(), x)
    seen = []
    for _ in range(3):
        graph.replay()
        assert torch.equal(y, grad)  # 2 where kept, both of them
        assert 0.45 < (y > 0).double().mean().item() < 0.55
        seen.append(y.detach().clone())
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_dropout_follows_the_seed() -> None:
    x = torch.ones(1000, 96)
    torch.manual_seed(3)
    first, second = bias_leaky_relu(x, dropout_p=0.5), bias_leaky_relu(x, dropout_p=0.5)
    torch.manual_seed(3)
    assert torch.equal(bias_leaky_relu(x, dropout_p=0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "misaligned"])
def test_more_than_2_31_elements(offset: int) -> None:
    n = 2**31 + 5000
    needs_memory(5 * 2 * n)
    x = torch.empty(n + offset, dtype=torch.float16)[offset:].normal_()
    expected = aten.leaky_relu(x, 0.1)
    assert torch.equal(leaky_relu(x, 0.1), expected)
    mask = ops.leaky_relu_forward_(x, 0.1)
    assert torch.equal(x, expected)
    del expected
    assert torch.equal(ops.leaky_relu_backward(x, mask, 0.5, None), torch.where(x > 0, x, x * 0.5))


@pytest.mark.slow
def test_strided_beyond_2_31() -> None:
    n = 2**31 + 5000
    needs_memory(5 * 2 * n)
    x = torch.empty(2 * n, dtype=torch.float16).normal_()[::2]
    expected = aten.leaky_relu(x, 0.1)
    assert torch.equal(leaky_relu(x, 0.1), expected)
    leaky_relu_(x, 0.1)
    assert torch.equal(x, expected)
