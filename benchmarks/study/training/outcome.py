"""What one training run has given, as the object and as the JSON line that it is kept as."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from .configuration import Configuration, from_dict

# By epoch, the first entry before training (NaN where there is nothing yet or any more, None in JSON). Where units are
# watched, too: the shares of those that were never positive over the whole training split, and of those that got no gradient
# from any of it; of negative pre-activations; and the gradient's norm at the first activation / at the last one.
CURVES = ("train_loss", "validation_loss", "validation_score")
WATCHED = ("dead_share", "zero_gradient_share", "negative_share", "gradient_norm_ratio")


@dataclass(frozen=True)
class Outcome:
    """``curves``: see CURVES, WATCHED; all of one length.

    ``test_score``: in the dataset's metric, from 0 to 1, with the weights of ``best_epoch`` (of the lowest validation loss;
    without patience the last finite one; 0: untrained). ``diverged``: the loss became infinite or NaN, and the run stopped
    there. ``layers``: what :class:`leakyrelu_ext.diagnostics.ActivationMonitor` saw of each activation before training and
    in the last epoch.
    """

    configuration: Configuration
    curves: dict[str, list[float]]
    test_score: float
    best_epoch: int
    diverged: bool
    steps: int
    seconds: float  # of training alone, one thread; other runs may have shared the machine
    parameters: int
    layers: dict[str, list[dict[str, Any]]]  # "before", "after"

    @property
    def best_validation_loss(self) -> float:
        return self.curves["validation_loss"][self.best_epoch]

    def last(self, curve: str) -> float:
        """Of ``curve`` the value of the last epoch that the run did not diverge in: a broken network's units say nothing."""
        return self.curves[curve][-2 if self.diverged else -1]

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self.curves["validation_loss"]) - 1


def to_dict(outcome: Outcome) -> dict[str, Any]:
    """For JSON, which has no NaN: None stands for what is not finite."""
    entry = asdict(outcome)
    entry["curves"] = {
        name: [value if math.isfinite(value) else None for value in values] for name, values in outcome.curves.items()
    }
    return {"key": outcome.configuration.key, **entry}


def from_json(entry: dict[str, Any]) -> Outcome:
    """What :func:`to_dict` made of one.

    Raises:
        ValueError, TypeError, KeyError: ``entry`` is none.
    """
    values = {of.name: entry[of.name] for of in fields(Outcome)}
    values["configuration"] = from_dict(values["configuration"])
    values["curves"] = {
        str(name): [math.nan if value is None else float(value) for value in curve]
        for name, curve in values["curves"].items()
    }
    values["layers"] = {when: [dict(layer) for layer in layers] for when, layers in values["layers"].items()}
    outcome = Outcome(**values)
    if not set(CURVES) <= outcome.curves.keys():
        raise ValueError(f"curves {sorted(outcome.curves)}")
    if len({len(curve) for curve in outcome.curves.values()}) != 1:
        raise ValueError("curves of several lengths")
    if not 0 <= outcome.best_epoch <= outcome.epochs:
        raise ValueError(f"best_epoch {outcome.best_epoch} of {outcome.epochs}")
    if not (isinstance(outcome.test_score, (int, float)) and math.isfinite(outcome.test_score)):
        raise ValueError(f"test_score {outcome.test_score!r}")
    return outcome
