"""What one training run has given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import FiniteFloat, computed_field

from ..as_json import Figure
from .configuration import Written

# By epoch, the first entry before training (NaN where there is nothing yet or any more). Where units are watched, too: the
# shares of those that were never positive over the whole training split, and of those that got no gradient from any of it;
# of negative pre-activations; and the gradient's norm at the first activation / at the last one.
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

    configuration: Written
    curves: dict[str, list[Figure]]
    test_score: FiniteFloat
    best_epoch: int
    diverged: bool
    steps: int
    seconds: float  # of training alone, one thread; other runs may have shared the machine
    parameters: int
    layers: dict[str, list[dict[str, Any]]]  # "before", "after"

    def __post_init__(self) -> None:
        if not set(CURVES) <= self.curves.keys():
            raise ValueError(f"curves {sorted(self.curves)}")
        if len({len(curve) for curve in self.curves.values()}) != 1:
            raise ValueError("curves of several lengths")
        if not 0 <= self.best_epoch <= self.epochs:
            raise ValueError(f"best_epoch {self.best_epoch} of {self.epochs}")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def key(self) -> str:
        return self.configuration.key

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
