"""What an ActivationMonitor finds, for its tests."""

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
