"""Solve and train a neural controlled differential equation on irregular series with torchcde."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torchcde
import torchsde
from torch import Tensor, nn

SERIES, LENGTH, CHANNELS, HIDDEN, STEPS = 12, 8, 3, 5, 12


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(HIDDEN, 16), nn.Tanh(), nn.Linear(16, HIDDEN * CHANNELS), nn.Tanh())

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.net(z).unflatten(-1, (HIDDEN, CHANNELS))


class Twice(Field):
    """The field of a tuple of states."""

    def forward(self, t: Tensor, z: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return super().forward(t, z[0]), super().forward(t, z[1] * z[0].mean())


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.field, self.begin, self.end = Field(), nn.Linear(CHANNELS, HIDDEN), nn.Linear(HIDDEN, 1)

    def forward(self, coeffs: Tensor, t: Tensor) -> Tensor:
        path = torchcde.CubicSpline(coeffs, t)
        z0 = self.begin(path.evaluate(path.interval[0]))
        z = torchcde.cdeint(X=path, func=self.field, z0=z0, t=path.interval)
        return self.end(z[..., -1, :]).squeeze(-1)


def series() -> tuple[Tensor, Tensor, Tensor]:
    """Return irregular times, curves with gaps that turn clockwise or counterclockwise, and their labels."""
    t = torch.cat((torch.zeros(1), torch.rand(LENGTH - 2).sort().values, torch.ones(1)))
    way = torch.arange(SERIES) % 2
    angle = 4 * t * (2.0 * way[:, None] - 1) + torch.rand(SERIES, 1)
    x = torch.stack((t.expand(SERIES, -1), angle.cos(), angle.sin()), -1)
    x[:, 3, 1] = x[:, 4:6, 2] = float("nan")
    return t, x, way.to(x)


def solved(control: Any, t: Tensor, adjoint: bool, tupled: bool = False, **arguments: Any) -> list[Tensor]:
    """Return the states and their gradients; ``control`` is an interpolation class with its arguments."""
    torch.manual_seed(1)
    make, coeffs, times = control
    path, field = make(coeffs, times), Twice() if tupled else Field()
    z0 = torch.randn(SERIES, HIDDEN, requires_grad=True)
    if adjoint:
        arguments["adjoint_params"] = (*field.parameters(), coeffs)
    path = torchcde.TupleControl(path, path) if tupled else path
    z = torchcde.cdeint(X=path, func=field, z0=(z0, 2 * z0) if tupled else z0, t=t, adjoint=adjoint, **arguments)
    z = torch.cat(z) if tupled else z
    return [z.detach(), *torch.autograd.grad(z.square().mean(), (z0, *field.parameters(), coeffs))]


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    t, x, way = series()
    found: dict[str, list[Tensor]] = {}

    coeffs = torchcde.natural_cubic_coeffs(x, t)
    cubic = torchcde.CubicSpline, coeffs.clone().requires_grad_(), t
    linear = torchcde.LinearInterpolation, torchcde.linear_interpolation_coeffs(x, t).requires_grad_(), t
    path = torchcde.LinearInterpolation(*linear[1:])
    ends, jumps, strict = path.interval, path.grid_points, {"rtol": 1e-7, "atol": 1e-9, "method": "dopri5"}
    for adjoint in (False, True):
        ways = {
            "dopri5": solved(cubic, t, adjoint, **strict),
            "dopri5, jumps": solved(linear, ends, adjoint, **strict, options={"jump_t": jumps}),
            "dopri5, tuple": solved(cubic, ends, adjoint, True, **strict),
            "rk4, steps": solved(cubic, ends, adjoint, method="rk4", options={"step_size": 0.05}),
            "rk4, by the times": solved(linear, t, adjoint, method="rk4"),
        }
        found |= {f"{name}, {'adjoint' if adjoint else 'backprop'}": numbers for name, numbers in ways.items()}

    model, losses = Classifier(), []
    optimizer = torch.optim.Adam(model.parameters(), 4e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(coeffs, t), way)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    found["training"] = [torch.stack(losses), *(p.detach() for p in model.parameters())]

    # the other backend of cdeint is torchsde, which does not call torchdiffeq
    z = torchcde.cdeint(path, Field(), torch.zeros(SERIES, HIDDEN), ends, backend="torchsde", dt=0.1, adjoint=False)
    assert z.shape == (SERIES, 2, HIDDEN)
    assert callable(torchsde.sdeint)
    torch.save(found, sys.argv[1])


if __name__ == "__main__":
    main()
