"""Watches a model's activations through hooks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from ..modules import AddLeakyReLU, BiasLeakyReLU
from .hooks import Hooks
from .site import Site

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Subclasses, such as leakyrelu_ext.LeakyReLU, count as their base class.
_ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, BiasLeakyReLU, AddLeakyReLU),
    *(nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Sigmoid, nn.Tanh),
)
# These layers output channels in dimension 1, the next ones in the last dimension.
_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_CHANNELS_LAST = (
    *(nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
    *(nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
    *(nn.LayerNorm, nn.RMSNorm),
)


def _has_values(x: Tensor) -> bool:
    """True if values can be read: not in a transform, which values must not leave, not fake, no wrapper such as DTensor."""
    if type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__ or torch._C._functorch.is_functorch_wrapped_tensor(x):
        return False
    return x.is_floating_point() and x.layout == torch.strided and not x.is_nested and not x.is_meta


def _values(x: Tensor) -> Tensor:
    return x.detach().as_subclass(Tensor)


def _pre_activation(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The input of the activation, and a tensor with the same gradient. None if they cannot be told."""
    tensors = [x for x in (*args, kwargs.get("input"), kwargs.get("residual")) if isinstance(x, Tensor)]
    if not tensors or torch._C._get_tracing_state() is not None or not all(map(_has_values, tensors)):
        return None
    x = tensors[0]
    seen = _values(x)
    if isinstance(module, AddLeakyReLU) and len(tensors) > 1:
        seen = seen + _values(tensors[1])
        x = x if x.requires_grad or tensors[1].shape != x.shape else tensors[1]
    elif isinstance(module, BiasLeakyReLU) and module.bias is not None:
        if not -x.dim() <= module.dim < x.dim():
            return None  # the module will raise
        shape = [1] * x.dim()
        shape[module.dim] = -1
        seen = seen + module.bias.detach().view(shape)
    return seen if seen.dim() else seen.reshape(1), x


class _Run(NamedTuple):
    """A forward without gradients."""

    places: list[int]  # addresses of its inputs: a checkpoint keeps them
    shapes: list[torch.Size]
    storages: list[StorageWeakRef]
    observed: bool

    def has_inputs_at(self, places: list[int]) -> bool:
        """Other tensors come to lie where inputs were that nobody keeps."""
        return self.places == places and not any(
            storage.expired()  # type: ignore[no-untyped-call]
            for storage in self.storages
        )


def _inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    return [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and _has_values(x)]


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers, at any depth, whose output shows which dimension holds the units."""
    if isinstance(module, nn.TransformerEncoderLayer) and not module.training:
        differentiable = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in module.parameters())
        if not differentiable and not any(isinstance(each, _ACTIVATIONS) for each in module.modules()):
            return  # a hook would close its fast path
    if isinstance(module, (*_CHANNELS_LAST, *_CHANNELS_FIRST)):
        yield module
    for child in module.children():
        yield from _layers(child)


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


class ActivationMonitor:
    """Watches the activations of a model through hooks, while the context lasts.

    For each place where an activation module is called (ReLU, LeakyReLU built-in and ours, PReLU, RReLU, ELU, GELU, SiLU,
    Sigmoid, Tanh, …; in place, too), it records the share of negative inputs, dead units, mean and variance of inputs and
    outputs, and mean, variance and norm of the gradient with respect to the input. A module that a forward calls several
    times has one entry per call ("act", "act#2", …). The model computes the same as without it.

    A unit is a channel (dimension 1); it is a feature (last dimension) for outputs of Linear, Bilinear, Embedding, LayerNorm
    over the last dimension, RMSNorm, recurrent layers, attention and transformers (except a lone TransformerEncoderLayer in
    evaluation, whose fast path a hook would close), and wherever there are fewer than three dimensions. A unit is *dead* if
    all its observed inputs were 0 or negative; its gradient is then 0 with ReLU, but not with Leaky ReLU. Units whose
    gradient was exactly 0 throughout are counted separately. To know what is dead on a dataset, observe all of it
    (``every=1``); during training, weights change meanwhile.

    The gradient includes all uses of the input, not only the activation, and is scaled if the loss is
    (``torch.amp.GradScaler``). Backwards count while the context lasts. A forward of ``model`` within a backward is taken
    for a recomputation of :func:`torch.utils.checkpoint.checkpoint` and not counted again. Copies of the model made
    meanwhile (``copy.deepcopy``, ``AveragedModel``, ``torch.save``) are not watched.

    Observations stay on the model's device and are read some hundred calls at a time. Observing costs several passes over
    every activation's input, output and gradient: training steps of small convolutional networks took 17 to 31 % longer with
    ``every=1``, 3 to 4 % with 10, and no longer than the noise with 100; those of a perceptron of width 64 (0.3 ms each)
    took 196, 28 and 7 % longer (one CPU thread).

    Args:
        model: any module that contains activation modules (functional calls are not seen). Inputs are strided tensors of any
            shape ``(*)`` and floating-point dtype; others are not observed. In DistributedDataParallel, each process sees
            its own part. Compiled code is not observed, whether :func:`torch.compile` came before or within the context: let
            some batches run eagerly, in ``torch.compiler.set_stance("force_eager")``.
        every: observe one in so many forwards of ``model``, the first one included, and its backward.
        unit_dim: the dimension that holds the units, for every activation. Default: as above.

    Raises:
        TypeError: ``model`` is not a :class:`torch.nn.Module`; ``every`` or ``unit_dim`` is not an integer.
        ValueError: ``model`` has no activation module, or ``every`` is below 1.
        IndexError: in a forward, an activation's input has no dimension ``unit_dim``.

    Example::

        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> with ActivationMonitor(model) as monitor:
        ...     model(torch.randn(16, 4)).sum().backward()
        >>> monitor.to_dict()["layers"][0]["units"]
        8

    Lu et al.: Dying ReLU and Initialization, arXiv:1903.06733; Glorot, Bengio: Understanding the difficulty of training deep
    feedforward neural networks, AISTATS 2010 (variances and gradients by depth).
    """

    def __init__(self, model: nn.Module, every: int = 1, unit_dim: int | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"argument 'model' must be a torch.nn.Module, got {type(model).__name__}")
        if isinstance(every, bool) or not isinstance(every, int):
            raise TypeError(f"argument 'every' must be an integer, got {every!r}")
        if every < 1:
            raise ValueError(f"argument 'every' must be at least 1, got {every}")
        if unit_dim is not None and (isinstance(unit_dim, bool) or not isinstance(unit_dim, int)):
            raise TypeError(f"argument 'unit_dim' must be an integer or None, got {unit_dim!r}")
        self._watched = {name: module for name, module in model.named_modules() if isinstance(module, _ACTIVATIONS)}
        if not self._watched:
            raise ValueError(f"argument 'model' ({type(model).__name__}) has no activation module")
        self._model, self._every, self._unit_dim = model, every, unit_dim
        self._outer = Hooks()  # on the model, while the context lasts
        self._inner = Hooks()  # on its modules, during observed forwards; other forwards cost nothing
        self._of_leaves: list[RemovableHandle] = []
        self.reset()

    def reset(self) -> None:
        """Forgets all observations."""
        self._forwards = self._observed = 0
        self._active = self._again = False
        self._without_gradient: deque[_Run] = deque(maxlen=256)  # latest first: a checkpoint may run them again
        self._sites: dict[tuple[str, int], Site] = {}
        self._turns: dict[str, int] = {}
        self._open: dict[str, Site] = {}
        self._features: int | None = None

    def __enter__(self) -> ActivationMonitor:
        if self._outer:
            raise RuntimeError("this ActivationMonitor observes already")
        self._outer.before(self._model, self._begin, prepend=True, with_kwargs=True)
        self._outer.after(self._model, self._end, always_call=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._detach()
        self._outer.remove()
        self._forget_leaves()

    def _forget_leaves(self) -> None:
        for handle in self._of_leaves:
            handle.remove()
        self._of_leaves.clear()

    def _attach(self) -> None:
        for module in dict.fromkeys(_layers(self._model)):
            self._inner.after(module, self._pass)
        for name, module in self._watched.items():
            if module is not self._model:  # the outer hooks see that one
                self._inner.before(module, partial(self._before, name), with_kwargs=True)
                self._inner.after(module, partial(self._after, name))

    def _detach(self) -> None:
        self._active = False  # calls outside of the model's forward do not count
        self._inner.remove()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():  # else Dynamo would break its graph at every hook, and refuse fullgraph
            return
        self._detach()
        self._again = torch._C._current_graph_task_id() != -1  # within a backward
        if self._again:
            self._active = self._was_observed(args, kwargs)
        else:
            self._active = self._forwards % self._every == 0
            self._forwards += 1
            self._observed += self._active
            if not torch.is_grad_enabled():
                tensors = _inputs(args, kwargs)
                storages = [StorageWeakRef(x.untyped_storage()) for x in tensors]  # type: ignore[no-untyped-call]
                places, shapes = [x.data_ptr() for x in tensors], [x.shape for x in tensors]
                self._without_gradient.appendleft(_Run(places, shapes, storages, self._active))
        if self._active:
            self._turns.clear()
            self._open.clear()
            self._features = None
            if not self._again:
                self._forget_leaves()
            self._attach()
            if module in self._watched.values():
                self._before("", module, args, kwargs)

    def _was_observed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the forward that runs again now was observed the first time."""
        tensors = _inputs(args, kwargs)
        places, shapes = [x.data_ptr() for x in tensors], [x.shape for x in tensors]
        same = [run for run in self._without_gradient if run.has_inputs_at(places)]
        # Otherwise the checkpoint contains more than the model and computes the model's inputs again, too.
        same += [run for run in self._without_gradient if run.shapes == shapes]
        if not same:
            return False
        self._without_gradient.remove(same[0])
        return same[0].observed

    def _end(self, module: nn.Module, args: object, output: object) -> None:
        if not torch.compiler.is_compiling():
            self._after("", module, args, output)
            self._detach()

    def _pass(self, module: nn.Module, args: object, output: object) -> None:
        if torch.compiler.is_compiling():
            return
        while isinstance(output, tuple) and output:  # of recurrent layers and attention
            output = output[0]
        self._features = None
        if isinstance(module, _CHANNELS_LAST) and isinstance(output, Tensor) and output.dim():
            whole = isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and tuple(module.normalized_shape) != output.shape[-1:]
            if not whole:  # `whole`: a norm of images, or a subclass for channels first
                self._features = output.shape[-1]

    def _dim(self, name: str, module: nn.Module, x: Tensor) -> int:
        """The dimension that holds the units."""
        if (dim := self._unit_dim) is not None:
            if not -x.dim() <= dim < x.dim():
                raise IndexError(
                    f"argument 'unit_dim' is {dim}, but the input of {name or 'the model'} has {x.dim()} dimensions"
                )
        elif isinstance(module, BiasLeakyReLU):
            dim = module.dim
        else:
            dim = -1 if x.dim() < 3 or x.shape[-1] == self._features else 1
        return dim % x.dim()

    def _before(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or not self._active or (found := _pre_activation(module, args, kwargs)) is None:
            return
        seen, x = found
        dim = self._dim(name, module, seen)
        turn = self._turns[name] = self._turns.get(name, 0) + 1
        site = self._sites.get((name, turn))
        if self._again and site is None:
            return
        if site is None:
            site = self._sites[name, turn] = Site(name if turn == 1 else f"{name}#{turn}", type(module).__name__)
        if not self._again:
            site.see_input(seen, dim)
            self._open[name] = site
        if x.requires_grad and torch.is_grad_enabled():
            # Registered before an in-place activation overwrites x: the gradient is that of x's present value.
            handle = x.register_hook(partial(self._see_gradient, site, dim))  # type: ignore[no-untyped-call]
            if x.is_leaf:  # it outlives this forward
                self._of_leaves.append(handle)

    def _after(self, name: str, module: nn.Module, args: object, output: object) -> None:
        if torch.compiler.is_compiling() or not self._active or not isinstance(output, Tensor):
            return
        if (site := self._open.pop(name, None)) is not None:
            site.see_output(_values(output))

    def _see_gradient(self, site: Site, dim: int, gradient: Tensor) -> None:
        if self._outer:
            values = _values(gradient)
            site.see_gradient(values if values.dim() else values.reshape(1), dim)

    def to_dict(self) -> dict[str, Any]:
        """All observations, for JSON; None stands for what is unknown.

        Returns:
            A dict with ``forwards`` (seen), ``observed`` (of these), ``gradient_norm_ratio`` (the first site's
            ``gradient_norm`` divided by the last one's, of those that had a backward: far below 1 they vanish, far above
            they explode) and ``layers``, in the order of their first call. Each layer has ``name`` and ``kind`` (class),
            ``calls``, ``elements`` (of all inputs), ``units``, ``negative_share`` (inputs < 0, of all elements),
            ``dead_units``, ``dead_share``, ``zero_gradient_units``, ``zero_gradient_share``, ``mean`` and ``variance`` of
            outputs, ``pre_mean`` and ``pre_variance`` of inputs, ``gradient_mean``, ``gradient_variance`` and
            ``gradient_norm`` (the root mean square over backwards of the whole tensor's 2-norm) of the gradient with respect
            to the input, and ``nonfinite``, the number of infinite or NaN inputs.

        The input of a BiasLeakyReLU or AddLeakyReLU is the sum that it computes. NaN is neither negative nor dead. Means,
        variances and norms leave out calls with an infinity or NaN. Variances are mean squares minus squared means; for
        inputs narrower than float64 they are accurate to about ``1e-6 * mean ** 2``. ``units`` and all counts of units are
        None if the number of units changed.
        """
        layers = [site.to_dict() for site in self._sites.values()]
        norms = [layer["gradient_norm"] for layer in layers if layer["gradient_norm"] is not None]
        ratio = norms[0] / norms[-1] if norms and norms[-1] else None
        return {"forwards": self._forwards, "observed": self._observed, "gradient_norm_ratio": ratio, "layers": layers}

    def summary(self) -> str:
        """A table with one line per site, and a line for all together."""
        found = self.to_dict()
        columns = {
            "layer": "name",
            "kind": "kind",
            "units": "units",
            "dead": "dead_units",
            "zero gradient": "zero_gradient_units",
            "negative": "negative_share",
            "input variance": "pre_variance",
            "output variance": "variance",
            "gradient norm": "gradient_norm",
        }
        rows = [[_cell(layer[key]) for key in columns.values()] for layer in found["layers"]]
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (list(columns), *rows)]
        units, dead = (sum(layer[key] or 0 for layer in found["layers"]) for key in ("units", "dead_units"))
        if found["observed"] and not rows:
            lines.append("no activation was seen (compiled, none is)")
        ratio = _cell(found["gradient_norm_ratio"])
        lines.append(
            f"{dead} of {units} units dead; gradient norm at the first / at the last: {ratio}; "
            f"{found['observed']} of {found['forwards']} forwards observed"
        )
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Plots dead units, negative inputs, variances and gradient norms by depth; saves to ``path`` if given.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("ActivationMonitor.plot needs matplotlib: pip install matplotlib") from error
        layers = self.to_dict()["layers"]
        depth = range(1, len(layers) + 1)
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        panels = (
            ("share", "linear", (("dead units", "dead_share"), ("negative inputs", "negative_share"))),
            ("variance", "log", (("of inputs", "pre_variance"), ("of outputs", "variance"))),
            ("gradient norm", "log", (("", "gradient_norm"),)),
        )
        for axes, (title, scale, lines) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for label, key in lines:
                values = [math.nan if layer[key] is None else layer[key] for layer in layers]
                axes.plot(depth, values, marker="o", label=label)
            if scale == "log" and any(value > 0 for line in axes.get_lines() for value in line.get_ydata()):
                axes.set_yscale("log")
            axes.set(title=title, xlabel="depth", ylim=(-0.02, 1.02) if scale == "linear" else None)
            if lines[0][0]:
                axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure
