"""The discriminator of DCGAN: strided convolutions, batch norm, Leaky ReLU 0.2 in place.

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks,
ICLR 2016, as in PyTorch's example (pytorch/examples, dcgan; its tutorial has the same layers): 64 features, 3x64x64 images,
convolutions without biases, weights drawn with a standard deviation of 0.02.

Parameters: 2,765,568. Published: the paper prints no count; 2,765,568 is what torchsummary prints of the example.
"""

from __future__ import annotations

from torch import Tensor, nn


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class Discriminator(nn.Module):
    def __init__(self, features: int = 64, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for width in (features, 2 * features, 4 * features):
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * features, 1, 4, bias=False), nn.Sigmoid())
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """The probability that an image of 64x64 pixels is real."""
        probability: Tensor = self.layers(image)
        return probability.flatten()
