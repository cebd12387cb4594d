"""What convert(fuse=True) leaves alone, or calls as before; and that it says so."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import assert_same_bits
from fusion_steps import Model, assert_same_step, calls, fuse, hooked, image
from leakyrelu_ext import LeakyReLU, convert
from leakyrelu_ext.fusion import without_bias

pytestmark = pytest.mark.cpu_only


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


def test_dropout_by_the_models_own_flag_is_refused():
    model = Model(lambda self, x: F.dropout(self.act(self.conv(x)), training=self.training))
    with pytest.raises(ValueError, match="the traced model would lose what depends on 'training'"):
        convert(model, fuse=True)
    assert type(model.act) is nn.LeakyReLU
