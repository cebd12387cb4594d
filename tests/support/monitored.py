"""What an ActivationMonitor finds, for its tests."""

import pytest
import torch

from leakyrelu_ext.diagnostics import ActivationMonitor

X = torch.tensor([[1.0, -2.0, 0.0], [3.0, -1.0, -4.0]])


def observed(model, *inputs, backward=True, **arguments):
    with ActivationMonitor(model, **arguments) as monitor:
        for x in inputs:
            y = model(x)
            if backward:
                y.sum().backward()
    return monitor.to_dict()


def rounded(found):
    """For comparisons of runs: a matrix product's last bits depend on where in memory its operands lie."""
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return pytest.approx(found, rel=1e-5) if isinstance(found, float) else found
