"""Detect transforms of `torch.func` and forward-mode differentiation."""

from __future__ import annotations

from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, peek_interpreter_stack
from torch.autograd import forward_ad


def transforming() -> bool:
    """Whether a transform of `torch.func`, or forward-mode differentiation, is going on around this call.

    These follow every operation by themselves, and tensors that they follow need not say so by ``requires_grad``.
    """
    return peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def followed(x: Tensor) -> bool:
    """Whether derivatives by ``x`` are wanted, in whatever way."""
    return x.requires_grad or (
        transforming() and (is_functorch_wrapped_tensor(x) or forward_ad.unpack_dual(x).tangent is not None)
    )
