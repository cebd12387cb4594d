"""``python -m leakyrelu_ext run``: runs an unmodified program with our kernels in all of its processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STARTUP = Path(__file__).parent / "startup"


def environment(before: Mapping[str, str], stats: bool) -> dict[str, str]:
    """The program's environment: every Python that starts in it installs our kernels (startup/sitecustomize.py)."""
    path = [str(STARTUP), *filter(None, [before.get("PYTHONPATH")])]
    after = {**before, "PYTHONPATH": os.pathsep.join(path), "LEAKYRELU_EXT_INSTALL": "1"}
    return {**after, "LEAKYRELU_EXT_STATS": "1"} if stats else after


def _interpreter_options() -> list[str]:
    """The options of this Python: the words between it and ``-m leakyrelu_ext``."""
    before = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    if before[-2:] == ["-m", "leakyrelu_ext"]:
        return before[:-2]
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    return options


def command(target: str, arguments: Sequence[str], is_module: bool) -> list[str]:
    """The command line that runs ``target``: a module, a file or folder for Python, or a program.

    Raises:
        FileNotFoundError: no file and no program has this name.
    """
    python = [sys.executable, *_interpreter_options()]
    if is_module:
        return [*python, "-m", target, *arguments]
    found = shutil.which(target)
    if target.endswith((".py", ".pyz", ".zip")) or (found is None and os.path.exists(target)):
        return [*python, target, *arguments]
    if found is None:
        raise FileNotFoundError(f"there is no file and no program {target!r}; -m is for a module")
    return [found, *arguments]


def run(target: str, arguments: Sequence[str], *, is_module: bool = False, stats: bool = False) -> None:
    """Replaces this process with the program; does not return.

    Raises:
        FileNotFoundError: see :func:`command`.
        RuntimeError: this Python ignores the environment variables through which its children get our kernels.
        OSError: the program cannot be executed.
    """
    if sys.flags.ignore_environment or sys.flags.no_site:
        raise RuntimeError("Python's options -I, -E and -S keep the kernels out of the program: leave them away")
    arguments = command(target, arguments, is_module)
    sys.stdout.flush()
    os.execve(arguments[0], arguments, environment(os.environ, stats))
