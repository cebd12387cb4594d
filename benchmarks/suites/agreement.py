"""Whether a variant of an architecture computes what the built-in does: the same bits, or the same but for rounding."""

from __future__ import annotations

import contextlib
import copy
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from ..models import loss
from .bits import same_bits
from .variants import Made, Variant

# How much farther than the built-in a variant may be from the same step in float64: other orders of summation scatter a
# tensor's distance by a small factor, and what is computed otherwise differs by as much as the tensor's own size.
FARTHER = 8.0
# The built-in's own distance counts as at least this many roundings: by luck it can be less.
ROUNDINGS = 8
# What gradients may be off by, relative to the tensor's size: they are sums of 10^5 terms and more that nearly cancel, and
# were off by 1.6e-4 in another order (Inductor's norms).
SUMS = 4e-4
# Beside the other gradients of its module, one of this size is 0 but for float64's rounding.
NOTHING = 1e-9
# oneDNN now and then gives other bits for the same call, most often in a process's first.
ATTEMPTS = 4


def set_buffers(module: nn.Module, values: Iterable[Tensor]) -> None:
    """Running statistics and the like."""
    with torch.no_grad():
        for buffer, value in zip(module.buffers(), values, strict=True):
            buffer.copy_(value)


@contextlib.contextmanager
def restored_buffers(module: nn.Module) -> Iterator[None]:
    """Afterwards the buffers are what they were."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        set_buffers(module, before)


@contextlib.contextmanager
def _without_dropout(module: nn.Module) -> Iterator[None]:
    before = {layer: layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)}
    for layer in before:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, p in before.items():
            layer.p = p


def results(made: Made, inputs: Sequence[Tensor], seed: int, training: bool) -> dict[str, Tensor]:
    """Outputs and, of a training step, gradients of all parameters, by name; buffers stay as they are.

    ``seed``: of dropout.
    """
    module = made.module.train(training)
    torch.manual_seed(seed)
    module.zero_grad(set_to_none=True)
    with restored_buffers(module), torch.set_grad_enabled(training):
        output = made.call(*inputs)
        outputs = [output] if isinstance(output, Tensor) else output
        found = {f"output {index}": each.detach() for index, each in enumerate(outputs)}
        if training:
            loss(output).backward()  # type: ignore[no-untyped-call]
    # Names as in the module: a compiled one's are the same.
    found |= {f"gradient of {name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


def _first_other_bits(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    if actual.keys() != expected.keys():
        return min(actual.keys() ^ expected.keys())
    return next((name for name in expected if not same_bits(actual[name], expected[name])), None)


def first_farther(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> str | None:
    """The first of ``actual`` that is much farther from ``exact`` (float64) than ``expected`` is, by norms, or None.

    Allowed is FARTHER times the distance of ``expected``, in that tensor, or relative to its size in the median of all
    tensors; for gradients at least SUMS. One that is 0 but for rounding (of a bias before a norm) is as large as others of
    its module, which are sums of the same terms: how far rounding takes it varies by more than FARTHER.
    """
    if actual.keys() != expected.keys():
        return min(actual.keys() ^ expected.keys())
    sizes = {name: tensor.norm().item() for name, tensor in exact.items()}
    of_modules: dict[str, float] = {}
    for name, size in sizes.items():
        module = name.rpartition(".")[0]
        of_modules[module] = max(size, of_modules.get(module, 0.0))
    distances = {name: (tensor.double() - exact[name]).norm().item() for name, tensor in expected.items()}
    scales = {name: of_modules[name.rpartition(".")[0]] for name in sizes}
    scales |= {name: size for name, size in sizes.items() if size > NOTHING * scales[name]}
    typical = statistics.median(distances[name] / scale if scale else 0.0 for name, scale in scales.items())
    typical = max(typical, ROUNDINGS * torch.finfo(torch.float32).eps / 2)
    for name, tensor in actual.items():
        least = SUMS if name.startswith("gradient") else 0.0
        allowed = max(FARTHER * (distances[name] + typical * scales[name]), least * scales[name])
        if not (tensor.double() - exact[name]).norm().item() <= allowed:  # NaN is not
            return name
    return None


class Agreement:
    """Holds variants of one architecture against ``reference``, the eager built-in, on ``inputs``.

    ``seed``: of dropout. ``training``: a step with its gradients, else outputs in evaluation mode.
    """

    def __init__(self, reference: Made, inputs: Sequence[Tensor], seed: int, training: bool) -> None:
        self._reference, self._inputs, self._seed, self._training = reference, inputs, seed, training

    def _results(self, made: Made, dropout: bool) -> dict[str, Tensor]:
        with contextlib.nullcontext() if dropout else _without_dropout(made.module):
            return results(made, self._inputs, self._seed, self._training)

    @cached_property
    def _expected(self) -> dict[str, Tensor]:
        return self._results(self._reference, dropout=True)

    @cached_property
    def _rounded(self) -> dict[str, Tensor]:
        return self._results(self._reference, dropout=False)

    @cached_property
    def _exact(self) -> dict[str, Tensor]:
        module = copy.deepcopy(self._reference.module).double()
        inputs = [x.double() if x.is_floating_point() else x for x in self._inputs]
        with _without_dropout(module):
            return results(Made(module, module), inputs, self._seed, self._training)

    def prepare(self) -> None:
        """Computes what the others are held against: if the reference itself fails, that is not theirs."""
        _ = self._expected

    def difference(self, variant: Variant, made: Made) -> str | None:
        """The first result of ``made`` that is not the reference's, or None.

        Eager it must be the same bits, dropout's draws included, in one of a few attempts; if the reference
        gives other bits every time (on CUDA some sums have no fixed order), the same but for rounding. Compiled, sums are
        in another order and dropout draws other numbers: that is compared without dropout, and may differ as rounding does.
        """
        if not variant.compiled:
            reproducible, name = False, None
            for _ in range(ATTEMPTS):
                actual = self._results(made, dropout=True)
                name = _first_other_bits(actual, self._expected)
                again = self._results(self._reference, dropout=True)
                if name is None or _first_other_bits(actual, again) is None:
                    return None
                reproducible |= _first_other_bits(again, self._expected) is None
            if reproducible:
                return name
        return first_farther(self._results(made, dropout=False), self._rounded, self._exact)
