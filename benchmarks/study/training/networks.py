"""Small networks for each kind of data; every activation is a module of its own, so that it can be watched."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..data import Dataset

WIDTHS = {"image": 16, "tokens": 32, "frames": 64, "features": 64}
EMBEDDED = 32
KERNEL = 3  # words or frames that a convolution sees
MLP_WIDTH = 64


def _activated(
    layer: nn.Module, features: int, activation: Callable[[], nn.Module], norm: type[nn.Module] | None, p: float
) -> list[nn.Module]:
    return [layer, *([norm(features)] if norm else []), activation(), *([nn.Dropout(p)] if p else [])]


class _Convolution(nn.Module):
    """Over time. Its norm, activation and dropout see only the steps that are there, as rows; elsewhere its output is 0."""

    def __init__(self, channels: int, width: int, activation: Callable[[], nn.Module], norm: bool, dropout_p: float) -> None:
        super().__init__()
        convolution = nn.Conv1d(channels, width, KERNEL, padding=KERNEL // 2, bias=not norm)
        self.convolution, *after = _activated(convolution, width, activation, nn.BatchNorm1d if norm else None, dropout_p)
        self.after = nn.Sequential(*after)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """``x``: ``(N, C, L)``, 0 where it is not ``there``, ``(N, L)``."""
        x = self.convolution(x).transpose(1, 2)
        return torch.zeros_like(x).index_put((there,), self.after(x[there])).transpose(1, 2)


class _Tokens(nn.Module):
    """Convolutions over embedded words, then the highest over the text.

    Kim: Convolutional Neural Networks for Sentence Classification, EMNLP 2014.
    """

    def __init__(self, vocabulary: int, layers: list[_Convolution], head: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMBEDDED, padding_idx=0)
        self.layers, self.head = nn.ModuleList(layers), head

    def forward(self, tokens: Tensor) -> Tensor:
        there = tokens != 0
        x = self.embedding(tokens).transpose(1, 2)
        for layer in self.layers:
            x = layer(x, there)
        there = there.unsqueeze(1)
        highest = x.masked_fill(~there, -torch.inf).amax(2)
        return self.head(highest.masked_fill(~there.any(2), 0.0))  # type: ignore[no-any-return]


class _Frames(nn.Module):
    """Convolutions over frames, then the mean and the highest of those that are there."""

    def __init__(self, layers: list[_Convolution], head: nn.Module) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(layers), head

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        there = torch.arange(frames.shape[2], device=frames.device) < lengths.unsqueeze(1)
        x = frames * there.unsqueeze(1)
        for layer in self.layers:
            x = layer(x, there)
        mean, highest = x.sum(2) / lengths.unsqueeze(1), x.masked_fill(~there.unsqueeze(1), -torch.inf).amax(2)
        return self.head(torch.cat((mean, highest), 1))  # type: ignore[no-any-return]


def _convolutions(
    channels: int, width: int, depth: int, activation: Callable[[], nn.Module], norm: bool, dropout_p: float
) -> list[_Convolution]:
    sizes = itertools.pairwise([channels] + [width] * depth)
    return [_Convolution(before, after, activation, norm, dropout_p) for before, after in sizes]


def _image(dataset: Dataset, width: int, depth: int, activation: Callable[[], nn.Module], norm: bool, p: float) -> nn.Module:
    """3x3 convolutions; the size is halved and the width doubled after each of the first two, while there are pixels."""
    layers: list[nn.Module] = []
    channels, side = 1, min(dataset.train.inputs[0].shape[2:])
    for number in range(depth):
        layer = nn.Conv2d(channels, width, 3, padding=1, bias=not norm)
        layers += _activated(layer, width, activation, nn.BatchNorm2d if norm else None, p)
        channels = width
        if number < 2 and side >= 4:
            layers.append(nn.MaxPool2d(2))
            side //= 2
            width *= 2
    layers += [nn.AdaptiveAvgPool2d(min(side, 4)), nn.Flatten(), nn.Linear(channels * min(side, 4) ** 2, dataset.classes)]
    return nn.Sequential(*layers)


def _mlp(dataset: Dataset, width: int, depth: int, activation: Callable[[], nn.Module], norm: bool, p: float) -> nn.Module:
    features = dataset.train.inputs[0][0].numel()
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise([features] + [width] * depth):
        layer = nn.Linear(before, after, bias=not norm)
        layers += _activated(layer, after, activation, nn.BatchNorm1d if norm else None, p)
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
    if plain or dataset.kind == "features":
        return _mlp(dataset, width, depth, activation, norm, dropout_p)
    if dataset.kind == "image":
        return _image(dataset, width, depth, activation, norm, dropout_p)
    if dataset.kind == "tokens":
        assert dataset.vocabulary is not None
        head = nn.Linear(width, dataset.classes)
        return _Tokens(dataset.vocabulary, _convolutions(EMBEDDED, width, depth, activation, norm, dropout_p), head)
    head = nn.Linear(2 * width, dataset.classes)
    return _Frames(_convolutions(dataset.train.inputs[0].shape[1], width, depth, activation, norm, dropout_p), head)
