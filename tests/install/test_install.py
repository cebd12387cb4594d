"""install() puts our kernels under PyTorch's own op, uninstall() takes them away, and nobody else notices."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import leakyrelu_ext
from aten import uninstalled
from cases import LAYOUTS, WRITABLE, assert_same_bits, keeps_a_mask, randn
from leakyrelu_ext import build_info, install, stats, uninstall
from leakyrelu_ext._torch_versions import RELEASE
from releases import needs_install

pytestmark = [pytest.mark.native, pytest.mark.cpu_only]

OPS = ["aten::leaky_relu", "aten::leaky_relu_"]


@pytest.fixture(autouse=True)
def _not_installed():
    """Whatever a test does, it begins and ends without; with --installed the others have it again."""
    with uninstalled():
        yield
        uninstall()


def tables():
    return [torch._C._dispatch_dump_table(op) for op in OPS]


def saved_bytes(function, x):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
        function(x)
    return saved


def installed_calls(function):
    before = stats()["installed_calls"]
    result = function()
    return stats()["installed_calls"] - before, result


@pytest.mark.skipif(RELEASE >= (2, 9), reason="install() works here")
def test_older_releases_are_refused_in_one_sentence():
    with pytest.raises(RuntimeError, match=r"install\(\): needs torch >= 2\.9, and this is torch 2\.\d"):
        install()
    uninstall()
    assert build_info()["installed"] == []


@needs_install
def test_what_it_says_of_itself(caplog):
    with caplog.at_level(logging.INFO, logger="leakyrelu_ext"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        install()
        install()
        assert build_info()["installed"] == OPS
        uninstall()
        uninstall()
    assert build_info()["installed"] == []
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "installed under aten::leaky_relu",
        "uninstalled: aten::leaky_relu is PyTorch's own again",
    ]
    assert not caught


@needs_install
def test_no_warning_reaches_the_terminal_and_the_one_there_is_stays_for_others():
    install_it = "leakyrelu_ext.install(); print('installed')"
    override = "torch.library.Library('aten', 'IMPL').impl('leaky_relu', lambda x, s=0.01: x, 'CPU')"
    warned = []
    for lines in (["import torch, leakyrelu_ext", install_it, override], ["import torch", override]):
        done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
        warned.append(done.stderr.count("Overriding a previously registered kernel"))
        if len(lines) == 3:
            assert done.stdout == "installed\n"
            assert "installed.cpp" not in done.stderr.split("new kernel")[-1]
    assert warned[0] == warned[1] <= 1  # 2.15 has none


@needs_install
def test_as_a_context_manager():
    with install():
        assert build_info()["installed"]
        with install():
            pass
        assert build_info()["installed"]  # the outer one's
    assert not build_info()["installed"]
    with pytest.raises(ZeroDivisionError), install():
        raise ZeroDivisionError
    assert not build_info()["installed"]


@needs_install
def test_afterwards_all_is_pytorchs_own_again():
    x = randn(1000).requires_grad_()
    before = tables()
    assert saved_bytes(F.leaky_relu, x) == [4000]
    with install():
        assert tables() != before
        assert saved_bytes(F.leaky_relu, x) == [125]
        recorded = F.leaky_relu(x, 0.1)
    assert tables() == before
    assert saved_bytes(F.leaky_relu, x) == [4000]
    calls, y = installed_calls(lambda: F.leaky_relu(x))
    assert calls == 0
    assert not keeps_a_mask(y)
    (grad,) = torch.autograd.grad(recorded.sum(), x)  # what was recorded in between has its backward
    assert_same_bits(grad, torch.where(x > 0, 1.0, 0.1))


SPELLINGS = {
    "nn.LeakyReLU": lambda x: nn.LeakyReLU(0.2)(x),
    "nn.LeakyReLU in place": lambda x: nn.LeakyReLU(0.2, inplace=True)(x * 1),
    "F.leaky_relu": lambda x: F.leaky_relu(x, negative_slope=0.2),
    "F.leaky_relu in place": lambda x: F.leaky_relu(x * 1, 0.2, inplace=True),
    "F.leaky_relu_": lambda x: F.leaky_relu_(x * 1, 0.2),
    "torch.ops.aten": lambda x: torch.ops.aten.leaky_relu(x, 0.2),
    "torch.ops.aten.default": lambda x: torch.ops.aten.leaky_relu_.default(x * 1, 0.2),
    "an int as slope": lambda x: F.leaky_relu(x, 2),
    "scripted": torch.jit.script(nn.LeakyReLU(0.2)),
    "traced": torch.jit.trace(nn.LeakyReLU(0.2), torch.ones(3)),
}


@needs_install
@pytest.mark.parametrize("call", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_the_call(call):
    x = randn(100).requires_grad_()
    expected = call(x)
    with install():
        calls, y = installed_calls(lambda: call(x))
        assert calls == 1
        assert keeps_a_mask(y)
        with torch.no_grad():
            assert installed_calls(lambda: call(x))[0] == 1
        with torch.inference_mode():
            assert installed_calls(lambda: call(randn(10)))[0] == 1
    assert_same_bits(y, expected)
    grads = [torch.autograd.grad(output, x, x.detach())[0] for output in (y, expected)]
    assert_same_bits(*grads)


@needs_install
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_and_strides_of_every_layout(layout, dtype):
    x = LAYOUTS[layout](dtype)
    expected = F.leaky_relu(x, 0.3)
    with install():
        calls, y = installed_calls(lambda: F.leaky_relu(x, 0.3))
        assert calls == 1
        assert_same_bits(y, expected)
        assert y.stride() == expected.stride()
        if layout in WRITABLE:
            assert_same_bits(F.leaky_relu(x, 0.3, inplace=True), expected)


@needs_install
def test_names_in_the_graph():
    x = randn(10).requires_grad_()

    def names():
        nodes = F.leaky_relu(x, 0.3).grad_fn, F.leaky_relu_(x * 1, 0.3).grad_fn
        return [(node.name(), type(node).__name__, node._saved_negative_slope, len(node.next_functions)) for node in nodes]

    expected = names()
    assert [name for name, *_ in expected] == ["LeakyReluBackward0", "LeakyReluBackward1"]
    with install():
        assert names() == expected
        y = F.leaky_relu(x, 0.3)
        assert isinstance(y.grad_fn, torch.autograd.graph.Node)
        assert y.grad_fn._saved_mask.shape == (2,)
    assert leakyrelu_ext.functional.leaky_relu(x).grad_fn.name() == "LeakyReLUBackward"
    y.sum().backward()
    with pytest.raises(RuntimeError, match="after they have already been freed"):
        _ = y.grad_fn._saved_mask


def outcome(function):
    try:
        result = function()
    except Exception as error:
        return type(error), str(error)
    return type(result), result.dtype, result.device, tuple(result.shape), getattr(result, "names", None)


OTHERS = {
    "int64": lambda: F.leaky_relu(torch.arange(-3, 3)),
    "bool": lambda: F.leaky_relu(torch.ones(3, dtype=torch.bool)),
    "complex64": lambda: F.leaky_relu(torch.ones(3, dtype=torch.complex64)),
    "float8": lambda: F.leaky_relu(torch.ones(3).to(torch.float8_e4m3fn)),
    "complex slope": lambda: F.leaky_relu(torch.ones(3), 1j),
    "slope that overflows": lambda: F.leaky_relu(torch.ones(3, dtype=torch.float16), 1e300),
    "text": lambda: F.leaky_relu("text"),
    "slope that is text": lambda: F.leaky_relu(torch.ones(3), "0.1"),
    "meta": lambda: F.leaky_relu(torch.empty(3, device="meta")),
    "named": lambda: F.leaky_relu(torch.ones(2, 3, names=("rows", "columns"))),
    "sparse": lambda: F.leaky_relu(torch.eye(3).to_sparse()),
    "csr": lambda: F.leaky_relu(torch.eye(3).to_sparse_csr()),
    "nested": lambda: F.leaky_relu(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
    "mkldnn": lambda: F.leaky_relu(torch.ones(2, 3).to_mkldnn()),
    "quantized": lambda: F.leaky_relu(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
    "negated": lambda: F.leaky_relu(torch.ones(3, dtype=torch.complex64).conj().imag),
    "zero tensor": lambda: F.leaky_relu(torch._efficientzerotensor(3)),
    "out": lambda: torch._C._nn.leaky_relu(torch.ones(3), 0.1, out=torch.empty(3)),
    "leaf in place": lambda: F.leaky_relu(torch.ones(3, requires_grad=True), inplace=True),
    "view of a leaf in place": lambda: F.leaky_relu(torch.ones(3, requires_grad=True)[1:], inplace=True),
    "expanded in place": lambda: F.leaky_relu(torch.ones(1).expand(3), inplace=True),
    "one of several views in place": lambda: F.leaky_relu(
        torch.ones(4, requires_grad=True).mul(1).chunk(2)[0], inplace=True
    ),
}


@needs_install
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", OTHERS.values(), ids=OTHERS)
def test_what_the_kernels_do_not_take_is_pytorchs_business(call):
    expected = outcome(call)
    with install():
        actual = outcome(call)
    assert actual[0] is expected[0]
    if not issubclass(expected[0], Exception):
        assert actual == expected


@needs_install
def test_subclasses_see_atens_op_and_get_pytorchs_node():
    inner = randn(10)
    with install():
        calls, y = installed_calls(lambda: F.leaky_relu(TwoTensor(inner, inner * 2).requires_grad_(), 0.1))
        assert calls == 2  # of the two tensors inside
        assert isinstance(y, TwoTensor)
        assert not keeps_a_mask(y)
    assert_same_bits(y.a, F.leaky_relu(inner, 0.1))


@needs_install
def test_threads_may_compute_while_it_comes_and_goes():
    x = randn(300).requires_grad_()
    factor = torch.where(x > 0, 1.0, 0.1)
    expected, errors, stop = F.leaky_relu(x, 0.1).detach(), [], threading.Event()

    def compute():
        while not stop.is_set():
            y = F.leaky_relu(x, 0.1)
            z = F.leaky_relu(x * 1, 0.1, inplace=True)
            with torch.no_grad():
                quiet = F.leaky_relu(x, 0.1)
            grads = torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(z.sum(), x)[0]
            same = [torch.equal(value, expected) for value in (y, z, quiet)] + [torch.equal(grad, factor) for grad in grads]
            if not all(same):
                errors.append(same)

    threads = [threading.Thread(target=compute) for _ in range(4)]
    for thread in threads:
        thread.start()
    begin, times = time.monotonic(), 0
    while time.monotonic() - begin < 3:
        install()
        uninstall()
        times += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert times > 100


@needs_install
def test_several_threads_install_at_once():
    barrier, results = threading.Barrier(8), []

    def run():
        barrier.wait()
        results.append(install()._new)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]


@needs_install
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_inherits_it_and_may_undo_it_for_itself():
    with install():
        child = os.fork()
        if child == 0:
            ok = bool(build_info()["installed"]) and keeps_a_mask(F.leaky_relu(torch.ones(3, requires_grad=True)))
            uninstall()
            os._exit(0 if ok and not build_info()["installed"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert build_info()["installed"]


@needs_install
def test_the_interpreter_ends_as_without():
    """With graphs alive, calls at exit, and a thread that goes on computing (PyTorch aborts there itself)."""
    code = (
        "import atexit, sys, threading, time, torch, torch.nn.functional as F, leakyrelu_ext\n"
        "if {installed}: leakyrelu_ext.install()\n"
        "x = torch.randn(1000, requires_grad=True)\n"
        "y = F.leaky_relu(x)\n"
        "def run():\n"
        "    while True: F.leaky_relu(x).sum().backward()\n"
        "if {thread}: threading.Thread(target=run, daemon=True).start()\n"
        "atexit.register(lambda: print(F.leaky_relu(x).sum().backward()))\n"
        "sys.keep = y\n"
    )
    for installed in (False, True):
        done = [
            subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
            for program in (code.format(installed=installed, thread=thread) for thread in (False, True))
        ]
        assert (done[0].returncode, done[0].stdout, done[0].stderr) == (0, "None\n", "")
        assert done[1].returncode in (0, -signal.SIGABRT)


def python(code):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


OVERRIDE = (
    "import torch, leakyrelu_ext, torch.nn.functional as F\n"
    "x = torch.ones(3, requires_grad=True)\n"
    "library = torch.library.Library('aten', 'IMPL')\n"
    "def override(): library.impl({op!r}, lambda x, slope=0.01: x + 41, {key!r})\n"
)


@needs_install
@pytest.mark.parametrize("op", ["leaky_relu", "leaky_relu_"])
@pytest.mark.parametrize("key", ["CPU", "AutogradCPU", "Autograd"])
def test_after_another_library_s_override_it_refuses(key, op):
    code = OVERRIDE.format(key=key, op=op) + (
        "override()\n"
        "try: leakyrelu_ext.install()\n"
        "except RuntimeError as error: print(str(error).splitlines()[0])\n"
        "print(leakyrelu_ext.build_info()['installed'])\n"
        "library._destroy(); leakyrelu_ext.install(); print(F.leaky_relu(x).grad_fn._saved_mask.shape)\n"
    )
    error, installed, shape = python(code).splitlines()
    where = "CPU" if key == "CPU" else "AutogradCPU"
    assert error.startswith(
        f"install(): another library has replaced PyTorch's kernel of aten::{op} for {where} (registered at"
    )
    assert error.endswith("only one can")
    assert (installed, shape) == ("[]", "torch.Size([1])")


@needs_install
def test_before_another_library_s_override_that_one_gets_the_calls():
    code = OVERRIDE.format(key="AutogradCPU", op="leaky_relu") + (
        "leakyrelu_ext.install(); override()\n"
        "print(F.leaky_relu(x).tolist()); leakyrelu_ext.uninstall(); print(F.leaky_relu(x).tolist())\n"
        "library._destroy(); print(F.leaky_relu(x).tolist(), F.leaky_relu(x).grad_fn.name())\n"
    )
    assert python(code).splitlines() == ["[42.0, 42.0, 42.0]"] * 2 + ["[1.0, 1.0, 1.0] LeakyReluBackward0"]


@needs_install
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strides_where_a_size_of_one_leaves_a_choice(dtype, grad):
    """They decide what a view accepts, and which kernel a convolution takes."""
    image = randn(2, 1, 8, 8, dtype=dtype).to(memory_format=torch.channels_last)
    others = [
        image,
        randn(2, 3, 1, 8, dtype=dtype).to(memory_format=torch.channels_last),
        randn(1, 3, 8, 8, dtype=dtype).permute(0, 2, 3, 1),
        randn(2, 1, 4, 1, dtype=dtype).permute(3, 1, 0, 2),
        randn(0, 3, dtype=dtype).t(),
        randn(2, 1, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last_3d),
    ]
    for x in others:
        x = x.detach().requires_grad_(grad)
        expected = F.leaky_relu(x, 0.1)
        with install():
            actual = F.leaky_relu(x, 0.1)
        assert actual.stride() == expected.stride(), x.stride()
        assert_same_bits(actual, expected)
        if grad:
            for grad_output in (torch.ones_like(expected), torch.ones(expected.shape, dtype=dtype)):
                grads = [torch.autograd.grad(y, x, grad_output, retain_graph=True)[0] for y in (actual, expected)]
                assert grads[0].stride() == grads[1].stride(), (x.stride(), grad_output.stride())


@needs_install
def test_gradients_have_pytorchs_memory_order():
    x = randn(2, 3, 4, 5).requires_grad_()
    for grad_output in (
        randn(2, 3, 4, 5),
        randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        randn(5, 4, 3, 2).permute(3, 2, 1, 0),
    ):
        for base in (x, x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()):
            (expected,) = torch.autograd.grad(F.leaky_relu(base, 0.1), base, grad_output)
            with install():
                (actual,) = torch.autograd.grad(F.leaky_relu(base, 0.1), base, grad_output)
            assert actual.stride() == expected.stride()
            assert_same_bits(actual, expected)


@needs_install
def test_what_is_saved_can_be_looked_at_from_hooks_and_modes():
    """The backward holds the node's lock while they run."""
    x, seen = randn(10).requires_grad_(), []

    def unpack(tensor):
        seen.append(node._saved_negative_slope)
        if len(seen) == 1:
            seen.append(node._saved_mask.dtype)
        return tensor

    with install(), torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
        y = F.leaky_relu(x, 0.1)
        node = y.grad_fn
        y.sum().backward()
    assert torch.uint8 in seen


@needs_install
def test_slopes_are_rounded_once():
    x = -torch.ones(3)
    for slope in (2**60 + 2**36 + 1, True, 3, 2**53, -(2**53) - 1):
        expected = F.leaky_relu(x, slope)
        with install():
            assert_same_bits(F.leaky_relu(x, slope), expected)


@needs_install
def test_by_environment_variable():
    code = "import leakyrelu_ext; print(bool(leakyrelu_ext.build_info()['installed']))"
    for value, expected in (("1", "True"), ("0", "False"), ("", "False")):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env=os.environ | {"LEAKYRELU_EXT_INSTALL": value},
        )  # fmt: skip
        assert done.stdout.strip() == expected
