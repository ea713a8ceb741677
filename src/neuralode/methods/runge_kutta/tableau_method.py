"""The properties that a Runge–Kutta method has from its tableau, explicit or implicit."""

from __future__ import annotations

from math import fsum

from neuralode.methods.runge_kutta.tableau import Tableau


class TableauMethod:
    """A method that takes the steps of a `Tableau`."""

    tableau: Tableau

    partitioned = False
    one_call = False
    memoryless = True

    @property
    def name(self) -> str:
        """The name of the method."""
        return self.tableau.name

    @property
    def family(self) -> str:
        """The kind of method."""
        if self.tableau.explicit:
            return "explicit Runge–Kutta"
        return f"{'diagonally' if self.tableau.diagonally_implicit else 'fully'} implicit Runge–Kutta"

    @property
    def order(self) -> int:
        """The order of the solution."""
        return self.tableau.order

    @property
    def error_order(self) -> int:
        """The order of the error estimate, which is O(h^(error_order + 1)).

        An estimate of order q that is corrected by one of order p is O(h^(2 (q + 1) - (p + 1))).
        """
        table = self.tableau
        return table.error_order if table.b_error_low is None else 2 * table.error_order - table.error_order_low

    @property
    def interpolant_order(self) -> int:
        """The order of the dense output."""
        return self.tableau.interpolant_order

    @property
    def stages(self) -> int:
        """The number of stages of a step."""
        return self.tableau.stages

    @property
    def adaptive(self) -> bool:
        """Whether a step estimates its error."""
        return self.tableau.adaptive

    def weights_at(self, theta: float) -> tuple[float, ...]:
        """Return the weights bᵢ(θ) of the stages at one θ."""
        weights = []
        for row in self.tableau.interpolant:
            total = 0.0
            for coefficient in reversed(row):
                total = (total + coefficient) * theta
            weights.append(total)
        if self.tableau.dense_c:  # large coefficients of high degrees cancel: impose Σ bᵢ(θ) = θ
            weights[0] = theta - fsum(weights[1:])
        return tuple(weights)
