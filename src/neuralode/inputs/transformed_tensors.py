"""Whether numbers can be read from a tensor that `torch.func` transforms or `torch.compile` may have replaced."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor
from torch.autograd.forward_ad import unpack_dual


def is_wrapped(x: Tensor) -> bool:
    """Return whether a `torch.func` transform has wrapped the tensor, so that some operations are unavailable."""
    return not torch.compiler.is_compiling() and is_functorch_wrapped_tensor(x)


def unwrapped(x: Tensor) -> Tensor | None:
    """Return the tensor inside all wrappers; None if it is a batch of tensors, as under `torch.vmap`."""
    while is_wrapped(x):
        if is_batchedtensor(x):
            return None
        x = get_unwrapped(x)
    return x


def is_host_number(t: Tensor) -> bool:
    """Return whether a tensor is a constant number that the host can read without waiting for a device."""
    return (
        t.dim() == 0
        and t.device.type == "cpu"
        and not t.requires_grad
        and not torch.compiler.is_compiling()
        and not is_wrapped(t)
        and unpack_dual(t).tangent is None
    )
