"""Bad input raises what the built-in raises, and says which argument it was."""

import pytest
import torch

import aten
from cases import randn
from leakyrelu_ext import LeakyReLU, LeakyReLUFunction, build_info, leaky_relu, leaky_relu_
from leakyrelu_ext._torch_versions import DtypeError

OUR_WORDS = build_info()["native"] and leaky_relu.__module__.startswith("leakyrelu_ext")  # not with --installed
CALLS = {
    "functional": leaky_relu,
    "in place": lambda x, slope=0.01: leaky_relu(x, slope, inplace=True),
    "leaky_relu_": leaky_relu_,
    "module": lambda x, slope=0.01: LeakyReLU(slope)(x),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def outcome(function, *arguments):
    with pytest.raises(Exception) as raised:  # noqa: PT011
        function(*arguments)
    return raised.value


@every_call
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("size", [0, 3])
def test_other_dtypes(size, dtype, call):
    x = torch.ones(size).to(dtype)
    error = outcome(call, x)
    assert type(error) is type(outcome(aten.leaky_relu, x)) is DtypeError
    assert "not implemented for" in str(error)
    if OUR_WORDS:
        assert "argument 'input'" in str(error)


@every_call
def test_complex_leaves_that_require_grad(call):
    x = torch.ones(3, dtype=torch.complex64, requires_grad=True) * 1
    assert type(outcome(call, x)) is type(outcome(aten.leaky_relu, x)) is DtypeError


@every_call
@pytest.mark.parametrize("x", ["text", None, 1.5, [1.0, 2.0], object()], ids=lambda x: type(x).__name__)
def test_what_is_not_a_tensor(x, call):
    error = outcome(call, x)
    assert type(error) is type(outcome(aten.leaky_relu, x)) is TypeError
    assert "argument 'input' (position 1) must be Tensor" in str(error)


def test_numpy_arrays():
    numpy = pytest.importorskip("numpy")
    assert type(outcome(leaky_relu, numpy.ones(3))) is type(outcome(aten.leaky_relu, numpy.ones(3))) is TypeError


@every_call
@pytest.mark.parametrize("slope", ["0.1", None, [0.1], torch.ones(1), torch.tensor(0.1, requires_grad=True)], ids=repr)
def test_slopes_that_are_not_numbers(slope, call):
    error = outcome(call, randn(3), slope)
    assert type(error) is type(outcome(aten.leaky_relu, randn(3), slope)) is TypeError
    assert "argument 'negative_slope' (position 2) must be Number" in str(error)


@every_call
@pytest.mark.parametrize("slope", [1e300, -1e300, 1 + 1j])
def test_slopes_that_overflow(slope, call):
    error = outcome(call, randn(3), slope)
    assert type(error) is type(outcome(aten.leaky_relu, randn(3), slope)) is RuntimeError
    assert "cannot be converted" in str(error)


@pytest.mark.native
def test_slopes_that_overflow_are_refused_for_empty_tensors_too():
    assert type(outcome(leaky_relu, torch.empty(0), 1e300)) is type(outcome(aten.leaky_relu, torch.empty(0), 1e300))


def test_large_slopes_in_float64():
    x = randn(3, dtype=torch.float64)
    assert torch.equal(leaky_relu(x, 1e300), aten.leaky_relu(x, 1e300))


@pytest.mark.feature("Subclasses, modes and other tensors", "sparse, CSR and strided nested tensors: the same errors")
@every_call
@pytest.mark.parametrize("layout", ["sparse", "csr", "nested"])
@pytest.mark.filterwarnings("ignore")
def test_other_layouts(layout, call):
    x = {
        "sparse": lambda: torch.eye(3).to_sparse(),
        "csr": lambda: torch.eye(3).to_sparse_csr(),
        "nested": lambda: torch.nested.nested_tensor([randn(2), randn(3)]),
    }[layout]()
    error = outcome(call, x)
    assert type(error) is type(outcome(aten.leaky_relu, x))
    assert "argument 'input'" in str(error) or not OUR_WORDS


@pytest.mark.feature("Subclasses, modes and other tensors", "quantized tensors")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.cpu_only  # there is no quantized leaky_relu for CUDA
def test_quantized_tensors_as_the_builtin():
    x = torch.quantize_per_tensor(randn(10), 0.1, 0, torch.qint8)
    assert torch.equal(leaky_relu(x, 0.1).int_repr(), aten.leaky_relu(x, 0.1).int_repr())


def test_wrong_number_of_arguments():
    assert type(outcome(leaky_relu)) is TypeError
    assert type(outcome(leaky_relu, randn(3), 0.1, False, 4)) is TypeError


@pytest.mark.native
def test_entry_points_of_the_library_check_their_arguments():
    from leakyrelu_ext import _C

    for entry in (_C.leaky_relu, _C.leaky_relu_):
        for arguments in ((), (randn(3),), (randn(3), 0.1, 1)):
            assert type(outcome(entry, *arguments)) is TypeError


@pytest.mark.parametrize(
    ("arguments", "name"), [((None,), "input"), (("x", 0.1), "input"), ((torch.ones(2), "0.1"), "negative_slope")]
)
def test_arguments_of_the_function(arguments, name):
    error = outcome(LeakyReLUFunction.apply, *arguments)
    assert type(error) is TypeError
    assert f"argument '{name}'" in str(error)


def test_function_refuses_what_the_functional_refuses():
    assert type(outcome(LeakyReLUFunction.apply, torch.ones(3, dtype=torch.int32))) is DtypeError
