"""A function in a process of its own, whose messages come back one by one.

Where a process's code, heap and pages come to lie decides small things and some large ones (a tenth of a call's time, which
of two states a large tensor is in) for as long as it lives. A run in one process cannot see that; the next one then differs
by more than all its rounds did. Kalibera, Jones: Rigorous Benchmarking in Reasonable Time, ISMM 2013.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from .parent import belong_to, interrupts_held


class PassError(RuntimeError):
    """A process ended as it should not; the message is a line."""


def _run(function: Callable[..., None], connection: Connection, parent: int, arguments: tuple[Any, ...]) -> None:
    belong_to(parent)
    function(connection.send, *arguments)


@contextlib.contextmanager
def child(function: Callable[..., None], *arguments: Any) -> Iterator[Callable[[str], Any]]:
    """Runs ``function(send, *arguments)`` in a new process; yields a function that receives the next message.

    That takes what to call the process if it has ended, which raises PassError; an exception that was sent it raises, too.
    The block ends with the process; an exception in it, or the end of this process, kills that one.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(function, theirs, os.getpid(), arguments))

    def receive(name: str) -> Any:
        try:
            message = ours.recv()
        except EOFError:
            process.join()
            raise PassError(f"{name} ended with exit code {process.exitcode}") from None
        if isinstance(message, Exception):
            raise message
        return message

    try:
        with interrupts_held():
            process.start()
            theirs.close()
        yield receive
        process.join()
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        ours.close()
