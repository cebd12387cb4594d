"""What ActivationMonitor takes for a unit."""

import pytest
import torch
from torch import nn

from leakyrelu_ext.diagnostics import ActivationMonitor
from monitored import X, observed

pytestmark = pytest.mark.cpu_only


def test_units_of_convolutions_and_linears():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.act = nn.Linear(3, 6), nn.ReLU()
            self.conv, self.act2 = nn.Conv1d(6, 7, 1), nn.ReLU()

        def forward(self, x):
            return self.act2(self.conv(self.act(self.linear(x)).transpose(1, 2)))

    layers = observed(Tokens(), torch.randn(2, 5, 3))["layers"]
    assert [layer["units"] for layer in layers] == [6, 7]
    layers = observed(Tokens(), torch.randn(2, 5, 3), unit_dim=1)["layers"]
    assert [layer["units"] for layer in layers] == [5, 7]


class Between(nn.Module):
    """``layer``, ReLU, on (batch, time, channels); what the layer puts out beside its output is dropped."""

    def __init__(self, layer):
        super().__init__()
        self.norm, self.layer, self.act = nn.BatchNorm1d(9), layer, nn.ReLU()

    def forward(self, x):
        x = self.norm(x)  # of 9 channels: what came last but one does not count
        layer = self.layer
        if isinstance(layer, nn.Embedding):
            y = layer(x[..., 0].abs().long().clamp(max=1))
        else:
            y = layer(x, x, x) if isinstance(layer, nn.MultiheadAttention) else layer(x)
        y = y[0] if isinstance(y, tuple) else y
        return self.act(y - y.detach().amax((0, 1), keepdim=True) * torch.tensor([1, 0, 0, 1, 0, 0]))


LAYERS_OF_FEATURES = {
    "LSTM": lambda: nn.LSTM(6, 6, batch_first=True),
    "GRU": lambda: nn.GRU(6, 3, bidirectional=True, batch_first=True),
    "MultiheadAttention": lambda: nn.MultiheadAttention(6, 2, batch_first=True),
    "Embedding": lambda: nn.Embedding(2, 6),
    "LayerNorm": lambda: nn.LayerNorm(6),
    "RMSNorm": lambda: nn.RMSNorm(6),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
    "Linear": lambda: nn.Linear(6, 6),
}


@pytest.mark.parametrize("layer", LAYERS_OF_FEATURES.values(), ids=LAYERS_OF_FEATURES)
def test_units_of_batch_time_channels(layer):
    model = Between(layer())
    (found,) = [each for each in observed(model, torch.randn(4, 9, 6), backward=False)["layers"] if each["name"] == "act"]
    assert found["units"] == 6
    assert found["dead_units"] >= 2


class LayerNorm2d(nn.LayerNorm):
    """As in torchvision and timm: of the channels, which come first."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("norm", [nn.LayerNorm((3, 4, 5)), LayerNorm2d(3)])
def test_layer_norms_of_images_leave_channels_first(norm):
    model = nn.Sequential(norm, nn.ReLU())
    assert observed(model, torch.randn(2, 3, 4, 5))["layers"][0]["units"] == 3


@pytest.mark.parametrize("training", [True, False])
def test_units_after_a_transformer_in_both_modes(training):
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.ReLU()).train(training)
    with torch.set_grad_enabled(training):
        found = observed(model, torch.randn(4, 9, 6), backward=False)["layers"]
    assert found[-1]["units"] == 6


def test_a_transformer_keeps_its_faster_way():
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8), nn.ReLU()).eval()
    x = torch.randn(4, 9, 8)
    with torch.no_grad():
        expected = model(x)
        with ActivationMonitor(model), torch.profiler.profile() as profile:
            assert torch.equal(model(x), expected)
    called = {event.key for event in profile.key_averages()}
    assert "aten::_transformer_encoder_layer_fwd" in called


def test_units_that_change_are_not_guessed():
    (layer,) = observed(nn.ReLU(), torch.ones(2, 3), torch.ones(2, 4), backward=False)["layers"]
    assert (layer["units"], layer["dead_units"], layer["calls"]) == (None, None, 2)


def test_units_are_channels_again_after_a_reshape():
    generator = nn.Sequential(
        nn.Linear(5, 8 * 16),
        nn.Unflatten(1, (8, 4, 4)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4),
        nn.ReLU(),
    )
    assert [layer["units"] for layer in observed(generator, torch.randn(3, 5))["layers"]] == [8, 4]
    with pytest.raises(IndexError, match="argument 'unit_dim' is 3, but the input of the model has 2 dimensions"):
        observed(nn.ReLU(), X, unit_dim=3)
