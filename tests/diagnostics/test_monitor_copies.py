"""Copies of a model that an ActivationMonitor watches are not watched."""

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn

from leakyrelu_ext.diagnostics import ActivationMonitor

pytestmark = pytest.mark.cpu_only


def saved_and_loaded(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved_and_loaded,
    "AveragedModel": lambda model: torch.optim.swa_utils.AveragedModel(model).module,
    "in a parent": lambda model: copy.deepcopy(nn.ModuleList([nn.Tanh(), model]))[1],
}


class CopiedWithin(nn.Module):
    """In its forward, where what is in it has hooks, too."""

    def __init__(self, make):
        super().__init__()
        self.layers, self.make, self.copies = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), make, []

    def forward(self, x):
        y = self.layers(x)
        self.copies.append(self.make(self.layers))
        return y


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_is_not_watched(make):
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4)
    model.register_forward_hook(user_hook)
    within = CopiedWithin(make)
    with ActivationMonitor(model) as monitor, ActivationMonitor(within):
        copied = make(model)
        within(x)
        assert torch.equal(copied(x), model(x))
    assert monitor.to_dict()["forwards"] == 1
    assert list(copied._forward_hooks.values()) == [user_hook]
    for module in (copied, *copied, *within.copies, *within.copies[0]):
        assert not module._forward_pre_hooks
        assert not module._forward_pre_hooks_with_kwargs
        assert not module._forward_hooks_always_called
        assert "__reduce_ex__" not in vars(module)
    for module in (*copied, *within.copies, *within.copies[0]):
        assert not module._forward_hooks
    for module in (*model.modules(), *within.modules()):
        assert "__reduce_ex__" not in vars(module)
    copied.register_forward_hook(user_hook).remove()


def user_hook(module, args, output):
    pass


class DeepCopiesItsDict(nn.Sequential):
    def __deepcopy__(self, memo):
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return new


class StateWithoutHooks(nn.Sequential):
    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_forward_pre_hooks"}


class StateInATuple(nn.Sequential):
    def __getstate__(self):
        return vars(self), 1

    def __setstate__(self, state):
        super().__setstate__(state[0])


@pytest.mark.parametrize("kind", [nn.Sequential, DeepCopiesItsDict, StateWithoutHooks, StateInATuple])
@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_is_a_model_of_its_own(make, kind):
    model, x = kind(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4)
    with ActivationMonitor(model) as monitor:
        copied = make(model)
        if make is not copy.copy:
            nn.init.constant_(copied[0].weight, 7.0)
            assert (saved_and_loaded(copied)[0].weight == 7).all()
        copied(x)
    assert monitor.to_dict()["forwards"] == (1 if make is copy.copy and kind in (DeepCopiesItsDict, StateInATuple) else 0)
    again = saved_and_loaded(copied)
    assert torch.equal(again[0].weight, copied[0].weight)
    again(x)


def test_two_monitors_of_one_model():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4)
    first, second = ActivationMonitor(model), ActivationMonitor(model)
    with first:
        with second:
            model(x)
        assert not copy.deepcopy(model)._forward_pre_hooks
        model(x)
    assert [monitor.to_dict()["forwards"] for monitor in (first, second)] == [2, 1]


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_graph_module_copies_itself_in_its_own_way(make):
    model = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    with ActivationMonitor(model) as monitor:
        monitor.lock = threading.Lock()  # so that a copy of the monitor would raise
        copied = make(model)
        copied(torch.randn(8, 4))
    assert monitor.to_dict()["forwards"] == 0
    copied.register_forward_hook(user_hook).remove()
    copy.deepcopy(copied)
