"""Second derivatives of `odeint` with respect to all its inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from both import Field, ours
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralode import GradientError

Y0 = torch.tensor([[0.5, -0.3], [0.2, 0.8]], dtype=torch.float64)
T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
WEIGHT = torch.tensor([[0.3, -0.7], [0.6, 0.2]], dtype=torch.float64)


def solve(y0: Tensor, t: Tensor, weight: Tensor, **arguments: Any) -> Tensor:
    return ours.odeint(lambda t, y: torch.tanh(y @ weight) * torch.cos(t), y0, t, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "rk4"},
        {"method": "midpoint", "options": {"step_size": 0.3}},
        {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9},
    ],
    ids=lambda arguments: "-".join(str(x) for x in arguments.values()),
)
def test_second_derivatives_with_respect_to_state_times_and_parameters(arguments: dict[str, Any]) -> None:
    # finite differences change adaptive steps too, so they are correct to the tolerance only
    near = {"atol": 1e-4} if arguments["method"] == "dopri5" else {}
    inputs = tuple(x.clone().requires_grad_() for x in (Y0, T, WEIGHT))
    assert gradcheck(lambda *x: solve(*x, **arguments), inputs, **near)
    assert gradgradcheck(lambda *x: solve(*x, **arguments), inputs, **near)


def test_second_derivatives_of_a_tuple_state() -> None:
    def solve_tuple(a: Tensor, b: Tensor) -> Any:
        return ours.odeint(lambda t, y: (torch.sin(y[1]) * y[0], y[0].sum() - y[1]), (a, b), T, method="rk4")

    inputs = Y0.clone().requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(solve_tuple, inputs)


def test_a_gradient_penalty_can_be_trained() -> None:
    field = Field(tupled=False)
    y0 = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    end = ours.odeint(field, y0, T, method="rk4")[-1]
    (slope,) = torch.autograd.grad(end.sum(), y0, create_graph=True)
    slope.square().sum().backward()
    assert field.weight.grad is not None
    assert field.weight.grad.abs().max() > 1e-3


def test_the_adjoint_refuses_second_derivatives() -> None:
    field = Field(tupled=False)
    y0 = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    end = ours.odeint_adjoint(field, y0, T)[-1]
    with pytest.raises(GradientError, match="no second derivatives"):
        torch.autograd.grad(end.sum(), y0, create_graph=True)
