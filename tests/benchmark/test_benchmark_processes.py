"""Passes in processes of their own: real ones, which compare, time, fail and end as those of one process do."""

import contextlib
import dataclasses
import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("sklearn")
from leakyrelu_bench import cli
from leakyrelu_bench.measure import contest, plan, processes, scoring
from leakyrelu_bench.suites import ops

from releases import needs_install

pytestmark = [pytest.mark.cpu_only, pytest.mark.native]
SMALL = ["ops", "--only", "2^6", "--dtype", "float32", "--seconds", "0.004", "--no-compile", "--no-peers"]


def small_plan():
    made, _ = ops.plan(cli.parser().parse_args(SMALL))
    (group,) = made.groups
    with group.contests() as contests:
        return dataclasses.replace(made, passes=2), contests


def test_every_pass_is_another_process_and_all_its_contests_come_back():
    made, contests = small_plan()
    labels = []
    counts = [[len(each.passes) for each in seen] for seen in made._in_own_processes(labels.append)]
    n = len(contests)
    assert labels == [each.label for each in contests] * 2
    assert counts == [[1] * i for i in range(1, n + 1)] + [[2] * i + [1] * (n - i) for i in range(1, n + 1)]


def test_rows_are_those_of_one_process():
    made, contests = small_plan()
    *_, seen = made.results(lambda _: None)
    *_, here = contest.take_passes(contests, 2, 0.004)
    rows, rows_here = seen()[0], scoring.rows_of(here)
    assert [row.key for row in rows] == [row.key for row in rows_here]
    assert all(row.ratio for row in rows)
    assert [row.extra.get("saved_bytes") for row in rows] == [row.extra.get("saved_bytes") for row in rows_here]


def test_a_process_that_dies_is_an_error_in_a_line():
    made, _ = small_plan()
    made = dataclasses.replace(made, again=functools.partial(sys.exit, 3))
    with pytest.raises(processes.PassError, match=r"^noise, 2\^6, forward: the process of pass 0 ended with exit code 3$"):
        list(made.results(lambda _: None))


@contextlib.contextmanager
def restored():
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        gc.unfreeze()


def test_a_mismatch_in_the_process_is_sent(monkeypatch):
    def differs(*_):
        raise contest.MismatchError("the function differs")

    monkeypatch.setattr(ops, "check_same_bits", differs)
    monkeypatch.setattr(processes, "end_with_parent", lambda _: None)
    sent = []
    with restored():
        processes.belong_to(os.getppid())
        plan.take_pass(sent.append, small_plan()[0].again, 0)
    (error,) = sent
    assert isinstance(error, contest.MismatchError)


def sends_mismatch(send):
    send(contest.MismatchError("the function differs"))


def test_a_mismatch_that_was_sent_is_raised():
    with pytest.raises(contest.MismatchError, match="the function differs"), processes.child(sends_mismatch) as receive:
        receive("it")


HELD = """
import multiprocessing, os, signal, time
from pathlib import Path
from leakyrelu_bench.measure.processes import interrupts_held
child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
try:
    with interrupts_held():
        child.start()
        os.kill(os.getpid(), signal.SIGINT)
        status = Path(f"/proc/{child.pid}/status").read_text()
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        print(bool(blocked >> signal.SIGINT - 1 & 1))
except KeyboardInterrupt:
    print("afterwards")
child.kill()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc")
def test_children_begin_with_interrupts_held():
    """The first of a process, too, with which multiprocessing starts another process."""
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "afterwards"], done.stderr
    assert not done.stderr


def alive(pid):
    """And not a zombie that nobody has reaped."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps to find the process")
def test_the_process_ends_with_whoever_started_it():
    """Killed, not interrupted: it has no time to say goodbye."""
    marker = f"{time.time_ns()}"
    command = [sys.executable, "-m", "leakyrelu_bench", "ops", "--full", "--no-compile", "--no-peers", "--seed", marker]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as started:
        started.stdout.readline()
        children = []
        deadline = time.monotonic() + 60
        while not children and time.monotonic() < deadline:
            listed = subprocess.run(
                ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(started.pid)], capture_output=True, text=True
            )
            children = [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]
            time.sleep(0.2)
        started.kill()
    assert children
    deadline = time.monotonic() + 30
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, children))


@needs_install
def test_the_built_in_side_is_pytorchs_own_whatever_the_environment_says():
    """In the command itself, in processes of its passes, and in those that measure peaks."""
    show = "print(leakyrelu_ext.build_info()['installed'])"
    code = f"""
import sys, leakyrelu_ext
from leakyrelu_bench import cli
from leakyrelu_bench.suites.arguments import settle
from leakyrelu_bench.suites.memory import process
{show}
settle(cli.parser().parse_args(["ops"]))
{show}
leakyrelu_ext.install()
process.answer = lambda question, tell: {show}
process.subprocess.run = lambda command, **_: sys.argv.extend(command[3:]) or process.subprocess.CompletedProcess([], 0, "")
process.end_with_parent = lambda _: None
process.ask(process.Question("GAT", "built-in", 1, 0, "cpu"))
process.main()
"""
    environment = os.environ | {"LEAKYRELU_EXT_INSTALL": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['aten::leaky_relu', 'aten::leaky_relu_']", "[]", "[]"]
