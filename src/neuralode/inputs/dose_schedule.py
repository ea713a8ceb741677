"""The doses of a solve, in the order of their times on each clock."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor
from torch.utils._pytree import PyTree, tree_flatten

from neuralode.core.clock import choose
from neuralode.core.problem import Problem
from neuralode.inputs.dose_arguments import check_new_state, dose_amounts, dose_times
from neuralode.inputs.doses import Dose


@dataclass(frozen=True, eq=False)
class DoseSchedule:
    """The doses of a solve, in the order of their times on each clock.

    Attributes
    ----------
    problem : Problem
        The problem without doses.
    t : Tensor[clocks, slots]
        The time of the j-th dose of each clock; infinite where the clock has fewer.
    dose : Tensor[clocks, slots]
        The `Dose` that it belongs to, as an index of ``doses``.
    number : Tensor[clocks, slots]
        Its index among the times of that `Dose`.
    doses : tuple of Dose
        The doses that the user gave.
    amounts : tuple
        For each `Dose` the added leaves, [K, *leaf shape] each, or None if its change is a function.
    """

    problem: Problem
    t: Float64[Tensor, "clocks slots"]
    dose: Int64[Tensor, "clocks slots"]
    number: Int64[Tensor, "clocks slots"]
    doses: tuple[Dose, ...]
    amounts: tuple[list[Tensor] | None, ...]

    @property
    def slots(self) -> int:
        """The largest number of doses on a clock."""
        return self.t.shape[1]

    def apply(self, y: PyTree, *, slot: int, t: Float64[Tensor, " clocks"], due: Bool[Tensor, " clocks"]) -> PyTree:
        """Return the state after the doses of one slot.

        Parameters
        ----------
        y : pytree of Tensor
            The state before.
        slot : int
            Which dose of each clock.
        t : Tensor[clocks]
            The time of each clock.
        due : Tensor[clocks]
            The clocks that have a dose in this slot, on the device of the state; at least one.
        """
        if not self.problem.per_sample:
            return self._changed(y, t=t[0], dose=int(self.dose[0, slot]), number=int(self.number[0, slot]))
        dose, number = self.dose[:, slot].to(due.device), self.number[:, slot].to(due.device)
        for index in dose[due].unique().tolist():
            rows = due & (dose == index)
            y = choose(rows, self._changed(y, t=t, dose=index, number=torch.where(rows, number, 0)), y)
        return y

    def _changed(self, y: PyTree, *, t: Tensor, dose: int, number: int | Tensor) -> PyTree:
        """Return the state of all rows after one dose; ``number`` is its index among the times, or one for each row."""
        field, layout, amounts = self.problem.field, self.problem.layout, self.amounts[dose]
        if amounts is None:
            time = t.to(device=layout.device, dtype=field.time_dtype)
            new = self.doses[dose].change(time, y, *field.args)
            check_new_state(new, y, name=f"Dose {dose}")
            return new
        leaves, spec = tree_flatten(y)
        rows = torch.arange(layout.rows, device=layout.device)
        added = [x[number, rows] if isinstance(number, Tensor) else x[number] for x in amounts]
        return spec.unflatten([a + b for a, b in zip(leaves, added, strict=True)])


def make_schedule(doses: Dose | list[Dose] | tuple[Dose, ...], problem: Problem) -> DoseSchedule:
    """Check the doses that a user gave and sort them by time on each clock.

    Raises
    ------
    TypeError, ValueError
        For objects that are not doses, decreasing ``t`` of the solve, times outside its span, and amounts that do not
        fit the state.
    """
    given = tuple(doses) if isinstance(doses, (list, tuple)) else (doses,)
    for dose in given:
        if not isinstance(dose, Dose):
            raise TypeError(f"doses holds a {type(dose).__name__}; wanted Dose(t, change), or a list of these.")
    if problem.direction < 0:
        raise ValueError(
            "doses with decreasing t: jumps would have to be undone. Wanted increasing times: with s = -t for time, "
            "f(t, y) becomes -f(-s, y), and each dose its inverse."
        )
    device = problem.t.device
    times = [dose_times(dose.t, problem, name=f"Dose {n}").to(device) for n, dose in enumerate(given)]
    amounts = tuple(
        dose_amounts(dose.change, problem.layout, count=t.shape[1], name=f"Dose {n}")
        for n, (dose, t) in enumerate(zip(given, times, strict=True))
    )
    index = [(n, k) for n, t in enumerate(times) for k in range(t.shape[1])]
    dose, number = torch.tensor(index, dtype=torch.int64, device=device).reshape(-1, 2).unbind(1)
    t = torch.cat([*times, problem.t.new_zeros((problem.layout.rows if problem.per_sample else 1, 0))], 1)
    missing = ~t.detach().isfinite()
    order = t.detach().masked_fill(missing, torch.inf).argsort(dim=1, stable=True)
    slots = int((~missing).sum(1).max()) if t.numel() else 0
    order = order[:, :slots]
    return DoseSchedule(
        problem=problem,
        t=torch.where(missing, torch.inf, t).gather(1, order),
        dose=dose[order],
        number=number[order],
        doses=given,
        amounts=amounts,
    )
