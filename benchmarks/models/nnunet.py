"""nnU-Net's plain U-Net, 2-D and 3-D: convolution, instance norm, Leaky ReLU 0.01 in place.

Isensee, Jaeger, Kohl, Petersen, Maier-Hein: nnU-Net: a self-configuring method for deep learning-based biomedical image
segmentation, Nature Methods 2021. The widths (32, doubled up to 320 in 3-D, to 512 in 2-D), two convolutions per stage and
a head at every resolution of the decoder (deep supervision) are the defaults of nnU-Net v2's planner. The number of stages
follows from the patch: 6 down from 128^3 voxels, 8 down from 512^2 pixels; an anisotropic data set gets other kernels.

Parameters with one input channel and two classes: 31,195,594 (3-D), 46,324,558 (2-D).
Published, 3-D: 31.2 M, by the authors of 3D UX-Net (README of MASILab/3DUX-Net; Lee et al., ICLR 2023) and widely since.
Channels and classes hardly move it: 31,206,864 with the 16 classes of AMOS. 2-D: none found for 8 stages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def _stage(dims: int, channels: int, to: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _CONV[dims](channels, to, 3, stride, 1), _NORM[dims](to, affine=True), nn.LeakyReLU(0.01, inplace=True),
        _CONV[dims](to, to, 3, 1, 1), _NORM[dims](to, affine=True), nn.LeakyReLU(0.01, inplace=True),
    )  # fmt: skip


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (*_CONV.values(), *_UP.values())):
        nn.init.kaiming_normal_(module.weight, a=0.01)  # type: ignore[arg-type]
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


class PlainConvUNet(nn.Module):
    def __init__(self, dims: int, stages: int, max_features: int, channels: int = 1, classes: int = 2) -> None:
        super().__init__()
        widths = [min(32 * 2**stage, max_features) for stage in range(stages)]
        self.encoder = nn.ModuleList(
            _stage(dims, before, width, 2 if stage else 1)
            for stage, (before, width) in enumerate(zip([channels, *widths[:-1]], widths, strict=True))
        )
        steps = [(widths[stage + 1], widths[stage]) for stage in reversed(range(stages - 1))]
        self.up = nn.ModuleList(_UP[dims](below, width, 2, 2) for below, width in steps)
        self.decoder = nn.ModuleList(_stage(dims, 2 * width, width, 1) for _, width in steps)
        self.heads = nn.ModuleList(_CONV[dims](width, classes, 1) for _, width in steps)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The logits at every resolution of the decoder, the finest first."""
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        logits = []
        for up, stage, head, skip in zip(self.up, self.decoder, self.heads, reversed(skips[:-1]), strict=True):
            x = stage(torch.cat([up(x), skip], 1))
            logits.append(head(x))
        return logits[::-1]
