"""One training run: from a configuration and a dataset to an outcome."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import Tensor, nn

from leakyrelu_ext.diagnostics import ActivationMonitor

from ...suites.agreement import restored_buffers
from ..data import Dataset, Split
from . import choices, networks, ranks
from .configuration import Configuration
from .outcome import CURVES, WATCHED, Outcome

# Of the training steps, this one in so many is watched; units are watched over the whole split, once an epoch.
WATCHED_EVERY = 10
_EVALUATED_AT_ONCE = 1024


def build(configuration: Configuration, dataset: Dataset) -> nn.Module:
    """Its network, with weights drawn from ``configuration.seed``."""
    torch.manual_seed(configuration.seed)
    module = networks.build(
        dataset,
        lambda: choices.activation(configuration),
        depth=configuration.depth,
        norm=configuration.regularisation == "batch-norm",
        dropout_p=choices.DROPOUT_P if configuration.regularisation == "dropout" else 0.0,
        plain=configuration.network == "mlp",
    )
    choices.initialise_(module, configuration.initialisation)
    return module


def _parts(split: Split, size: int) -> Iterator[Split]:
    for part in torch.split(torch.arange(len(split)), size):
        yield split.take(part)


def score(metric: str, predicted: Tensor, labels: Tensor) -> float:
    """From 0 to 1. macro-F1: the mean over the classes that occur, however rare."""
    if metric == "accuracy":
        return (predicted == labels).double().mean().item()
    return float(f1_score(labels.numpy(), predicted.numpy(), average="macro", zero_division=0.0))


@torch.no_grad()
def evaluate(module: nn.Module, split: Split, metric: str, device: torch.device) -> tuple[float, float]:
    """Mean loss and score, in evaluation mode."""
    module.eval()
    loss, predicted = 0.0, []
    for part in _parts(split, _EVALUATED_AT_ONCE):
        logits = module(*(x.to(device) for x in part.inputs)).float()
        loss += F.cross_entropy(logits, part.labels.to(device), reduction="sum").item()
        predicted.append(logits.argmax(1).cpu())
    return loss / len(split), score(metric, torch.cat(predicted), split.labels)


def _watch(module: nn.Module, split: Split, device: torch.device) -> dict[str, Any]:
    """What every unit and its gradient do over a whole split, in evaluation mode."""
    module.eval()
    parameters = list(module.parameters())
    with ActivationMonitor(module) as monitor:
        for part in _parts(split, _EVALUATED_AT_ONCE):
            loss = F.cross_entropy(module(*(x.to(device) for x in part.inputs)), part.labels.to(device), reduction="sum")
            torch.autograd.grad(loss, parameters)  # not backward(), which DistributedDataParallel would take for a step's
    return monitor.to_dict()


class _Run:
    def __init__(self, configuration: Configuration, dataset: Dataset, device: torch.device) -> None:
        self.configuration, self.dataset, self.device = configuration, dataset, device
        self.module = build(configuration, dataset).to(device)
        # Before the wrapper, which would take this backward for one of its own.
        self.before = self.gradients() if configuration.observe else None
        self.called = ranks.distributed(self.module)
        self.optimiser = choices.optimiser(configuration, self.module.parameters())
        self.scheduler = choices.scheduler(configuration, self.optimiser)
        self.order = torch.Generator().manual_seed(configuration.seed)
        self.curves: dict[str, list[float]] = {name: [] for name in (*CURVES, *(WATCHED if configuration.observe else ()))}
        self.layers: dict[str, list[dict[str, Any]]] = {}
        self.steps = 0
        self.seconds = 0.0

    def batches(self) -> Iterator[tuple[Split, int]]:
        """This process's share of each batch, and the size of the whole."""
        indices = torch.randperm(len(self.dataset.train), generator=self.order)
        for batch in torch.split(indices, self.configuration.batch_size):
            if len(batch) < 2 * ranks.count():  # a batch norm of one sample has no variance
                continue
            yield self.dataset.train.take(ranks.share(batch)), len(batch)

    def epoch(self) -> float:
        """Trains one; returns its mean loss (not finite: it stopped there)."""
        self.called.train()
        begin = time.perf_counter()
        total, count = torch.zeros((), device=self.device), 0
        for number, (part, whole) in enumerate(self.batches()):
            self.optimiser.zero_grad(set_to_none=True)
            logits = self.called(*(x.to(self.device) for x in part.inputs))
            # Processes average their gradients: so that this is the whole batch's mean, however it was divided.
            loss = F.cross_entropy(logits, part.labels.to(self.device), reduction="sum") * (ranks.count() / whole)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            self.steps += 1
            total += loss.detach() * (whole / ranks.count())
            count += whole
            if number % WATCHED_EVERY == 0 and not math.isfinite(ranks.total(total.item())):
                break
        if self.scheduler:
            self.scheduler.step()
        self.seconds += time.perf_counter() - begin
        return ranks.total(total.item()) / count

    def record(self, train_loss: float, watched: dict[str, Any] | None) -> None:
        loss, found = evaluate(self.module, self.dataset.validation, self.dataset.metric, self.device)
        values = {"train_loss": train_loss, "validation_loss": loss, "validation_score": found}
        if self.configuration.observe and math.isfinite(loss):
            seen = _watch(self.module, self.dataset.train, self.device)["layers"]
            units, elements = sum(layer["units"] for layer in seen), sum(layer["elements"] for layer in seen)
            values["dead_share"] = sum(layer["dead_units"] for layer in seen) / units
            values["zero_gradient_share"] = sum(layer["zero_gradient_units"] for layer in seen) / units
            values["negative_share"] = sum(layer["negative_share"] * layer["elements"] for layer in seen) / elements
            ratio = watched["gradient_norm_ratio"] if watched else None
            values["gradient_norm_ratio"] = math.nan if ratio is None else ratio
            # Units are seen over the whole split, gradients in the steps.
            of_steps = {layer["name"]: layer for layer in watched["layers"]} if watched else {}
            gradients = ("gradient_mean", "gradient_variance", "gradient_norm")
            self.layers["after" if self.curves["train_loss"] else "before"] = [
                {**layer, **{name: of_steps.get(layer["name"], layer)[name] for name in gradients}} for layer in seen
            ]
        for name in self.curves:
            self.curves[name].append(values.get(name, math.nan))  # the units of a network that diverged say nothing

    def gradients(self) -> dict[str, Any]:
        """Of one batch, before training."""
        self.module.train()
        part = self.dataset.train.take(torch.arange(min(len(self.dataset.train), _EVALUATED_AT_ONCE)))
        with ActivationMonitor(self.module) as monitor, torch.random.fork_rng(), restored_buffers(self.module):
            logits = self.module(*(x.to(self.device) for x in part.inputs))
            F.cross_entropy(logits, part.labels.to(self.device)).backward()  # type: ignore[no-untyped-call]
        self.module.zero_grad(set_to_none=True)
        return monitor.to_dict()


def train(configuration: Configuration, dataset: Dataset, device: torch.device | str = "cpu") -> Outcome:
    """Trains until the epochs are through, the validation loss has not fallen for ``patience``, or the loss is not finite.

    The test split then sees the weights of the lowest validation loss; without ``patience`` the last finite ones.
    Under torch.distributed every process calls this, takes its share of every batch, and returns the same.
    """
    run = _Run(configuration, dataset, torch.device(device))
    run.record(math.nan, run.before)
    best, best_loss = copy.deepcopy(run.module.state_dict()), run.curves["validation_loss"][0]
    best_epoch, diverged = 0, False
    for epoch in range(1, configuration.epochs + 1):
        with ExitStack() as stack:
            monitor = None
            if configuration.observe:
                monitor = stack.enter_context(ActivationMonitor(run.module, every=WATCHED_EVERY))
            loss = run.epoch()
        run.record(loss, monitor.to_dict() if monitor else None)
        latest = run.curves["validation_loss"][-1]
        if not (math.isfinite(loss) and math.isfinite(latest)):
            diverged = True
            break
        # The first process's word counts: rounding may differ between them.
        if configuration.patience is None or ranks.of_first(not latest >= best_loss):
            best, best_loss, best_epoch = copy.deepcopy(run.module.state_dict()), latest, epoch
        elif epoch - best_epoch >= configuration.patience:
            break
    run.module.load_state_dict(best)
    _, test_score = evaluate(run.module, dataset.test, dataset.metric, run.device)
    return Outcome(
        configuration,
        run.curves,
        test_score,
        best_epoch,
        diverged,
        run.steps,
        run.seconds,
        sum(parameter.numel() for parameter in run.module.parameters()),
        run.layers,
    )
