"""Somebody else's U-Net, leaner with one line: leakyrelu_ext.convert(net). Prints what a step keeps before and after.

Takes nnU-Net's PlainConvUNet if dynamic-network-architectures is installed, else a plain U-Net.
"""

import torch
from torch import Tensor, nn

import leakyrelu_ext

try:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
except ImportError:
    PlainConvUNet = None


class UNet(nn.Module):
    """Somebody else's code: nothing in it knows of leakyrelu_ext."""

    def __init__(self, channels: int = 1, classes: int = 2, width: int = 16) -> None:
        super().__init__()
        self.down = nn.ModuleList([self.stage(channels, width), self.stage(width, 2 * width)])
        self.bottom = self.stage(2 * width, 4 * width)
        self.up = nn.ModuleList([self.stage(6 * width, 2 * width), self.stage(3 * width, width)])
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def stage(channels: int, to: int) -> nn.Sequential:
        convs = nn.Conv2d(channels, to, 3, padding=1), nn.Conv2d(to, to, 3, padding=1)
        return nn.Sequential(*(m for conv in convs for m in (conv, nn.InstanceNorm2d(to, affine=True), nn.LeakyReLU(0.01))))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for stage in self.up:
            x = nn.functional.interpolate(x, scale_factor=2)
            x = stage(torch.cat([x, skips.pop()], 1))
        return self.head(x)


def somebody_elses() -> nn.Module:
    if PlainConvUNet is None:
        return UNet()
    norm = {"norm_op": nn.InstanceNorm2d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
    return PlainConvUNet(1, 3, (16, 32, 64), nn.Conv2d, 3, (1, 2, 2), (2, 2, 2), 2, (2, 2), **norm)


def step(net: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor], int]:
    """The output, the gradients, and the bytes kept for the backward."""
    kept, parameters = {}, {p.data_ptr() for p in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):
        output = net(images)
    gradients = torch.autograd.grad(output.square().mean(), list(net.parameters()), allow_unused=True)
    used = [gradient for gradient in gradients if gradient is not None]
    return output.detach(), used, sum(nbytes for place, nbytes in kept.items() if place not in parameters)


torch.manual_seed(0)
net, images = somebody_elses(), torch.randn(4, 1, 96, 96)
before = step(net, images)
leakyrelu_ext.convert(net)  # the one line; leakyrelu_ext.install() does it for the whole process, F.leaky_relu included
after = step(net, images)
print(f"{type(net).__name__}: a step keeps {before[2] / 2**20:.1f} MiB before, {after[2] / 2**20:.1f} MiB after")
print("outputs are the same bits:", torch.equal(before[0], after[0]))
print("gradients are the same bits:", all(map(torch.equal, before[1], after[1])))
