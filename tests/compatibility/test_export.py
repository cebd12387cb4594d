"""Ways out of Python: torch.export and what comes after it, ONNX, torch.jit.trace, FX."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import nn

from cases import assert_same_bits, randn
from models import MODELS, Discriminator, GraphAttention, UNet, example_inputs
from sides import Side

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def feature(name: str, **more: str) -> pytest.MarkDecorator:
    return pytest.mark.feature("Export", name, **more)


def make(name: str, side: Side) -> nn.Module:
    torch.manual_seed(0)
    made = {
        "U-Net": lambda: UNet(side.module),
        "discriminator": lambda: Discriminator(side.module),
        "GAT": lambda: GraphAttention(5, 4, side.function),
    }[name]()
    return made.eval()


every_model = pytest.mark.parametrize("name", MODELS)


@feature("torch.export, strict and not, of whole models; only ATen's op inside")
@every_model
@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_export(side: Side, name: str, strict: bool) -> None:
    model = make(name, side)
    inputs = example_inputs(model)
    program = torch.export.export(model, inputs, strict=strict)
    assert "leakyrelu_ext" not in str(program.graph)
    torch.testing.assert_close(program.module()(*inputs), model(*inputs))


@feature("torch.export with dynamic shapes")
def test_export_dynamic(side: Side) -> None:
    model = nn.Sequential(nn.Linear(3, 3), side.module(0.1))
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model, (randn(4, 3),), dynamic_shapes=({0: batch},))
    for rows in (2, 9):
        assert_same_bits(program.module()(randn(rows, 3)), model(randn(rows, 3)))


@feature("torch.export: run_decompositions, unflatten, save and load")
def test_export_tools(side: Side) -> None:
    model = make("U-Net", side)
    inputs = example_inputs(model)
    program = torch.export.export(model, inputs)
    expected = model(*inputs)
    torch.testing.assert_close(program.run_decompositions().module()(*inputs), expected)
    torch.testing.assert_close(torch.export.unflatten(program)(*inputs), expected)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.export.load(buffer).module()(*inputs), expected)


@pytest.mark.slow
@feature("AOTInductor package")
def test_aot_inductor(side: Side, tmp_path) -> None:
    model = make("discriminator", side)
    inputs = example_inputs(model)
    program = torch.export.export(model, inputs)
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    torch.testing.assert_close(torch._inductor.aoti_load_package(package)(*inputs), model(*inputs))


@pytest.mark.slow
@feature("ONNX: a LeakyRelu node, run by ONNX Runtime")
@every_model
def test_onnx(side: Side, name: str, tmp_path) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = make(name, side)
    inputs = example_inputs(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, tmp_path / "model.onnx", dynamo=True, verbose=False)
    graph = onnx.load(tmp_path / "model.onnx").graph
    nodes = [node for node in graph.node if node.op_type == "LeakyRelu"]
    assert len(nodes) == {"U-Net": 3, "discriminator": 2, "GAT": 1}[name]
    alphas = [attribute.f for node in nodes for attribute in node.attribute if attribute.name == "alpha"]
    if name != "U-Net":  # 0.01 is ONNX's default
        assert alphas == pytest.approx([0.2] * len(nodes))
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    feed = {slot.name: value.numpy() for slot, value in zip(session.get_inputs(), inputs, strict=True)}
    (output,) = session.run(None, feed)
    torch.testing.assert_close(torch.from_numpy(output), model(*inputs), rtol=1e-4, atol=1e-5)


@feature("torch.jit.trace, saved and loaded")
@every_model
def test_jit_trace(side: Side, name: str) -> None:
    model = make(name, side)
    inputs = example_inputs(model)
    traced = torch.jit.trace(model, inputs)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(*inputs), model(*inputs))


@feature("torch.fx.symbolic_trace: the same results (ours appears as a call, the built-in as a leaf module)")
@every_model
def test_symbolic_trace(side: Side, name: str) -> None:
    model = make(name, side)
    inputs = example_inputs(model)
    assert_same_bits(torch.fx.symbolic_trace(model)(*inputs), model(*inputs))


@feature("torch.jit.script, of modules and of functions that call it")
def test_jit_script(side: Side) -> None:
    model, x = nn.Sequential(nn.Linear(5, 5), side.module(0.1), side.module(0.3, inplace=True)), randn(3, 5)
    assert_same_bits(torch.jit.script(model)(x), model(x))
    leaky_relu = side.function

    def call(x: torch.Tensor) -> torch.Tensor:
        return leaky_relu(x, 0.2) + leaky_relu(x * 1, inplace=True)

    assert_same_bits(torch.jit.script(call)(x), call(x))


@feature("eager quantization", ours_cannot="it knows PyTorch's own modules only: revert() the model before")
def test_eager_quantization(side: Side) -> None:
    from torch.ao import quantization

    model = nn.Sequential(quantization.QuantStub(), nn.Linear(4, 4), side.module(0.1), quantization.DeQuantStub()).eval()
    model.qconfig = quantization.default_qconfig
    prepared = quantization.prepare(model)
    prepared(randn(8, 4))
    assert type(quantization.convert(prepared)[2]) is torch.ao.nn.quantized.LeakyReLU
