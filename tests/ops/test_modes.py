"""What is saved for the backward, and what comes out, does not depend on the modes that look on."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from cases import Observer, assert_same_bits, keeps_a_mask, randn
from leakyrelu_ext import BiasLeakyReLU, LeakyReLU, bias_leaky_relu, install, leaky_relu
from releases import needs_install

MODES = {"Observer": Observer, "FlopCounterMode": lambda: FlopCounterMode(display=False)}
every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)

CALLS = {
    "leaky_relu": lambda x: leaky_relu(x, 0.2),
    "leaky_relu, in place": lambda x: leaky_relu(x * 1, -0.2, inplace=True),
    "LeakyReLU": LeakyReLU(0.2),
    "op": lambda x: torch.ops.leakyrelu_ext.leaky_relu(x, 0.2),
    "bias_leaky_relu": lambda x: bias_leaky_relu(x, x[0], 0.2, residual=x, clamp=1.0),
    "bias_leaky_relu, in place": lambda x: bias_leaky_relu(x * 1, x[0], 0.2, residual=x, inplace=True),
    "BiasLeakyReLU with dropout": BiasLeakyReLU(16, dropout_p=0.5),
    "F.leaky_relu, installed": pytest.param(lambda x: F.leaky_relu(x, 0.2), marks=needs_install),
    "F.leaky_relu in place, installed": pytest.param(lambda x: F.leaky_relu(x * 1, 0.2, inplace=True), marks=needs_install),
    "nn.LeakyReLU, installed": pytest.param(nn.LeakyReLU(0.2), marks=needs_install),
}


@pytest.fixture
def _installed(request):
    if "installed" in request.node.name:
        with install():
            yield
    else:
        yield


every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
pytestmark = [pytest.mark.native, pytest.mark.usefixtures("_installed")]


def saved_by(call, x):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append((t.dtype, tuple(t.shape))) or t, lambda t: t):
        torch.manual_seed(0)
        output = call(x)
    return saved, output


@every_mode
@every_call
def test_the_same_tensors_are_saved_and_come_out(call, mode):
    x = randn(16, 16).requires_grad_()
    saved, expected = saved_by(call, x)
    with mode():
        saved_under_it, output = saved_by(call, x)
    assert saved_under_it == saved
    assert torch.uint8 in dict(saved)
    assert_same_bits(output, expected)
    (expected_grad,) = torch.autograd.grad(expected.sum(), x)
    with mode():
        (grad,) = torch.autograd.grad(output.sum(), x)
    assert_same_bits(grad, expected_grad)


@every_mode
@every_call
@pytest.mark.parametrize("around", ["forward", "backward"])
def test_checkpointing_with_a_mode_around_one_half(around, call, mode):
    x = randn(16, 16).requires_grad_()
    torch.manual_seed(0)
    (expected,) = torch.autograd.grad(call(x * 2).sum(), x)
    torch.manual_seed(0)
    if around == "forward":
        with mode():
            output = checkpoint(lambda t: call(t * 2), x, use_reentrant=False)
        output.sum().backward()
    else:
        output = checkpoint(lambda t: call(t * 2), x, use_reentrant=False)
        with mode():
            output.sum().backward()
    assert_same_bits(x.grad, expected)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", ["ours", pytest.param("installed", marks=needs_install)])
def test_modes_see_atens_op_once(name, grad, inplace):
    function = leaky_relu if name == "ours" else F.leaky_relu
    x = randn(20).requires_grad_(grad)
    with Observer() as mode:
        function(x * 1, 0.1, inplace=inplace)
    op = "aten.leaky_relu_.default" if inplace else "aten.leaky_relu.default"
    assert mode.seen == ["aten.mul.Tensor", op]


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", ["ours", pytest.param("installed", marks=needs_install)])
def test_modes_see_atens_op_in_the_backward(name, create_graph):
    function = leaky_relu if name == "ours" else F.leaky_relu
    x, grad = randn(20).requires_grad_(), randn(20, seed=1).requires_grad_(create_graph)
    y = function(x, 0.1)
    (expected,) = torch.autograd.grad(y, x, grad, retain_graph=True, create_graph=create_graph)
    with Observer() as mode:
        (actual,) = torch.autograd.grad(y, x, grad, create_graph=create_graph)
    assert mode.seen == ["aten.leaky_relu_backward.default"]
    assert_same_bits(actual, expected)
    if create_graph:
        assert keeps_a_mask(actual)
        seconds = [torch.autograd.grad(first.square().sum(), grad)[0] for first in (actual, expected)]
        assert_same_bits(*seconds)


def test_what_a_mode_returns_is_what_comes_out():
    class Doubling(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            output = op(*args, **(kwargs or {}))
            return output * 2 if op is torch.ops.aten.leaky_relu.default else output

    x = randn(20).requires_grad_()
    with Doubling():
        y = leaky_relu(x, 0.1)
    assert_same_bits(y, leaky_relu(x, 0.1) * 2)
    assert keeps_a_mask(y)


@every_call
@pytest.mark.parametrize("policy", [CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE])
def test_selective_checkpointing(policy, call, request):
    if "in place" in request.node.callspec.id:
        pytest.skip("PyTorch refuses to cache what is overwritten")
    x = randn(16, 16).requires_grad_()
    torch.manual_seed(0)
    (expected,) = torch.autograd.grad(call(x * 2).sum(), x)
    torch.manual_seed(0)

    def decide(context, op, *args, **kwargs):
        return policy if "leaky_relu" in str(op) else CheckpointPolicy.PREFER_RECOMPUTE

    output = checkpoint(
        lambda t: call(t * 2), x, use_reentrant=False, context_fn=lambda: create_selective_checkpoint_contexts(decide)
    )
    output.sum().backward()
    assert_same_bits(x.grad, expected)
