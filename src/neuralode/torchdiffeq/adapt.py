"""The user's function as the core wants one: its answer has the structure, shapes and dtype of the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuralode.autodiff.captured import modules_of
from neuralode.torchdiffeq.inputs import Given


class Adapted(nn.Module):
    """``func(t, y)`` for the core.

    A module, so that the core finds every parameter that func may use, also those that its first evaluation does not.

    Parameters
    ----------
    func : callable
        The user's: may answer with a list, numbers, another floating dtype, or a shape that broadcasts.
    y0 : Tensor or tuple of Tensor
        A state, for its structure and dtype.
    """

    def __init__(self, func: Callable[..., Any], y0: Given) -> None:
        super().__init__()
        self.func = func
        self.held = nn.ModuleList(modules_of(func))
        self.tupled = not isinstance(y0, Tensor)
        self.time_dtype = (y0 if isinstance(y0, Tensor) else y0[0]).dtype.to_real()

    def forward(self, t: Tensor, y: Any) -> Any:
        """Evaluate."""
        answer = self.func(t if t.dtype is self.time_dtype else t.to(self.time_dtype), y)
        return fit_parts(answer, y) if self.tupled else fit(answer, y)


def fit_parts(answer: Any, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The parts of an answer, each in the shape of its part of the state; they count by their numbers."""
    try:
        parts = list(answer)
    except TypeError as error:
        raise TypeError(
            f"func returned a {type(answer).__name__} for a tuple y0; wanted a tuple of {len(y)} tensors."
        ) from error
    if len(parts) != len(y):
        raise ValueError(f"func returned {len(parts)} parts for a tuple y0 of {len(y)}; wanted one for each.")
    found = []
    for place, (part, like) in enumerate(zip(parts, y, strict=True)):
        if isinstance(part, Tensor) and part.shape != like.shape and part.numel() == like.numel():
            part = part.reshape(like.shape)
        found.append(fit(part, like, f" in part {place}"))
    return tuple(found)


def fit(answer: Any, like: Tensor, where: str = "") -> Tensor:
    """One tensor of an answer in the shape and dtype of its part of the state."""
    if not isinstance(answer, Tensor):
        if not isinstance(answer, (int, float, complex)):
            raise TypeError(
                f"func returned a {type(answer).__name__}{where}; wanted a tensor of shape {list(like.shape)}."
            )
        answer = torch.as_tensor(answer, device=like.device)
    if not torch.is_grad_enabled():
        answer = answer.detach()  # of a func that makes graphs of its own, none is kept
    if answer.dtype is not like.dtype:
        if answer.dtype.is_complex and not like.dtype.is_complex:
            raise TypeError(
                f"func returned {answer.dtype}{where} for a state of {like.dtype}, which cannot hold it; wanted a "
                "complex y0."
            )
        answer = answer.to(like.dtype)
    if answer.shape == like.shape:
        return answer
    try:
        return answer.expand(like.shape)
    except RuntimeError as error:
        raise ValueError(
            f"func returned shape {list(answer.shape)}{where}; wanted {list(like.shape)}, as y0 has, or one that "
            "broadcasts to it."
        ) from error
