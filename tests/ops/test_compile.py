"""Under torch.compile the functional is the built-in, and the ops called directly stay opaque; both right."""

import math

import pytest
import torch
from torch import nn
from torch._dynamo import compiled_autograd
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

import aten
import cases
import leakyrelu_ext
from cases import assert_same_bits, keeps_a_mask, randn
from leakyrelu_ext import LeakyReLU, leaky_relu

BACKENDS = ["eager", "aot_eager", "inductor"]
FUNCTIONS = {
    "functional": leaky_relu,
    "in place": lambda x, slope: leaky_relu(x.mul(1), slope, inplace=True),
    "module": lambda x, slope: LeakyReLU(slope)(x),
}
OPS = {
    "leaky_relu": lambda x, slope: torch.ops.leakyrelu_ext.leaky_relu(x, slope),
    "leaky_relu, transposed": lambda x, slope: torch.ops.leakyrelu_ext.leaky_relu(x.t(), slope).t(),
    "leaky_relu_forward": lambda x, slope: torch.ops.leakyrelu_ext.leaky_relu_forward(x, slope)[0],
    "leaky_relu_": lambda x, slope: torch.ops.leakyrelu_ext.leaky_relu_(x.mul(1), slope),
    "leaky_relu_ on the argument": lambda x, slope: torch.ops.leakyrelu_ext.leaky_relu_(x, slope),
}


# shape, slope, transposed
CALLS_OF_ONE_CACHE = (((5, 7), 0.1, False), ((6, 3), 0.1, True), ((6, 3), 0.3, False), ((6, 3), 0.3, True))


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_compiled_matches_the_builtin(function, slope, backend, dynamic):
    compiled = torch.compile(function, fullgraph=True, backend=backend, dynamic=dynamic)
    for shape in ((5, 7), (5, 7), (9, 11)):
        x, grad = randn(*shape).requires_grad_(), randn(*shape, seed=1)
        expected = aten.leaky_relu(x, slope)
        assert_same_bits(compiled(x.detach().clone(), slope), expected)
        actual = compiled(x * 1, slope)
        assert_same_bits(actual, expected)
        (actual_grad,) = torch.autograd.grad(actual, x, grad)
        assert_same_bits(actual_grad, torch.where(x > 0, grad, grad * slope))


SLOPES = (0.2, -0.5, math.nan)
# Inductor takes seconds for each, in a C++ compiler: every function and every slope at least once.
INDUCTOR = [("functional", math.nan), ("functional", 0.2), ("in place", -0.5), ("module", -0.5)]


@pytest.mark.feature("torch.compile", "functional and module, fullgraph, dynamic and static, any slope")
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize(
    ("function", "slope", "backend"),
    [(function, slope, backend) for backend in BACKENDS[:2] for slope in SLOPES for function in FUNCTIONS]
    + [(function, slope, "inductor") for function, slope in INDUCTOR],
)
def test_functional_and_module(function, slope, backend, dynamic, pytestconfig):
    if pytestconfig.getoption("--installed") and function == "in place" and not slope >= 0:
        pytest.skip("compiled, PyTorch's own refuses a negative slope in place")
    assert_compiled_matches_the_builtin(FUNCTIONS[function], slope, backend, dynamic)


@pytest.mark.feature("torch.compile", "our ops called directly: opaque, right, dynamic")
@pytest.mark.native
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", OPS.values(), ids=OPS)
def test_ops_called_directly(function, backend, dynamic):
    assert_compiled_matches_the_builtin(function, -0.5, backend, dynamic)


@pytest.mark.native
@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_op_in_place_returns_its_argument(requires_grad):
    compiled = torch.compile(torch.ops.leakyrelu_ext.leaky_relu_, fullgraph=True, backend="aot_eager")
    x = randn(5, 7).requires_grad_(requires_grad)
    hidden = x.clone()
    assert compiled(hidden, -0.5) is hidden
    assert_same_bits(hidden, aten.leaky_relu(x, -0.5))


@pytest.mark.native
def test_ops_under_vmap_with_changing_shapes():
    def function(x, grad):
        output, mask = torch.ops.leakyrelu_ext.leaky_relu_forward(x, 0.2)
        return torch.ops.leakyrelu_ext.leaky_relu_backward(grad + output, mask, 0.2, None)

    compiled = torch.compile(torch.vmap(function), fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((3, 5), (4, 11)):
        x, grad = randn(*shape), randn(*shape, seed=1)
        total = grad + aten.leaky_relu(x, 0.2)
        assert_same_bits(compiled(x, grad), torch.where(x > 0, total, total * 0.2))


@pytest.mark.native
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_op_in_place_on_a_strided_view(dynamic):
    def function(x):
        hidden = x * 2
        torch.ops.leakyrelu_ext.leaky_relu_(hidden[:, ::2], -0.5)
        return hidden * 1

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for shape in ((6, 8), (7, 10)):
        x, grad = randn(*shape).requires_grad_(), randn(*shape, seed=1)
        actual, expected = compiled(x), function(x)
        assert_same_bits(actual, expected)
        assert_same_bits(torch.autograd.grad(actual, x, grad)[0], torch.autograd.grad(expected, x, grad)[0])


@pytest.mark.feature("torch.compile", "the captured graph is the built-in's")
def test_the_graph_is_the_builtins():
    def graph(module):
        counter = CompileCounterWithBackend("aot_eager")
        torch.compile(module, fullgraph=True, backend=counter)(randn(3, 4))
        return [str(node.target) for node in counter.graphs[0].graph.nodes if node.op.startswith("call")]

    assert graph(LeakyReLU(0.2)) == graph(nn.LeakyReLU(0.2))
    assert graph(LeakyReLU(0.2, inplace=True)) == graph(nn.LeakyReLU(0.2, inplace=True))


def test_no_recompilation_when_only_data_changes():
    counter = CompileCounter()
    compiled = torch.compile(LeakyReLU(0.2), fullgraph=True, backend=counter)
    for seed in range(5):
        compiled(randn(3, 4, seed=seed))
    assert counter.frame_count == 1


def test_bfloat16_under_autocast():
    model, builtin = (nn.Sequential(nn.Linear(8, 8), activation(0.2)) for activation in (LeakyReLU, nn.LeakyReLU))
    builtin.load_state_dict(model.state_dict())
    x = randn(4, 8)
    with torch.autocast(cases.DEVICE.type, dtype=torch.bfloat16):
        actual, expected = (torch.compile(m, fullgraph=True)(x) for m in (model, builtin))
    assert actual.dtype == torch.bfloat16
    assert_same_bits(actual, expected)


@pytest.mark.native
@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("inplace", [False, True])
def test_compiled_autograd(inplace, backend):
    """One cache, many calls: what a compiled backward depends on must be part of its key."""
    with compiled_autograd._enable(torch.compile(backend=backend, dynamic=True)):
        for shape, slope, transposed in (
            ((5, 7), 0.1, False),
            ((6, 3), 0.1, True),
            ((6, 3), 0.3, False),
            ((6, 3), 0.3, True),
        ):
            x, grad = randn(*shape).requires_grad_(), randn(*shape, seed=1)
            hidden = (x * 2).t() if transposed else x * 2
            y = leaky_relu(hidden, slope, inplace=inplace)
            assert inplace or keeps_a_mask(y)
            y.backward(grad.t() if transposed else grad)
            factor = torch.where(x > 0, 2.0, slope * 2)
            torch.testing.assert_close(x.grad, grad * factor)


@pytest.mark.parametrize("strict", [True, False])
def test_export_holds_the_builtin(strict):
    model = nn.Sequential(nn.Linear(3, 3), LeakyReLU(0.1))
    x = randn(2, 3)
    exported = torch.export.export(model, (x,), strict=strict)
    assert "aten.leaky_relu.default" in [str(node.target) for node in exported.graph.nodes]
    assert "leakyrelu_ext" not in str(exported.graph)
    assert_same_bits(exported.module()(x), model(x))


@pytest.fixture
def compiled_to_the_op():
    leakyrelu_ext.set_compile_target("op")
    yield
    leakyrelu_ext.set_compile_target("builtin")


@pytest.mark.native
@pytest.mark.own_name
@pytest.mark.feature("torch.compile", "set_compile_target('op')")
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_compiled_to_the_op(function, backend, dynamic, compiled_to_the_op):
    assert_compiled_matches_the_builtin(function, -0.5, backend, dynamic)


@pytest.mark.native
@pytest.mark.own_name
def test_the_compile_target_may_be_changed():
    counter = CompileCounterWithBackend("aot_eager")
    model, x = nn.Sequential(LeakyReLU(0.2)), randn(3, 4)
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    try:
        for target in ("builtin", "op", "builtin"):
            leakyrelu_ext.set_compile_target(target)
            assert_same_bits(compiled(x), aten.leaky_relu(x, 0.2))
    finally:
        leakyrelu_ext.set_compile_target("builtin")
    graphs = [str(graph.graph) for graph in counter.graphs]
    assert ["leakyrelu_ext" in graph for graph in graphs] == [False, True]


@pytest.mark.native
@pytest.mark.own_name
def test_one_bit_per_element_is_saved_when_compiled_to_the_op(compiled_to_the_op):
    saved = []
    compiled = torch.compile(LeakyReLU(0.2), fullgraph=True, backend="aot_eager")
    x = randn(64, 64).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
        compiled(x)
    assert sum(saved) == 64 * 64 // 8


@pytest.mark.native
@pytest.mark.parametrize("strict", [True, False])
def test_export_holds_the_builtin_whatever_the_target(strict, compiled_to_the_op):
    exported = torch.export.export(nn.Sequential(LeakyReLU(0.1)), (randn(2, 3),), strict=strict)
    assert "leakyrelu_ext" not in str(exported.graph)


@pytest.mark.parametrize("target", ["", "inductor", None, True])
def test_unknown_compile_targets(target):
    with pytest.raises(ValueError, match="argument 'target' must be 'builtin' or 'op', got "):
        leakyrelu_ext.set_compile_target(target)


def test_import_does_not_import_the_compiler():
    """torch._dynamo takes a second to import; only those who compile should pay for it."""
    import subprocess
    import sys

    code = "import sys, leakyrelu_ext; leakyrelu_ext.LeakyReLU(); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert leakyrelu_ext.__version__
