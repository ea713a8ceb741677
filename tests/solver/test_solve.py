"""Solutions: outputs, dense output, `extend` and statistics; progress bars and interrupts of a solve."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from fields import ADAPTIVE, FIXED, METHODS, Counting
from torch import Tensor

import neuralode
from neuralode import I, Replay, Status, solve

Y0 = torch.tensor([[1.0, 0.5], [2.0, -1.0], [0.3, 0.1]], dtype=torch.float64)
CLOCKS = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])


def wave(t: Tensor, y: Tensor) -> Tensor:
    return torch.cos(3 * t)[..., None] * y


def exact(t: Tensor, start: float = 0.0) -> Tensor:
    return torch.exp((torch.sin(3 * t) - math.sin(3 * start)) / 3)[:, None, None] * Y0


def stepping(method: str) -> dict[str, Any]:
    return {"method": method, "step_size": 0.13} if method in FIXED else {"method": method}


# ---------------------------------------------------------------------------------------------------------- outputs


def test_output_zero_is_y0_itself() -> None:
    for options in ({}, {"per_sample": True}, {"method": "rk4", "step_size": 0.1}):
        assert torch.equal(solve(wave, Y0, (0.0, 0.3, 1.0), **options).ys[0], Y0)


def test_two_numbers_give_two_outputs() -> None:
    sol = solve(wave, Y0, (0.0, 1.0))
    assert sol.ys.shape == (2, *Y0.shape)
    assert sol.ts.tolist() == [0.0, 1.0]
    assert torch.equal(sol.y1, sol.ys[-1])
    assert solve(wave, Y0, (torch.tensor(0.0), torch.tensor(1.0))).ys.shape == (2, *Y0.shape)


def test_whole_numbers_are_times_too() -> None:
    assert torch.equal(solve(wave, Y0, (0, 1)).ys, solve(wave, Y0, (0.0, 1.0)).ys)


@CLOCKS
@pytest.mark.parametrize("sign", [1, -1], ids=["forward", "backward"])
def test_many_outputs_within_one_step(per_sample: bool, sign: int) -> None:
    t = sign * torch.linspace(0.0, 1.0, 301, dtype=torch.float64)
    sol = solve(wave, Y0, t, rtol=1e-7, atol=1e-9, per_sample=per_sample)
    assert int(sol.stats.accepted.max()) < 100
    torch.testing.assert_close(sol.ys, exact(t), rtol=1e-5, atol=1e-6)


def test_a_solution_is_frozen() -> None:
    sol = solve(wave, Y0, (0.0, 1.0))
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        sol.ys = None  # type: ignore[misc]


def test_y0_is_neither_written_to_nor_shared() -> None:
    y0 = Y0.clone()
    sol = solve(wave, y0, (0.0, 1.0))
    assert torch.equal(y0, Y0)
    before = sol.ys.clone()
    y0.zero_()
    assert torch.equal(sol.ys, before)


def test_status_is_one_number_per_row() -> None:
    assert solve(wave, Y0, (0.0, 1.0), per_sample=True).status.tolist() == [Status.SUCCESS] * 3
    assert set(solve(wave, Y0, (0.0, 1.0)).status.tolist()) == {Status.SUCCESS}
    assert solve(lambda t, y: -y, torch.tensor(1.0), (0.0, 1.0)).status.tolist() == [Status.SUCCESS]


def test_saved_steps_are_the_accepted_ones() -> None:
    sol = solve(wave, Y0, (0.0, 2.0), save="steps", rtol=1e-8, atol=1e-10)
    assert len(sol.ts) == int(sol.stats.accepted.max()) + 1 == len(sol.ys)
    assert torch.equal(sol.ys[0], Y0)
    assert torch.equal(sol.ys[-1], solve(wave, Y0, (0.0, 2.0), rtol=1e-8, atol=1e-10).ys[-1])
    torch.testing.assert_close(sol.ys, exact(sol.ts), rtol=1e-6, atol=1e-7)


def test_saved_steps_of_rows_repeat_their_last() -> None:
    t = torch.tensor([[0.0, 0.2], [0.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    sol = solve(wave, Y0, t, save="steps", per_sample=True)
    accepted = sol.stats.accepted
    by_row = sol.ts if sol.ts.shape[0] == 3 else sol.ts.T
    assert by_row.shape == (3, int(accepted.max()) + 1)
    assert torch.equal(by_row[:, -1], t[:, 1])
    for i, count in enumerate(accepted.tolist()):
        assert (by_row[i, : count + 1].diff() > 0).all()
        assert (by_row[i, count:] == t[i, 1]).all()
        assert torch.equal(sol.ys[count:, i], sol.ys[count, i].expand(len(sol.ys) - count, 2))


@CLOCKS
def test_a_saved_function_replaces_the_state(per_sample: bool) -> None:
    t = torch.linspace(0.0, 2.0, 9, dtype=torch.float64)

    def save(t: Tensor, y: Tensor, k: Tensor) -> dict[str, Tensor]:
        return {"norm": y.square().sum(-1) * k, "twice": 2 * y}

    options: dict[str, Any] = {"args": (torch.tensor(3.0, dtype=torch.float64),), "per_sample": per_sample}
    full = solve(lambda t, y, k: wave(t, y), Y0, t, **options)
    sol = solve(lambda t, y, k: wave(t, y), Y0, t, save=save, **options)
    torch.testing.assert_close(sol.ys["norm"], 3 * full.ys.square().sum(-1), rtol=1e-13, atol=0)
    torch.testing.assert_close(sol.ys["twice"], 2 * full.ys, rtol=1e-13, atol=0)
    assert sol.ys["norm"].shape == (9, 3)


@CLOCKS
@pytest.mark.parametrize("method", ["tsit5", "rk4", "explicit_adams"])
def test_an_f_that_fills_the_same_tensor_again_is_refused(per_sample: bool, method: str) -> None:
    buffer = torch.empty_like(Y0)
    with pytest.raises(
        ValueError, match="f writes into a tensor that it returned before; wanted a new tensor each time"
    ):
        solve(lambda t, y: torch.neg(y, out=buffer), Y0, (0.0, 1.0), per_sample=per_sample, **stepping(method))


# ------------------------------------------------------------------------------------------------------ dense output


@CLOCKS
@pytest.mark.parametrize("span", [(0.0, 2.0), (1.0, -1.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_dense_output_interpolates_at_any_time(per_sample: bool, span: tuple[float, float], method: str) -> None:
    tight = {"rtol": 1e-7, "atol": 1e-9, "method": method}
    sol = solve(wave, Y0, span, dense=True, per_sample=per_sample, **tight)
    at = torch.linspace(*span, 40, dtype=torch.float64)
    torch.testing.assert_close(sol(at), exact(at, span[0]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sol(at.flip(0)), sol(at).flip(0), rtol=0, atol=0)
    assert torch.equal(sol(span[0]), Y0)
    # polynomials of order 9 reach 1e4 and cancel, which costs digits at the ends of the long steps of this solve
    bound = 5e-12 if METHODS[method].interpolant_order > 8 else 1e-13
    torch.testing.assert_close(sol(span[1]), sol.ys[-1], rtol=bound, atol=bound)


def test_one_time_or_many() -> None:
    sol = solve(wave, Y0, (0.0, 1.0), dense=True)
    assert sol(0.5).shape == Y0.shape
    assert sol(torch.tensor(0.5)).shape == Y0.shape
    assert sol(torch.tensor([0.1, 0.5])).shape == (2, *Y0.shape)
    assert torch.equal(sol(torch.tensor([0.1, 0.5]).double())[1], sol(0.5))


def test_dense_output_of_a_tree_is_a_tree() -> None:
    sol = solve(lambda t, y: {"a": -y["a"], "b": y["b"] * 0}, {"a": Y0, "b": Y0[0]}, (0.0, 1.0), dense=True)
    assert sol(0.5)["a"].shape == Y0.shape
    torch.testing.assert_close(sol(0.5)["b"], Y0[0])


def test_dense_output_refuses_times_beyond_the_solve_and_solves_without_it() -> None:
    sol = solve(wave, Y0, (0.0, 1.0), dense=True)
    for beyond in (-0.1, 1.1, torch.tensor([0.5, 2.0])):
        with pytest.raises(ValueError, match=r"\bt\b|time"):
            sol(beyond)
    with pytest.raises((TypeError, ValueError, RuntimeError), match="dense"):
        solve(wave, Y0, (0.0, 1.0))(0.5)


def test_dense_output_does_not_change_the_outputs() -> None:
    t = torch.linspace(0.0, 2.0, 7, dtype=torch.float64)
    assert torch.equal(solve(wave, Y0, t, dense=True).ys, solve(wave, Y0, t).ys)


# ----------------------------------------------------------------------------------------------------------- extend


@CLOCKS
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forward", "backward"])
@pytest.mark.parametrize("method", METHODS)
def test_extending_continues_from_the_end(per_sample: bool, sign: float, method: str) -> None:
    options = stepping(method) | {"per_sample": per_sample, "rtol": 1e-6, "atol": 1e-8}
    first = solve(wave, Y0, (0.0, sign * 1.0), **options)
    both = first.extend(sign * 2.5)
    times = both.ts[0] if both.ts.ndim == 2 else both.ts
    assert times.tolist() == [0.0, sign * 1.0, sign * 2.5]
    assert torch.equal(both.ys[:2], first.ys)
    onward = solve(wave, first.ys[-1], (sign * 1.0, sign * 2.5), **options)
    coarse = METHODS[method].order < 3
    torch.testing.assert_close(both.ys[-1], onward.ys[-1], rtol=1e-12 if method in FIXED else 1e-4, atol=1e-12)
    torch.testing.assert_close(
        both.ys,
        exact(torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64) * sign),
        rtol=0.6 if coarse else 1e-2,
        atol=1e-3,
    )


def test_extending_keeps_the_step_size_reached() -> None:
    f, g = (Counting(lambda t, y: torch.sin(50 * t) * torch.ones_like(y)) for _ in range(2))
    sol = solve(f, Y0, (0.0, 1.0), controller=I(first_step=1e-6))
    before = f.calls
    sol.extend(1.5)
    solve(g, Y0, (1.0, 1.5), controller=I(first_step=1e-6))
    assert f.calls - before < g.calls - 12  # growing tenfold per step from 1e-6 takes four steps


def test_extending_by_several_times() -> None:
    sol = solve(wave, Y0, (0.0, 1.0), rtol=1e-8, atol=1e-10)
    t = torch.tensor([1.5, 2.0], dtype=torch.float64)
    both = sol.extend(t)
    assert both.ts.tolist() == [0.0, 1.0, 1.5, 2.0]
    torch.testing.assert_close(both.ys, exact(both.ts), rtol=1e-6, atol=1e-7)


def test_extending_twice_keeps_dense_output_over_all() -> None:
    sol = solve(wave, Y0, (0.0, 1.0), dense=True, rtol=1e-8, atol=1e-10).extend(2.0).extend(3.0)
    at = torch.linspace(0.0, 3.0, 31, dtype=torch.float64)
    torch.testing.assert_close(sol(at), exact(at), rtol=1e-6, atol=1e-7)


def test_extending_the_other_way_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\bt\b|t2|direction|monotone|extend"):
        solve(wave, Y0, (0.0, 1.0)).extend(0.5)


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_gradients_flow_through_an_extended_solution(gradient: str) -> None:
    y0 = Y0.clone().requires_grad_()
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11, "gradient": gradient}
    sol = solve(lambda t, y, k: -k * y, y0, (0.0, 1.0), args=(k,), **options).extend(2.0)
    found = torch.autograd.grad(sol.ys[-1].sum() + sol.ys[1].sum(), [y0, k])
    wanted = torch.autograd.grad((y0 * torch.exp(-2 * k)).sum() + (y0 * torch.exp(-k)).sum(), [y0, k])
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_statistics_of_an_extended_solution_add_up() -> None:
    sol = solve(wave, Y0, (0.0, 1.0))
    both = sol.extend(2.0)
    assert (both.stats.accepted > sol.stats.accepted).all()
    assert both.stats.calls > sol.stats.calls


# -------------------------------------------------------------------------------------------------------- statistics


STAGES = {
    "euler": 1,
    "midpoint": 2,
    "heun2": 2,
    "rk4": 4,
    "bosh3": 3,
    "dopri5": 6,
    "tsit5": 6,
}  # evaluations per step after the first


@pytest.mark.parametrize("method", STAGES)
@CLOCKS
def test_evaluations_are_the_declared_counts(method: str, per_sample: bool) -> None:
    sol = solve(wave, Y0, (0.0, 2.0), per_sample=per_sample, **stepping(method))
    attempts = sol.stats.accepted + sol.stats.rejected
    start = 2 if method in ADAPTIVE else 0  # f(t0, y0), and the trial of the first step
    assert torch.equal(sol.stats.evaluations.cpu(), (attempts * STAGES[method] + start).cpu())


@pytest.mark.parametrize("method", METHODS)
def test_calls_are_the_calls_of_f(method: str) -> None:
    f = Counting(wave)
    sol = solve(f, Y0, (0.0, 2.0), **stepping(method))
    assert sol.stats.calls == f.calls
    assert f.calls == int(sol.stats.evaluations.max())


@pytest.mark.parametrize("method", METHODS)
def test_gradients_need_no_more_calls_in_the_forward_pass(method: str) -> None:
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    f = Counting(lambda t, y: k * wave(t, y))
    sol = solve(f, Y0, (0.0, 2.0), **stepping(method))
    assert f.calls == sol.stats.calls == int(sol.stats.evaluations.max())


def test_calls_with_clocks_by_row_are_those_of_the_slowest_row() -> None:
    f = Counting(wave)
    solve(f, Y0, (0.0, 2.0), per_sample=True)  # f is checked once
    f.calls = 0
    sol = solve(f, Y0, (0.0, 2.0), per_sample=True)
    assert f.calls - 2 <= sol.stats.calls <= f.calls
    assert sol.stats.calls >= int(sol.stats.evaluations.max())
    assert sol.stats.calls <= int(sol.stats.evaluations.max()) + 12


def test_dense_output_costs_no_evaluation_if_the_method_needs_none() -> None:
    for method in (name for name, method in METHODS.items() if not method.dense_evaluations):
        f, g = Counting(wave), Counting(wave)
        solve(f, Y0, (0.0, 2.0), **stepping(method))
        solve(g, Y0, torch.linspace(0.0, 2.0, 50, dtype=torch.float64), dense=True, **stepping(method))
        assert f.calls == g.calls


@pytest.mark.parametrize("gradient", ["replay", Replay(every=3), Replay(memory="stage"), "adjoint"], ids=str)
@CLOCKS
def test_backward_evaluations_are_counted(gradient: Any, per_sample: bool) -> None:
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    f = Counting(lambda t, y: k * wave(t, y))
    sol = solve(f, Y0, (0.0, 2.0), gradient=gradient, per_sample=per_sample)
    assert sol.stats.backward_evaluations == 0
    before = f.calls
    sol.ys[-1].sum().backward()
    assert sol.stats.backward_evaluations > 0
    if not per_sample:
        assert sol.stats.backward_evaluations == f.calls - before


@pytest.mark.parametrize("outputs", [2, 7], ids=["ends", "inside"])
@pytest.mark.parametrize(
    "method", ["rk4", "dopri5", "dopri8", "dop853", "vern7", "carpenter_kennedy54", "explicit_adams"]
)
def test_backward_evaluations_of_every_kind_of_step_are_those_made(method: str, outputs: int) -> None:
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    f = Counting(lambda t, y: k * wave(t, y))
    sol = solve(f, Y0, torch.linspace(0.0, 2.0, outputs, dtype=torch.float64), **stepping(method))
    before = f.calls
    sol.ys.sum().backward()
    assert sol.stats.backward_evaluations == f.calls - before


@pytest.mark.parametrize("method", ["rk4", "tsit5", "dopri5"])
def test_replay_evaluates_only_what_the_new_state_needs(method: str) -> None:
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    f = Counting(lambda t, y: k * wave(t, y))
    sol = solve(f, Y0, (0.0, 2.0), **stepping(method))
    before = f.calls
    sol.ys[-1].sum().backward()
    assert f.calls - before <= int(sol.stats.accepted.max()) * {"rk4": 4, "tsit5": 6, "dopri5": 6}[method] + 1


def test_rejected_steps_are_counted() -> None:
    def bump(t: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-200 * (t - 3) ** 2) * torch.cos(300 * t) * 100 * torch.ones_like(y)

    sol = solve(bump, Y0, (0.0, 6.0), controller=I(max_step=0.3))
    assert (sol.stats.rejected > 0).all()


# ------------------------------------------------------------------------------------------------ progress, interrupt


def test_progress_changes_nothing_but_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = solve(wave, Y0, (0.0, 2.0))
    assert "".join(capsys.readouterr()) == ""
    assert torch.equal(quiet.ys, solve(wave, Y0, (0.0, 2.0), progress=True).ys)


def test_progress_shows_a_bar_on_a_terminal() -> None:
    code = """
        import torch, neuralode
        for end in (2.0, -2.0):
            for options in ({}, {"per_sample": True}, {"method": "rk4", "step_size": 0.1}):
                print("begin")
                neuralode.solve(lambda t, y: -y, torch.ones(3, 1), (0.0, end), progress=True, **options)
    """
    environment = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=environment,
    )
    shown = done.stdout.split("begin")[1:]
    assert len(shown) == 6
    assert all("100%" in each for each in shown)


@pytest.mark.parametrize("progress", [False, True])
def test_an_interrupt_leaves_cleanly(progress: bool) -> None:
    """Ctrl-C raises KeyboardInterrupt, and the next solve is unaffected."""
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    count = 0

    def f(t: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        count += 1
        if count == 40:
            raise KeyboardInterrupt
        return k * wave(t, y)

    with pytest.raises(KeyboardInterrupt):
        solve(f, Y0, (0.0, 50.0), rtol=1e-8, atol=1e-8, progress=progress)
    assert torch.is_grad_enabled()
    after = solve(f, Y0, (0.0, 1.0), progress=progress)
    assert torch.equal(after.ys, solve(lambda t, y: k * wave(t, y), Y0, (0.0, 1.0)).ys)
    after.ys.sum().backward()
    assert k.grad is not None


def test_sigint_ends_the_process_at_once() -> None:
    code = """
        import _thread, signal, threading, torch
        from neuralode import solve
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes ignore SIGINT
        calls = []
        def f(t, y):
            calls.append(1)
            if len(calls) == 200:
                threading.Timer(0.05, _thread.interrupt_main).start()
            return torch.sin(y)
        try:
            solve(f, torch.ones(2), (0.0, 1e9), method="euler", step_size=1e-2, max_steps=10**9)
        except KeyboardInterrupt:
            print("left cleanly")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "left cleanly", done.stderr


def test_an_interrupt_in_backward_leaves_cleanly() -> None:
    net = torch.nn.Linear(2, 2, dtype=torch.float64)
    stop = False

    def f(t: Tensor, y: Tensor) -> Tensor:
        if stop:
            raise KeyboardInterrupt
        return net(y)

    sol = solve(f, Y0, (0.0, 1.0))
    stop = True
    with pytest.raises(KeyboardInterrupt):
        sol.ys.sum().backward()
    assert torch.is_grad_enabled()


def test_solve_works_in_inference_mode() -> None:
    with torch.inference_mode():
        sol = solve(wave, Y0, (0.0, 1.0))
    assert torch.equal(sol.ys, solve(wave, Y0, (0.0, 1.0)).ys)
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    solve(lambda t, y: k * wave(t, y), Y0, (0.0, 1.0)).ys.sum().backward()
    assert k.grad is not None


def test_every_public_name_is_there() -> None:
    names = [
        "solve",
        "Solution",
        "SolveError",
        "GradientError",
        "Status",
        "Field",
        "Stepper",
        "Fixed",
        "I",
        "PI",
        "PID",
        "Given",
        "Replay",
        "Adjoint",
        "Direct",
        "Tableau",
        "ExplicitRungeKutta",
        "methods",
        "nn",
    ]
    for name in names:
        assert getattr(neuralode, name) is not None
        assert name in dir(neuralode)
