"""What each of two ranks does; run by test_processes.py as a program: SIDE, and the file for what went wrong."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ranks import run_checks
from sides import BUILTIN, Side, begin


def model(side: Side, inplace: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), side.module(0.2), nn.Linear(8, 8), side.module(0.1, inplace), nn.Linear(8, 4))


def batch() -> torch.Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def rows() -> slice:
    rank = dist.get_rank()
    return slice(4 * rank, 4 * rank + 4)


def expected() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Output and gradients of the built-in, on one process, of the mean over the whole batch."""
    net = model(BUILTIN)
    output = net(batch())
    return output.detach(), list(torch.autograd.grad(output.square().mean(), list(net.parameters())))


def assert_gradients(net: nn.Module) -> None:
    for parameter, grad in zip(net.parameters(), expected()[1], strict=True):
        actual = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
        torch.testing.assert_close(actual, grad)


def ddp(side: Side) -> None:
    for options in ({}, {"static_graph": True}, {"gradient_as_bucket_view": True}):
        net = DistributedDataParallel(model(side), **options)
        net(batch()[rows()]).square().mean().backward()
        assert_gradients(net.module)
    net = DistributedDataParallel(model(side))
    half = batch()[rows()]
    with net.no_sync():
        (net(half[:2]).square().mean() / 2).backward()
    (net(half[2:]).square().mean() / 2).backward()
    assert_gradients(net.module)


def fsdp2(side: Side) -> None:
    mesh = init_device_mesh("cpu", (2,))
    net = model(side)
    for layer in net:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    output = net(batch()[rows()])
    torch.testing.assert_close(output.detach(), expected()[0][rows()])
    output.square().mean().backward()
    assert_gradients(net)


def checkpointed_fsdp2(side: Side) -> None:
    mesh = init_device_mesh("cpu", (2,))
    net = fully_shard(model(side), mesh=mesh)
    inner = copy.copy(net.forward)
    net.forward = lambda x: checkpoint(inner, x, use_reentrant=False)
    net(batch()[rows()]).square().mean().backward()
    assert_gradients(net)


def dtensor(side: Side) -> None:
    mesh = init_device_mesh("cpu", (2,))
    x = batch()
    for placement in (Shard(0), Shard(1), Replicate()):
        leaf = distribute_tensor(x, mesh, [placement]).requires_grad_()
        reference = distribute_tensor(x, mesh, [placement]).requires_grad_()
        assert_same_dtensor(side.function(leaf, 0.2), F.leaky_relu(reference, 0.2), F.leaky_relu(x, 0.2))
        side.function(leaf, 0.2).sum().backward()
        F.leaky_relu(reference, 0.2).sum().backward()
        assert_same_dtensor(leaf.grad, reference.grad, torch.where(x > 0, 1.0, 0.2))
        inplace = side.function(distribute_tensor(x.clone(), mesh, [placement]), 0.2, inplace=True)
        assert_same_dtensor(inplace, F.leaky_relu(reference, 0.2), F.leaky_relu(x, 0.2))
    partial = DTensor.from_local(x if dist.get_rank() == 0 else -3 * x, mesh, [Partial()])
    assert_same_dtensor(side.function(partial, 0.2), F.leaky_relu(partial, 0.2), F.leaky_relu(-2 * x, 0.2))


def assert_same_dtensor(actual: DTensor, reference: DTensor, whole: torch.Tensor) -> None:
    placements: tuple[tuple[Placement, ...], tuple[Placement, ...]] = (actual.placements, reference.placements)
    assert placements[0] == placements[1], placements
    torch.testing.assert_close(actual.full_tensor(), whole)


def tensor_parallel(side: Side) -> None:
    mesh = init_device_mesh("cpu", (2,))
    # Not in place: what a parallel layer returns is a view that autograd lets nobody change.
    net = parallelize_module(model(side, inplace=False), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    output = net(batch())
    torch.testing.assert_close(output.detach(), expected()[0])
    output.square().mean().backward()
    assert_gradients(net)


def pipeline(side: Side) -> None:
    rank = dist.get_rank()
    net = model(side)
    part = net[:2] if rank == 0 else net[2:]
    losses: list[torch.Tensor] = []
    stage = PipelineStage(part, rank, 2, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, 2, loss_fn=lambda output, target: output.square().mean())
    if rank == 0:
        schedule.step(batch())
    else:
        output = schedule.step(target=torch.zeros(8, 4), losses=losses)
        torch.testing.assert_close(output.detach(), expected()[0])
    grads = expected()[1]
    for parameter, grad in zip(part.parameters(), grads[:2] if rank == 0 else grads[2:], strict=True):
        torch.testing.assert_close(parameter.grad, grad)


CHECKS: dict[str, Callable[[Side], None]] = {
    check.__name__: check for check in (ddp, fsdp2, dtensor, tensor_parallel, pipeline, checkpointed_fsdp2)
}


if __name__ == "__main__":
    run_checks(CHECKS, begin(sys.argv[1]), sys.argv[2])
