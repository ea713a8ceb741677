"""Stop times, discontinuities of f at them, evaluation strictly inside of steps, and observers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from fields import METHODS, Counting, relative_error
from torch import Tensor

from neuralode import PID, Adjoint, Event, Given, I, Replay, Status, solve

CLOCKS = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
WAYS = pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)], ids=["forward", "backward"])
GRADIENTS = ["replay", "direct", "adjoint", Replay(every=3), Replay(memory="stage")]
TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
JUMP = 0.9
BEFORE, AFTER = 1.0, -2.0


def tensor(*numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def grid(*ends: float, steps: int) -> Given:
    return Given(torch.linspace(*ends, steps + 1, dtype=torch.float64))


def jumpy(t: Tensor, y: Tensor) -> Tensor:
    """One rate before the jump, another after it, and NaN at the jump itself."""
    rate = torch.where(t < JUMP, BEFORE, AFTER)
    return torch.where(t == JUMP, torch.nan, rate)[..., None] * y


def growth(t0: float, t1: float) -> float:
    """Return the integral of the rate."""
    return BEFORE * (min(t1, JUMP) - min(t0, JUMP)) + AFTER * (max(t1, JUMP) - max(t0, JUMP))


def sides(times: list[Tensor], jump: float = JUMP) -> list[int]:
    """Return the sides of the jump on which f was evaluated, without repetitions: −1 before, 0 at, 1 after."""
    return [side for side, _ in itertools.groupby(int(torch.sign(t.double() - jump).reshape(-1)[0]) for t in times)]


class Watcher:
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any, Tensor, Any]] = []

    def attempted(self, t: Any, y: Tensor, h: Any) -> None:
        self.told.append(("attempted", t, y, h))

    def accepted(self, t: Any, y: Tensor, h: Any) -> None:
        self.told.append(("accepted", t, y, h))

    def rejected(self, t: Any, y: Tensor, h: Any) -> None:
        self.told.append(("rejected", t, y, h))

    def count(self, what: str) -> int:
        return sum(name == what for name, *_ in self.told)


# --------------------------------------------------------------------------------------------------------------- jumps


@CLOCKS
@WAYS
@pytest.mark.parametrize(
    ("how", "slack"),
    [
        ({"method": "tsit5", **TIGHT}, 1e-9),
        ({"method": "dopri5", **TIGHT}, 1e-9),
        ({"method": "bosh3", "rtol": 1e-7, "atol": 1e-9}, 1e-6),
        ({"method": "rk4", "step_size": 0.0625}, 1e-5),
        ({"method": "dopri5", "steps": 40}, 1e-8),
        ({"method": "tsit5", "controller": PID(), **TIGHT}, 1e-9),
    ],
    ids=["tsit5", "dopri5", "bosh3", "rk4", "given", "pid"],
)
def test_a_jump_costs_no_accuracy(how: dict, slack: float, span: tuple, per_sample: bool) -> None:
    how = dict(how)
    if "steps" in how:
        how["controller"] = grid(*span, steps=how.pop("steps"))
    sol = solve(jumpy, tensor([1.0]), span, jump_t=[JUMP], per_sample=per_sample, **how)
    assert sol.y1.item() == pytest.approx(math.exp(growth(*span)), rel=slack)
    t = torch.linspace(*span, 9, dtype=torch.float64)
    sol = solve(jumpy, tensor([1.0]), t, jump_t=[JUMP], per_sample=per_sample, dense=True, **how)
    wanted = tensor(*(math.exp(growth(span[0], time)) for time in t.tolist()))
    torch.testing.assert_close(sol.ys.flatten(), wanted, rtol=max(20 * slack, 1e-7), atol=0)
    torch.testing.assert_close(sol(t.flip(0)).flatten(), wanted.flip(0), rtol=max(20 * slack, 1e-7), atol=0)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.one_call])
def test_every_method_supports_jumps(method: str) -> None:
    """f is NaN at the jump, so that an evaluation there would show. Half as many steps give the order."""
    errors = []
    for steps in (24, 48):
        how = {"method": method, "controller": grid(0.0, 2.0, steps=steps)}
        sol = solve(jumpy, tensor([1.0]), (0.0, 2.0), jump_t=[JUMP], **how)
        errors.append(abs(sol.y1.item() / math.exp(growth(0.0, 2.0)) - 1))
    order = min(METHODS[method].order, 5)
    if "adams" in method:
        order = 2  # restarts at the jump with low orders
    assert errors[1] < max(errors[0] / 2 ** (order - 0.6), 1e-12)


@CLOCKS
@WAYS
@pytest.mark.parametrize("how", [{}, {"method": "dopri5"}, {"method": "rk4", "step_size": 0.1}, {"steps": 7}], ids=str)
def test_f_is_never_evaluated_on_the_wrong_side_of_a_jump(how: dict, span: tuple, per_sample: bool) -> None:
    if "steps" in how:
        how = {"controller": grid(*span, steps=how["steps"])}
    f = Counting(jumpy)
    solve(f, tensor([1.0]), span, jump_t=[JUMP], per_sample=per_sample, **how)
    assert sides(f.times) == ([-1, 1] if span[0] < span[1] else [1, -1])
    plain = Counting(lambda t, y: -y)
    solve(plain, tensor([1.0]), span, step_t=[JUMP], per_sample=per_sample, **how)
    assert 0 in sides(plain.times)  # a stop without a jump is an evaluation time


@CLOCKS
@WAYS
def test_a_known_jump_saves_rejections(span: tuple, per_sample: bool) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t < JUMP, BEFORE, AFTER)[..., None] * y

    plain = solve(f, tensor([1.0]), span, per_sample=per_sample, rtol=1e-8, atol=1e-10)
    told = solve(f, tensor([1.0]), span, per_sample=per_sample, rtol=1e-8, atol=1e-10, jump_t=[JUMP])
    assert int(told.stats.rejected) <= 1
    assert int(plain.stats.rejected) >= int(told.stats.rejected) + 5
    assert int(told.stats.evaluations) < int(plain.stats.evaluations)
    wanted = math.exp(growth(*span))
    assert abs(told.y1.item() - wanted) < abs(plain.y1.item() - wanted)


def test_a_known_kink_saves_rejections() -> None:
    """y' = |sin 3t|, whose kinks are at multiples of π/3."""
    kinks = [n * math.pi / 3 for n in range(1, 6)]

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(3 * t).abs().expand_as(y)

    plain = solve(f, tensor([0.0]), (0.0, 6.0), **TIGHT)
    told = solve(f, tensor([0.0]), (0.0, 6.0), step_t=kinks, **TIGHT)
    wanted = (2 * 5 + 1 - math.cos(3 * (6.0 - kinks[-1]))) / 3
    assert told.y1.item() == pytest.approx(wanted, rel=1e-9)
    assert int(told.stats.rejected) < int(plain.stats.rejected) - 20
    assert int(told.stats.evaluations) < int(plain.stats.evaluations)


@CLOCKS
@pytest.mark.parametrize("method", ["tsit5", "rk4", "heun2"])
def test_the_left_limit_of_the_slope_is_not_reused(method: str, per_sample: bool) -> None:
    """A step after a jump evaluates its first slope: one more evaluation for methods that reuse the last one."""
    how: dict[str, Any] = {"controller": Given(tensor(0.0, 0.45, 0.9, 1.2, 2.0))}
    f, g = Counting(right_continuous), Counting(jumpy)
    plain = solve(f, tensor([1.0]), (0.0, 2.0), step_t=[JUMP], method=method, per_sample=per_sample, **how)
    told = solve(g, tensor([1.0]), (0.0, 2.0), jump_t=[JUMP], method=method, per_sample=per_sample, **how)
    assert plain.stats.accepted.tolist() == told.stats.accepted.tolist() == [4]
    assert g.calls - f.calls == (method == "tsit5")
    assert told.stats.calls == int(told.stats.evaluations) == g.calls
    behind = math.nextafter(JUMP, 2.0)
    assert behind in [float(t.reshape(-1)[0]) for t in g.times]


@CLOCKS
@WAYS
@pytest.mark.parametrize("how", [{"method": "rk4", "step_size": 0.1}, TIGHT], ids=["rk4", "tsit5"])
def test_a_solve_may_begin_and_end_at_a_jump(how: dict, span: tuple, per_sample: bool) -> None:
    for ends in ((span[0], JUMP), (JUMP, span[1])):
        f = Counting(lambda t, y: torch.where(t < JUMP, BEFORE, AFTER)[..., None] * y)
        sol = solve(f, tensor([1.0]), ends, jump_t=[JUMP], per_sample=per_sample, **how)
        wanted = math.exp(growth(*ends))
        slack = 1e-4 if "step_size" in how else 1e-9
        assert sol.y1.item() == pytest.approx(wanted, rel=slack)
        # the first evaluation, which checks f, may be at the start itself
        inner = sides(f.times[1:])
        assert inner == [1 if max(ends) > JUMP else -1]
        assert sol.stats.rejected.tolist() == [0]


@CLOCKS
def test_extending_from_a_jump_starts_at_the_right_limit(per_sample: bool) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t < JUMP, BEFORE, AFTER)[..., None] * y

    how: dict[str, Any] = {"method": "rk4", "step_size": 0.02, "jump_t": [JUMP], "per_sample": per_sample}
    sol = solve(f, tensor([1.0]), (0.0, JUMP), **how).extend(2.0)
    assert sol.y1.item() == pytest.approx(math.exp(growth(0.0, 2.0)), rel=1e-6)


def test_rows_reach_jumps_at_different_steps() -> None:
    t = tensor([0.0, 2.0], [0.5, 1.0], [1.5, 3.0], [0.0, 0.5], [JUMP, 2.0], [0.1, JUMP])
    sol = solve(right_continuous, torch.ones(6, 1, dtype=torch.float64), t, per_sample=True, jump_t=[JUMP], **TIGHT)
    wanted = tensor(*([math.exp(growth(*ends))] for ends in t.tolist()))
    torch.testing.assert_close(sol.y1, wanted, rtol=1e-9, atol=0)
    assert sol.stats.rejected.tolist()[2:] == [0, 0, 0, 0]
    alone = solve(
        right_continuous, torch.ones(1, 1, dtype=torch.float64), t[:1], per_sample=True, jump_t=[JUMP], **TIGHT
    )
    assert torch.equal(alone.y1[0], sol.y1[0])


def right_continuous(t: Tensor, y: Tensor) -> Tensor:
    """`jumpy` with the right limit as its value at the jump."""
    return torch.where(t < JUMP, BEFORE, AFTER)[..., None] * y


def test_f_is_evaluated_strictly_inside_in_single_precision_too() -> None:
    """Times in single precision are coarser: the sides are those of the rounded jump."""
    jump = float(torch.tensor(0.7))
    f = Counting(lambda t, y: torch.where(t < jump, 1.0, -2.0) * y)
    sol = solve(f, torch.ones(1), (0.0, 2.0), jump_t=[0.7], rtol=1e-5, atol=1e-6)
    assert sides(f.times, jump) == [-1, 1]
    assert sol.y1.item() == pytest.approx(math.exp(0.7 - 2 * 1.3), rel=1e-4)


# ------------------------------------------------------------------------------------------------------ where steps end


@WAYS
@pytest.mark.parametrize(
    "how",
    [{}, {"controller": PID()}, {"controller": I(max_step=0.3)}, {"method": "rk4", "step_size": 0.25}, {"steps": 8}],
    ids=str,
)
@pytest.mark.parametrize("name", ["step_t", "jump_t"])
def test_steps_end_exactly_at_stops(name: str, how: dict, span: tuple) -> None:
    if "steps" in how:
        how = {"controller": grid(*span, steps=how["steps"])}
    stops = [1.3, 0.1, 1 / 3, 0.5, 1.9999]  # not sorted; one is on the grids
    sol = solve(lambda t, y: torch.cos(t) * y, tensor([1.0]), span, save="steps", **{name: stops}, **how)
    times = sol.ts.tolist()
    assert set(stops) <= set(times)
    assert times == sorted(set(times), reverse=span[0] > span[1])
    assert (times[0], times[-1]) == span
    assert len(times) == int(sol.stats.accepted) + 1
    assert sol.y1.item() == pytest.approx(math.exp(math.sin(span[1]) - math.sin(span[0])), rel=1e-3)


def test_fixed_grids_continue_after_a_stop() -> None:
    def times(**how: Any) -> list[float]:
        return solve(lambda t, y: -y, tensor([1.0]), (0.0, 1.0), save="steps", **how).ts.tolist()

    fixed = {"method": "euler", "step_size": 0.25}
    assert times(step_t=[0.3, 0.6], **fixed) == [0.0, 0.25, 0.3, 0.5, 0.6, 0.75, 1.0]
    given = {"method": "euler", "controller": Given(tensor(0.0, 0.2, 0.7, 1.0))}
    assert times(step_t=[0.3, 0.6], **given) == [0.0, 0.2, 0.3, 0.6, 0.7, 1.0]
    # a stop at a time of the grid up to rounding replaces it, and adds no tiny step
    assert times(step_t=[0.1 + 0.2], method="euler", step_size=0.1).count(0.1 + 0.2) == 1
    assert len(times(step_t=[0.1 + 0.2], method="euler", step_size=0.1)) == 11
    assert len(times(step_t=[0.5 - 1e-14, 0.75 + 1e-14], **fixed)) == 5


def test_rows_stop_at_all_stops_of_their_own_spans() -> None:
    t = tensor([0.0, 2.0], [0.6, 1.0], [0.5, 0.5], [1.3, 1.9])
    stops = [0.5, 1.3]
    y0 = torch.ones(4, 1, dtype=torch.float64)
    for how in ({}, {"method": "rk4", "step_size": 0.2}):
        sol = solve(lambda t, y: torch.cos(t)[:, None] * y, y0, t, per_sample=True, step_t=stops, save="steps", **how)
        for row, (start, end) in enumerate(t.tolist()):
            inside = {stop for stop in stops if start < stop < end}
            assert inside == {time for time in sol.ts[row].tolist() if time in stops and start < time < end}
        torch.testing.assert_close(sol.ts[:, -1], t[:, 1], rtol=0, atol=0)


@CLOCKS
def test_stops_outside_of_the_span_change_nothing(per_sample: bool) -> None:
    plain = solve(right_continuous, tensor([1.0]), (1.0, 2.0), per_sample=per_sample)
    for name in ("step_t", "jump_t"):
        sol = solve(
            right_continuous, tensor([1.0]), (1.0, 2.0), per_sample=per_sample, **{name: [JUMP, 0.0, 2.5, -7.0]}
        )
        assert torch.equal(sol.ys, plain.ys)
        assert sol.stats.calls == plain.stats.calls
    empty = solve(right_continuous, tensor([1.0]), (1.0, 2.0), per_sample=per_sample, step_t=[], jump_t=torch.zeros(0))
    assert torch.equal(empty.ys, plain.ys)


@CLOCKS
def test_a_solve_without_an_end_has_stops_too(per_sample: bool) -> None:
    event = Event(lambda t, y: y[..., 0].reshape(t.shape) - 3.0)
    sol = solve(
        lambda t, y: torch.where(t < JUMP, 1.0, 2.0)[..., None] * torch.ones_like(y),
        tensor([0.0]),
        (0.0, math.inf),
        jump_t=[JUMP, 50.0],
        events=event,
        per_sample=per_sample,
    )
    assert sol.ts.flatten()[-1].item() == pytest.approx(JUMP + (3 - JUMP) / 2, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"step_t": [0.5, 0.5]}, ValueError, "step_t holds 0.5 twice, or step_t and jump_t both hold it"),
        ({"jump_t": tensor(0.5, 0.2, 0.5)}, ValueError, "jump_t holds 0.5 twice"),
        ({"step_t": [0.5], "jump_t": [0.5]}, ValueError, "step_t and jump_t both hold it; wanted it once"),
        ({"step_t": torch.tensor([1, 2])}, TypeError, "step_t has dtype torch.int64"),
        ({"jump_t": tensor([0.5])}, TypeError, r"jump_t has dtype torch.float64, shape \[1, 1\]; wanted"),
        ({"jump_t": 0.5}, TypeError, r"jump_t has dtype torch.float64, shape \[\]; wanted"),
        ({"step_t": [0.5, math.inf]}, ValueError, "step_t holds a time that is not finite"),
        ({"jump_t": [math.nan]}, ValueError, "jump_t holds a time that is not finite"),
    ],
)
def test_bad_stops_are_refused(options: dict, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        solve(jumpy, tensor([1.0]), (0.0, 1.0), **options)


# ------------------------------------------------------------------------------------------------------ strictly inside


@CLOCKS
@WAYS
@pytest.mark.parametrize(
    "how",
    [{"method": "rk4", "step_size": 0.25}, {}, {"method": "dopri5"}, {"method": "euler", "step_size": 0.25}],
    ids=str,
)
def test_perturb_evaluates_strictly_inside_of_every_step(how: dict, span: tuple, per_sample: bool) -> None:
    f, watcher = Counting(lambda t, y: -y * t[..., None]), Watcher()
    sol = solve(f, tensor([1.0]), span, perturb=True, per_sample=per_sample, observer=watcher, **how)
    begins = [float(t) for name, t, *_ in watcher.told if name == "accepted"]
    ends = {*begins, span[1]}
    assert len(ends) == int(sol.stats.accepted) + 1
    asked = [float(t.reshape(-1)[0]) for t in f.times]
    assert asked[0] == span[0]  # the first evaluation, which checks f
    assert not ends & set(asked[1:])
    # every step evaluates its first slope just after its start
    assert {math.nextafter(t, span[1]) for t in begins} <= set(asked)
    assert sol.stats.calls == f.calls == int(sol.stats.evaluations)


def test_perturb_finds_the_right_sides_of_all_steps() -> None:
    """The rate changes at every step of the grid, with either limit as its value there."""
    rates = tensor(1.0, -2.0, 0.5, 3.0)
    for side in (torch.floor, lambda x: torch.ceil(x) - 1):
        sol = solve(
            lambda t, y, side=side: rates[side(4 * t).long().clamp(0, 3)] * y,
            tensor([1.0]),
            (0.0, 1.0),
            method="rk4",
            step_size=0.125,
            perturb=True,
        )
        assert sol.y1.item() == pytest.approx(math.exp(float(rates.sum()) / 4), rel=1e-4)


# ----------------------------------------------------------------------------------------------------------- gradients


class Rates:
    """y' = first · y up to the jump, second · cos(t) · y after it, differentiated by all inputs."""

    def __init__(self, per_sample: bool) -> None:
        self.per_sample = per_sample
        rows = tensor([0.0], [0.1], [-0.2]) if per_sample else tensor(0.0)
        self.start = [
            tensor([1.0, 0.5], [0.3, -0.7], [2.0, 1.0]),
            tensor(0.1, 0.5, 1.4, 2.0) + rows,
            tensor(0.7)[0],
            tensor(-1.1)[0],
        ]

    def inputs(self) -> list[Tensor]:
        return [x.clone().requires_grad_() for x in self.start]

    def wanted(self, inputs: list[Tensor]) -> Tensor:
        y0, t, first, second = inputs
        t = t if self.per_sample else t.expand(3, -1)
        total = first * (t.clamp(max=JUMP) - t[:, :1].clamp(max=JUMP))
        total = total + second * (t.clamp(min=JUMP).sin() - t[:, :1].clamp(min=JUMP).sin())
        return y0 * total.exp().T[..., None]

    def found(self, inputs: list[Tensor], **options: Any) -> Tensor:
        y0, t, first, second = inputs

        def f(t: Tensor, y: Tensor, first: Tensor) -> Tensor:
            return torch.where(t < JUMP, first, second * torch.cos(t))[..., None] * y

        return solve(f, y0, t, args=(first,), jump_t=[JUMP], per_sample=self.per_sample, **options).ys

    def gradients(self, ys: Tensor, inputs: list[Tensor]) -> list[Tensor]:
        weights = torch.linspace(1, 2, ys.numel(), dtype=ys.dtype).reshape(ys.shape)
        return list(torch.autograd.grad((ys * weights).sum(), inputs))


@CLOCKS
@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
def test_gradients_across_a_jump(gradient: Any, per_sample: bool) -> None:
    """Differentiate by the state, all times, and the parameters of both sides."""
    problem = Rates(per_sample)
    inputs, again = problem.inputs(), problem.inputs()
    wanted = problem.wanted(again)
    found = problem.found(inputs, gradient=gradient, **TIGHT)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=0)
    for x, y in zip(problem.gradients(found, inputs), problem.gradients(wanted, again), strict=True):
        assert relative_error(x, y) < 1e-7


@CLOCKS
@pytest.mark.parametrize("how", [{"method": "rk4", "step_size": 0.3}, {"steps": 6}, {}], ids=str)
def test_exact_gradients_across_a_jump_agree(how: dict, per_sample: bool) -> None:
    if "steps" in how:
        how = {"controller": grid(0.1, 2.0, steps=how["steps"]), "method": "dopri5"}
    problem = Rates(per_sample)
    found = {}
    for gradient in GRADIENTS[:2] + GRADIENTS[3:]:
        inputs = problem.inputs()
        found[str(gradient)] = problem.gradients(problem.found(inputs, gradient=gradient, **how), inputs)
    for grads in found.values():
        for x, y in zip(grads, found["direct"], strict=True):
            assert relative_error(x, y) < 1e-11


@CLOCKS
def test_derivatives_of_coarse_steps_across_a_jump_are_differences(per_sample: bool) -> None:
    """Differentiate the discrete map by all inputs that do not move the steps after the jump."""
    problem = Rates(per_sample)
    how: dict[str, Any] = {"method": "rk4", "step_size": 0.4}
    inputs = problem.inputs()
    grads = problem.gradients(problem.found(inputs, **how), inputs)
    weights = torch.linspace(1, 2, 24, dtype=torch.float64).reshape(4, 3, 2)
    for i in (0, 2, 3):
        for place in range(inputs[i].numel()):
            ends = []
            for shift in (1e-6, -1e-6):
                moved = [x.clone() for x in problem.start]
                moved[i].view(-1)[place] += shift
                ends.append((problem.found(moved, **how) * weights).sum().item())
            assert grads[i].reshape(-1)[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-7)


@CLOCKS
@pytest.mark.parametrize("how", [{"method": "rk4", "step_size": 0.05}, TIGHT], ids=["rk4", "tsit5"])
def test_the_adjoint_equation_starts_at_jumps_on_the_right_side(how: dict, per_sample: bool) -> None:
    """With an output at the jump itself, the backward solve ends there and restarts."""
    rate = torch.tensor(BEFORE, dtype=torch.float64, requires_grad=True)
    y0 = tensor([1.0]).requires_grad_()

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t < JUMP, rate, AFTER)[..., None] * y

    t = tensor(0.0, JUMP, 2.0)
    sol = solve(f, y0, t, jump_t=[JUMP], gradient="adjoint", per_sample=per_sample, **how)
    by_y0, by_rate = torch.autograd.grad(sol.y1.sum(), (y0, rate))
    wanted = math.exp(growth(0.0, 2.0))
    slack = 1e-5 if "step_size" in how else 1e-8
    assert by_y0.item() == pytest.approx(wanted, rel=slack)
    assert by_rate.item() == pytest.approx(JUMP * wanted, rel=slack)
    plain = solve(f, y0, t[[0, 2]], jump_t=[JUMP], gradient="adjoint", per_sample=per_sample, **how)
    torch.autograd.grad(plain.y1.sum(), (y0, rate))
    assert sol.stats.backward_evaluations < 1.3 * plain.stats.backward_evaluations + 30


@CLOCKS
@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
@pytest.mark.parametrize("name", ["jump_t", "step_t"])
def test_an_event_in_a_step_on_its_way_to_a_stop(gradient: Any, per_sample: bool, name: str) -> None:
    """The step ends at the event instead of the stop, so its end moves with the event."""
    y0, rate = tensor([1.0]).requires_grad_(), torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    t = tensor(0.0, 4.0).requires_grad_()
    event = Event(lambda t, y, rate: y[..., 0].reshape(t.shape) - 2.0)
    options: dict[str, Any] = {"events": event, "per_sample": per_sample, "gradient": gradient, name: [0.7, 1.0]}
    steps: dict[str, Any] = {"controller": I(max_step=0.25)}
    sol = solve(lambda t, y, rate: rate * y, y0, t, args=(rate,), **options, **steps, **TIGHT)
    assert sol.status.tolist() == [Status.EVENT]
    end = math.log(2.0)
    assert sol.ts.flatten()[-1].item() == pytest.approx(end, rel=1e-9)
    grads = torch.autograd.grad(sol.events[0].t.sum(), (y0, rate, t), retain_graph=True)
    torch.testing.assert_close(
        torch.cat([x.reshape(-1) for x in grads]), tensor(-1.0, -end, 1.0, 0.0), rtol=1e-7, atol=1e-9
    )
    grads = torch.autograd.grad(sol.y1.sum(), (y0, rate, t))
    torch.testing.assert_close(torch.cat([x.reshape(-1) for x in grads]), torch.zeros(4).double(), rtol=0, atol=1e-8)


def test_second_derivatives_across_a_jump() -> None:
    problem = Rates(False)
    inputs = problem.inputs()
    given = grid(0.1, 2.0, steps=4)
    for gradient in ("direct", "replay"):
        assert torch.autograd.gradgradcheck(
            lambda y0, first, second, gradient=gradient: problem.found(
                [y0, problem.start[1], first, second], controller=given, gradient=gradient
            )[-1],
            [inputs[0], inputs[2], inputs[3]],
        )


# ----------------------------------------------------------------------------------------------------------- observers


@CLOCKS
@pytest.mark.parametrize(
    "how", [{}, {"method": "rk4", "step_size": 0.1}, {"controller": I(first_step=1.5)}, {"jump_t": [JUMP]}], ids=str
)
def test_an_observer_receives_every_attempt(how: dict, per_sample: bool) -> None:
    watcher = Watcher()
    t = torch.linspace(0.0, 2.0, 5, dtype=torch.float64)
    how = {"rtol": 1e-7, "atol": 1e-9, "per_sample": per_sample} | how
    sol = solve(right_continuous, tensor([1.0]), t, observer=watcher, **how)
    quiet = solve(right_continuous, tensor([1.0]), t, **how)
    assert torch.equal(sol.ys, quiet.ys)
    assert watcher.count("accepted") == int(sol.stats.accepted)
    assert watcher.count("rejected") == int(sol.stats.rejected)
    assert watcher.count("attempted") == int(sol.stats.accepted + sol.stats.rejected)
    names = [name for name, *_ in watcher.told]
    assert names[::2] == ["attempted"] * (len(names) // 2)
    assert "attempted" not in names[1::2]
    if "jump_t" not in how and "step_size" not in how:
        assert watcher.count("rejected") > 0
    # the start of each attempt, and its size
    steps = solve(right_continuous, tensor([1.0]), t, save="steps", **how)
    begun = [float(t) for name, t, *_ in watcher.told if name == "accepted"]
    assert begun == steps.ts.flatten().tolist()[:-1]
    ends = [float(t) + float(h) for name, t, _, h in watcher.told if name == "accepted"]
    torch.testing.assert_close(tensor(*ends), steps.ts.flatten()[1:], rtol=1e-14, atol=0)
    states = torch.stack([y for name, _, y, _ in watcher.told if name == "accepted"])
    assert torch.equal(states.flatten(), steps.ys.flatten()[:-1])


def test_an_observer_of_the_adjoint_equation_receives_its_attempts() -> None:
    ahead, back = Watcher(), Watcher()
    y0 = tensor([1.0]).requires_grad_()
    sol = solve(jumpy, y0, (0.0, 2.0), jump_t=[JUMP], observer=ahead, gradient=Adjoint(observer=back))
    assert not back.told
    count = len(ahead.told)
    sol.y1.sum().backward()
    assert len(ahead.told) == count
    assert back.count("attempted") == back.count("accepted") + back.count("rejected") > 0
    times = [t for name, t, *_ in back.told if name == "accepted"]
    assert times[0] == 2.0
    assert JUMP in times
    assert times == sorted(times, reverse=True)


def test_an_observer_may_end_a_solve_by_an_exception() -> None:
    class Enough(Watcher):
        def accepted(self, t: Any, y: Tensor, h: Any) -> None:
            super().accepted(t, y, h)
            if self.count("accepted") == 3:
                raise InterruptedError("enough")

    watcher = Enough()
    with pytest.raises(InterruptedError, match="enough"):
        solve(right_continuous, tensor([1.0]), (0.0, 5.0), observer=watcher, rtol=1e-8)
    assert watcher.count("accepted") == 3


@pytest.mark.parametrize("method", ["explicit_adams", "implicit_adams"])
def test_a_method_with_memory_has_derivatives_by_the_end_after_a_stop(method: str) -> None:
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = []
    for gradient in ("replay", "direct"):
        t = torch.stack((rate * 0, rate + 1))
        options = {"method": method, "step_size": 0.02, "step_t": [0.7], "gradient": gradient}
        y1 = solve(lambda t, y: -rate * y, torch.ones(1, dtype=torch.float64), t, **options).y1
        (first,) = torch.autograd.grad(y1.sum(), rate, create_graph=True)
        found.append((first.detach(), *torch.autograd.grad(first, rate)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=0)
    torch.testing.assert_close(found[0][0], -(2 * rate + 1) * torch.exp(-rate * (rate + 1)), rtol=1e-4, atol=0)
