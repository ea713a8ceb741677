"""Rows are alone: none sees another, a finished one is dropped, a failed one frozen; and every shape of state works."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fields import ADAPTIVE, METHODS, Counting
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn

from neuralode import Adjoint, Field, Replay, SolveError, Status, solve

REPLAYS = [Replay(), Replay(every=3), Replay(memory="stage"), Replay(every=3, memory="stage")]
every_method = pytest.mark.parametrize("method", METHODS)


def stepping(method: str) -> dict[str, Any]:
    return {"method": method} if METHODS[method].adaptive else {"method": method, "step_size": 0.07}


def van_der_pol(t: Tensor, y: Tensor) -> Tensor:
    """Products and sums alone: its bits do not depend on the batch size."""
    x, v = y[:, :1], y[:, 1:]
    return torch.cat([v, 3 * (1 - x * x) * v - x + 0.1 * t[:, None]], dim=1)


def blow_up(t: Tensor, y: Tensor) -> Tensor:
    """y' = y², whose solution leaves at t = 1/y(0)."""
    return y * y


STARTS = torch.tensor([[2.0, 0.0], [0.1, 0.2], [-1.5, 3.0], [0.0, -4.0], [1.0, 1.0]], dtype=torch.float64)


@every_method
@pytest.mark.parametrize("span", [(0.0, 2.0), (1.0, -0.5)], ids=["forward", "backward"])
def test_a_row_is_to_the_bit_what_it_is_alone(method: str, span: tuple[float, float]) -> None:
    t = torch.linspace(*span, 7, dtype=torch.float64)
    options = {"per_sample": True, "on_failure": "return", **stepping(method)}
    if METHODS[method].adaptive:  # tens of steps say as much as thousands
        options |= {"rtol": 1e-3, "atol": 1e-6 if METHODS[method].order > 3 else 1e-4}
    together = solve(van_der_pol, STARTS, t, **options)
    for i in range(len(STARTS)):
        alone = solve(van_der_pol, STARTS[i : i + 1], t, **options)
        torch.testing.assert_close(together.ys[:, i], alone.ys[:, 0], rtol=0, atol=0, equal_nan=True)
        assert together.status[i] == alone.status[0]
        assert together.stats.accepted[i] == alone.stats.accepted[0]
        assert together.stats.rejected[i] == alone.stats.rejected[0]
        assert together.stats.evaluations[i] == alone.stats.evaluations[0]


def test_rows_take_their_own_steps() -> None:
    sol = solve(van_der_pol, STARTS, (0.0, 5.0), per_sample=True)
    assert len(set(sol.stats.accepted.tolist())) > 1


@settings(deadline=None, max_examples=25)
@given(order=some.permutations(range(5)), span=some.floats(0.1, 3.0), method=some.sampled_from(["bosh3", "tsit5"]))
def test_permuting_rows_permutes_the_result(order: list[int], span: float, method: str) -> None:
    t = torch.linspace(0.0, span, 4, dtype=torch.float64)
    sol = solve(van_der_pol, STARTS, t, per_sample=True, method=method)
    moved = solve(van_der_pol, STARTS[order], t, per_sample=True, method=method)
    assert torch.equal(sol.ys[:, order], moved.ys)
    assert torch.equal(sol.stats.accepted[order], moved.stats.accepted)


@settings(deadline=None, max_examples=25)
@given(
    start=some.floats(-2.0, 2.0),
    span=some.floats(0.05, 2.0),
    per_sample=some.booleans(),
    method=some.sampled_from(sorted(METHODS)),
)
def test_reversing_time_reverses_the_field(start: float, span: float, per_sample: bool, method: str) -> None:
    """y(t) of f is y(-t) of -f at -t, to the bit: no sign is treated in another way."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return t[..., None] * y * 0.3 - y * y * y * 0.1

    def mirrored(t: Tensor, y: Tensor) -> Tensor:
        return -f(-t, y)

    t = torch.linspace(start, start + span, 5, dtype=torch.float64)
    options = {"per_sample": per_sample, **stepping(method)}
    assert torch.equal(solve(f, STARTS, t, **options).ys, solve(mirrored, STARTS, -t, **options).ys)


@settings(deadline=None, max_examples=25)
@given(power=some.integers(-20, 20), per_sample=some.booleans(), method=some.sampled_from(sorted(METHODS)))
def test_scaling_state_and_tolerance_by_a_power_of_two_scales_the_result(
    power: int, per_sample: bool, method: str
) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([y[:, 1:] * 2, -y[:, :1] * 3], dim=1)

    options = {"per_sample": per_sample, **stepping(method)}
    times = torch.linspace(0.0, 2.0, 5, dtype=torch.float64)
    unit = solve(f, STARTS, times, atol=1e-6, **options)
    scaled = solve(f, STARTS * 2.0**power, times, atol=1e-6 * 2.0**power, **options)
    assert torch.equal(unit.ys * 2.0**power, scaled.ys)


def test_duplicating_the_batch_changes_no_row() -> None:
    sol = solve(van_der_pol, STARTS, (0.0, 2.0), per_sample=True)
    twice = solve(van_der_pol, torch.cat([STARTS, STARTS]), (0.0, 2.0), per_sample=True)
    assert torch.equal(twice.ys, torch.cat([sol.ys, sol.ys], dim=1))


def test_duplicating_the_batch_on_a_shared_clock_changes_no_step() -> None:
    """The norm is a mean over rows, so that the same rows twice take the same steps."""
    sol = solve(lambda t, y: -y * y, STARTS.abs(), (0.0, 2.0))
    twice = solve(lambda t, y: -y * y, torch.cat([STARTS, STARTS]).abs(), (0.0, 2.0))
    assert int(sol.stats.accepted.max()) == int(twice.stats.accepted.max())
    torch.testing.assert_close(twice.ys, torch.cat([sol.ys, sol.ys], dim=1), rtol=1e-9, atol=1e-14)


# ---------------------------------------------------------------------------------------------------- failures


def failing_starts() -> Tensor:
    return torch.tensor([[0.2], [2.0], [-1.0], [0.5]], dtype=torch.float64)  # row 1 leaves at t = 0.5


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_failing_row_leaves_the_others_bit_identical(method: str) -> None:
    y0 = failing_starts()
    t = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    options = {"per_sample": True, "on_failure": "return", "method": method}
    sol = solve(blow_up, y0, t, **options)
    others = [0, 2, 3]
    healthy = solve(blow_up, y0[others], t, **options)
    assert torch.equal(sol.ys[:, others], healthy.ys)
    assert torch.equal(sol.stats.accepted[others], healthy.stats.accepted)
    assert sol.status.tolist()[1] in (Status.STEP_UNDERFLOW, Status.NONFINITE)
    assert [sol.status[i].item() for i in others] == [Status.SUCCESS] * 3
    assert not sol.success
    assert healthy.success


def test_outputs_after_a_failure_are_nan_and_those_before_are_right() -> None:
    t = torch.tensor([0.0, 0.2, 0.4, 0.6, 1.0], dtype=torch.float64)
    sol = solve(blow_up, failing_starts(), t, per_sample=True, on_failure="return", rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(sol.ys[:3, 1, 0], 2 / (1 - 2 * t[:3]), rtol=1e-5, atol=0)
    assert sol.ys[3:, 1].isnan().all()
    assert sol.ys[:, [0, 2, 3]].isfinite().all()


def test_a_row_that_starts_at_nan_fails_alone() -> None:
    y0 = failing_starts()
    y0[2] = torch.nan
    sol = solve(lambda t, y: -y, y0, (0.0, 1.0), per_sample=True, on_failure="return")
    assert sol.status.tolist() == [Status.SUCCESS, Status.SUCCESS, Status.NONFINITE, Status.SUCCESS]
    assert torch.equal(sol.ys[-1, [0, 1, 3]], solve(lambda t, y: -y, y0[[0, 1, 3]], (0.0, 1.0), per_sample=True).ys[-1])


@pytest.mark.parametrize("gradient", ["replay", Replay(memory="stage"), "direct", "adjoint"], ids=str)
def test_a_failed_row_does_not_poison_the_gradient_of_shared_parameters(gradient: Any) -> None:
    def f(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
        return k * y * y

    def total(y0: Tensor) -> tuple[Tensor, Tensor]:
        k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        y0 = y0.clone().requires_grad_()
        options = {"args": (k,), "per_sample": True, "on_failure": "return", "gradient": gradient}
        ys = solve(f, y0, (0.0, 1.0), **options).ys[-1]
        return torch.autograd.grad(ys.sum(), [k, y0])

    k_all, rows_all = total(failing_starts())
    k_healthy, rows_healthy = total(failing_starts()[[0, 2, 3]])
    assert k_all.isfinite()
    torch.testing.assert_close(k_all, k_healthy, rtol=1e-9, atol=0)
    torch.testing.assert_close(rows_all[[0, 2, 3]], rows_healthy, rtol=1e-9, atol=0)
    assert rows_all[1].eq(0).all()


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_outputs_reached_before_a_failure_keep_their_gradient(gradient: str) -> None:
    y0 = failing_starts().requires_grad_()
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    choice = Adjoint(rtol=1e-9, atol=1e-11) if gradient == "adjoint" else gradient
    options = {"per_sample": True, "on_failure": "return", "rtol": 1e-9, "atol": 1e-11, "gradient": choice}
    sol = solve(blow_up, y0, t, **options)
    (found,) = torch.autograd.grad(sol.ys[1].sum(), y0)
    torch.testing.assert_close(found, 1 / (1 - 0.25 * y0.detach()) ** 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_a_failure_on_a_shared_clock_gives_no_gradient_that_is_not_finite(gradient: str) -> None:
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    options = {"args": (k,), "on_failure": "return", "gradient": gradient}
    sol = solve(lambda t, y, k: k * y * y, failing_starts(), t, **options)
    assert sol.ys[1].isfinite().all()
    assert sol.ys[2].isnan().all()
    (found,) = torch.autograd.grad(sol.ys.sum(), k)
    assert found.isfinite()
    assert found.abs() > 1e-3


def test_the_error_carries_the_partial_solution() -> None:
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    with pytest.raises(SolveError) as caught:
        solve(blow_up, failing_starts(), t, per_sample=True)
    partial = caught.value.solution
    assert partial.status[1] in (Status.STEP_UNDERFLOW, Status.NONFINITE)
    assert partial.ys[1].isfinite().all()
    assert partial.ys[2, 1].isnan().all()
    assert partial.ys[2, 0].isfinite().all()


def test_max_steps_counts_per_row() -> None:
    decays = torch.tensor([[1.0], [500.0]], dtype=torch.float64)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return -decays * y if len(y) == 2 else -decays[:1] * y

    sol = solve(f, torch.ones_like(decays), (0.0, 5.0), per_sample=True, max_steps=60, on_failure="return")
    assert sol.status.tolist() == [Status.SUCCESS, Status.MAX_STEPS]
    assert sol.stats.accepted[1] + sol.stats.rejected[1] == 60


# ------------------------------------------------------------------------------------------- dropping finished rows


def spans(*ends: float) -> Tensor:
    return torch.tensor([[0.0, end] for end in ends], dtype=torch.float64)


ENDS = (0.1, 0.2, 0.3, 0.4, 3.0, 3.0, 8.0, 30.0)


def test_rows_that_are_done_leave_the_batch() -> None:
    f = Counting(lambda t, y: torch.sin(y))
    sol = solve(f, torch.ones(8, 2, dtype=torch.float64), spans(*ENDS), per_sample=True, rtol=1e-8, atol=1e-8)
    assert sol.success
    assert f.batches[-1] <= 2
    assert sum(f.batches) < 0.6 * 8 * len(f.batches)


def test_dropping_rows_changes_no_result() -> None:
    y0 = torch.linspace(0.5, 3.0, 16, dtype=torch.float64).reshape(8, 2)
    sol = solve(van_der_pol, y0, spans(*ENDS), per_sample=True)
    for i in range(8):
        alone = solve(van_der_pol, y0[i : i + 1], spans(ENDS[i]), per_sample=True)
        assert torch.equal(sol.ys[:, i], alone.ys[:, 0])


@pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
def test_dropping_rows_changes_no_gradient(gradient: str) -> None:
    y0 = torch.linspace(0.5, 3.0, 8, dtype=torch.float64)[:, None].requires_grad_()
    k = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    sol = solve(
        lambda t, y, k: -k * y,
        y0,
        spans(*ENDS),
        args=(k,),
        per_sample=True,
        gradient=gradient,
        rtol=1e-9,
        atol=1e-11,
    )
    exact = y0 * torch.exp(-k * torch.tensor(ENDS, dtype=torch.float64)[:, None])
    found = torch.autograd.grad(sol.ys[-1].sum(), [y0, k])
    wanted = torch.autograd.grad(exact.sum(), [y0, k])
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def rates() -> Tensor:
    return torch.linspace(0.2, 0.9, 8, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("how", ["captured", "argument without args_dims", "argument by row"])
@pytest.mark.parametrize("gradient", [*REPLAYS, "direct", Adjoint(rtol=1e-8, atol=1e-10)], ids=str)
def test_a_tensor_with_the_row_axis_is_gathered_along_or_the_rows_are_masked(how: str, gradient: Any) -> None:
    rate = rates().requires_grad_()
    y0 = torch.ones(8, 1, dtype=torch.float64)
    if how == "captured":
        f, options = Counting(lambda t, y: -rate * y), {}
    else:
        f = Counting(lambda t, y, rate: -rate * y)
        options = {"args": (rate,), "args_dims": (0,) if how == "argument by row" else None}
    sol = solve(f, y0, spans(*ENDS), per_sample=True, rtol=1e-8, atol=1e-10, gradient=gradient, **options)
    exact = torch.exp(-rate * torch.tensor(ENDS, dtype=torch.float64)[:, None])
    torch.testing.assert_close(sol.ys[-1], exact, rtol=1e-6, atol=1e-8)
    steps = f.batches[5:]  # past the checks at the door
    if how == "argument by row":
        assert min(steps) <= 2
    else:
        assert steps.count(8) > 0.8 * len(steps)
    found, wanted = (torch.autograd.grad(ys.sum(), rate)[0] for ys in (sol.ys[-1], exact))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_args_that_are_trees_are_gathered_leaf_by_leaf() -> None:
    def f(t: Tensor, y: Tensor, p: dict[str, Tensor], shift: Tensor) -> Tensor:
        return -p["rate"] * y + p["common"] * shift

    args = ({"rate": rates(), "common": torch.tensor(0.1, dtype=torch.float64)}, rates().T.contiguous())
    with_shift = Counting(lambda t, y, p, shift: f(t, y, p, shift.T))
    sol = solve(
        with_shift,
        torch.ones(8, 1, dtype=torch.float64),
        spans(*ENDS),
        args=args,
        args_dims=({"rate": 0, "common": None}, 1),
        per_sample=True,
        rtol=1e-9,
        atol=1e-11,
    )
    assert with_shift.batches[-1] <= 2
    rate, rest = rates(), 0.1 * rates() / rates()
    exact = rest + (1 - rest) * torch.exp(-rate * torch.tensor(ENDS, dtype=torch.float64)[:, None])
    torch.testing.assert_close(sol.ys[-1], exact, rtol=1e-6, atol=1e-8)


def test_a_convolution_loses_rows_as_they_end() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 3, padding=1)).double()
    f = Counting(lambda t, y: net(y))
    y0 = torch.randn(8, 2, 5, 5, dtype=torch.float64)
    sol = solve(f, y0, spans(*ENDS), per_sample=True)
    assert f.batches[-1] <= 2
    alone = solve(f, y0[-1:], spans(ENDS[-1]), per_sample=True)
    torch.testing.assert_close(sol.ys[-1, -1:], alone.ys[-1], rtol=1e-8, atol=1e-10)


# ------------------------------------------------------------------------------------------------ times of rows


def test_ragged_times_repeat_their_last() -> None:
    t = torch.tensor([[0.0, 0.5, 1.0, 1.0], [0.2, 0.2, 0.2, 0.2], [0.0, 0.1, 0.4, 2.0]], dtype=torch.float64)
    y0 = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    sol = solve(lambda t, y: -y, y0, t, per_sample=True, rtol=1e-9, atol=1e-11)
    exact = y0 * torch.exp(-(t - t[:, :1])).T[..., None]
    torch.testing.assert_close(sol.ys, exact, rtol=1e-7, atol=1e-9)
    assert torch.equal(sol.ys[2, 0], sol.ys[3, 0])
    assert torch.equal(sol.ys[:, 1], y0[1].expand(4, 1))
    assert sol.stats.accepted[1] == 0
    assert torch.equal(sol.ts, t)


def test_f_is_given_one_time_a_row() -> None:
    f = Counting(lambda t, y: t[:, None].expand_as(y))
    y0 = torch.zeros(3, 2)
    t = torch.tensor([[0.0, 1.0], [1.0, 2.0], [-1.0, 0.0]])
    sol = solve(f, y0, t, per_sample=True)
    torch.testing.assert_close(sol.ys[-1, :, 0], torch.tensor([0.5, 1.5, -0.5]), rtol=1e-5, atol=1e-5)
    assert all(time.ndim == 1 and time.dtype == torch.float32 for time in f.times)


def test_f_is_given_one_time_on_a_shared_clock() -> None:
    f = Counting(lambda t, y: -y)
    solve(f, torch.zeros(3, 2, dtype=torch.complex64), (0.0, 1.0))
    assert all(time.ndim == 0 and time.dtype == torch.float32 for time in f.times)


# ------------------------------------------------------------------------------------------------ shapes of states


Pair = namedtuple("Pair", ["position", "speed"])


def spring(t: Tensor, y: Any) -> Any:
    if isinstance(y, dict):
        return {"position": y["speed"], "speed": -y["position"]}
    x, v = y
    return type(y)(v, -x) if isinstance(y, Pair) else type(y)((v, -x))


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
@pytest.mark.parametrize("make", [tuple, list, lambda s: Pair(*s), lambda s: dict(zip(Pair._fields, s, strict=True))])
def test_a_pytree_keeps_its_structure(make: Callable[[Any], Any], per_sample: bool) -> None:
    x, v = torch.tensor([[1.0], [0.5]], dtype=torch.float64), torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    sol = solve(spring, make([x, v]), (0.0, 1.0, 2.0), per_sample=per_sample, rtol=1e-9, atol=1e-11)
    assert type(sol.ys) is type(make([x, v]))
    found = list(sol.ys.values()) if isinstance(sol.ys, dict) else list(sol.ys)
    c, s = torch.cos(torch.tensor(2.0).double()), torch.sin(torch.tensor(2.0).double())
    torch.testing.assert_close(found[0][-1], c * x + s * v, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found[1][-1], -s * x + c * v, rtol=1e-7, atol=1e-9)
    assert found[0].shape == (3, 2, 1)


def test_mixed_dtypes_keep_their_own() -> None:
    seen = set()

    def f(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.add((t.dtype, *(leaf.dtype for leaf in y.values())))
        return {"single": -y["single"], "double": -2 * y["double"], "wave": 1j * y["wave"]}

    y0 = {
        "single": torch.ones(3, 1),
        "double": torch.ones(3, 2, dtype=torch.float64),
        "wave": torch.ones(3, dtype=torch.complex64),
    }
    sol = solve(f, y0, (0.0, 1.0), rtol=1e-6, atol=1e-8)
    assert len(seen) == 1
    assert seen.pop()[1:] == (torch.float32, torch.float64, torch.complex64)
    assert {name: leaf.dtype for name, leaf in sol.ys.items()} == {name: leaf.dtype for name, leaf in y0.items()}
    torch.testing.assert_close(sol.ys["single"][-1], y0["single"] * torch.exp(torch.tensor(-1.0)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        sol.ys["double"][-1], y0["double"] * torch.exp(torch.tensor(-2.0).double()), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(sol.ys["wave"][-1], torch.exp(torch.tensor(1j)).expand(3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
def test_complex_rows_turn(per_sample: bool) -> None:
    z0 = torch.tensor([[1.0 + 0j], [0.5j]], dtype=torch.complex128)
    sol = solve(lambda t, z: 2j * z, z0, (0.0, 3.0), per_sample=per_sample, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(sol.ys[-1], z0 * torch.exp(torch.tensor(6j, dtype=torch.complex128)), rtol=1e-7, atol=0)


def test_a_complex_number_counts_once_by_its_modulus() -> None:
    """The same rotation as one complex number or as two real ones of which each carries the modulus."""
    turned = solve(lambda t, z: 2j * z, torch.ones(1, dtype=torch.complex128), (0.0, 3.0))
    phased = solve(lambda t, z: 2j * z, torch.full((1,), 1j, dtype=torch.complex128), (0.0, 3.0))
    spread = solve(lambda t, z: 2j * z, torch.tensor([1.0, 1j, -1.0], dtype=torch.complex128), (0.0, 3.0))
    assert turned.stats.accepted.tolist() == phased.stats.accepted.tolist() == spread.stats.accepted.tolist()


@pytest.mark.parametrize("method", ["rk4", "tsit5"])
def test_a_state_may_be_one_number(method: str) -> None:
    sol = solve(lambda t, y: -y, torch.tensor(2.0, dtype=torch.float64), (0.0, 0.5, 1.0), **stepping(method))
    assert sol.ys.shape == (3,)
    torch.testing.assert_close(sol.ys[-1], 2 * torch.exp(torch.tensor(-1.0).double()), rtol=1e-3, atol=0)
    assert sol.status.shape == (1,)


@pytest.mark.parametrize("method", ["rk4", "tsit5"])
def test_one_number_a_row(method: str) -> None:
    y0 = torch.tensor([1.0, 2.0], dtype=torch.float64)
    sol = solve(lambda t, y: -y * t, y0, (0.0, 1.0), per_sample=True, **stepping(method))
    torch.testing.assert_close(sol.ys[-1], y0 * torch.exp(torch.tensor(-0.5).double()), rtol=1e-3, atol=0)


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
@pytest.mark.parametrize("method", ["rk4", "tsit5"])
def test_no_rows_give_no_rows(method: str, per_sample: bool) -> None:
    f = Counting(lambda t, y: -y)
    y0 = torch.zeros(0, 3, requires_grad=True)
    sol = solve(f, y0, (0.0, 0.5, 1.0), per_sample=per_sample, **stepping(method))
    assert sol.ys.shape == (3, 0, 3)
    assert sol.success
    assert f.calls <= 1
    sol.ys.sum().backward()


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
@pytest.mark.parametrize("method", ["rk4", "tsit5"])
def test_no_features_give_no_features(method: str, per_sample: bool) -> None:
    sol = solve(lambda t, y: -y, torch.zeros(3, 0), (0.0, 0.5, 1.0), per_sample=per_sample, **stepping(method))
    assert sol.ys.shape == (3, 3, 0)
    assert sol.success


def test_an_empty_leaf_is_skipped_by_the_norm() -> None:
    y0 = {"some": torch.ones(3, 2, dtype=torch.float64), "none": torch.ones(3, 0, dtype=torch.float64)}
    f = {"some": lambda y: -y, "none": lambda y: y}
    sol = solve(lambda t, y: {name: f[name](leaf) for name, leaf in y.items()}, y0, (0.0, 1.0))
    alone = solve(lambda t, y: -y, y0["some"], (0.0, 1.0))
    assert torch.equal(sol.ys["some"], alone.ys)
    assert sol.ys["none"].shape == (2, 3, 0)


def test_the_norm_is_that_of_the_worst_leaf() -> None:
    """A leaf that is easy must not hide one that is hard, as a mean over all numbers would."""
    hard = torch.ones(1, 1, dtype=torch.float64)
    easy = torch.ones(1, 1000, dtype=torch.float64)
    both = solve(lambda t, y: (torch.sin(5 * t) * y[0], 0 * y[1]), (hard, easy), (0.0, 5.0))
    alone = solve(lambda t, y: torch.sin(5 * t) * y, hard, (0.0, 5.0))
    assert both.stats.accepted.tolist() == alone.stats.accepted.tolist()


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
def test_channels_last_stays_so(per_sample: bool) -> None:
    net = nn.Conv2d(3, 3, 3, padding=1).to(memory_format=torch.channels_last)
    formats = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        formats.append(y.is_contiguous(memory_format=torch.channels_last))
        return torch.tanh(net(y))

    y0 = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    sol = solve(f, y0, (0.0, 1.0), per_sample=per_sample)
    assert all(formats)
    assert sol.ys[-1].is_contiguous(memory_format=torch.channels_last)
    plain = solve(lambda t, y: torch.tanh(net(y)), y0.contiguous(), (0.0, 1.0), per_sample=per_sample)
    torch.testing.assert_close(sol.ys, plain.ys, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
def test_a_half_precision_state_accumulates_in_float32(dtype: torch.dtype, per_sample: bool) -> None:
    """A thousand small steps, each below half an ulp of the state's own dtype, must not be lost."""
    seen = set()

    def f(t: Tensor, y: Tensor) -> Tensor:
        seen.add(y.dtype)
        return torch.ones_like(y)

    sol = solve(f, torch.ones(2, 1, dtype=dtype), (0.0, 1.0), method="euler", step_size=1e-3, per_sample=per_sample)
    assert seen == {dtype}
    assert sol.ys.dtype == dtype
    torch.testing.assert_close(sol.ys[-1].float(), torch.full((2, 1), 2.0), rtol=1e-2, atol=0)


def test_a_field_of_its_own_dtype_sees_that_dtype() -> None:
    seen = set()

    def f(t: Tensor, y: Tensor) -> Tensor:
        seen.add((t.dtype, y.dtype))
        return -y

    sol = solve(Field(f, dtype=torch.bfloat16), torch.ones(2, 1), (0.0, 1.0), rtol=1e-2, atol=1e-3)
    assert seen == {(torch.bfloat16, torch.bfloat16)}
    assert sol.ys.dtype == torch.float32
    torch.testing.assert_close(sol.ys[-1], torch.exp(torch.tensor(-1.0)).expand(2, 1), rtol=0.03, atol=0)


def test_time_is_float64_inside_a_float32_solve() -> None:
    """Ten thousand steps of 1e-4 from t = 1000 would stand still, or drift, in float32."""
    seen = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        seen.append(t.dtype)
        return torch.ones_like(y)

    sol = solve(f, torch.zeros(1), (1000.0, 1000.5), method="euler", step_size=1e-3)
    assert int(sol.stats.accepted) == 500
    assert set(seen) == {torch.float32}
    torch.testing.assert_close(sol.ys[-1], torch.tensor([0.5]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_tolerances_broadcast_against_the_state(method: str) -> None:
    y0 = torch.tensor([[1.0, 100.0], [2.0, 300.0]], dtype=torch.float64)
    scale = 1.0 if METHODS[method].order > 2 else 1e3  # thousands of steps say no more
    atol = scale * torch.tensor([1e-7, 1e-3], dtype=torch.float64)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(3 * t)[..., None] * y

    loose = solve(f, y0, (0.0, 3.0), method=method, rtol=1e-9 * scale, atol=1e-3 * scale, per_sample=True)
    mixed = solve(f, y0, (0.0, 3.0), method=method, rtol=1e-9 * scale, atol=atol, per_sample=True)
    assert (mixed.stats.accepted > (1.5 if METHODS[method].order < 7 else 1.2) * loose.stats.accepted).all()
