"""Models around one activation, and how a fused one is held against the original."""

import torch
from torch import nn

from cases import randn
from leakyrelu_ext import convert
from leakyrelu_ext.fusion import sum_leaky_relu


class Model(nn.Module):
    """``code(self, *inputs)`` over some layers."""

    def __init__(self, code, inplace=False, **layers):
        super().__init__()
        self.code = code
        self.conv, self.other = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.linear = nn.BatchNorm2d(4), nn.Linear(5, 5)
        self.act, self.drop = nn.LeakyReLU(0.2, inplace), nn.Dropout(0.4)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.code(self, x)


def fuse(model):
    lines = []
    converted = convert(model, copy=True, fuse=True, report=lines.append)
    return converted, [line for line in lines if "bias_leaky_relu" in line or "not fused" in line]


def calls(model):
    """How many fused calls ``model`` has."""
    return sum(node.target is sum_leaky_relu for node in model.graph.nodes) if hasattr(model, "graph") else 0


def image(dtype=torch.float32):
    return randn(2, 4, 5, 5, dtype=dtype)


def step(model, inputs):
    """Output, and gradients of inputs and parameters, for a gradient that does not depend on the output."""
    inputs = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    torch.manual_seed(0)
    output = model(*[x * 1 if x.requires_grad else x for x in inputs])  # models may overwrite their inputs
    wanted = [x for x in inputs if x.requires_grad] + list(model.parameters())
    grads = torch.autograd.grad(output, wanted, randn(*output.shape, dtype=output.dtype, seed=1), allow_unused=True)
    return [output, *grads]


def assert_same_step(actual_model, model, inputs, products):
    """Within 2 * k * u for each parameter on the way, k = products + 2 (see convert), of the largest value there is: a sum
    whose terms cancel is only as exact as they are."""
    expected_step = step(model, inputs)
    scale = max(float(t.detach().abs().max()) for t in expected_step if t is not None)
    for actual, expected in zip(step(actual_model, inputs), expected_step, strict=True):
        if expected is None:
            assert actual is None
            continue
        assert actual.dtype == expected.dtype
        tolerance = 2 * len(expected_step) * (products + 2) * torch.finfo(expected.dtype).eps / 2
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


LAYERS = {
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "Conv1d, unbatched": (lambda: nn.Conv1d(4, 6, 3), (4, 9)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 5, 6)),
    "Conv2d, unbatched": (lambda: nn.Conv2d(4, 6, 3), (4, 5, 6)),
    "Conv2d, as many channels as rows": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 6, 6)),
    "Conv2d, grouped, strided, dilated": (lambda: nn.Conv2d(4, 6, 3, 2, 2, 2, groups=2), (2, 4, 7, 9)),
    "Conv2d, padding='same'": (lambda: nn.Conv2d(4, 6, (3, 5), padding="same"), (2, 4, 7, 9)),
    "Conv2d, reflected": (lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (2, 4, 5, 6)),
    "Conv2d, circular": (lambda: nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular"), (2, 4, 5, 6)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 3, 5)),
    "Conv3d, unbatched": (lambda: nn.Conv3d(2, 3, 2), (2, 4, 3, 5)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, output_padding=1), (2, 4, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, (1, 0), 2, dilation=2), (2, 4, 5, 4)),
    "ConvTranspose2d, unbatched": (lambda: nn.ConvTranspose2d(4, 6, 2, 2), (4, 5, 4)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2, 2), (1, 2, 3, 2, 2)),
    "Linear": (lambda: nn.Linear(5, 7), (3, 5)),
    "Linear, 1-D": (lambda: nn.Linear(5, 7), (5,)),
    "Linear, 3-D": (lambda: nn.Linear(5, 7), (3, 7, 5)),
}


def products(layer):
    """At most so many per sum."""
    return layer.weight.numel() // (layer.weight.size(1) if isinstance(layer, nn.ConvTranspose2d) else 1)


def hooked(layer, register="register_forward_hook"):
    getattr(layer, register)(lambda *args: None)
    return layer


def drop_module(self, x):
    return self.drop(self.act(self.conv(x)))
