"""Small but whole models of kinds that are full of Leaky ReLU. ``activation``: the module; the GAT calls the function."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_block(channels: int, to: int, activation: type[nn.Module] = nn.LeakyReLU, stride: int = 1) -> nn.Sequential:
    """nnU-Net's: convolution, instance norm, Leaky ReLU 0.01 in place."""
    return nn.Sequential(
        nn.Conv2d(channels, to, 3, stride, 1), nn.InstanceNorm2d(to, affine=True), activation(0.01, inplace=True)
    )


class UNet(nn.Module):
    """Two levels of Isensee et al.: nnU-Net, Nature Methods 2021, in 2-D."""

    def __init__(self, activation: type[nn.Module] = nn.LeakyReLU) -> None:
        super().__init__()
        self.encode = nn.ModuleList([conv_block(1, 8, activation), conv_block(8, 16, activation, stride=2)])
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.decode = conv_block(16, 8, activation)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.encode[0](x)
        coarse = self.encode[1](fine)
        return self.head(self.decode(torch.cat([fine, self.up(coarse)], 1)))


class Discriminator(nn.Sequential):
    """Of Radford et al.: DCGAN, ICLR 2016; one instance of the activation shared by all layers."""

    def __init__(self, activation: type[nn.Module] = nn.LeakyReLU) -> None:
        shared = activation(0.2)
        super().__init__(
            nn.Conv2d(3, 8, 4, 2, 1), shared,
            nn.Conv2d(8, 16, 4, 2, 1), nn.BatchNorm2d(16), shared,
            nn.Conv2d(16, 1, 4),
        )  # fmt: skip


class GraphAttention(nn.Module):
    """One head of Veličković et al.: Graph Attention Networks, ICLR 2018, on a dense adjacency; calls the function."""

    def __init__(self, features: int, to: int, leaky_relu: Callable[..., Tensor] = F.leaky_relu) -> None:
        super().__init__()
        self.project = nn.Linear(features, to, bias=False)
        self.source, self.target = nn.Linear(to, 1), nn.Linear(to, 1)
        self.leaky_relu = leaky_relu

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = self.project(x)
        scores = self.leaky_relu(self.source(h) + self.target(h).transpose(0, 1), negative_slope=0.2)
        return torch.softmax(scores.masked_fill(adjacency == 0, float("-inf")), 1) @ h


def example_inputs(model: nn.Module) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, UNet):
        return (torch.randn(2, 1, 16, 16, generator=generator),)
    if isinstance(model, Discriminator):
        return (torch.randn(4, 3, 16, 16, generator=generator),)
    nodes = torch.randn(7, 5, generator=generator)
    return nodes, (torch.rand(7, 7, generator=generator) > 0.5) | torch.eye(7, dtype=torch.bool)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "U-Net": UNet,
    "discriminator": Discriminator,
    "GAT": lambda: GraphAttention(5, 4),
}
