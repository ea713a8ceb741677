"""Butcher tableaus: data that checks itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralode.methods.order_conditions import continuous_residual, residual

TOLERANCE = 1e-12  # published decimals carry 15 to 17 digits, and coefficients reach 50 in size


@dataclass(frozen=True)
class Tableau:
    r"""An explicit Runge–Kutta pair with its continuous extension.

    One step of size h from (t, y) is :math:`k_i = f(t + c_i h,\; y + h \sum_j a_{ij} k_j)`,
    :math:`y_1 = y + h \sum_i b_i k_i`, with error estimate :math:`h \sum_i e_i k_i`, and in between
    :math:`y(\theta) = y + h \sum_i b_i(\theta) k_i`, :math:`b_i(\theta) = \sum_j P_{ij} \theta^j`.

    Parameters
    ----------
    name : str
        What the method is called.
    order : int
        Order p of ``b``; checked against every rooted tree of at most p nodes.
    c : sequence of s floats
        Nodes.
    a : sequence of s sequences
        Strictly lower triangular; row i may stop after its i entries.
    b : sequence of s floats
        Weights.
    b_error : sequence of s floats, optional
        Weights of the error estimate, ``b`` minus the embedded weights. Without it the method takes fixed steps.
    error_order : int, optional
        Order of the embedded weights; ``order - 1`` unless given.
    interpolant : sequence of s sequences of q floats
        Row i holds the coefficients of θ, θ², …, θ^q in b_i(θ).
    interpolant_order : int, optional
        Order of the continuous extension; ``order - 1`` (and at least 1) unless given. Checked.
    source : str
        Where the coefficients are published.

    Raises
    ------
    ValueError
        If shapes disagree, a row of ``a`` does not sum to ``c``, the order conditions do not hold,
        or the continuous extension does not end in ``b``.

    Examples
    --------
    >>> ralston = Tableau(
    ...     name="ralston", order=2, c=(0, 2 / 3), a=((), (2 / 3,)), b=(1 / 4, 3 / 4),
    ...     interpolant=((1, -3 / 4), (0, 3 / 4)), source="Ralston 1962")
    >>> ralston.stages, ralston.adaptive
    (2, False)
    """

    name: str
    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    interpolant: tuple[tuple[float, ...], ...]
    source: str
    b_error: tuple[float, ...] | None = None
    error_order: int = 0
    interpolant_order: int = 0

    def __post_init__(self) -> None:
        freeze = object.__setattr__
        freeze(self, "c", tuple(map(float, self.c)))
        freeze(self, "a", tuple(tuple(map(float, row[:i])) for i, row in enumerate(self.a)))
        freeze(self, "b", tuple(map(float, self.b)))
        freeze(self, "interpolant", tuple(tuple(map(float, row)) for row in self.interpolant))
        if self.b_error is not None:
            freeze(self, "b_error", tuple(map(float, self.b_error)))
        freeze(self, "error_order", self.error_order or self.order - 1)
        freeze(self, "interpolant_order", self.interpolant_order or max(1, self.order - 1))
        self._check()

    @property
    def stages(self) -> int:
        """Number of stages s."""
        return len(self.b)

    @property
    def adaptive(self) -> bool:
        """Whether there is an error estimate."""
        return self.b_error is not None

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the first of the next step (FSAL)."""
        return self.stages > 1 and self.c[-1] == 1 and self.b[-1] == 0 and self.a[-1] == self.b[:-1]

    def _check(self) -> None:
        s = self.stages
        shapes = {"c": len(self.c), "a": len(self.a), "interpolant": len(self.interpolant)}
        if self.b_error is not None:
            shapes["b_error"] = len(self.b_error)
        for part, length in shapes.items():
            if length != s:
                raise ValueError(f"Tableau {self.name!r}: {part} has {length} rows, b has {s}.")
        if any(len(row) != i for i, row in enumerate(self.a)):
            raise ValueError(f"Tableau {self.name!r}: row i of a needs i entries (explicit methods only).")

        a = np.zeros((s, s))
        for i, row in enumerate(self.a):
            a[i, :i] = row
        b, polynomials = np.array(self.b), np.array(self.interpolant)
        self._expect("rows of a sum to c", np.abs(a.sum(1) - self.c).max())
        self._expect(f"order {self.order}", residual(self.order, a, b))
        if self.b_error is not None:
            embedded = b - np.array(self.b_error)
            self._expect(f"embedded order {self.error_order}", residual(self.error_order, a, embedded))
        self._expect("the interpolant ends in b", np.abs(polynomials.sum(1) - b).max())
        order = self.interpolant_order
        self._expect(f"interpolant order {order}", continuous_residual(order, a, polynomials))

    def _expect(self, what: str, violation: float) -> None:
        if not violation < TOLERANCE:
            raise ValueError(f"Tableau {self.name!r} fails its check '{what}' by {violation:.1e}.")
