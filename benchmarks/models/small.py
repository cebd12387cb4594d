"""Small nets of layers that torch.compile can fuse with the activation."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from .model import Model, noise


def _convolutions(norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (3, 32, 32, 32):
        layers += [nn.Conv2d(channels, 32, 3, padding=1), *([nn.BatchNorm2d(32)] if norm else []), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(4))
        self.activation = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = self.activation(conv(x) + x)
        return x


def _perceptron(dropout_p: float = 0.0) -> nn.Module:
    layers: list[nn.Module] = []
    for features in (256, 1024):
        layers += [nn.Linear(features, 1024), nn.LeakyReLU(0.1), *([nn.Dropout(dropout_p)] if dropout_p else [])]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


NETS = (
    Model("4 x (conv, norm, activation)", partial(_convolutions, norm=True), noise(3, 64, 64), 4),
    Model("4 x (conv, norm, activation), large", partial(_convolutions, norm=True), noise(3, 128, 128), 8),
    Model("4 x (conv, activation)", partial(_convolutions, norm=False), noise(3, 64, 64), 4),
    Model("4 x (conv, activation), large", partial(_convolutions, norm=False), noise(3, 128, 128), 8),
    Model("4 x (conv, add, activation)", _Residual, noise(32, 64, 64), 4),
    Model("perceptron", _perceptron, noise(256), 512),
    Model("perceptron, dropout", partial(_perceptron, 0.1), noise(256), 512),
)
