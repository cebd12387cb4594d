"""`leakyrelu-bench ops`: forward, in place, backward and both, ours against the built-in, compiled and other libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import leakyrelu_ext

from ..measure.bits import close, same_bits
from ..measure.compiling import compiled, first_line
from ..measure.contest import COPY, SCALE, TRIAD, Contest, Group, MismatchError, Prepared
from ..measure.heap import settle_allocator, warm_outputs, warm_up
from ..measure.peers import Peer
from ..measure.saved import saved_bytes
from ..measure.timing import Timed
from .inputs import SLOPE, Input

OURS, BUILTIN, IN_PLACE, COMPILED = "ours", "built-in", "built-in in place", "compiled"
# forward: the function, without grad.
# in place: the same, of a tensor that is overwritten.
# backward op: the op alone, as autograd calls it.
# backward, forward+backward: the module through autograd, with a gradient that the caller keeps.
# owned backward: what the activation adds to the backward of a chain, where its incoming gradient is an op's result that
# nobody else holds.
# chain: what it adds to forward and backward of a chain, where it may also overwrite its input.
MODES = ("forward", "in place", "backward op", "backward", "forward+backward", "owned backward", "chain")
# Elements from which on each is shown: below, Python's part of the call or the chain's own time hides it.
FROM_ELEMENTS = {"backward op": 2**16, "owned backward": 2**20, "chain": 2**20}
# And up to which: what is larger takes minutes and says nothing new.
CHAIN_UP_TO_ELEMENTS = RIVALS_UP_TO_ELEMENTS = 2**24
# In place, call after call on the same tensor, another slope would shrink its negatives to nothing.
SLOPE_IN_PLACE = 1.0


@dataclass(frozen=True)
class Side:
    """One contestant: the function and the module it is used through, and a call of its backward op (of input, gradient)."""

    function: Callable[..., Tensor]
    module: nn.Module
    backward_op: Callable[[Tensor, Tensor], Callable[[], object]]


def _builtin_backward_op(x: Tensor, grad: Tensor) -> Callable[[], object]:
    return lambda: torch.ops.aten.leaky_relu_backward(grad, x, SLOPE, False)


def _our_backward_op(x: Tensor, grad: Tensor) -> Callable[[], object]:
    output, mask = torch.ops.leakyrelu_ext.leaky_relu_forward(x, SLOPE)
    strides = None if output.is_contiguous() else output.stride()
    return lambda: torch.ops.leakyrelu_ext.leaky_relu_backward(grad, mask, SLOPE, strides)


def sides() -> tuple[Side, Side]:
    return (
        Side(F.leaky_relu, nn.LeakyReLU(SLOPE), _builtin_backward_op),
        Side(leakyrelu_ext.leaky_relu, leakyrelu_ext.LeakyReLU(SLOPE), _our_backward_op),
    )


def check_same_bits(builtin: Side, ours: Side, x: Tensor, grad: Tensor, name: str) -> None:
    """Raises MismatchError unless outputs and gradients agree bit for bit."""
    results = []
    for side in (builtin, ours):
        leaf = x.detach().requires_grad_()
        output = side.module(leaf)
        of_op = side.backward_op(x, grad)()
        assert isinstance(of_op, Tensor)
        gradients = (*torch.autograd.grad(output, leaf, grad), torch.empty_like(x).copy_(of_op))
        overwritten = side.function(torch.empty_like(x).copy_(x), SLOPE, True)
        results.append((side.function(x, SLOPE), output.detach(), overwritten, *gradients))
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


class Tensors(NamedTuple):
    """Of one pass over one input and dtype."""

    x: Tensor
    grad: Tensor


@dataclass(frozen=True)
class Rivals:
    """Besides the built-in: torch.compile, and other libraries (``absent``: why), each in some dtypes."""

    compiled: Collection[torch.dtype] = ()
    peers: Sequence[Peer] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    of_peers: Collection[torch.dtype] = ()


@dataclass
class Ground:
    """One input in one dtype: all its modes share the tensors of a pass and what was compiled."""

    input: Input
    dtype: torch.dtype
    sides: tuple[Side, Side]
    rivals: Rivals
    obstacles: dict[tuple[str, str], str] = field(default_factory=dict)  # by mode and rival
    _pass: int | None = None
    _tensors: Tensors | None = None

    def tensors(self, number: int) -> Tensors:
        if self._tensors is None or self._pass != number:
            self._tensors = None  # the last pass's first
            x = self.input.make(self.dtype)
            grad = torch.empty_like(x).normal_(generator=torch.Generator(x.device).manual_seed(1))
            if number == 0:
                check_same_bits(*self.sides, x, grad, self.input.name)
            self._pass, self._tensors = number, Tensors(x, grad)
        return self._tensors

    def release(self) -> None:
        self._tensors = None

    @cached_property
    def compiled(self) -> Callable[..., Tensor]:
        def function(x: Tensor) -> Tensor:
            return F.leaky_relu(x, SLOPE)

        return compiled(function)  # type: ignore[arg-type]


def _through_autograd(forward: Callable[[Tensor], Tensor], mode: str, x: Tensor, grad: Tensor) -> Callable[[], object]:
    leaf = x.detach().requires_grad_()
    if mode == "backward":
        output = forward(leaf)
        return lambda: torch.autograd.grad(output, leaf, grad, retain_graph=True)

    def both() -> Tensor | None:
        leaf.grad = None
        torch.autograd.backward(forward(leaf), grad)
        return leaf.grad

    return both


def _owned_backward(activation: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Callable[[], object]:
    leaf = x.detach().requires_grad_()
    output = activation(leaf) * 2  # its backward makes a tensor that only the engine holds
    return lambda: torch.autograd.grad(output, leaf, grad, retain_graph=True)


def _chain(activation: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Callable[[], object]:
    leaf = x.detach().requires_grad_()

    def step() -> None:
        leaf.grad = None
        torch.autograd.backward(activation(leaf * 2) * 2, grad)

    return step


def _in_place(function: Callable[..., Tensor], slope: float) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x, slope, True)


def _there(modes: Sequence[str], numel: int, device: torch.device) -> list[str]:
    # On CUDA no gradient's memory is reused: an owned backward is a backward.
    wanted = [mode for mode in modes if mode != "owned backward" or device.type == "cpu"]
    up_to = {"chain": CHAIN_UP_TO_ELEMENTS}
    return [mode for mode in wanted if FROM_ELEMENTS.get(mode, 0) <= numel <= up_to.get(mode, numel)]


def _rivals(ground: Ground, mode: str) -> dict[str, str]:
    torch_version = f"torch {torch.__version__}"
    rivals = {BUILTIN: torch_version}
    if mode in ("forward", "chain"):
        rivals[IN_PLACE] = torch_version
    if mode == "in place":
        rivals = {IN_PLACE: torch_version}
    if torch.Size(ground.input.shape).numel() > RIVALS_UP_TO_ELEMENTS:
        return rivals
    if ground.dtype in ground.rivals.compiled and mode in (
        "forward",
        "forward+backward",
    ):  # it keeps no graph for a second backward
        rivals[COMPILED] = f"{torch_version} (Inductor)"
    if ground.input.layout == "contiguous" and ground.dtype in ground.rivals.of_peers:
        if mode == "forward":
            rivals |= dict.fromkeys(ground.rivals.absent, "")
        for peer in ground.rivals.peers:
            if mode == "forward" or (mode == "backward op" and peer.backward):
                rivals[peer.name] = peer.version
    return rivals


def _torch_calls(ground: Ground, mode: str, tensors: Tensors) -> dict[str, Callable[[], object]]:
    """Those of this mode; compiled ones apart, which may fail."""
    x, grad = tensors.x, tensors.grad
    builtin, ours = ground.sides
    both = {OURS: ours, BUILTIN: builtin}
    if mode == "forward":
        calls: dict[str, Callable[[], object]] = {name: partial(side.function, x, SLOPE) for name, side in both.items()}
        overwritten = torch.empty_like(x).copy_(x)
        return {**calls, IN_PLACE: partial(builtin.function, overwritten, SLOPE_IN_PLACE, True)}
    if mode == "in place":
        copies = [torch.empty_like(x).copy_(x) for _ in both]
        return {
            OURS: partial(ours.function, copies[0], SLOPE_IN_PLACE, True),
            IN_PLACE: partial(builtin.function, copies[1], SLOPE_IN_PLACE, True),
        }
    if mode == "backward op":
        return {name: side.backward_op(x, grad) for name, side in both.items()}
    if mode == "owned backward":
        return {name: _owned_backward(side.module, x, grad) for name, side in both.items()}
    if mode == "chain":
        calls = {name: _chain(side.module, x, grad) for name, side in both.items()}
        return {**calls, IN_PLACE: _chain(_in_place(builtin.function, SLOPE), x, grad)}
    return {name: _through_autograd(side.module, mode, x, grad) for name, side in both.items()}


def _compiled_call(ground: Ground, mode: str, tensors: Tensors) -> Callable[[], object]:
    if mode == "forward":
        return lambda: ground.compiled(tensors.x)
    return _through_autograd(ground.compiled, mode, tensors.x, tensors.grad)


def _peer_call(peer: Peer, mode: str, tensors: Tensors) -> Callable[[], Any]:
    if mode == "forward":
        return peer.forward(tensors.x, SLOPE)
    assert peer.backward is not None
    return peer.backward(tensors.x, tensors.grad, SLOPE)


def _first_tensor(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result  # type: ignore[no-any-return]


def _try(ground: Ground, mode: str, name: str, make: Callable[[], Callable[[], Any]], expected: Tensor | None) -> Any:
    """The call, if it can be had and gives ``expected``; if not, why is remembered, and it is None from then on."""
    if (mode, name) in ground.obstacles:
        return None
    convert = {peer.name: peer.tensor for peer in ground.rivals.peers}.get(name, _first_tensor)
    try:
        call = make()
        result = convert(call())
    except Exception as error:  # whatever a compiler or another library raises, the row says it
        ground.obstacles[mode, name] = first_line(error)
        return None
    # Others round the slope to the dtype, and then the product: with ours, which is rounded once, that comes to three.
    if expected is not None and not close(result, expected, roundings=3):
        ground.obstacles[mode, name] = "its results differ from the built-in's by more than three roundings; not timed"
        return None
    return call


def _prepare(ground: Ground, mode: str, number: int) -> Prepared:
    tensors = ground.tensors(number)
    x = tensors.x
    builtin, ours = ground.sides
    rivals = _rivals(ground, mode)
    calls = {name: Timed(call) for name, call in _torch_calls(ground, mode, tensors).items() if name in {OURS, *rivals}}
    others: dict[str, tuple[str, Callable[[], Callable[[], Any]]]] = {}
    if COMPILED in rivals:
        others[COMPILED] = ("torch", lambda: _compiled_call(ground, mode, tensors))
    for peer in ground.rivals.peers:
        if peer.name in rivals:
            others[peer.name] = (peer.name, lambda peer=peer: _peer_call(peer, mode, tensors))  # type: ignore[misc]
    if others:
        expected = _first_tensor(calls[OURS].call()) if number == 0 else None
        for name, (pool, make) in others.items():
            if call := _try(ground, mode, name, make, expected):
                calls[name] = Timed(call, pool)
        del expected
    nbytes = x.numel() * x.element_size()
    leaf = x.detach().requires_grad_()
    saved = {OURS: saved_bytes(lambda: ours.module(leaf)), BUILTIN: saved_bytes(lambda: builtin.module(leaf))}
    if mode == "chain":
        saved[IN_PLACE] = saved_bytes(lambda: builtin.function(leaf * 1, SLOPE, True))
    if COMPILED in calls and mode != "forward":
        saved[COMPILED] = saved_bytes(lambda: ground.compiled(leaf))
    masks = {name: count for name, count in saved.items() if name in (OURS, COMPILED) and count < nbytes}
    facts: dict[str, Mapping[str, float]] = {
        "moved_bytes": {name: moved_bytes(mode, nbytes, masks.get(name)) for name in calls}
    }
    # Whose roof is that of overwriting: a byte is read and written, but half of the memory touched.
    overwriting = {IN_PLACE, *([OURS] if mode in ("in place", "owned backward") else [])}
    facts["overwrites"] = {name: float(name in overwriting) for name in calls}
    if mode not in ("forward", "in place"):
        facts["saved_bytes"] = saved
    baseline = None
    if mode in ("owned backward", "chain"):
        chain = _owned_backward if mode == "owned backward" else _chain
        baseline = Timed(chain(nn.Identity(), x, tensors.grad))
    roofs = {}
    if mode == "forward":
        out = torch.empty_like(x).copy_(x)
        overwritten = torch.empty_like(x).copy_(x)
        roofs = {
            COPY: Timed(lambda: out.copy_(x)),
            TRIAD: Timed(lambda: torch.add(x, tensors.grad, alpha=2, out=out)),
            SCALE: Timed(lambda: overwritten.mul_(1.0)),
        }
    obstacles = {name: why for name, why in ground.rivals.absent.items() if name in rivals}
    obstacles |= {name: why for (of_mode, name), why in ground.obstacles.items() if of_mode == mode}
    return Prepared(calls, obstacles, baseline, facts, roofs, nbytes)


def _contests(grounds: Iterable[Ground], modes: Sequence[str], device: torch.device, outputs: str) -> Iterator[Contest]:
    for ground in grounds:
        wanted = _there(modes, torch.Size(ground.input.shape).numel(), device)
        for mode in wanted:

            def prepare(number: int, ground: Ground = ground, mode: str = mode, last: str = wanted[-1]) -> Prepared:
                prepared = _prepare(ground, mode, number)
                if mode == last:
                    ground.release()  # the contest's calls keep what they need
                return prepared

            yield Contest(
                "ops",
                ground.input.name,
                ground.input.shape,
                str(ground.dtype).removeprefix("torch."),
                ground.input.layout,
                mode,
                outputs,
                (OURS,),
                _rivals(ground, mode),
                prepare,
            )


def group(
    inputs: Sequence[Input],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    rivals: Rivals,
    modes: Sequence[str] = MODES,
    warm: bool = False,
) -> Group:
    """The contests of all inputs in all dtypes; ``warm``: with outputs in memory used before."""
    both = sides()
    grounds = [Ground(case, dtype, both, rivals) for case in inputs for dtype in dtypes]
    # glibc's heap cannot be told apart on CUDA, where torch's allocator keeps what is freed: all outputs are warm there.
    outputs = "warm" if warm or device.type == "cuda" else "fresh"
    made = list(_contests(grounds, modes, device, outputs))

    @contextlib.contextmanager
    def entered() -> Iterator[Sequence[Contest]]:
        with warm_outputs() if warm else contextlib.nullcontext(True) as possible:
            yield made if possible else []

    return Group(len(made), entered, warm_up if warm else settle_allocator)
