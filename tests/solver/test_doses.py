"""Doses: values and derivatives against closed forms, SciPy from dose to dose, and separate solves."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from neuralode import Dose, Event, Given, SolveError, Status, solve

FINE = {"method": "dopri8", "rtol": 1e-11, "atol": 1e-12}
GRADIENTS = ["replay", "direct", "adjoint"]


@pytest.fixture(autouse=True)
def _double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def leaving(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
    """One compartment, eliminated at rate k."""
    return -k * y


def concentration(out: Tensor, times: Tensor, amounts: Tensor, k: Tensor) -> Tensor:
    """Return the closed form after bolus doses, right-continuous: [outputs]."""
    past = (out[:, None] - times).clamp(min=0)
    return torch.where(out[:, None] >= times, amounts * torch.exp(-k * past), 0).sum(1)


def spring(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[..., 1], -y[..., 0]), -1)


# the closed form


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("per_sample", [False, True])
def test_bolus_doses_and_their_derivatives_are_the_closed_form(gradient: str, per_sample: bool) -> None:
    """Derivatives by amounts, times and rate; a dose between outputs, at one, two at the same time, one at the end."""
    out = torch.linspace(0, 4, 9)
    times = torch.tensor([0.3, 1.0, 1.7, 1.7, 4.0], requires_grad=True)
    amounts = torch.tensor([1.0, 2.0, 0.5, 0.7, 3.0], requires_grad=True)
    k = torch.tensor(0.8, requires_grad=True)
    sol = solve(
        leaving, torch.zeros(1, 1), out, args=(k,), doses=Dose(times, amounts), per_sample=per_sample,
        gradient=gradient, **FINE,
    )  # fmt: skip
    want = concentration(out, times, amounts, k)
    assert (sol.ys[:, 0, 0] - want).abs().max() < 1e-11
    weights = torch.rand(9)
    found = torch.autograd.grad((weights * sol.ys[:, 0, 0]).sum(), (times, amounts, k))
    known = torch.autograd.grad((weights * want).sum(), (times, amounts, k))
    for one, other in zip(found, known, strict=True):
        assert (one - other).abs().max() < 1e-8


def test_a_dose_at_the_first_time_comes_after_output_0_only() -> None:
    y0 = torch.ones(2, 1)
    sol = solve(leaving, y0, torch.tensor([0.0, 0.0, 1.0]), args=(0.5,), doses=Dose(0.0, 2.0), dense=True, **FINE)
    assert torch.equal(sol.ys[0], y0)
    assert torch.equal(sol.ys[1], y0 + 2)
    assert (sol.ys[2] - 3 * math.exp(-0.5)).abs().max() < 1e-11
    assert torch.equal(sol(0.0), y0 + 2)


def test_a_dose_at_the_last_time_is_in_the_last_output() -> None:
    y0 = torch.ones(2, 1)
    sol = solve(leaving, y0, (0.0, 1.0), args=(0.5,), doses=Dose(1.0, 2.0), dense=True, **FINE)
    assert (sol.y1 - (math.exp(-0.5) + 2)).abs().max() < 1e-11
    assert torch.equal(sol(1.0), sol.y1)


def test_a_solve_without_doses_is_a_plain_solve() -> None:
    for doses in ([], Dose(torch.zeros(0), 1.0)):
        sol = solve(leaving, torch.ones(2, 1), torch.linspace(0, 1, 4), args=(0.5,), doses=doses)
        plain = solve(leaving, torch.ones(2, 1), torch.linspace(0, 1, 4), args=(0.5,))
        assert torch.equal(sol.ys, plain.ys)
        assert torch.equal(sol.stats.accepted, plain.stats.accepted)


def test_doses_agree_with_scipy_from_dose_to_dose() -> None:
    """Two compartments; doses into the first, which is emptied once."""

    def f(t: Any, y: Any) -> Any:
        gut, blood = y[..., 0], y[..., 1]
        return torch.stack((-1.3 * gut, 1.3 * gut - 0.4 * blood / (1 + blood)), -1)

    def wash(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((0 * y[..., 0], y[..., 1]), -1)

    out = torch.linspace(0, 6, 13)
    doses = [Dose([0.0, 2.25], torch.tensor([[3.0, 0.0], [1.0, 0.5]])), Dose(4.1, wash)]
    sol = solve(f, torch.zeros(2), out, doses=doses, dense=True, **FINE)

    def field(t: float, y: np.ndarray) -> np.ndarray:
        return f(t, torch.as_tensor(y)).numpy()

    y, rows = np.array([3.0, 0.0]), [np.zeros(2)]
    for low, high in [(0.0, 2.25), (2.25, 4.1), (4.1, 6.0)]:
        times = [s for s in out.tolist()[1:] if low <= s and (s < high or high == 6.0)]
        part = solve_ivp(field, (low, high), y, "DOP853", sorted({*times, high}), rtol=1e-12, atol=1e-12)
        rows += list(part.y.T[: len(times)])
        y = part.y[:, -1] + (np.array([1.0, 0.5]) if high == 2.25 else 0)
        y = y * (np.array([0.0, 1.0]) if high == 4.1 else 1)
    assert (sol.ys - torch.as_tensor(np.stack(rows))).abs().max() < 1e-10
    assert (sol(out[1:]) - sol.ys[1:]).abs().max() < 1e-12


# rows with their own doses


def ragged() -> tuple[Tensor, Tensor, Tensor]:
    nan, inf = math.nan, math.inf
    times = torch.tensor([[0.5, 1.0, 2.5], [2.0, nan, nan], [nan, nan, nan], [0.0, 3.0, inf]])
    amounts = torch.tensor([[1.0, 2.0, 3.0], [0.5, 9.0, 9.0], [9.0, 9.0, 9.0], [1.5, 0.25, 9.0]])
    return times, amounts, torch.tensor([[0.1], [0.2], [0.3], [0.4]])


@pytest.mark.parametrize("method", ["tsit5", "kvaerno5"])
def test_rows_with_their_own_doses_equal_solves_of_each_row(method: str) -> None:
    times, amounts, y0 = ragged()
    span = torch.stack([torch.linspace(0, 3 + row / 10, 7) for row in range(4)])
    how = {"args": (0.7,), "per_sample": True, "rtol": 1e-8, "atol": 1e-10, "dense": True, "method": method}
    sol = solve(leaving, y0, span, doses=Dose(times, amounts.T[..., None]), **how)
    queries = torch.tensor([0.25, 0.5, 1.7, 2.0, 3.0])
    for row in range(4):
        real = times[row].isfinite()
        doses = Dose(times[row, real], amounts[row, real])
        alone = solve(leaving, y0[row : row + 1], span[row], doses=doses, **how)
        assert torch.equal(sol.ys[:, row], alone.ys[:, 0])
        assert torch.equal(sol.stats.accepted[row], alone.stats.accepted[0])
        assert (sol(queries)[:, row] - alone(queries)[:, 0]).abs().max() < 1e-14


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_derivatives_of_ragged_doses_are_the_closed_form(gradient: str) -> None:
    times, amounts, y0 = ragged()
    times.requires_grad_()
    amounts.requires_grad_()
    k = torch.tensor(0.7, requires_grad=True)
    span = torch.stack([torch.linspace(0, 3 + row / 10, 7) for row in range(4)])
    sol = solve(
        leaving, y0, span, args=(k,), doses=Dose(times, amounts.T[..., None]), per_sample=True, gradient=gradient,
        **FINE,
    )  # fmt: skip
    weights = torch.rand(7, 4)
    found = torch.autograd.grad((weights * sol.ys[..., 0]).sum(), (times, amounts, k))
    total = torch.zeros(())
    for row in range(4):
        real = times[row].isfinite()
        given = concentration(span[row], times[row, real], amounts[row, real], k)
        given = torch.cat((given[:1] * 0, given[1:]))  # output 0 is y0 itself
        total = total + (weights[:, row] * (given + y0[row, 0] * torch.exp(-k * span[row]))).sum()
    for one, other in zip(found, torch.autograd.grad(total, (times, amounts, k)), strict=True):
        assert (one - other.nan_to_num()).abs().max() < 1e-8


def test_a_failing_row_leaves_the_others_bit_identical() -> None:
    """Its outputs are NaN after the failure; gradients of the others stay finite."""
    scale = torch.ones((), requires_grad=True)

    def blow(t: Tensor, y: Tensor) -> Tensor:
        return y * y

    def reset(t: Tensor, y: Tensor) -> Tensor:
        return scale * torch.sqrt(y)

    y0 = torch.tensor([[4.0], [0.1], [0.2]])
    out = torch.linspace(0, 2, 5)
    how = {"per_sample": True, "rtol": 1e-8, "max_steps": 300}
    doses = Dose([1.25, 1.6], reset)
    sol = solve(blow, y0, out, doses=doses, on_failure="return", **how)
    assert sol.status.tolist()[1:] == [Status.SUCCESS, Status.SUCCESS]
    assert Status(int(sol.status[0])).failed
    assert sol.ys[:, 0].isnan().flatten().tolist() == [False, True, True, True, True]
    assert torch.equal(sol.ts, out.expand(3, -1))
    healthy = solve(blow, y0[1:], out, doses=doses, **how)
    assert torch.equal(sol.ys[:, 1:], healthy.ys)
    (by_scale,) = torch.autograd.grad(sol.ys.nan_to_num().sum(), scale)
    assert torch.equal(by_scale, torch.autograd.grad(healthy.ys.sum(), scale)[0])
    with pytest.raises(SolveError, match=r"rows \[0\] of 3, at t=0\.25") as raised:
        solve(blow, y0, out, doses=doses, **how)
    assert torch.equal(raised.value.solution.ys[:, 1:], healthy.ys)


def test_a_failure_on_a_shared_clock_stops_all_rows() -> None:
    sol = solve(
        lambda t, y: y * y, torch.ones(2, 1), torch.linspace(0, 3, 7), doses=Dose([0.5, 2.0], 1.0), max_steps=200,
        on_failure="return",
    )  # fmt: skip
    assert not sol.success
    assert sol.ys.isnan().all(-1).all(-1).tolist() == [False, False, True, True, True, True, True]


# changes


def test_all_forms_of_a_change_are_equivalent() -> None:
    y0 = {"gut": torch.zeros(3, 2), "blood": torch.ones(3, 1)}

    def f(t: Tensor, y: Any) -> Any:
        return {"gut": -y["gut"], "blood": y["gut"].sum(1, keepdim=True) - 0.1 * y["blood"]}

    times = [0.5, 0.75]
    forms = [
        {"gut": torch.tensor([2.0, 3.0])[:, None, None], "blood": 0.0},
        {"gut": torch.tensor([2.0, 3.0])[:, None, None].expand(2, 1, 2), "blood": torch.zeros(3, 1)},
        {"gut": torch.tensor([2.0, 3.0])[:, None, None].expand(2, 3, 2), "blood": torch.zeros(2, 1, 1)},
    ]
    forms += [lambda t, y: {"gut": y["gut"] + torch.where(t > 0.6, 3.0, 2.0), "blood": y["blood"]}]
    answers = [solve(f, y0, (0.0, 1.0), doses=Dose(times, form)).y1 for form in forms]
    for answer in answers[1:]:
        assert all(torch.equal(answer[key], answers[0][key]) for key in y0)
    both = [Dose(0.5, {"gut": 2.0, "blood": 0}), Dose(torch.tensor(0.75), {"gut": 3, "blood": 0.0})]
    for doses in (both, both[::-1]):
        answer = solve(f, y0, (0.0, 1.0), doses=doses).y1
        assert all(torch.equal(answer[key], answers[0][key]) for key in y0)


def test_doses_at_the_same_time_are_given_in_the_order_of_the_list() -> None:
    add, double = Dose(0.5, 1.0), Dose(0.5, lambda t, y: 2 * y)
    still = {"f": lambda t, y: 0 * y, "y0": torch.ones(1, 1), "t": (0.0, 1.0)}
    for per_sample in (False, True):
        assert solve(**still, doses=[add, double], per_sample=per_sample).y1.item() == 4
        assert solve(**still, doses=[double, add], per_sample=per_sample).y1.item() == 3


def test_a_function_receives_time_and_args_and_its_tensors_get_gradients() -> None:
    seen = []
    kept = torch.tensor(0.25, requires_grad=True)
    k = torch.tensor(0.7, requires_grad=True)

    def keep(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
        seen.append(t)
        return kept * y + k * t[:, None]

    sol = solve(leaving, torch.ones(2, 1), (0.0, 2.0), args=(k,), doses=Dose(1.0, keep), per_sample=True, **FINE)
    assert seen[0].shape == (2,)
    assert seen[0].tolist() == [1.0, 1.0]
    want = torch.exp(-k) * (kept * torch.exp(-k) + k)
    assert (sol.y1 - want).abs().max() < 1e-11
    found, known = (torch.autograd.grad(x, (kept, k)) for x in (sol.y1[0, 0], want))
    assert max(abs(float(a - b)) for a, b in zip(found, known, strict=True)) < 1e-9


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("gradient", ["replay", "direct"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_gradients_of_the_computed_steps_pass_gradcheck(gradient: str, per_sample: bool, order: int) -> None:
    y0 = torch.rand(1, 2)
    times, amounts = torch.tensor([0.4, 0.9]), torch.rand(2, 1, 2)
    shape = (1, 2) if per_sample else (2,)
    times = times.expand(shape).clone()

    def run(y0: Tensor, times: Tensor, amounts: Tensor, end: Tensor) -> Tensor:
        t = torch.stack((torch.zeros(()), torch.tensor(0.6), end))
        doses = [Dose(times, amounts), Dose(0.7, lambda t, y: y.sin())]
        how = {"method": "rk4", "step_size": 0.45, "gradient": gradient, "per_sample": per_sample}
        return solve(spring, y0, t, doses=doses, **how).ys

    inputs = [x.requires_grad_() for x in (y0, times, amounts, torch.tensor(1.3))]
    check = torch.autograd.gradcheck if order == 1 else torch.autograd.gradgradcheck
    assert check(run, inputs, eps=1e-5, atol=1e-6)


# with methods, dense output, save, events


@pytest.mark.parametrize(
    "how",
    [
        {"method": "rk4", "step_size": 0.03},
        {"method": "implicit_adams", "step_size": 0.03},
        {"method": "explicit_adams", "step_size": 0.03},
        {"method": "kvaerno5", "rtol": 1e-8, "atol": 1e-8},
        {"method": "radauIIA5", "step_size": 0.1},
        {"method": "dopri5", "rtol": 1e-8, "atol": 1e-8, "controller": "pi"},
        {"method": "dopri5", "rtol": 1e-8, "atol": 1e-8, "step_t": [0.33, 0.5], "jump_t": [0.9]},
    ],
)
def test_every_kind_of_method_restarts_at_a_dose(how: dict[str, Any]) -> None:
    sol = solve(spring, torch.tensor([[1.0, 0.0]]), (0.0, 2.0), doses=Dose([0.5, 1.25], 1.0), **how)
    y = torch.tensor([[1.0, 0.0]])
    for low, high in [(0.0, 0.5), (0.5, 1.25), (1.25, 2.0)]:
        y = solve(spring, y, (low, high), **how).y1 + (high < 2)
    assert torch.equal(sol.y1, y)


def test_dense_output_jumps_at_doses_and_counts_are_sums() -> None:
    doses = Dose([0.5, 1.5], torch.tensor([2.0, 1.0]))
    sol = solve(leaving, torch.ones(1), torch.tensor([0.0, 1.0, 2.0]), args=(1.0,), doses=doses, dense=True, **FINE)
    queries = torch.tensor([0.0, 0.5 - 1e-12, 0.5, 1.0, 1.5, 2.0])
    want = torch.exp(-queries) + concentration(
        queries, torch.tensor([0.5, 1.5]), torch.tensor([2.0, 1.0]), torch.ones(())
    )
    assert (sol(queries)[:, 0] - want).abs().max() < 1e-10
    parts = [solve(leaving, torch.full((1,), y), t, args=(1.0,), dense=True, **FINE)
             for y, t in [(1.0, (0.0, 0.5)), (math.exp(-0.5) + 2, (0.5, 1.0, 1.5)),
                          ((math.exp(-0.5) + 2) * math.exp(-1) + 1, (1.5, 2.0))]]  # fmt: skip
    assert sol.stats.accepted.tolist() == [sum(int(part.stats.accepted) for part in parts)]
    assert sol.stats.calls == sum(part.stats.calls for part in parts)


@pytest.mark.parametrize("per_sample", [False, True])
def test_save_keeps_a_function_of_the_outputs(per_sample: bool) -> None:
    how = {"doses": Dose(0.5, 1.0), "per_sample": per_sample}
    out = torch.linspace(0, 1, 3)
    plain = solve(spring, torch.ones(2, 2), out, **how)
    kept = solve(spring, torch.ones(2, 2), out, save=lambda t, y: {"t": t + 0 * y[:, 0], "sum": y.sum(1)}, **how)
    assert torch.equal(kept.ys["sum"], plain.ys.sum(-1))
    assert torch.equal(kept.ys["t"], out[:, None].expand(3, 2))


def test_extend_continues_without_doses() -> None:
    sol = solve(leaving, torch.ones(1), (0.0, 1.0), args=(1.0,), doses=Dose(0.5, 1.0), dense=True, **FINE).extend(2.0)
    want = math.exp(-2) + math.exp(-1.5)
    assert abs(sol.y1.item() - want) < 1e-11
    assert sol.ts.tolist() == [0, 1, 2]
    assert abs(sol(0.75).item() - math.exp(-0.75) - math.exp(-0.25)) < 1e-10


def test_events_between_doses_are_all_collected() -> None:
    """A jump across zero is not an event."""
    zero = Event(lambda t, y: y[0], terminal=False)
    doses = Dose([1.0, 4.0], torch.tensor([[-3.0, 0.0], [0.0, 0.0]]))
    sol = solve(spring, torch.tensor([1.0, 0.0]), (0.0, 7.0), doses=doses, events=zero, **FINE)
    # x = cos t, then from 1 on (cos 1 − 3) cos(t − 1) − sin 1 sin(t − 1), whose zeros lie π apart
    first = 1 + math.atan((math.cos(1) - 3) / math.sin(1)) % math.pi
    assert sol.events[0].t.tolist() == pytest.approx([first, first + math.pi], abs=1e-9)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_no_doses_follow_a_terminal_event(gradient: str) -> None:
    """Row 0 ends in the first segment, row 1 in the second, row 2 at the last time."""
    y0 = torch.tensor([[1.0], [2.0], [9.0]])
    low = Event(lambda t, y, k: y[:, 0] - 0.5)
    k = torch.tensor(1.0, requires_grad=True)
    out = torch.linspace(0, 3, 7)
    sol = solve(
        leaving, y0, out, args=(k,), doses=Dose([1.0, 2.5], 0.5), events=low, per_sample=True, gradient=gradient,
        dense=gradient == "replay", **FINE,
    )  # fmt: skip
    assert sol.status.tolist() == [Status.EVENT, Status.EVENT, Status.SUCCESS]
    ends = [math.log(2), 1 + math.log(2 * (2 * math.exp(-1) + 0.5)), 3.0]
    assert sol.ts[:, -1].tolist() == pytest.approx(ends, abs=1e-10)
    assert (sol.ys[-1, :2] - 0.5).abs().max() < 1e-10
    assert sol.ts[0, 2:].tolist() == [sol.ts[0, -1].item()] * 5
    want = torch.log(2 * (2 * torch.exp(-k) + 0.5)) / k + 1
    found, known = (torch.autograd.grad(x, k)[0] for x in (sol.ts[1, -1], want))
    assert abs(float(found - known)) < 1e-8
    if gradient == "replay":
        assert (sol(sol.ts[:, -1:].detach())[0] - sol.ys[-1]).abs().max() < 1e-9
    with pytest.raises(ValueError, match="cannot be extended"):
        sol.extend(4.0)


@pytest.mark.parametrize("per_sample", [False, True])
def test_doses_in_a_solve_with_an_infinite_last_time(per_sample: bool) -> None:
    low = Event(lambda t, y, k: y[:, 0] - 0.5 if per_sample else y[0, 0] - 0.5)
    how = {"args": (1.0,), "per_sample": per_sample, "events": low, **FINE}
    sol = solve(leaving, torch.ones(1, 1), torch.tensor([0.0, 0.6, math.inf]), doses=Dose([0.1, 0.5], 1.0), **how)
    end = math.log(2 * (1 + math.exp(0.1) + math.exp(0.5)))
    assert sol.ts.flatten().tolist() == pytest.approx([0.0, 0.6, end], abs=1e-10)
    assert sol.ys.flatten().tolist()[1:] == pytest.approx([0.5 * math.exp(end - 0.6), 0.5], abs=1e-10)


def test_float32_states_and_vectors_without_rows() -> None:
    y0 = torch.ones(3, dtype=torch.float32)
    sol = solve(lambda t, y: -y, y0, (0.0, 1.0), doses=Dose([0.5], torch.ones(3)), rtol=1e-5)
    assert sol.ys.dtype == torch.float32
    assert (sol.y1 - (math.exp(-1) + math.exp(-0.5))).abs().max() < 1e-5


def test_lists_of_complex_amounts_keep_their_imaginary_parts() -> None:
    y0 = torch.zeros(1, dtype=torch.complex128)
    for amounts in ([1j, 2 + 1j], [torch.tensor(1j), torch.tensor(2 + 1j)], [1j, torch.tensor([2 + 1j])[0]]):
        assert solve(lambda t, y: 0 * y, y0, (0.0, 2.0), doses=Dose([0.5, 1.0], amounts)).y1.item() == 2 + 2j


def test_numbers_are_not_rounded_to_the_default_dtype() -> None:
    torch.set_default_dtype(torch.float32)
    for change in (0.1, [0.1]):
        y0 = torch.zeros(1, dtype=torch.float64)
        assert solve(lambda t, y: 0 * y, y0, (0.0, 1.0), doses=Dose([0.5], change)).y1.item() == 0.1


# errors


@pytest.mark.parametrize(
    ("doses", "options", "error", "words"),
    [
        (Dose([1.0, 0.5], 1.0), {}, ValueError, "not sorted"),
        (Dose([0.5, 2.5], 1.0), {}, ValueError, r"t=2\.5 lies outside the solve, 0\.0 to 2\.0"),
        (Dose([-0.5], 1.0), {"per_sample": True}, ValueError, r"in row 0 lies outside"),
        (Dose([math.nan], 1.0), {}, ValueError, "not finite"),
        (Dose(torch.tensor([1]), 1.0), {}, TypeError, "Dose 0: t has dtype torch.int64"),
        (Dose(torch.zeros(2, 1), 1.0), {}, ValueError, "Dose 0: t has shape"),
        (Dose([0.5, 1.0], torch.ones(3)), {}, ValueError, r"shape \[3\]; wanted \[2, 2, 3\]|may be one number"),
        (Dose([0.5, 1.0, 1.5], torch.ones(3)), {}, ValueError, "may be one number for each of 3 times"),
        (Dose([0.5], torch.ones(4)), {}, ValueError, r"has shape \[4\]; wanted \[1, 2, 3\]"),
        (Dose([0.5], {"a": 1.0}), {}, ValueError, "structure differs from that of y0"),
        (Dose([0.5], 1j), {}, TypeError, "complex"),
        (Dose([0.5], [1j]), {}, TypeError, "complex"),
        (Dose([0.5], ["a"]), {}, TypeError, "a list that does not form a tensor"),
        (Dose([0.5], []), {}, TypeError, "a list that does not form a tensor"),
        (Dose([0.5], lambda t, y: y[:1]), {}, ValueError, r"Dose 0: the function returned torch.float64 of shape \[1"),
        (Dose([0.5], lambda t, y: None), {}, TypeError, "returned a NoneType"),
        (0.5, {}, TypeError, "doses holds a float"),
        (Dose([0.5], 1.0), {"t": (2.0, 0.0)}, ValueError, "would have to be undone"),
        (Dose([0.5], 1.0), {"save": "steps"}, ValueError, "save='steps' with doses"),
        (Dose([0.5], 1.0), {"controller": Given(torch.tensor([0.0, 2.0]))}, ValueError, "Given"),
    ],
)  # fmt: skip
def test_bad_doses_are_refused_with_a_sentence(doses: Any, options: dict, error: type, words: str) -> None:
    arguments = {"t": (0.0, 2.0), **options}
    if words.startswith(r"shape \[3\]"):
        assert solve(lambda t, y: -y, torch.ones(2, 3), doses=doses, **arguments).success  # one state for all
        return
    with pytest.raises(error, match=words):
        solve(lambda t, y: -y, torch.ones(2, 3), doses=doses, **arguments)


# documentation


def test_the_examples_in_the_documentation_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doses.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/doses.md", "exec"), names)
    k, times, amounts = names["k"], names["times"], names["amounts"]
    want = 3 * torch.exp(-3.5 * k) + 1.5 * torch.exp(-2 * k)
    assert abs(float(names["sol"].status.max())) == Status.EVENT
    assert abs(float(names["by_k"] - torch.autograd.grad(want, k)[0])) < 1e-7
    assert names["by_times"].shape == (2,)
    assert times.shape == (3, 2)
    assert amounts.shape == (3, 2)
    assert names["rest"].success
    assert (names["bias"].grad != 0).all()
