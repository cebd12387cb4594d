"""Tools that look PyTorch's modules up by their exact type, or PyTorch's nodes by name: right with install()."""

import copy

import pytest
import torch
from torch import nn

from aten import uninstalled
from cases import assert_same_bits, randn
from leakyrelu_ext import convert, install, stats
from releases import needs_install

pytestmark = [
    pytest.mark.native,
    pytest.mark.cpu_only,
    pytest.mark.own_name,
    needs_install,
    pytest.mark.filterwarnings("ignore"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU(0.2), nn.Linear(5, 3))


def both(run):
    """What a tool says of a model without and with our kernels installed."""
    with uninstalled():
        expected = run(net())
    with install():
        before = stats()["installed_calls"]
        actual = run(net())
        assert stats()["installed_calls"] > before
    return expected, actual


def test_captum_deep_lift():
    attr = pytest.importorskip("captum.attr")

    def run(model):
        return attr.DeepLift(model).attribute(randn(4, 6), randn(4, 6, seed=1), target=0)

    expected, actual = both(run)
    assert_same_bits(actual, expected)
    assert not torch.equal(run(convert(net())), expected)  # what convert's docstring warns of


def test_backpack():
    backpack = pytest.importorskip("backpack")
    extensions = pytest.importorskip("backpack.extensions")

    def run(model):
        model, lossfunc = backpack.extend(model), backpack.extend(nn.MSELoss())
        loss = lossfunc(model(randn(4, 6)), randn(4, 3, seed=1))
        with backpack.backpack(extensions.BatchGrad(), extensions.DiagGGNExact()):
            loss.backward()
        return [parameter.diag_ggn_exact for parameter in model.parameters()]

    for expected, actual in zip(*both(run), strict=True):
        assert_same_bits(actual, expected)
    with pytest.raises(NotImplementedError):
        run(convert(net()))


def test_ptflops():
    ptflops = pytest.importorskip("ptflops")

    def run(model):
        return ptflops.get_model_complexity_info(
            model, (6,), as_strings=False, print_per_layer_stat=False, backend="pytorch"
        )

    expected, actual = both(run)
    assert actual == expected
    assert run(convert(net()))[0] < expected[0]


def test_eager_quantization():
    from torch.ao import quantization

    def run(model):
        model = nn.Sequential(quantization.QuantStub(), *model, quantization.DeQuantStub()).eval()
        model.qconfig = quantization.default_qconfig
        prepared = quantization.prepare(model)
        prepared(randn(8, 6))
        converted = quantization.convert(prepared)
        return type(converted[2]), converted(randn(3, 6))

    expected, actual = both(run)
    assert actual[0] is expected[0] is torch.ao.nn.quantized.LeakyReLU
    assert torch.equal(actual[1], expected[1])


def test_torchvision_s_feature_extractor():
    try:
        from torchvision.models import feature_extraction as extraction
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no torchvision for this torch: {error}")

    def run(model):
        return extraction.create_feature_extractor(model, {"1": "activated"})(randn(2, 6))["activated"]

    expected, actual = both(run)
    assert_same_bits(actual, expected)


def nodes_of(tensor):
    """Names along the graph, as torchviz and others collect them."""
    names, pending = [], [tensor.grad_fn]
    while pending:
        node = pending.pop()
        names.append(type(node).__name__)
        pending += [following for following, _ in node.next_functions if following is not None]
    return names


def test_names_along_the_graph():
    expected, actual = both(lambda model: nodes_of(model(randn(2, 6))))
    assert actual == expected
    assert actual.count("LeakyReluBackward0") == 1


def test_torchviz():
    torchviz = pytest.importorskip("torchviz")
    expected, actual = both(lambda model: torchviz.make_dot(model(randn(2, 6))).source)
    assert expected.count("LeakyReluBackward0") == actual.count("LeakyReluBackward0") == 1
    saved = both(lambda model: torchviz.make_dot(model(randn(2, 6)), show_attrs=True, show_saved=True).source)
    boxes = [source[source.index("LeakyReluBackward0") :].split("fillcolor")[0] for source in saved]
    assert all("negative_slope: 0.2" in " ".join(box.split()) for box in boxes), boxes
    assert ["mask" in box for box in boxes] == [False, True]


def test_onnx():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")

    def run(model):
        program = torch.onnx.export(copy.deepcopy(model).eval(), (randn(2, 6),), dynamo=True, verbose=False)
        model(randn(2, 6))
        return sorted(node.op_type for node in program.model_proto.graph.node)

    expected, actual = both(run)
    assert actual == expected
    assert "LeakyRelu" in actual
