"""convert(fuse=True) makes one call of what surrounds a Leaky ReLU, where nobody can tell but by the rounding."""

import copy
import io
import operator
import pickle
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import assert_same_bits, randn
from leakyrelu_ext import LeakyReLU, convert, leaky_relu, revert
from leakyrelu_ext.fusion import sum_leaky_relu, without_bias
from leakyrelu_ext.tracing import augmented
from models import MODELS, Discriminator, GraphAttention, example_inputs

pytestmark = pytest.mark.cpu_only


class Model(nn.Module):
    """``code(self, *inputs)`` over some layers."""

    def __init__(self, code, inplace=False, **layers):
        super().__init__()
        self.code = code
        self.conv, self.other = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.linear = nn.BatchNorm2d(4), nn.Linear(5, 5)
        self.act, self.drop = nn.LeakyReLU(0.2, inplace), nn.Dropout(0.4)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.code(self, x)


def fuse(model):
    lines = []
    converted = convert(model, copy=True, fuse=True, report=lines.append)
    return converted, [line for line in lines if "bias_leaky_relu" in line or "not fused" in line]


def calls(model):
    """How many fused calls ``model`` has."""
    return sum(node.target is sum_leaky_relu for node in model.graph.nodes) if hasattr(model, "graph") else 0


def image(dtype=torch.float32):
    return randn(2, 4, 5, 5, dtype=dtype)


def step(model, inputs):
    """Output, and gradients of inputs and parameters, for a gradient that does not depend on the output."""
    inputs = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    torch.manual_seed(0)
    output = model(*[x * 1 if x.requires_grad else x for x in inputs])  # models may overwrite their inputs
    wanted = [x for x in inputs if x.requires_grad] + list(model.parameters())
    grads = torch.autograd.grad(output, wanted, randn(*output.shape, dtype=output.dtype, seed=1), allow_unused=True)
    return [output, *grads]


def assert_same_step(actual_model, model, inputs, products):
    """Within 2 * k * u for each parameter on the way, k = products + 2 (see convert), of the largest value there is: a sum
    whose terms cancel is only as exact as they are."""
    expected_step = step(model, inputs)
    scale = max(float(t.detach().abs().max()) for t in expected_step if t is not None)
    for actual, expected in zip(step(actual_model, inputs), expected_step, strict=True):
        if expected is None:
            assert actual is None
            continue
        assert actual.dtype == expected.dtype
        tolerance = 2 * len(expected_step) * (products + 2) * torch.finfo(expected.dtype).eps / 2
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


LAYERS = {
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "Conv1d, unbatched": (lambda: nn.Conv1d(4, 6, 3), (4, 9)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 5, 6)),
    "Conv2d, unbatched": (lambda: nn.Conv2d(4, 6, 3), (4, 5, 6)),
    "Conv2d, as many channels as rows": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 6, 6)),
    "Conv2d, grouped, strided, dilated": (lambda: nn.Conv2d(4, 6, 3, 2, 2, 2, groups=2), (2, 4, 7, 9)),
    "Conv2d, padding='same'": (lambda: nn.Conv2d(4, 6, (3, 5), padding="same"), (2, 4, 7, 9)),
    "Conv2d, reflected": (lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (2, 4, 5, 6)),
    "Conv2d, circular": (lambda: nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular"), (2, 4, 5, 6)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 3, 5)),
    "Conv3d, unbatched": (lambda: nn.Conv3d(2, 3, 2), (2, 4, 3, 5)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, output_padding=1), (2, 4, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, (1, 0), 2, dilation=2), (2, 4, 5, 4)),
    "ConvTranspose2d, unbatched": (lambda: nn.ConvTranspose2d(4, 6, 2, 2), (4, 5, 4)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2, 2), (1, 2, 3, 2, 2)),
    "Linear": (lambda: nn.Linear(5, 7), (3, 5)),
    "Linear, 1-D": (lambda: nn.Linear(5, 7), (5,)),
    "Linear, 3-D": (lambda: nn.Linear(5, 7), (3, 7, 5)),
}


def products(layer):
    """At most so many per sum."""
    return layer.weight.numel() // (layer.weight.size(1) if isinstance(layer, nn.ConvTranspose2d) else 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_and_its_activation(name, inplace, dtype):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    model = nn.Sequential(make(), nn.LeakyReLU(0.2, inplace)).to(dtype)
    converted, lines = fuse(model)
    assert lines == ["fused 0 + 1: bias_leaky_relu"]
    x = randn(*shape, dtype=dtype)
    assert_same_step(converted, model, [x], products(model[0]))
    # The stated bound, element by element.
    layer = model[0]
    magnitude = copy.deepcopy(layer).requires_grad_(False)
    for parameter in magnitude.parameters():
        parameter.abs_()
    k, u = products(layer) + 2, torch.finfo(dtype).eps / 2
    g = k * u / (1 - k * u)
    assert ((converted(x) - model(x)).abs() <= (2 * g + 4 * u) * magnitude(x.abs())).all()


RESIDUALS = {
    "x + conv": lambda self, x: self.act(x + self.conv(x)),
    "conv + x": lambda self, x: self.act(self.conv(x) + x),
    "torch.add": lambda self, x: self.act(torch.add(self.conv(x), x)),
    "method": lambda self, x: self.act(self.conv(x).add(x)),
    "two layers": lambda self, x: self.act(self.conv(x) + self.other(x)),
    "a call": lambda self, x: F.leaky_relu(self.conv(x) + x, negative_slope=0.3, inplace=True),
    "ours": lambda self, x: leaky_relu(self.conv(x) + x, 0.3),
    "no layer": lambda self, x: self.act(self.norm(x) + x),
    "broadcast": lambda self, x: self.act(self.conv(x) + x.mean((2, 3), keepdim=True)),
    "broadcast, the other way round": lambda self, x: self.act(x.mean((2, 3), keepdim=True) + x * 2),
    "neither has the shape of the sum": lambda self, x: self.act(self.conv(x[:, :, :1]) + x[:, :, :, :1]),
    "more dimensions than the layer": lambda self, x: self.act(self.conv(x[0]) + x),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", RESIDUALS)
def test_a_residual(name, inplace, dtype):
    torch.manual_seed(0)
    model = Model(RESIDUALS[name], inplace).to(dtype)
    converted, lines = fuse(model)
    assert len(lines) == calls(converted) == 1
    assert not any(node.target in (operator.add, torch.add, "add") for node in converted.graph.nodes)
    assert_same_step(converted, model, [image(dtype)], 36)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_without_a_layer_are_the_same_bits(dtype):
    model = Model(lambda self, x: self.act(self.norm(x) + x)).to(dtype)
    converted, lines = fuse(model)
    assert lines == ["fused add + act: bias_leaky_relu"]
    for actual, expected in zip(step(converted, [image(dtype)])[:2], step(model, [image(dtype)])[:2], strict=True):
        assert_same_bits(actual, expected)


def numbers(self, x):
    return self.act(x.size(2) + x)


def different_dtypes(self, x):
    return self.act(x + x.double())


def without_dimensions(self, x):
    return self.act(x.bfloat16() + x.sum())


def integers(self, x):
    return self.act(x + (x > 0).long())


@pytest.mark.parametrize("code", [numbers, different_dtypes, without_dimensions, integers])
def test_what_only_shows_at_run_time_computes_as_before(code):
    model = Model(code)
    converted, lines = fuse(model)
    assert lines == ["fused add + act: bias_leaky_relu"]
    assert_same_bits(converted(image()), model(image()))


def in_place_on(output):
    def code(self, x):
        y = output(self, x)
        y += x
        return self.act(y)

    return code


@pytest.mark.parametrize("output", [lambda self, x: self.norm(x), lambda self, x: self.conv(x)], ids=["norm", "layer"])
def test_a_residual_added_in_place_to_what_nobody_else_sees(output):
    model = Model(in_place_on(output), inplace=True)
    converted, lines = fuse(model)
    assert len(lines) == calls(converted) == 1
    assert "iadd + act" in lines[0]
    assert augmented not in {node.target for node in converted.graph.nodes}
    assert_same_step(converted, model, [image()], 36)


def test_a_residual_added_in_place_keeps_the_dtype():
    model = Model(in_place_on(lambda self, x: self.norm(x.half()))).eval()
    model.norm.half()
    converted, lines = fuse(model)
    assert len(lines) == 1
    assert converted(image()).dtype == torch.half
    assert_same_bits(converted(image()), model(image()))


def overwrites_a_view(self, x):
    y = x * 2
    part = y[:1]
    part += 1
    return self.act(part) + y


def overwrites_its_input(self, x):
    x += 0.5 * x
    return self.act(x)


def overwrites_what_is_used(self, x):
    y = self.norm(x)
    z = y
    z += x
    return self.act(z) + y


def sum_used_elsewhere(self, x):
    y = self.conv(x) + x
    return self.act(y) + y


def layer_used_elsewhere(self, x):
    y = self.conv(x)
    return self.act(y) + y


def skips_the_activation(self, x):
    y = self.conv(x)
    return torch.cat([y, F.leaky_relu(y, 0.1)])


def output_too(self, x):
    y = self.conv(x)
    return torch.stack([y, self.act(y)])


def scaled(self, x):
    return self.act(torch.add(x, x, alpha=2))


def plus_number(self, x):
    return self.act(x + 1)


def without_layer(self, x):
    return self.act(self.norm(x))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (overwrites_a_view, None),
        (overwrites_its_input, "iadd overwrites the output of x"),
        (overwrites_what_is_used, "iadd overwrites the output of norm"),
        (sum_used_elsewhere, "the output of add is used elsewhere"),
        (layer_used_elsewhere, "the output of conv is used elsewhere"),
        (skips_the_activation, "the output of conv is used elsewhere"),
        (output_too, "the output of conv is used elsewhere"),
        (scaled, None),
        (plus_number, None),
        (without_layer, None),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_what_is_not_fused(code, reason, inplace):
    model = Model(code, inplace)
    converted, lines = fuse(model)
    assert calls(converted) == 0
    assert len(lines) == (reason is not None)
    assert reason is None or f"not fused, {reason}" in lines[0]
    x, same = image(), image()
    assert_same_bits(converted(x), model(same))
    assert_same_bits(x, same)


def test_the_bias_stays_in_a_layer_that_is_used_elsewhere():
    def code(self, x):
        y = self.conv(x)
        return self.act(y + x) + y

    model = Model(code)
    converted, lines = fuse(model)
    assert lines == [
        "fused add + act: bias_leaky_relu",
        "conv + add: bias not fused, the output of conv is used elsewhere",
    ]
    assert without_bias not in {node.target for node in converted.graph.nodes}
    assert_same_bits(converted(image()), model(image()))


def test_a_sum_with_itself():
    def code(self, x):
        y = self.conv(x)
        return self.act(y + y)

    model = Model(code)
    converted, lines = fuse(model)
    assert lines == ["fused add + act: bias_leaky_relu"]
    assert_same_bits(converted(image()), model(image()))


def test_what_is_overwritten_in_between_keeps_its_effect():
    def code(self, x):
        x = x * 1
        y = self.conv(x)
        x.mul_(3)
        z = y + x
        x.sub_(1)
        return self.act(z) + x

    model = Model(code)
    converted, lines = fuse(model)
    assert lines == ["fused conv + add + act: bias_leaky_relu"]
    torch.testing.assert_close(converted(image()), model(image()))


def test_shared_layers_are_fused_call_by_call():
    def code(self, x):
        return self.conv(self.act(self.conv(self.act(self.conv(x)))))

    model = Model(code)
    converted, lines = fuse(model)
    assert lines == ["fused conv + act: bias_leaky_relu"] * 2
    assert_same_step(converted, model, [image()], 36)


class Doubled(nn.Conv2d):
    def forward(self, input):
        return super().forward(input) * 2


class TorchsConv(Doubled):
    """Of a package whose modules a trace does not look into."""


TorchsConv.__module__ = "torch.nn.quantizable"


class Slow(nn.LeakyReLU):
    def forward(self, input):
        return super().forward(input) * 2


def hooked(layer, register="register_forward_hook"):
    getattr(layer, register)(lambda *args: None)
    return layer


def with_own_forward(layer):
    layer.forward = layer.forward
    return layer


def conv(*args, **kwargs):
    return nn.Conv2d(4, 4, 3, *args, padding=1, **kwargs)


ODD_LAYERS = {
    "subclass, traced through": (lambda: Doubled(4, 4, 3, padding=1), None),
    "torch's subclass": (lambda: TorchsConv(4, 4, 3, padding=1), "conv is a torch.nn.quantizable.TorchsConv"),
    "forward hook": (lambda: hooked(conv()), "conv has hooks"),
    "pre-hook": (lambda: hooked(conv(), "register_forward_pre_hook"), "conv has hooks"),
    "backward hook": (lambda: hooked(conv(), "register_full_backward_hook"), "conv has hooks"),
    "own forward": (lambda: with_own_forward(conv()), "conv has a forward of its own"),
    "parametrization": (lambda: nn.utils.parametrizations.weight_norm(conv()), "conv is a .*Parametrized"),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(conv()), "conv is a .*Parametrized"),
    "spectral norm by hook": (lambda: nn.utils.spectral_norm(conv()), "conv has hooks"),
    "lazy": (lambda: nn.LazyConv2d(4, 3, padding=1), "conv is a .*LazyConv2d"),
    "no bias": (lambda: conv(bias=False), None),
}


@pytest.mark.parametrize("name", ODD_LAYERS)
def test_layers_that_must_be_called_are(name):
    make, reason = ODD_LAYERS[name]
    model = Model(lambda self, x: self.act(self.conv(x)), conv=make()).eval()
    converted, lines = fuse(model)
    assert calls(converted) == 0
    if reason is None:
        assert lines == []
    else:
        assert len(lines) == 1
        assert re.fullmatch(f"conv \\+ act: not fused, {reason}.*", lines[0])
    assert type(converted.act) is LeakyReLU
    if name != "lazy":
        assert_same_bits(converted(image()), model(image()))


def test_a_layer_called_with_more_than_its_input():
    model = Model(lambda self, x: self.act(self.conv(x, [11, 10])), conv=nn.ConvTranspose2d(4, 4, 2, 2))
    converted, lines = fuse(model)
    assert lines == ["conv + act: not fused, conv takes more than its input"]
    assert converted(image()).shape == (2, 4, 11, 10)
    assert_same_bits(converted(image()), model(image()))


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda: hooked(nn.LeakyReLU()), "act has hooks"),
        (lambda: with_own_forward(nn.LeakyReLU()), "act has a forward of its own"),
        (nn.ReLU, None),
        (lambda: nn.PReLU(4), None),
    ],
)
def test_activations_that_must_be_called_are(act, reason):
    model = Model(lambda self, x: self.act(self.conv(x)), act=act())
    converted, lines = fuse(model)
    assert calls(converted) == 0
    assert lines == ([] if reason is None else [f"conv + act: not fused, {reason}"])
    assert_same_bits(converted(image()), model(image()))


def test_a_subclass_is_traced_through():
    model = Model(lambda self, x: self.act(self.conv(x)), act=Slow(0.3))
    converted, lines = fuse(model)
    assert lines == ["fused conv + leaky_relu: bias_leaky_relu"]
    torch.testing.assert_close(converted(image()), model(image()))


def drop_module(self, x):
    return self.drop(self.act(self.conv(x)))


def drop_call(self, x):
    return F.dropout(F.leaky_relu(self.conv(x), 0.2), 0.4)


def drop_off(self, x):
    return F.dropout(self.act(self.conv(x)), 0.4, training=False)


def drop_after_sum(self, x):
    return self.drop(self.act(self.norm(x) + x))


@pytest.mark.parametrize("code", [drop_module, drop_call, drop_off, drop_after_sum])
def test_dropout_drops_and_scales(code):
    torch.manual_seed(0)
    model = Model(code)
    converted, lines = fuse(model)
    assert calls(converted) == len(lines) == 1
    assert len(lines[0].split(" + ")) == 3
    assert not {nn.Dropout, F.dropout} & {node.target for node in converted.graph.nodes}
    x = randn(8, 4, 20, 20)
    output = converted(x)
    p = 0.0 if code is drop_off else 0.4
    expected = nn.functional.leaky_relu(model.norm(x) + x if code is drop_after_sum else model.conv(x), 0.2)
    dropped = output == 0
    assert abs(float(dropped.float().mean()) - p) < 0.03
    torch.testing.assert_close(output[~dropped], expected[~dropped] / (1 - p))


def test_dropout_obeys_the_mode_and_the_probability_at_run_time():
    model = Model(drop_module)
    converted, _ = fuse(model)
    x = image()
    zeros = lambda: int((converted(x) == 0).sum())  # noqa: E731
    assert zeros() > 0
    converted.eval()
    assert zeros() == 0
    torch.testing.assert_close(converted(x), model.eval()(x))
    converted.train()
    assert zeros() > 0
    converted.drop.eval()
    assert zeros() == 0
    converted.drop.train().p = 1.0
    assert zeros() == converted(x).numel()
    converted.drop.p = 0.0
    torch.testing.assert_close(converted(x), model(x))


@pytest.mark.parametrize("drop", [lambda: nn.Dropout2d(), lambda: nn.AlphaDropout(), lambda: hooked(nn.Dropout())])
def test_other_dropout_is_left_alone(drop):
    converted, lines = fuse(Model(drop_module, drop=drop()))
    assert lines[0] == "fused conv + act: bias_leaky_relu"
    assert "drop" in {node.target for node in converted.graph.nodes}
    assert lines[1:] == (["act + drop: not fused, drop has hooks"] if lines[1:] else [])


def test_an_activation_that_is_used_before_its_dropout():
    def code(self, x):
        y = self.act(self.conv(x))
        return self.drop(y) * 0 + y

    model = Model(code)
    converted, lines = fuse(model)
    assert lines == ["fused conv + act: bias_leaky_relu"]
    torch.testing.assert_close(converted(image()), model(image()))


def test_dropout_by_the_models_own_flag_is_refused():
    model = Model(lambda self, x: F.dropout(self.act(self.conv(x)), training=self.training))
    with pytest.raises(ValueError, match="the traced model would lose what depends on 'training'"):
        convert(model, fuse=True)
    assert type(model.act) is nn.LeakyReLU


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
