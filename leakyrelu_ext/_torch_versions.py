"""Differences between torch releases, 2.7 to 2.15, each with the release that brought it. In C++: csrc/torch_versions.h."""

from __future__ import annotations

import sys

import torch

# "2.11.0+cu130" -> (2, 11)
RELEASE = tuple(int(part) for part in torch.__version__.split(".")[:2])

if RELEASE >= (2, 12):
    is_exporting = torch.compiler.is_exporting
else:
    # Before 2.12 Dynamo evaluates PyTorch's own to True, even under torch.compile, and 2.7 does not set its flag in a strict
    # export. This one is marked as constant, so Dynamo runs it while tracing, and it can ask Dynamo.
    def is_exporting() -> bool:
        dynamo = sys.modules.get("torch._dynamo.symbolic_convert")
        tracing = getattr(dynamo.tls, "current_tx", None) if dynamo else None
        return bool(torch.compiler._is_exporting_flag or (tracing and tracing.export))

    is_exporting._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch._dynamo takes a second to import

# The built-in's error for a dtype without kernels. 2.8: pytorch#155470.
DtypeError: type[RuntimeError] = NotImplementedError if RELEASE >= (2, 8) else RuntimeError
