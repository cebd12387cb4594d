"""The backward writes into the incoming gradient's memory when, and only when, nobody else can see it."""

import copy
import threading
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import aten
import leakyrelu_ext
from cases import Observer, assert_same_bits, randn
from leakyrelu_ext import leaky_relu
from leakyrelu_ext._torch_versions import DtypeError

pytestmark = [pytest.mark.native, pytest.mark.cpu_only]
SIZE = 1000


class Reuse:
    """Backwards of ours, and those among them that reused the incoming gradient, since the last look."""

    def __init__(self):
        self.calls()

    def calls(self):
        now = leakyrelu_ext.stats()
        before, self.before = getattr(self, "before", now), now
        return tuple(now[name] - before[name] for name in ("backward_calls", "backward_into_grad_output"))


@pytest.fixture
def reuse():
    return Reuse()


def leaf(*shape, seed=0):
    return randn(*(shape or (SIZE,)), seed=seed).requires_grad_()


def expected_gradient(function, *leaves):
    """What `function` gives with the built-in in our place."""
    doubles = [x.detach().clone().requires_grad_() for x in leaves]
    function(aten.leaky_relu, *doubles).backward()
    return [x.grad for x in doubles]


def check(reuse, reused, function, *leaves):
    """Runs function(leaky_relu, *leaves).backward() and compares the gradients and the number of reuses."""
    function(leaky_relu, *leaves).backward()
    calls, actual = reuse.calls()
    assert calls > 0
    assert actual == reused
    for x, expected in zip(leaves, expected_gradient(function, *leaves), strict=True):
        assert_same_bits(x.grad, expected)


# Where it happens.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_in_a_chain(reuse, dtype):
    x = randn(SIZE, dtype=dtype).requires_grad_()
    check(reuse, 1, lambda act, x: (act(x, 0.1) * 3).square().sum(), x)


def test_several_layers_share_one_buffer(reuse):
    check(reuse, 3, lambda act, x: (act(act(act(x, 0.1), 0.2), 0.3) * 2).square().sum(), leaf())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dense_layouts(reuse, memory_format):
    x = leaf(2, 3, 5, 7).detach().contiguous(memory_format=memory_format).requires_grad_()
    check(reuse, 1, lambda act, x: (act(x, 0.1) * 3).square().sum(), x)
    assert x.grad.is_contiguous(memory_format=memory_format)


def test_mean_makes_a_tensor_of_its_own(reuse):
    check(reuse, 1, lambda act, x: act(x, 0.1).mean(), leaf())


def test_second_of_two_branches_that_get_one_gradient(reuse):
    """Addition hands the same tensor to both: the first must leave it alone, the last may take it."""
    check(reuse, 1, lambda act, a, b: ((act(a, 0.1) + act(b, 0.2)) * 3).square().sum(), leaf(), leaf(seed=1))


def test_in_checkpoints(reuse):
    x = leaf()
    for use_reentrant in (False, True):
        y = checkpoint(lambda t: leaky_relu(t * 2, 0.1) * 3, x, use_reentrant=use_reentrant)
        y.square().sum().backward()
        assert reuse.calls() == (1, 1)
    (expected,) = expected_gradient(lambda act, t: (act(t * 2, 0.1) * 3).square().sum(), x)
    assert_same_bits(x.grad, 2 * expected)


def test_with_saved_tensor_hooks(reuse):
    x = leaf()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
        y = leaky_relu(x, 0.1) * 3
    y.square().sum().backward()
    assert reuse.calls() == (1, 1)
    assert_same_bits(x.grad, expected_gradient(lambda act, t: (act(t, 0.1) * 3).square().sum(), x)[0])


def test_a_second_backward_through_a_retained_graph(reuse):
    x = leaf()
    z = (leaky_relu(x, 0.1) * 3).square().sum()
    z.backward(retain_graph=True)
    first = x.grad.clone()
    z.backward()
    assert reuse.calls() == (2, 2)
    assert_same_bits(x.grad, 2 * first)


def test_threads_that_run_backward_at_once(reuse):
    shared = leaf()
    hidden = shared * 2
    outputs = [(leaky_relu(hidden, 0.1) * 3).square().sum() for _ in range(8)]
    gradients = [None] * len(outputs)

    def run(i):
        (gradients[i],) = torch.autograd.grad(outputs[i], hidden, retain_graph=True)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(outputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (expected,) = expected_gradient(lambda act, x: (act(x, 0.1) * 3).square().sum(), hidden)
    assert reuse.calls()[0] == len(outputs)
    for gradient in gradients:
        assert_same_bits(gradient, expected)
    assert len({gradient.data_ptr() for gradient in gradients}) == len(outputs)


def test_threads_that_share_a_graph_and_its_gradient(reuse):
    """One node, one incoming tensor, many threads: at most one could own it, and all must get the right result."""
    x = leaf()
    y = leaky_relu(x, 0.1)
    grad = randn(SIZE, seed=1)
    before = grad.clone()
    results = [None] * 8

    def run(i):
        for _ in range(50):
            (results[i],) = torch.autograd.grad(y, x, grad, retain_graph=True)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reuse.calls() == (400, 0)
    assert torch.equal(grad, before)
    for result in results:
        assert_same_bits(result, torch.where(x > 0, grad, grad * 0.1))


# Where it must not.


def test_not_a_gradient_from_the_caller(reuse):
    x, grad = leaf(), randn(SIZE, seed=1)
    before = grad.clone()
    leaky_relu(x, 0.1).backward(grad)
    assert reuse.calls() == (1, 0)
    assert torch.equal(grad, before)
    torch.autograd.grad(leaky_relu(x, 0.1), x, torch.ones(SIZE))  # nor one that only the call holds
    assert reuse.calls() == (1, 0)


def test_not_an_expanded_gradient(reuse):
    check(reuse, 0, lambda act, x: act(x, 0.1).sum(), leaf())
    check(reuse, 0, lambda act, x: act(x, 0.1).sum(0).square().sum(), leaf(5, 8))


def test_not_a_view(reuse):
    check(reuse, 0, lambda act, x: (act(x, 0.1).view(25, 40) * 3).square().sum(), leaf())
    check(reuse, 0, lambda act, x: (act(x, 0.1).t() * 3).square().sum(), leaf(25, 40))


def test_not_a_part_of_a_larger_gradient(reuse):
    def parts(act, a, b):
        return torch.cat([act(a, 0.1), act(b, 0.2)]).square().sum()

    check(reuse, 0, parts, leaf(), leaf(seed=1))


def test_not_another_layout(reuse):
    def transposed(act, x):
        y = act(x, 0.1)
        return (y.to(memory_format=torch.channels_last) * 3).square().sum()

    check(reuse, 0, transposed, leaf(2, 3, 5, 7))


def test_not_another_layout_of_its_own_memory(reuse):
    x = leaf(2, 3, 5, 7).detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    check(reuse, 0, lambda act, x: (act(x, 0.1).contiguous() * 3).square().sum(), x)


def test_not_other_strides_of_a_dimension_of_size_one(reuse):
    """They place no element elsewhere, but a result must not have them only where nobody looks on."""
    weight = randn(4, 1, 3, 3)

    def convolution(act, x):
        return F.conv2d(act(x, 0.1).to(memory_format=torch.channels_last), weight).square().sum()

    x = leaf(2, 1, 5, 7)
    (grad,) = torch.autograd.grad(convolution(leaky_relu, x), x)
    (expected,) = torch.autograd.grad(convolution(aten.leaky_relu, x), x)
    assert grad.stride() == expected.stride()
    assert_same_bits(grad, expected)


def test_not_what_a_tracer_refers_to_weakly(reuse):
    def function(x):
        x = x.detach().requires_grad_()
        y = torch.ops.leakyrelu_ext.leaky_relu(x, 0.1)
        return torch.autograd.grad((y * 3).square().sum(), x)[0]

    x = randn(SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(function, x, check_trace=False)
    assert reuse.calls() == (1, 0)
    assert_same_bits(traced(x), function(x))


@pytest.mark.parametrize("keep", [lambda g: g, lambda g: g.detach(), lambda g: g[3:], lambda g: g.untyped_storage()])
def test_not_what_a_hook_keeps(reuse, keep):
    x = leaf()
    y = leaky_relu(x, 0.1)
    kept, copies = [], []
    y.register_hook(lambda grad: kept.append(keep(grad)) or copies.append(copy.copy(grad.tolist())))
    (y * 3).square().sum().backward()
    assert reuse.calls() == (1, 0)
    (kept,), (copied,) = kept, copies
    if isinstance(kept, torch.UntypedStorage):
        kept = torch.empty(0).set_(kept)
    assert kept.tolist() == copied[-kept.numel() :]


def test_not_what_numpy_keeps(reuse):
    pytest.importorskip("numpy")
    x = leaf()
    y = leaky_relu(x, 0.1)
    kept = []
    y.register_hook(lambda grad: kept.extend([grad.numpy(), grad.numpy().copy()]))
    (y * 3).square().sum().backward()
    assert reuse.calls() == (1, 0)
    assert (kept[0] == kept[1]).all()


@pytest.mark.parametrize("hook", [lambda grad: None, lambda grad: grad * 3, lambda grad: weakref.ref(grad) and None])
def test_not_what_python_has_seen(reuse, hook):
    """Its Python object is a reference, and lives as long as the tensor."""
    x = leaf()
    y = leaky_relu(x, 0.1)
    y.register_hook(hook)
    y.mean().backward()
    assert reuse.calls() == (1, 0)


def test_not_memory_that_numpy_lent(reuse):
    numpy = pytest.importorskip("numpy")
    buffer = numpy.linspace(-1, 1, SIZE, dtype=numpy.float32)
    before = buffer.copy()

    class FromBuffer(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return torch.from_numpy(buffer)

    x = leaf()
    FromBuffer.apply(leaky_relu(x, 0.1)).sum().backward()
    assert reuse.calls() == (1, 0)
    assert (buffer == before).all()
    assert_same_bits(x.grad, torch.where(x > 0, torch.from_numpy(before), torch.from_numpy(before) * 0.1))


def test_not_shared_memory(reuse):
    shared = randn(SIZE, seed=1).share_memory_()
    address = shared.data_ptr()
    before = shared.clone()

    class FromShared(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            nonlocal shared
            result, shared = shared, None
            return result

    x = leaf()
    FromShared.apply(leaky_relu(x, 0.1)).sum().backward()
    assert reuse.calls() == (1, 0)
    assert x.grad.data_ptr() != address
    assert_same_bits(x.grad, torch.where(x > 0, before, before * 0.1))


def test_not_a_copy_on_write_gradient(reuse):
    source = randn(SIZE, seed=1)
    before = source.clone()

    class LazyClone(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return torch._lazy_clone(source)

    LazyClone.apply(leaky_relu(leaf(), 0.1)).sum().backward()
    assert reuse.calls() == (1, 0)
    assert torch.equal(source, before)


def test_not_what_retain_grad_keeps():
    x = leaf()
    y = leaky_relu(x, 0.1)
    y.retain_grad()
    (y * 3).square().sum().backward()
    assert_same_bits(y.grad, 2 * 3 * (y.detach() * 3))
    assert y.grad.data_ptr() != x.grad.data_ptr()


def test_not_what_autograd_grad_returns(reuse):
    x = leaf()
    y = leaky_relu(x, 0.1)
    grad_y, grad_x = torch.autograd.grad((y * 3).square().sum(), [y, x])
    assert reuse.calls() == (1, 0)
    assert_same_bits(grad_y, 2 * 3 * (y.detach() * 3))
    assert_same_bits(grad_x, torch.where(x > 0, grad_y, grad_y * 0.1))


def test_not_under_create_graph(reuse):
    x = leaf()
    (grad,) = torch.autograd.grad((leaky_relu(x, 0.1) * 3).square().sum(), x, create_graph=True)
    assert reuse.calls() == (1, 0)
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert_same_bits(second, torch.where(x > 0, 18.0, 18 * torch.tensor(0.1) ** 2).to(second.dtype))


def test_not_what_a_module_hook_sees():
    module = torch.nn.Sequential(leakyrelu_ext.LeakyReLU(0.1))
    seen = []
    module.register_full_backward_hook(lambda _module, grad_input, grad_output: seen.append((grad_input[0], grad_output[0])))
    x = leaf()
    y = module(x * 1)
    (y * 3).square().sum().backward()
    ((grad_input, grad_output),) = seen
    assert_same_bits(grad_output, 2 * 3 * (y.detach() * 3))
    assert_same_bits(grad_input, torch.where(x > 0, grad_output, grad_output * 0.1))


def test_not_under_a_mode_nor_a_transform(reuse):
    x = leaf()
    z = (leaky_relu(x, 0.1) * 3).square().sum()
    with Observer() as observer:
        z.backward()
    assert reuse.calls() == (0, 0)
    assert "aten.leaky_relu_backward.default" in observer.seen
    torch.func.grad(lambda t: (leaky_relu(t, 0.1) * 3).square().sum())(x.detach())
    assert reuse.calls() == (0, 0)


def test_not_fake_tensors(reuse):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        x = mode.from_tensor(randn(SIZE)).requires_grad_()
        (leaky_relu(x, 0.1) * 3).square().sum().backward()
    assert x.grad.shape == (SIZE,)
    assert reuse.calls() == (0, 0)


def test_not_meta_tensors(reuse):
    x = torch.empty(SIZE, device="meta", requires_grad=True)
    (torch.ops.leakyrelu_ext.leaky_relu(x, 0.1) * 3).square().sum().backward()
    assert x.grad.is_meta
    assert reuse.calls() == (0, 0)


def test_not_a_gradient_with_a_tangent(reuse):
    """Forward over reverse: the tangent of the gradient must not be lost."""
    import torch.autograd.forward_ad as forward_ad

    x, tangent = randn(SIZE, dtype=torch.float64), randn(SIZE, dtype=torch.float64, seed=1)
    results = []
    for function in (leaky_relu, aten.leaky_relu):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.clone().requires_grad_(), tangent)
            (grad,) = torch.autograd.grad((function(dual, 0.1) * 3).square().sum(), dual)
            results.append(forward_ad.unpack_dual(grad))
    assert_same_bits(results[0].primal, results[1].primal)
    assert_same_bits(results[0].tangent, results[1].tangent)


def test_not_a_subclass(reuse):
    class Tagged(torch.Tensor):
        pass

    x = leaf()
    y = leaky_relu(x, 0.1)
    y.register_hook(lambda grad: (grad * 3).as_subclass(Tagged))
    y.sum().backward()
    assert reuse.calls()[0] == 1
    assert_same_bits(torch.Tensor(x.grad), torch.where(x > 0, 3.0, torch.tensor(3.0) * 0.1))


@pytest.mark.usefixtures("process_group")
def test_the_buffers_of_distributed_data_parallel():
    """Gradients that are views into DDP's buckets, over two steps of a model whose parameter is the activation's input."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(randn(SIZE))
            self.other = torch.nn.Parameter(randn(SIZE, seed=1))

        def forward(self, act, x):
            return (act(self.weight, 0.1) * 3 * self.other * x).square().sum()

    models = [Model(), Model()]
    for model, act in zip(models, (leaky_relu, aten.leaky_relu), strict=True):
        parallel = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        optimizer = torch.optim.SGD(parallel.parameters(), lr=1e-3)
        for step in range(3):
            optimizer.zero_grad(set_to_none=step == 1)
            parallel(act, randn(SIZE, seed=2)).backward()
            optimizer.step()
    assert_same_bits(models[0].weight, models[1].weight)
    assert_same_bits(models[0].weight.grad, models[1].weight.grad)
    assert models[0].weight.grad._base is not None or models[0].weight.grad.untyped_storage().nbytes() > SIZE * 4


# The op itself.


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_op_in_place(memory_format):
    x = randn(2, 3, 5, 7).contiguous(memory_format=memory_format)
    grad = randn(2, 3, 5, 7, seed=1).contiguous(memory_format=memory_format)
    _, mask = torch.ops.leakyrelu_ext.leaky_relu_forward(x, 0.1)
    torch.library.opcheck(torch.ops.leakyrelu_ext.leaky_relu_backward_.default, (grad.clone(), mask, 0.1))
    expected = torch.where(x > 0, grad, grad * 0.1)
    version = grad._version
    torch.ops.leakyrelu_ext.leaky_relu_backward_(grad, mask, 0.1)
    assert grad._version == version + 1
    assert_same_bits(grad, expected)


def test_the_op_in_place_compiled_functionalized_and_mapped():
    x, grad = randn(5, 33), randn(5, 33, seed=1)
    _, mask = torch.ops.leakyrelu_ext.leaky_relu_forward(x, 0.1)
    expected = torch.where(x > 0, grad, grad * 0.1)

    def function(grad, mask):
        grad = grad.clone()
        torch.ops.leakyrelu_ext.leaky_relu_backward_(grad, mask, 0.1)
        return grad

    for backend in ("aot_eager", "inductor"):
        assert_same_bits(torch.compile(function, fullgraph=True, backend=backend)(grad, mask), expected)
    assert_same_bits(torch.func.functionalize(function)(grad, mask), expected)
    _, masks = torch.vmap(torch.ops.leakyrelu_ext.leaky_relu_forward, in_dims=(0, None))(x, 0.1)
    assert_same_bits(torch.vmap(function)(grad, masks), expected)
    negated = torch._neg_view(grad.neg())
    torch.ops.leakyrelu_ext.leaky_relu_backward_(negated, mask, 0.1)
    assert_same_bits(negated.resolve_neg(), expected)


def test_the_op_in_place_refuses_what_it_cannot_do():
    op = torch.ops.leakyrelu_ext.leaky_relu_backward_
    mask = torch.zeros(1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match=r"leaky_relu_backward_.*argument 'grad_output' must be dense"):
        op(randn(8, 2)[:, 0], mask, 0.1)
    with pytest.raises(RuntimeError, match=r"leaky_relu_backward_.*argument 'mask'"):
        op(randn(9), mask, 0.1)
    with pytest.raises(DtypeError, match=r"leaky_relu_backward_.*argument 'grad_output'"):
        op(torch.ones(8, dtype=torch.int32), mask, 0.1)
    for grad in (randn(8).requires_grad_(), randn(8).requires_grad_() * 1):
        before = grad.detach().clone()
        with pytest.raises(RuntimeError, match=r"leaky_relu_backward_.*argument 'grad_output' must not require grad"):
            op(grad, mask, 0.1)
        assert torch.equal(grad, before)
    with torch.inference_mode():
        inference = randn(8)
    with pytest.raises(RuntimeError, match="inference tensor"):
        op(inference, mask, 0.1)
