"""Times the built-in (eager, in place, compiled), ours, and where installed JAX, ONNX Runtime and NumPy in turn.
First it asserts, for every input, that the built-in and ours compute the same bits; if not, it ends with exit
status 1. In the same rounds it times a copy and a triad: the roof that memory sets.

modes
  forward           the function, without grad
  in place          the same, overwriting its input
  backward op       the op alone, as autograd calls it
  backward          the module's backward through autograd, with a gradient that the caller keeps
  forward+backward  both, of the module
  owned backward    what the activation adds to the backward of a chain of ops, whose gradients nobody else holds
  chain             what it adds to forward and backward of such a chain, where it may overwrite its input

warm: outputs get memory that the process has used before; otherwise large ones cost page faults.
On CUDA: GPU time of single calls between events, the L2 cache flushed before each.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import leakyrelu_ext

from ..measure import heap, peers
from ..measure.compiling import compiled
from ..measure.contest import COPY, SCALE, TRIAD, Contest, Group, MismatchError, Prepared, excused
from ..measure.plan import Timing
from ..measure.saved import saved_bytes
from ..measure.timing import Timed
from . import arguments as given
from .bits import close, same_bits
from .inputs import DTYPES, FULL_SIZES, QUICK_SIZES, SIZES, SLOPE, Input, layout_inputs, noise_inputs, real_inputs

OURS, BUILTIN, IN_PLACE, COMPILED = "ours", "built-in", "built-in in place", "compiled"
MODES = ("forward", "in place", "backward op", "backward", "forward+backward", "owned backward", "chain")
# Elements from which on each is shown: below, Python's part of the call or the chain's own time hides it.
FROM_ELEMENTS = {"backward op": 2**16, "owned backward": 2**20, "chain": 2**20}
# And up to which: what is larger takes minutes and says nothing new.
CHAIN_UP_TO_ELEMENTS = RIVALS_UP_TO_ELEMENTS = 2**24
# In place, call after call on the same tensor, another slope would shrink its negatives to nothing.
SLOPE_IN_PLACE = 1.0
# With --quick: what says the most in a minute.
QUICK_INPUTS = ("photos, stem 2", "2^20, x[:, :, ::2]")
QUICK_MODES = ("forward", "in place", "backward op", "forward+backward", "owned backward")
# Their outputs cost page faults, unless they come warm: of these there are rows with warm outputs, too.
WARM_INPUTS = ("noise, 2^23", "noise, 2^24")

Call = Callable[[], Any]
# A thread pool, how a call is made, and how its result becomes a tensor.
Other = tuple[str, Callable[[], Call], Callable[[Any], Tensor]]


@dataclass(frozen=True)
class Side:
    """One contestant: the function and the module it is used through, and a call of its backward op (of input, gradient)."""

    function: Callable[..., Tensor]
    module: nn.Module
    backward_op: Callable[[Tensor, Tensor], Call]


def _builtin_backward_op(x: Tensor, grad: Tensor) -> Call:
    return lambda: torch.ops.aten.leaky_relu_backward(grad, x, SLOPE, False)


def _our_backward_op(x: Tensor, grad: Tensor) -> Call:
    output, mask = torch.ops.leakyrelu_ext.leaky_relu_forward(x, SLOPE)
    strides = None if output.is_contiguous() else output.stride()
    return lambda: torch.ops.leakyrelu_ext.leaky_relu_backward(grad, mask, SLOPE, strides)


def sides() -> tuple[Side, Side]:
    return (
        Side(F.leaky_relu, nn.LeakyReLU(SLOPE), _builtin_backward_op),
        Side(leakyrelu_ext.leaky_relu, leakyrelu_ext.LeakyReLU(SLOPE), _our_backward_op),
    )


def _copy(x: Tensor) -> Tensor:
    return torch.empty_like(x).copy_(x)


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def check_same_bits(builtin: Side, ours: Side, x: Tensor, grad: Tensor, name: str) -> None:
    """Raises MismatchError unless outputs and gradients agree bit for bit."""
    results = []
    for side in (builtin, ours):
        leaf = _leaf(x)
        output, of_op = side.module(leaf), side.backward_op(x, grad)()
        overwritten = side.function(_copy(x), SLOPE, True)
        (gradient,) = torch.autograd.grad(output, leaf, grad)
        results.append((side.function(x, SLOPE), output.detach(), overwritten, gradient, torch.empty_like(x).copy_(of_op)))
    whats = ("function", "module", "function in place", "gradient", "backward op")
    for what, expected, actual in zip(whats, *results, strict=True):
        if not same_bits(expected, actual):
            raise MismatchError(f"{name}, {x.dtype}: the {what} differs from the built-in's; nothing was timed")


def moved_bytes(mode: str, nbytes: int, mask: float | None) -> float:
    """What must be read and written of tensors of ``nbytes``.

    ``mask``: the bytes that the forward writes for the backward to read; None for a side that keeps its input instead.
    """
    forward = 2 * nbytes
    backward = 3 * nbytes if mask is None else 2 * nbytes + mask
    if mode in ("forward", "in place"):
        return forward
    if mode in ("forward+backward", "chain"):
        return forward + (mask or 0) + backward
    return backward


@dataclass(frozen=True)
class Rivals:
    """Besides the built-in: torch.compile, and other libraries (``absent``: why), each in some dtypes."""

    compiled: Collection[torch.dtype] = ()
    peers: Sequence[peers.Peer] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    of_peers: Collection[torch.dtype] = ()


def _backward(activation: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Call:
    leaf = _leaf(x)
    output = activation(leaf)
    return lambda: torch.autograd.grad(output, leaf, grad, retain_graph=True)


def _owned_backward(activation: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Call:
    return _backward(lambda leaf: activation(leaf) * 2, x, grad)  # its backward makes a tensor that only the engine holds


def _both(activation: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Call:
    leaf = _leaf(x)

    def step() -> Tensor | None:
        leaf.grad = None
        torch.autograd.backward(activation(leaf), grad)
        return leaf.grad

    return step


def _chain(activation: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Call:
    return _both(lambda leaf: activation(leaf * 2) * 2, x, grad)


# Through autograd, by mode: from an activation, its input and the gradient of its output.
_STEPS = {"backward": _backward, "forward+backward": _both, "owned backward": _owned_backward, "chain": _chain}


def _in_place(function: Callable[..., Tensor], x: Tensor) -> Call:
    return partial(function, _copy(x), SLOPE_IN_PLACE, True)


def _first_tensor(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result  # type: ignore[no-any-return]


@dataclass
class Ground:
    """One input in one dtype: all its modes share the tensors of a pass and what was compiled."""

    input: Input
    dtype: torch.dtype
    modes: Sequence[str]
    sides: tuple[Side, Side]
    rivals: Rivals
    obstacles: dict[str, dict[str, str]] = field(default_factory=dict)  # by mode and rival
    _pass: int | None = None
    _tensors: tuple[Tensor, Tensor] | None = None

    def tensors(self, number: int) -> tuple[Tensor, Tensor]:
        if self._tensors is None or self._pass != number:
            self._tensors = None  # the last pass's first
            x = self.input.make(self.dtype)
            grad = torch.empty_like(x).normal_(generator=torch.Generator(x.device).manual_seed(1))
            if number == 0:
                check_same_bits(*self.sides, x, grad, self.input.name)
            self._pass, self._tensors = number, (x, grad)
        return self._tensors

    @cached_property
    def compiled(self) -> Callable[..., Tensor]:
        def function(x: Tensor) -> Tensor:
            return F.leaky_relu(x, SLOPE)

        return compiled(function)  # type: ignore[arg-type]

    def rivals_in(self, mode: str) -> dict[str, str]:
        """With the version of each."""
        version = f"torch {torch.__version__}"
        names = {"forward": (BUILTIN, IN_PLACE), "chain": (BUILTIN, IN_PLACE), "in place": (IN_PLACE,)}.get(mode, (BUILTIN,))
        found = dict.fromkeys(names, version)
        if torch.Size(self.input.shape).numel() > RIVALS_UP_TO_ELEMENTS:
            return found
        if self.dtype in self.rivals.compiled and mode in ("forward", "forward+backward"):  # no graph for a second backward
            found[COMPILED] = f"{version} (Inductor)"
        if self.input.layout == "contiguous" and self.dtype in self.rivals.of_peers:
            if mode == "forward":
                found |= dict.fromkeys(self.rivals.absent, "")
            found |= {
                peer.name: peer.version
                for peer in self.rivals.peers
                if mode == "forward" or (mode == "backward op" and peer.backward)
            }
        return found

    def _own_calls(self, mode: str, x: Tensor, grad: Tensor) -> dict[str, Call]:
        """Of ours, the built-in, and the built-in in place where it takes part."""
        builtin, ours = self.sides
        both = {OURS: ours, BUILTIN: builtin}
        if mode == "in place":
            return {OURS: _in_place(ours.function, x), IN_PLACE: _in_place(builtin.function, x)}
        if mode == "forward":
            calls: dict[str, Call] = {name: partial(side.function, x, SLOPE) for name, side in both.items()}
            return {**calls, IN_PLACE: _in_place(builtin.function, x)}
        if mode == "backward op":
            return {name: side.backward_op(x, grad) for name, side in both.items()}
        calls = {name: _STEPS[mode](side.module, x, grad) for name, side in both.items()}
        if mode == "chain":
            calls[IN_PLACE] = _chain(lambda x: builtin.function(x, SLOPE, True), x, grad)
        return calls

    def _others(self, mode: str, x: Tensor, grad: Tensor) -> dict[str, Other]:
        """Those that may fail."""

        def of_compiled() -> Call:
            return partial(self.compiled, x) if mode == "forward" else _both(self.compiled, x, grad)

        def of_peer(peer: peers.Peer) -> Call:
            if mode == "forward":
                return peer.forward(x, SLOPE)
            assert peer.backward is not None
            return peer.backward(x, grad, SLOPE)

        of_peers = {peer.name: (peer.name, partial(of_peer, peer), peer.tensor) for peer in self.rivals.peers}
        return {COMPILED: ("torch", of_compiled, _first_tensor), **of_peers}

    def prepare(self, mode: str, number: int) -> Prepared:
        x, grad = self.tensors(number)
        rivals = self.rivals_in(mode)
        calls = {name: Timed(call) for name, call in self._own_calls(mode, x, grad).items()}
        absent = {name: why for name, why in self.rivals.absent.items() if name in rivals}
        obstacles = self.obstacles.setdefault(mode, absent)
        others = {name: other for name, other in self._others(mode, x, grad).items() if name in {*rivals} - {*obstacles}}
        expected = _first_tensor(calls[OURS].call()) if others and number == 0 else None
        for name, (pool, make, convert) in others.items():
            with excused(name, obstacles):
                call = make()
                result = convert(call())
                # Others round the slope to the dtype, then the product: with ours, rounded once, that comes to three.
                if expected is not None and not close(result, expected, roundings=3):
                    raise MismatchError("its results differ from the built-in's by more than three roundings; not timed")
                del result
                calls[name] = Timed(call, pool)
        del expected
        baseline = Timed(_STEPS[mode](nn.Identity(), x, grad)) if mode in ("owned backward", "chain") else None
        facts = self._facts(mode, x, calls)
        roofs = {}
        if mode == "forward":
            out, overwritten = _copy(x), _copy(x)
            roofs = {
                COPY: Timed(lambda: out.copy_(x)),
                TRIAD: Timed(lambda: torch.add(x, grad, alpha=2, out=out)),
                SCALE: Timed(lambda: overwritten.mul_(1.0)),
            }
        if mode == self.modes[-1]:
            self._tensors = None  # the contest's calls keep what they need
        return Prepared(calls, obstacles, baseline, facts, roofs, x.nbytes)

    def _facts(self, mode: str, x: Tensor, calls: Collection[str]) -> dict[str, dict[str, float]]:
        builtin, ours = self.sides
        leaf = _leaf(x)
        saved = {OURS: saved_bytes(lambda: ours.module(leaf)), BUILTIN: saved_bytes(lambda: builtin.module(leaf))}
        if mode == "chain":
            saved[IN_PLACE] = saved_bytes(lambda: builtin.function(leaf * 1, SLOPE, True))
        if COMPILED in calls and mode != "forward":
            saved[COMPILED] = saved_bytes(lambda: self.compiled(leaf))
        masks = {name: count for name, count in saved.items() if name in (OURS, COMPILED) and count < x.nbytes}
        # Whose roof is that of overwriting: a byte is read and written, but half of the memory touched.
        overwriting = {IN_PLACE, *([OURS] if mode in ("in place", "owned backward") else [])}
        facts: dict[str, dict[str, float]] = {
            "moved_bytes": {name: moved_bytes(mode, x.nbytes, masks.get(name)) for name in calls},
            "overwrites": {name: float(name in overwriting) for name in calls},
        }
        if mode not in ("forward", "in place"):
            facts["saved_bytes"] = dict(saved)
        return facts


def _there(modes: Sequence[str], numel: int, device: torch.device) -> list[str]:
    # On CUDA no gradient's memory is reused: an owned backward is a backward.
    wanted = [mode for mode in modes if mode != "owned backward" or device.type == "cpu"]
    up_to = {"chain": CHAIN_UP_TO_ELEMENTS}
    return [mode for mode in wanted if FROM_ELEMENTS.get(mode, 0) <= numel <= up_to.get(mode, numel)]


def group(
    inputs: Sequence[Input],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    rivals: Rivals,
    modes: Sequence[str] = MODES,
    warm: bool = False,
) -> Group:
    """The contests of all inputs in all dtypes; ``warm``: with outputs in memory used before."""
    both, outputs, made = sides(), heap.outputs(device, warm), []
    for case in inputs:
        for dtype in dtypes:
            ground = Ground(case, dtype, _there(modes, torch.Size(case.shape).numel(), device), both, rivals)
            for mode in ground.modes:
                of_case = (case.name, case.shape, str(dtype).removeprefix("torch."), case.layout, mode, outputs)
                made.append(Contest("ops", *of_case, (OURS,), ground.rivals_in(mode), partial(ground.prepare, mode)))
    return heap.group(made, warm)


def plan(arguments: Namespace) -> tuple[Timing, list[str]]:
    device: torch.device = arguments.device
    seed, quick, on_cpu = arguments.seed, arguments.quick, arguments.device.type == "cpu"
    sizes = QUICK_SIZES if quick else FULL_SIZES if arguments.full else SIZES
    largest = arguments.max_size or max(sizes)
    names = arguments.dtype or ["float32", "bfloat16", *([] if quick else ["float16"])]
    dtypes = [DTYPES[name] for name in dict.fromkeys(names)]
    everything: list[Input] = [
        *real_inputs(seed, device),
        *(layout_inputs(seed, device) if largest >= 2**20 else []),
        *noise_inputs(seed, device, (size for size in sizes if size <= largest)),
    ]
    cases = given.chosen(arguments, "input", everything, lambda case: case.name in QUICK_INPUTS or "noise" in case.name)
    large = [case for case in cases if case.name in WARM_INPUTS]
    found, absent = peers.find() if on_cpu and not arguments.no_peers else ([], {})
    # Compiling takes longer than to measure what comes of it.
    first = dtypes if arguments.full else dtypes[: 1 if quick else 2]
    compiled = [] if arguments.no_compile else first
    rivals, modes = Rivals(compiled, found, absent, first), QUICK_MODES if quick else MODES
    apart = large if quick else []
    groups = [group([case for case in cases if case not in apart], dtypes, device, rivals, modes)]
    if apart:
        groups.append(group(apart, dtypes[:1], device, rivals, modes))
    if large and on_cpu:
        groups.append(group(large, dtypes[:1] if quick else dtypes, device, Rivals(compiled), modes, warm=True))
    return given.timing("ops", groups, arguments, plan), [f"{name}: {why}" for name, why in absent.items()]
