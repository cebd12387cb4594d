"""A small GAN on scikit-learn's digits (8x8 pixels): bias and Leaky ReLU in one pass, one bit kept of each element.

Prints what the discriminator keeps for its backward with PyTorch's ops and with BiasLeakyReLU, and how far generated
images are from the nearest real digit before and after training.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from leakyrelu_ext import BiasLeakyReLU

STEPS, BATCH, NOISE = 400, 64, 16

torch.manual_seed(0)
torch.set_num_threads(1)  # the network is small: threads would mostly wait
real = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 8 - 1  # from -1 to 1

# The layers before have no bias: BiasLeakyReLU adds it, with a gain of sqrt(2), which keeps the variance.
generator = nn.Sequential(
    nn.Linear(NOISE, 128, bias=False), BiasLeakyReLU(128, dim=-1),
    nn.Linear(128, 128, bias=False), BiasLeakyReLU(128, dim=-1),
    nn.Linear(128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)),
)  # fmt: skip
discriminator = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False), BiasLeakyReLU(16),
    nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), BiasLeakyReLU(32),
    nn.Flatten(), nn.Linear(32 * 4 * 4, 1),
)  # fmt: skip


class PlainBiasLeakyReLU(nn.Module):  # the same of PyTorch's own ops
    def __init__(self, bias: nn.Parameter) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x + self.bias.view(-1, 1, 1), 0.2) * 2**0.5


def saved_bytes(network: nn.Module) -> int:
    saved = {}  # by address
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):
        network(real[:BATCH])
    return sum(saved.values())


@torch.no_grad()
def distance() -> float:
    fakes = generator(torch.randn(500, NOISE)).flatten(1)
    return torch.cdist(fakes, real.flatten(1)).amin(1).mean().item()


plain = nn.Sequential(*(PlainBiasLeakyReLU(m.bias) if isinstance(m, BiasLeakyReLU) else m for m in discriminator))
assert torch.allclose(plain(real), discriminator(real), atol=1e-5)
print("the discriminator keeps", saved_bytes(plain), "bytes with PyTorch's ops,", saved_bytes(discriminator), "with ours")
print(f"before training: generated images are {distance():.2f} from the nearest real digit")
for_generator = torch.optim.Adam(generator.parameters(), 1e-3, (0.5, 0.9))
for_discriminator = torch.optim.Adam(discriminator.parameters(), 1e-3, (0.5, 0.9))
for _ in range(STEPS):
    digits, fakes = real[torch.randint(len(real), (BATCH,))], generator(torch.randn(BATCH, NOISE))
    for_discriminator.zero_grad()
    (F.softplus(-discriminator(digits)) + F.softplus(discriminator(fakes.detach()))).mean().backward()
    for_discriminator.step()
    for_generator.zero_grad()
    F.softplus(-discriminator(fakes)).mean().backward()
    for_generator.step()
print(f"after {STEPS} steps: {distance():.2f}")
