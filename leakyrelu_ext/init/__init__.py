"""Initialises weights for the activation that really follows each layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .followers import LAYERS, NOTHING, Follower, Followers, by_example, by_registration

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Initialised:
    """What was done to one layer.

    Attributes:
        followed_by: the kind of activation that its output goes into, or ``"nothing"``.
        std: standard deviation of the weights drawn, or of those that the layer shares.
        found_by: ``"example"`` (seen while the model ran on it) or ``"registration"`` (only the modules' order of
            registration).
        note: why the weights are not those drawn for this layer.
    """

    name: str
    kind: str
    followed_by: str
    negative_slope: float | None
    gain: float
    std: float
    found_by: str
    note: str = ""


class Report(list[Initialised]):
    """One line per layer, in the order of the model's modules; prints as a table."""

    def __str__(self) -> str:
        rows = [
            ["layer", "kind", "followed by", "gain", "std", "found by", "note" if any(each.note for each in self) else ""]
        ]
        for each in self:
            numbers = (f"{each.gain:.4g}", f"{each.std:.4g}")
            rows.append([each.name or "(model)", each.kind, each.followed_by, *numbers, each.found_by, each.note])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _fans(layer: nn.Module) -> tuple[float, float]:
    """How many inputs an output sums, and how many outputs an input goes into.

    Not torch's fans: these take a transposed convolution's weight, (in, out / groups, …), for (out, in, …), and leave groups
    out of fan_out. With stride s, only one in s of the taps meets a position of the wider side.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    assert isinstance(layer, LAYERS[1:])
    taps = math.prod(layer.kernel_size)
    met = math.prod(max(1.0, size / step) for size, step in zip(layer.kernel_size, layer.stride, strict=True))
    inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    return (inputs * met, outputs * taps) if isinstance(layer, _TRANSPOSED) else (inputs * taps, outputs * met)


def _std(layer: nn.Module, method: str, mode: str, gain: float) -> float:
    fan_in, fan_out = (fan or 1.0 for fan in _fans(layer))
    if method == "xavier":
        return gain * math.sqrt(2 / (fan_in + fan_out))
    return gain / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def _checked(argument: str, value: str, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise ValueError(f"argument {argument!r} must be {' or '.join(map(repr, accepted))}, got {value!r}")


def _has_memory(tensor: Tensor) -> bool:
    """True if the tensor has memory of its own: it is not a wrapper such as DTensor, fake, meta, lazy or empty."""
    if isinstance(tensor, nn.UninitializedParameter) or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return False
    return not tensor.is_meta and tensor.numel() > 0


def _memory(parameter: Tensor) -> tuple[int, int]:
    """A key that is equal for parameters that share their memory, even as different objects."""
    return (parameter.data_ptr(), parameter.numel()) if _has_memory(parameter) else (id(parameter), -1)


SPECTRAL_STEPS = 15  # of power iteration, as in torch's constructors


class _Weight:
    """The weight of a layer: a parameter, or computed from other parameters."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        if isinstance(layer._parameters.get("weight"), nn.UninitializedParameter):
            raise ValueError(f"argument 'module': {name or 'it'} is lazy: run the model once before")
        self.layer = layer
        self.plain = "weight" in layer._parameters
        self.parametrized = nn.utils.parametrize.is_parametrized(layer, "weight")
        hooks = (hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, (WeightNorm, SpectralNorm)))
        self.norms = [hook for hook in hooks if hook.name == "weight"]  # of torch.nn.utils.weight_norm, spectral_norm
        if not self.plain and not self._settable():
            raise ValueError(
                f"argument 'module': the weight of {name or 'it'} is computed from other parameters, and there is no way to "
                "set it: initialise before that"
            )
        if "bias" not in layer._parameters:
            raise ValueError(f"argument 'module': the bias of {name or 'it'} is parametrized: initialise before that")

    @torch.no_grad()
    def _settable(self) -> bool:
        if not self.parametrized:
            return len(self.norms) == 1
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        trial: Any = copy.deepcopy(self.layer.parametrizations)
        try:
            trial.weight.right_inverse(torch.ones_like(weight))
        except Exception:  # a parametrization may raise anything
            return False
        return True

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that drawing changes."""
        if self.parametrized:
            parametrizations: Any = self.layer.parametrizations
            return list(parametrizations.weight.parameters())
        suffixes = [""] if self.plain else ["_orig"] if isinstance(self.norms[0], SpectralNorm) else ["_g", "_v"]
        return [getattr(self.layer, "weight" + suffix) for suffix in suffixes]

    @torch.no_grad()
    def draw_(self, std: float, distribution: str, generator: torch.Generator | None) -> None:
        layer: Any = self.layer
        drawn = layer.weight if self.plain else torch.empty_like(layer.weight)
        if distribution == "normal":
            nn.init.normal_(drawn, std=std, generator=generator)
        else:
            nn.init.uniform_(drawn, -math.sqrt(3) * std, math.sqrt(3) * std, generator=generator)
        if self.parametrized:
            layer.weight = drawn  # through each right_inverse
            for each in layer.parametrizations.weight:
                if isinstance(each, _SpectralNorm) and drawn.dim() > 1:
                    each._power_method(each._reshape_weight_to_matrix(drawn), SPECTRAL_STEPS)
        elif not self.plain:
            (norm,) = self.norms
            if isinstance(norm, SpectralNorm):
                layer.weight_orig.copy_(drawn)
                for _ in range(SPECTRAL_STEPS):
                    layer.weight = norm.compute_weight(layer, do_power_iteration=True)
            else:
                layer.weight_v.copy_(drawn)
                layer.weight_g.copy_(torch.norm_except_dim(drawn, 2, norm.dim))
                layer.weight = norm.compute_weight(layer)

    @torch.no_grad()
    def std(self) -> float:
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        return weight.double().std(correction=0).item() if _has_memory(weight) else math.nan


def _owners_of_the_rest(module: nn.Module, layers: Sequence[nn.Module]) -> dict[tuple[int, int], str]:
    """For each parameter that is not in ``layers``, the name of the module that owns it."""
    of_layers = {id(part) for layer in layers for part in layer.modules()}
    return {
        _memory(parameter): name or "the model itself"
        for name, each in module.named_modules()
        if id(each) not in of_layers
        for parameter in each._parameters.values()
        if parameter is not None
    }


def init_for_leaky_relu_(
    module: nn.Module,
    *,
    method: str = "he",
    mode: str = "fan_in",
    distribution: str = "normal",
    example: Any = None,
    generator: torch.Generator | None = None,
) -> Report:
    r"""Draws the weights of every linear and (transposed) convolutional layer with the gain of the activation that follows.

    The weights' standard deviation is :math:`\text{gain} / \sqrt{\text{fan}}` (he) or
    :math:`\text{gain} \sqrt{2 / (\text{fan\_in} + \text{fan\_out})}` (xavier). The gain before a Leaky ReLU is
    :math:`\sqrt{2 / (1 + \text{slope}^2)}`, divided by the gain that BiasLeakyReLU or AddLeakyReLU applies. ReLU has slope
    0, PReLU and RReLU their mean slope; ELU, CELU, GELU, SiLU, Mish and Hardswish count as ReLU; tanh, sigmoid and SELU have
    the gain of :func:`torch.nn.init.calculate_gain`; a layer that no activation follows has gain 1. So the mean square of
    activations (fan_in) or gradients (fan_out) stays the same from layer to layer. Fans count what is really summed, with
    groups and strides, also for transposed convolutions. Biases become 0; norms, embeddings, recurrent layers and all other
    modules stay as they are. Frozen parameters (``requires_grad=False``) are drawn like others. An activation written out in
    other functions counts as the first of these that is an activation (``x * torch.sigmoid(x)``: sigmoid).

    With ``example``, the model runs once to see what follows each layer: its output is tracked through norms, pooling,
    dropout, sums and reshapes, up to the next layer or product with a parameter. Of several activations, the one with the
    largest gain counts. A copy runs, without gradients, in evaluation mode, then in training mode if layers have not run. Of
    its hooks, only methods of its own modules run; random number generators are restored. TorchScript, ``torch.vmap`` and
    ops other than torch's are not tracked. Without ``example``, and for layers that do not run, the activation registered
    next counts, unless another layer comes first: right for :class:`torch.nn.Sequential` and torch's own transformers, a
    guess for any other ``forward``. The report says which it was.

    A weight that also belongs to another kind of module, such as a tied embedding, is left alone. A weight that several
    layers share is drawn once, for the first of them. If ``weight_norm`` or another parametrization with a ``right_inverse``
    computes the weight, its parameters are set so that it computes the weight drawn, divided by its largest singular value
    under ``spectral_norm``. The report notes all that, with the weights' actual standard deviation.

    Args:
        module: the model, changed in place; any floating-point dtype and device.
        method: ``"he"`` or ``"xavier"``.
        mode: ``"fan_in"`` or ``"fan_out"``; only for he.
        distribution: ``"normal"`` or ``"uniform"``.
        example: the input of ``module``, or a tuple of all its positional arguments.
        generator: source of the random numbers. Default: torch's own for the weights' device.

    Returns:
        A list with one :class:`Initialised` per layer; printed, it is a table.

    Raises:
        TypeError: ``module`` is not a :class:`torch.nn.Module`, or is wrapped in DistributedDataParallel.
        RuntimeError: ``module`` cannot be copied to run on ``example``. Exceptions of ``module`` itself propagate.
        ValueError: another ``method``, ``mode`` or ``distribution``; no such layer in ``module``; a lazy layer that has not
            run yet; a layer whose weight cannot be set, or whose bias is parametrized; an activation of infinite or NaN
            slope. Nothing has changed then.

    He et al.: Delving Deep into Rectifiers, ICCV 2015, arXiv:1502.01852 (eq. 15 for the slope); Glorot, Bengio:
    Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010.

    Example::

        >>> model = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 2))
        >>> print(init_for_leaky_relu_(model, example=torch.randn(4, 8)))
        layer  kind    followed by     gain   std     found by
        0      Linear  LeakyReLU(0.2)  1.387  0.4903  example
        2      Linear  nothing         1      0.3536  example
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"argument 'module' must be a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "argument 'module' must not be a DistributedDataParallel, whose processes would draw different weights: "
            "initialise the model before it is wrapped"
        )
    _checked("method", method, ("he", "xavier"))
    _checked("mode", mode, ("fan_in", "fan_out"))
    _checked("distribution", distribution, ("normal", "uniform"))
    module = getattr(module, "_orig_mod", module)  # the model inside a compiled one
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, LAYERS)}
    if not layers:
        raise ValueError(f"argument 'module' ({type(module).__name__}) has no linear or convolutional layer")
    weights = {name: _Weight(name, layer) for name, layer in layers.items()}
    seen: Followers = by_example(module, example) if example is not None else {}
    registered = by_registration(module)
    report = Report()
    for name, layer in layers.items():
        found_by, followers = ("example", seen[layer]) if layer in seen else ("registration", registered.get(layer, []))
        # The largest gain makes up for the activation that passes the least on, so that no path loses variance.
        follower: Follower = max(followers, key=lambda each: each.gain, default=NOTHING)
        if not 0 < follower.gain < math.inf:
            raise ValueError(f"argument 'module': {name or 'it'} is followed by {follower.name}, for which there is no gain")
        std = _std(layer, method, mode, follower.gain)
        report.append(Initialised(name, type(layer).__name__, follower.name, follower.slope, follower.gain, std, found_by))
    owners = _owners_of_the_rest(module, list(layers.values()))
    drawn: dict[tuple[int, int], str] = {}
    for i, (name, weight) in enumerate(weights.items()):
        places = [_memory(parameter) for parameter in weight.parameters()]
        if owner := next((owners[place] for place in places if place in owners), None):
            report[i] = replace(report[i], std=weight.std(), note=f"left alone: shared with {owner}")
        elif first := next((drawn[place] for place in places if place in drawn), None):
            report[i] = replace(report[i], std=weight.std(), note=f"shared with {first}, drawn for that")
        else:
            weight.draw_(report[i].std, distribution, generator)
            drawn |= dict.fromkeys(places, name or "it")
            if not weight.plain:
                report[i] = replace(report[i], std=weight.std(), note="through its parametrization")
        bias = weight.layer.bias
        if isinstance(bias, Tensor) and _memory(bias) not in owners:
            nn.init.zeros_(bias)
    return report
