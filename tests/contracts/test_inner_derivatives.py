"""Fields that differentiate inside: Hamiltonian nets, divergences. Every gradient goes through them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuralode import Adjoint, Replay, solve

energy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
velocity = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def hamiltonian(t: Tensor, y: Tensor) -> Tensor:
    with torch.enable_grad():
        y = y if y.requires_grad else y.detach().requires_grad_()
        (slope,) = torch.autograd.grad(energy(y).sum(), y, create_graph=True)
    return torch.stack((slope[:, 1], -slope[:, 0]), 1)


def hamiltonian_by_transform(t: Tensor, y: Tensor) -> Tensor:
    slope = torch.func.vmap(torch.func.grad(lambda z: energy(z).sum()))(y)
    return torch.stack((slope[:, 1], -slope[:, 0]), 1)


def flow(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    z, _ = state
    with torch.enable_grad():
        z = z if z.requires_grad else z.detach().requires_grad_()
        dz = velocity(z)
        parts = [torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2)]
    return dz, -sum(parts)[:, None]


def flow_by_transform(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    z, _ = state
    jacobian = torch.func.vmap(torch.func.jacrev(velocity))(z)
    return velocity(z), -jacobian.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)


FIELDS = {
    hamiltonian: (energy, False),
    hamiltonian_by_transform: (energy, False),
    flow: (velocity, True),
    flow_by_transform: (velocity, True),
}


def gradients(f: Callable, gradient: object, per_sample: bool) -> list[Tensor]:
    net, has_density = FIELDS[f]
    y0 = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2).requires_grad_()
    start = (y0, torch.zeros(4, 1, dtype=torch.float64)) if has_density else y0
    sol = solve(f, start, (0.0, 1.0), rtol=1e-7, atol=1e-9, gradient=gradient, per_sample=per_sample)
    loss = sum(x.square().sum() for x in (sol.y1 if has_density else (sol.y1,)))
    # the last bias moves no derivative: its gradient is zero, or none
    return list(torch.autograd.grad(loss, [y0, *net.parameters()], allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
@pytest.mark.parametrize("f", FIELDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("gradient", "accuracy"),
    [("replay", 1e-10), (Replay(memory="stage"), 1e-10), (Adjoint(rtol=1e-9, atol=1e-9), 1e-6)],
    ids=["replay", "stage", "adjoint"],
)
def test_a_field_that_differentiates_inside_is_differentiated(
    f: Callable, gradient: object, accuracy: float, per_sample: bool
) -> None:
    wanted = gradients(f, "direct", per_sample)
    found = gradients(f, gradient, per_sample)
    assert sum(bool(x.any()) for x in wanted) >= 4
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() <= accuracy * b.abs().max()


@pytest.mark.parametrize("in_place", [False, True])
def test_second_derivatives_by_replay_where_the_start_has_no_gradient(in_place: bool) -> None:
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def f(t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            if in_place:
                y = y.requires_grad_()
            y = y if y.requires_grad else y.detach().requires_grad_()
            return -torch.autograd.grad((rate * y.square() + 0.1 * y**3).sum(), y, create_graph=True)[0]

    found = []
    for gradient in ("replay", "direct"):
        end = solve(f, torch.ones(2, dtype=torch.float64), (0.0, 1.0), gradient=gradient).y1.sum()
        (first,) = torch.autograd.grad(end, rate, create_graph=True)
        found.append((first.detach(), *torch.autograd.grad(first, rate)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=0)
    assert abs(found[1][1]) > 1
