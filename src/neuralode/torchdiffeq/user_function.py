"""The user's function: checks of its return values, and its callbacks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from neuralode.autodiff.captured import modules_of
from neuralode.core.clock import Number, host
from neuralode.torchdiffeq.arguments import Arguments, Function, State, warn_caller

Callback: TypeAlias = Callable[[Tensor, Any, Tensor], Any]  # callback(t0, y0, dt)

CALLBACK_NAMES = ("callback_step", "callback_accept_step", "callback_reject_step")


class CheckedFunction(nn.Module):
    """``func(t, y)`` with return values of the structure, shapes and dtype of the state.

    It is a module that holds the modules of func, so that the solver finds all parameters that func may use, including
    those that the first evaluation does not use.

    Parameters
    ----------
    func : callable
        The user's function. It may return a list, numbers, another floating-point dtype, or a shape that broadcasts.
    y0 : Tensor or tuple of Tensor
        A state, for its structure and dtype.
    """

    def __init__(self, func: Function, y0: State) -> None:
        super().__init__()
        self.func = func
        self.modules_of_func = nn.ModuleList(modules_of(func))
        self.is_tuple = not isinstance(y0, Tensor)
        self.time_dtype = (y0 if isinstance(y0, Tensor) else y0[0]).dtype.to_real()

    def forward(self, t: Tensor, y: Any) -> Any:
        """Evaluate func, with t in the real dtype of the state."""
        value = self.func(t if t.dtype is self.time_dtype else t.to(self.time_dtype), y)
        return match_parts(value, y) if self.is_tuple else match_state(value, y)


def match_parts(value: Any, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the parts of a value of func, each in the shape and dtype of its part of the state."""
    try:
        parts = list(value)
    except TypeError as error:
        raise TypeError(
            f"func returned a {type(value).__name__} for a tuple y0; wanted a tuple of {len(y)} tensors."
        ) from error
    if len(parts) != len(y):
        raise ValueError(f"func returned {len(parts)} parts for a tuple y0 of {len(y)}; wanted one for each.")
    matched = []
    for index, (part, like) in enumerate(zip(parts, y, strict=True)):
        if isinstance(part, Tensor) and part.shape != like.shape and part.numel() == like.numel():
            part = part.reshape(like.shape)
        matched.append(match_state(part, like, f" in part {index}"))
    return tuple(matched)


def match_state(value: Any, y: Tensor, where: str = "") -> Tensor:
    """Return a value of func as a tensor in the shape and dtype of the state."""
    if not isinstance(value, Tensor):
        if not isinstance(value, (int, float, complex)):
            raise TypeError(f"func returned a {type(value).__name__}{where}; wanted a tensor of shape {list(y.shape)}.")
        value = torch.as_tensor(value, device=y.device)
    if not torch.is_grad_enabled():
        value = value.detach()  # drop the graph that a func may build under torch.enable_grad()
    if value.dtype is not y.dtype:
        if value.dtype.is_complex and not y.dtype.is_complex:
            raise TypeError(
                f"func returned {value.dtype}{where} for a state of {y.dtype}, which cannot hold it; wanted a complex "
                "y0."
            )
        value = value.to(y.dtype)
    if value.shape == y.shape:
        return value
    try:
        return value.expand(y.shape)
    except RuntimeError as error:
        raise ValueError(
            f"func returned shape {list(value.shape)}{where}; wanted {list(y.shape)}, the shape of y0, or a shape that "
            "broadcasts to it."
        ) from error


def no_callback(*arguments: Any) -> None:
    """Do nothing: the default for a callback that func does not define."""


def find_callbacks(arguments: Arguments, suffix: str = "") -> dict[str, Callback]:
    """Return the callbacks of func that its solver supports, by name without the suffix; warn about others."""
    candidates = {name: getattr(arguments.func, name + suffix, no_callback) for name in CALLBACK_NAMES}
    defined = {name: callback for name, callback in candidates.items() if callback is not no_callback}
    unsupported = set(defined) - set(getattr(arguments.solver, "valid_callbacks", set)())
    if unsupported:
        warn_caller(f"Solver '{arguments.method}' does not support callbacks {unsupported}")
    return {name: callback for name, callback in defined.items() if name not in unsupported}


@dataclass
class Observer:
    """Observer of step attempts: calls the callbacks of func and limits the number of attempts.

    Parameters
    ----------
    callbacks : dict
        ``callback(t0, y0, dt)`` by name; dt is positive in both directions of time.
    unpack : callable
        Converts packed rows to the state that a callback receives.
    like : Tensor
        Times are passed to callbacks in its dtype and on its device.
    limit : int or None
        Number of attempts allowed between two output times.
    output_times : list of float
        Output times multiplied by ``direction``, hence increasing.
    direction : float
        1 or −1.
    """

    callbacks: dict[str, Callback]
    unpack: Callable[[Tensor], Any]
    like: Tensor
    limit: int | None
    output_times: list[float]
    direction: float
    interval: int = -1
    count: int = 0

    def attempted(self, t: Number, y: Tensor, h: Number) -> None:
        """Handle an attempt of a step of size h from (t, y), before it is computed."""
        if self.limit is not None:
            self._count(host(t), self.limit)
        self._call("callback_step", t, y, h=h)

    def accepted(self, t: Number, y: Tensor, h: Number) -> None:
        """Handle an accepted step."""
        self._call("callback_accept_step", t, y, h=h)

    def rejected(self, t: Number, y: Tensor, h: Number) -> None:
        """Handle a rejected step."""
        self._call("callback_reject_step", t, y, h=h)

    def _call(self, name: str, t: Number, y: Tensor, *, h: Number) -> None:
        if name in self.callbacks:
            time, size = (
                torch.tensor(x, dtype=self.like.dtype, device=self.like.device) for x in (host(t), host(abs(h)))
            )
            self.callbacks[name](time, self.unpack(y), size)

    def _count(self, t: float, limit: int) -> None:
        interval = bisect_right(self.output_times, t * self.direction)
        if interval != self.interval:
            self.interval, self.count = interval, 0
        if self.count >= limit:
            raise AssertionError(
                f"max_num_steps exceeded ({self.count}>={limit}) at t={t:.9g}: attempts between two output times. "
                "Raise options['max_num_steps'], or loosen rtol and atol; use an implicit method for a stiff problem."
            )
        self.count += 1


def make_observer(
    arguments: Arguments, callbacks: dict[str, Callback], *, limit: int | None, unpack: Callable[[Tensor], Any]
) -> Observer | None:
    """Return the observer of a solve; None if it has neither callbacks nor a limit."""
    if not callbacks and limit is None:
        return None
    t, y0, direction = arguments.t.detach(), arguments.y0, arguments.direction
    like = t.double() if arguments.solver.adaptive else t
    return Observer(
        callbacks=callbacks,
        unpack=unpack,
        like=like.to((y0 if isinstance(y0, Tensor) else y0[0]).device),
        limit=limit,
        output_times=[] if arguments.event_fn is not None else [time * direction for time in t.tolist()],
        direction=direction,
    )
