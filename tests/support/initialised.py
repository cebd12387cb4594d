"""A model whose weights are drawn, for the tests of leakyrelu_ext.init."""

import torch

from leakyrelu_ext.init import init_for_leaky_relu_


def initialised(model, seed=0, **arguments):
    report = init_for_leaky_relu_(model, generator=torch.Generator().manual_seed(seed), **arguments)
    return model, report
