"""What a forward keeps for its backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def saved_bytes(call: Callable[[], object], besides: Iterable[Tensor] = ()) -> int:
    """Bytes that what ``call`` returns keeps for its backward, every storage once.

    ``besides``: what is not counted, since it is there anyway, such as parameters.
    """
    kept: dict[int, int] = {}
    there = {tensor.untyped_storage().data_ptr() for tensor in besides}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = call()  # alive, and so what it keeps
    del output
    return sum(nbytes for address, nbytes in kept.items() if address not in there)
