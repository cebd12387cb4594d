"""Configurations of seconds, and outcomes that nothing was trained for."""

from __future__ import annotations

from dataclasses import replace

from leakyrelu_bench.study.training.configuration import Configuration
from leakyrelu_bench.study.training.outcome import Outcome

SMALL = Configuration("wine", "leaky_relu", 0.01, 0, 0.01, depth=2, epochs=3, batch_size=32)


def outcome(configuration, losses=(2.0, 1.0, 0.5), score=0.9, **curves):
    """As if ``configuration`` had been trained for so many epochs."""
    epochs = len(losses) - 1
    configuration = replace(configuration, epochs=max(epochs, 1))
    return Outcome(
        configuration,
        {
            "train_loss": [float("nan"), *losses[1:]],
            "validation_loss": list(losses),
            "validation_score": [0.5] * len(losses),
            **curves,
        },
        score,
        epochs,
        False,
        10 * epochs,
        0.1 * epochs,
        1000,
        {},
    )
