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
from leakyrelu_ext import LeakyReLU, convert, leaky_relu, revert
from models import MODELS, Discriminator, GraphAttention, UNet, example_inputs

pytestmark = pytest.mark.cpu_only


def train(model, inputs):
    """Output and gradients of one step."""
    output = model(*inputs)
    parameters = list(model.parameters())
    return output, torch.autograd.grad(output.square().sum(), parameters)


@pytest.mark.feature("Existing models", "convert(): U-Net, discriminator, GAT")
@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_converted_models_compute_the_same_bits(name, functional):
    torch.manual_seed(0)
    model = MODELS[name]()
    inputs = example_inputs(model)
    changes = []
    converted = convert(model, copy=True, functional=functional, report=changes.append)
    assert len(changes) == {"U-Net": 3, "discriminator": 1, "GAT": int(functional)}[name]
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
    """Every spelling of the call."""

    def forward(self, x):
        x = F.leaky_relu(x, 0.2)
        x = nn.functional.leaky_relu(x * 2, negative_slope=0.3, inplace=True)
        x = F.leaky_relu_(x - 1, 0.1)
        x = torch.ops.aten.leaky_relu.default(self=x - 0.5, negative_slope=0.4)
        x = torch.ops.aten.leaky_relu_.default(x + 0.1, 0.4)
        x = torch.ops.aten.leaky_relu_(torch.ops.aten.leaky_relu(x - 0.2, 0.7), 0.9)
        return torch._C._nn.leaky_relu(torch._C._nn.leaky_relu_(x * 1, 0.8), 0.6)


@pytest.mark.feature("Existing models", "convert(functional=True): every spelling of the call")
def test_every_spelling_of_the_call():
    model, changes, x = Calls(), [], randn(20)
    converted = convert(model, functional=True, report=changes.append)
    assert len(changes) == 9
    assert changes[0] == "call leaky_relu: torch.nn.functional.leaky_relu -> leakyrelu_ext.functional.leaky_relu"
    assert isinstance(converted, torch.fx.GraphModule)
    assert_same_bits(converted(x), model(x))
    targets = {node.target for node in converted.graph.nodes if node.op == "call_function"}
    assert not any("aten" in str(target) or "_nn" in str(target) for target in targets)
    back = revert(converted, functional=True)
    assert_same_bits(back(x), model(x))
    assert leaky_relu not in {node.target for node in back.graph.nodes}


def test_without_calls_nothing_is_traced():
    model = UNet()
    assert convert(model, functional=True) is model


def test_models_that_cannot_be_traced():
    class Branches(nn.Module):
        def forward(self, x):
            return F.leaky_relu(x) if x.sum() > 0 else x

    model = nn.Sequential(nn.LeakyReLU(), Branches())
    with pytest.raises(torch.fx.proxy.TraceError):
        convert(model, functional=True)
    assert type(model[0]) is nn.LeakyReLU
    convert(model)
    assert type(model[0]) is LeakyReLU


class Both(nn.Module):
    """A call and a module, and what the graph does not use."""

    def __init__(self):
        super().__init__()
        self.linear, self.activation, self.unused = nn.Linear(3, 3), nn.LeakyReLU(0.1), nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("steps", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.last = self.activation(self.linear(x))
        return F.leaky_relu(self.last - 1, 0.5)


def test_all_that_the_model_holds_stays():
    model, x, seen = Both(), randn(4, 3), []
    model.linear.eval()
    model.activation.register_forward_hook(lambda module, args, output: seen.append(type(module)))
    expected = model(x)
    converted = convert(model, functional=True)
    assert converted.state_dict().keys() == model.state_dict().keys()
    assert [id(p) for p in converted.parameters()] == [id(p) for p in model.parameters()]
    assert converted.activation is model.activation
    assert type(converted.activation) is LeakyReLU
    assert (converted.training, converted.linear.training) == (True, False)
    assert isinstance(model.last, torch.Tensor)  # tracing left no proxy
    seen.clear()
    assert_same_bits(converted(x), expected)
    assert not convert(model.eval(), functional=True).training
    converted.activation.negative_slope = 0.9
    assert not torch.equal(converted(x), expected)
    assert seen == [LeakyReLU] * 2
    assert type(revert(converted, functional=True).activation) is nn.LeakyReLU


def test_graphs_inside_a_model():
    inner = torch.fx.symbolic_trace(Calls())
    model, changes, x = nn.Sequential(inner), [], randn(20)
    expected = model(x)
    assert convert(model, functional=True, report=changes.append) is model
    assert len(changes) == 9
    assert_same_bits(model(x), expected)


def add_to_view(self, x):
    y = x * 2
    part = y[:1]
    part += 5
    return y


def scale_a_name(self, x):
    y = kept = x + 1
    y *= 2
    return kept + y


def count(self, x):
    rows = columns = x.size(0)
    rows += 1
    return x.new_ones(rows)[:columns] + x


@pytest.mark.parametrize("code", [add_to_view, scale_a_name, count])
def test_assignments_in_place_stay_in_place(code):
    model, x = Block(code), randn(4)
    converted = convert(model, functional=True)
    for traced in (converted, copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
        assert_same_bits(traced(x), model(x))


class Counting(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.count = count
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        self.count(self)
        return F.leaky_relu(x * self.steps)


def count_by_assignment(self):
    self.steps += 1


def test_buffers_that_the_code_changes():
    model = Counting(lambda self: self.steps.add_(1))
    converted = convert(model, functional=True)
    assert model.steps == 0
    assert_same_bits(converted(randn(3)), F.leaky_relu(randn(3)))
    assert_same_bits(pickle.loads(pickle.dumps(converted))(randn(3)), F.leaky_relu(randn(3) * 2))
    model = Counting(count_by_assignment)
    with pytest.raises(ValueError, match="the traced model would lose buffers that its code assigns"):
        convert(model, functional=True)
    assert model.steps == 0


class Block(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.code = code

    def forward(self, x):
        return F.leaky_relu(self.code(self, x), 0.1)


class Optional(nn.Module):
    def forward(self, x, mask=None):
        return F.leaky_relu(x if mask is None else x * mask)


def without_grad(self, x):
    with torch.no_grad():
        return x * 2


def in_autocast(self, x):
    with torch.autocast("cpu"):
        return x * 2


def hooked():
    model = nn.Sequential(Block(lambda self, x: x))
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    return model


LOSSES = {
    "dropout by flag": (lambda: Block(lambda self, x: F.dropout(x, training=self.training)), "'training'"),
    "a branch by flag": (lambda: Block(lambda self, x: x * 2 if self.training else x), "'training'"),
    "no_grad": (lambda: Block(without_grad), "the grad mode"),
    "autocast": (lambda: Block(in_autocast), "autocast"),
    "noise": (lambda: Block(lambda self, x: x + torch.randn(3)), "tensors that its code makes"),
    "optional arguments": (Optional, r"optional arguments \(mask\)"),
    "hooks": (hooked, "hooks of 0"),
}


@pytest.mark.parametrize(("make", "lost"), LOSSES.values(), ids=LOSSES)
def test_models_that_a_trace_would_change_are_refused(make, lost):
    model = nn.Sequential(make(), nn.LeakyReLU()) if make is not Optional else make()
    with pytest.raises(ValueError, match=f"cannot be converted with 'functional'.*{lost}"):
        convert(model, functional=True)
    assert not any(type(module) is LeakyReLU for module in model.modules())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [torch.compile, torch.jit.script])
def test_wrapped_models_are_refused(wrap):
    with pytest.raises(TypeError, match="convert the model before it is compiled, scripted or wrapped"):
        convert(wrap(nn.Sequential(nn.LeakyReLU())), functional=True)


def test_an_instance_with_a_forward_of_its_own():
    model, changes = nn.Sequential(nn.LeakyReLU()), []
    model[0].forward = model[0].forward
    convert(model, report=changes.append)
    assert changes == ["0: left alone, it has a forward of its own"]
    assert type(model[0]) is nn.LeakyReLU


def test_parameters_are_shared_with_the_traced_model():
    model = GraphAttention(5, 4)
    converted = convert(model, functional=True)
    assert converted.project.weight is model.project.weight


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
