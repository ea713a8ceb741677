"""Step sizes: the last step, bounds, the first step, rejections, grids."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from fields import ADAPTIVE, FIXED, METHODS, Counting
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from neuralode import PI, PID, Fixed, Given, I, Status, Stepper, solve
from neuralode.controllers.base import AttemptOutcome

Y0 = torch.ones(2, dtype=torch.float64)
LOOSE = {"rtol": 1e-2, "atol": 1e6}  # so loose that only the bounds determine the step


def constant(t: Tensor, y: Tensor) -> Tensor:
    return torch.ones_like(y)


def wave(t: Tensor, y: Tensor) -> Tensor:
    return torch.cos(t)[..., None] * y


def steps(t: Any, **options: Any) -> list[float]:
    """The accepted times."""
    f = options.pop("f", constant)
    return solve(f, Y0, t, save="steps", **options).ts.tolist()


def sizes(times: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise(times)]


# ----------------------------------------------------------------------------------------------- the end of a solve


finite = some.floats(-1e6, 1e6)
lengths = some.floats(1e-6, 1e3)


@settings(deadline=None, max_examples=60)
@given(t0=finite, length=lengths, reverse=some.booleans(), method=some.sampled_from(ADAPTIVE))
def test_an_adaptive_method_reaches_the_end_exactly(t0: float, length: float, reverse: bool, method: str) -> None:
    t1 = t0 - length if reverse else t0 + length
    times = steps((t0, t1), f=lambda t, y: -0.01 * y, method=method)
    assert times[0] == t0
    assert times[-1] == t1
    assert all((b - a) * (t1 - t0) > 0 for a, b in itertools.pairwise(times))


@settings(deadline=None, max_examples=60)
@given(t0=some.floats(-100, 100), length=some.floats(1e-3, 10), cut=some.floats(1.0, 30.0), reverse=some.booleans())
def test_a_fixed_grid_reaches_the_end_exactly(t0: float, length: float, cut: float, reverse: bool) -> None:
    t1 = t0 - length if reverse else t0 + length
    step_size = length / cut
    times = steps((t0, t1), method="euler", step_size=step_size)
    assert times[0] == t0
    assert times[-1] == t1
    assert len(times) - 1 == math.ceil(abs(t1 - t0) / step_size - 1e-9)
    assert all(abs(size) <= step_size * (1 + 1e-8) for size in sizes(times))
    signed = math.copysign(step_size, t1 - t0)
    assert all(t == pytest.approx(t0 + n * signed, rel=1e-15, abs=1e-12) for n, t in enumerate(times[:-1]))


@settings(deadline=None, max_examples=40)
@given(ends=some.lists(some.floats(0.01, 5.0), min_size=1, max_size=6), method=some.sampled_from(["tsit5", "rk4"]))
def test_every_row_reaches_its_end_exactly(ends: list[float], method: str) -> None:
    t = torch.tensor([[0.5, 0.5 + end] for end in ends], dtype=torch.float64)
    options = {"step_size": 0.3} if method == "rk4" else {}
    sol = solve(
        wave, torch.ones(len(ends), 1, dtype=torch.float64), t, per_sample=True, method=method, dense=True, **options
    )
    exact = torch.exp(torch.sin(t[:, 1]) - torch.sin(t[:, 0]))[:, None]
    torch.testing.assert_close(sol.ys[-1], exact, rtol=2e-2, atol=1e-3)
    assert torch.equal(sol.ts, t)


@settings(deadline=None, max_examples=40)
@given(
    points=some.lists(some.floats(0.0, 4.0), min_size=1, max_size=6),
    repeats=some.integers(1, 3),
    method=some.sampled_from(sorted(METHODS)),
)
def test_equal_neighbours_in_t_give_equal_outputs(points: list[float], repeats: int, method: str) -> None:
    once = torch.tensor([0.0, *sorted(points)], dtype=torch.float64)
    t = once.repeat_interleave(repeats)
    options = {"step_size": 0.3} if method in FIXED else {}
    sol = solve(wave, Y0, t, method=method, **options)
    grouped = sol.ys.unflatten(0, (len(once), repeats))
    assert torch.equal(grouped, grouped[:, :1].expand_as(grouped))
    assert torch.equal(grouped[:, 0], solve(wave, Y0, once, method=method, **options).ys)


def test_no_time_takes_no_step() -> None:
    for options in ({}, {"method": "rk4", "step_size": 0.1}):
        sol = solve(wave, Y0, (2.0, 2.0), **options)
        assert sol.success
        assert sol.stats.accepted.tolist() == [0]
        assert torch.equal(sol.ys, torch.stack([Y0, Y0]))
        assert solve(wave, Y0, torch.tensor([2.0]), **options).ys.shape == (1, 2)


def test_a_step_just_short_of_the_end_is_stretched_to_it() -> None:
    assert sizes(steps((0.0, 1.005), controller=I(first_step=1.0, max_step=1.0), **LOOSE)) == [1.005]


def test_the_remaining_span_is_halved_rather_than_leaving_a_tiny_step() -> None:
    control = I(first_step=1.0, max_step=1.0)
    assert sizes(steps((0.0, 1.5), controller=control, **LOOSE)) == [0.75, 0.75]
    assert sizes(steps((0.0, 2.5), controller=control, **LOOSE)) == [1.0, 0.75, 0.75]
    assert sizes(steps((0.0, 3.0), controller=control, **LOOSE)) == [1.0, 1.0, 1.0]
    assert sizes(steps((0.0, -2.5), controller=control, **LOOSE)) == [-1.0, -0.75, -0.75]


def test_the_last_output_is_a_step_and_not_an_interpolation() -> None:
    """A field that must not be evaluated beyond the end."""
    latest = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        latest.append(float(t))
        return torch.cos(5 * t) * y

    for method in METHODS:
        if method in ("kvaerno4", "kvaerno5"):
            continue  # have nodes at 1.15 and 1.23 of every step
        options = {"step_size": 0.3} if method in FIXED else {}
        solve(f, Y0, (0.0, 1.0), method=method, **options)
    assert max(latest) == 1.0
    assert min(latest) == 0.0


# ----------------------------------------------------------------------------------------------------- fixed grids


@pytest.mark.parametrize(
    ("t1", "step_size", "count"),
    [(1.0, 0.1, 10), (0.3, 0.1, 3), (0.7, 0.1, 7), (1.0, 0.3, 4), (1.0, 2.0, 1), (1.1, 1.1, 1)],
)
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
def test_rounding_adds_no_last_step(t1: float, step_size: float, count: int, per_sample: bool) -> None:
    y0 = Y0[:, None]
    for span in ((0.0, t1), (0.0, -t1), (10.0, 10.0 + t1)):
        sol = solve(constant, y0, span, method="euler", step_size=step_size, per_sample=per_sample)
        assert set(sol.stats.accepted.tolist()) == {count}


@settings(deadline=None, max_examples=200)
@given(t0=some.floats(-100, 100), length=some.floats(1e-2, 10), count=some.integers(1, 40), reverse=some.booleans())
def test_a_grid_that_fits_has_no_tiny_step(t0: float, length: float, count: int, reverse: bool) -> None:
    t1 = t0 - length if reverse else t0 + length
    times = steps((t0, t1), method="euler", step_size=abs(t1 - t0) / count)
    assert len(times) - 1 == count


def test_times_of_a_grid_do_not_drift() -> None:
    times = steps((0.0, 100.0), method="euler", step_size=0.1)
    assert len(times) == 1001
    assert all(t == pytest.approx(0.1 * n, rel=1e-15) for n, t in enumerate(times))


def test_a_fixed_controller_is_a_step_size() -> None:
    named = solve(wave, Y0, (0.0, 1.0), method="rk4", step_size=0.3)
    assert torch.equal(solve(wave, Y0, (0.0, 1.0), method="rk4", controller=Fixed(0.3)).ys, named.ys)


# ----------------------------------------------------------------------------------------------------- given steps


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forward", "backward"])
def test_given_steps_are_taken(method: str, sign: float) -> None:
    grid = sign * torch.tensor([0.0, 0.05, 0.4, 0.45, 1.0], dtype=torch.float64)
    found = solve(wave, Y0, (0.0, sign), method=method, controller=Given(grid), save="steps").ts
    torch.testing.assert_close(found, grid, rtol=0, atol=1e-15)


def test_only_the_differences_of_given_times_count() -> None:
    grid = torch.tensor([5.0, 5.25, 5.5, 6.0], dtype=torch.float64)
    assert steps((1.0, 2.0), controller=Given(grid)) == [1.0, 1.25, 1.5, 2.0]


def test_the_last_given_step_ends_at_the_end() -> None:
    grid = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    assert steps((0.0, 0.9), controller=Given(grid)) == [0.0, 0.25, 0.5, 0.9]


def test_replaying_the_steps_of_a_solve_gives_its_result() -> None:
    free = solve(wave, Y0, (0.0, 3.0), save="steps")
    again = solve(wave, Y0, (0.0, 3.0), save="steps", controller=Given(free.ts))
    torch.testing.assert_close(again.ys, free.ys, rtol=1e-13, atol=1e-13)
    assert again.stats.rejected.tolist() == [0]


# ------------------------------------------------------------------------------------------------- adaptive control


CONTROLS = pytest.mark.parametrize("control", [I, PI, PID])


@CONTROLS
def test_bounds_are_kept(control: Any) -> None:
    times = steps((0.0, 5.0), f=wave, controller=control(max_step=0.3, min_step=0.05), rtol=1e-5, atol=1e-5)
    assert max(sizes(times)) <= 0.3 * 1.0101
    assert min(sizes(times)[:-2]) >= 0.05


@CONTROLS
def test_the_first_step_is_that_of_the_controller(control: Any) -> None:
    assert steps((0.0, 5.0), f=wave, controller=control(first_step=0.01))[1] == 0.01


def test_the_first_step_is_that_of_hairer_norsett_and_wanner() -> None:
    """Solving ODEs I, II.4, by hand for y' = cos(t) y with root-mean-square norms."""
    rtol, atol = 1e-6, 1e-8

    def rms(x: Tensor) -> float:
        return float((x / (atol + rtol * Y0.abs())).square().mean().sqrt())

    zero = torch.zeros((), dtype=torch.float64)
    f0 = wave(zero, Y0)
    h0 = 0.01 * rms(Y0) / rms(f0)
    slope = rms(wave(zero + h0, Y0 + h0 * f0) - f0) / h0
    # II.4 has 1/(p + 1) with the order p of the method; the authors' codes and SciPy use that of the error estimate
    expected = [min(100 * h0, (0.01 / max(rms(f0), slope)) ** (1 / exponent)) for exponent in (5, 6)]
    first = steps((0.0, 5.0), f=wave, method="dopri5", rtol=rtol, atol=atol)[1]
    assert any(first == pytest.approx(h, rel=1e-6) for h in expected)


def test_the_estimated_first_step_is_clipped() -> None:
    loose = {"rtol": 0.1, "atol": 0.1}
    assert steps((0.0, 5.0), **loose)[1] > 0.125
    assert steps((0.0, 5.0), controller=I(max_step=0.125), **loose)[1] == 0.125
    assert steps((0.0, 0.1), **loose) == [0.0, 0.1]
    assert steps((0.0, 5.0), f=wave, rtol=1e-8, atol=1e-8)[1] < 0.4
    assert steps((0.0, 5.0), f=wave, rtol=1e-8, atol=1e-8, controller=I(min_step=0.4))[1] == 0.4


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
def test_a_singularity_within_the_smallest_step_is_nonfinite(per_sample: bool) -> None:
    """The step cannot become smaller there, and repeating it would not end."""

    def wall(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t > 1, torch.inf, 1.0)[..., None] * y

    f = Counting(wall)
    options: dict[str, Any] = {"controller": I(min_step=0.3), "on_failure": "return", "per_sample": per_sample}
    sol = solve(f, Y0[:, None], (0.0, 3.0), max_steps=100, **options)
    assert set(sol.status.tolist()) == {Status.NONFINITE}
    assert f.calls < 100


@CONTROLS
def test_steps_grow_at_most_tenfold_and_shrink_at_most_fivefold(control: Any) -> None:
    def bump(t: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-200 * (t - 3) ** 2) * torch.cos(300 * t) * 100 * torch.ones_like(y)

    f = Counting(bump)
    stepper = Stepper(f, Y0, (0.0, 6.0), controller=control(first_step=1e-4, max_step=0.3), method="dopri5")
    grown = []
    previous, before = None, f.calls
    attempts = []
    while not stepper.done:
        start = float(stepper.t)
        stepper.step()
        size = float(stepper.t) - start
        attempts.append(round((f.calls - before) / 6))
        before = f.calls
        if previous is not None:
            grown.append(size / previous)
            if attempts[-2] > 1:
                assert size <= previous * (1 + 1e-12), "a step grew right after a rejection"
        previous = size
    assert max(grown) <= 10 * (1 + 1e-12)
    assert max(grown) > 2
    assert max(attempts) > 1, "nothing was rejected: the test shows nothing"


@pytest.mark.parametrize("name", ["i", "pi", "pid"])
def test_controllers_have_names(name: str) -> None:
    made = {"i": I(), "pi": PI(), "pid": PID()}[name]
    assert steps((0.0, 5.0), f=wave, controller=name) == steps((0.0, 5.0), f=wave, controller=made)


def test_a_wider_safety_margin_takes_more_steps() -> None:
    careful = solve(wave, Y0, (0.0, 5.0), controller=I(safety=0.5))
    bold = solve(wave, Y0, (0.0, 5.0), controller=I(safety=0.95))
    assert careful.stats.accepted > bold.stats.accepted


def test_the_norm_may_be_the_maximum() -> None:
    y0 = torch.zeros(100, dtype=torch.float64)
    y0[0] = 1
    by_mean = solve(wave, y0, (0.0, 5.0), controller=I(norm="rms"))
    by_largest = solve(wave, y0, (0.0, 5.0), controller=I(norm="max"))
    alone = solve(wave, y0[:1], (0.0, 5.0))
    assert by_largest.stats.accepted == alone.stats.accepted
    assert by_mean.stats.accepted < by_largest.stats.accepted


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
def test_a_norm_may_be_a_function(per_sample: bool) -> None:
    def first_column(error: Tensor) -> Tensor:
        return error[:, 0].abs() if per_sample else error[:, 0].abs().max()

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([torch.cos(t) * y[:, 0], torch.cos(50 * t) * 50 * y[:, 1]], dim=1)

    y0 = torch.ones(1, 2, dtype=torch.float64)
    easy = solve(f, y0, (0.0, 5.0), controller=I(norm=first_column), per_sample=per_sample)
    hard = solve(f, y0, (0.0, 5.0), per_sample=per_sample)
    assert easy.stats.accepted < hard.stats.accepted / 3


@CONTROLS
def test_a_clipped_step_does_not_lower_the_planned_size(control: Any) -> None:
    clipped = 0
    for end in (1.9, 2.0, 2.1, 2.2, 2.3):
        f = Counting(wave)
        stepper = Stepper(f, Y0, (0.0, end), controller=control(), rtol=1e-8, atol=1e-8)
        while not stepper.done:
            start, wanted, before = float(stepper.t), float(stepper.h), f.calls
            stepper.step()
            rejected = f.calls - before > 6
            if not rejected and float(stepper.t) - start < 0.99 * wanted:
                clipped += 1
                assert float(stepper.h) >= wanted
    assert clipped > 3, "nothing was clipped: the test shows nothing"


@pytest.mark.parametrize("options", [{}, {"method": "rk4", "step_size": 0.1}, {"controller": "pid"}])
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
def test_dense_output_over_no_time_is_the_state(options: dict[str, Any], per_sample: bool) -> None:
    sol = solve(wave, Y0[:, None], (2.0, 2.0), dense=True, per_sample=per_sample, **options)
    assert torch.equal(sol(2.0), Y0[:, None])


@pytest.mark.parametrize("control", [PI(), PID()], ids=["PI", "PID"])
def test_rejections_and_clipped_steps_do_not_enter_the_history(control: Any) -> None:
    history = control.start(0.0, 1.0)
    history = control.decide(AttemptOutcome(0.5, 0.1, 0.1, False, 5), history).history  # a step that is not clipped
    after_next = {}
    for name, ratio, clipped in (("nothing", None, False), ("a clipped step", 1e-3, True), ("a rejection", 7.0, False)):
        own = history if ratio is None else control.decide(AttemptOutcome(ratio, 0.1, 0.1, clipped, 5), history).history
        own = control.decide(AttemptOutcome(0.3, 0.1, 0.1, False, 5), own).history  # the step may grow again
        after_next[name] = control.decide(AttemptOutcome(0.4, 0.1, 0.1, False, 5), own).h
    assert after_next["a clipped step"] == after_next["nothing"] == after_next["a rejection"]
    remembered = control.decide(AttemptOutcome(0.4, 0.1, 0.1, False, 5), control.start(0.0, 1.0)).h
    assert remembered != after_next["nothing"], "no history counts at all: the test shows nothing"
