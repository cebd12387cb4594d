"""Runs PyTorch's own Leaky ReLU ops on our kernels in the whole process, without changes to the program."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from multiprocessing import util
from types import TracebackType

from ._library import is_set, native, obstacle, stats

_logger = logging.getLogger("leakyrelu_ext")


class Installation:
    """The result of :func:`install`. As a context manager, it restores the previous kernels at the end."""

    def __init__(self, new: bool) -> None:
        self._new = new

    def __enter__(self) -> Installation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._new:
            uninstall()


def install() -> Installation:
    """Makes PyTorch's own ``aten::leaky_relu`` and ``leaky_relu_`` run on our kernels, in the whole process.

    From then on every :class:`torch.nn.LeakyReLU`, every call of :func:`torch.nn.functional.leaky_relu`, scripted models and
    C++ code use our kernels and save one bit per element for the backward. Types, parameters and graphs stay the same:
    whatever knows PyTorch's op still does. Calls that our kernels do not support get PyTorch's own: transforms of
    :mod:`torch.func`, forward-mode derivatives, tracers (:func:`torch.compile`, export), subclasses of Tensor that intercept
    ops, other devices, layouts and dtypes.

    Results and gradients are PyTorch's, bit for bit and stride for stride. In addition, an in-place call may have a negative
    slope, and input and output may be overwritten before the backward. Nodes in graphs have PyTorch's names,
    ``LeakyReluBackward0`` and, in place, ``LeakyReluBackward1``, but ``_saved_mask`` instead of ``_saved_self`` and
    ``_saved_result``. The mask is a uint8 tensor: saved-tensor hooks that cast must leave it as it is (cast only tensors
    that are ``is_floating_point()``), or the backward raises.

    Calling it again changes nothing. It holds for the process, not for a thread, and may be called while other threads
    compute: each of their calls runs on one kernel or the other. Graphs keep the backward that they were recorded with.
    Forked processes inherit the kernels; for programs that start others, see ``python -m leakyrelu_ext run``.

    If the compiled library is missing, nothing is changed; importing has warned of that.

    Returns:
        A context manager, which may be ignored: ``with install(): ...`` calls :func:`uninstall` at the end, unless the
        kernels were installed before.

    Raises:
        RuntimeError: torch is older than 2.9, or another library has replaced PyTorch's kernels of this op. (A library that
            replaces them later gets the calls at the dispatch keys AutogradCPU and AutogradCUDA; at others, only after
            :func:`uninstall`.)
    """
    if native is None:
        _logger.warning("nothing installed, PyTorch's own leaky_relu stays: the compiled library is missing (%s)", obstacle)
        return Installation(False)
    new: bool = native.install()
    if new:
        _logger.info("installed under aten::leaky_relu (process %d)", os.getpid())
    return Installation(new)


def uninstall() -> None:
    """Undoes :func:`install`: restores PyTorch's own kernels, graphs and saved tensors. Calling it again changes nothing."""
    if native is not None and native.uninstall():
        _logger.info("uninstalled: aten::leaky_relu is PyTorch's own again (process %d)", os.getpid())


_before_fork: dict[str, int] = {}  # in a forked process: its parent's counts


def _report_stats() -> None:
    counts = {name: count - _before_fork.get(name, 0) for name, count in stats().items()}
    print(
        f"leakyrelu_ext: process {os.getpid()}: {counts['installed_calls']} calls of PyTorch's leaky_relu on our kernels, "
        f"{counts['backward_calls']} backward calls",
        file=sys.stderr,
    )


def follow_environment() -> None:
    """Does what ``python -m leakyrelu_ext run`` requests of a program's processes through environment variables."""
    if is_set("LEAKYRELU_EXT_INSTALL"):
        install()
    if is_set("LEAKYRELU_EXT_STATS"):
        atexit.register(_report_stats)
        # Processes that multiprocessing forks end without atexit.
        os.register_at_fork(after_in_child=lambda: _before_fork.update(stats()))
        util.register_after_fork(_report_stats, lambda report: util.Finalize(None, report, exitpriority=0))
