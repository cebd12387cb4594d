"""Times bias + Leaky ReLU + gain, with residual, clamp or dropout, forward and forward+backward, on shapes of
StyleGAN2, nnU-Net and perceptrons and on photographs' activations. All of a row take turns:
  eager      the plain line: F.leaky_relu(x + bias.view(-1, 1, 1), 0.2) * gain
  in place   the same, each op into the tensor before it wherever autograd allows that
  reference  StyleGAN's composition, restated (its rows only)
  compiled   torch.compile of the plain line (compiles two functions a case; needs a C++ compiler)
  ours       leakyrelu_ext.bias_leaky_relu(x, bias, 0.2, gain=gain)
First it asserts, for every row, that all give the same results: the same bits in float32 (compiled: up to
four roundings), in bfloat16 up to four roundings, under dropout the same scale and share;
gradients of bias up to the order of summation. If ours do not, it ends with exit status 1.
On CUDA: GPU time of single calls between events, the L2 cache flushed before each.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import leakyrelu_ext

from ..measure import heap
from ..measure.compiling import compiled
from ..measure.contest import Contest, Group, MismatchError, Prepared, excused
from ..measure.plan import Timing
from ..measure.saved import saved_bytes
from ..measure.timing import Timed
from . import arguments as given
from .bits import close, same_bits
from .inputs import conv_stem_activations

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
        of_op = self.negative_slope != 1, self.gain != 1, self.clamp is not None, self.dropout_p > 0
        there = (self.bias, self.residual, *of_op)
        return " + ".join(compress(("bias", "residual", "lrelu", "gain", "clamp", "dropout"), there))


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
        layout = ", channels_last" * self.channels_last
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


def make_operands(case: Case, seed: int, requires_grad: bool, device: torch.device) -> Operands:
    generator = torch.Generator(device).manual_seed(seed)  # the host would draw for longer than a GPU computes

    def laid_out(tensor: Tensor) -> Tensor:
        return tensor.to(case.dtype, memory_format=torch.channels_last if case.channels_last else torch.preserve_format)

    formula, channels = case.formula, case.shape[1]
    bias = torch.randn(channels, generator=generator, device=device) if formula.bias else None
    if case.stem is None:
        input = torch.randn(case.shape, generator=generator, device=device)
    else:
        input = conv_stem_activations(seed)[case.stem].to(device)
        # Of the size that nn.Conv2d draws it in.
        bias = torch.empty(channels, device=device).uniform_(-0.1, 0.1, generator=generator)
    residual = torch.randn(case.shape, generator=generator, device=device) if formula.residual else None
    # Of one sign and away from 0: a sum's terms do not cancel, and a gradient of 0 tells what was dropped.
    grad_output = torch.rand(case.shape, generator=generator, device=device).add_(0.5)
    return Operands(
        laid_out(input).requires_grad_(requires_grad),
        None if bias is None else bias.to(case.dtype).requires_grad_(requires_grad),
        None if residual is None else laid_out(residual).requires_grad_(requires_grad),
        laid_out(grad_output),
    )


def eager(formula: Formula, dims: int, in_place: bool = False, requires_grad: bool = True) -> Call:
    """The formula, op by op; ``in_place``: each into the tensor before it, unless autograd keeps that one.

    It keeps the output of an activation in place, and the input of a clamp.
    """
    slope, gain, clamp, dropout_p = formula.negative_slope, formula.gain, formula.clamp, formula.dropout_p
    per_channel = (-1, *[1] * (dims - 2))
    over_bias = in_place and formula.bias
    over_sum = in_place and (not requires_grad or (gain == 1 and not dropout_p))
    over_gain = in_place and not requires_grad

    def compose(x: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
        if bias is not None:
            x = x + bias.view(per_channel)
        if residual is not None:
            x = x.add_(residual) if over_bias else x + residual
        if slope != 1:
            x = F.leaky_relu(x, slope, over_sum)
        if gain != 1:
            x = x.mul_(gain) if in_place else x * gain
        if clamp is not None:
            x = x.clamp_(-clamp, clamp) if over_gain else x.clamp(-clamp, clamp)
        return F.dropout(x, dropout_p, inplace=in_place) if dropout_p else x

    return compose


def reference(formula: Formula) -> Call:
    """StyleGAN's: bias in the input's dtype along dimension 1, activation, gain, clamp.

    It comes to the ops of eager, so it takes eager's time: what the two differ by is noise.
    """
    slope, gain, clamp = formula.negative_slope, formula.gain, formula.clamp

    def compose(x: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
        if bias is not None:
            x = x + bias.to(x.dtype).reshape([-1 if dim == 1 else 1 for dim in range(x.dim())])
        x = F.leaky_relu(x, slope)
        if gain != 1:
            x = x * gain
        return x if clamp is None else x.clamp(-clamp, clamp)

    return compose


def ours(formula: Formula) -> Call:
    # Only what differs from the defaults: the call that one would write.
    parts = {"gain": (formula.gain, 1.0), "clamp": (formula.clamp, None), "dropout_p": (formula.dropout_p, 0.0)}
    given: dict[str, Any] = {name: value for name, (value, default) in parts.items() if value != default}
    function: Callable[..., Tensor] = partial(leakyrelu_ext.bias_leaky_relu, negative_slope=formula.negative_slope, **given)
    if not formula.residual:
        return lambda x, bias, _: function(x, bias)
    return lambda x, bias, residual: function(x, bias, residual=residual)


def contestants(case: Case, requires_grad: bool, compile: bool) -> dict[str, Callable[[], Call]]:
    """Those that take part in ``case``, and how to make each, ours last."""
    formula, dims = case.formula, len(case.shape)
    there: dict[str, tuple[bool, Callable[[], Call]]] = {
        "eager": (True, lambda: eager(formula, dims)),
        # Or there is no tensor that may be overwritten.
        "in place": (formula.bias or formula.residual, lambda: eager(formula, dims, True, requires_grad)),
        "reference": (case.net == "StyleGAN2", lambda: reference(formula)),
        "compiled": (compile, lambda: compiled(eager(formula, dims))),  # type: ignore[arg-type]
        "ours": (True, lambda: ours(formula)),
    }
    return {name: make for name, (takes_part, make) in there.items() if takes_part}


def _step(call: Call, operands: Operands, mode: str) -> Callable[[], tuple[Tensor, ...]]:
    """Returns the output and, of forward+backward, the gradients of the leaves."""
    x, bias, residual, grad_output = operands.input, operands.bias, operands.residual, operands.grad_output
    leaves = operands.leaves

    def both() -> tuple[Tensor, ...]:
        output = call(x, bias, residual)
        return (output, *torch.autograd.grad(output, leaves, grad_output))

    return both if mode == "forward+backward" else lambda: (call(x, bias, residual),)


def check(case: Case, name: str, results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Raises MismatchError unless the output (and gradients) are those expected: eager's, without dropout.

    Eager rounds after each op, the others once or as often: relative to eager that is at most four roundings, and in float32
    without dropout not one (only Inductor may reorder). The gradient of ``bias`` is held against the sum of the gradient of
    ``input`` that came with it. Under dropout everything kept must be scaled, and as many be kept as chance allows.
    """
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
        scaled = {what: torch.where(kept, tensor.double() / (1 - p), 0.0) for what, tensor in expected_of.items()}
        expected_of = {what: tensor.to(case.dtype) for what, tensor in scaled.items()}
    for what, actual in actual_of.items():
        if exact:
            require(what, same_bits(actual, expected_of[what]))
        else:
            require(what, close(actual, expected_of[what], roundings=4))
    if case.formula.bias and len(results) > 1:
        summed = results[1].double().sum([dim for dim in range(len(case.shape)) if dim != 1])
        # 168 roundings, 1e-5: float32 sums of up to 2^18 terms of one sign, in any order of blocks.
        roundings = 168 if case.dtype == torch.float32 else 4
        require("the gradient of bias", close(results[2], summed.to(case.dtype), roundings))
    if case.formula.residual and len(results) > 1:
        require("the gradient of residual", same_bits(results[-1], results[1]))


@dataclass
class _Ground:
    """One case in one mode: what is compiled lasts, what could not be is remembered."""

    case: Case
    mode: str
    seed: int
    compile: bool
    device: torch.device
    obstacles: dict[str, str] = field(default_factory=dict)

    @property
    def requires_grad(self) -> bool:
        return self.mode == "forward+backward"

    @cached_property
    def calls(self) -> dict[str, Call]:
        return {name: make() for name, make in contestants(self.case, self.requires_grad, self.compile).items()}

    def prepare(self, number: int) -> Prepared:
        """Calls all, which compiles what is to be; what fails or, in the first pass, differs does not take part.

        Raises:
            MismatchError: ours is what differs.
        """
        operands = make_operands(self.case, self.seed, self.requires_grad, self.device)
        plain = eager(replace(self.case.formula, dropout_p=0.0), len(self.case.shape))
        expected = _step(plain, operands, self.mode)() if number == 0 else None
        steps: dict[str, Timed] = {}
        saved: dict[str, float] = {}
        for name, call in self.calls.items():
            if name in self.obstacles:
                continue
            with excused(name, self.obstacles, fatal=name in ("eager", "ours")):
                step = _step(call, operands, self.mode)
                results = step()
                if expected is not None:
                    check(self.case, name, results, expected)
                del results
                if self.requires_grad:
                    saved[name] = saved_bytes(_step(call, operands, "forward"))
                steps[name] = Timed(step)
        return Prepared(steps, self.obstacles, facts={"saved_bytes": saved} if self.requires_grad else {})


def group(cases: Sequence[Case], seed: int, compile: bool, device: torch.device) -> Group:
    """The contests of ``cases``, all of them with fresh outputs or all with warm ones."""
    warm = any(case.warm for case in cases)
    made = []
    for case in cases:
        for mode in MODES:
            *rivals, ours = contestants(case, False, compile)
            versions = dict.fromkeys(rivals, f"torch {torch.__version__}")
            layout, dtype = "channels_last" if case.channels_last else "contiguous", str(case.dtype).removeprefix("torch.")
            of_case = ("fused", case.name, case.shape, dtype, layout, mode, heap.outputs(device, warm))
            made.append(Contest(*of_case, (ours,), versions, _Ground(case, mode, seed, compile, device).prepare))
    return heap.group(made, warm)


def plan(arguments: Namespace) -> tuple[Timing, list[str]]:
    device: torch.device = arguments.device
    chosen = given.chosen(arguments, "case", CASES + (WARM_CASES if device.type == "cpu" else ()))  # on CUDA all are warm
    by_memory = [[case for case in chosen if case.warm == warm] for warm in (False, True)]
    groups = [group(cases, arguments.seed, not arguments.no_compile, device) for cases in by_memory if cases]
    return given.timing("fused", groups, arguments, plan), []
