"""init_for_leaky_relu_ runs a copy of the model only, whatever the model does and holds."""

import random
import threading

import numpy
import pytest
import torch
from torch import nn

from initialised import initialised
from leakyrelu_ext.init import init_for_leaky_relu_

pytestmark = pytest.mark.cpu_only


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


@pytest.mark.parametrize("training", [True, False])
def test_modes_hooks_and_training_are_left_as_they_are(training):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.LeakyReLU(), nn.Dropout(), nn.Conv2d(8, 2, 3))
    model.train(training)[1].eval()
    modes = [module.training for module in model.modules()]
    before = [set(vars(module)) for module in model.modules()]
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    init_for_leaky_relu_(model, example=torch.randn(2, 3, 9, 9))
    assert [module.training for module in model.modules()] == modes
    assert [set(vars(module)) for module in model.modules()] == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
