"""The derivatives that a recorded trajectory gives to a gradient, and what the gradient must plan for them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralode import GradientError, Replay, solve
from neuralode.core.record import Plan

F64 = torch.float64
RATE, Y0 = torch.tensor(0.7, dtype=F64, requires_grad=True), torch.tensor([[1.0], [2.0]], dtype=F64)


@dataclass(frozen=True)
class Planned(Replay):
    """Replay with another plan, and with derivatives by any member of the trajectory."""

    changes: dict[str, Any] = field(default_factory=dict)
    member: str = "pullback"

    name = "planned"

    def plan(self, plan: Plan) -> Plan:
        return replace(plan, **self.changes)

    def attach(self, trajectory: Any, context: Any) -> list[Tensor]:
        if self.member != "rerun":
            return super().attach(trajectory, context)
        with torch.enable_grad():
            return trajectory.rerun()


def gradients(gradient: Any, method: str, per_sample: bool) -> tuple[Tensor, ...]:
    y0, steps = Y0.clone().requires_grad_(), {} if method == "tsit5" else {"step_size": 0.125}
    t = torch.tensor([0.0, 0.3, 1.0], dtype=F64)
    sol = solve(lambda t, y: -RATE * y, y0, t, gradient=gradient, method=method, per_sample=per_sample, **steps)
    return torch.autograd.grad(sol.ys.square().sum(), (RATE, y0))


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per_sample"])
@pytest.mark.parametrize("method", ["tsit5", "explicit_adams"])
def test_a_plan_with_pullback_keeps_the_states_that_it_needs(method: str, per_sample: bool, every: int) -> None:
    gradient = Planned(changes={"pullback": True, "keep_every": every})
    wanted = gradients("direct", method, per_sample)
    torch.testing.assert_close(gradients(gradient, method, per_sample), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("changes", [{}, {"save_steps": False}, {"keep_every": 2}])
def test_a_pullback_without_a_plan_for_it_is_refused(changes: dict[str, Any]) -> None:
    message = (
        r"gradient 'planned' calls Trajectory\.pullback of a solve that kept no steps; wanted pullback=True in the "
        r"Plan that its `plan` returns\."
    )
    with pytest.raises(GradientError, match=message):
        gradients(Planned(changes=changes), "tsit5", False)


def test_a_pullback_with_a_graph_without_a_plan_for_it_is_refused() -> None:
    sol = solve(lambda t, y: -RATE * y, Y0, (0.0, 1.0), gradient=Planned())
    with pytest.raises(
        GradientError, match=r"calls Trajectory\.pullback_with_graph .*; wanted pullback=True in the Plan"
    ):
        torch.autograd.grad(sol.y1.sum(), RATE, create_graph=True)


def test_a_rerun_without_a_plan_for_it_is_refused() -> None:
    message = (
        r"gradient 'planned' calls Trajectory\.rerun of a solve that kept no steps; wanted keep_states=True in the Plan"
    )
    with pytest.raises(GradientError, match=message):
        gradients(Planned(member="rerun"), "tsit5", False)


@pytest.mark.parametrize("changes", [{"keep_states": True}, {"pullback": True}])
def test_a_rerun_of_kept_steps_has_their_derivatives(changes: dict[str, Any]) -> None:
    wanted = gradients("direct", "tsit5", False)
    found = gradients(Planned(changes=changes, member="rerun"), "tsit5", False)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
