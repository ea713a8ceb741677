"""Piecewise polynomials through given values: their coefficients, and where they or their slopes break."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

Recipe = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Spline:
    """A kind of path.

    Parameters
    ----------
    name : str
        What it is called.
    recipe : callable
        From values [T, ...] and the lengths of pieces [T - 1, ...] to the coefficients of every power, [pieces, ...]
        each.
    degree : int
        Of its polynomials. At 0 a value holds until the next, and the last value is a piece too.
    smooth : int
        How many derivatives are continuous at inner times; -1: none, nor the path itself.
    """

    name: str
    recipe: Recipe
    degree: int
    smooth: int

    def through(
        self, times: Float64[Tensor, "*rows times"], values: Shaped[Tensor, "*rows times *value"]
    ) -> Shaped[Tensor, "*rows pieces powers *value"]:
        """The coefficients of the path through values, computed in float64."""
        axis = times.dim() - 1
        width = times.diff(dim=-1)[(..., *(None,) * (values.dim() - times.dim()))]
        wide = values.to(torch.promote_types(values.dtype, torch.float64)) if self.degree else values
        found = self.recipe(wide.movedim(axis, 0), width.movedim(axis, 0))
        return torch.stack([x.to(values.dtype).movedim(0, axis) for x in found], axis + 1).contiguous()

    def breaks(self, count: int, uses: set[str]) -> tuple[slice | list[int], list[bool]]:
        """Which of so many times are breaks of the path ("value") or its slope ("slope"), and at which these jump.

        A break is a jump, or a bend; behind that, what is lost is not worth a step that ends there. At both ends a path
        of pieces with a slope stops abruptly.
        """
        smooth = self.smooth - ("slope" in uses)
        if not self.degree:
            return slice(1, None), [True] * (count - 1)
        ends_jump = "slope" in uses
        if smooth > 0:
            return [0, -1], [ends_jump] * 2
        return slice(None), [ends_jump, *[smooth < 0] * (count - 2), ends_jump]


def steps(values: Tensor, width: Tensor) -> tuple[Tensor, ...]:
    """Each value by itself."""
    return (values,)


def lines(values: Tensor, width: Tensor) -> tuple[Tensor, ...]:
    """Straight from value to value."""
    return values[:-1], values.diff(dim=0) / width


def natural(values: Tensor, width: Tensor) -> tuple[Tensor, ...]:
    """The natural cubic spline: its curvatures solve a tridiagonal system, and are zero at both ends."""
    slope = values.diff(dim=0) / width
    end = torch.zeros_like(values[:1])
    inner = tridiagonal(width[:-1], 2 * (width[:-1] + width[1:]), width[1:], 6 * slope.diff(dim=0))
    curve = torch.cat((end, inner, end))
    return (
        values[:-1],
        slope - width * (2 * curve[:-1] + curve[1:]) / 6,
        curve[:-1] / 2,
        curve.diff(dim=0) / (6 * width),
    )


def tridiagonal(lower: Tensor, diagonal: Tensor, upper: Tensor, right: Tensor) -> Tensor:
    """Solve lower[i] x[i - 1] + diagonal[i] x[i] + upper[i] x[i + 1] = right[i], along the first axis, all at once.

    Parallel cyclic reduction (Hockney & Jesshope, *Parallel Computers*, 1981): each round eliminates the neighbours at
    a distance, and doubles it; the logarithm of the length in rounds. Needs no pivots, the diagonal being dominant.
    """
    count, distance = len(diagonal), 1
    lower, upper = lower.clone(), upper.clone()
    lower[:1], upper[-1:] = 0, 0
    while distance < count:
        down = -lower / _shifted(diagonal, distance, 1.0)
        up = -upper / _shifted(diagonal, -distance, 1.0)
        diagonal, right, lower, upper = (
            diagonal + down * _shifted(upper, distance) + up * _shifted(lower, -distance),
            right + down * _shifted(right, distance) + up * _shifted(right, -distance),
            down * _shifted(lower, distance),
            up * _shifted(upper, -distance),
        )
        distance *= 2
    return right / diagonal


def _shifted(x: Tensor, by: int, fill: float = 0.0) -> Tensor:
    """What stands ``by`` places before, ``fill`` where nothing does."""
    rest = x.new_full((abs(by), *x.shape[1:]), fill)
    return torch.cat((rest, x[:-by]) if by > 0 else (x[-by:], rest))


SPLINES: Mapping[str, Spline] = {
    spline.name: spline
    for spline in (Spline("linear", lines, 1, 0), Spline("cubic", natural, 3, 2), Spline("step", steps, 0, -1))
}
