"""Columns of text: one way for terminal, HTML page and Markdown to turn rows into cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .notation import NOTHING, plain

T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[T]):
    """``cell``: its text for one entry. ``verdict``: of the entry, where the cell is coloured by it."""

    heading: str
    cell: Callable[[T], str]
    number: bool = True
    verdict: Callable[[T], str] | None = None


def filled(columns: Sequence[Column[T]], entries: Sequence[T]) -> list[Column[T]]:
    """Without those that say nothing of any entry."""
    return [column for column in columns if any(column.cell(entry) not in ("", NOTHING) for entry in entries)]


def cells(columns: Sequence[Column[T]], entries: Sequence[T]) -> list[list[str]]:
    return [[plain(column.cell(entry)) for column in columns] for entry in entries]
