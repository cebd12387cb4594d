"""init_for_leaky_relu_ draws for what really follows each layer, and then variances last through depth."""

import copy
import math

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import leakyrelu_ext
from initialised import initialised
from leakyrelu_ext.init import init_for_leaky_relu_

pytestmark = pytest.mark.cpu_only

DEPTH, WIDTH = 50, 384
SLOPES = [0.0, 0.01, 0.2, 0.5, 1.0]


def perceptron(slope, depth=DEPTH):
    layers = [(nn.Linear(WIDTH, WIDTH), leakyrelu_ext.LeakyReLU(slope)) for _ in range(depth)]
    return nn.Sequential(*(layer for pair in layers for layer in pair))


def growth(model, backward=False):
    """log2, per layer, of how much the mean square grows from the first layer's input to the last one's output."""
    x = torch.randn(512, WIDTH, generator=torch.Generator().manual_seed(0), requires_grad=backward)
    y = model(x)
    if not backward:
        return math.log2(y.detach().square().mean() / x.square().mean()) / DEPTH
    (gradient,) = torch.autograd.grad(y, x, torch.randn(y.shape, generator=torch.Generator().manual_seed(1)))
    return math.log2(gradient.square().mean()) / DEPTH


# A layer's mean square scatters by about sqrt(5 / WIDTH) = 11 %, its log2 by 0.17, the mean of 50 and 3 seeds by 0.014.
LASTS = 0.06


def mean_growth(slope, backward=False, change=lambda model: None, **arguments):
    found = []
    for seed in range(3):
        model, _ = initialised(perceptron(slope), seed, **arguments)
        change(model)
        found.append(growth(model, backward))
    return sum(found) / len(found)


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_the_forward_variance_lasts_through_50_layers(slope, distribution):
    assert abs(mean_growth(slope, distribution=distribution)) < LASTS


@pytest.mark.parametrize("slope", SLOPES)
def test_so_does_the_gradients_with_fan_out(slope):
    assert abs(mean_growth(slope, backward=True, mode="fan_out")) < LASTS


def redrawn(draw_):
    def change(model):
        for number, layer in enumerate(model[::2]):
            draw_(layer.weight, generator=torch.Generator().manual_seed(number))

    return change


@pytest.mark.parametrize("slope", [0.5, 1.0])
def test_with_the_gain_of_another_slope_it_does_not(slope):
    expected = math.log2(1 + slope**2)  # a layer's gain is that much too large
    assert abs(mean_growth(slope, change=redrawn(nn.init.kaiming_normal_)) - expected) < LASTS < expected


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_with_xaviers_plain_gain_it_does_not(slope):
    expected = math.log2((1 + slope**2) / 2)
    assert abs(mean_growth(slope, change=redrawn(nn.init.xavier_normal_)) - expected) < LASTS < -expected


def test_torchs_default_does_not_last_either():
    torch.manual_seed(0)
    assert growth(perceptron(0.01)) < -3 * LASTS  # it would be -2.6, were it not for the biases


def test_convolutions_last_too():
    layers = [(nn.Conv1d(64, 64, 5, padding=2, padding_mode="circular"), nn.LeakyReLU(0.2)) for _ in range(DEPTH)]
    model, _ = initialised(nn.Sequential(*(layer for pair in layers for layer in pair)))
    x = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(1))
    assert abs(math.log2(model(x).detach().square().mean() / x.square().mean())) / DEPTH < 2 * LASTS


ACTIVATIONS = [
    (nn.LeakyReLU(0.3), 0.3, math.sqrt(2 / 1.09)),
    (leakyrelu_ext.LeakyReLU(0.3), 0.3, math.sqrt(2 / 1.09)),
    (nn.PReLU(init=0.5), 0.5, math.sqrt(2 / 1.25)),
    (nn.RReLU(0.2, 0.4), 0.3, math.sqrt(2 / 1.09)),
    (nn.ReLU(), 0.0, math.sqrt(2)),
    (nn.Tanh(), None, 5 / 3),
    (nn.Sigmoid(), None, 1.0),
    (nn.SELU(), None, 0.75),
    (nn.ELU(), None, math.sqrt(2)),
    (leakyrelu_ext.BiasLeakyReLU(8), 0.2, math.sqrt(2 / 1.04) / math.sqrt(2)),
]


@pytest.mark.parametrize(("activation", "slope", "gain"), ACTIVATIONS, ids=lambda value: type(value).__name__)
def test_every_activation_has_its_gain(activation, slope, gain):
    for example, way in ((None, "registration"), (torch.randn(3, 8), "example")):
        _, (first, last) = initialised(nn.Sequential(nn.Linear(8, 8), activation, nn.Linear(8, 2)), example=example)
        assert first.gain == pytest.approx(gain)
        assert first.negative_slope == (None if slope is None else pytest.approx(slope))
        assert first.std == pytest.approx(gain / math.sqrt(8))
        assert first.found_by == way
        assert (last.followed_by, last.gain, last.negative_slope) == ("nothing", 1.0, None)


def test_a_model_that_is_one_layer_and_one_that_shares():
    assert [each.name for each in initialised(nn.Linear(4, 4))[1]] == [""]
    layer = nn.Linear(4, 4)
    _, report = initialised(nn.Sequential(layer, nn.LeakyReLU(0.1), layer, nn.Tanh()))
    assert [each.name for each in report] == ["0"]
    assert report[0].gain == pytest.approx(5 / 3)


@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [
        (nn.Linear(6, 4), 6, 4),
        (nn.Conv2d(6, 4, 3), 54, 36),
        (nn.Conv2d(6, 4, (3, 5), groups=2), 45, 30),
        (nn.Conv2d(6, 4, 4, stride=2), 96, 16),
        (nn.ConvTranspose1d(6, 4, 3), 18, 12),
        (nn.ConvTranspose2d(6, 4, 4, stride=2), 24, 64),
        (nn.ConvTranspose2d(6, 4, 4, stride=2, groups=2), 12, 32),
        (nn.ConvTranspose3d(2, 4, 1, stride=2), 2, 4),
        (nn.Conv2d(6, 4, 1, stride=2), 6, 4),
    ],
)
def test_fans(layer, fan_in, fan_out):
    for mode, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
        _, (found,) = initialised(layer, mode=mode)
        assert found.std == pytest.approx(1 / math.sqrt(fan))
    _, (found,) = initialised(layer, method="xavier")
    assert found.std == pytest.approx(math.sqrt(2 / (fan_in + fan_out)))


def test_a_transposed_convolution_keeps_the_variance():
    layer, _ = initialised(nn.ConvTranspose2d(64, 48, 4, stride=2))
    x = torch.randn(8, 64, 16, 16, generator=torch.Generator().manual_seed(1))
    assert layer(x)[:, :, 4:-4, 4:-4].var().item() == pytest.approx(1.0, rel=0.1)


def test_grouped_convolutions_keep_the_variance_both_ways():
    for mode in ("fan_in", "fan_out"):
        layer, _ = initialised(nn.Conv2d(64, 128, 4, stride=2, groups=4), mode=mode)
        x = torch.randn(8, 64, 24, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = layer(x)
        (gradient,) = torch.autograd.grad(y, x, torch.randn(y.shape, generator=torch.Generator().manual_seed(2)))
        kept = y if mode == "fan_in" else gradient[:, :, 2:-2, 2:-2]
        assert kept.var().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_where_torchs_fans_are_right_the_numbers_are_torchs(distribution):
    for layer in (nn.Linear(6, 4), nn.Conv1d(6, 4, 3)):
        expected = nn.Sequential(layer, nn.LeakyReLU(0.3))
        for method, torchs in (("he", f"kaiming_{distribution}_"), ("xavier", f"xavier_{distribution}_")):
            actual, _ = initialised(copy.deepcopy(expected), method=method, distribution=distribution)
            gain = {"a": 0.3} if method == "he" else {"gain": nn.init.calculate_gain("leaky_relu", 0.3)}
            getattr(nn.init, torchs)(layer.weight, **gain, generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close(actual[0].weight, layer.weight, rtol=1e-6, atol=1e-7)


def test_biases_are_zero_and_the_rest_is_left_alone():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 4, bias=False))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 3.0)
    init_for_leaky_relu_(model)
    assert (model[0].weight == 3).all()
    assert (model[2].weight == 3).all()
    assert (model[2].bias == 3).all()
    assert (model[1].bias == 0).all()
    assert model[4].bias is None


def test_a_generator_decides():
    first, second, other = (initialised(perceptron(0.1, 2), seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    torch.manual_seed(0)
    model = perceptron(0.1, 1)
    init_for_leaky_relu_(model)
    torch.manual_seed(0)
    init_for_leaky_relu_(other_model := perceptron(0.1, 1))
    assert torch.equal(model[0].weight, other_model[0].weight)


class Square(nn.Module):
    def forward(self, x):
        return x.square()


def squared(layer, name):
    nn.utils.parametrize.register_parametrization(layer, name, Square())
    return layer


def test_the_report_prints_as_a_table():
    _, report = initialised(nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 2)))
    assert str(report).splitlines() == [
        "layer  kind    followed by     gain   std     found by",
        "0      Linear  LeakyReLU(0.2)  1.387  0.4903  registration",
        "2      Linear  nothing         1      0.3536  registration",
    ]


@pytest.mark.parametrize(
    ("model", "arguments", "kind", "message"),
    [
        ([nn.Linear(2, 2)], {}, TypeError, "argument 'module' must be a torch.nn.Module, got list"),
        (nn.ReLU(), {}, ValueError, "no linear or convolutional layer"),
        (
            nn.Linear(2, 2),
            {"method": "orthogonal"},
            ValueError,
            "argument 'method' must be 'he' or 'xavier', got 'orthogonal'",
        ),
        (nn.Linear(2, 2), {"mode": "fan_avg"}, ValueError, "argument 'mode'"),
        (nn.Linear(2, 2), {"distribution": "cauchy"}, ValueError, "argument 'distribution'"),
        (nn.Sequential(nn.LazyLinear(2)), {}, ValueError, "0 is lazy"),
        (
            nn.Sequential(nn.utils.prune.l1_unstructured(nn.Linear(2, 2), "weight", 1)),
            {},
            ValueError,
            "the weight of 0 is computed from other parameters, and there is no way to set it",
        ),
        (nn.Sequential(squared(nn.Linear(2, 2), "weight")), {}, ValueError, "the weight of 0 is computed from other"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.utils.parametrizations.orthogonal(nn.Linear(2, 2), use_trivialization=False)),
            {},
            ValueError,
            "the weight of 1 is computed from other",
        ),
        (nn.Sequential(squared(nn.Linear(2, 2), "bias")), {}, ValueError, "the bias of 0 is parametrized"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(math.nan)),
            {},
            ValueError,
            r"LeakyReLU\(nan\), for which there is no gain",
        ),
    ],
)
def test_errors(model, arguments, kind, message):
    with pytest.raises(kind, match=message):
        init_for_leaky_relu_(model, **arguments)


def test_after_an_error_nothing_has_changed():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.LeakyReLU(math.inf))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="2 is followed by LeakyReLU"):
        init_for_leaky_relu_(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
