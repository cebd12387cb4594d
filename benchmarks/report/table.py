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


@dataclass(frozen=True)
class Table(Generic[T]):
    columns: Sequence[Column[T]]
    entries: Sequence[T]

    @classmethod
    def filled(cls, columns: Sequence[Column[T]], entries: Sequence[T]) -> Table[T]:
        """Without columns that say nothing of any entry."""
        told = [column for column in columns if any(column.cell(entry) not in ("", NOTHING) for entry in entries)]
        return cls(told, entries)

    @property
    def rows(self) -> list[list[str]]:
        return [[plain(column.cell(entry)) for column in self.columns] for entry in self.entries]
