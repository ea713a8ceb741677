"""Detect transforms of `torch.func` and forward-mode differentiation."""

from __future__ import annotations

from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, peek_interpreter_stack
from torch.autograd import forward_ad


def transforming() -> bool:
    """Return whether this call runs inside of a `torch.func` transform or forward-mode differentiation.

    These track every operation by themselves, and tensors that they track need not have ``requires_grad`` set.
    """
    return peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def followed(x: Tensor) -> bool:
    """Return whether ``x`` is differentiated, by autograd, a transform or forward mode."""
    return x.requires_grad or (
        transforming() and (is_functorch_wrapped_tensor(x) or forward_ad.unpack_dual(x).tangent is not None)
    )
