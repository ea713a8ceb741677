"""How long a step is: pure functions of the error ratio and a short history.

A controller has two questions to answer. `aim`: where does the next step end? `judge`: is this step kept, and what is
the next size? Both are written on clock numbers (see `clock`), so that one text serves a shared clock and many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralode.clock import Flag, Number, maximum, minimum, negate, power, where
from neuralode.clock import isfinite as finite
from neuralode.registry import pick

SAFETY = 0.9
FACTOR_MIN, FACTOR_MAX = 0.2, 10.0
RATIO_MIN = 1e-10  # a smaller ratio says nothing more
LANDING = 1.01  # a step this much short of the target is stretched to it


class Aim(NamedTuple):
    """Where the next step ends."""

    h: Number  # signed
    t1: Number
    landing: Flag  # ends at the target exactly
    clipped: Flag  # shorter or longer than the controller would have it


class Verdict(NamedTuple):
    """What becomes of an attempted step."""

    accept: Flag
    h: Number  # size of the next attempt, positive
    history: Any


class Memory(NamedTuple):
    """What a PID controller remembers: the last two ratios accepted, and whether it may grow."""

    last: Number
    before: Number
    may_grow: Flag


@dataclass(frozen=True)
class PID:
    r"""Adapt the step by a proportional–integral–derivative controller.

    With k = error order + 1 and r_n the error ratio of step n, the next step is h times

    .. math:: s\; r_n^{-(P + I + D)/k}\; r_{n-1}^{(P + 2D)/k}\; r_{n-2}^{-D/k}

    held between 0.2 and 10. Non-finite attempts and those with a ratio above 1 are rejected; after a rejection the next
    accepted step does not grow; rejections and clipped steps do not enter the history.

    Parameters
    ----------
    proportional, integral, derivative : float
        P, I, D. The defaults are Söderlind's H312 filter, which gives smooth step sequences.
    safety : float
        The factor s.
    first_step : float, optional
        Size of the first attempt; estimated unless given.
    min_step, max_step : float, optional
        Bounds on the size. A step of ``min_step`` is kept whatever its error.
    norm : {"rms", "max"} or callable
        How errors are reduced; a callable takes the pytree of scaled errors and returns a number, or one a row.

    References
    ----------
    G. Söderlind, Digital filters in adaptive time-stepping, ACM Trans. Math. Softw. 29(1), 2003.
    The landing and the first step: Hairer, Nørsett & Wanner I, II.4.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> sol = node.solve(lambda t, y: -y, torch.ones(1), (0.0, 1.0), controller=node.PI(max_step=0.1))
    >>> int(sol.stats.accepted)
    11
    """

    proportional: float = -2 / 9
    integral: float = 2 / 9
    derivative: float = 1 / 18
    safety: float = SAFETY
    first_step: float | Tensor | None = None
    min_step: float | None = None
    max_step: float | None = None
    norm: Any = "rms"

    adaptive = True

    def __post_init__(self) -> None:
        for name in ("first_step", "min_step", "max_step"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Tensor) and not value > 0:
                raise ValueError(f"{name}={value!r}; wanted a positive size (the direction is that of t).")
        if not 0 < self.safety <= 1:
            raise ValueError(f"safety={self.safety!r}; wanted a number in (0, 1].")
        if self.min_step is not None and self.max_step is not None and self.min_step > self.max_step:
            raise ValueError(f"min_step={self.min_step!r} is above max_step={self.max_step!r}.")

    def start(self, t0: Number, t1: Number) -> Memory:
        """The history before the first step."""
        one = torch.ones_like(t0) if isinstance(t0, Tensor) else 1.0
        return Memory(one, one, one == 1)

    def resume(self, h: Number) -> PID:
        """The same, beginning with the size once reached; clocks that took no step say nothing about it."""
        if isinstance(h, Tensor):
            if not bool((h > 0).any()):
                return replace(self, first_step=None)
            return replace(self, first_step=torch.where(h > 0, h, h.max()))
        return replace(self, first_step=h if h > 0 else None)

    def bound(self, h: Number) -> Number:
        """A size held between ``min_step`` and ``max_step``."""
        if self.max_step is not None:
            h = minimum(h, self.max_step)
        return h if self.min_step is None else maximum(h, self.min_step)

    def aim(self, t: Number, h: Number, end: Number, direction: float, history: Memory) -> Aim:
        """Land on the end if it is within reach; halve what is left rather than leave a sliver."""
        left = (end - t) * direction
        landing = h * LANDING >= left
        clipped = landing | (2 * h > left)
        signed = where(landing, end - t, where(clipped, left / 2, h) * direction)
        return Aim(signed, where(landing, end, t + signed), landing, clipped)

    def judge(self, ratio: Number, h: Number, wanted: Number, clipped: Flag, history: Memory, order: int) -> Verdict:
        """Keep a step of size h whose error ratio is at most 1; ``wanted`` is the size before clipping."""
        sound = finite(ratio)
        accept = sound & (ratio <= 1)
        if self.min_step is not None:
            accept = accept | (sound & (h <= self.min_step))
        ratio = maximum(where(sound, ratio, math.inf), RATIO_MIN)

        p, i, d = self.proportional, self.integral, self.derivative
        factor = self.safety * power(ratio, -(p + i + d) / order)
        if p + 2 * d:
            factor = factor * power(history.last, (p + 2 * d) / order)
        if d:
            factor = factor * power(history.before, -d / order)
        most = where(accept, where(history.may_grow, FACTOR_MAX, 1.0), SAFETY)
        factor = maximum(minimum(factor, most), FACTOR_MIN)

        following = self.bound(h * factor)
        following = where(accept & clipped, maximum(following, wanted), following)
        entered = accept & negate(clipped)
        return Verdict(
            accept,
            following,
            Memory(where(entered, ratio, history.last), where(entered, history.last, history.before), accept),
        )


@dataclass(frozen=True)
class PI(PID):
    """`PID` with Gustafsson's proportional–integral choice: P = 0.4, I = 0.3, no D."""

    proportional: float = 0.4
    integral: float = 0.3
    derivative: float = 0.0


@dataclass(frozen=True)
class I(PID):  # noqa: E742 (the field's own name)
    """`PID` with the integral part alone: the classical controller, and the default."""

    proportional: float = 0.0
    integral: float = 1.0
    derivative: float = 0.0


class Position(NamedTuple):
    """Where a grid stands: how many steps were taken."""

    taken: Any


@dataclass(frozen=True)
class Fixed:
    """Steps of one size: times are t0 + n·h, and the last step ends where it must.

    Parameters
    ----------
    step_size : float
        The size h. The number of steps is ⌈span/h − 1e-9⌉, so that rounding adds no last sliver.
    """

    step_size: float

    adaptive = False
    norm = "rms"

    def __post_init__(self) -> None:
        if isinstance(self.step_size, bool) or not isinstance(self.step_size, (int, float)):
            raise TypeError(f"step_size is a {type(self.step_size).__name__}; wanted a positive number.")
        if not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(f"step_size={self.step_size!r}; wanted a positive size (the direction is that of t).")

    def resume(self, h: Number) -> Fixed:
        """The same steps again."""
        return self

    def start(self, t0: Number, t1: Number) -> tuple[Number, Number, Number]:
        """Steps taken, steps to take, and the start."""
        if isinstance(t0, Tensor):
            return torch.zeros_like(t0), ((t1 - t0).abs() / self.step_size - 1e-9).ceil(), t0
        return 0.0, math.ceil(abs(t1 - t0) / self.step_size - 1e-9), t0

    def aim(self, t: Number, h: Number, end: Number, direction: float, history: Any) -> Aim:
        """The next time of the grid."""
        taken, steps, t0 = history
        landing = taken + 1 >= steps
        t1 = where(landing, end, t0 + direction * self.step_size * (taken + 1))
        return Aim(t1 - t, t1, landing, landing)

    def judge(self, ratio: Number, h: Number, wanted: Number, clipped: Flag, history: Any, order: int) -> Verdict:
        """Always keep."""
        taken, steps, t0 = history
        return Verdict(h == h, wanted, (taken + 1, steps, t0))


@dataclass(frozen=True, eq=False)
class Given:
    """Take stated steps, of any method, and keep them all.

    Parameters
    ----------
    times : Tensor[N + 1] or Tensor[rows, N + 1]
        Where steps begin and end. Their differences are the step sizes: steps start at the first time of the solve, and
        the last one ends at its last time. In a row of its own, equal times at the end take no step.

    Examples
    --------
    >>> import torch, neuralode as node
    >>> grid = torch.linspace(0, 1, 6, dtype=torch.float64)
    >>> sol = node.solve(lambda t, y: -y, torch.ones(1), (0.0, 1.0), method="euler", controller=node.Given(grid))
    >>> round(sol.y1.item(), 5) == round(0.8**5, 5)
    True
    """

    times: Tensor

    adaptive = False
    norm = "rms"

    def __post_init__(self) -> None:
        times = self.times
        if not isinstance(times, Tensor) or not times.is_floating_point() or times.dim() not in (1, 2):
            raise TypeError("Given(times) wants a floating tensor [N + 1] or [rows, N + 1].")
        if times.shape[-1] < 2:
            raise ValueError(f"Given(times) has {times.shape[-1]} times; wanted at least two, the ends of a step.")
        object.__setattr__(self, "times", times.detach().double())

    def start(self, t0: Number, t1: Number) -> Any:
        """Steps taken, steps to take, and where they end relative to the start."""
        offsets = self.times - self.times[..., :1]
        span = torch.as_tensor(t1 - t0, device=offsets.device)
        steps = offsets.diff()
        if bool((steps * span[..., None] < 0).any() if span.dim() == 0 or offsets.dim() == 1 else False):
            raise ValueError(
                f"Given(times) runs {self.times.tolist()}; wanted times that go the way of t, step by step."
            )
        if not isinstance(t0, Tensor):
            if self.times.dim() != 1:
                raise ValueError("Given(times) has a row for each sample; that needs per_sample=True.")
            return 0, len(offsets) - 1, (t0, offsets.tolist())
        if offsets.dim() == 2 and len(offsets) != len(t0):
            raise ValueError(
                f"Given(times) has {len(offsets)} rows, y0 has {len(t0)}; wanted one row of times for each."
            )
        offsets = offsets.to(t0.device).expand(len(t0), -1)
        moves = (offsets.diff() != 0).sum(-1)
        return torch.zeros_like(moves), moves, (t0, offsets)

    def aim(self, t: Number, h: Number, end: Number, direction: float, history: Any) -> Aim:
        """The end of the next stated step."""
        taken, steps, (t0, offsets) = history
        landing = taken + 1 >= steps
        if isinstance(taken, Tensor):
            following = (taken + 1).clamp(max=offsets.shape[1] - 1)
            t1 = torch.where(landing, end, t0 + offsets.gather(1, following[:, None])[:, 0])
        else:
            t1 = end if landing else t0 + offsets[taken + 1]
        return Aim(t1 - t, t1, landing, landing)

    def judge(self, ratio: Number, h: Number, wanted: Number, clipped: Flag, history: Any, order: int) -> Verdict:
        """Always keep."""
        taken, steps, where_from = history
        return Verdict(h == h, wanted, (taken + 1, steps, where_from))


CONTROLLERS: Mapping[str, PID] = {"i": I(), "pi": PI(), "pid": PID()}


def find_controller(controller: Any, method: Any, step_size: float | None) -> Any:
    """The controller that the arguments of `solve` ask for, or why there is none."""
    if step_size is not None and controller is not None:
        raise ValueError("step_size and controller were both given; wanted one of them.")
    if controller is None:
        if method.adaptive:
            if step_size is not None:
                raise ValueError(
                    f"step_size={step_size!r} with the adaptive method {method.name!r}; wanted tolerances (rtol, "
                    "atol), or controller=I(first_step=...), or a fixed method such as 'rk4'."
                )
            return CONTROLLERS["i"]
        if step_size is None:
            raise ValueError(f"method {method.name!r} takes fixed steps; wanted step_size=... or an adaptive method.")
        return Fixed(step_size)
    controller = pick("controller", controller, CONTROLLERS, (PID, Fixed, Given))
    if controller.adaptive and not method.adaptive:
        raise ValueError(
            f"method {method.name!r} has no error estimate; wanted step_size=..., controller=Given(times), or an "
            "adaptive method."
        )
    return controller
