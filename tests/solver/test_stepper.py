"""`Stepper`: one accepted step at a time."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
import torch
from fields import FIXED, METHODS, Counting
from torch import Tensor

from neuralode import Given, Scipy, Status, Stepper, solve

Y0 = torch.tensor([[1.0, 0.5], [2.0, -1.0]], dtype=torch.float64)


def wave(t: Tensor, y: Tensor) -> Tensor:
    return torch.cos(3 * t)[..., None] * y


def stepping(method: str) -> dict[str, Any]:
    return {"method": method, "step_size": 0.3} if method in FIXED else {"method": method}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("span", [(0.0, 2.0), (1.0, -1.0)], ids=["forward", "backward"])
def test_it_takes_the_steps_of_solve(method: str, span: tuple[float, float]) -> None:
    sol = solve(wave, Y0, span, save="steps", **stepping(method))
    stepper = Stepper(wave, Y0, span, **stepping(method))
    times, states = [float(stepper.t)], [stepper.y]
    while not stepper.done:
        assert stepper.step() is stepper
        times.append(float(stepper.t))
        states.append(stepper.y)
    assert times == pytest.approx(sol.ts.tolist(), rel=1e-14, abs=1e-14)
    assert torch.equal(torch.stack(states), sol.ys)


def test_it_starts_at_the_first_time() -> None:
    stepper = Stepper(wave, Y0, (0.5, 2.0))
    assert float(stepper.t) == 0.5
    assert torch.equal(stepper.y, Y0)
    assert not stepper.done
    assert stepper.h > 0


def test_iterating_ends_at_the_end() -> None:
    times = [
        float(step.t) for step in Stepper(wave, Y0, (0.0, 1.0), controller=Given(torch.linspace(0, 1, 5).double()))
    ]
    assert times[-1] == 1.0
    assert len(times) in (4, 5)  # with or without the start
    assert times == sorted(set(times))


def test_its_status_is_that_of_the_end() -> None:
    stepper = Stepper(wave, Y0, (0.0, 1.0))
    for _ in stepper:
        pass
    assert stepper.done
    assert set(torch.as_tensor(stepper.status).reshape(-1).tolist()) == {Status.SUCCESS}


def test_a_step_past_the_end_is_refused_or_does_nothing() -> None:
    stepper = Stepper(wave, Y0, (0.0, 1.0))
    for _ in stepper:
        pass
    y = stepper.y.clone()
    with contextlib.suppress(StopIteration, RuntimeError, ValueError):
        stepper.step()
    assert float(stepper.t) == 1.0
    assert torch.equal(stepper.y, y)


def test_states_are_not_overwritten_by_later_steps() -> None:
    stepper = Stepper(wave, Y0, (0.0, 2.0))
    first = stepper.y
    copy = first.clone()
    stepper.step().step()
    assert torch.equal(first, copy)
    assert torch.equal(first, Y0)


def test_a_pytree_keeps_its_structure() -> None:
    stepper = Stepper(lambda t, y: {"a": -y["a"]}, {"a": Y0}, (0.0, 1.0)).step()
    assert stepper.y["a"].shape == Y0.shape


def test_a_failure_ends_it_with_a_status() -> None:
    y0 = torch.full((1, 1), 2.0, dtype=torch.float64)
    stepper = Stepper(lambda t, y: y * y, y0, (0.0, 1.0))
    for _ in stepper:
        assert float(stepper.t) < 0.501
    assert stepper.done
    assert stepper.status in (Status.STEP_UNDERFLOW, Status.NONFINITE)


def test_it_evaluates_only_what_the_next_step_needs() -> None:
    f = Counting(wave)
    stepper = Stepper(f, Y0, (0.0, 2.0), method="rk4", step_size=0.1)
    before = f.calls
    stepper.step()
    assert f.calls - before <= 4


def test_each_row_on_its_own_clock() -> None:
    t = torch.tensor([[0.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    stepper = Stepper(wave, Y0, t, per_sample=True)
    for _ in stepper:
        pass
    assert torch.equal(torch.as_tensor(stepper.t), t[:, 1])
    torch.testing.assert_close(stepper.y, solve(wave, Y0, t, per_sample=True).ys[-1], rtol=0, atol=0)


def test_stepper_refuses_a_method_in_one_call_with_clocks_by_row_in_the_words_of_solve() -> None:
    """It used to fail with an error of torch."""
    messages = []
    for front_end in (solve, Stepper):
        with pytest.raises(
            ValueError, match=r"per_sample=True with method 'scipy LSODA', .*wanted another method"
        ) as error:
            front_end(wave, Y0, (0.0, 1.0), method=Scipy(), per_sample=True)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_stepper_crosses_the_span_of_a_method_in_one_call_at_once() -> None:
    stepper = Stepper(wave, Y0, (0.0, 1.0), method=Scipy(), rtol=1e-9, atol=1e-9).step()
    assert stepper.done
    assert stepper.status == Status.SUCCESS
    torch.testing.assert_close(stepper.y, Y0 * math.exp(math.sin(3) / 3), rtol=1e-7, atol=0)
