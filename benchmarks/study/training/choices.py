"""What the words of a configuration stand for: activations, initialisations, optimisers, schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

import leakyrelu_ext
from leakyrelu_ext.init import init_for_leaky_relu_

from .configuration import Configuration

DROPOUT_P = 0.2
# Added to the gradient (torch's weight_decay), so under adam, too, it is L2 and not decoupled decay.
L2 = 1e-3
# AlexNet's (Krizhevsky et al. 2012), from before initialisations knew a layer's size.
SMALL_STD = 0.01
NEGATIVE_BIAS = -1.0
# One decade and a half around where each optimiser usually works; the same for each arm.
LEARNING_RATES = {
    "sgd": (0.01, 0.03, 0.1, 0.3),
    "momentum": (0.003, 0.01, 0.03, 0.1),
    "adagrad": (0.003, 0.01, 0.03, 0.1),
    "rmsprop": (0.0003, 0.001, 0.003, 0.01),
    "adam": (0.0003, 0.001, 0.003, 0.01),
}
MOMENTUM = 0.9
STEP_FACTOR, STEPS = 0.1, 3

_OPTIMISERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, float]]] = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": MOMENTUM}),
    "adagrad": (torch.optim.Adagrad, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {}),
}
_ACTIVATIONS = (nn.ReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)
_OTHERS: dict[str, Callable[[], nn.Module]] = {module.__name__.lower(): module for module in _ACTIVATIONS}


def activation(configuration: Configuration) -> nn.Module:
    """A new module; Leaky ReLU is ours."""
    if configuration.negative_slope is not None:
        return leakyrelu_ext.LeakyReLU(configuration.negative_slope)
    return _OTHERS[configuration.activation]()


def initialise_(module: nn.Module, how: str) -> None:
    """Draws the weights anew; "default" leaves what torch's constructors drew.

    he, xavier: with the gain of what follows each layer. small: normal with a standard deviation of 0.01 whatever the
    layer's size, negative-bias: He's with biases of -1 before activations; these two are bad on purpose.
    """
    if how in ("he", "xavier", "negative-bias"):
        init_for_leaky_relu_(module, method="xavier" if how == "xavier" else "he")
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    for layer in layers if how == "small" else ():
        nn.init.normal_(layer.weight, std=SMALL_STD)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for layer in layers[:-1] if how == "negative-bias" else ():  # the last one's are logits
        if layer.bias is not None:
            nn.init.constant_(layer.bias, NEGATIVE_BIAS)


def optimiser(configuration: Configuration, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    make, more = _OPTIMISERS[configuration.optimiser]
    decay = L2 if configuration.regularisation == "l2" else 0.0
    return make(parameters, lr=configuration.learning_rate, weight_decay=decay, **more)


def scheduler(configuration: Configuration, of: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Stepped once an epoch; over ``configuration.epochs``, whether or not a run stops before."""
    match configuration.schedule:
        case "step":
            return torch.optim.lr_scheduler.StepLR(of, max(1, configuration.epochs // STEPS), STEP_FACTOR)
        case "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(of, configuration.epochs)
    return None
