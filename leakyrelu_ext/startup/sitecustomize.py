"""Installs our kernels in programs that ``python -m leakyrelu_ext run`` starts, and in the Pythons that these start.

``run`` puts this folder first on PYTHONPATH, and a Python that starts imports the module of this name. It may be the Python
of another environment, or an old one.
"""

import importlib.machinery
import importlib.util
import os
import sys
import warnings
from typing import Any


class _AfterTorch:
    """Finds torch through the other finders; once it is imported, imports leakyrelu_ext, which installs itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "torch":
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find and find(name, path, target)
            if spec is not None:
                break
        else:
            return None
        loader: Any = spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is None:
            return spec

        def execute_and_install(module: Any) -> None:
            loader.exec_module = execute
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                _install()

        loader.exec_module = execute_and_install
        return spec


def _install() -> None:
    try:
        import leakyrelu_ext  # noqa: F401  (installs, as LEAKYRELU_EXT_INSTALL says)
    except Exception as error:  # importing torch must not fail because of it
        message = "leakyrelu_ext: not installed in this process, PyTorch's own leaky_relu stays: {}"
        warnings.warn(message.format(error), stacklevel=2)


def _run_the_one_behind() -> None:
    """Runs the sitecustomize that this one hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if os.environ.get("LEAKYRELU_EXT_INSTALL", "").lower() not in ("", "0", "false", "no", "off"):
    sys.meta_path.insert(0, _AfterTorch())
_run_the_one_behind()
