"""Solves that end at an event, their gradients, and dense solutions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from both import Module, agree, answers, flat, ours, theirs
from torch import Tensor, nn
from torch.autograd import gradcheck

BOTH = pytest.mark.parametrize("library", [ours, theirs], ids=["ours", "theirs"])
INTERFACES = pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
G = 9.8
START = torch.tensor([1.0, 2.0], dtype=torch.float64)
T = torch.tensor([0.0, 1.0], dtype=torch.float64)
LANDING = (2 + math.sqrt(4 + 2 * G)) / G


class Ball(nn.Module):
    def __init__(self, tupled: bool = False) -> None:
        super().__init__()
        self.gravity = nn.Parameter(torch.tensor(G, dtype=torch.float64))
        self.tupled = tupled

    def forward(self, t: Tensor, y: Any) -> Any:
        down = -self.gravity.expand(())
        return (y[1], down) if self.tupled else torch.stack((y[1], down))


def ground(t: Tensor, y: Any) -> Tensor:
    return y[0]


@BOTH
@INTERFACES
@pytest.mark.parametrize("tupled", [False, True])
def test_a_solve_ends_where_the_event_function_is_zero(library: Any, interface: str, tupled: bool) -> None:
    y0 = tuple(START) if tupled else START
    t, ys = getattr(library, interface)(Ball(tupled), y0, T, event_fn=ground)
    assert t.dim() == 0
    assert t.item() == pytest.approx(LANDING, abs=1e-7)
    assert [len(part) for part in (ys if tupled else [ys])] == [2] * (2 if tupled else 1)
    assert abs(ys[0][-1].item() if tupled else ys[-1, 0].item()) < 1e-7


@BOTH
def test_fixed_steps_find_events(library: Any) -> None:
    t, _ = library.odeint(
        Ball(), START, T, event_fn=ground, method="rk4", options={"step_size": 0.1, "interp": "cubic"}
    )
    assert t.item() == pytest.approx(LANDING, abs=1e-7)


@BOTH
def test_the_second_time_only_gives_the_direction(library: Any) -> None:
    def earlier(t: Tensor, y: Tensor) -> Tensor:
        return y[0] + 3

    times = [library.odeint(Ball(), START, torch.tensor([0.0, end]), event_fn=earlier)[0] for end in (-1.0, -1e-3)]
    exact = (2 - math.sqrt(4 + 8 * G)) / G
    assert [t.item() for t in times] == pytest.approx([exact, exact], abs=1e-6)


@BOTH
def test_the_first_zero_among_several_event_values_ends_the_solve(library: Any) -> None:
    t, _ = library.odeint(Ball(), START, T, event_fn=lambda t, y: torch.stack((y[0], y[1] - 1, t - 0.5)))
    assert t.item() == pytest.approx(1 / G, abs=1e-7)


@pytest.mark.parametrize(
    ("library", "options"),
    [(ours, None), (theirs, None), (ours, {"step_size": 0.1})],  # with fixed steps torchdiffeq never ends
)
def test_an_event_at_the_start_ends_the_solve_there(library: Any, options: Any) -> None:
    t, ys = library.odeint(
        Ball(), START, T, event_fn=lambda t, y: y[0] - 1, method="rk4" if options else None, options=options
    )
    assert t.item() == pytest.approx(0.0, abs=1e-8)
    assert torch.allclose(ys[1], ys[0], atol=1e-7)


def test_an_event_function_of_time_alone_gives_the_exact_time() -> None:
    t, _ = ours.odeint(Ball(), START, T, event_fn=lambda t, y: t - 0.3)
    assert abs(t.item() - 0.3) < 1e-15


def landing(library: Any, interface: str, tupled: bool) -> dict[str, Tensor]:
    """Return the time and the speed of a landing, and the gradients of their weighted sum."""
    ball, t0 = Ball(tupled), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    y0 = START.clone().requires_grad_()
    t, ys = library.odeint_event(
        ball, tuple(y0) if tupled else y0, t0, event_fn=ground, odeint_interface=getattr(library, interface)
    )
    speed = ys[1][-1] if tupled else ys[-1, 1]
    (t + 0.3 * speed).backward()
    assert ball.gravity.grad is not None
    grads = {"y0": y0.grad, "gravity": ball.gravity.grad, "t0": t0.grad}
    assert all(g is not None for g in grads.values())
    return {"t": t.detach(), "speed": speed.detach(), **{k: g for k, g in grads.items() if g is not None}}


@INTERFACES
@pytest.mark.parametrize("tupled", [False, True])
def test_gradients_flow_through_event_times(interface: str, tupled: bool) -> None:
    found = landing(ours, interface, tupled)
    agree(found, landing(theirs, interface, tupled), 1e-6)
    assert found["t"].item() == pytest.approx(0.5 + LANDING, abs=1e-8)


def test_gradients_reach_tensors_that_the_event_function_uses() -> None:
    def time_at(height: Tensor, speed: Tensor) -> Tensor:
        y0 = torch.stack((torch.ones_like(speed), speed))
        return ours.odeint_event(Ball().requires_grad_(False), y0, T[0], event_fn=lambda t, y: y[0] - height)[0]

    inputs = tuple(torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.3, 2.0))
    assert gradcheck(time_at, inputs)


@BOTH
def test_odeint_treats_the_event_time_as_a_constant(library: Any) -> None:
    ball = Ball()
    t, ys = library.odeint(ball, START, T, event_fn=ground)
    assert not t.requires_grad
    ys[-1, 1].backward()
    assert ball.gravity.grad is not None
    assert ball.gravity.grad.item() == pytest.approx(-LANDING, abs=1e-6)  # v = v0 - g t


def test_event_times_of_other_interfaces_are_linked_by_the_implicit_function_theorem() -> None:
    def plain(*args: Any, event_fn: Any, **kwargs: Any) -> Any:
        return theirs.odeint(*args, event_fn=lambda t, y: event_fn(t, y).detach(), **kwargs)

    def solve(interface: Any) -> tuple[Tensor, Tensor]:
        ball = Ball()
        t, ys = ours.odeint_event(ball, START, torch.tensor(0.0), event_fn=ground, odeint_interface=interface)
        (t + ys[-1, 1]).backward()
        assert ball.gravity.grad is not None
        return t.detach(), ball.gravity.grad

    for a, b in zip(solve(plain), solve(ours.odeint), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-5)


@BOTH
def test_an_event_before_the_start_is_found_backwards(library: Any) -> None:
    t, ys = library.odeint_event(
        Ball(), START, torch.tensor(0.0), event_fn=lambda t, y: y[0] + 3, reverse_time=True, atol=1e-9
    )
    assert t.item() == pytest.approx((2 - math.sqrt(4 + 8 * G)) / G, abs=1e-6)
    assert ys[-1, 0].item() == pytest.approx(-3, abs=1e-6)


def test_a_ball_that_bounces_ten_times_has_the_gradient_of_its_closed_form() -> None:
    def last_bounce(height: Tensor, bounce: Tensor) -> Tensor:
        t, y = torch.zeros((), dtype=torch.float64), torch.stack((height, torch.zeros_like(height)))
        for _ in range(10):
            t, ys = ours.odeint_event(Ball().requires_grad_(False), y, t, event_fn=ground)
            # slightly above the ground, so that the same event is not found again
            y = torch.stack((ys[-1, 0] + 1e-12, -bounce * ys[-1, 1]))
        return t

    height, bounce = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.5, 0.8))
    t = last_bounce(height, bounce)
    exact = (2 * height / G).sqrt() * (1 + 2 * sum(bounce**n for n in range(1, 10)))
    assert t.item() == pytest.approx(exact.item(), abs=1e-9)
    for found, wanted in zip(
        torch.autograd.grad(t, (height, bounce)), torch.autograd.grad(exact, (height, bounce)), strict=True
    ):
        assert found.item() == pytest.approx(wanted.item(), rel=1e-7)


# ------------------------------------------------------------------------------------------------------------ dense


@BOTH
def test_a_dense_solution_is_evaluated_at_a_time(library: Any) -> None:
    y0 = torch.ones(2, 3, dtype=torch.float64)
    solution = library.odeint_dense(lambda t, y: -y * t, y0, torch.tensor(0.0), torch.tensor(2.0))
    for t in (0.3, 1.7):
        found = solution(torch.tensor(t, dtype=torch.float64))
        assert found.shape == (2, 3)
        assert torch.allclose(found, torch.full_like(found, math.exp(-t * t / 2)), rtol=1e-5)


def test_a_dense_solution_is_evaluated_at_many_times_and_differentiated() -> None:
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y0 = torch.ones(2, 3, dtype=torch.float64)
    for method in ("dopri5", "tsit5"):
        rate.grad = None
        solution = ours.odeint_dense(lambda t, y: -rate * y, y0, 2.0, 0.0, method=method)
        t = torch.linspace(2, 0, 7, dtype=torch.float64)
        found = solution(t)
        exact = torch.exp(-rate * (t - 2))
        assert torch.allclose(found[:, 0, 0], exact, rtol=1e-6)
        found[3, 0, 0].backward()
        wanted = torch.autograd.grad(exact[3], rate)[0]
        assert rate.grad is not None
        assert torch.allclose(rate.grad, wanted, rtol=1e-5)


def test_a_dense_solution_refuses_times_outside_of_its_span() -> None:
    solution = ours.odeint_dense(lambda t, y: -y, torch.ones(2), 0.0, 1.0)
    assert torch.allclose(solution(1.0), torch.full((2,), math.exp(-1)), rtol=1e-5)
    with pytest.raises(ValueError, match="lies outside the span"):
        solution(1.5)


def test_the_helpers_of_these_tests_compare_two_libraries() -> None:
    assert ours.odeint is not theirs.odeint
    agree(answers(ours, "odeint", False, False), answers(ours, "odeint", False, False), 0.0)
    assert flat((torch.ones(2, 3), torch.ones(2))).shape == (2, 4)
    assert Module(lambda t, y: y)(T[0], T).shape == (2,)
