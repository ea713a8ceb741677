"""Derivatives by `torch.func` and by forward mode equal those of autograd, for every ``gradient``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from neuralode import Dose, Event, GradientError, interpolate, solve, solve_ensemble

P = torch.tensor([0.7, 0.4], dtype=torch.float64)
ONES = torch.ones(2, dtype=torch.float64)
SPAN = (0.0, 1.0)


def end(f: Any, y0: Any, t: Any = SPAN, **options: Any) -> Tensor:
    return solve(f, y0, t, **options).y1.sum()


SOLVES: dict[str, Callable[..., Tensor]] = {
    "closed over": lambda p, **o: end(lambda t, y: -y * p, ONES, **o),
    "args": lambda p, **o: end(lambda t, y, p: -y * p, ONES, args=(p,), **o),
    "y0": lambda p, **o: end(lambda t, y: -y * y, p, **o),
    "y0 and closed over": lambda p, **o: end(lambda t, y: -y * p, p, **o),
    "times": lambda p, **o: end(lambda t, y: -y * torch.cos(t), ONES, torch.stack((p[1], p.sum())), **o),
    "inner outputs": lambda p, **o: solve(lambda t, y: -y * p, p, torch.linspace(0, 1, 5), **o).ys.sum(),
    "rows": lambda p, **o: end(lambda t, y: -y * p, p * ONES.cumsum(0)[:, None], per_sample=True, **o),
    "save": lambda p, **o: solve(lambda t, y: -y * p, p, (0.0, 0.5, 1.0), save=lambda t, y: y * p, **o).ys.sum(),
    "steps": lambda p, **o: solve(lambda t, y: -y * p, p, SPAN, save="steps", **o).ys.sum(),
    "dense": lambda p, **o: solve(lambda t, y: -y * p, p, SPAN, dense=True, **o)(torch.tensor([0.3, 0.6])).sum(),
    "doses": lambda p, **o: end(lambda t, y: -y * p, p, doses=Dose(p[:1], p[1]), **o),
    "input": lambda p, **o: end(
        lambda t, y, u=None: -y * interpolate(torch.tensor([0.0, 0.5, 1.0]), torch.stack((p[0], p[1], p[0])))(t), p, **o
    ),
    "pairs": lambda p, **o: solve(lambda t, y: (y[1], -p * y[0]), (p, p), SPAN, **o).y1[0].sum(),
}
STEPPING: dict[str, dict[str, Any]] = {
    "adaptive": {},
    "stated": {"method": "rk4", "step_size": 0.05},
    "memory": {"method": "explicit_adams", "step_size": 0.05},
}


def by_autograd(make: Callable[[Tensor], Tensor]) -> Tensor:
    p = P.clone().requires_grad_()
    return torch.autograd.grad(make(p), p)[0]


@pytest.mark.parametrize("how", STEPPING.values(), ids=STEPPING)
@pytest.mark.parametrize("wanted", SOLVES.values(), ids=SOLVES)
def test_transforms_agree_with_autograd(wanted: Callable[..., Tensor], how: dict[str, Any]) -> None:
    def make(p: Tensor) -> Tensor:
        return wanted(p, **how)

    known = by_autograd(make)
    assert known.abs().min() > 1e-3
    torch.testing.assert_close(torch.func.grad(make)(P), known, rtol=1e-10, atol=0)
    for direction, share in zip(torch.eye(2, dtype=torch.float64), known, strict=True):
        value, slope = torch.func.jvp(make, (P,), (direction,))
        torch.testing.assert_close(slope, share, rtol=1e-10, atol=0)
        torch.testing.assert_close(value, make(P), rtol=1e-12, atol=0)
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(make(forward_ad.make_dual(P, direction)))
        torch.testing.assert_close(dual.tangent, share, rtol=1e-10, atol=0)


@pytest.mark.parametrize("gradient", ["replay", "adjoint", "direct"])
def test_every_gradient_gives_the_same_derivatives(gradient: str) -> None:
    def make(p: Tensor) -> Tensor:
        return SOLVES["y0 and closed over"](p, gradient=gradient)

    hessian = torch.func.hessian(make)(P)
    p = P.clone().requires_grad_()
    (first,) = torch.autograd.grad(SOLVES["y0 and closed over"](p, gradient="direct"), p, create_graph=True)
    second = torch.stack([torch.autograd.grad(x, p, retain_graph=True)[0] for x in first])
    torch.testing.assert_close(hessian, second, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.func.jacrev(make)(P), first.detach(), rtol=1e-10, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(torch.func.jacfwd(make)(P), first.detach(), rtol=1e-10, atol=0)


def test_a_module_called_with_other_parameters_has_their_gradients() -> None:
    net = torch.nn.Linear(2, 2, dtype=torch.float64)

    def make(parameters: dict[str, Tensor]) -> Tensor:
        return end(lambda t, y: torch.tanh(torch.func.functional_call(net, parameters, (y,))), ONES)

    found = torch.func.grad(make)({name: part.detach() for name, part in net.named_parameters()})
    wanted = torch.autograd.grad(end(lambda t, y: torch.tanh(net(y)), ONES), list(net.parameters()))
    for one, other in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


def test_an_ensemble_has_the_gradients_of_what_its_members_share() -> None:
    rates = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    def make(p: Tensor) -> Tensor:
        return solve_ensemble(lambda t, y, rate: -y * rate * p, ONES, SPAN, args=(rates,)).y1.sum()

    torch.testing.assert_close(torch.func.grad(make)(P), by_autograd(make), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "options", [{"method": "kvaerno3"}, {"events": Event(lambda t, y: y[0] - 0.2)}], ids=["implicit", "events"]
)
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacfwd])
def test_options_that_transforms_do_not_support_are_refused(transform: Any, options: dict[str, Any]) -> None:
    with pytest.raises(GradientError, match="wanted an explicit method without events, or torch.autograd"):
        transform(lambda p: SOLVES["closed over"](p, **options))(P)
