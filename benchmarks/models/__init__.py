"""Published architectures that are full of Leaky ReLU, each in its own file, from its paper and its authors' code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .darknet53 import Darknet53
from .dcgan import Discriminator
from .esrgan import RRDBNet
from .gat import GAT, random_graphs
from .hifigan import Generator
from .nnunet import PlainConvUNet


@dataclass(frozen=True)
class Model:
    """``published``: the parameter count that ``source`` prints; ``tolerance``: what its digits leave open, a fraction."""

    name: str
    paper: str
    make: Callable[[], nn.Module]  # with nn.LeakyReLU, weights from torch's generator: seed it before
    inputs: Callable[[int, torch.Generator], tuple[Tensor, ...]]  # (batch size, generator) -> the model's arguments
    batch: int
    published: float | None
    tolerance: float
    source: str


def _noise(*shape: int) -> Callable[[int, torch.Generator], tuple[Tensor, ...]]:
    return lambda batch, generator: (torch.randn(batch, *shape, generator=generator),)


MODELS: tuple[Model, ...] = (
    Model(
        name="nnU-Net 3-D",
        paper="Isensee et al.: nnU-Net, Nature Methods 2021",
        make=lambda: PlainConvUNet(3, stages=6, max_features=320),
        inputs=_noise(1, 64, 32, 32),  # the least that leaves instance norm two elements at the bottom
        batch=1,
        published=31.2e6,
        tolerance=0.05 / 31.2,
        source="MASILab/3DUX-Net, README, of Lee et al.: 3D UX-Net, ICLR 2023",
    ),
    Model(
        name="nnU-Net 2-D",
        paper="Isensee et al.: nnU-Net, Nature Methods 2021",
        make=lambda: PlainConvUNet(2, stages=8, max_features=512),
        inputs=_noise(1, 256, 256),  # with two elements at the bottom its signs, so gradients, hang on rounding
        batch=1,
        published=None,
        tolerance=0.0,
        source="none found",
    ),
    Model(
        name="DCGAN discriminator",
        paper="Radford et al.: DCGAN, ICLR 2016",
        make=Discriminator,
        inputs=_noise(3, 64, 64),
        batch=16,
        published=2_765_568,
        tolerance=0.0,
        source="torchsummary of PyTorch's example, as widely printed",
    ),
    Model(
        name="Darknet-53",
        paper="Redmon, Farhadi: YOLOv3, arXiv:1804.02767",
        make=Darknet53,
        inputs=_noise(3, 256, 256),
        batch=1,
        published=41.6e6,
        tolerance=0.05 / 41.6,
        source="timm's model card of darknet53.c2ns_in1k",
    ),
    Model(
        name="ESRGAN",
        paper="Wang et al.: ESRGAN, ECCV workshops 2018",
        make=RRDBNet,
        inputs=_noise(3, 16, 16),
        batch=1,
        published=16_697_987,
        tolerance=0.0,
        source="write-ups of ESRGAN and Real-ESRGAN",
    ),
    Model(
        name="HiFi-GAN V1",
        paper="Kong et al.: HiFi-GAN, NeurIPS 2020",
        make=Generator,
        inputs=_noise(80, 32),  # the 8192 samples that it is trained on
        batch=1,
        published=13.92e6,
        tolerance=0.01 / 13.92,  # cut off, not rounded
        source="table 1 of the paper",
    ),
    Model(
        name="GAT",
        paper="Veličković et al.: GAT, ICLR 2018",
        make=GAT,
        inputs=random_graphs,
        batch=1,
        published=92_373,
        tolerance=0.0,
        source="Keras summary of a GAT on Cora, as printed in tutorials",
    ),
)


def loss(output: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """Something to differentiate: the mean of squares, of several outputs (deep supervision) the sum of theirs."""
    outputs = (output,) if isinstance(output, Tensor) else output
    return torch.stack([each.square().mean() for each in outputs]).sum()
