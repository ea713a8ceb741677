"""What a second reading of the core found: each was once a silent wrong number, or a refusal of something legal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuralode import solve

D = torch.float64
GRADIENTS = ["replay", "direct", "adjoint"]
TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def test_writing_into_an_output_leaves_the_adjoint_right() -> None:
    found = {}
    for gradient in GRADIENTS:
        w = torch.tensor(0.5, dtype=D, requires_grad=True)
        y0 = torch.tensor([[0.3, 0.9], [1.2, 0.2]], dtype=D)
        sol = solve(lambda t, y, w=w: -w * y * y, y0, (0.0, 1.0), gradient=gradient, **TIGHT)
        torch.relu_(sol.y1.sub_(0.25)).sum().backward()
        found[gradient] = w.grad
    torch.testing.assert_close(found["replay"], found["direct"])
    torch.testing.assert_close(found["adjoint"], found["direct"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_saved_function_of_time_is_differentiated_by_every_time(gradient: str, per_sample: bool) -> None:
    t = torch.tensor([0.0, 0.4, 1.0], dtype=D, requires_grad=True)

    def save(t: Tensor, y: Tensor) -> Tensor:
        return (t[:, None] if per_sample else t) * y

    y0 = torch.ones(2, 1, dtype=D)
    solve(lambda t, y: -y, y0, t, save=save, gradient=gradient, per_sample=per_sample, **TIGHT).ys.sum().backward()
    # s(t) = t exp(t0 - t) for each of two rows; y(t0) does not move with t0
    inner, end = (2 * (1 - s) * torch.exp(torch.tensor(-s, dtype=D)) for s in (0.4, 1.0))
    start = 2 * (1 + 0.4 * torch.exp(torch.tensor(-0.4, dtype=D)) + torch.exp(torch.tensor(-1.0, dtype=D)))
    torch.testing.assert_close(t.grad, torch.stack([start, inner, end]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("gradient", ["replay", "direct"])
def test_a_failed_row_leaves_dense_gradients_finite(gradient: str) -> None:
    w = torch.tensor(1.0, dtype=D, requires_grad=True)
    y0 = torch.tensor([[1.0], [5.0]], dtype=D)
    options = {"per_sample": True, "dense": True, "on_failure": "return", "max_steps": 200, "gradient": gradient}
    sol = solve(lambda t, y: w * y * y, y0, (0.0, 0.5), **options)
    assert sol(0.45)[1].isnan().all()
    sol(0.45)[0].sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad.item(), 0.45 / 0.55**2, rtol=1e-3, atol=0)  # y = 1 / (1 - w t)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_failed_row_leaves_the_gradient_of_a_saved_function_finite(gradient: str) -> None:
    weight = torch.ones(1, 1, dtype=D, requires_grad=True)
    y0 = torch.tensor([[1.0], [-1.0]], dtype=D)
    options = {"per_sample": True, "on_failure": "return", "gradient": gradient}
    sol = solve(lambda t, y: -y.sqrt(), y0, (0.0, 0.5), save=lambda t, y: y @ weight, **options)
    assert sol.ys[-1, 1].isnan().all()
    sol.ys[-1, 0].sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
def test_a_row_that_never_started_has_no_dense_output(per_sample: bool) -> None:
    y0 = torch.tensor([[1.0], [-1.0]], dtype=D)
    sol = solve(lambda t, y: -y.sqrt(), y0, (0.0, 0.5), per_sample=per_sample, dense=True, on_failure="return")
    assert sol(0.3)[1].isnan().all()
    torch.testing.assert_close(sol(0.0)[1], y0[1])


@pytest.mark.parametrize("end", [1.0, -1.0])
def test_a_dense_solution_of_no_time_is_extended(end: float) -> None:
    y0 = torch.ones(2, 1, dtype=D)
    sol = solve(lambda t, y: -y, y0, (0.0, 0.0), dense=True, **TIGHT).extend(end)
    torch.testing.assert_close(sol(end / 2), y0 * torch.exp(torch.tensor(-end / 2, dtype=D)), rtol=1e-6, atol=0)


def test_rows_are_checked_again_when_a_closed_over_module_trains() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    y0 = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))

    def f(t: Tensor, y: Tensor) -> Tensor:
        return net(y)

    net.eval()
    assert solve(f, y0, (0.0, 0.1), per_sample=True).success
    net.train()
    with pytest.raises(ValueError, match="mixes samples"):
        solve(f, y0, (0.0, 0.1), per_sample=True)


def test_rows_are_checked_again_for_other_args() -> None:
    y0 = torch.randn(4, 2, dtype=D, generator=torch.Generator().manual_seed(0))

    def f(t: Tensor, y: Tensor, mix: Tensor) -> Tensor:
        return mix @ y

    assert solve(f, y0, (0.0, 0.1), args=(torch.eye(4, dtype=D),), per_sample=True).success
    with pytest.raises(ValueError, match="mixes samples"):
        solve(f, y0, (0.0, 0.1), args=(torch.ones(4, 4, dtype=D),), per_sample=True)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_solve_inside_a_field_is_differentiated(gradient: str) -> None:
    p = torch.tensor(0.7, dtype=D, requires_grad=True)
    w = p * 1.0  # a computed tensor, held by the inner field

    def f(t: Tensor, y: Tensor) -> Tensor:
        return solve(lambda s, z: -w * z, y, (0.0, 0.5), rtol=1e-8).y1

    solve(f, torch.ones(2, 1, dtype=D), (0.0, 1.0), gradient=gradient, **TIGHT).y1.sum().backward()
    assert p.grad is not None
    rate = torch.tensor(0.7, dtype=D, requires_grad=True)  # y' = exp(-w / 2) y
    (2 * torch.exp(torch.exp(-rate / 2))).backward()
    torch.testing.assert_close(p.grad, rate.grad, rtol=1e-4, atol=0)


def test_tolerances_by_feature_go_with_the_adjoint() -> None:
    y0 = torch.ones(3, 2, dtype=D, requires_grad=True)
    rtol = torch.tensor([1e-7, 1e-8], dtype=D)
    solve(lambda t, y: -y, y0, (0.0, 1.0), rtol=rtol, gradient="adjoint").y1.sum().backward()
    torch.testing.assert_close(y0.grad, torch.full_like(y0, torch.exp(torch.tensor(-1.0)).item()), rtol=1e-4, atol=0)


def test_tolerances_in_another_order_than_the_state_are_refused() -> None:
    y0 = {"a": torch.ones(2, 1, dtype=D), "b": torch.zeros(2, 1, dtype=D)}
    with pytest.raises(ValueError, match="atol"):
        solve(lambda t, y: y, y0, (0.0, 1.0), atol={"b": 1e-2, "a": 1e-8})
