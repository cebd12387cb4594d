"""Which cases the arguments of a command leave."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable


class NothingToDoError(ValueError):
    """The arguments leave nothing to measure, or nothing that can be; the message says which."""


def named(arguments: Namespace, what: str, names: Iterable[str]) -> list[str]:
    """Those with ``--only`` in them; ``what`` they are.

    Raises:
        NothingToDoError: there is none.
    """
    wanted = [name for name in names if arguments.only in name]
    if not wanted:
        raise NothingToDoError(f"argument --only: no {what} has {arguments.only!r} in its name")
    return wanted
