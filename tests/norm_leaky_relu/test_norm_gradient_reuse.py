"""The backward writes the input's gradient into the incoming one when, and only when, nobody else can see that. The rules
for who may see it: tests/ops/test_gradient_reuse.py."""

import pytest
import torch

import leakyrelu_ext
from cases import DTYPES, assert_same_bits, randn
from norm_formula import KINDS, MEMORY_FORMATS, operands, ours

pytestmark = [pytest.mark.native, pytest.mark.cpu_only]
SHAPE = (3, 36, 5, 7)


def reuses():
    return leakyrelu_ext.stats()["backward_into_grad_output"]


def gradients(kind, given, training=True, keep=False, wanted=None, after=lambda y: y * 3):
    """Of all operands, and whether the incoming gradient became the input's. `keep`: a hook holds it."""
    leaves = given.leaves()
    y = ours(kind, leaves, training)
    held = []
    if keep:
        y.register_hook(held.append)
    before = reuses()
    inputs = {name: t for name, t in leaves.differentiable().items() if wanted is None or name in wanted}
    found = torch.autograd.grad(after(y).square().sum(), list(inputs.values()))
    return dict(zip(inputs, found, strict=True)), reuses() - before


@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits(dtype, kind, layout, residual):
    given = operands(kind, SHAPE, dtype, layout, residual)
    for training in (True, False) if kind != "group" else (True,):
        written, reused = gradients(kind, given, training)
        fresh, not_reused = gradients(kind, given, training, keep=True)
        assert (reused, not_reused) == (1, 0)
        for name, gradient in fresh.items():
            assert_same_bits(written[name], gradient)
            assert written[name].stride() == gradient.stride()


@pytest.mark.parametrize("kind", KINDS)
def test_large_tensors(kind):
    """Several lots, and stores that bypass the caches."""
    given = operands(kind, (2, 4, 300, 701))
    written, reused = gradients(kind, given)
    fresh, _ = gradients(kind, given, keep=True)
    assert reused == 1
    for name, gradient in fresh.items():
        assert_same_bits(written[name], gradient)


def test_only_where_the_input_has_a_gradient():
    given = operands("batch", SHAPE, residual=True)
    assert gradients("batch", given, wanted=["input"])[1] == 1
    # The residual's gradient is not the input's: it gets memory of its own.
    assert gradients("batch", given, wanted=["weight", "bias", "residual"])[1] == 0


def test_not_where_the_gradient_lies_otherwise():
    given = operands("instance", SHAPE)
    found, reused = gradients("instance", given, after=lambda y: y.contiguous(memory_format=torch.channels_last) * 3)
    assert reused == 0
    assert found["input"].stride() == given.input.stride()
    # As sum()'s: one number, expanded.
    leaf = given.input.clone().requires_grad_()
    before = reuses()
    ours("instance", given._replace(input=leaf)).sum().backward()
    assert reuses() == before


def test_a_saved_input_is_never_overwritten():
    """Twice through one graph: the second time finds all that the first one did."""
    leaf = randn(*SHAPE).requires_grad_()
    y = (leakyrelu_ext.instance_norm_leaky_relu(leaf * 2) * 3).square().sum()
    (first,) = torch.autograd.grad(y, leaf, retain_graph=True)
    (second,) = torch.autograd.grad(y, leaf)
    assert_same_bits(first, second)


@pytest.mark.parametrize("create_graph", [False, True])
def test_not_while_a_graph_is_recorded(create_graph):
    leaf = randn(*SHAPE, dtype=torch.float64).requires_grad_()
    before = reuses()
    torch.autograd.grad(
        (ours("group", operands("group", SHAPE, torch.float64)._replace(input=leaf)) * 3).square().sum(),
        leaf,
        create_graph=create_graph,
    )
    assert reuses() - before == (0 if create_graph else 1)


def test_a_saved_input_that_a_hook_brings_back_in_another_order():
    """Its gradient is in the order that the input was in."""
    given = operands("batch", SHAPE)

    def transposed(tensor):
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

    expected, _ = gradients("batch", given)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, transposed):
        leaves = given.leaves()
        y = ours("batch", leaves)
    (actual,) = torch.autograd.grad((y * 3).square().sum(), leaves.input)
    assert_same_bits(actual, expected["input"])


# The op itself.


def call_of_op(grad_output, x):
    ops = torch.ops.leakyrelu_ext
    weight = randn(SHAPE[1], seed=1)
    _, statistics, mask = ops.norm_leaky_relu_forward(x, weight, None, None, None, None, 2, True, 0.1, 1e-5, 0.1, False)
    return grad_output, x, statistics, weight, mask, 2, True, 1e-5, 0.1


@pytest.mark.parametrize("same_order", [True, False])
@pytest.mark.parametrize("layout", MEMORY_FORMATS)
def test_the_op_in_place(layout, same_order):
    x = operands("group", SHAPE, layout=layout).input
    grad = torch.empty_like(x).copy_(randn(*SHAPE, seed=1))
    if not same_order:
        grad = grad.transpose(2, 3).contiguous().transpose(2, 3)
    op = torch.ops.leakyrelu_ext.norm_leaky_relu_backward_
    arguments = call_of_op(grad, x)
    expected = torch.ops.leakyrelu_ext.norm_leaky_relu_backward(*arguments, [True] * 4)
    torch.library.opcheck(op.default, (grad.clone(), *arguments[1:], [True, False, True]))
    version = grad._version
    others = op(*arguments, [True] * 3)
    assert grad._version > version
    for actual, wanted in zip((grad, *others), expected, strict=True):
        assert_same_bits(actual, wanted)


def test_the_op_in_place_compiled_functionalized_and_negated():
    x, grad = randn(*SHAPE), randn(*SHAPE, seed=1)
    _, *rest = call_of_op(grad, x)

    def function(grad):
        grad = grad.clone()
        others = torch.ops.leakyrelu_ext.norm_leaky_relu_backward_(grad, *rest, [True] * 3)
        return grad, *others

    expected = function(grad)
    negated = torch._neg_view(grad.neg())
    found = [torch.func.functionalize(function)(grad), function(negated)]
    found += [torch.compile(function, fullgraph=True, backend=backend)(grad) for backend in ("aot_eager", "inductor")]
    for results in found:
        for actual, wanted in zip(results, expected, strict=True):
            assert_same_bits(actual.resolve_neg(), wanted)


def test_the_op_in_place_refuses_what_it_cannot_do():
    x = randn(*SHAPE)
    grad, *rest = call_of_op(randn(*SHAPE, seed=1), x)
    op = torch.ops.leakyrelu_ext.norm_leaky_relu_backward_
    with pytest.raises(RuntimeError, match=r"norm_leaky_relu_backward_\(\): argument 'grad_output' must be of the shape"):
        op(grad[:1], *rest, [True] * 3)
    with pytest.raises(RuntimeError, match=r"norm_leaky_relu_backward_.*argument 'grad_output' must not require grad"):
        op(grad.clone().requires_grad_(), *rest, [True] * 3)
    memory = randn(x.numel() + 16)
    overlapping = memory[16:].view(SHAPE)
    for of in (memory[: x.numel()].view(SHAPE), memory[: rest[1].numel()]):
        arguments = [of, *rest[1:]] if of.dim() == 4 else [rest[0], of, *rest[2:]]
        with pytest.raises(RuntimeError, match="unsupported operation: some elements"):
            op(overlapping, *arguments, [True] * 3)
    with torch.inference_mode():
        inference = grad.clone()
    with pytest.raises(RuntimeError, match="inference"):
        op(inference, *rest, [True] * 3)
