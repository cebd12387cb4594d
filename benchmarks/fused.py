"""`leakyrelu-bench fused`: bias_leaky_relu against the same composed from PyTorch's ops, eager and compiled."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import leakyrelu_ext

from .compiled import saved_bytes
from .inputs import conv_stem_activations
from .ops import MismatchError, same_bits
from .timing import HOST, interleave

# eager: the plain line, a new tensor from every op.
# in place: the quickest eager line, each op into the tensor before it wherever autograd allows that.
# reference: StyleGAN's, restated. It comes to the ops of eager, so it takes eager's time: what the two differ by is noise.
# compiled: torch.compile of the eager line.
CONTESTANTS = ("eager", "in place", "reference", "compiled", "ours")
# forward: of tensors that require no grad, in training mode (dropout drops).
# forward+backward: gradients of input, bias and residual, from a gradient that the caller keeps.
MODES = ("forward", "forward+backward")

Call = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class Formula:
    """Parts of ``dropout(clamp(gain * leaky_relu(input + bias + residual)))``; a slope of 1 leaves the activation out."""

    negative_slope: float = 0.01
    bias: bool = True
    residual: bool = False
    gain: float = 1.0
    clamp: float | None = None
    dropout_p: float = 0.0

    def __str__(self) -> str:
        parts = {
            "bias": self.bias,
            "residual": self.residual,
            "lrelu": self.negative_slope != 1,
            "gain": self.gain != 1,
            "clamp": self.clamp is not None,
            "dropout": self.dropout_p > 0,
        }
        return " + ".join(name for name, there in parts.items() if there)


@dataclass(frozen=True)
class Case:
    """``stem``: the input is not noise but what that convolution of the stem over the photographs gives before its bias."""

    net: str
    formula: Formula
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    stem: int | None = None
    warm: bool = False

    @property
    def name(self) -> str:
        layout = ", channels_last" * self.channels_last + ", warm" * self.warm
        return f"{self.net}: {self.formula}, {'x'.join(map(str, self.shape))}{layout}"


_GAIN = Formula(0.2, gain=2**0.5)
# StyleGAN2 clamps at 256, which noise never reaches; at 2 the check sees both sides of it.
_CLAMP = Formula(0.2, gain=2**0.5, clamp=2.0)
_RESIDUAL = Formula(bias=False, residual=True)
_LARGE = (8, 64, 128, 128)

CASES = (
    Case("StyleGAN2", _GAIN, _LARGE),
    Case("StyleGAN2", _GAIN, _LARGE, channels_last=True),
    Case("StyleGAN2", _GAIN, _LARGE, torch.bfloat16),
    Case("StyleGAN2", _GAIN, (4, 512, 64, 64)),
    Case("StyleGAN2", _CLAMP, (4, 512, 64, 64)),
    Case("StyleGAN2", _GAIN, (4, 256, 128, 128)),
    Case("StyleGAN2", _GAIN, (4, 512, 4, 4)),
    Case("StyleGAN2", _GAIN, (2, 32, 8, 8)),
    Case("StyleGAN2", _GAIN, (64, 512)),  # its mapping network
    Case("residual block", _RESIDUAL, _LARGE),
    Case("nnU-Net", Formula(), (2, 32, 128, 128)),
    Case("nnU-Net", Formula(), (1, 32, 32, 64, 64)),
    Case("nnU-Net, residual encoder", _RESIDUAL, (1, 32, 32, 64, 64)),  # a norm comes before, and has taken the bias
    Case("MLP", Formula(dropout_p=0.1), (512, 1024)),
    Case("MLP", Formula(1.0, bias=False, dropout_p=0.1), (512, 1024)),
    Case("photos, stem 1", Formula(), (2, 32, 214, 320), stem=0),
    Case("photos, stem 2", Formula(), (2, 64, 107, 160), stem=1),
)
WARM_CASES = (Case("StyleGAN2", _GAIN, _LARGE, warm=True), Case("residual block", _RESIDUAL, _LARGE, warm=True))


@dataclass(frozen=True)
class Operands:
    input: Tensor
    bias: Tensor | None
    residual: Tensor | None
    grad_output: Tensor

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in (self.input, self.bias, self.residual) if tensor is not None)


@dataclass(frozen=True)
class Row:
    """Contestants that a row lacks are not in its dicts; ``obstacle`` says why "compiled" is not, if it should be."""

    case: str
    dtype: torch.dtype
    mode: str
    seconds: dict[str, float]  # medians
    ratios: dict[str, float]  # that contestant's time / ours, median over the rounds
    saved: dict[str, int]  # bytes kept for the backward, every storage once; of forward+backward only
    faults: dict[str, float]  # minor, per call
    obstacle: str | None


def make_operands(case: Case, seed: int, requires_grad: bool) -> Operands:
    generator = torch.Generator().manual_seed(seed)

    def laid_out(tensor: Tensor) -> Tensor:
        return tensor.to(case.dtype, memory_format=torch.channels_last if case.channels_last else torch.preserve_format)

    formula, channels = case.formula, case.shape[1]
    bias = torch.randn(channels, generator=generator) if formula.bias else None
    if case.stem is None:
        input = torch.randn(case.shape, generator=generator)
    else:
        input = conv_stem_activations(seed)[case.stem]
        bias = torch.empty(channels).uniform_(-0.1, 0.1, generator=generator)  # of the size that nn.Conv2d draws it in
    residual = torch.randn(case.shape, generator=generator) if formula.residual else None
    # Of one sign and away from 0: a sum's terms do not cancel, and a gradient of 0 tells what was dropped.
    grad_output = torch.rand(case.shape, generator=generator).add_(0.5)
    return Operands(
        laid_out(input).requires_grad_(requires_grad),
        None if bias is None else bias.to(case.dtype).requires_grad_(requires_grad),
        None if residual is None else laid_out(residual).requires_grad_(requires_grad),
        laid_out(grad_output),
    )


def _per_channel(dims: int) -> tuple[int, ...]:
    """The shape in which a bias broadcasts to an input of ``dims`` dimensions, along dimension 1."""
    return (-1, *[1] * (dims - 2))


def eager(formula: Formula, dims: int) -> Call:
    slope, gain, clamp = formula.negative_slope, formula.gain, formula.clamp
    dropout_p, shape = formula.dropout_p, _per_channel(dims)

    def compose(x: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
        if bias is not None:
            x = x + bias.view(shape)
        if residual is not None:
            x = x + residual
        if slope != 1:
            x = F.leaky_relu(x, slope)
        if gain != 1:
            x = x * gain
        if clamp is not None:
            x = x.clamp(-clamp, clamp)
        return F.dropout(x, dropout_p) if dropout_p else x

    return compose


def in_place(formula: Formula, dims: int, requires_grad: bool) -> Call:
    """What autograd keeps may not be overwritten: the output of an activation in place, and the input of a clamp."""
    slope, gain, clamp = formula.negative_slope, formula.gain, formula.clamp
    dropout_p, shape = formula.dropout_p, _per_channel(dims)
    activation_in_place = not requires_grad or (gain == 1 and not dropout_p)
    clamp_in_place = not requires_grad

    def compose(x: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
        if bias is not None:
            x = x + bias.view(shape)
            if residual is not None:
                x.add_(residual)
        elif residual is not None:
            x = x + residual
        x = F.leaky_relu(x, slope, activation_in_place)
        if gain != 1:
            x.mul_(gain)
        if clamp is not None:
            x = x.clamp_(-clamp, clamp) if clamp_in_place else x.clamp(-clamp, clamp)
        return F.dropout(x, dropout_p, inplace=True) if dropout_p else x

    return compose


def reference(formula: Formula) -> Call:
    """StyleGAN's composition: bias in the input's dtype along dimension 1, activation, gain, clamp."""

    def compose(x: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
        if bias is not None:
            along = [1] * x.dim()
            along[1] = bias.numel()
            x = x + bias.to(x.dtype).reshape(along)
        x = F.leaky_relu(x, float(formula.negative_slope))
        if float(formula.gain) != 1:
            x = x * float(formula.gain)
        if formula.clamp is not None:
            x = x.clamp(-float(formula.clamp), float(formula.clamp))
        return x

    return compose


def ours(formula: Formula) -> Call:
    # Only what differs from the defaults: the call that one would write.
    given: dict[str, Any] = {
        name: value
        for name, value, default in (
            ("gain", formula.gain, 1.0),
            ("clamp", formula.clamp, None),
            ("dropout_p", formula.dropout_p, 0.0),
        )
        if value != default
    }
    function: Callable[..., Tensor] = partial(leakyrelu_ext.bias_leaky_relu, negative_slope=formula.negative_slope, **given)
    if not formula.residual:
        return lambda x, bias, _: function(x, bias)
    return lambda x, bias, residual: function(x, bias, residual=residual)


def contestants(case: Case, requires_grad: bool, compile: bool) -> dict[str, Call]:
    """Those of this case, in the order of CONTESTANTS."""
    formula, dims = case.formula, len(case.shape)
    calls = {"eager": eager(formula, dims)}
    if formula.bias or formula.residual:  # or there is no tensor that may be overwritten
        calls["in place"] = in_place(formula, dims, requires_grad)
    if case.net == "StyleGAN2":
        calls["reference"] = reference(formula)
    if compile:
        calls["compiled"] = torch.compile(eager(formula, dims), fullgraph=True, dynamic=False)
    calls["ours"] = ours(formula)
    return calls


def _step(call: Call, operands: Operands, mode: str) -> Callable[[], tuple[Tensor, ...]]:
    """Returns the output and, of forward+backward, the gradients of the leaves."""
    x, bias, residual, grad_output = operands.input, operands.bias, operands.residual, operands.grad_output
    if mode == "forward":
        return lambda: (call(x, bias, residual),)
    leaves = operands.leaves

    def both() -> tuple[Tensor, ...]:
        output = call(x, bias, residual)
        return (output, *torch.autograd.grad(output, leaves, grad_output))

    return both


def _close(actual: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool(((actual.double() - expected).abs() <= tolerance * expected.abs()).all())


def check(case: Case, name: str, results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Raises MismatchError unless the output (and gradients) are those expected: eager's, without dropout.

    Eager rounds after each op, the others once or as often: relative to eager that is at most four roundings, and in float32
    without dropout not one (only Inductor may reorder). The gradient of ``bias`` is held against the sum of the gradient of
    ``input`` that came with it. Under dropout everything kept must be scaled, and as many be kept as chance allows.
    """
    rounding = torch.finfo(case.dtype).eps / 2
    p = case.formula.dropout_p
    exact = not p and case.dtype == torch.float32 and name != "compiled"

    def require(what: str, fulfilled: bool) -> None:
        if not fulfilled:
            raise MismatchError(f"{case.name}, {case.dtype}: {what} of {name!r} differs from eager's; nothing was timed")

    actual_of = dict(zip(("the output", "the gradient of input"), results, strict=False))
    expected_of = dict(zip(actual_of, expected, strict=False))
    for what, actual in actual_of.items():
        require(f"the layout of {what}", actual.stride() == expected_of[what].stride() and actual.dtype == case.dtype)
    if p:
        telling = min(1, len(results) - 1)  # the gradient, where there is one
        kept = results[telling] != 0
        share = kept[expected[telling] != 0].double().mean().item()
        chance = 5 * math.sqrt(p * (1 - p) / kept.numel())
        require("the share kept by the dropout", abs(share - (1 - p)) <= chance)
        expected_of = {what: torch.where(kept, tensor.double() / (1 - p), 0.0) for what, tensor in expected_of.items()}
    for what, actual in actual_of.items():
        if exact:
            require(what, same_bits(actual, expected_of[what]))
        else:
            require(what, _close(actual, expected_of[what].double(), 4 * rounding))
    if case.formula.bias and len(results) > 1:
        summed = results[1].double().sum([dim for dim in range(len(case.shape)) if dim != 1])
        # 1e-5: float32 sums of up to 2^18 terms of one sign, in any order of blocks.
        require("the gradient of bias", _close(results[2], summed, max(4 * rounding, 1e-5)))
    if case.formula.residual and len(results) > 1:
        require("the gradient of residual", same_bits(results[-1], results[1]))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def run(cases: Iterable[Case], seed: int, budget: float, compile: bool = True) -> Iterator[Row]:
    """Yields a row per case and mode; each takes about ``budget`` seconds, and its compilation.

    Raises:
        MismatchError: before anything is timed on a case and mode on which a contestant differs.
    """
    for case in cases:
        for mode in MODES:
            requires_grad = mode == "forward+backward"
            operands = make_operands(case, seed, requires_grad)
            torch._dynamo.reset()  # what was compiled for the last row, and its guards
            calls = contestants(case, requires_grad, compile)
            forwards = {name: _step(call, operands, "forward") for name, call in calls.items()}
            steps = {name: _step(call, operands, mode) for name, call in calls.items()}
            obstacle = None
            if "compiled" in steps:
                try:
                    steps["compiled"]()
                except Exception as error:  # whatever it is, the row says it
                    obstacle = _first_line(error)
                    del steps["compiled"], forwards["compiled"]
            expected = _step(eager(replace(case.formula, dropout_p=0.0), len(case.shape)), operands, mode)()
            for name, step in steps.items():
                check(case, name, step(), expected)
            del expected
            saved = {name: saved_bytes(step) for name, step in forwards.items()} if requires_grad else {}
            with torch.compiler.set_stance("fail_on_recompile"):
                times, faults = interleave(list(steps.values()), budget, HOST)
            seconds = dict(zip(steps, times, strict=True))
            yield Row(
                case.name,
                case.dtype,
                mode,
                {name: statistics.median(of_rounds) for name, of_rounds in seconds.items()},
                {
                    name: statistics.median(map(float.__truediv__, of_rounds, seconds["ours"]))
                    for name, of_rounds in seconds.items()
                },
                saved,
                dict(zip(steps, faults, strict=True)),
                obstacle,
            )
