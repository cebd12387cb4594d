"""The generator of ESRGAN, RRDBNet x4: densely connected convolutions without norms, Leaky ReLU 0.2 in place.

Wang, Yu, Wu, Gu, Liu, Dong, Qiao, Loy: ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, ECCV workshops
2018, and RRDBNet_arch.py of xinntao/ESRGAN: 23 blocks, 64 features, growth 32. As there, the layers of a dense block share
one activation. The weights of the dense blocks start at a tenth of He's ("smaller initialization" in the paper).

Parameters: 16,697,987. Published: 16.7 M, and to the digit 16,697,987, in many write-ups of (Real-)ESRGAN; not in the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _DenseBlock(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        widths = [growth] * 4 + [features]
        self.convs = nn.ModuleList(nn.Conv2d(features + i * growth, to, 3, 1, 1) for i, to in enumerate(widths))
        self.activation = nn.LeakyReLU(0.2, inplace=True)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            with torch.no_grad():
                conv.weight.mul_(0.1)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for conv in self.convs[:-1]:
            outputs.append(self.activation(conv(torch.cat(outputs, 1))))
        last: Tensor = self.convs[-1](torch.cat(outputs, 1))
        return last * 0.2 + x


class _ResidualInResidual(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_DenseBlock(features, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(x)
        return y * 0.2 + x


class RRDBNet(nn.Module):
    def __init__(self, blocks: int = 23, features: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, features, 3, 1, 1)
        self.trunk = nn.Sequential(
            *(_ResidualInResidual(features, growth) for _ in range(blocks)), nn.Conv2d(features, features, 3, 1, 1)
        )
        self.up = nn.ModuleList(nn.Conv2d(features, features, 3, 1, 1) for _ in range(2))
        self.refine = nn.Conv2d(features, features, 3, 1, 1)
        self.last = nn.Conv2d(features, 3, 3, 1, 1)
        self.activation = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        """The image at four times its height and width."""
        x: Tensor = self.first(image)
        x = x + self.trunk(x)
        for conv in self.up:
            x = self.activation(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        enlarged: Tensor = self.last(self.activation(self.refine(x)))
        return enlarged
