"""LeakyReLU is nn.LeakyReLU's twin."""

import copy
import inspect
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cases
import leakyrelu_ext
from cases import assert_same_bits, randn
from leakyrelu_ext import LeakyReLU, leaky_relu

ARGUMENTS = [(), (0.2,), (0.2, True), (-1,)]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_same_repr_and_attributes(arguments):
    ours, builtin = LeakyReLU(*arguments), nn.LeakyReLU(*arguments)
    assert repr(ours) == repr(builtin)
    assert isinstance(ours, nn.LeakyReLU)
    assert (ours.negative_slope, ours.inplace) == (builtin.negative_slope, builtin.inplace)
    assert ours.state_dict() == builtin.state_dict() == {}


def test_same_signatures():
    assert inspect.signature(LeakyReLU) == inspect.signature(nn.LeakyReLU)
    assert list(inspect.signature(leaky_relu).parameters) == list(inspect.signature(F.leaky_relu).parameters)
    defaults = [parameter.default for parameter in inspect.signature(leaky_relu).parameters.values()]
    assert defaults == [parameter.default for parameter in inspect.signature(F.leaky_relu).parameters.values()]


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(copied, arguments):
    x = randn(10)
    module = LeakyReLU(*arguments)
    twin = copied(module)
    assert type(twin) is LeakyReLU
    assert repr(twin) == repr(module)
    assert_same_bits(twin(x.clone()), module(x.clone()))


def test_save_and_load():
    buffer = io.BytesIO()
    torch.save(nn.Sequential(nn.Linear(2, 2), LeakyReLU(0.3)), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=False)[1].negative_slope == 0.3


def test_slope_may_be_changed_later():
    module = LeakyReLU(0.1)
    module.negative_slope = 0.5
    assert module(torch.tensor([-2.0])).item() == -1.0


def test_loads_the_state_of_a_model_with_the_builtin():
    ours = nn.Sequential(nn.Linear(3, 3), LeakyReLU(0.2), nn.Linear(3, 1))
    builtin = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.2), nn.Linear(3, 1))
    ours.load_state_dict(builtin.state_dict())
    x = randn(5, 3)
    assert_same_bits(ours(x), builtin(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_as_the_builtin(dtype):
    linear, x = nn.Linear(8, 8), randn(4, 8)
    with torch.autocast(cases.DEVICE.type, dtype=dtype):
        actual, expected = LeakyReLU()(linear(x)), nn.LeakyReLU()(linear(x))
    assert actual.dtype == expected.dtype == dtype
    assert_same_bits(actual, expected)


def test_public_names():
    assert set(leakyrelu_ext.__all__) == {
        "LeakyReLU",
        "LeakyReLUFunction",
        "__version__",
        "build_info",
        "convert",
        "leaky_relu",
        "leaky_relu_",
        "revert",
        "set_compile_target",
        "stats",
    }
    for name in leakyrelu_ext.__all__:
        assert hasattr(leakyrelu_ext, name)


@torch.backends.cudnn.flags(enabled=True, deterministic=True)
def test_training_a_model_gives_the_builtins_weights():
    def train(activation):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), activation(0.2, True), nn.Conv2d(8, 4, 3), activation(0.1), nn.Flatten()
        )
        model = model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        x = randn(4, 3, 9, 9).contiguous(memory_format=torch.channels_last)
        for _ in range(5):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return list(model.parameters())

    for ours, builtin in zip(train(LeakyReLU), train(nn.LeakyReLU), strict=True):
        assert torch.equal(ours, builtin)
