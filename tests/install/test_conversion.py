"""convert() and revert() change the activation of a model that exists, and nothing else."""

import copy
import logging
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import leakyrelu_ext
from cases import assert_same_bits, randn
from leakyrelu_ext import LeakyReLU, convert, revert
from models import MODELS, Discriminator, UNet, example_inputs

pytestmark = [pytest.mark.cpu_only, pytest.mark.own_name]


def train(model, inputs):
    """Output and gradients of one step."""
    output = model(*inputs)
    parameters = list(model.parameters())
    return output, torch.autograd.grad(output.square().sum(), parameters)


@pytest.mark.feature("Existing models", "convert(): U-Net, discriminator, GAT")
@pytest.mark.parametrize("name", MODELS)
def test_converted_models_compute_the_same_bits(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    inputs = example_inputs(model)
    changes = []
    converted = convert(model, copy=True, report=changes.append)
    assert len(changes) == {"U-Net": 3, "discriminator": 1, "GAT": 1}[name]  # GAT: nothing to convert
    (expected, expected_grads), (actual, grads) = train(model, inputs), train(converted, inputs)
    assert_same_bits(actual, expected)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert_same_bits(grad, expected_grad)


@pytest.mark.native
def test_the_native_kernels_run_after_conversion_and_not_after_reversion():
    model = convert(UNet())
    before = leakyrelu_ext.stats()["backward_calls"]
    train(model, example_inputs(model))
    assert leakyrelu_ext.stats()["backward_calls"] == before + 3
    train(revert(model), example_inputs(model))
    assert leakyrelu_ext.stats()["backward_calls"] == before + 3


@pytest.mark.feature("Existing models", "convert() and revert() keep hooks, flags, names, identity")
def test_everything_but_the_class_is_kept():
    model = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.3, inplace=True), nn.Dropout())
    activation = model[1]
    activation.eval()
    activation.note = "mine"
    seen = []
    activation.register_forward_hook(lambda module, args, output: seen.append(type(module)))
    assert convert(model) is model
    assert model[1] is activation
    assert type(activation) is LeakyReLU
    assert repr(activation) == "LeakyReLU(negative_slope=0.3, inplace=True)"
    assert not activation.training
    assert activation.note == "mine"
    assert model.training
    model(randn(2, 3))
    assert seen == [LeakyReLU]
    assert list(dict(model.named_modules())) == ["", "0", "1", "2"]
    assert revert(model) is model
    assert type(activation) is nn.LeakyReLU
    assert activation.note == "mine"


def test_shared_instances_stay_shared():
    model = Discriminator()
    assert model[1] is model[4]
    changes = []
    convert(model, report=changes.append)
    assert model[1] is model[4]
    assert type(model[4]) is LeakyReLU
    assert changes == ["1: torch.nn.modules.activation.LeakyReLU -> leakyrelu_ext.modules.LeakyReLU(negative_slope=0.2)"]


def test_twice_is_once():
    model, changes = UNet(), []
    convert(convert(model), report=changes.append)
    assert changes == []
    revert(revert(model), report=changes.append)
    assert len(changes) == 0
    assert not any(type(module) is LeakyReLU for module in model.modules())


def test_a_copy_leaves_the_model_alone():
    model = UNet()
    converted = convert(model, copy=True)
    assert sum(type(module) is LeakyReLU for module in converted.modules()) == 3
    assert not any(type(module) is LeakyReLU for module in model.modules())
    assert converted.head.weight is not model.head.weight


def test_the_model_itself():
    activation = nn.LeakyReLU(0.4)
    assert type(convert(activation)) is LeakyReLU
    assert activation.negative_slope == 0.4


def test_other_classes_are_left_alone():
    class Mine(nn.LeakyReLU):
        def forward(self, input):
            return input * 2

    model = nn.Sequential(Mine(), nn.PReLU(), nn.RReLU(), nn.ReLU())
    changes = []
    convert(model, report=changes.append)
    assert changes == ["0: left alone, it is a test_conversion.Mine"]
    assert [type(module) for module in model] == [Mine, nn.PReLU, nn.RReLU, nn.ReLU]


class Calls(nn.Module):
    def forward(self, x):
        return F.leaky_relu(x, 0.2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [Calls, lambda: torch.jit.script(nn.Sequential(nn.LeakyReLU()))], ids=["calls", "scripted"])
def test_where_there_is_nothing_to_convert_it_says_so(make, caplog):
    model, lines = make(), []
    assert convert(model, report=lines.append) is model
    (line,) = lines
    assert "there is no torch.nn.LeakyReLU in this" in line
    assert "leakyrelu_ext.install()" in line
    revert(model)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "nothing to revert" in caplog.text


@pytest.mark.parametrize(("option", "instead"), [("functional", r"leakyrelu_ext\.install\(\)"), ("fuse", "bias_leaky_relu")])
@pytest.mark.parametrize("function", [convert, revert])
def test_options_that_traced_name_what_does_it_now(function, option, instead):
    model = nn.Sequential(nn.LeakyReLU())
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\): argument '{option}' is gone, .*{instead}"):
        function(model, **{option: True})
    assert type(model[0]) is nn.LeakyReLU


def test_unknown_options():
    with pytest.raises(TypeError, match=r"convert\(\) got an unexpected keyword argument 'fused'"):
        convert(nn.LeakyReLU(), fused=True)


def test_an_instance_with_a_forward_of_its_own():
    model, changes = nn.Sequential(nn.LeakyReLU()), []
    model[0].forward = model[0].forward
    convert(model, report=changes.append)
    assert changes == ["0: left alone, it has a forward of its own"]
    assert type(model[0]) is nn.LeakyReLU


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_converted_models_are_copied_and_pickled(copied):
    model = convert(UNet())
    twin = copied(model)
    inputs = example_inputs(model)
    assert_same_bits(twin(*inputs), model(*inputs))
    assert sum(type(module) is LeakyReLU for module in twin.modules()) == 3


def test_a_compiled_model_is_recompiled_after_conversion():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.3))
    x = randn(2, 3)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = compiled(x)
    convert(model)
    assert_same_bits(compiled(x), expected)


def test_reports_go_to_the_log_by_default(caplog):
    with caplog.at_level(logging.INFO, logger="leakyrelu_ext"):
        convert(nn.Sequential(nn.LeakyReLU()))
    assert "0: torch.nn.modules.activation.LeakyReLU -> leakyrelu_ext" in caplog.text


@pytest.mark.parametrize("model", [None, "model", [nn.LeakyReLU()], nn.LeakyReLU])
def test_what_is_no_module(model):
    with pytest.raises(TypeError, match=r"argument 'model' must be a torch\.nn\.Module, got "):
        convert(model)


def test_a_model_of_another_library():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("darknet17", num_classes=3).eval()
    x = randn(1, 3, 64, 64)
    expected = model(x)
    changes = []
    convert(model, report=changes.append)
    assert len(changes) > 10
    assert_same_bits(model(x), expected)
