"""Darknet-53, the backbone of YOLOv3, as the classifier it is trained as: convolution, batch norm, Leaky ReLU 0.1 in place.

Redmon, Farhadi: YOLOv3: An Incremental Improvement, arXiv:1804.02767, table 1, and cfg/darknet53.cfg of pjreddie/darknet.
A residual is added after the activation, so nothing follows the sum. The last layer, a 1x1 convolution of the pooled
features, is a Linear here, and its softmax is left to the loss.

Parameters: 41,609,928 with the 1000 classes of ImageNet, 40,584,928 without that layer.
Published: the paper prints no count; timm's model card of darknet53 prints 41.6 M, Holocron's 40.6 M for 10 classes.
"""

from __future__ import annotations

from torch import Tensor, nn


def _conv(channels: int, to: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, to, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(to),
        nn.LeakyReLU(0.1, inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(_conv(channels, channels // 2, 1), _conv(channels // 2, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convs(x)
        return x + y


class Darknet53(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 32, 3)]
        width = 32
        for residuals in (1, 2, 8, 8, 4):
            layers += [_conv(width, 2 * width, 3, stride=2), *(_Residual(2 * width) for _ in range(residuals))]
            width *= 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(image).mean((2, 3)))
        return logits
