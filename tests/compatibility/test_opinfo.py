"""What PyTorch runs on its own leaky_relu (OpInfo) and nn.LeakyReLU (ModuleInfo), run on ours: its sample inputs, with
slopes, layouts and edge values added (upstream's have the default slope only)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal import composite_compliance
from torch.testing._internal.common_dtype import all_types_and_complex_and
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.testing._internal.common_utils import gradcheck, gradgradcheck
from torch.testing._internal.opinfo.core import SampleInput
from torch.testing._internal.optests import aot_autograd_check

import aten
from cases import LAYOUTS, WRITABLE, assert_same_bits, randn, random_bit_patterns
from sides import OURS, Side

(OPINFO,) = (info for info in op_db if info.name == "nn.functional.leaky_relu")
(MODULEINFO,) = (info for info in module_db if info.module_cls is torch.nn.LeakyReLU)
SLOPES = (0.01, 0.0, 0.3, 2.0, -0.5)
FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def feature(name: str) -> pytest.MarkDecorator:
    return pytest.mark.feature("PyTorch's OpInfo and ModuleInfo", name)


def samples(dtype: torch.dtype, requires_grad: bool = False) -> Iterator[SampleInput]:
    of_upstream = list(OPINFO.sample_inputs("cpu", dtype, requires_grad))
    assert of_upstream
    yield from of_upstream
    yield of_upstream[0].noncontiguous()
    for slope in SLOPES:  # upstream's are of one shape: one will do
        yield SampleInput(of_upstream[0].input, args=(slope,))
    for x in (
        randn(dtype=dtype),
        randn(0, 3, dtype=dtype),
        randn(3, 4, dtype=dtype).t(),
        randn(4, 6, dtype=dtype)[:, ::2],
        randn(2, 3, 2, 2, dtype=dtype).contiguous(memory_format=torch.channels_last),
    ):
        yield SampleInput(x.requires_grad_(requires_grad), args=(0.3,))


def function_of(side: Side, inplace: bool):
    if inplace:
        return lambda x, slope=0.01: side.function(x.clone(), slope, inplace=True)
    return side.function


in_and_out_of_place = pytest.mark.parametrize("inplace", [False, True], ids=["out of place", "in place"])


def beyond_the_builtin(side: Side, sample: SampleInput, inplace: bool) -> bool:
    """The built-in refuses the gradient of a negative slope in place (and gives none at 0); ours has it."""
    return side is not OURS and inplace and bool(sample.args) and sample.args[0] <= 0


@feature("the same dtypes, and the same errors for the others")
@in_and_out_of_place
@pytest.mark.parametrize("dtype", all_types_and_complex_and(torch.half, torch.bfloat16, torch.bool), ids=str)
def test_dtypes(side: Side, dtype: torch.dtype, inplace: bool) -> None:
    x = torch.ones(3).to(dtype)
    if OPINFO.supports_dtype(dtype, "cpu"):
        assert function_of(side, inplace)(x).dtype == dtype
    else:
        with pytest.raises((NotImplementedError, RuntimeError)) as raised:
            function_of(side, inplace)(x)
        with pytest.raises((NotImplementedError, RuntimeError)) as expected:
            aten.leaky_relu(x.clone(), inplace=inplace)
        assert type(raised.value) is type(expected.value)


@feature("reference inputs and their non-contiguous twins, bit for bit")
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_reference_inputs(side: Side, dtype: torch.dtype) -> None:
    for sample in OPINFO.reference_inputs("cpu", dtype):
        for twin in (sample, sample.noncontiguous()):
            for slope in (*SLOPES, math.inf, math.nan):
                actual, expected = side.function(twin.input, slope), aten.leaky_relu(twin.input, slope)
                assert_same_bits(actual, expected)
                assert actual.stride() == expected.stride()


@feature("every layout and edge value, bit for bit, also in place")
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_layouts_and_edge_values(side: Side, dtype: torch.dtype) -> None:
    for name in LAYOUTS:
        x = LAYOUTS[name](dtype)
        assert_same_bits(side.function(x, 0.3), aten.leaky_relu(x, 0.3))
        if name in WRITABLE:
            expected = aten.leaky_relu(x, 0.3)
            assert_same_bits(side.function(x, 0.3, inplace=True), expected)
    x = random_bit_patterns(dtype, 10_000)
    assert_same_bits(side.function(x, 0.3), aten.leaky_relu(x, 0.3))


@feature("gradcheck: backward, forward mode, batched")
@in_and_out_of_place
def test_first_derivatives(side: Side, inplace: bool) -> None:
    for sample in samples(torch.float64, requires_grad=True):
        if not beyond_the_builtin(side, sample, inplace):
            assert gradcheck(
                lambda x, args=sample.args: function_of(side, inplace)(x, *args),
                sample.input,
                check_forward_ad=OPINFO.supports_forward_ad,
                check_batched_grad=OPINFO.check_batched_grad,
                check_batched_forward_grad=OPINFO.check_batched_forward_grad,
                check_undefined_grad=True,
            )


@feature("gradgradcheck: also forward over reverse, batched")
@in_and_out_of_place
def test_second_derivatives(side: Side, inplace: bool) -> None:
    for sample in samples(torch.float64, requires_grad=True):
        if not beyond_the_builtin(side, sample, inplace):
            assert gradgradcheck(
                lambda x, args=sample.args: function_of(side, inplace)(x, *args),
                sample.input,
                check_fwd_over_rev=OPINFO.supports_fwgrad_bwgrad,
                check_batched_grad=OPINFO.check_batched_gradgrad,
            )


@feature("composite compliance: subclasses in every place, backward and forward-mode formulas")
def test_composite_compliance(side: Side) -> None:
    for sample in OPINFO.sample_inputs("cpu", torch.float32, requires_grad=True):
        for args in ((), (0.3,)):
            composite_compliance.check_with_mode(side.function, (sample.input, *args), {}, torch.testing.assert_close)
            composite_compliance.check_all_permutations(side.function, (sample.input, *args), {}, torch.testing.assert_close)
            composite_compliance.check_backward_formula(
                side.function, (sample.input, *args), {}, assert_equal_fn=torch.testing.assert_close
            )
            composite_compliance.check_forward_ad_formula(
                side.function, (sample.input, *args), {}, None, torch.testing.assert_close
            )


@feature("meta tensors")
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_meta(side: Side, dtype: torch.dtype) -> None:
    for sample in samples(dtype):
        real = side.function(sample.input, *sample.args)
        meta = side.function(sample.input.to("meta"), *sample.args)
        assert (meta.shape, meta.dtype, meta.device.type) == (real.shape, real.dtype, "meta")
        assert side.function(sample.input.to("meta"), *sample.args, inplace=True).is_meta


@feature("fake tensors, against real ones")
def test_fake(side: Side) -> None:
    for sample in samples(torch.float32):
        with torch._subclasses.CrossRefFakeMode():
            side.function(sample.input, *sample.args)
    for make in LAYOUTS.values():
        with torch._subclasses.CrossRefFakeMode():
            side.function(make(torch.float32), 0.3)


@feature("proxy tracing: real, fake and symbolic")
@in_and_out_of_place
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_proxy_tensors(side: Side, mode: str, inplace: bool) -> None:
    for sample in samples(torch.float32):
        function = function_of(side, inplace)
        graph = make_fx(lambda x: function(x, *sample.args), tracing_mode=mode)(sample.input)  # noqa: B023
        assert_same_bits(graph(sample.input), function(sample.input, *sample.args))


@feature("AOTAutograd, static and dynamic shapes")
@in_and_out_of_place
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_aot_autograd(side: Side, dynamic: bool, inplace: bool) -> None:
    for sample in samples(torch.float32, requires_grad=True):
        if not beyond_the_builtin(side, sample, inplace):
            aot_autograd_check(function_of(side, inplace), (sample.input, *sample.args), {}, dynamic=dynamic)


def modules(side: Side, dtype: torch.dtype = torch.float32, training: bool = True):
    """Upstream's constructor and forward arguments: the module, its input, its reference."""
    for entry in MODULEINFO.module_inputs_func(MODULEINFO, device="cpu", dtype=dtype, requires_grad=True, training=training):
        made = side.module(*entry.constructor_input.args, **entry.constructor_input.kwargs)
        yield made.train(training).to(dtype), entry


@feature("ModuleInfo: forward, references, no batch dimension")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_module_forward(side: Side, dtype: torch.dtype, training: bool) -> None:
    seen = 0
    for module, entry in modules(side, dtype, training):
        (x,) = entry.forward_input.args
        expected = aten.leaky_relu(x, module.negative_slope)
        assert_same_bits(module(x), expected)
        if entry.reference_fn is not None:
            torch.testing.assert_close(module(x), entry.reference_fn(module, x))
        seen += 1
    assert seen >= 4


@feature("ModuleInfo: repr, pickle, deepcopy, memory format, in place")
def test_module_properties(side: Side) -> None:
    import pickle

    for module, entry in modules(side):
        (x,) = entry.forward_input.args
        assert repr(module) == repr(torch.nn.LeakyReLU(*entry.constructor_input.args, **entry.constructor_input.kwargs))
        for twin in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
            assert_same_bits(twin(x), module(x))
        inplace = side.module(*entry.constructor_input.args, **entry.constructor_input.kwargs, inplace=True)
        hidden = x.detach().clone()
        version = hidden._version
        assert inplace(hidden) is hidden
        assert hidden._version > version
        assert_same_bits(hidden, module(x))
    image = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert side.module()(image).is_contiguous(memory_format=torch.channels_last)


@feature("ModuleInfo: gradcheck and gradgradcheck")
def test_module_derivatives(side: Side) -> None:
    for module, entry in modules(side, torch.float64):
        (x,) = entry.forward_input.args
        assert gradcheck(module, x, check_forward_ad=True)
        assert gradgradcheck(module, x)
