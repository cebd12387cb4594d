"""ActivationMonitor counts once what a checkpoint computes again."""

import random
from functools import partial

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from leakyrelu_ext.diagnostics import ActivationMonitor
from monitored import observed, rounded

pytestmark = pytest.mark.cpu_only


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(use_reentrant):
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=use_reentrant)

    model = Checkpointed(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    (layer,) = observed(model, torch.randn(8, 4, requires_grad=True))["layers"]
    assert layer["calls"] == 1
    # A reentrant one runs without gradients, and again outside of the forward.
    assert (layer["gradient_norm"] is None) == use_reentrant


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_what_a_checkpoint_computes_again_counts_once(use_reentrant, every):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))
    batches = [torch.randn(8, 4, requires_grad=True) for _ in range(4)]
    found = []
    for forward in (model, partial(torch.utils.checkpoint.checkpoint, model, use_reentrant=use_reentrant)):
        with ActivationMonitor(model, every) as monitor:
            for pair in (batches[:2], batches[2:]):  # two forwards before the backward of both
                sum(forward(x).sum() for x in pair).backward()
        found.append(monitor.to_dict())
    assert found[1] == rounded(found[0])
    assert found[0]["observed"] == 4 // every
    assert found[0]["layers"][0]["gradient_norm"] > 0


def test_a_checkpoint_of_a_forward_that_is_not_observed():
    """On the very input of one that was."""
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4, requires_grad=True)
    found = []
    for forward in (model, partial(torch.utils.checkpoint.checkpoint, model, use_reentrant=True)):
        with ActivationMonitor(model, every=2) as monitor:
            forward(x).sum().backward()
            (forward(x) * 3).sum().backward()
        found.append(monitor.to_dict())
    assert found[1] == rounded(found[0])


@pytest.mark.parametrize("every", [1, 2])
def test_a_checkpoint_of_more_than_the_model(every):
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    whole, x = nn.Sequential(nn.Linear(4, 4), inner), torch.randn(8, 4, requires_grad=True)
    found = []
    for forward in (whole, partial(torch.utils.checkpoint.checkpoint, whole, use_reentrant=True)):
        with ActivationMonitor(inner, every) as monitor:
            with torch.no_grad():
                whole(x)  # a validation
            for scale in (1, 2, 3):
                (forward(x) * scale).sum().backward()
        found.append(monitor.to_dict())
    assert found[1] == rounded(found[0])


def test_inputs_that_come_to_lie_where_others_were():
    """What a checkpoint of more than the model computes again may lie where a validation's input was, which nobody keeps."""
    chance, others = random.Random(0), []
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    whole, x = nn.Sequential(nn.Linear(4, 4), inner), torch.randn(8, 4, requires_grad=True)
    means = set()
    for _ in range(100):  # the allocator gives out memory in another order each time
        others = [*others[-50:], torch.empty(chance.randrange(1, 400))]
        chance.shuffle(others)
        with ActivationMonitor(inner, every=2) as monitor:
            with torch.no_grad():
                whole(x)
            for scale in (1, 2, 3):
                (torch.utils.checkpoint.checkpoint(whole, x, use_reentrant=True) * scale).sum().backward()
        means.add(round(monitor.to_dict()["layers"][0]["gradient_mean"], 5))
    assert len(means) == 1


def test_a_validation_without_gradients_is_not_taken_for_a_checkpoint():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 4)
    with ActivationMonitor(model) as monitor:
        with torch.no_grad():
            model(x)
        model(x).sum().backward()
    assert (monitor.to_dict()["forwards"], monitor.to_dict()["layers"][0]["calls"]) == (2, 2)
