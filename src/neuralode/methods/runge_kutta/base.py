"""What a method has from its tableau, whether its stages are formulas or equations."""

from __future__ import annotations

from math import fsum

from neuralode.methods.runge_kutta.tableau import Tableau


class OfTableau:
    """A method that takes the steps of a `Tableau`."""

    tableau: Tableau

    partitioned = False

    @property
    def name(self) -> str:
        """What the method is called."""
        return self.tableau.name

    @property
    def family(self) -> str:
        """What kind of method it is."""
        if self.tableau.explicit:
            return "explicit Runge–Kutta"
        return f"{'diagonally' if self.tableau.diagonally_implicit else 'fully'} implicit Runge–Kutta"

    @property
    def order(self) -> int:
        """Order of the solution."""
        return self.tableau.order

    @property
    def error_order(self) -> int:
        """Order of the embedded solution: the error estimate is of size h^(error_order + 1).

        An estimate of order q that is corrected by one of order p is of size h^(2 (q + 1) - (p + 1)).
        """
        table = self.tableau
        return table.error_order if table.b_error_low is None else 2 * table.error_order - table.error_order_low

    @property
    def interpolant_order(self) -> int:
        """Order of the dense output."""
        return self.tableau.interpolant_order

    @property
    def stages(self) -> int:
        """Stages of one step."""
        return self.tableau.stages

    @property
    def adaptive(self) -> bool:
        """Whether a step estimates its error."""
        return self.tableau.adaptive

    def weights_at(self, theta: float) -> tuple[float, ...]:
        """The weights bᵢ(θ) of the slopes at one θ."""
        weights = []
        for row in self.tableau.interpolant:
            total = 0.0
            for coefficient in reversed(row):
                total = (total + coefficient) * theta
            weights.append(total)
        if self.tableau.dense_c:  # coefficients of high degrees are large and cancel: Σ bᵢ(θ) = θ all the same
            weights[0] = theta - fsum(weights[1:])
        return tuple(weights)
