"""Two ranks over gloo: runs a program of checks in two processes. All checks of a contestant share them."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch.distributed as dist

import leakyrelu_ext

HERE = Path(__file__).parent
RANKS = 2


@functools.cache
def results(program: str, contestant: str) -> dict[str, list[str]]:
    """Per check what went wrong, of each rank ("" for nothing)."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        environment = os.environ | {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE.parent / "support"), str(HERE), *sys.path]),
            "LEAKYRELU_EXT_FILE": leakyrelu_ext.__file__,
        }  # fmt: skip
        outputs = [Path(folder, str(rank)) for rank in range(RANKS)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(HERE / program), contestant, str(output)],
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                cwd=folder,
            )
            for rank, output in enumerate(outputs)
        ]
        try:
            codes = [process.wait(240) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert codes == [0] * RANKS
        by_rank = [json.loads(output.read_text()) for output in outputs]
    return {name: [errors[name] for errors in by_rank] for name in by_rank[0]}


def run_checks(checks: dict[str, Callable[[Any], None]], contestant: Any, output: str) -> None:
    """What such a program does in each process. Does not return: see :func:`leave`."""
    assert leakyrelu_ext.__file__ == os.environ["LEAKYRELU_EXT_FILE"]
    dist.init_process_group("gloo")
    errors = {}
    for name, check in checks.items():
        try:
            check(contestant)
            errors[name] = ""
        except Exception:
            errors[name] = traceback.format_exc()
        dist.barrier()
    Path(output).write_text(json.dumps(errors))
    dist.destroy_process_group()
    leave()


def leave() -> NoReturn:
    """Ends the process without the interpreter's shutdown, in which gloo's threads may still let go of tensors.

    A thread that asks for Python's lock then is ended, and the whole process with it: "terminate called without an active
    exception" (pytorch#179291, #190489).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
