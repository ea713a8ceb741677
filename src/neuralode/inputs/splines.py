"""Kinds of piecewise polynomials through given values: their coefficients and their breakpoints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Shaped
from torch import Tensor

from neuralode.inputs.interpolation_queries import Quantity

# From values [T, ...] and widths of pieces [T - 1, ...] to the coefficients of ascending powers, [pieces, ...] each.
Coefficients: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Spline:
    """A kind of piecewise polynomial.

    Parameters
    ----------
    name : str
        The name of the kind.
    coefficients : callable
        Maps values [T, ...] and widths of pieces [T - 1, ...] to the coefficients of all powers, [pieces, ...] each.
    degree : int
        Degree of the polynomials. At degree 0 a value holds until the next time, and the last value is a piece too.
    continuous : int
        Number of continuous derivatives at inner knots; -1 if the value itself is discontinuous.
    """

    name: str
    coefficients: Coefficients
    degree: int
    continuous: int

    def fit(
        self, times: Shaped[Tensor, "*rows times"], values: Shaped[Tensor, "*rows times *value"]
    ) -> Shaped[Tensor, "*rows pieces powers *value"]:
        """Return the coefficients of the polynomials through the values, computed in float64."""
        axis = times.dim() - 1
        width = times.diff(dim=-1)[(..., *(None,) * (values.dim() - times.dim()))]
        wide = values.to(torch.promote_types(values.dtype, torch.float64)) if self.degree else values
        powers = self.coefficients(wide.movedim(axis, 0), width.movedim(axis, 0))
        return torch.stack([x.to(values.dtype).movedim(0, axis) for x in powers], axis + 1).contiguous()

    def breakpoints(self, count: int, used: Collection[Quantity]) -> tuple[slice | list[int], list[bool]]:
        """Return which of ``count`` knots are breakpoints of an f that uses these quantities, and which are jumps.

        A breakpoint is a jump or a kink; discontinuities of higher derivatives are not worth ending a step there. The
        derivative jumps to zero at both ends.
        """
        continuous = self.continuous - ("derivative" in used)
        if not self.degree:
            return slice(1, None), [True] * (count - 1)
        ends_jump = "derivative" in used
        if continuous > 0:
            return [0, -1], [ends_jump] * 2
        return slice(None), [ends_jump, *[continuous < 0] * (count - 2), ends_jump]


def step(values: Tensor, width: Tensor) -> tuple[Tensor, ...]:
    """Return the coefficients of constant pieces: the values."""
    return (values,)


def linear(values: Tensor, width: Tensor) -> tuple[Tensor, ...]:
    """Return the coefficients of linear pieces."""
    return values[:-1], values.diff(dim=0) / width


def natural_cubic(values: Tensor, width: Tensor) -> tuple[Tensor, ...]:
    """Return the coefficients of the natural cubic spline.

    Its second derivatives at the knots solve a tridiagonal system and are zero at both ends.
    """
    slope = values.diff(dim=0) / width
    end = torch.zeros_like(values[:1])
    inner = solve_tridiagonal(
        lower=width[:-1], diagonal=2 * (width[:-1] + width[1:]), upper=width[1:], right=6 * slope.diff(dim=0)
    )
    second = torch.cat((end, inner, end))
    return (
        values[:-1],
        slope - width * (2 * second[:-1] + second[1:]) / 6,
        second[:-1] / 2,
        second.diff(dim=0) / (6 * width),
    )


def solve_tridiagonal(*, lower: Tensor, diagonal: Tensor, upper: Tensor, right: Tensor) -> Tensor:
    """Solve lower[i] x[i - 1] + diagonal[i] x[i] + upper[i] x[i + 1] = right[i] along the first axis.

    Parallel cyclic reduction (Hockney & Jesshope, *Parallel Computers*, 1981): each round eliminates the neighbours at
    some distance and doubles the distance, so that log2(n) rounds suffice. Needs no pivoting if the matrix is
    diagonally dominant.
    """
    count, distance = len(diagonal), 1
    lower, upper = lower.clone(), upper.clone()
    lower[:1], upper[-1:] = 0, 0
    while distance < count:
        down = -lower / _shifted(diagonal, distance, fill=1.0)
        up = -upper / _shifted(diagonal, -distance, fill=1.0)
        diagonal, right, lower, upper = (
            diagonal + down * _shifted(upper, distance) + up * _shifted(lower, -distance),
            right + down * _shifted(right, distance) + up * _shifted(right, -distance),
            down * _shifted(lower, distance),
            up * _shifted(upper, -distance),
        )
        distance *= 2
    return right / diagonal


def _shifted(x: Tensor, by: int, *, fill: float = 0.0) -> Tensor:
    """Shift entries along the first axis, towards its end if ``by`` is positive."""
    rest = x.new_full((abs(by), *x.shape[1:]), fill)
    return torch.cat((rest, x[:-by]) if by > 0 else (x[-by:], rest))


SPLINES: Mapping[str, Spline] = {
    spline.name: spline
    for spline in (
        Spline("linear", coefficients=linear, degree=1, continuous=0),
        Spline("cubic", coefficients=natural_cubic, degree=3, continuous=2),
        Spline("step", coefficients=step, degree=0, continuous=-1),
    )
}
