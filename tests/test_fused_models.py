"""Whole models after convert(fuse=True): training, changes later, copies, torch.compile, and back."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import assert_same_bits, randn
from fusion_steps import Model, assert_same_step, calls, drop_module, fuse, image, step
from leakyrelu_ext import convert, leaky_relu, revert
from leakyrelu_ext.fusion import sum_leaky_relu, without_bias
from models import MODELS, Discriminator, GraphAttention, example_inputs

pytestmark = pytest.mark.cpu_only


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_whole_models(name, dtype):
    torch.manual_seed(0)
    model = MODELS[name]()
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in example_inputs(model)]
    model.to(dtype)
    converted, lines = fuse(model)
    assert (
        lines
        == {
            "U-Net": [],  # a norm is between
            "discriminator": ["fused 0 + 1: bias_leaky_relu"],
            "GAT": ["fused source + add + leaky_relu: bias_leaky_relu"],
        }[name]
    )
    assert_same_step(converted, model, inputs, 256)


def test_nothing_to_fuse_is_nothing_traced():
    model = MODELS["U-Net"]()
    assert convert(model, fuse=True) is model
    assert not any(type(module) is nn.LeakyReLU for module in model.modules())


def test_parameters_names_and_modules_stay():
    model = Model(drop_module)
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    state = copy.deepcopy(model.state_dict())
    converted = convert(model, fuse=True)
    assert all(converted.get_submodule(name) is module for name, module in modules.items() if name)
    assert list(dict(converted.named_modules())) == list(modules)
    assert [(name, id(p)) for name, p in converted.named_parameters()] == [(name, id(p)) for name, p in parameters.items()]
    converted.load_state_dict(state, strict=True)
    assert type(converted.conv) is nn.Conv2d


def test_training_moves_the_parameters_alike():
    torch.manual_seed(0)
    model = Discriminator()
    converted = convert(model, copy=True, fuse=True)
    for m in (model, converted):
        optimizer = torch.optim.SGD(m.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            m(*example_inputs(model)).square().mean().backward()
            optimizer.step()
    for actual, expected in zip(converted.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


CHANGES = {
    "slope": lambda m: setattr(m.act, "negative_slope", 0.7),
    "padding": lambda m: setattr(m.conv, "padding", (2, 2)),
    "bias removed": lambda m: setattr(m.conv, "bias", None),
    "layer hook": lambda m: m.conv.register_forward_hook(lambda module, args, output: output * 2),
    "layer pre-hook": lambda m: m.conv.register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
    "activation hook": lambda m: m.act.register_forward_hook(lambda module, args, output: output * 2),
    "dropout hook": lambda m: m.drop.register_forward_hook(lambda module, args, output: output * 2),
    "layer replaced": lambda m: setattr(m, "conv", nn.Sequential(m.conv, nn.Tanh())),
    "activation replaced": lambda m: setattr(m, "act", nn.Tanh()),
    "weight norm": lambda m: nn.init.ones_(nn.utils.parametrizations.weight_norm(m.conv).parametrizations.weight.original0),
    "double": lambda m: m.double(),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("code", [drop_module, lambda self, x: self.drop(self.act(self.conv(x) + x.mean()))])
def test_changes_after_conversion_count(code, change, inplace):
    model = Model(code, inplace).eval()
    converted, lines = fuse(model)
    assert len(lines) == 1
    before = converted(image())
    change(model)
    change(converted)
    x = image(next(model.parameters()).dtype)
    torch.testing.assert_close(converted(x), model(x))
    assert before.dtype != x.dtype or not torch.equal(converted(x), before)


def test_a_hook_sees_a_layers_output_before_the_residual():
    model = Model(lambda self, x: self.act(self.conv(x) + x), inplace=True)
    converted, _ = fuse(model)
    seen = []
    converted.conv.register_forward_hook(lambda module, args, output: seen.append((output, output.clone())))
    converted(image())
    assert_same_bits(*seen[0])


def saved_and_loaded(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


class Everything(nn.Module):
    """At module level, for pickle."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 5)
        self.act, self.drop = nn.LeakyReLU(0.2, True), nn.Dropout(0.3)

    def forward(self, x):
        x = self.drop(self.act(self.stem(x)))
        y = self.norm(self.block(x))
        y += x
        y = self.act(y)
        y = F.leaky_relu(y + self.block(y), 0.1, inplace=True)
        return self.act(self.head(y.mean((2, 3))))


@pytest.fixture
def everything():
    torch.manual_seed(0)
    model = Everything().eval()
    converted, lines = fuse(model)
    assert lines == [
        "fused stem + act + drop: bias_leaky_relu",
        "fused iadd + act: bias_leaky_relu",
        "fused block + add + leaky_relu: bias_leaky_relu",
        "fused head + act: bias_leaky_relu",
    ]
    return model, converted


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved_and_loaded])
def test_copies_are_whole(everything, copied):
    _, converted = everything
    twin, x = copied(converted), randn(2, 3, 6, 6)
    assert calls(twin) == 4
    assert_same_bits(twin(x), converted(x))
    assert list(twin.state_dict()) == list(converted.state_dict())
    nn.init.normal_(twin.stem.bias)  # of the twin alone, and read by it
    assert not torch.equal(twin(x), converted(x))
    twin.train()
    assert not torch.equal(twin(x), twin(x))
    assert_same_bits(revert(twin.eval(), functional=True)(x), copied(revert(twin, functional=True))(x))


def test_compiled_without_breaks(everything):
    torch._dynamo.reset()
    model, converted = everything
    x = randn(2, 3, 6, 6)
    compiled = torch.compile(converted, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))
    converted.act.negative_slope = model.act.negative_slope = 0.5
    torch.testing.assert_close(compiled(x), model(x))
    converted.train()
    assert not torch.equal(compiled(x), compiled(x))


def test_under_autocast(everything):
    model, converted = everything
    x = randn(2, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        actual, expected = converted(x), model(x)
    assert actual.dtype == expected.dtype == torch.bfloat16
    # Four layers, each rounded to 8 bits about three times, in either.
    torch.testing.assert_close(actual, expected, rtol=0, atol=24 * 2**-9 * float(expected.detach().abs().max()))
    assert torch.autograd.grad(actual.sum(), converted.stem.bias)[0].dtype == torch.float32


def test_reverting_gives_the_models_bits_again(everything):
    model, converted = everything
    lines = []
    back = revert(converted, functional=True, report=lines.append)
    assert back is converted
    assert calls(back) == 0
    assert lines[:4] == [
        "unfused stem + act + drop",
        "unfused iadd + act",
        "unfused block + add_1 + leaky_relu_1",
        "unfused head + act",
    ]
    assert {sum_leaky_relu, without_bias, leaky_relu}.isdisjoint(node.target for node in back.graph.nodes)
    for actual, expected in zip(step(back, [randn(2, 3, 6, 6)]), step(model, [randn(2, 3, 6, 6)]), strict=True):
        assert_same_bits(actual, expected)
    again = []
    convert(back, fuse=True, report=again.append)
    assert sum("bias_leaky_relu" in line for line in again) == 4


def test_fusing_twice_is_fusing_once(everything):
    _, converted = everything
    code, lines = converted.code, []
    assert convert(converted, fuse=True, report=lines.append) is converted
    assert (converted.code, lines) == (code, [])


def test_graphs_inside_a_model_are_fused():
    inner = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU()))
    model, lines = nn.Sequential(inner), []
    expected = model(randn(2, 3))
    assert convert(model, fuse=True, report=lines.append) is model
    assert lines[0] == "fused 0 + 1: bias_leaky_relu"
    torch.testing.assert_close(model(randn(2, 3)), expected)


def test_memory_format_is_the_layers():
    model = Model(lambda self, x: self.act(self.conv(x)))
    converted, _ = fuse(model)
    x = image().contiguous(memory_format=torch.channels_last)
    assert converted(x).is_contiguous(memory_format=torch.channels_last)


def test_attention_scores_have_the_shape_of_neither_summand():
    model = GraphAttention(5, 4)
    converted, _ = fuse(model)
    assert_same_step(converted, model, example_inputs(model), 8)
