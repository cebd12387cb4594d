"""The generator of HiFi-GAN, V1: Leaky ReLU 0.1 before every convolution but the first and the last, before the last 0.01.

Kong, Kim, Bae: HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech Synthesis, NeurIPS 2020, and
models.py, config_v1.json of jik876/hifi-gan. The 0.01 is F.leaky_relu's default in that code. No activation is in place:
the residual blocks add their input afterwards. Weight norm is folded into the weights, as that code does for inference.

Parameters: 13,926,017 folded (with weight norm's magnitudes 13,936,130).
Published: 13.92 M in the paper's table 1, which is 13.926 M cut off, not rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MELS = 80
_RATES = (8, 8, 2, 2)  # of upsampling; the kernels are twice as long
_KERNELS = (3, 7, 11)
_DILATIONS = (1, 3, 5)


def _conv(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)


class _Residuals(nn.Module):
    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(0.1), _conv(channels, kernel, dilation), nn.LeakyReLU(0.1), _conv(channels, kernel, 1)
            )
            for dilation in _DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x) + x
        return x


class _Fusion(nn.Module):
    """Multi-receptive field fusion: the mean of residual blocks of several kernel sizes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Residuals(channels, kernel) for kernel in _KERNELS)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.blocks[0](x)
        for block in self.blocks[1:]:
            total = total + block(x)
        return total / len(self.blocks)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
        nn.init.normal_(module.weight, 0.0, 0.01)


class Generator(nn.Module):
    def __init__(self, channels: int = 512) -> None:
        super().__init__()
        self.first = nn.Conv1d(_MELS, channels, 7, padding=3)
        stages: list[nn.Module] = []
        for rate in _RATES:
            up = nn.ConvTranspose1d(channels, channels // 2, 2 * rate, rate, padding=rate // 2)
            stages += [nn.LeakyReLU(0.1), up, _Fusion(channels // 2)]
            channels //= 2
        self.stages = nn.Sequential(*stages, nn.LeakyReLU(0.01))
        self.last = nn.Conv1d(channels, 1, 7, padding=3)
        self.stages.apply(_initialise)
        self.last.apply(_initialise)  # the first convolution keeps PyTorch's, as in the official code

    def forward(self, mel: Tensor) -> Tensor:
        """256 samples of sound per frame of the log-mel spectrogram."""
        return torch.tanh(self.last(self.stages(self.first(mel))))
