"""What each of two ranks does with a fused family; run by test_fused_processes.py as a program: FAMILY, and the file for
what went wrong. Whatever is done to our net is done to the reference: PyTorch's own modules, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cases import randn
from fused_families import AREAS, CHANNELS, Family, assert_same, batch
from ranks import RANKS, run_checks


def mine(x: Tensor) -> Tensor:
    """This rank's half of a batch."""
    return x.chunk(RANKS)[dist.get_rank()]


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def state(net: nn.Module) -> list[Tensor]:
    return [*(whole(p.grad) for p in net.parameters()), *(whole(b).clone() for b in net.buffers())]


def gradients_of_one_process(family: Family, x: Tensor) -> list[Tensor]:
    """Of the mean over a batch. Batch norm's are those of its halves: what each rank sees are its statistics."""
    net = family.net(False)
    for part in x.chunk(RANKS) if "batch" in family.kinds else [x]:
        (net(part).square().mean() / (RANKS if "batch" in family.kinds else 1)).backward()
    return [parameter.grad for parameter in net.parameters()]


def trained(net: nn.Module, steps: int = 3) -> list[Tensor]:
    """Gradients of the last step, and what the buffers have become."""
    for seed in range(steps):
        net.zero_grad()
        net(mine(batch(seed=seed))).float().square().mean().backward()
    return state(net)


def ddp(family: Family) -> None:
    for options in ({}, {"static_graph": True}, {"gradient_as_bucket_view": True}, {"broadcast_buffers": False}):
        ours, reference = (trained(DistributedDataParallel(net, **options)) for net in family.nets())
        assert_same(ours, reference)
    expected = gradients_of_one_process(family, batch(seed=2))
    assert_same(ours[: len(expected)], expected, rtol=1e-5, atol=1e-6)


def broadcast_buffers(family: Family) -> None:
    """Each forward begins with the buffers of rank 0, however far they were apart."""
    found = []
    for net in family.nets():
        for buffer in net.buffers():
            buffer.add_(dist.get_rank())
        parallel = DistributedDataParallel(net)
        for _ in range(2):
            parallel(mine(batch()))
        parallel.eval()(mine(batch()))
        found.append([b.clone() for b in net.buffers()])
    assert_same(*found)


def no_sync(family: Family) -> None:
    first, second = batch(), batch(seed=1)
    found = []
    for net in family.nets():
        parallel = DistributedDataParallel(net)
        with parallel.no_sync():
            parallel(mine(first)).square().mean().backward()
        parallel(mine(second)).square().mean().backward()
        found.append(state(net))
    assert_same(*found)
    parts = (gradients_of_one_process(family, x) for x in (first, second))
    expected = [one + other for one, other in zip(*parts, strict=True)]
    assert_same(found[0][: len(expected)], expected)


def sharded(net: nn.Sequential, **options: Any) -> FSDPModule:
    mesh = init_device_mesh("cpu", (RANKS,))
    for block in net:
        fully_shard(block, mesh=mesh, reshard_after_forward=True, **options)
    return fully_shard(net, mesh=mesh, reshard_after_forward=True, **options)


def fsdp2(family: Family) -> None:
    ours, reference = (trained(sharded(net)) for net in family.nets())
    assert_same(ours, reference)
    expected = gradients_of_one_process(family, batch(seed=2))
    assert_same(ours[: len(expected)], expected, rtol=1e-5, atol=1e-6)


def checkpointed_fsdp2(family: Family) -> None:
    found = []
    for net in family.nets():
        for block in net:
            block.forward = lambda x, inner=block.forward: checkpoint(inner, x, use_reentrant=False)
        found.append(trained(sharded(net)))
    assert_same(*found)


def outcome(function: Callable[[], list[Tensor]]) -> list[Tensor] | str:
    """Results, or the error."""
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def mixed_precision_fsdp2(family: Family) -> None:
    """Parameters reach the layers as bfloat16, and so do activations; running statistics stay as they are, which PyTorch's
    batch norm refuses on a CPU."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for kind in family.kinds:
        single = Family(kind, (kind,))
        ours, reference = (
            outcome(lambda net=net: trained(sharded(net, mp_policy=policy), steps=1)) for net in single.nets(torch.float32)
        )
        if isinstance(ours, str) or isinstance(reference, str):
            assert ours == reference
            continue
        exact = trained(sharded(single.net(False)), steps=1)
        for one, other, true in zip(ours, reference, exact, strict=True):
            assert one.dtype == other.dtype
            errors = [(tensor.double() - true).norm() for tensor in (one, other)]
            # Noise where the true gradient is 0: that of a bias before a norm.
            assert errors[0] <= 1.5 * errors[1] + 2**-8 * true.double().norm() + 2**-10, errors


def dtensor(family: Family) -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    x, grad = (randn(4, CHANNELS, 6, 5, dtype=torch.float64, seed=seed) for seed in (0, 1))
    for index in range(len(family.kinds)):
        for placement in (Replicate(), Shard(0)):
            for distributed_parameters in (True, False):
                for training in (True, False):
                    outcomes = []
                    for fused in (True, False):
                        layer = family.layers(fused)[index].train(training)
                        if distributed_parameters:
                            distribute_module(layer, mesh)
                        leaf = distribute_tensor(x, mesh, [placement]).requires_grad_()

                        def run(layer: nn.Module = layer, leaf: DTensor = leaf) -> list[Tensor]:
                            y = layer(leaf)
                            y.backward(distribute_tensor(grad, mesh, y.placements))
                            placements = torch.tensor([y.placements == other.placements for other in (leaf, leaf.grad)])
                            return [placements, whole(y).detach(), whole(leaf.grad), *state(layer)]

                        outcomes.append(outcome(run))
                    ours, reference = outcomes
                    if isinstance(ours, str) or isinstance(reference, str):
                        assert ours == reference
                    else:
                        assert_same(ours, reference)


def pipeline(family: Family) -> None:
    rank, found = dist.get_rank(), []
    for net in family.nets():
        part = net[:2] if rank == 0 else net[2:]
        stage = PipelineStage(part, rank, RANKS, torch.device("cpu"))
        schedule = ScheduleGPipe(stage, 2, loss_fn=lambda output, target: output.square().mean())
        output = schedule.step(batch()) if rank == 0 else schedule.step(target=torch.zeros(4, 2))
        # No running statistics: to learn sizes, PyTorch runs a stage on uninitialized memory, and they take that in.
        found.append(([] if output is None else [output.detach()]) + [p.grad for p in part.parameters()])
    assert_same(*found)


CHECKS: dict[str, Callable[[Family], None]] = {
    check.__name__: check
    for check in (
        ddp, broadcast_buffers, no_sync, fsdp2, checkpointed_fsdp2, mixed_precision_fsdp2, dtensor, pipeline,
    )
}  # fmt: skip

if __name__ == "__main__":
    run_checks(CHECKS, AREAS[sys.argv[1]], sys.argv[2])
