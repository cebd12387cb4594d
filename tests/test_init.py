"""init_for_leaky_relu_ draws for what really follows each layer, and then variances last through depth."""

import copy
import math
import random
import threading
from functools import partial

import numpy
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import nn
from torch.utils.checkpoint import checkpoint

import leakyrelu_ext
from leakyrelu_ext.init import init_for_leaky_relu_
from models import MODELS, example_inputs

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


def initialised(model, seed=0, **arguments):
    report = init_for_leaky_relu_(model, generator=torch.Generator().manual_seed(seed), **arguments)
    return model, report


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


class Frozen(nn.Sequential):
    """As detection backbones do: train() gives nothing back."""

    def train(self, mode=True):
        super().train(mode)
        self[0].eval()


def test_a_train_that_returns_nothing_and_an_example_with_history():
    backbone = nn.Linear(4, 4)
    _, report = initialised(Frozen(nn.Linear(4, 4), nn.LeakyReLU(0.3)), example=backbone(torch.randn(3, 4)))
    assert report[0].negative_slope == 0.3


def test_lazy_norms_need_not_have_run():
    for example in (None, torch.randn(2, 3, 8, 8)):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyBatchNorm2d(), nn.LeakyReLU(0.2))
        assert initialised(model, example=example)[1][0].negative_slope == 0.2
        assert isinstance(model[1].weight, nn.UninitializedParameter)


def test_sharded_layers_are_not_taken_for_one(tmp_path):
    from torch.distributed.tensor import distribute_module

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        model = distribute_module(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), mesh)
        before = model[2].weight.full_tensor().clone()
        report = init_for_leaky_relu_(model)
        assert [each.note for each in report] == ["", ""]
        assert not torch.equal(model[2].weight.full_tensor(), before)
    finally:
        torch.distributed.destroy_process_group()


class Sideways(nn.Module):
    """Its forward changes what it can reach."""

    def __init__(self):
        super().__init__()
        self.layer, self.act, self.head = nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)  # whose weights are not drawn
        self.register_buffer("ema", torch.ones(4))
        self.register_buffer("sum", self.layer.weight.sum())  # not a leaf either
        self.register_buffer("count", torch.zeros(()))
        self.kept, self.own = {}, self.normalised
        self.layer.register_forward_hook(self.keep)
        self.seen, self.calls, self.lock = [], 0, threading.Lock()
        self.product = self.layer.weight * 2  # not a leaf: copy.deepcopy refuses it
        self.noise = torch.Generator().manual_seed(1)

    def normalised(self, x):
        self.calls += 1
        return self.norm(x)

    def keep(self, module, args, output):
        self.kept["layer"] = output

    def forward(self, x):
        self.calls += 1
        self.count += 1
        self.seen.append(x)
        self.ema.mul_(0.9)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.clamp_(-1e-3, 1e-3)
        x.add_(torch.randn(4) * random.random() * numpy.random.rand()).add_(torch.randn(4, generator=self.noise))
        with self.lock:
            self.product.mul_(3)
        self.layer(x)
        x = self.own(self.act(self.kept["layer"]))
        return (x, torch.tanh(self.head(x))) if self.training else x


class Log:
    def __init__(self):
        self.calls, self.lock = [], threading.Lock()

    def hook(self, *args):
        self.calls.append(args)


class Counter:
    calls = 0

    def hook(self, *args):
        Counter.calls += 1


def test_only_a_copy_runs():
    model, x, log = Sideways().eval(), torch.randn(3, 4), Log()
    model.act.register_forward_hook(log.hook)
    model.norm.register_forward_hook(Counter().hook)
    model.head.register_forward_pre_hook({}.get)  # of an owner without a hash
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    product, example = model.product.clone(), x.clone()
    random.seed(0)
    numpy.random.seed(0)
    state, noise = torch.get_rng_state(), model.noise.get_state()
    _, report = initialised(model, example=x)
    assert [(each.followed_by, each.found_by) for each in report] == [("LeakyReLU(0.2)", "example"), ("tanh", "example")]
    assert (model.calls, model.seen, model.kept, log.calls, Counter.calls) == (0, [], {}, [], 0)
    assert (model.ema == 1).all()
    assert model.count == 0
    assert (model.norm.weight == 1).all()
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert torch.equal(model.product, product)
    assert torch.equal(x, example)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.noise.get_state(), noise)
    assert (random.random(), numpy.random.rand()) == (random.Random(0).random(), numpy.random.RandomState(0).rand())
    assert not model.training
    assert list(model.act._forward_hooks.values()) == [log.hook]
    assert list(model.layer._forward_hooks.values()) == [model.keep]
    assert sum(len(module._forward_pre_hooks) for module in model.modules()) == 1


class Single(nn.Sequential):
    def __deepcopy__(self, memo):
        return self


def test_a_part_that_is_its_own_copy():
    model = nn.Sequential(Single(nn.Linear(4, 4), nn.LeakyReLU(0.3)), nn.Linear(4, 4), nn.Tanh())
    model[0][1].register_forward_hook(print)
    _, report = initialised(model, example=torch.randn(3, 4))
    assert [each.followed_by for each in report] == ["LeakyReLU(0.3)", "Tanh"]
    assert all(module.training for module in model.modules())
    assert list(model[0][1]._forward_hooks.values()) == [print]
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in (model[0], model[0][0], *model[1:]))


def test_what_cannot_be_copied_is_said():
    class Unique(nn.Linear):
        def __deepcopy__(self, memo):
            raise KeyError("mine")

    with pytest.raises(RuntimeError, match="argument 'module' cannot be copied, and only a copy runs on 'example': 'mine'"):
        init_for_leaky_relu_(Unique(2, 2), example=torch.ones(1, 2))


class Tied(nn.Module):
    def __init__(self, tie):
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 50)
        self.again = nn.Linear(16, 16)
        nn.init.normal_(self.embed.weight, std=0.02)
        tie(self.out, self.embed)
        tie(self.again, self.hidden)

    def forward(self, x):
        return self.out(F.leaky_relu(self.again(torch.tanh(self.hidden(self.embed(x)))), 0.1))


def tie_parameter(module, to):
    module.weight = to.weight


def tie_data(module, to):
    module.weight.data = to.weight.data


@pytest.mark.parametrize("tie", [tie_parameter, tie_data])
def test_a_shared_weight_is_left_alone_or_drawn_once(tie):
    model = Tied(tie)
    embedding = model.embed.weight.clone()
    _, (hidden, out, again) = initialised(model, example=torch.zeros(2, 3, dtype=torch.long))
    assert torch.equal(model.embed.weight, embedding)
    assert torch.equal(model.out.weight, embedding)
    assert out.note == "left alone: shared with embed"
    assert out.std == pytest.approx(embedding.std(correction=0).item())
    assert (model.out.bias == 0).all()
    assert (hidden.followed_by, hidden.note) == ("tanh", "")
    assert again.followed_by == "leaky_relu(0.1)"
    assert again.note == "shared with hidden, drawn for that"
    assert again.std == pytest.approx(hidden.std, rel=0.15)
    alone = nn.Linear(16, 16)
    nn.init.normal_(alone.weight, std=hidden.std, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.hidden.weight, alone.weight)
    assert str(init_for_leaky_relu_(model)).splitlines()[0].endswith("found by      note")


def test_a_bias_that_another_module_holds_is_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    nn.init.constant_(model[1].bias, 3.0)
    model[0].bias = model[1].bias
    initialised(model)
    assert (model[1].bias == 3).all()


@pytest.mark.parametrize("weight_norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_under_weight_norm_the_weight_it_computes_is_drawn(weight_norm, kind):
    """HiFi-GAN's constructor applies it."""
    model, plain = (nn.Sequential(kind(8, 8, 3), nn.LeakyReLU(0.1), kind(8, 8, 3)) for _ in range(2))
    for layer in model[::2]:
        weight_norm(layer)
    _, report = initialised(model, example=torch.randn(2, 8, 9))
    _, expected = initialised(plain, example=torch.randn(2, 8, 9))
    assert [each.note for each in report] == ["through its parametrization"] * 2
    for mine, its in zip(report, expected, strict=True):
        assert (mine.followed_by, mine.gain) == (its.followed_by, its.gain)
        assert mine.std == pytest.approx(its.std, rel=0.1)
    model(torch.randn(2, 8, 9)).sum().backward()
    for layer, other in zip(model[::2], plain[::2], strict=True):
        torch.testing.assert_close(layer.weight, other.weight)
        assert all(parameter.grad is not None for parameter in layer.parameters())
        assert (layer.bias == 0).all()


@pytest.mark.parametrize("spectral_norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore:.*spectral_norm")
def test_under_spectral_norm_the_largest_singular_value_is_1(spectral_norm, training):
    model = nn.Sequential(spectral_norm(nn.Linear(16, 16)), nn.LeakyReLU(0.1)).train(training)
    before = model[0].weight.detach().clone()
    _, (only,) = initialised(model)
    assert only.note == "through its parametrization"
    model(torch.randn(2, 16))
    weight = model[0].weight.detach()
    assert not torch.allclose(weight, before, atol=0.1)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1.0, rel=0.05)
    assert weight.std(correction=0).item() == pytest.approx(only.std, rel=0.05)


def test_frozen_parameters_are_drawn():
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).requires_grad_(False)
    initialised(model)
    assert model[0].weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.1)
    assert not model[0].weight.requires_grad


def test_a_compiled_part_is_looked_into():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[0] = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.3)), backend="eager")
    _, report = initialised(model, example=torch.randn(2, 4))
    assert [each.followed_by for each in report] == ["LeakyReLU(0.3)", "nothing"]


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


def test_modes_hooks_and_training_are_left_as_they_are():
    model = Net().eval()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    init_for_leaky_relu_(model)
    assert not model.training
    assert {name: set(vars(module)) for name, module in model.named_modules()} == {
        name: set(of) for name, of in before.items()
    }
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


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
