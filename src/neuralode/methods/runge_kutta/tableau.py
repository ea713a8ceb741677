"""Butcher tableaus, checked when they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import fsum

import numpy as np

from neuralode.methods.runge_kutta.order_conditions import continuous_residual, residual

TOLERANCE = 1e-12  # published decimals carry 15 to 17 digits, and coefficients reach 50 in size


@dataclass(frozen=True)
class Tableau:
    r"""A Runge–Kutta pair, explicit or implicit, with its continuous extension.

    One step of size h from (t, y) is :math:`k_i = f(t + c_i h,\; y + h \sum_j a_{ij} k_j)`,
    :math:`y_1 = y + h \sum_i b_i k_i`, with error estimate :math:`h \sum_i e_i k_i`, and in between
    :math:`y(\theta) = y + h \sum_i b_i(\theta) k_i`, :math:`b_i(\theta) = \sum_j P_{ij} \theta^j`.
    The continuous extension may read further stages, the *dense stages*. These are explicit, and evaluated only for
    dense output.

    Parameters
    ----------
    name : str
        The name of the method.
    order : int
        Order p of ``b``; checked against every rooted tree of at most p nodes.
    c : sequence of s floats
        Nodes.
    a : sequence of s sequences
        Row i may omit trailing zeros. If all entries on and above the diagonal are zero, the method is explicit and row
        i is stored with i entries; otherwise every row is stored with s entries.
    b : sequence of s floats
        Weights.
    interpolant : sequence of s + d sequences of q floats
        Row i holds the coefficients of θ, θ², …, θ^q in b_i(θ), for the s stages followed by the d dense stages.
    source : str
        Where the coefficients were published.
    b_error : sequence of s floats, default=None
        Weights of the error estimate: ``b`` minus the embedded weights. None: the method takes fixed steps.
    error_order : int, default=0
        Order of the embedded weights; 0 stands for ``order - 1``. Checked.
    interpolant_order : int, default=0
        Order of the continuous extension; 0 stands for ``order - 1``, and at least 1. Checked.
    dense_c : sequence of d floats, default=()
        Nodes of the dense stages.
    dense_a : sequence of d sequences, default=()
        Row i weighs the s stages and the dense stages before it; stored with s + i entries.
    b_error_low : sequence of s floats, default=None
        Weights of a second error estimate, of lower order, which corrects the first one (`neuralode.core.norms.Norm`).
    error_order_low : int, default=0
        Order of its embedded weights; required with ``b_error_low``. Checked.

    Raises
    ------
    ValueError
        If shapes disagree; a row of ``a`` does not sum to its entry of ``c``, or one of ``dense_a`` to that of
        ``dense_c``; order conditions are violated; the continuous extension does not end in ``b``; or there is a second
        error estimate without a first one of higher order, or of an implicit method.

    Examples
    --------
    >>> ralston = Tableau(
    ...     name="ralston", order=2, c=(0, 2 / 3), a=((), (2 / 3,)), b=(1 / 4, 3 / 4),
    ...     interpolant=((1, -3 / 4), (0, 3 / 4)), source="Ralston 1962")
    >>> ralston.stages, ralston.adaptive, ralston.explicit
    (2, False, True)
    >>> crank_nicolson = Tableau(
    ...     name="crank_nicolson", order=2, c=(0, 1), a=((), (1 / 2, 1 / 2)), b=(1 / 2, 1 / 2),
    ...     interpolant=((1, -1 / 2), (0, 1 / 2)), source="Crank & Nicolson 1947")
    >>> crank_nicolson.explicit, crank_nicolson.a, crank_nicolson.blocks
    (False, ((0.0, 0.0), (0.5, 0.5)), ((0,), (1,)))
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
    dense_c: tuple[float, ...] = ()
    dense_a: tuple[tuple[float, ...], ...] = ()
    b_error_low: tuple[float, ...] | None = None
    error_order_low: int = 0

    def __post_init__(self) -> None:
        freeze = object.__setattr__
        for part in ("c", "b", "dense_c"):
            freeze(self, part, _floats(getattr(self, part)))
        for part in ("b_error", "b_error_low"):
            if getattr(self, part) is not None:
                freeze(self, part, _floats(getattr(self, part)))
        freeze(self, "a", _stage_rows(self.a, self.stages))
        freeze(self, "dense_a", tuple(_padded(row, self.stages + i) for i, row in enumerate(self.dense_a)))
        freeze(self, "interpolant", tuple(map(_floats, self.interpolant)))
        freeze(self, "error_order", self.error_order or self.order - 1)
        freeze(self, "interpolant_order", self.interpolant_order or max(1, self.order - 1))
        self._check_shapes()
        self._check_estimates()
        self._check_orders()
        _ = self.first_same_as_last  # torch.compile cannot trace the first access of a cached property

    @property
    def stages(self) -> int:
        """The number of stages s, without the dense stages."""
        return len(self.b)

    @property
    def adaptive(self) -> bool:
        """Whether there is an error estimate."""
        return self.b_error is not None

    @cached_property
    def explicit(self) -> bool:
        """Whether every stage depends on earlier stages only."""
        return all(len(row) == i for i, row in enumerate(self.a))

    @cached_property
    def diagonally_implicit(self) -> bool:
        """Whether no stage depends on a later one, so that stages are solved one by one. True if explicit."""
        return not any(any(row[i + 1 :]) for i, row in enumerate(self.a))

    @cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The stages in order, grouped into blocks of stages that must be solved together.

        In explicit and diagonally implicit methods every stage is a block; a stage is explicit if its diagonal entry is
        zero. In a fully implicit method all stages are one block.

        Examples
        --------
        >>> from neuralode.methods.runge_kutta.tableaus.gl4 import GL4
        >>> from neuralode.methods.runge_kutta.tableaus.trbdf2 import TRBDF2
        >>> GL4.blocks, TRBDF2.blocks
        (((0, 1),), ((0,), (1,), (2,)))
        """
        starts, reach = [0], 0
        for i, row in enumerate(self.a):
            reach = max([reach, i, *(j for j, entry in enumerate(row) if entry)])
            if reach == i:  # no stage so far depends on a later one
                starts.append(i + 1)
        return tuple(tuple(range(*ends)) for ends in pairwise(starts))

    @cached_property
    def stiffly_accurate(self) -> bool:
        """Whether the last stage is evaluated at the new state: the last row of ``a`` is ``b``."""
        return _padded(self.a[-1], self.stages) == self.b

    @cached_property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the first of the next step (FSAL)."""
        return self.stages > 1 and self.stiffly_accurate and self.c[-1] == 1 and not any(self.a[0])

    def _check_shapes(self) -> None:
        stages, dense = self.stages, len(self.dense_c)
        expected = {
            "c": stages,
            "a": stages,
            "b_error": stages,
            "b_error_low": stages,
            "dense_a": dense,
            "interpolant": stages + dense,
        }
        for part, rows in expected.items():
            length = rows if getattr(self, part) is None else len(getattr(self, part))
            if length != rows:
                raise ValueError(f"Tableau {self.name!r}: {part} has {length} rows, wanted {rows}, one a stage.")
        most = {"a": [stages] * stages, "dense_a": range(stages, stages + dense)}
        for part, limits in most.items():
            for i, (row, limit) in enumerate(zip(getattr(self, part), limits, strict=True)):
                if len(row) > limit:
                    raise ValueError(
                        f"Tableau {self.name!r}: row {i} of {part} has {len(row)} entries, wanted at most {limit}."
                    )
        if len(set(map(len, self.interpolant))) > 1:
            raise ValueError(f"Tableau {self.name!r}: rows of interpolant differ in length.")

    def _check_estimates(self) -> None:
        if self.b_error_low is None:
            return
        if self.b_error is None or not 1 <= self.error_order_low < self.error_order:
            raise ValueError(
                f"Tableau {self.name!r} has b_error_low with error_order_low={self.error_order_low}; wanted beside it "
                f"a b_error, and an order of at least 1 below its error_order, which is {self.error_order}."
            )
        if not self.explicit:
            raise ValueError(f"Tableau {self.name!r} is implicit and has b_error_low; wanted b_error alone.")

    def _check_orders(self) -> None:
        s = self.stages
        rows = self.a + self.dense_a
        a = np.array([_padded(row, len(rows)) for row in rows])  # dense stages last
        main, b, polynomials = a[:s, :s], np.array(self.b), np.array(self.interpolant)
        self._expect("rows of a sum to c", np.abs(main.sum(1) - self.c).max())
        self._expect("rows of dense_a sum to dense_c", np.abs(a[s:].sum(1) - self.dense_c).max(initial=0))
        self._expect(f"order {self.order}", residual(self.order, main, b))
        if self.b_error is not None:
            embedded = b - np.array(self.b_error)
            self._expect(f"embedded order {self.error_order}", residual(self.error_order, main, embedded))
        if self.b_error_low is not None:
            embedded = b - np.array(self.b_error_low)
            violation = residual(self.error_order_low, main, embedded)
            self._expect(f"second embedded order {self.error_order_low}", violation)
        ends = np.array([fsum(row) for row in self.interpolant]) - _padded(self.b, len(rows))
        self._expect("the interpolant ends in b", np.abs(ends).max())
        order = self.interpolant_order
        self._expect(f"interpolant order {order}", continuous_residual(order, a, polynomials))

    def _expect(self, check: str, violation: float) -> None:
        if not violation < TOLERANCE:
            raise ValueError(f"Tableau {self.name!r} fails its check '{check}' by {violation:.1e}.")


def _floats(row: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, row))


def _padded(row: Sequence[float], length: int) -> tuple[float, ...]:
    """Return the row with trailing zeros."""
    return _floats(row) + (0.0,) * (length - len(row))


def _stage_rows(a: Sequence[Sequence[float]], stages: int) -> tuple[tuple[float, ...], ...]:
    """Return row i with i entries if the method is explicit, otherwise all rows with one entry a stage."""
    if any(any(row[i:]) for i, row in enumerate(a)):
        return tuple(_padded(row, stages) for row in a)
    return tuple(_padded(row[:i], i) for i, row in enumerate(a))
