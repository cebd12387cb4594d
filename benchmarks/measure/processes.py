"""Passes over contests, each in a process of its own.

Where a process's code, heap and pages come to lie decides small things and some large ones (a tenth of a call's time, which
of two states a large tensor is in) for as long as it lives. A run in one process cannot see that; the next one then differs
by more than all its rounds did. Kalibera, Jones: Rigorous Benchmarking in Reasonable Time, ISMM 2013.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

from .contest import Contest, MismatchError, Seen, take
from .parent import belong_to, interrupts_held


class PassError(RuntimeError):
    """The process of a pass ended as it should not; the message is a line."""


def _pass(connection: Connection, suite: str, arguments: Namespace, number: int, parent: int) -> None:
    """In the child: sends a Taken for each contest, or the MismatchError that ended it."""
    belong_to(parent)
    from ..session import Timing
    from ..suites import plans

    plans.settle(arguments)
    plan, _ = plans.PLANS[suite](arguments)
    assert isinstance(plan, Timing)
    gc.collect()
    gc.freeze()  # what is there stays there, and need not be looked through before every contest
    try:
        for group in plan.groups:
            with group.contests() as contests:
                group.before_pass()
                for contest in contests:
                    connection.send(take(contest, number, plan.budget / plan.passes, plan.stopwatch))
    except MismatchError as error:
        connection.send(error)


def take_passes(
    suite: str, arguments: Namespace, contests: Sequence[Contest], passes: int, step: Callable[[str], None]
) -> Iterator[list[Seen]]:
    """As :func:`.contest.take_passes`, in ``passes`` processes one after the other.

    Each of them makes the plan anew from ``suite`` and ``arguments``; ``contests``: those of all its groups.

    Raises:
        MismatchError: of any contest, from the process.
        PassError: a process ended before it was through.
    """
    context = multiprocessing.get_context("spawn")
    seen = [Seen(contest) for contest in contests]
    for number in range(passes):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_pass, args=(theirs, suite, arguments, number, os.getpid()))
        try:
            with interrupts_held():
                process.start()
                theirs.close()
            for each in seen:
                step(each.contest.label)
                try:
                    taken = ours.recv()
                except EOFError:
                    process.join()
                    raise PassError(
                        f"{each.contest.label}: the process of pass {number} ended with exit code {process.exitcode}"
                    ) from None
                if isinstance(taken, MismatchError):
                    raise taken
                each.add(taken)
                yield [each for each in seen if each.passes]
            process.join()
        finally:
            if process.pid is not None:
                process.kill()
                process.join()
            ours.close()
