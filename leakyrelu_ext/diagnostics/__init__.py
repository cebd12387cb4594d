"""What the activations of a model do while it runs: dead units, negative shares, variances, gradients by depth."""

from .monitor import ActivationMonitor

__all__ = ["ActivationMonitor"]
