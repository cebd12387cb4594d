"""What one training run is: everything that its result depends on, besides the code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

from pydantic import BeforeValidator

# Another version of the code that trains gives other results: what it finished before is not taken up again.
VERSION = 1

DEFAULT_SLOPE = 0.01
# Hidden layers, and epochs until the losses of most arms have stopped falling.
USUAL_SIZE = (3, 30)
SIZES = {"digits": (3, 20), "mnist-5k": (3, 8), "fashion-mnist": (3, 3), "reuters-r8": (2, 8), "20-newsgroups": (2, 6)}
# A run that has not been better on the validation split for so many epochs stops.
PATIENCE = 5


@dataclass(frozen=True)
class Configuration:
    """One run of one arm.

    ``activation``, ``initialisation``, …: one of the tuples above. ``negative_slope``: of leaky_relu, else None.
    ``network``: "default" for what suits the dataset's domain, "mlp" for a plain one. ``depth``: hidden layers.
    ``patience``: epochs without a lower validation loss before the run stops; None trains all ``epochs``.
    ``observe``: units, variances and gradients are watched.
    """

    dataset: str
    activation: str
    learning_rate: float
    seed: int
    negative_slope: float | None = None
    initialisation: str = "he"
    regularisation: str = "none"
    optimiser: str = "adam"
    schedule: str = "constant"
    network: str = "default"
    depth: int = 3
    epochs: int = 20
    patience: int | None = PATIENCE
    batch_size: int = 64
    observe: bool = False

    def __post_init__(self) -> None:
        if (self.negative_slope is None) == (self.activation == "leaky_relu"):
            raise ValueError(f"negative_slope is leaky_relu's, got {self.negative_slope!r} for {self.activation}")

    @property
    def key(self) -> str:
        """The same for the same run in another process, on another machine."""
        text = json.dumps({**asdict(self), "version": VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def function(self) -> str:
        """The activation, with its slope."""
        return self.activation if self.negative_slope is None else f"{self.activation} {self.negative_slope:g}"


_PLAIN = Configuration("", "relu", 0.0, 0)


def _whole(entry: Any) -> Any:
    if isinstance(entry, dict) and (missing := {of.name for of in fields(Configuration)} - entry.keys()):
        raise ValueError(f"{', '.join(sorted(missing))} missing")
    return entry


# As a file has it: nothing is left to the defaults, which later versions may change.
Written = Annotated[Configuration, BeforeValidator(_whole)]


@dataclass(frozen=True)
class Arm:
    """What is compared: a configuration but for learning rate (swept, the same for each arm) and seed."""

    of: Written

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", replace(self.of, learning_rate=0.0, seed=0))

    def run(self, learning_rate: float, seed: int) -> Configuration:
        return replace(self.of, learning_rate=learning_rate, seed=seed)

    @property
    def label(self) -> str:
        """What distinguishes it from the usual: "leaky_relu 0.01", "relu, xavier, depth 10"."""
        of = self.of
        words = [of.function]
        words += [
            str(value)
            for name in ("initialisation", "regularisation", "optimiser", "schedule")
            if (value := getattr(of, name)) != getattr(_PLAIN, name)
        ]
        usual, _ = SIZES.get(of.dataset, USUAL_SIZE)
        words += [f"depth {of.depth}"] * (of.depth != usual) + ["mlp"] * (of.network == "mlp")
        words += ["no early stopping"] * (of.patience is None)
        return ", ".join(words)
