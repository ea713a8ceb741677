"""Train a velocity field with flow_matching, sample it with `ODESolver`, and compute likelihoods."""

from __future__ import annotations

import sys
from typing import Any

import torch
from flow_matching.path import CondOTProbPath
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper
from torch import Tensor, nn

ROWS, STEPS = 32, 60


class Velocity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 32), nn.ELU(), nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat((x, t.reshape(-1, 1).expand(len(x), 1)), 1))


class Scaled(ModelWrapper):
    """A velocity field with an extra argument that the solver passes on."""

    def forward(self, x: Tensor, t: Tensor, **extras: Any) -> Tensor:
        return extras.get("scale", 1.0) * self.model(x, t)


def ring(rows: int) -> Tensor:
    angle = 6.2831853 * torch.rand(rows)
    return 2 * torch.stack((angle.cos(), angle.sin()), 1) + 0.1 * torch.randn(rows, 2)


def trained() -> Velocity:
    net, path = Velocity(), CondOTProbPath()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        x1 = ring(256)
        sample = path.sample(t=torch.rand(256), x_0=torch.randn_like(x1), x_1=x1)
        (net(sample.x_t, sample.t) - sample.dx_t).square().mean().backward()
        optimizer.step()
    return net


def main() -> None:
    torch.manual_seed(0)
    net = trained()
    solver, x0, x1 = ODESolver(Scaled(net)), torch.randn(ROWS, 2), ring(ROWS)
    grid, strict = torch.linspace(0, 1, 7), {"method": "dopri5", "step_size": None, "rtol": 1e-6, "atol": 1e-6}
    normal = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    found: dict[str, list[Tensor]] = {}

    for method in ("euler", "midpoint", "heun3"):
        last = solver.sample(x0, step_size=0.07, method=method)
        by_grid = solver.sample(x0, None, method=method, time_grid=grid, return_intermediates=True, scale=1.1)
        back = solver.sample(x1, step_size=0.07, method=method, time_grid=grid.flip(0), return_intermediates=True)
        found[f"fixed, sample, {method}"] = [last, by_grid, back]
    found["adaptive, sample, dopri5"] = [
        solver.sample(x0, **strict),
        solver.sample(x0, time_grid=grid, return_intermediates=True, scale=1.1, **strict),
        solver.sample(x1, time_grid=grid.flip(0), return_intermediates=True, **strict),
    ]

    for name, how in (("fixed", {"step_size": 0.1, "method": "midpoint"}), ("adaptive", strict)):
        start = x0.clone().requires_grad_()
        end = solver.sample(start, enable_grad=True, **how)
        found[f"{name}, gradients"] = list(torch.autograd.grad(end.square().mean(), (start, *net.parameters())))
        for exact in (True, False):
            torch.manual_seed(3)  # for the random signs of the divergence estimate
            numbers = solver.compute_likelihood(x1, normal.log_prob, exact_divergence=exact, **how)
            found[f"{name}, likelihood, exact={exact}"] = list(numbers)
    found = {name: [x.detach() for x in numbers] for name, numbers in found.items()}
    torch.save(found, sys.argv[1])


if __name__ == "__main__":
    main()
