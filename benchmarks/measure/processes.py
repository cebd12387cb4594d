"""Child processes that do not outlive the one that started them, and leave Ctrl-C to it; measuring in such ones.

Where a process's code, heap and pages come to lie decides small things and some large ones (a tenth of a call's time, which
of two states a large tensor is in) for as long as it lives. A run in one process cannot see that; the next one then differs
by more than all its rounds did. Kalibera, Jones: Rigorous Benchmarking in Reasonable Time, ISMM 2013.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent(parent: int) -> None:
    """Called in a child: the system kills it when ``parent``, its parent, ends. On Linux only."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit()  # it has ended meanwhile


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block. A terminal sends it to children as well; those started in the block hold it,
    too, until they call :func:`belong_to`.
    """
    resource_tracker.ensure_running()  # starting it, as the first child would, lets Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def belong_to(parent: int) -> None:
    """Called in a child that was started in :func:`interrupts_held`: ends with ``parent``, to which it leaves Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_with_parent(parent)


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
