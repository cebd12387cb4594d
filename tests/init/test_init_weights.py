"""Weights that are shared, sharded, frozen, or computed from others."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initialised import initialised
from leakyrelu_ext.init import init_for_leaky_relu_

pytestmark = pytest.mark.cpu_only


@pytest.mark.usefixtures("process_group")
def test_sharded_layers_are_not_taken_for_one():
    from torch.distributed.tensor import distribute_module

    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    model = distribute_module(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), mesh)
    before = model[2].weight.full_tensor().clone()
    report = init_for_leaky_relu_(model)
    assert [each.note for each in report] == ["", ""]
    assert not torch.equal(model[2].weight.full_tensor(), before)


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
