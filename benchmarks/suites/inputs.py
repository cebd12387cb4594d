"""What the benchmark runs on: activations of real photographs, and normal noise of many sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SLOPE = 0.01
QUICK_SIZES = tuple(2**power for power in (6, 16, 20, 23))
SIZES = tuple(2**power for power in (6, 12, 16, 20, 22, 24))
FULL_SIZES = tuple(2**power for power in range(6, 27, 2))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True)
class Input:
    """A named tensor, made of some dtype when it is needed (the large ones should not all live at once)."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[torch.dtype], Tensor]
    layout: str = "contiguous"


def photographs() -> Tensor:
    """The two photographs that scikit-learn ships (china.jpg, flower.jpg), standardised per channel: [2, 3, 427, 640]."""
    from sklearn.datasets import load_sample_images

    images = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
    pixels = images.permute(0, 3, 1, 2).to(torch.float32).contiguous()
    mean, std = (of(pixels, (0, 2, 3), keepdim=True) for of in (torch.mean, torch.std))
    return (pixels - mean) / std


@torch.no_grad()
def conv_stem_activations(seed: int) -> tuple[Tensor, Tensor]:
    """What reaches the two Leaky ReLUs of a convolutional stem over the photographs.

    Conv 3->32 and 32->64, 3x3, stride 2, with He initialisation for the slope (He et al.: Delving Deep into Rectifiers,
    ICCV 2015). Returns [2, 32, 214, 320] and [2, 64, 107, 160], float32.
    """
    convs = [nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.Conv2d(32, 64, 3, stride=2, padding=1)]
    generator = torch.Generator().manual_seed(seed)
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight, a=SLOPE, nonlinearity="leaky_relu", generator=generator)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
    first = convs[0](photographs())
    second = convs[1](nn.functional.leaky_relu(first, SLOPE))
    return first, second


def real_inputs(seed: int, device: torch.device) -> list[Input]:
    first, second = (activation.to(device) for activation in conv_stem_activations(seed))
    last = second.contiguous(memory_format=torch.channels_last)
    named = {"stem 1": first, "stem 2": second, "stem 2, channels_last": last}
    layouts = ("contiguous", "contiguous", "channels_last")
    return [Input(f"photos, {name}", tuple(x.shape), x.to, of) for (name, x), of in zip(named.items(), layouts, strict=True)]


def _noise(seed: int, device: torch.device, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def layout_inputs(seed: int, device: torch.device) -> list[Input]:
    """2^20 elements of noise, not contiguous."""

    def channels_last(dtype: torch.dtype) -> Tensor:
        return _noise(seed, device, 8, 32, 64, 64).to(dtype, memory_format=torch.channels_last)

    def every_other_column(dtype: torch.dtype) -> Tensor:
        return _noise(seed, device, 64, 64, 512).to(dtype)[:, :, ::2]

    return [
        Input("2^20, channels_last", (8, 32, 64, 64), channels_last, "channels_last"),
        Input("2^20, x[:, :, ::2]", (64, 64, 256), every_other_column, "strided"),
    ]


def noise_inputs(seed: int, device: torch.device, sizes: Iterable[int]) -> Iterator[Input]:
    for size in sizes:
        name = f"noise, 2^{size.bit_length() - 1}"
        yield Input(name, (size,), lambda dtype, size=size: _noise(seed, device, size).to(dtype))  # type: ignore[misc]
