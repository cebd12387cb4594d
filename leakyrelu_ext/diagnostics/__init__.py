"""Statistics of a model's activations while it runs: dead units, negative shares, variances, gradients by depth."""

from .monitor import ActivationMonitor

__all__ = ["ActivationMonitor"]
