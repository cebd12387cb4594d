"""convert(fuse=True) makes one call of what surrounds a Leaky ReLU, where nobody can tell but by the rounding."""

import copy
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import assert_same_bits, randn
from fusion_steps import LAYERS, Model, assert_same_step, calls, drop_module, fuse, hooked, image, products, step
from leakyrelu_ext import leaky_relu
from leakyrelu_ext.tracing import augmented

pytestmark = pytest.mark.cpu_only


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
