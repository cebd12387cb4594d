"""`leakyrelu-bench fused`: bias_leaky_relu against the same composed from PyTorch's ops, eager and compiled."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import leakyrelu_ext

from ..measure.bits import close, same_bits
from ..measure.compiling import compiled, first_line
from ..measure.contest import Contest, Group, MismatchError, Prepared
from ..measure.heap import settle_allocator, warm_outputs, warm_up
from ..measure.saved import saved_bytes
from ..measure.timing import Timed
from .inputs import conv_stem_activations

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


def rivals(case: Case, compile: bool) -> list[str]:
    there = {
        "eager": True,
        "in place": case.formula.bias or case.formula.residual,  # or there is no tensor that may be overwritten
        "reference": case.net == "StyleGAN2",
        "compiled": compile,
    }
    return [name for name, takes_part in there.items() if takes_part]


def contestants(case: Case, requires_grad: bool, compile: bool) -> dict[str, Call]:
    """Those of this case, in the order of CONTESTANTS."""
    formula, dims = case.formula, len(case.shape)
    calls = {"eager": eager(formula, dims)}
    wanted = rivals(case, compile)
    if "in place" in wanted:
        calls["in place"] = in_place(formula, dims, requires_grad)
    if "reference" in wanted:
        calls["reference"] = reference(formula)
    if "compiled" in wanted:
        calls["compiled"] = compiled(eager(formula, dims))  # type: ignore[arg-type]
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
        return contestants(self.case, self.requires_grad, self.compile)

    def prepare(self, number: int) -> Prepared:
        operands = make_operands(self.case, self.seed, self.requires_grad, self.device)
        steps = {name: _step(call, operands, self.mode) for name, call in self.calls.items() if name not in self.obstacles}
        self._try(steps, operands, compare=number == 0)
        facts: dict[str, dict[str, float]] = {}
        if self.requires_grad:
            forwards = {name: _step(self.calls[name], operands, "forward") for name in steps}
            facts["saved_bytes"] = {name: saved_bytes(step) for name, step in forwards.items()}
        return Prepared({name: Timed(step) for name, step in steps.items()}, self.obstacles, facts=facts)

    def _try(self, steps: dict[str, Callable[[], tuple[Tensor, ...]]], operands: Operands, compare: bool) -> None:
        """Calls all, which compiles what is to be; what fails or differs does not stay in ``steps``.

        Raises:
            MismatchError: ours is what differs.
        """
        plain = eager(replace(self.case.formula, dropout_p=0.0), len(self.case.shape))
        expected = _step(plain, operands, self.mode)() if compare else ()
        for name in list(steps):
            try:
                results = steps[name]()
                if compare:
                    check(self.case, name, results, expected)
            except Exception as error:  # whatever a compiler raises, the row says it
                if name in ("eager", "ours"):
                    raise
                self.obstacles[name] = str(error) if isinstance(error, MismatchError) else first_line(error)
                del steps[name]


def group(cases: Sequence[Case], seed: int, compile: bool, device: torch.device) -> Group:
    """The contests of ``cases``, all of them with fresh outputs or all with warm ones, as all are on CUDA (see ops)."""
    warm = any(case.warm for case in cases)
    made = []
    for case in cases:
        for mode in MODES:
            ground = _Ground(case, mode, seed, compile, device)
            versions = dict.fromkeys(rivals(case, compile), f"torch {torch.__version__}")
            layout = "channels_last" if case.channels_last else "contiguous"
            dtype = str(case.dtype).removeprefix("torch.")
            outputs = "warm" if warm or device.type == "cuda" else "fresh"
            made.append(
                Contest("fused", case.name, case.shape, dtype, layout, mode, outputs, ("ours",), versions, ground.prepare)
            )

    @contextlib.contextmanager
    def entered() -> Iterator[Sequence[Contest]]:
        with warm_outputs() if warm else contextlib.nullcontext(True) as possible:
            yield made if possible else []

    return Group(len(made), entered, warm_up if warm else settle_allocator)
