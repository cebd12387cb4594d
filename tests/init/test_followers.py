"""Which activation follows a layer: seen as a copy runs on an example, or the next that was registered."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import leakyrelu_ext
from initialised import initialised
from leakyrelu_ext.init import init_for_leaky_relu_
from models import MODELS, example_inputs

pytestmark = pytest.mark.cpu_only


class Net(nn.Module):
    """What follows is not what was registered next."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 2)
        self.norm, self.steep, self.tanh = nn.BatchNorm2d(8), nn.LeakyReLU(0.4), nn.Tanh()

    def forward(self, x):
        x = self.steep(self.norm(self.first(x)))
        x = F.leaky_relu(F.dropout(self.second(x)) + x, 0.2)
        return self.tanh(self.last(x.mean((2, 3))))


def test_what_follows_in_the_data_flow_counts():
    model, report = initialised(Net(), example=torch.randn(2, 3, 9, 9))
    assert [each.name for each in report] == ["first", "second", "last"]
    assert [each.negative_slope for each in report] == [0.4, 0.2, None]
    assert report[2].followed_by == "Tanh"
    assert model.first.weight.std().item() == pytest.approx(report[0].std, rel=0.15)


class Calls(nn.Module):
    """All as functions, and one size that leads nowhere."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(7)])
        self.weight = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x):
        y = self.layers[0](x)
        z = F.relu(x.view(y.size(0), y.shape[1]))
        y = F.prelu(self.layers[1](y), self.weight)
        y = F.rrelu(self.layers[2](y), 0.1, 0.3)
        y = self.layers[3](y).relu()
        y = torch.ops.aten.leaky_relu(self.layers[4](y), 0.7)
        y = leakyrelu_ext.bias_leaky_relu(self.layers[5](y), None, 0.2, gain=2.0)
        return torch.tanh(F.linear(self.layers[6](y), torch.eye(4))) + z


def test_functions_and_methods_count():
    _, report = initialised(Calls(), example=torch.randn(4, 4))
    slopes = [each.negative_slope for each in report]
    assert slopes == [None, 0.5, pytest.approx(0.2), 0.0, 0.7, 0.2, None]
    assert [each.followed_by for each in report][::6] == ["nothing", "nothing"]
    assert report[5].gain == pytest.approx(math.sqrt(2 / 1.04) / 2)


def test_another_kind_of_layer_ends_the_search():
    class Recurrent(nn.Sequential):
        def forward(self, x):
            return self[2](self[1](self[0](x))[0])

    for example in (None, torch.randn(5, 3)):
        _, report = initialised(Recurrent(nn.Linear(3, 3), nn.LSTM(3, 3), nn.ReLU()), example=example)
        assert report[0].followed_by == "nothing"


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_gets_what_the_model_gets(name):
    example = example_inputs(MODELS[name]())
    expected = initialised(MODELS[name](), example=example)[1]
    assert {each.found_by for each in expected} == {"example"}
    assert initialised(leakyrelu_ext.convert(MODELS[name]()), example=example)[1] == expected
    assert initialised(torch.compile(MODELS[name]()), example=example)[1] == expected


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.relu, self.linear = nn.Linear(4, 4), nn.ReLU(), nn.LeakyReLU(0.9)

    def forward(self, x):
        x = self.layer(x)
        return self.relu(x) + self.linear(x)


def test_of_several_the_largest_gain_counts():
    _, (only,) = initialised(Branches(), example=torch.randn(3, 4))
    assert only.followed_by == "ReLU"


def test_without_an_example_the_order_of_registration_counts_and_is_told():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LeakyReLU(0.3), nn.Linear(4, 4), nn.Linear(4, 2), nn.Tanh())
    _, report = initialised(model)
    assert [each.followed_by for each in report] == ["LeakyReLU(0.3)", "nothing", "Tanh"]
    assert {each.found_by for each in report} == {"registration"}


class Shuffled(nn.Module):
    """Registered in another order than it runs in."""

    def __init__(self):
        super().__init__()
        self.act, self.second, self.first = leakyrelu_ext.LeakyReLU(0.3), nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.tanh, self.third, self.unused = nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, scale):
        if x.sum() > -1e9:
            x = F.leaky_relu_(self.norm(self.first(x * scale)), 0.6)
        return self.tanh(self.third(self.act(self.second(x))))


def test_with_an_example_the_order_in_which_it_runs_counts():
    model = Shuffled()
    model.norm.eval()
    state, training = torch.get_rng_state(), [module.training for module in model.modules()]
    _, report = initialised(model, example=(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), 2.0))
    assert {each.name: each.negative_slope for each in report[:2]} == {"second": 0.3, "first": 0.6}
    assert report[2].followed_by == "Tanh"
    assert [each.found_by for each in report] == ["example"] * 3 + ["registration"]
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == training
    assert model.norm.num_batches_tracked == 0
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(TypeError, match="scale"):
        init_for_leaky_relu_(model, example=torch.randn(3, 4))
    assert not any(module._forward_pre_hooks for module in model.modules())


class Optional(nn.Module):
    """A tracer takes ``skip`` for something, though nobody gives it."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x, skip=None):
        return F.leaky_relu(self.a(x), 0.2) if skip is None else torch.tanh(self.a(x) + skip)


def test_the_branch_that_is_taken_counts():
    x = torch.randn(3, 4)
    assert initialised(Optional(), example=x)[1][0].followed_by == "leaky_relu(0.2)"
    assert initialised(Optional(), example=(x, x))[1][0].followed_by == "tanh"


@pytest.mark.parametrize(
    ("activation", "slope"),
    [(nn.LeakyReLU(0.2), 0.2), (F.relu, 0.0), (partial(F.leaky_relu, negative_slope=0.3), 0.3), (lambda x: x * 2, None)],
    ids=["module", "function", "partial", "unknown"],
)
@pytest.mark.parametrize("kind", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_within_torchs_transformers(kind, activation, slope):
    x = torch.randn(2, 3, 8)
    example = (x,) if kind is nn.TransformerEncoderLayer else (x, x)
    for way in (None, example):
        model = kind(8, 2, 16, activation=activation, batch_first=True)
        report = {each.name: each for each in initialised(model, example=way)[1]}
        assert report["linear1"].negative_slope == slope
        assert {each.followed_by for name, each in report.items() if name != "linear1"} == {"nothing"}


class Flows(nn.Module):
    """Ways of a tensor that are easily lost."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(9)])
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.act = nn.LeakyReLU(0.5, inplace=True)

    def forward(self, x):
        canvas = torch.zeros(2, 3, 4)
        canvas[:, :2] = self.layers[0](x)[:, :2]
        x = canvas.relu_()
        x = checkpoint(lambda x: F.leaky_relu(self.layers[1](x), 0.1), x, use_reentrant=False)
        x = checkpoint(self.layers[2], x, use_reentrant=False)
        x = F.leaky_relu(x, 0.2)
        x = F.leaky_relu(F.linear(x, self.layers[3].weight), 0.3)
        x = F.leaky_relu(self.attention(x, x, x)[0] + x, 0.4)
        x += self.layers[4](x)
        x = self.act(x).sigmoid()
        parts = self.layers[5](x).chunk(2, -1)
        x = torch.cat([F.leaky_relu(parts[0], 0.6), parts[1]], -1)
        x = torch.where(x > 0, self.layers[6](x), x)
        x = F.leaky_relu(torch.stack([x, x]).mean(0), 0.7)
        x = F.leaky_relu(torch.einsum("btc,cd->btd", self.layers[7](x), torch.eye(4)), 0.8)
        return F.leaky_relu(x + self.layers[8](x).detach(), 0.9)


def test_wherever_it_flows():
    _, report = initialised(Flows(), example=torch.randn(2, 3, 4))
    slopes = {each.name: each.negative_slope for each in report}
    assert slopes.pop("attention.out_proj") == 0.4
    assert list(slopes.values()) == [0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9]


def into_a_part(y):
    canvas = torch.zeros(3, 8)
    canvas[:, :4].copy_(y)
    return F.leaky_relu(canvas, 0.3)


@torch.jit.script
def scripted(x):
    return x * 2.0


PARAMETER = nn.Parameter(torch.randn(4, 4))


# What comes after a layer, and the slope of what follows it.
AFTER = {
    "copied into a part": (into_a_part, 0.3),
    "all of it, in place, as a view": (lambda y: F.relu(F.leaky_relu_(y.view(-1), 0.5).view_as(y) * 0 + y), 0.5),
    "an autograd.Function": (lambda y: leakyrelu_ext.LeakyReLUFunction.apply(y, 0.2), 0.2),
    "a product with a parameter": (lambda y: F.leaky_relu(y @ PARAMETER.t(), 0.5), None),
    "einsum with a parameter": (lambda y: F.leaky_relu(torch.einsum("bi,io->bo", y, PARAMETER), 0.5), None),
    "a product without": (lambda y: F.leaky_relu(y @ y.t(), 0.5), 0.5),
    "its shape": (lambda y: F.leaky_relu(torch.rand_like(y), 0.5), None),
    "its dtype": (lambda y: F.leaky_relu(torch.ones(2).type_as(y), 0.5), None),
    "its device": (lambda y: F.leaky_relu(y.new_ones(2), 0.5), None),
    "viewed as another": (lambda y: F.leaky_relu(y.view_as(torch.ones(4, 3)), 0.5), 0.5),
}


CASES = [pytest.param(*case, id=name) for name, case in AFTER.items()]


OP = pytest.param(lambda y: torch.ops.leakyrelu_ext.leaky_relu(y, 0.6), 0.6, id="the op", marks=pytest.mark.native)


class Then(nn.Module):
    def __init__(self, layer, after):
        super().__init__()
        self.layer, self.after = layer, after

    def forward(self, x):
        return self.after(self.layer(x))


@pytest.mark.parametrize(("after", "slope"), [*CASES, OP])
def test_after_a_layer(after, slope):
    _, (only,) = initialised(Then(nn.Linear(4, 4), after), example=torch.randn(3, 4))
    assert only.negative_slope == slope
    assert only.found_by == "example"


class Scripted(nn.Module):
    def forward(self, x):
        return scripted(x)


def test_through_a_module_that_does_what_is_not_seen():
    model = nn.Sequential(nn.Linear(4, 4), Scripted(), nn.LeakyReLU(0.3))
    assert initialised(model, example=torch.randn(3, 4))[1][0].negative_slope == 0.3


class Centred(nn.Linear):
    """Computes its weight, and has its activation within."""

    def forward(self, x):
        return F.leaky_relu(F.linear(x, self.weight - self.weight.mean(), self.bias), 0.9)


class LowRank(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.a, self.b = nn.Parameter(torch.zeros(4, 1)), nn.Parameter(torch.zeros(1, 4))

    def forward(self, x):
        return super().forward(x) + x @ self.a @ self.b


class OutOfSight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        return torch.from_numpy(x.detach().numpy() @ weight.detach().numpy())


class Foreign(nn.Linear):
    def forward(self, x):
        return OutOfSight.apply(x, self.weight)


@pytest.mark.parametrize(
    ("layer", "slope"), [(Centred(4, 4), 0.9), (LowRank(4, 4), 0.7), (Foreign(4, 4), 0.7)], ids=lambda x: type(x).__name__
)
def test_layers_derived_from_torchs(layer, slope):
    _, (only,) = initialised(nn.Sequential(layer, nn.LeakyReLU(0.7)), example=torch.randn(3, 4))
    assert (only.negative_slope, only.found_by) == (slope, "example")


class Adapted(nn.TransformerEncoderLayer):
    def __init__(self):
        super().__init__(8, 2, 16)
        self.adapter = nn.Linear(8, 8)


def test_a_transformer_with_more_than_torchs_layers():
    _, report = initialised(Adapted())
    assert {each.name: each.followed_by for each in report} == {
        "self_attn.out_proj": "nothing",
        "linear1": "relu",
        "linear2": "nothing",
        "adapter": "nothing",
    }


def test_a_compiled_part_is_looked_into():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[0] = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.3)), backend="eager")
    _, report = initialised(model, example=torch.randn(2, 4))
    assert [each.followed_by for each in report] == ["LeakyReLU(0.3)", "nothing"]
