"""Small networks for each kind of data; every activation is a module of its own, so that it can be watched."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data import Dataset

WIDTHS = {"image": 16, "tokens": 32, "frames": 64, "features": 64}
EMBEDDED = 32
KERNEL = 3  # words or frames that a convolution sees
MLP_WIDTH = 64


@dataclass(frozen=True)
class _Hidden:
    """What a hidden layer is followed by."""

    activation: Callable[[], nn.Module]
    norm: bool
    dropout_p: float

    def after(self, features: int, norm: type[nn.Module]) -> list[nn.Module]:
        norms = [norm(features)] if self.norm else []
        return [*norms, self.activation(), *([nn.Dropout(self.dropout_p)] if self.dropout_p else [])]


class _Convolution(nn.Module):
    """Over time. Its norm, activation and dropout see only the steps that are there, as rows; elsewhere its output is 0."""

    def __init__(self, channels: int, width: int, hidden: _Hidden) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, width, KERNEL, padding=KERNEL // 2, bias=not hidden.norm)
        self.after = nn.Sequential(*hidden.after(width, nn.BatchNorm1d))

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """``x``: ``(N, C, L)``, 0 where it is not ``there``, ``(N, L)``."""
        x = self.convolution(x).transpose(1, 2)
        return torch.zeros_like(x).index_put((there,), self.after(x[there])).transpose(1, 2)


class _OverTime(nn.Module):
    """Convolutions over frames or embedded words, then the highest of those that are there, of frames the mean, too.

    Kim: Convolutional Neural Networks for Sentence Classification, EMNLP 2014.
    """

    def __init__(self, dataset: Dataset, width: int, depth: int, hidden: _Hidden) -> None:
        super().__init__()
        words = dataset.vocabulary
        head = nn.Linear(width if words else 2 * width, dataset.classes)
        channels = EMBEDDED if words else dataset.train.inputs[0].shape[1]
        sizes = itertools.pairwise([channels] + [width] * depth)
        self.layers = nn.ModuleList(_Convolution(before, after, hidden) for before, after in sizes)
        self.embedding = nn.Embedding(words, EMBEDDED, padding_idx=0) if words else None
        self.head = head  # drawn first, but the last of the modules

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``x``: words ``(N, L)``, 0 where there is none, or frames ``(N, C, L)`` and their ``lengths``."""
        if self.embedding is not None:
            there = x != 0
            x = self.embedding(x).transpose(1, 2)
        else:
            assert lengths is not None
            there = torch.arange(x.shape[2], device=x.device) < lengths.unsqueeze(1)
            x = x * there.unsqueeze(1)
        for layer in self.layers:
            x = layer(x, there)
        there = there.unsqueeze(1)
        pooled = x.masked_fill(~there, -torch.inf).amax(2).masked_fill(~there.any(2), 0.0)
        if lengths is not None:
            pooled = torch.cat((x.sum(2) / lengths.unsqueeze(1), pooled), 1)
        return self.head(pooled)  # type: ignore[no-any-return]


def _image(dataset: Dataset, width: int, depth: int, hidden: _Hidden) -> nn.Module:
    """3x3 convolutions; the size is halved and the width doubled after each of the first two, while there are pixels."""
    layers: list[nn.Module] = []
    channels, side = 1, min(dataset.train.inputs[0].shape[2:])
    for number in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=not hidden.norm), *hidden.after(width, nn.BatchNorm2d)]
        channels = width
        if number < 2 and side >= 4:
            layers.append(nn.MaxPool2d(2))
            side //= 2
            width *= 2
    layers += [nn.AdaptiveAvgPool2d(min(side, 4)), nn.Flatten(), nn.Linear(channels * min(side, 4) ** 2, dataset.classes)]
    return nn.Sequential(*layers)


def _mlp(dataset: Dataset, width: int, depth: int, hidden: _Hidden) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise([dataset.train.inputs[0][0].numel()] + [width] * depth):
        layers += [nn.Linear(before, after, bias=not hidden.norm), *hidden.after(after, nn.BatchNorm1d)]
    return nn.Sequential(*layers, nn.Linear(width, dataset.classes))


def build(
    dataset: Dataset,
    activation: Callable[[], nn.Module],
    *,
    depth: int,
    width: int | None = None,
    norm: bool = False,
    dropout_p: float = 0.0,
    plain: bool = False,
) -> nn.Module:
    """A network from ``dataset``'s inputs to logits ``(N, classes)``, with ``depth`` hidden layers.

    ``width``: of the hidden layers (images: of the first). ``norm``: batch norm before each activation. ``dropout_p``: after
    each. ``plain``: a perceptron over all that an image or a row of features has. Weights come from torch's generator.

    Raises:
        ValueError: ``depth`` or ``width`` is below 1, or ``plain`` is for inputs of several lengths.
    """
    width = width if width is not None else MLP_WIDTH if plain else WIDTHS[dataset.kind]
    if depth < 1 or width < 1:
        raise ValueError(f"depth and width must be at least 1, got {depth} and {width}")
    if plain and dataset.kind not in ("image", "features"):
        raise ValueError(f"a plain perceptron is for images and features, {dataset.name} has {dataset.kind}")
    hidden = _Hidden(activation, norm, dropout_p)
    if plain or dataset.kind == "features":
        return _mlp(dataset, width, depth, hidden)
    return (_image if dataset.kind == "image" else _OverTime)(dataset, width, depth, hidden)
