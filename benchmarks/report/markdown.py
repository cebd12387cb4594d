"""Markdown of what files of results hold."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from ..results import Measured
from .notation import page_faults, plain
from .table import Column, Table

T = TypeVar("T")


def where(run: Measured) -> str:
    """When, on what and with what ``run`` was measured, in a line; what its file does not say is left out."""
    facts = run.environment

    def fact(name: str, form: str = "{}") -> str:
        value = facts.get(name)
        return form.format(value) if value not in (None, "") else ""

    faults = page_faults(facts)
    parts = (
        str(facts.get("started") or "")[:10],
        fact("device"),
        fact("threads", "{} threads") if facts.get("threads") != 1 else "1 thread",
        fact("cpu_tier", "{} kernels"),
        fact("torch", "torch {}"),
        fact("commit", "commit {}"),
        fact("huge_pages", "transparent huge pages: {}"),
        faults and f"page faults at {faults}",
        "interrupted: rows are missing" if run.interrupted else "",
    )
    return plain(", ".join(part for part in parts if part))


def text(value: object) -> str:
    """Of what a file of results holds, Markdown that shows it as it is, in a table too."""
    return re.sub(r"([\\`*\[\]|~$]|\b_|_\b)", r"\\\1", html.escape(plain(value), quote=False))


def table(headings: Sequence[str], lines: Iterable[Sequence[str]], texts: int) -> str:
    """``texts``: how many columns come before those of numbers."""
    rule = "|" + "---|" * texts + "--:|" * (len(headings) - texts)
    written = ["| " + " | ".join(cells) + " |" for cells in ([text(heading) for heading in headings], *lines)]
    return "\n".join([written[0], rule, *written[1:]])


def of(columns: Sequence[Column[T]], entries: Sequence[T]) -> str:
    """A table without columns that say nothing; those of texts come first."""
    filled = Table.filled(columns, entries)
    rows = [list(map(text, cells)) for cells in filled.rows]
    return table([column.heading for column in filled.columns], rows, sum(not column.number for column in filled.columns))
