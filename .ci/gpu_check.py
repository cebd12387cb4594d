"""Builds leakyrelu_ext for this machine's GPU; tests, times and sanitizes it there. `make gpu-check` runs it; docs/gpu.md.

It uses the interpreter that runs it and that one's torch, and installs nothing there: what is built, and wheels of what it
lacks, go into build/gpu. Stages come the most important first, each with a time limit. One that fails or runs out
of time does not stop the next. The last lines are a summary.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"  # where everything runs: from the root, Python would import the sources, in which nothing is compiled
WORK = ROOT / "build" / "gpu"
SITE, WHEELS = WORK / "site", WORK / "wheels"

# Seconds of each stage at most, in the order in which they run. What is over is interrupted, and killed GRACE later: all
# comes to TOTAL at most.
LIMITS = {"build": 95, "core": 90, "ops": 70, "fused": 75, "models": 65, "sanitizer": 25, "rest": 25}
GRACE = 5
PATIENCE = 1  # then the children of what is interrupted are killed: pytest-xdist waits ten seconds for its own
TOTAL = 480
PROCESSES = 8

# The tests that take their inputs' device from --device; what is only about the CPU is skipped.
CORE = (
    "kernels/test_cuda.py",
    "kernels/test_norm_cuda.py",
    "ops/test_forward.py",
    "ops/test_backward.py",
    "ops/test_inplace.py",
    "ops/test_strided.py",
    "bias_leaky_relu/test_bias_leaky_relu.py",
    "bias_leaky_relu/test_bias_composition.py",
    "bias_leaky_relu/test_bias_dropout.py",
    "norm_leaky_relu/test_norm_values.py",
    "ops/test_derivatives.py",
    "ops/test_ops.py",
    "project/test_cases.py",
    "ops/test_errors.py",
    "ops/test_function.py",
    "ops/test_module.py",
    "ops/test_interception.py",
)
SANITIZED = (
    "ops/test_forward.py",
    "ops/test_backward.py",
    "ops/test_inplace.py",
    "ops/test_strided.py",
    "bias_leaky_relu/test_bias_leaky_relu.py",
    "norm_leaky_relu/test_norm_values.py",
)
SANITIZED_NAMES = "odd_sizes or (dtype1 and not threads and (layout or strided))"  # one dtype of each
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")

TAIL_LINES, TAIL_COLUMNS = 12, 200
PYTEST_CLOSES = re.compile(r"^=*\s*((?:\d+ \w+,? )+in \d[\d.]*s)\b")
SANITIZER_CLOSES = re.compile(r"^=+ (ERROR SUMMARY: .*|RACECHECK SUMMARY: .*)")
# In a compiler's line something stands before the word, unlike in setuptools' own.
COMPILER_WARNS = re.compile(r"\S.*\bwarning\b.*:|warning #\d")

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class UsageError(Exception):
    """The message is a line."""


@dataclass(frozen=True)
class Machine:
    """What the interpreter's torch is and sees."""

    torch: str
    cuda: str | None  # the version that torch was built for
    gpu: str | None
    capability: str | None


@dataclass(frozen=True)
class Stage:
    """``commands`` run one after the other, whatever becomes of each, or ``at_once``. ``result``: the file they write."""

    name: str
    commands: Sequence[Sequence[str]]
    at_once: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    result: str | None = None
    obstacle: str | None = None  # why it cannot run

    @property
    def file(self) -> str:
        return self.result or f"{self.name}.txt"


@dataclass(frozen=True)
class Outcome:
    stage: str
    words: str
    passed: bool
    seconds: float = 0.0
    counts: str = ""
    output: str = ""  # what the summary shows of it


def machine() -> Machine:
    """Asks another process: this one needs no torch.

    Raises:
        UsageError: there is no torch.
    """
    code = (
        "import json, torch; there = torch.cuda.is_available(); print(json.dumps([torch.__version__, torch.version.cuda, "
        "there and torch.cuda.get_device_name(), there and '%d.%d' % torch.cuda.get_device_capability()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TESTS, check=False)
    if done.returncode:
        error = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UsageError(f"{sys.executable} cannot import torch: {error}")
    torch, cuda, gpu, capability = json.loads(done.stdout.splitlines()[-1])
    return Machine(torch, cuda, gpu or None, capability or None)


def minimums(pyproject: str) -> dict[str, tuple[int, ...]]:
    """The least versions that pyproject.toml asks for."""
    return {name: _numbers(version) for name, version in re.findall(r'"([\w-]+)>=([\d.]+)"', pyproject)}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lacking(folder: Path, least: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Requirements, from the wheels in ``folder``: what this interpreter lacks or has too old. Its torch stays."""
    wanted = []
    for name in sorted({_normalized(wheel.name.split("-")[0]) for wheel in folder.glob("*.whl")} - {"torch"}):
        try:
            there = _numbers(metadata.version(name)) >= least.get(name, ())
        except metadata.PackageNotFoundError:
            there = False
        if not there:
            wanted.append(f"{name}>={'.'.join(map(str, least[name]))}" if name in least else name)
    return wanted


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _pip_install(target: Path, *arguments: str) -> list[str]:
    common = ("--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check")
    return _python("-m", "pip", "install", *common, "--target", str(target), *arguments)


def build(wheels: Path | None, device: str, here: Machine) -> Stage:
    """``device`` cpu: a torch with CUDA still compiles the CUDA kernels, for TORCH_CUDA_ARCH_LIST; another none."""
    commands = []
    if wheels and (wanted := lacking(wheels, minimums((ROOT / "pyproject.toml").read_text()))):
        commands.append(_pip_install(WHEELS, "--find-links", str(wheels), *wanted))
    commands.append(_pip_install(SITE, "--no-build-isolation", "--verbose", str(ROOT)))
    commands.append(_python("-c", "import leakyrelu_ext; print(leakyrelu_ext.build_info())"))
    archs = here.capability if device == "cuda" else os.environ.get("TORCH_CUDA_ARCH_LIST", "9.0")
    variables = {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": str(archs)} if here.cuda else {"FORCE_CUDA": "0"}
    return Stage("build", commands, variables=variables)


def _pytest(device: str, *arguments: str) -> list[str]:
    return _python("-m", "pytest", "-p", "no:cacheprovider", "--tb=short", "--device", device, *arguments)


def tests(device: str) -> tuple[Stage, Stage]:
    """The core, and the rest. Beside the rest, those of more than 2^31 elements, one at a time: they fill a GPU's memory."""
    processes = str(min(PROCESSES, len(os.sched_getaffinity(0))))
    quick = ("-n", processes, "-m", "not slow")
    others = [f"--ignore={name}" for name in CORE] + ["--ignore-glob=*test_benchmark_*", "--ignore-glob=*test_study_*"]
    # So many processes: threads that wait sleep, and Inductor starts no pools.
    variables = {"OMP_WAIT_POLICY": "passive", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    return (
        Stage("core", [_pytest(device, *quick, *CORE)], variables=variables),
        Stage(
            "rest",
            [_pytest(device, *quick, *others, "."), _pytest(device, "-m", "slow", "kernels/test_cuda.py")],
            at_once=True,
            variables=variables,
        ),
    )


def benchmark(suite: str, device: str, out: Path) -> Stage:
    path = f"{suite}.json"
    arguments = ("--device", device, "--quick", "--json", str(out / path), "--force")
    return Stage(suite, [_python("-m", "leakyrelu_bench", suite, *arguments)], result=path)


def sanitizer(device: str) -> Stage:
    found = shutil.which("compute-sanitizer")
    commands = [
        [
            found or "compute-sanitizer", "--tool", tool, "--error-exitcode", "1",
            *_pytest(device, "-m", "not slow", "-k", SANITIZED_NAMES, *SANITIZED),
        ]
        for tool in TOOLS
    ]  # fmt: skip
    obstacle = "no compute-sanitizer" if found is None else "no GPU" if device == "cpu" else None
    variables = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # or an access past a tensor's end is one within the cached block
    return Stage("sanitizer", commands, at_once=True, variables=variables, obstacle=obstacle)


def stages(names: Sequence[str], wheels: Path | None, device: str, out: Path, here: Machine) -> list[Stage]:
    core, rest = tests(device)
    benchmarks = [benchmark(suite, device, out) for suite in ("ops", "fused", "models")]
    every = [build(wheels, device, here), core, *benchmarks, sanitizer(device), rest]
    return [stage for stage in every if stage.name in names]


def environment() -> dict[str, str]:
    """Of all stages."""
    before = os.environ.get("PYTHONPATH")
    paths = [str(WHEELS / "bin"), sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]  # ninja is a script
    return {
        **os.environ,
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": os.pathsep.join([str(SITE), str(WHEELS), *([before] if before else [])]),
        "PYTHONUNBUFFERED": "1",
        "LEAKYRELU_EXT_REQUIRE_NATIVE": "1",
    }


def adopt_orphans(adopt: bool = True) -> None:
    """From now on, whose parent ends becomes a child of this process: no descendant can get lost. On Linux only."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def descendants() -> list[int]:
    """Of this process, its own children that have ended and are not waited for included."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        if state != "Z" or int(parent) == os.getpid():
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, unseen = [], [os.getpid()]
    while unseen:
        of = children.get(unseen.pop(), [])
        found += of
        unseen += of
    return found


def kill_descendants(besides: Collection[int] = ()) -> None:
    """In whatever session they are. Other children that :mod:`subprocess` started have been waited for."""
    end = time.monotonic() + GRACE  # a process that hangs in a driver cannot be killed
    while (pids := set(descendants()) - set(besides)) and time.monotonic() < end:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            except OSError:
                continue  # it has ended, or is not a child
        time.sleep(0.01)


def _ends(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def finish(processes: Sequence[subprocess.Popen[bytes]], deadline: float) -> list[int | None]:
    """Exit statuses; None of what was not through by ``deadline``.

    That one is interrupted first, as by Ctrl-C, so that a benchmark saves and pytest tells what they have; then killed. Its
    descendants are killed in any case.
    """
    try:
        late = [process for process in processes if not _ends(process, deadline)]
        for process in late:
            process.send_signal(signal.SIGINT)
        if not all(_ends(process, deadline + PATIENCE) for process in late):
            kill_descendants(besides=[process.pid for process in processes])
        for process in late:
            _ends(process, deadline + GRACE)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        kill_descendants()
    return [None if process in late else process.returncode for process in processes]


@contextmanager
def outputs(log: IO[bytes], commands: Sequence[Sequence[str]]) -> Iterator[list[IO[bytes]]]:
    """Where each command writes: one alone into the log, several into files that come one after the other in the log."""
    if len(commands) == 1:
        log.write(f"$ {shlex.join(commands[0])}\n".encode())
        log.flush()
        yield [log]
        return
    with ExitStack() as opened:
        files = [opened.enter_context(tempfile.TemporaryFile()) for _ in commands]
        yield files
        for command, file in zip(commands, files, strict=True):
            log.write(f"$ {shlex.join(command)}\n".encode())
            file.seek(0)
            shutil.copyfileobj(file, log)
    log.flush()


def run_commands(stage: Stage, deadline: float, variables: Mapping[str, str], log: IO[bytes]) -> list[int | None]:
    """Exit statuses as :func:`finish`; of what cannot be started 127."""
    statuses: list[int | None] = []
    for batch in [stage.commands] if stage.at_once else [[command] for command in stage.commands]:
        if time.monotonic() >= deadline:
            statuses += [None] * len(batch)
            continue
        with outputs(log, batch) as files:
            started = []
            for command, file in zip(batch, files, strict=True):
                try:
                    started.append(
                        subprocess.Popen(
                            command,
                            stdin=subprocess.DEVNULL,
                            stdout=file,
                            stderr=subprocess.STDOUT,
                            cwd=TESTS,
                            env=variables,
                            start_new_session=True,
                        )
                    )
                except OSError as error:
                    file.write(f"{error}\n".encode())
                    statuses.append(127)
            statuses += finish(started, deadline)
    return statuses


def _rows(path: Path) -> str:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return "nothing saved"
    measured = sum(row.get("ratio") is not None for row in found["rows"])
    return f"{measured} of {len(found['rows'])} rows measured" + ", interrupted" * found["interrupted"]


def counts(stage: Stage, text: str, out: Path) -> str:
    """What a stage has to say in a few words."""
    if stage.result:
        return _rows(out / stage.result)
    lines = text.splitlines()
    if stage.name == "build":
        return f"warnings: {sum(bool(COMPILER_WARNS.search(line)) for line in lines)}"
    found = [match[1] for line in lines for closes in (PYTEST_CLOSES, SANITIZER_CLOSES) if (match := closes.match(line))]
    return "; ".join(found)


def _words(statuses: Sequence[int | None]) -> str:
    words = []
    if failed := [status for status in statuses if status]:
        words.append(f"failed with exit status {', '.join(map(str, failed))}")
    if None in statuses:
        words.append("ran out of time")
    return ", ".join(words) or "passed"


def is_built() -> bool:
    return (SITE / "leakyrelu_ext" / "_built_with.py").exists()


def run(stage: Stage, limit: float, out: Path, variables: Mapping[str, str]) -> Outcome:
    (out / stage.file).unlink(missing_ok=True)
    if stage.name == "build":
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.rmtree(WHEELS, ignore_errors=True)
    elif not is_built():
        return Outcome(stage.name, "left out: nothing built", passed=False)
    if stage.obstacle:
        return Outcome(stage.name, f"left out: {stage.obstacle}", passed=True)
    begin = time.monotonic()
    log = (WORK if stage.result else out) / f"{stage.name}.txt"
    with log.open("wb") as file:
        statuses = run_commands(stage, begin + limit, {**variables, **stage.variables}, file)
    text = log.read_text(errors="replace")
    shown = text.splitlines() if stage.result else [line[:TAIL_COLUMNS] for line in text.splitlines()[-TAIL_LINES:]]
    words = _words(statuses)
    seconds = time.monotonic() - begin
    return Outcome(stage.name, words, words == "passed", seconds, counts(stage, text, out), "\n".join(shown))


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [("stage", "outcome", "seconds", "")]
    rows += [(each.stage, each.words, f"{each.seconds:.0f}", each.counts) for each in outcomes]
    rows.append(("all", "", f"{sum(each.seconds for each in outcomes):.0f}", ""))
    stage, words, seconds = (max(len(row[column]) for row in rows) for column in range(3))
    return "\n".join(f"{row[0]:{stage}}  {row[1]:{words}}  {row[2]:>{seconds}}  {row[3]}".rstrip() for row in rows)


def summary(head: str, outcomes: Sequence[Outcome]) -> str:
    """What the benchmarks printed, the last lines of the other stages, and a table of all."""
    parts = [f"==> {each.stage}: {each.words}\n{each.output}\n" for each in outcomes if each.output]
    return "\n".join([head, "", *parts, table(outcomes), ""])


def run_all(todo: Sequence[Stage], limits: Mapping[str, float], out: Path, head: str) -> int:
    """Runs the stages; the exit status. The summary is there from the first stage on, in case the machine goes away."""
    out.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    print(head, flush=True)
    variables = environment()
    outcomes: list[Outcome] = []
    for stage in todo:
        print(f"==> {stage.name}: at most {limits[stage.name]:.0f} s", flush=True)
        outcomes.append(run(stage, limits[stage.name], out, variables))
        print(f"==> {stage.name}: {outcomes[-1].words}", flush=True)
        if not outcomes[-1].passed and outcomes[-1].output:
            print("\n".join(outcomes[-1].output.splitlines()[-TAIL_LINES:]), flush=True)
        (out / "summary.txt").write_text(summary(head, outcomes))
    print(f"\n{table(outcomes)}", flush=True)
    return 0 if all(each.passed for each in outcomes) else 1


def commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Raises UsageError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = " ".join(LIMITS)
    parser.add_argument("--stages", default=every, help="which, by name; default: %(default)s")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: in a GPU's place; default: cuda")
    parser.add_argument("--out", type=Path, default=WORK / "out", help="folder of the results, eight files at most")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, for what the interpreter lacks")
    parser.add_argument("--seconds", type=float, default=TOTAL, help="of all stages at most; default: %(default)s")
    parsed = parser.parse_args(arguments)
    parsed.stages = parsed.stages.replace(",", " ").split()
    if not parsed.stages or set(parsed.stages) - LIMITS.keys():
        raise UsageError(f"the stages are {every}; got {' '.join(parsed.stages) or 'none'}")
    if not parsed.seconds > 0:
        raise UsageError(f"--seconds must be positive, got {parsed.seconds}")
    if parsed.wheels and not parsed.wheels.is_dir():
        raise UsageError(f"{parsed.wheels} is not a folder")
    parsed.out = parsed.out.resolve()
    parsed.wheels = parsed.wheels and parsed.wheels.resolve()
    return parsed


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    # A shell's background job ignores Ctrl-C, and so would the stages.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        parsed = arguments_of(arguments)
        here = machine()
    except UsageError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    if parsed.device == "cuda" and here.gpu is None:
        print(f"gpu-check: torch {here.torch} sees no NVIDIA GPU here", file=sys.stderr)
        return 1
    adopt_orphans()
    python = sys.version.split()[0]
    head = f"commit {commit()}, torch {here.torch}, Python {python}, {here.gpu if parsed.device == 'cuda' else 'CPU'}"
    limits = {name: limit * parsed.seconds / TOTAL for name, limit in LIMITS.items()}
    try:
        return run_all(stages(parsed.stages, parsed.wheels, parsed.device, parsed.out, here), limits, parsed.out, head)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
