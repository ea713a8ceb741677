"""TabularODENet returns the head of the final state of the trajectory from the lifted row."""

import torch
from scipy.integrate import solve_ivp

from neuralode.nn import TabularODENet


def net(**options) -> TabularODENet:
    return TabularODENet(3, 2, **{"hidden": 4, "width": 6, "layers": 2, "rtol": 1e-9, "atol": 1e-9} | options).double()


def test_the_output_agrees_with_scipy():
    network, rows = net(), torch.randn(5, 3, dtype=torch.float64)
    with torch.no_grad():
        found = network(rows)
        for row, answer in zip(rows, found, strict=True):
            start = network.lift(row).numpy()
            end = solve_ivp(
                lambda t, y: network.ode.f(t, torch.as_tensor(y)).numpy(), (0, 1), start, rtol=1e-11, atol=1e-11
            )
            torch.testing.assert_close(network.head(torch.as_tensor(end.y[:, -1])), answer, rtol=0, atol=1e-8)


def test_every_weight_receives_a_gradient_and_all_methods_agree():
    network, rows = net(), torch.randn(5, 3, dtype=torch.float64)
    found = {}
    for gradient in ("replay", "direct", "adjoint"):
        network.ode.gradient = gradient
        found[gradient] = torch.autograd.grad(network(rows).square().sum(), [*network.parameters()])
    assert all(part.abs().max() > 1e-6 for part in found["replay"])
    for replay, direct, adjoint in zip(*found.values(), strict=True):
        torch.testing.assert_close(replay, direct, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(replay, adjoint, rtol=1e-5, atol=1e-6)
