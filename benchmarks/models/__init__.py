"""Published architectures that are full of Leaky ReLU, each in its own file, from its paper and its authors' code."""

from __future__ import annotations

from functools import partial

from .darknet53 import Darknet53
from .dcgan import Discriminator
from .esrgan import RRDBNet
from .gat import GAT, random_graphs
from .hifigan import Generator
from .model import Model, loss, noise
from .nnunet import PlainConvUNet

__all__ = ["MODELS", "Model", "loss"]

_NNUNET = "Isensee et al.: nnU-Net, Nature Methods 2021"

MODELS: tuple[Model, ...] = (
    Model(
        "nnU-Net 3-D",
        partial(PlainConvUNet, 3, stages=6, max_features=320),
        noise(1, 64, 32, 32),  # the least that leaves instance norm two elements at the bottom
        paper=_NNUNET,
        published="31.2 M",
        source="MASILab/3DUX-Net, README, of Lee et al.: 3D UX-Net, ICLR 2023",
    ),
    Model(
        "nnU-Net 2-D",
        partial(PlainConvUNet, 2, stages=8, max_features=512),
        noise(1, 256, 256),  # with two elements at the bottom its signs, so gradients, hang on rounding
        paper=_NNUNET,
        source="none found",
    ),
    Model(
        "DCGAN discriminator",
        Discriminator,
        noise(3, 64, 64),
        batch=16,
        paper="Radford et al.: DCGAN, ICLR 2016",
        published="2,765,568",
        source="torchsummary of PyTorch's example, as widely printed",
    ),
    Model(
        "Darknet-53",
        Darknet53,
        noise(3, 256, 256),
        paper="Redmon, Farhadi: YOLOv3, arXiv:1804.02767",
        published="41.6 M",
        source="timm's model card of darknet53.c2ns_in1k",
    ),
    Model(
        "ESRGAN",
        RRDBNet,
        noise(3, 16, 16),
        paper="Wang et al.: ESRGAN, ECCV workshops 2018",
        published="16,697,987",
        source="write-ups of ESRGAN and Real-ESRGAN",
    ),
    Model(
        "HiFi-GAN V1",
        Generator,
        noise(80, 32),  # the 8192 samples that it is trained on
        paper="Kong et al.: HiFi-GAN, NeurIPS 2020",
        published="13.92 M",  # cut off, not rounded
        source="table 1 of the paper",
    ),
    Model(
        "GAT",
        GAT,
        random_graphs,
        paper="Veličković et al.: GAT, ICLR 2018",
        published="92,373",
        source="Keras summary of a GAT on Cora, as printed in tutorials",
    ),
)
