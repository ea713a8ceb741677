"""Events: locating zeros, what the solution holds, errors, and derivatives through events."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fields import METHODS, Counting, relative_error
from problems import oscillator
from torch import Tensor

from neuralode import Adjoint, Event, Given, GradientError, Replay, Solution, SolveError, Status, solve

CLOCKS = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
GRADIENTS = ["replay", "direct", "adjoint", Replay(every=3), Replay(memory="stage")]
EXACT = [gradient for gradient in GRADIENTS if gradient != "adjoint"]  # of the discrete map
TIGHT: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-13}
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-10}
G = 9.81


def tensor(*numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def ball(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[..., 1], torch.full_like(y[..., 1], -G)), -1)


def growth(t: Tensor, y: Tensor) -> Tensor:
    return y


def steadily(t: Tensor, y: Tensor) -> Tensor:
    return torch.ones_like(y)


def level(height: float, column: int = 0) -> Callable[..., Tensor]:
    """Return an event function of one column: a number for each row per sample, otherwise that of the first row."""

    def function(t: Tensor, y: Tensor, *args: Any) -> Tensor:
        value = y[..., column]
        return value - height if t.dim() or not value.dim() else value[0] - height

    return function


# ------------------------------------------------------------------------------------------------------- locating zeros


@CLOCKS
@pytest.mark.parametrize("method", ["tsit5", "dopri5"])
def test_a_ball_returns_at_the_exact_time(method: str, per_sample: bool) -> None:
    sol = solve(
        ball, tensor([0.0, 5.0]), (0.0, 10.0), method=method, per_sample=per_sample, events=Event(level(0.0)), **TIGHT
    )
    wanted = 2 * 5 / G
    torch.testing.assert_close(sol.ts.flatten()[-1], tensor(wanted)[0], **CLOSE)
    torch.testing.assert_close(sol.y1, tensor([0.0, -5.0]), **CLOSE)
    assert torch.equal(sol.events[0].t, sol.ts.flatten()[-1:])
    torch.testing.assert_close(sol.events[0].y.flatten(), tensor(0.0, -5.0), **CLOSE)
    assert (sol.events[0].rows is None) is not per_sample
    assert sol.status.tolist() == [Status.EVENT]
    assert sol.success


@CLOCKS
@pytest.mark.parametrize("sign", [1, -1], ids=["forward", "backward"])
@pytest.mark.parametrize("direction", [1, -1, 0])
def test_crossings_are_collected_in_the_order_of_the_solve(per_sample: bool, sign: int, direction: int) -> None:
    """Of cos t, which falls through zero at π/2 and rises at 3π/2, seen from 0 in either direction."""
    event = Event(level(0.0), terminal=False, direction=direction)
    sol = solve(oscillator, tensor([1.0, 0.0]), (0.0, sign * 13.0), per_sample=per_sample, events=event, **TIGHT)
    every = [math.pi * (n + 0.5) for n in range(4)]
    wanted = sign * tensor(*{1: every[1::2], -1: every[::2], 0: every}[direction])
    torch.testing.assert_close(sol.events[0].t, wanted, **CLOSE)
    states = sol.events[0].y.reshape(-1, 2)
    torch.testing.assert_close(states, torch.stack((torch.cos(wanted), -torch.sin(wanted)), -1), **CLOSE)
    assert sol.status.tolist() == [Status.SUCCESS]
    assert sol.events[0].y.shape == ((len(wanted), 2) if per_sample else (len(wanted), 1, 2))


@CLOCKS
@pytest.mark.parametrize("end", [5.0, math.inf])
def test_an_exponential_reaches_a_level(per_sample: bool, end: float) -> None:
    sol = solve(growth, tensor([0.5]), (0.0, end), per_sample=per_sample, events=Event(level(3.0)), **TIGHT)
    torch.testing.assert_close(sol.ts.flatten()[-1].item(), math.log(6.0), **CLOSE)
    torch.testing.assert_close(sol.y1.item(), 3.0, **CLOSE)


def test_the_earliest_terminal_event_ends_the_solve_in_any_order_of_the_list() -> None:
    heights = [3.0, 2.0, 4.0]
    for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        events = [Event(level(heights[n])) for n in order]
        sol = solve(growth, tensor([1.0]), (0.0, 5.0), events=events, **TIGHT)
        assert [len(found) for found in sol.events] == [int(heights[n] == 2.0) for n in order]
        torch.testing.assert_close(sol.ts[-1].item(), math.log(2.0), **CLOSE)


@CLOCKS
def test_collection_ends_with_the_solve(per_sample: bool) -> None:
    """Also if all events lie in one step."""
    heights = [1.5, 2.5, 2.0, 1.2]
    events = [Event(level(height), terminal=height == 2.0) for height in heights]
    options: dict[str, Any] = {"controller": Given(tensor(0.0, 2.0)), "per_sample": per_sample}
    for how, slack in ((TIGHT, 1e-10), (options, 5e-3)):
        sol = solve(growth, tensor([1.0]), (0.0, 2.0), events=events, **{"per_sample": per_sample} | how)
        assert [len(found) for found in sol.events] == [1, 0, 1, 1]
        for height, found in zip(heights, sol.events, strict=True):
            if height != 2.5:
                torch.testing.assert_close(found.t.item(), math.log(height), rtol=0, atol=slack)
                torch.testing.assert_close(found.y.item(), height, rtol=0, atol=1e-13)


@CLOCKS
def test_terminal_events_may_follow_collected_ones(per_sample: bool) -> None:
    events = [Event(level(0.0), terminal=False), Event(level(-0.5, 1), direction=1)]
    sol = solve(oscillator, tensor([1.0, 0.0]), (0.0, 20.0), per_sample=per_sample, events=events, **TIGHT)
    torch.testing.assert_close(sol.events[0].t, tensor(math.pi / 2), **CLOSE)
    torch.testing.assert_close(sol.ts.flatten()[-1].item(), math.pi - math.asin(0.5), **CLOSE)


def test_an_event_of_time_alone_is_found() -> None:
    for f in (growth, lambda t, y: 0 * y):
        sol = solve(f, tensor([1.0]), (0.0, 5.0), events=Event(lambda t, y: t - 1.25))
        torch.testing.assert_close(sol.ts[-1].item(), 1.25, rtol=1e-14, atol=0)


def test_a_discontinuous_function_ends_the_solve_at_its_jump() -> None:
    sol = solve(growth, tensor([1.0]), (0.0, 5.0), events=Event(lambda t, y: torch.sign(y[0] - 2)), **TIGHT)
    torch.testing.assert_close(sol.ts[-1].item(), math.log(2.0), **CLOSE)


# --------------------------------------------------------------------------------------------------- starts and borders


@CLOCKS
@pytest.mark.parametrize("direction", [1, 0])
def test_zero_at_the_start_is_no_event(per_sample: bool, direction: int) -> None:
    event = Event(level(0.0), direction=direction)
    sol = solve(steadily, tensor([0.0]), (0.0, 1.0), per_sample=per_sample, events=event)
    assert sol.status.tolist() == [Status.SUCCESS]
    assert len(sol.events[0]) == 0


@CLOCKS
@pytest.mark.parametrize("off", [1e-14, -1e-14])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_start_that_is_zero_up_to_rounding_is_no_event(per_sample: bool, off: float, sign: float) -> None:
    """The numbers are so large that their rounding exceeds the resolution of t."""
    y0 = tensor([100.0 + off, 0.0])

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((sign * torch.ones_like(y[..., 0]), torch.full_like(y[..., 1], 5.0)), -1)

    for t0 in (0.0, 1e-3, 5.0):
        sol = solve(f, y0, (t0, t0 + 1.0), per_sample=per_sample, events=Event(level(100.0)))
        assert sol.status.tolist() == [Status.SUCCESS]
    later = solve(f, y0, (0.0, 1.0), per_sample=per_sample, events=Event(level(100.0 + sign * 1e-10)))
    assert later.status.tolist() == [Status.EVENT]


@CLOCKS
def test_a_start_before_zero_by_more_than_rounding_is_an_event(per_sample: bool) -> None:
    sol = solve(steadily, tensor([-1e-9]), (0.0, 1.0), per_sample=per_sample, events=Event(level(0.0)))
    torch.testing.assert_close(sol.ts.flatten()[-1].item(), 1e-9, rtol=1e-6, atol=0)
    late = solve(lambda t, y: 0 * y, tensor([1.0]), (0.0, 1.0), events=Event(lambda t, y: t - 1e-9))
    torch.testing.assert_close(late.ts[-1].item(), 1e-9, rtol=1e-6, atol=0)


@CLOCKS
def test_restarting_at_an_event_does_not_find_it_again(per_sample: bool) -> None:
    """With numbers of all magnitudes, so that some solves end before the zero and some after it."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scale = 10 ** (6 * torch.rand((), generator=generator, dtype=torch.float64).item() - 3)
        height = 0.8 * scale * torch.rand((), generator=generator, dtype=torch.float64).item()
        y, t, times = tensor([scale, 0.0]), 0.0, []
        for _ in range(4):
            sol = solve(oscillator, y, (t, t + 10.0), per_sample=per_sample, events=Event(level(height)), atol=1e-9)
            y, t = sol.y1, sol.ts.flatten()[-1].item()
            times.append(t)
        quarter = math.acos(height / scale)
        wanted = [quarter, 2 * math.pi - quarter, 2 * math.pi + quarter, 4 * math.pi - quarter]
        torch.testing.assert_close(tensor(*times), tensor(*wanted), rtol=1e-3, atol=1e-3)


@CLOCKS
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forward", "backward"])
@pytest.mark.parametrize(
    "how", [{}, {"method": "rk4", "step_size": 0.5}, {"method": "euler", "step_size": 0.25}], ids=str
)
@pytest.mark.parametrize("at", [0.5, 1.0, 2.0], ids=["step", "output", "end"])
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "collected"])
def test_an_event_may_fall_on_a_border(per_sample: bool, sign: float, how: dict, at: float, terminal: bool) -> None:
    """At the end of a step, at an output time, at the last time."""
    t = sign * tensor(0.0, 1.0, 2.0)
    event = Event(level(sign * at), terminal=terminal)
    sol = solve(steadily, tensor([0.0]), t, per_sample=per_sample, events=event, **how)
    assert sol.status.tolist() == [Status.EVENT if terminal else Status.SUCCESS]
    torch.testing.assert_close(sol.events[0].t, sign * tensor(at), rtol=1e-14, atol=0)
    wanted = (sign * t).clamp(max=at) * sign if terminal else t
    torch.testing.assert_close(sol.ts.flatten(), wanted, rtol=1e-14, atol=0)
    torch.testing.assert_close(sol.ys.flatten(), wanted, rtol=1e-14, atol=1e-15)
    assert bool(((sol.ts.flatten() * sign).diff() >= 0).all())


def test_no_event_ends_after_the_last_time() -> None:
    """Events within rounding of the last time, on either side."""
    for end in torch.linspace(0.3, 7.0, 50, dtype=torch.float64).tolist():
        for shift in (-2, -1, 0):
            height = math.exp(end) * (1 + shift * 2.3e-16)
            sol = solve(growth, tensor([1.0]), (0.0, end), events=Event(level(height)), rtol=1e-6)
            assert sol.ts[-1].item() <= end
            assert sol.ys.isfinite().all()


@CLOCKS
def test_an_event_in_the_first_step(per_sample: bool) -> None:
    how: dict[str, Any] = {"controller": Given(tensor(0.0, 1.0, 2.0))}
    sol = solve(steadily, tensor([0.0]), (0.0, 2.0), per_sample=per_sample, events=Event(level(0.25)), **how)
    assert sol.stats.accepted.tolist() == [1]
    torch.testing.assert_close(sol.ts.flatten()[-1].item(), 0.25, rtol=1e-14, atol=0)


@CLOCKS
@pytest.mark.parametrize(
    ("how", "order"),
    [
        ({"method": "rk4", "step_size": 0.05}, 4),
        ({"method": "midpoint", "step_size": 0.05}, 2),
        ({"method": "dopri5", "controller": Given(torch.linspace(0.0, 3.0, 61, dtype=torch.float64))}, 5),
    ],
    ids=["rk4", "midpoint", "given"],
)
def test_fixed_steps_end_at_events(how: dict, order: int, per_sample: bool) -> None:
    """The state is that of a step of the method: as accurate as the steps, and on the zero itself."""
    sol = solve(oscillator, tensor([1.0, 0.0]), (0.0, 3.0), per_sample=per_sample, events=Event(level(0.3)), **how)
    torch.testing.assert_close(sol.ts.flatten()[-1].item(), math.acos(0.3), rtol=0, atol=3 * 0.05**order)
    assert abs(sol.y1[0, 0].item() - 0.3) < 1e-15
    assert sol.stats.rejected.tolist() == [0]


# -------------------------------------------------------------------------------------------------- infinite last times


@CLOCKS
@pytest.mark.parametrize("how", [{}, {"method": "rk4", "step_size": 0.1}], ids=["tsit5", "rk4"])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forward", "backward"])
def test_the_last_time_may_be_infinite(per_sample: bool, how: dict, sign: float) -> None:
    f = oscillator
    t = tensor(0.0, sign * 0.5, sign * math.inf)
    event = Event(level(0.0))
    sol = solve(f, tensor([1.0, 0.0]), t, per_sample=per_sample, events=event, dense=True, rtol=1e-9, atol=1e-9, **how)
    end = sign * math.pi / 2
    torch.testing.assert_close(sol.ts.flatten(), tensor(0.0, sign * 0.5, end), rtol=1e-5, atol=0)
    torch.testing.assert_close(sol.ys[1].flatten(), tensor(math.cos(0.5), -math.sin(sign * 0.5)), rtol=1e-5, atol=0)
    torch.testing.assert_close(sol(sign * 1.0).flatten()[0].item(), math.cos(1.0), rtol=1e-5, atol=0)


def test_rows_may_have_their_own_infinite_times() -> None:
    t = tensor([0.0, 0.3, math.inf], [1.0, 1.5, 1.75])
    sol = solve(growth, tensor([1.0], [1.0]), t, per_sample=True, events=Event(level(2.0)), **TIGHT)
    assert sol.status.tolist() == [Status.EVENT, Status.EVENT]
    torch.testing.assert_close(sol.ts, tensor([0.0, 0.3, math.log(2.0)], [1.0, 1.5, 1 + math.log(2.0)]), **CLOSE)
    sol = solve(growth, tensor([1.0], [1.0]), t, per_sample=True, events=Event(level(3.0)), **TIGHT)
    assert sol.status.tolist() == [Status.EVENT, Status.SUCCESS]


@pytest.mark.parametrize("events", [None, Event(level(3.0), terminal=False)], ids=["none", "collected"])
def test_an_infinite_time_without_a_terminal_event_is_refused(events: Any) -> None:
    with pytest.raises(ValueError, match=r"t holds a time that is not finite.*terminal event"):
        solve(growth, tensor([1.0]), (0.0, math.inf), events=events)
    with pytest.raises(ValueError, match="not finite"):
        solve(growth, tensor([1.0]), (-math.inf, 0.0), events=Event(level(3.0)))
    with pytest.raises(ValueError, match="not finite"):
        solve(growth, tensor([1.0]), (0.0, math.nan), events=Event(level(3.0)))


@CLOCKS
def test_an_event_that_never_happens_ends_with_max_steps(per_sample: bool) -> None:
    def fading(t: Tensor, y: Tensor) -> Tensor:
        return -y

    options: dict[str, Any] = {"events": Event(level(-1.0)), "max_steps": 50, "per_sample": per_sample}
    with pytest.raises(SolveError, match=r"max_steps=50") as failure:
        solve(fading, tensor([1.0]), (0.0, math.inf), **options)
    assert failure.value.solution.status.tolist() == [Status.MAX_STEPS]
    sol = solve(fading, tensor([1.0]), (0.0, math.inf), on_failure="return", **options)
    assert sol.y1.isnan().all()
    assert len(sol.events[0]) == 0


@pytest.mark.filterwarnings("error")
def test_single_precision_goes_with_an_infinite_last_time() -> None:
    sol = solve(steadily, torch.zeros(1), (0.0, math.inf), events=Event(level(1.0)))
    torch.testing.assert_close(sol.ts[-1].item(), 1.0, rtol=1e-6, atol=0)


# ------------------------------------------------------------------------------------------- rows with their own events


def test_every_row_ends_at_its_own_event_and_leaves_the_others_bit_identical() -> None:
    """Bit-identical: the outputs of other rows, and those of a row before the step with its event."""
    y0 = tensor([1.0, 0.0], [0.5, 0.5], [0.1, 0.0], [2.0, -1.0])
    t = torch.linspace(0.0, 4.0, 9, dtype=torch.float64)
    plain = solve(oscillator, y0, t, per_sample=True)
    events = [Event(level(-0.4), direction=-1), Event(level(0.0), terminal=False)]
    sol = solve(oscillator, y0, t, per_sample=True, events=events)
    assert sol.status.tolist() == [Status.EVENT, Status.EVENT, Status.SUCCESS, Status.EVENT]
    ends = sol.ts[:, -1]
    steps = solve(oscillator, y0, t, per_sample=True, save="steps").ts
    for row, end in enumerate(ends.tolist()):
        before = t < end if row != 2 else t < 9.0
        same = t <= (steps[row][steps[row] < end].max() if row != 2 else 9.0)
        assert int(same.sum()) >= 2
        assert torch.equal(sol.ys[same, row], plain.ys[same, row])
        torch.testing.assert_close(sol.ys[before, row], plain.ys[before, row], rtol=0, atol=1e-4)
        assert torch.equal(sol.ts[row], t.clamp(max=end))
        after = sol.ys[~before, row]
        assert torch.equal(after, after[:1].expand_as(after))
    assert torch.equal(sol.stats.accepted[2], plain.stats.accepted[2])
    for occurrences in sol.events:
        assert occurrences.rows is not None
        assert occurrences.rows.tolist() == sorted(occurrences.rows.tolist())
    at = torch.stack([sol.y1[row] for row in (0, 1, 3)])
    torch.testing.assert_close(at[:, 0], torch.full((3,), -0.4, dtype=torch.float64), rtol=0, atol=4e-15)
    assert sol.events[1].rows.tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_collecting_leaves_a_shared_clock_bit_identical() -> None:
    y0, t = tensor([1.0, 0.0], [0.5, 0.5]), torch.linspace(0.0, 9.0, 7, dtype=torch.float64)
    plain = solve(oscillator, y0, t)
    sol = solve(oscillator, y0, t, events=Event(level(0.2), terminal=False))
    assert torch.equal(sol.ys, plain.ys)
    assert torch.equal(sol.stats.evaluations, plain.stats.evaluations)
    assert len(sol.events[0]) == 3
    assert sol.events[0].y.shape == (3, 2, 2)


@pytest.mark.parametrize("end", [9.0, math.inf])
def test_many_rows_each_to_its_own_level(end: float) -> None:
    """Finished rows leave the batch, with their entries of args."""
    heights = torch.linspace(1.5, 200.0, 64, dtype=torch.float64)[torch.randperm(64)].requires_grad_()
    y0 = torch.ones(64, 1, dtype=torch.float64)
    f = Counting(lambda t, y, h: y)
    event = Event(lambda t, y, h: y[:, 0] - h)
    options: dict[str, Any] = {"args": (heights,), "args_dims": 0, "per_sample": True, "rtol": 1e-10, "atol": 1e-12}
    sol = solve(f, y0, (0.0, end), events=event, **options)
    assert min(f.batches) < 32
    torch.testing.assert_close(sol.ts[:, -1], heights.log(), rtol=0, atol=1e-8)
    torch.testing.assert_close(sol.y1[:, 0], heights, rtol=1e-14, atol=0)
    assert sol.events[0].rows.tolist() == list(range(64))  # type: ignore[union-attr]
    found = torch.autograd.grad(sol.ts[:, -1].sum(), heights)[0]
    torch.testing.assert_close(found, 1 / heights.detach(), rtol=1e-8, atol=0)


def test_an_event_function_may_close_over_numbers_of_every_row() -> None:
    """Without args no row can leave the batch."""
    heights = torch.linspace(1.5, 200.0, 64, dtype=torch.float64)
    sol = solve(
        growth,
        torch.ones(64, 1, dtype=torch.float64),
        (0.0, 9.0),
        per_sample=True,
        events=Event(lambda t, y: y[:, 0] - heights),
        rtol=1e-10,
        atol=1e-12,
    )
    torch.testing.assert_close(sol.ts[:, -1], heights.log(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
def test_a_row_fails_beside_rows_that_end_at_events(gradient: Any) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(y < -5, torch.nan, 1.0) * y

    y0 = tensor([0.2], [-4.0], [0.1]).requires_grad_()
    height = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"per_sample": True, "gradient": gradient, "rtol": 1e-9, "atol": 1e-11}
    events = [Event(lambda t, y: weight * y[:, 0] - height), Event(lambda t, y: weight * y[:, 0] + 9, terminal=False)]
    sol = solve(f, y0, (0.0, 1.0, 5.0), events=events, on_failure="return", **options)
    assert sol.status.tolist() == [Status.EVENT, Status.NONFINITE, Status.EVENT]
    assert sol.events[0].rows.tolist() == [0, 2]  # type: ignore[union-attr]
    assert sol.events[1].rows.tolist() == [1]  # type: ignore[union-attr]
    assert sol.y1[1].isnan().all()
    t = sol.events[0].t
    torch.testing.assert_close(t, (0.25 / tensor(0.2, 0.1)).log(), rtol=0, atol=1e-8)
    by_y0, by_height, by_weight = torch.autograd.grad(t.sum(), (y0, height, weight), retain_graph=True)
    torch.testing.assert_close(by_y0[:, 0], tensor(-5.0, 0.0, -10.0), rtol=1e-7, atol=1e-12)
    torch.testing.assert_close((by_height.item(), by_weight.item()), (4.0, -1.0), rtol=1e-7, atol=0)
    by_weight = torch.autograd.grad(sol.events[1].t.sum(), weight)[0]
    torch.testing.assert_close(by_weight.item(), -0.5, rtol=1e-7, atol=0)


@CLOCKS
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "collected"])
def test_a_step_that_overflows_has_no_event(per_sample: bool, terminal: bool) -> None:
    """A fixed step from a finite to an infinite state does not locate the event."""
    event = Event(level(1e300), terminal=terminal)
    how: dict[str, Any] = {"method": "rk4", "step_size": 0.7, "on_failure": "return", "per_sample": per_sample}
    sol = solve(lambda t, y: y**3, tensor([1.0]), (0.0, 9.0, 10.0), events=event, **how)
    assert sol.status.tolist() == [Status.NONFINITE]
    assert len(sol.events[0]) == 0
    assert sol.ts.flatten().tolist() == [0.0, 9.0, 10.0]
    assert sol.ys[1:].isnan().all()


# --------------------------------------------------------------------------------------------------------- the solution


@CLOCKS
def test_outputs_after_a_terminal_event_are_its_time_and_state(per_sample: bool) -> None:
    t = torch.linspace(0.0, 2.0, 5, dtype=torch.float64)
    sol = solve(growth, tensor([1.0]), t, per_sample=per_sample, events=Event(level(2.0)), **TIGHT)
    end = sol.events[0].t.item()
    torch.testing.assert_close(sol.ts.flatten(), tensor(0.0, 0.5, end, end, end), rtol=0, atol=0)
    torch.testing.assert_close(sol.ys.flatten(), tensor(1.0, math.exp(0.5), 2.0, 2.0, 2.0), **CLOSE)
    assert torch.equal(sol.ys[2], sol.ys[4])


@CLOCKS
@pytest.mark.parametrize("gradient", ["replay", "direct"])
def test_dense_output_ends_at_the_event(per_sample: bool, gradient: str) -> None:
    y0 = tensor([1.0]).requires_grad_()
    options: dict[str, Any] = {"dense": True, "per_sample": per_sample, "gradient": gradient}
    sol = solve(growth, y0, (0.0, 5.0), events=Event(level(2.0)), **options, **TIGHT)
    at = torch.linspace(0.0, 0.69, 20, dtype=torch.float64)
    torch.testing.assert_close(sol(at).flatten(), at.exp(), rtol=0, atol=1e-9)
    end = sol.ts.detach().flatten()[-1]
    torch.testing.assert_close(sol(end).item(), 2.0, **CLOSE)
    assert torch.autograd.grad(sol(0.5).sum(), y0, retain_graph=True)[0].item() == pytest.approx(math.exp(0.5), 1e-8)
    with pytest.raises(ValueError, match="lies outside the span"):
        sol(0.7)


@CLOCKS
@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
def test_a_saved_function_of_outputs_up_to_the_event(per_sample: bool, gradient: Any) -> None:
    y0 = tensor([1.0], [0.5]).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def save(t: Tensor, y: Tensor, scale: Tensor) -> dict[str, Tensor]:
        return {"twice": scale * y, "sum": y.sum(-1) + t}

    event = Event(lambda t, y, scale: y[:, 0] - 2 if t.dim() else y[0, 0] - 2)
    options: dict[str, Any] = {"args": (scale,), "per_sample": per_sample, "gradient": gradient}
    sol = solve(lambda t, y, scale: y, y0, (0.0, 0.5, 3.0), events=event, save=save, **options, **TIGHT)
    second = 2.0 if per_sample else 1.0
    torch.testing.assert_close(sol.ys["twice"][-1, :, 0], 3 * tensor(2.0, second), **CLOSE)
    assert sol.ys["sum"].shape == (3, 2)
    torch.testing.assert_close(sol.ys["sum"][-1, 0].item(), 2 + math.log(2.0), **CLOSE)
    by_scale, by_y0 = torch.autograd.grad(sol.ys["twice"][-1].sum() + sol.ys["sum"][-1, 0], (scale, y0))
    torch.testing.assert_close(by_scale.item(), 2 + second, rtol=1e-8, atol=0)
    # the first row ends at 2 wherever it starts, and its time changes by −1 / y0
    torch.testing.assert_close(by_y0[0].item(), -1.0 if per_sample else -1.0 - 3.0, rtol=1e-7, atol=0)
    assert set(sol.events[0].t.shape) == {2 if per_sample else 1}


def test_saving_steps_with_events_is_refused() -> None:
    with pytest.raises(ValueError, match=r"events with save='steps'"):
        solve(growth, tensor([1.0]), (0.0, 1.0), events=Event(level(2.0)), save="steps")


@CLOCKS
@pytest.mark.parametrize("how", [{}, {"method": "rk4", "step_size": 0.1}], ids=["tsit5", "rk4"])
@pytest.mark.parametrize("graph", [False, True], ids=["plain", "with a graph"])
def test_evaluations_include_the_cost_of_events(per_sample: bool, how: dict, graph: bool) -> None:
    f = Counting(growth)
    y0 = tensor([1.0]).requires_grad_(graph)
    plain = solve(f, y0, (0.0, 0.7), per_sample=per_sample, **how)
    f.calls = 0
    sol = solve(f, y0, (0.0, 0.7), per_sample=per_sample, events=Event(level(2.0)), **how)
    assert sol.stats.calls == f.calls == int(sol.stats.evaluations.max())
    assert sol.stats.accepted.tolist() == plain.stats.accepted.tolist()
    more = f.calls - plain.stats.calls
    stages = 4 if how else 6
    assert more % stages == 0
    assert 1 <= more // stages <= 4 + 4 * graph  # repeats of the last step until it ends on the zero, and its slope


@CLOCKS
def test_extend_finds_the_next_events(per_sample: bool) -> None:
    y0 = tensor([1.0, 0.0]).requires_grad_()
    events = [Event(level(0.0)), Event(level(0.0, 1), terminal=False)]
    sol = solve(oscillator, y0, (0.0, 20.0), per_sample=per_sample, events=events, dense=True, **TIGHT)
    sol = sol.extend(21.0).extend(math.inf)
    ends = [math.pi * (n + 0.5) for n in range(3)]
    torch.testing.assert_close(sol.ts.flatten(), tensor(0.0, *ends), **CLOSE)
    torch.testing.assert_close(sol.events[0].t, tensor(*ends), **CLOSE)
    torch.testing.assert_close(sol.events[1].t, tensor(math.pi, 2 * math.pi), **CLOSE)
    torch.testing.assert_close(sol(4.0).flatten(), tensor(math.cos(4.0), -math.sin(4.0)), **CLOSE)
    by_y0 = torch.autograd.grad(sol.events[0].t[2], y0)[0]
    torch.testing.assert_close(by_y0, tensor([0.0, 1.0]), rtol=1e-8, atol=1e-8)  # by the phase −atan(y1 / y0)


def test_events_of_rows_stay_in_order_after_extend() -> None:
    """Row by row, and in order of time within a row, as `Occurrences` documents."""
    y0 = tensor([1.0, 0.0], [0.0, 1.0])
    sol = solve(oscillator, y0, (0.0, 4.0), per_sample=True, events=Event(level(0.0), terminal=False), **TIGHT)
    rows = sol.extend(10.0).events[0].rows
    assert rows is not None
    assert rows.tolist() == [0, 0, 0, 1, 1, 1]


# --------------------------------------------------------------------------------------------- kinds of states and args


@CLOCKS
def test_single_precision_states(per_sample: bool) -> None:
    sol = solve(ball, torch.tensor([[0.0, 5.0]]), (0.0, math.inf), per_sample=per_sample, events=Event(level(0.0)))
    assert sol.events[0].y.dtype == torch.float32
    assert sol.ts.dtype == torch.float64
    torch.testing.assert_close(sol.ts.flatten()[-1].item(), 2 * 5 / G, rtol=1e-5, atol=0)
    assert abs(sol.y1[0, 0].item()) < 1e-5


@CLOCKS
@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
def test_states_of_several_leaves(per_sample: bool, gradient: Any) -> None:
    height, speed = tensor(0.0).requires_grad_(), tensor(5.0).requires_grad_()
    seen: list[Any] = []

    def f(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"height": y["speed"], "speed": torch.full_like(y["speed"], -G)}

    def hits(t: Tensor, y: dict[str, Tensor]) -> Tensor:
        seen.append(set(y))
        return y["height"] if t.dim() else y["height"][0]

    y0 = {"height": height, "speed": speed}
    sol = solve(f, y0, (0.0, 9.0), per_sample=per_sample, events=Event(hits), gradient=gradient, **TIGHT)
    assert all(keys == {"height", "speed"} for keys in seen)
    torch.testing.assert_close(sol.events[0].y["speed"].flatten(), tensor(-5.0), **CLOSE)
    torch.testing.assert_close(sol.y1["speed"].flatten(), tensor(-5.0), **CLOSE)
    by_speed = torch.autograd.grad(sol.events[0].t.sum(), speed)[0]
    torch.testing.assert_close(by_speed, tensor(2 / G), rtol=1e-8, atol=0)


def test_leaves_of_different_shapes() -> None:
    y0 = (torch.ones(2, 3, dtype=torch.float64), torch.tensor(0.0))
    sol = solve(lambda t, y: (y[0], torch.ones_like(y[1])), y0, (0.0, 5.0), events=Event(lambda t, y: y[1] - 1.5))
    assert sol.events[0].y[0].shape == (1, 2, 3)
    assert sol.events[0].y[1].dtype == torch.float32
    torch.testing.assert_close(sol.ts[-1].item(), 1.5, rtol=1e-6, atol=0)


@CLOCKS
@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
def test_complex_states(per_sample: bool, gradient: Any) -> None:
    y0 = torch.tensor([[1.0 + 0.0j]], dtype=torch.complex128, requires_grad=True)
    rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    event = Event(lambda t, y: y.real[:, 0] if t.dim() else y.real[0, 0])
    options: dict[str, Any] = {"per_sample": per_sample, "gradient": gradient}
    sol = solve(lambda t, y: 1j * rate * y, y0, (0.0, 9.0), events=event, **options, **TIGHT)
    torch.testing.assert_close(sol.ts.flatten()[-1].item(), math.pi / 4, **CLOSE)
    torch.testing.assert_close(sol.y1.item(), 1j, **CLOSE)
    by_rate, by_y0 = torch.autograd.grad(sol.events[0].t.sum(), (rate, y0))
    torch.testing.assert_close(by_rate.item(), -math.pi / 8, rtol=1e-8, atol=0)
    torch.testing.assert_close(by_y0.item(), -0.5j, rtol=0, atol=1e-8)  # the phase matters, not the modulus


@CLOCKS
def test_event_functions_receive_args_like_f(per_sample: bool) -> None:
    k = torch.tensor(2.0, dtype=torch.float64)

    def event(t: Tensor, y: Tensor, k: Tensor, extra: dict[str, Tensor]) -> Tensor:
        return (y[:, 0] if t.dim() else y[0, 0]) - k * extra["more"]

    args = (k, {"more": torch.tensor(1.5, dtype=torch.float64)})
    sol = solve(
        lambda t, y, k, extra: k * y, tensor([1.0]), (0.0, 5.0), args=args, per_sample=per_sample, events=Event(event),
        **TIGHT,
    )  # fmt: skip
    torch.testing.assert_close(sol.ts.flatten()[-1].item(), math.log(3.0) / 2, **CLOSE)


def test_event_functions_receive_time_like_f() -> None:
    kinds: list[tuple[torch.dtype, int]] = []

    def event(t: Tensor, y: Tensor) -> Tensor:
        kinds.append((t.dtype, t.dim()))
        return t - 0.5

    solve(growth, torch.ones(2, 1), (0.0, 1.0), events=Event(event))
    solve(growth, torch.ones(2, 1), (0.0, 1.0), events=Event(event), per_sample=True)
    assert set(kinds) == {(torch.float32, 0), (torch.float32, 1)}


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("function", "per_sample", "words"),
    [
        (lambda t, y: y[:, 0], False, r"shape \[3\]; wanted a tensor of one real number"),
        (lambda t, y: y, True, r"shape \[3, 2\]; wanted a tensor of one real number for each of 3 rows"),
        (lambda t, y: y.sum(), True, r"shape \[\]; wanted a tensor of one real number for each of 3 rows"),
        (lambda t, y: 1.0, False, r"a float; wanted a tensor"),
        (lambda t, y: (y.sum(),), False, r"a tuple; wanted a tensor"),
        (lambda t, y: None, False, r"a NoneType; wanted a tensor"),
        (lambda t, y: y.sum() + 0j, False, r"torch.complex128; wanted a tensor of one real number"),
        (lambda t, y: y.sum() < 0, False, r"torch.bool; wanted a tensor of one real number"),
        (lambda t, y: y[:, 0].int(), True, r"torch.int32; wanted a tensor of one real number"),
    ],
)
def test_event_functions_that_do_not_return_a_number_are_refused(function: Any, per_sample: bool, words: str) -> None:
    y0 = torch.ones(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="an event function returned.*" + words):
        solve(growth, y0, (0.0, 1.0), events=Event(function), per_sample=per_sample)


def test_objects_that_are_no_events_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Event\(function\) is a float; wanted a callable"):
        Event(1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Event\(direction=2\); wanted -1, 0 or 1"):
        Event(level(0.0), direction=2)
    for events, kind in ((level(0.0), "function"), ([Event(level(0.0)), 3], "int"), (3.0, "float")):
        with pytest.raises(TypeError, match=f"events holds a {kind}; wanted Event"):
            solve(growth, tensor([1.0]), (0.0, 1.0), events=events)


# ------------------------------------------------------------------------------------------------------------ gradients


class Spring:
    """A driven spring with rows, numbers that describe its solution, and their derivatives by all inputs."""

    names = ("y0", "t", "k", "damping", "height", "weight")

    def __init__(self, per_sample: bool, t: tuple[float, ...] = (0.1, 0.6, 1.1, 4.0)) -> None:
        self.per_sample = per_sample
        self.y0 = tensor([1.0, 0.0], [0.7, 0.4], [1.5, -0.2])
        self.t = tensor(*t) + tensor([0.0], [0.05], [-0.1]) if per_sample else tensor(*t)
        self.k, self.damping, self.height, self.weight = tensor(1.3, 0.2, 0.15, 1.1)

    def inputs(self) -> list[Tensor]:
        """Return copies that require gradients."""
        return [getattr(self, name).clone().requires_grad_() for name in self.names]

    def solve(self, inputs: list[Tensor], **options: Any) -> Solution:
        """Solve with one collected and one terminal event; parameters are args, or captured by f or by the events."""
        y0, t, k, damping, height, weight = inputs

        def own(numbers: Tensor) -> Tensor:
            return numbers if self.per_sample else numbers[1]

        def f(t: Tensor, y: Tensor, k: Tensor, height: Tensor) -> Tensor:
            return torch.stack((y[:, 1], -k * y[:, 0] - damping * y[:, 1] + 0.3 * torch.sin(2 * t)), 1)

        events = [
            Event(lambda t, y, k, height: own(y[:, 0] * weight - height * torch.cos(t)), terminal=False),
            Event(lambda t, y, k, height: own(weight * y[:, 1] - 0.1 * height * t), direction=1),
        ]
        return solve(f, y0, t, args=(k, height), per_sample=self.per_sample, events=events, **options)

    def terms(self, sol: Solution) -> dict[str, Tensor]:
        """Return one number for each part of a solution."""
        assert all(len(found) for found in sol.events)
        parts = {
            "times": [found.t for found in sol.events],
            "states": [found.y for found in sol.events],
            "outputs before": [sol.ys[:-1]],
            "outputs after": [sol.ys[-1], sol.ts],
        }
        every = {name: torch.cat([x.reshape(-1) for x in part]) for name, part in parts.items()}
        return {name: x @ torch.linspace(1, 2, len(x), dtype=x.dtype) for name, x in every.items()}

    def gradients(self, **options: Any) -> dict[str, Tensor]:
        """Return the derivatives of every term by all inputs, as one vector."""
        inputs = self.inputs()
        found = {}
        for name, term in self.terms(self.solve(inputs, **options)).items():
            grads = torch.autograd.grad(term, inputs, retain_graph=True, allow_unused=True)
            parts = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]
            found[name] = torch.cat([x.reshape(-1) for x in parts])
        return found

    def differences(self, eps: float = 1e-6, **options: Any) -> dict[str, Tensor]:
        """Return the same by central differences."""
        columns: list[dict[str, float]] = []
        with torch.no_grad():
            for i, x in enumerate(self.inputs()):
                for place in range(x.numel()):
                    ends = []
                    for shift in (eps, -eps):
                        moved = self.inputs()
                        moved[i].view(-1)[place] += shift
                        ends.append(self.terms(self.solve(moved, **options)))
                    columns.append({name: float(ends[0][name] - ends[1][name]) / (2 * eps) for name in ends[0]})
        return {name: tensor(*(column[name] for column in columns)) for name in columns[0]}


FIXED_STEPS: dict[str, Any] = {"controller": Given(torch.linspace(0.0, 4.0, 14, dtype=torch.float64))}


@pytest.fixture(scope="module", params=[False, True], ids=["shared", "per sample"])
def measured(request: pytest.FixtureRequest) -> tuple[Spring, dict[str, Tensor]]:
    """Return a problem and the derivatives of its discrete map by differences."""
    problem = Spring(request.param)
    return problem, problem.differences(**FIXED_STEPS)


@pytest.mark.parametrize("gradient", EXACT, ids=str)
def test_derivatives_of_the_discrete_map_agree_with_differences(
    measured: tuple[Spring, dict[str, Tensor]], gradient: Any
) -> None:
    problem, wanted = measured
    found = problem.gradients(gradient=gradient, **FIXED_STEPS)
    for name, column in wanted.items():
        assert relative_error(found[name], column) < 1e-6, name


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.one_call])
def test_every_method_locates_events(method: str) -> None:
    """On the zero, with exact derivatives of the discrete map, and every evaluation counted."""
    f = Counting(lambda t, y, k: torch.stack((y[:, 1], -k * y[:, 0]), 1))
    events = [Event(level(0.3)), Event(level(0.8), terminal=False)]

    def of(k: Tensor, gradient: str) -> tuple[Solution, Tensor]:
        options: dict[str, Any] = {"method": method, "args": (k,), "events": events, "gradient": gradient}
        grid = Given(torch.linspace(0.0, 4.0, 21, dtype=torch.float64))
        sol = solve(f, tensor([1.0, 0.0], [0.9, 0.2]), (0.0, 4.0), controller=grid, **options)
        return sol, sum(found.t.sum() + found.y.pow(3).sum() for found in sol.events)

    k = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    f.calls = 0
    sol, loss = of(k, "replay")
    assert sol.stats.calls == f.calls
    assert [len(found) for found in sol.events] == [1, 1]
    for found, height in zip(sol.events, (0.3, 0.8), strict=True):
        assert abs(found.y[0, 0, 0].item() - height) < 1e-14
    by_k = torch.autograd.grad(loss, k)[0].item()
    assert by_k == pytest.approx(torch.autograd.grad(of(k, "direct")[1], k)[0].item(), rel=1e-9)
    with torch.no_grad():
        assert by_k == pytest.approx((of(k + 1e-6, "replay")[1] - of(k - 1e-6, "replay")[1]).item() / 2e-6, rel=1e-6)


@CLOCKS
def test_exact_gradients_agree(per_sample: bool) -> None:
    """Also if output times repeat, at the start or later."""
    problem = Spring(per_sample, (0.1, 0.1, 0.6, 0.6, 4.0))
    how: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-10}
    wanted = problem.gradients(gradient="direct", **how)
    for gradient in EXACT[:1] + EXACT[2:]:
        for name, column in problem.gradients(gradient=gradient, **how).items():
            assert relative_error(column, wanted[name]) < 1e-9, (name, gradient)


@CLOCKS
def test_adjoint_derivatives_agree_with_fine_steps(per_sample: bool) -> None:
    problem = Spring(per_sample, (0.1, 0.1, 0.6, 0.6, 4.0))
    found = problem.gradients(gradient="adjoint", rtol=1e-8, atol=1e-10)
    fine: dict[str, Any] = {"controller": Given(torch.linspace(0.0, 4.0, 101, dtype=torch.float64))}
    for name, column in problem.gradients(gradient="direct", **fine).items():
        assert relative_error(found[name], column) < 1e-6, name


@CLOCKS
def test_an_event_early_in_a_long_step_has_an_accurate_derivative(per_sample: bool) -> None:
    """Its slope is not a difference over the short step that remains."""
    start = tensor([1.0, 0.0])
    begun = solve(oscillator, start, (0.0, 1.0), controller=Given(tensor(0.0, 1.0))).y1[0, 0].item()
    for ahead in (1e-3, 1e-5, 1e-7):
        y0 = start.clone().requires_grad_()
        event = Event(level(begun - ahead * math.sin(1.0)))
        how: dict[str, Any] = {"controller": Given(tensor(0.0, 1.0, 1.5)), "per_sample": per_sample}
        sol = solve(oscillator, y0, (0.0, 1.5), events=event, **how)
        found = torch.autograd.grad(sol.events[0].t.sum(), y0)[0]
        t = sol.ts.detach().flatten()[-1]
        # the same two steps, by the implicit function theorem
        end = t.clone().requires_grad_()
        again = solve(
            oscillator, y0, torch.stack((0 * end, end)), controller=Given(tensor(0.0, 1.0, t.item())), gradient="direct"
        )
        by_y0, by_t = torch.autograd.grad(again.y1[0, 0], (y0, end))
        assert relative_error(found, -by_y0 / by_t) < 1e-9


@CLOCKS
def test_second_derivatives_by_direct_pass_gradgradcheck(per_sample: bool) -> None:
    y0 = tensor([1.0, 0.1], [0.8, -0.2]).requires_grad_()
    k = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    height = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    t0 = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    given = Given(torch.linspace(0.0, 2.0, 4, dtype=torch.float64))

    def everything(y0: Tensor, k: Tensor, height: Tensor, t0: Tensor) -> tuple[Tensor, ...]:
        mine = (lambda x: x) if per_sample else (lambda x: x[0])
        events = [
            Event(lambda t, y: mine(y[:, 0] - 2 * height), terminal=False),
            Event(lambda t, y: mine(y[:, 0] - height * torch.cos(t))),
        ]
        sol = solve(
            lambda t, y: torch.stack((y[:, 1], -k * torch.sin(y[:, 0]) + 0.1 * t), 1),
            y0,
            torch.stack((t0, t0 + 2.0)),
            events=events,
            controller=given,
            per_sample=per_sample,
            gradient="direct",
        )
        return sol.y1, *(x for found in sol.events for x in (found.t, found.y))

    assert all(len(x) for x in everything(y0, k, height, t0))
    assert torch.autograd.gradgradcheck(everything, (y0, k, height, t0), rtol=1e-4, atol=1e-6)


@CLOCKS
@pytest.mark.parametrize("gradient", ["replay", "adjoint", Replay(every=3)], ids=str)
def test_other_gradients_refuse_second_derivatives_through_an_event(per_sample: bool, gradient: Any) -> None:
    y0 = tensor([1.0]).requires_grad_()
    sol = solve(growth, y0, (0.0, 5.0), events=Event(level(2.0)), per_sample=per_sample, gradient=gradient)
    words = r"has no second derivatives( through an event)?; wanted .*gradient='direct'"
    with pytest.raises(GradientError, match=words):
        torch.autograd.grad(sol.events[0].t.sum(), y0, create_graph=True)
    name = "adjoint" if gradient == "adjoint" else "replay"
    sol = solve(growth, y0, (0.0, 5.0), events=Event(level(2.0)), per_sample=per_sample, gradient=gradient)
    assert torch.autograd.grad(sol.events[0].t.sum(), y0)[0].item() == pytest.approx(-1.0, rel=1e-4)
    assert name in ("adjoint", "replay")


def test_replay_refuses_second_derivatives_in_a_sentence() -> None:
    y0 = tensor([1.0]).requires_grad_()
    sol = solve(growth, y0, (0.0, 5.0), events=Event(level(2.0)))
    sentence = "gradient='replay' has no second derivatives through an event; wanted gradient='direct'."
    with pytest.raises(GradientError) as refusal:
        torch.autograd.grad(sol.y1.sum(), y0, create_graph=True)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
def test_an_event_function_may_be_a_network(gradient: Any) -> None:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    y0 = tensor([1.0, 0.0], [0.2, 1.0])
    with torch.no_grad():
        path = solve(oscillator, y0, torch.linspace(0.0, 3.0, 50, dtype=torch.float64), **TIGHT).ys
        net[2].bias -= net(path)[25].mean()

    def run(gradient: Any) -> Solution:
        event = Event(lambda t, y: net(y)[:, 0], terminal=False)
        return solve(oscillator, y0, (0.0, 3.0), per_sample=True, events=event, gradient=gradient, **TIGHT)

    sol = run(gradient)
    assert len(sol.events[0]) >= 1
    (sol.events[0].t.square().sum() + sol.events[0].y.sum()).backward()
    with torch.no_grad():
        weight = net[0].weight
        ends = []
        for shift in (1e-5, -1e-5):
            weight[1, 0] += shift
            again = run("direct")
            ends.append((again.events[0].t.square().sum() + again.events[0].y.sum()).item())
            weight[1, 0] -= shift
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[1, 0].item(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-9)
    assert all(x.grad is not None and x.grad.isfinite().all() for x in net.parameters())


def test_without_gradient_mode_nothing_requires_a_gradient() -> None:
    y0 = tensor([1.0]).requires_grad_()
    with torch.no_grad():
        sol = solve(growth, y0, (0.0, 5.0), events=Event(level(2.0)))
    assert not any(x.requires_grad for x in (sol.ts, sol.ys, sol.events[0].t, sol.events[0].y))
    with torch.inference_mode():
        sol = solve(growth, y0.detach(), (0.0, 5.0), events=Event(level(2.0)))
    torch.testing.assert_close(sol.ts[-1].item(), math.log(2.0), rtol=1e-4, atol=0)


# -------------------------------------------------------------------------------------------------------- bouncing ball


def bounces(gradient: Any, speed: Tensor, g: Tensor, kept: Tensor, count: int = 10) -> Tensor:
    """Return the times of the bounces of a ball that keeps a part of its speed at each."""

    def falling(t: Tensor, y: Tensor, g: Tensor) -> Tensor:
        return torch.stack((y[1], -g))

    down = Event(lambda t, y, g: y[0], direction=-1)
    ground, t, times = torch.zeros_like(speed), torch.zeros_like(speed), []
    y = torch.stack((ground, speed))
    for _ in range(count):
        sol = solve(falling, y, (t, math.inf), args=(g,), events=down, gradient=gradient, rtol=1e-9, atol=1e-9)
        t, y = sol.ts[-1], torch.stack((ground, -kept * sol.y1[1]))
        times.append(t)
    return torch.stack(times)


def bounces_exactly(speed: Tensor, g: Tensor, kept: Tensor, count: int = 10) -> Tensor:
    return 2 * speed / g * torch.stack([(1 - kept ** (n + 1)) / (1 - kept) for n in range(count)])


@pytest.mark.parametrize("gradient", [*GRADIENTS, Adjoint(rtol=1e-10, atol=1e-10)], ids=str)
def test_ten_bounces_of_a_ball(gradient: Any) -> None:
    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (5.0, G, 0.9)]
    found, wanted = bounces(gradient, *inputs), bounces_exactly(*inputs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    weights = torch.linspace(1, 2, 10, dtype=torch.float64)
    by_all = torch.autograd.grad((found * weights).sum(), inputs)
    torch.testing.assert_close(by_all, torch.autograd.grad((wanted * weights).sum(), inputs), rtol=1e-9, atol=1e-9)
    if gradient != "replay":
        return
    for i, g in enumerate(by_all):
        ends = []
        for shift in (1e-5, -1e-5):
            moved = [x.detach() + shift * (i == j) for j, x in enumerate(inputs)]
            ends.append((bounces("replay", *moved) * weights).sum().item())
        torch.testing.assert_close(g.item(), (ends[0] - ends[1]) / 2e-5, rtol=1e-7, atol=0)


def test_second_derivatives_through_bounces_by_direct() -> None:
    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (5.0, G, 0.9)]
    rows = []
    for times in (bounces("direct", *inputs, count=4), bounces_exactly(*inputs, count=4)):
        first = torch.autograd.grad(times.sum(), inputs, create_graph=True)
        rows.append([x for g in first for x in torch.autograd.grad(g, inputs, retain_graph=True, allow_unused=True)])
    for found, wanted in zip(*rows, strict=True):
        zero = torch.zeros((), dtype=torch.float64)
        torch.testing.assert_close(
            zero if found is None else found, zero if wanted is None else wanted, rtol=1e-8, atol=1e-8
        )


# -------------------------------------------------------------------------------------------------------- documentation


def test_the_examples_in_the_documentation_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    try:
        for block in blocks:
            exec(compile(block, "docs/events.md", "exec"), names)
    finally:
        torch.set_default_dtype(torch.float32)
    assert names["landing"].item() == pytest.approx(10 / G, rel=1e-9)
    assert names["slope"].item() == pytest.approx(-10 / G**2, rel=1e-9)
    assert "1.0194" in page
    assert "0.1039" in page

    assert names["highest"].rows.tolist() == [1, 2]
    torch.testing.assert_close(names["highest"].t, tensor(math.pi / 4, 2 * math.pi), rtol=1e-7, atol=0)
    wanted = tensor(math.acos(-0.4), math.pi / 4 + math.acos(-0.4 * math.sqrt(2)), 10.0)
    torch.testing.assert_close(names["ends"], wanted, rtol=1e-7, atol=0)

    inputs = [names[name] for name in ("speed", "g", "kept")]
    wanted = bounces_exactly(*inputs)
    torch.testing.assert_close(torch.stack(names["bounces"]), wanted, rtol=0, atol=1e-9)
    grads = torch.autograd.grad(wanted[-1], inputs)
    torch.testing.assert_close(
        [names[name] for name in ("by_speed", "by_g", "by_kept")], list(grads), rtol=0, atol=1e-9
    )

    assert int(names["saved"]) > 5
    assert names["count"].attempts > names["count"].rejections == int(names["unaware"].stats.rejected) > 0
