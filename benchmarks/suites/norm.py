"""Times norm + Leaky ReLU, forward and forward+backward, on shapes of nnU-Net, Darknet-53 and detectors. All of a row take
turns:
  eager      F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias), 0.01), or of another norm
  in place   the same, the activation into the norm's result
  inverting  InPlace-ABN's formula, restated in PyTorch's ops: keeps the output, gets the norm's result back by inverting the
             activation (batch norm in training, float32)
  compiled   torch.compile of the plain line (compiles two functions a case; needs a C++ compiler)
  ours       leakyrelu_ext.instance_norm_leaky_relu(x, weight=weight, bias=bias)
First it asserts, for every row, that results and gradients are those of float64, up to roundings. If ours are not, it ends
with exit status 1. "Of the roof": of the bandwidth of a copy, if the tensor moved as often as it must, which is 3 times in a
forward (in evaluation 2) and 8 in both (5). Outputs lie in memory that the process has already, as in training.
On CUDA: GPU time of single calls between events, the L2 cache flushed before each.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

import leakyrelu_ext

from ..measure import heap
from ..measure.compiling import compiled
from ..measure.contest import COPY, SCALE, TRIAD, Contest, Group, MismatchError, Prepared, excused
from ..measure.plan import Timing
from ..measure.saved import saved_bytes
from ..measure.timing import Timed
from . import arguments as given

# forward: of tensors that require no grad. forward+backward: gradients of input and parameters, from one that the caller
# keeps.
MODES = ("forward", "forward+backward")
BATCH, INSTANCE, GROUP = "batch", "instance", "group"

# Of input, weight, bias, running_mean, running_var.
Call = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """``groups``: of a group norm. Without ``training``, a batch norm takes its running statistics."""

    net: str
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    negative_slope: float = 0.01
    channels_last: bool = False
    groups: int = 8
    training: bool = True

    @property
    def name(self) -> str:
        of_norm = f"group({self.groups})" if self.kind == GROUP else self.kind
        layout = ", channels_last" * self.channels_last
        return (
            f"{self.net}: {of_norm} norm{'' if self.training else ', evaluation'}, {'x'.join(map(str, self.shape))}{layout}"
        )

    @property
    def memory_format(self) -> torch.memory_format:
        if not self.channels_last:
            return torch.contiguous_format
        return torch.channels_last if len(self.shape) == 4 else torch.channels_last_3d


_DARKNET = Case("Darknet-53", BATCH, (16, 64, 64, 64), negative_slope=0.1)

CASES = (
    Case("nnU-Net 2-D", INSTANCE, (2, 32, 256, 256)),
    Case("nnU-Net 2-D", INSTANCE, (2, 32, 256, 256), torch.bfloat16),
    Case("nnU-Net 2-D", INSTANCE, (4, 64, 16, 16)),
    Case("nnU-Net 3-D", INSTANCE, (1, 32, 64, 64, 64)),
    Case("nnU-Net 3-D", INSTANCE, (1, 32, 64, 64, 64), channels_last=True),
    _DARKNET,
    Case("Darknet-53", BATCH, (16, 64, 64, 64), torch.bfloat16, 0.1),
    Case("Darknet-53", BATCH, (16, 64, 64, 64), negative_slope=0.1, channels_last=True),
    Case("Darknet-53", BATCH, (4, 64, 16, 16), negative_slope=0.1),
    Case("Darknet-53", BATCH, (8, 1024, 13, 13), negative_slope=0.1),
    Case("YOLOv5m", BATCH, (8, 48, 80, 80), torch.bfloat16, 0.1, channels_last=True),
    Case("Darknet-53", BATCH, (16, 64, 64, 64), negative_slope=0.1, training=False),
    Case("detector", GROUP, (16, 64, 64, 64)),
    Case("detector", GROUP, (16, 64, 64, 64), torch.bfloat16),
)
# A GPU's: as large as they train, in the dtype that they train in.
CUDA_CASES = (
    *(Case("nnU-Net 3-D", INSTANCE, (2, 32, 128, 128, 128), torch.bfloat16, channels_last=last) for last in (False, True)),
    Case("nnU-Net 3-D", INSTANCE, (2, 64, 64, 64, 64), torch.bfloat16),
    Case("nnU-Net 3-D", INSTANCE, (2, 320, 8, 8, 8), torch.bfloat16),
    *(Case("Darknet-53", BATCH, (32, 128, 104, 104), torch.bfloat16, 0.1, last) for last in (False, True)),
    Case("Darknet-53", BATCH, (32, 1024, 13, 13), torch.bfloat16, 0.1, channels_last=True),
    Case("detector", GROUP, (16, 256, 100, 152), torch.bfloat16),
)


@dataclass(frozen=True)
class Operands:
    input: Tensor
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    grad_output: Tensor

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.input, self.weight, self.bias


def make_operands(case: Case, seed: int, requires_grad: bool, device: torch.device) -> Operands:
    """Parameters of a 16-bit input are of float32, as under autocast."""
    generator = torch.Generator(device).manual_seed(seed)  # the host would draw for longer than a GPU computes

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    channels = case.shape[1]
    return Operands(
        drawn(*case.shape).to(case.dtype, memory_format=case.memory_format).requires_grad_(requires_grad),
        (drawn(channels) * 0.1 + 1).requires_grad_(requires_grad),
        (drawn(channels) * 0.1).requires_grad_(requires_grad),
        drawn(channels) * 0.1,
        drawn(channels).square() + 0.5,
        drawn(*case.shape).to(case.dtype, memory_format=case.memory_format),
    )


def eager(case: Case, in_place: bool = False) -> Call:
    kind, groups, training, slope = case.kind, case.groups, case.training, case.negative_slope

    def compose(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        if kind == BATCH:
            normalized = F.batch_norm(x, mean, var, weight, bias, training)
        elif kind == INSTANCE:
            normalized = F.instance_norm(x, weight=weight, bias=bias)
        else:
            normalized = F.group_norm(x, groups, weight, bias)
        return F.leaky_relu(normalized, slope, in_place)

    return compose


class _Inverting(torch.autograd.Function):
    """As InPlace-ABN (Rota Bulò et al.: In-Place Activated BatchNorm, CVPR 2018) does it, for slopes and weights above 0."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        negative_slope: float,
    ) -> Tensor:
        output, _, rstd = torch.native_batch_norm(x, weight, bias, mean, var, True, 0.1, 1e-5)
        F.leaky_relu_(output, negative_slope)
        ctx.save_for_backward(output, weight, bias, rstd)
        ctx.negative_slope = negative_slope  # type: ignore[attr-defined]
        return output

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        output, weight, bias, rstd = ctx.saved_tensors  # type: ignore[attr-defined]
        slope: float = ctx.negative_slope  # type: ignore[attr-defined]
        dims, per_channel = [0, *range(2, output.dim())], (-1, *[1] * (output.dim() - 2))
        grad = torch.ops.aten.leaky_relu_backward(grads[0], output, slope, True)
        normalized = F.leaky_relu(output, 1 / slope).sub_(bias.view(per_channel)).div_(weight.view(per_channel))
        grad_weight, grad_bias = (grad * normalized).sum(dims), grad.sum(dims)
        n = output.numel() // weight.numel()
        rest = normalized.mul_((grad_weight / n).view(per_channel)).add_((grad_bias / n).view(per_channel))
        grad_input = grad.sub_(rest).mul_((weight * rstd).view(per_channel))
        return grad_input, grad_weight, grad_bias, None, None, None


def inverting(case: Case) -> Call:
    return lambda *tensors: _Inverting.apply(*tensors, case.negative_slope)  # type: ignore[no-untyped-call]


def ours(case: Case) -> Call:
    groups, training, slope = case.groups, case.training, case.negative_slope
    if case.kind == BATCH:
        return lambda x, weight, bias, mean, var: leakyrelu_ext.batch_norm_leaky_relu(
            x, mean, var, weight, bias, training, negative_slope=slope
        )
    if case.kind == INSTANCE:
        return lambda x, weight, bias, mean, var: leakyrelu_ext.instance_norm_leaky_relu(
            x, weight=weight, bias=bias, negative_slope=slope
        )
    return lambda x, weight, bias, mean, var: leakyrelu_ext.group_norm_leaky_relu(
        x, groups, weight, bias, negative_slope=slope
    )


def contestants(case: Case, mode: str, compile: bool) -> dict[str, Callable[[], Call]]:
    """Those that take part, and how to make each, ours last."""
    inverts = case.kind == BATCH and case.training and case.dtype == torch.float32 and mode == "forward+backward"
    there: dict[str, tuple[bool, Callable[[], Call]]] = {
        "eager": (True, lambda: eager(case)),
        "in place": (True, lambda: eager(case, in_place=True)),
        "inverting": (inverts, lambda: inverting(case)),
        "compiled": (compile, lambda: compiled(eager(case))),  # type: ignore[arg-type]
        "ours": (True, lambda: ours(case)),
    }
    return {name: make for name, (takes_part, make) in there.items() if takes_part}


def _step(call: Call, operands: Operands, mode: str) -> Callable[[], tuple[Tensor, ...]]:
    """Returns the output and, of forward+backward, the gradients of the leaves."""
    leaves, grad_output = operands.leaves, operands.grad_output
    tensors = (*leaves, operands.running_mean, operands.running_var)

    def both() -> tuple[Tensor, ...]:
        output = call(*tensors)
        return (output, *torch.autograd.grad(output, leaves, grad_output))

    return both if mode == "forward+backward" else lambda: (call(*tensors),)


def expected(case: Case, operands: Operands, mode: str) -> tuple[Tensor, ...]:
    """The same in float64."""
    wide = Operands(*(tensor.detach().double() for tensor in vars(operands).values()))
    for leaf, original in zip(wide.leaves, operands.leaves, strict=True):
        leaf.requires_grad_(original.requires_grad)
    return _step(eager(case), wide, mode)()


def check(case: Case, name: str, results: Sequence[Tensor], exact: Sequence[Tensor]) -> None:
    """Raises MismatchError unless results are those of float64, up to roundings of the largest value.

    Parameters' gradients sum up many terms, in any order, some rounded to 16 bits. Rivals may be a thousandth off: PyTorch's
    own norms of channels_last tensors are.
    """
    whats = ("the output", "the gradient of input", "the gradient of weight", "the gradient of bias")
    wide = case.dtype == torch.float32
    of_elements, of_sums = ((16 if wide else 2) * torch.finfo(case.dtype).eps, 2e-4 if wide else 2e-2)
    rivals = 0 if name == "ours" else 1e-3
    for what, actual, value in zip(whats, results, exact, strict=False):
        tolerance = (of_elements if what in whats[:2] else of_sums) + rivals
        if not ((actual.double() - value).abs() <= tolerance * value.abs().max()).all():
            raise MismatchError(f"{case.name}, {case.dtype}: {what} of {name!r} differs from float64's; nothing was timed")


@dataclass
class _Ground:
    """One case in one mode: what is compiled lasts, what could not be is remembered."""

    case: Case
    mode: str
    seed: int
    compile: bool
    device: torch.device
    obstacles: dict[str, str] = field(default_factory=dict)

    @cached_property
    def calls(self) -> dict[str, Call]:
        return {name: make() for name, make in contestants(self.case, self.mode, self.compile).items()}

    @property
    def least_moves(self) -> int:
        """How often the tensor has to be read or written: statistics need a pass of their own, both ways."""
        forward, backward = (3, 5) if self.case.training else (2, 3)
        return forward + (backward if self.mode == "forward+backward" else 0)

    def prepare(self, number: int) -> Prepared:
        """Calls all, which compiles what is to be; what fails or, in the first pass, differs does not take part.

        Raises:
            MismatchError: ours is what differs.
        """
        operands = make_operands(self.case, self.seed, self.mode == "forward+backward", self.device)
        exact = expected(self.case, operands, self.mode) if number == 0 else None
        steps: dict[str, Timed] = {}
        saved: dict[str, float] = {}
        for name, call in self.calls.items():
            if name in self.obstacles:
                continue
            with excused(name, self.obstacles, fatal=name in ("eager", "ours")):
                step = _step(call, operands, self.mode)
                results = step()
                if exact is not None:
                    check(self.case, name, results, exact)
                del results
                if self.mode == "forward+backward":
                    saved[name] = saved_bytes(_step(call, operands, "forward"))
                steps[name] = Timed(step)
        x = operands.input.detach()
        roofs = {}
        if self.mode == "forward":
            out, overwritten = torch.empty_like(x), torch.ones_like(x)
            roofs = {
                COPY: Timed(lambda: out.copy_(x)),
                TRIAD: Timed(lambda: torch.add(x, operands.grad_output, alpha=2, out=out)),
                SCALE: Timed(lambda: overwritten.mul_(1.0)),
            }
        facts: dict[str, dict[str, float]] = {"moved_bytes": dict.fromkeys(steps, float(self.least_moves * x.nbytes))}
        if self.mode == "forward+backward":
            facts["saved_bytes"] = saved
        return Prepared(steps, self.obstacles, facts=facts, roofs=roofs, nbytes=x.nbytes)


def group(cases: Sequence[Case], seed: int, compile: bool, device: torch.device) -> Group:
    made = []
    for case in cases:
        for mode in MODES if case.training else MODES[:1]:
            *rivals, _ = contestants(case, mode, compile)
            versions = dict.fromkeys(rivals, f"torch {torch.__version__}")
            layout, dtype = "channels_last" if case.channels_last else "contiguous", str(case.dtype).removeprefix("torch.")
            of_case = ("norm", case.name, case.shape, dtype, layout, mode, heap.outputs(device, True))
            made.append(Contest(*of_case, ("ours",), versions, _Ground(case, mode, seed, compile, device).prepare))
    return heap.group(made, True)


def plan(arguments: Namespace) -> tuple[Timing, list[str]]:
    device: torch.device = arguments.device
    cases = given.chosen(arguments, "case", CUDA_CASES if device.type == "cuda" else CASES)
    return given.timing("norm", [group(cases, arguments.seed, not arguments.no_compile, device)], arguments, plan), []
