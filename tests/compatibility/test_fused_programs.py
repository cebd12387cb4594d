"""Fused layers in programs: torch.compile, torch.export and what comes after it, ONNX, torch.jit.trace, FX. They become
PyTorch's own norm (or sum) and activation there."""

from __future__ import annotations

import io
import operator
import warnings

import pytest
import torch
from torch import nn

from fused_families import Family, assert_same, batch, each_area, each_family, step

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def feature(name: str) -> pytest.MarkDecorator:
    """The page's section is the family's."""
    return pytest.mark.feature("", name)


def assert_computes_the_same(program: nn.Module, reference: nn.Module, *samples: int) -> None:
    for count in samples:
        torch.testing.assert_close(program(batch(count)), reference(batch(count)))


@feature("torch.compile of a training step, fullgraph, static and dynamic shapes; backends aot_eager, inductor")
@each_area
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled(family: Family, backend: str, dynamic: bool) -> None:
    if backend == "inductor" and dynamic:  # torch 2.13's fails on PyTorch's own instance norm then
        family = Family(family.name, tuple(kind for kind in family.kinds if kind != "instance"))
    ours, reference = family.nets(torch.float32)
    compiled = torch.compile(ours, backend=backend, fullgraph=True, dynamic=dynamic)
    for samples in (4, 6, 9) if dynamic else (4, 4):
        x = batch(samples, torch.float32, seed=samples)
        with torch.compiler.set_stance("default" if samples == 4 else "fail_on_recompile"):
            assert_same(step(ours, x, compiled), step(reference, x), rtol=1e-4, atol=1e-5)


@feature("torch.export, strict and not, with a dynamic batch: only ATen's ops inside")
@each_family
@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_export(family: Family, strict: bool) -> None:
    ours, reference = (net.eval() for net in family.nets())
    shapes = ({0: torch.export.Dim("samples", min=2)},)
    program = torch.export.export(ours, (batch(),), dynamic_shapes=shapes, strict=strict)
    called = {node.target for node in program.graph.nodes if node.op == "call_function"}
    assert all(op is operator.getitem or op.namespace == "aten" for op in called)
    assert_computes_the_same(program.module(), reference, 2, 7)


@feature("torch.export of training: running statistics move as PyTorch's")
@each_area
def test_export_of_training(family: Family) -> None:
    ours, reference = family.nets()
    module = torch.export.export(ours, (batch(),), strict=False).module()
    for seed in range(2):
        torch.testing.assert_close(module(batch(seed=seed)), reference(batch(seed=seed)))
    assert_same([module.get_buffer(name) for name, _ in ours.named_buffers()], list(reference.buffers()))


@feature("torch.export: run_decompositions, unflatten, save and load")
@each_area
def test_export_tools(family: Family) -> None:
    ours, reference = (net.eval() for net in family.nets())
    program = torch.export.export(ours, (batch(),), strict=False)  # unflatten of torch 2.7 fails on nn.Sequential otherwise
    assert_computes_the_same(program.run_decompositions().module(), reference, 4)
    assert_computes_the_same(torch.export.unflatten(program), reference, 4)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    assert_computes_the_same(torch.export.load(buffer).module(), reference, 4)


@pytest.mark.slow
@feature("AOTInductor package")
@each_area
def test_aot_inductor(family: Family, tmp_path) -> None:
    ours, reference = (net.eval() for net in family.nets())
    program = torch.export.export(ours, (batch(),))
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    assert_computes_the_same(torch._inductor.aoti_load_package(package), reference, 4)


@pytest.mark.slow
@feature("ONNX: standard nodes only, run by ONNX Runtime")
@each_area
def test_onnx(family: Family, tmp_path) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    ours, reference = (net.eval() for net in family.nets(torch.float32))
    x = batch(dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(ours, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    model = onnx.load(tmp_path / "model.onnx")
    assert {node.domain for node in model.graph.node} == {""}
    assert sum(node.op_type == "LeakyRelu" for node in model.graph.node) == 2 * len(family.kinds)
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), reference(x), rtol=1e-4, atol=1e-5)


@feature("torch.jit.trace, saved and loaded: only ATen's ops inside")
@each_family
def test_jit_trace(family: Family) -> None:
    ours, reference = (net.eval() for net in family.nets())
    traced = torch.jit.trace(ours, (batch(),))
    assert "leakyrelu_ext::" not in str(traced.inlined_graph)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    assert_computes_the_same(torch.jit.load(buffer), reference, 4, 7)


@feature("torch.fx.symbolic_trace, also of training")
@each_family
def test_symbolic_trace(family: Family) -> None:
    ours, reference = family.nets()
    traced = torch.fx.symbolic_trace(ours)
    for seed in range(2):
        assert_same(step(traced, batch(seed=seed)), step(reference, batch(seed=seed)))
    assert_computes_the_same(traced.eval(), reference.eval(), 4, 7)
