"""Ensembles: the result equals that of a loop over members, each with its own steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fields import relative_error
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from neuralode import Event, interpolate, solve, solve_ensemble

TIGHT: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-10}
GRADIENTS = pytest.mark.parametrize("gradient", ["replay", "direct", "adjoint"])
RHO = torch.tensor([0.5, 10.0, 21.0, 28.0], dtype=torch.float64)
Y0 = torch.tensor([1.0, 0.5, 1.5], dtype=torch.float64)


def lorenz(t: Tensor, y: Tensor, rho: Tensor) -> Tensor:
    assert (t.dim(), y.shape, rho.dim()) == (0, (3,), 0)  # all of one member
    return torch.stack((10 * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]))


def networks() -> list[nn.Module]:
    return [nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double() for _ in range(3)]


def test_an_ensemble_agrees_with_a_loop_over_members() -> None:
    """They agree up to rounding, with the same evaluations, although fast members leave the batch before slow ones."""
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    sol = solve_ensemble(lorenz, Y0, t, args=(RHO,), **TIGHT)
    assert sol.ys.shape == (3, 4, 3)
    for member, rho in enumerate(RHO):
        alone = solve(lorenz, Y0, t, args=(rho,), **TIGHT)
        torch.testing.assert_close(sol.ys[:, member], alone.ys, rtol=1e-12, atol=1e-12)
        for name in ("evaluations", "accepted", "rejected"):
            assert int(getattr(sol.stats, name)[member]) == int(getattr(alone.stats, name))


def test_members_may_share_steps_or_have_their_own_times() -> None:
    shared = solve_ensemble(lorenz, Y0, (0.0, 1.0), args=(RHO,), per_sample=False, **TIGHT)
    assert len(set(shared.stats.accepted.tolist())) == 1
    own = torch.stack((torch.zeros(4), torch.linspace(0.2, 1.0, 4)), 1).double()
    sol = solve_ensemble(lorenz, Y0, own, args=(RHO,), **TIGHT)
    torch.testing.assert_close(sol.y1[3], shared.y1[3], rtol=1e-6, atol=1e-6)
    alone = solve(lorenz, Y0, (0.0, float(own[0, 1])), args=(RHO[0],), **TIGHT)
    torch.testing.assert_close(sol.y1[0], alone.y1, rtol=1e-12, atol=0)


def test_any_member_axis_and_any_pytree() -> None:
    def f(t: Tensor, y: dict, pair: dict, gain: Tensor) -> dict:
        return {"a": -pair["k"] @ y["a"] + pair["b"], "c": gain * y["c"]}

    k, b = torch.rand(2, 5, 2).double(), torch.randn(2, 2).double()
    y0 = {"a": torch.randn(2, 5).double(), "c": torch.tensor(1.0).double()}
    gain = torch.tensor(0.3).double()
    sol = solve_ensemble(
        f, y0, (0.0, 1.0), args=({"k": k, "b": b[0]}, gain), args_dims=({"k": 1, "b": None}, None),
        y0_dims={"a": 1, "c": None}, **TIGHT,
    )  # fmt: skip
    assert sol.y1["a"].shape == (5, 2)
    assert sol.y1["c"].shape == (5,)
    for member in range(5):
        start = {"a": y0["a"][:, member], "c": y0["c"]}
        alone = solve(f, start, (0.0, 1.0), args=({"k": k[:, member], "b": b[0]}, gain), **TIGHT).y1
        torch.testing.assert_close({name: x[member] for name, x in sol.y1.items()}, alone, rtol=1e-9, atol=1e-9)


@GRADIENTS
def test_gradients_of_an_ensemble_of_networks_agree_with_a_loop(gradient: Any) -> None:
    """Differentiate by stacked parameters, initial states and a tensor that f closes over."""
    nets = networks()
    params, buffers = stack_module_state(nets)
    scale = torch.tensor(0.7).double().requires_grad_()
    y0 = torch.randn(2, 3).double().requires_grad_()  # members last

    def f(t: Tensor, y: Tensor, params: dict) -> Tensor:
        return scale * functional_call(nets[0], (params, {}), (y,))

    assert not buffers
    sol = solve_ensemble(f, y0, (0.0, 1.0), args=(params,), y0_dims=1, gradient=gradient, **TIGHT)
    found = torch.autograd.grad(sol.y1.square().sum(), [y0, scale, *params.values()])
    ends = [
        solve(lambda t, y, net=net: scale * net(y), y0[:, i], (0.0, 1.0), gradient="direct", **TIGHT).y1
        for i, net in enumerate(nets)
    ]
    torch.testing.assert_close(sol.y1, torch.stack(ends), rtol=1e-12, atol=1e-12)
    names = list(params)
    leaves = [dict(net.named_parameters())[name] for name in names for net in nets]
    wanted = torch.autograd.grad(torch.stack(ends).square().sum(), [y0, scale, *leaves])
    stacked = [*wanted[:2], *(torch.stack(wanted[2 + 3 * i : 5 + 3 * i]) for i in range(len(names)))]
    for a, b in zip(found, stacked, strict=True):
        assert relative_error(a, b) < (1e-5 if gradient == "adjoint" else 1e-10)


@GRADIENTS
def test_gradients_reach_a_shared_module_and_a_shared_initial_state(gradient: Any) -> None:
    net = networks()[0]
    y0 = torch.tensor([0.3, -0.4]).double().requires_grad_()
    rate = torch.tensor([0.5, 1.0, 2.0]).double().requires_grad_()

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: Tensor, y: Tensor, rate: Tensor) -> Tensor:
            return rate * self.net(y)

    inputs = [y0, rate, *net.parameters()]
    sol = solve_ensemble(Scaled(), y0, (0.0, 1.0), args=(rate,), gradient=gradient, **TIGHT)
    found = torch.autograd.grad(sol.y1.square().sum(), inputs)
    ends = [solve(Scaled(), y0, (0.0, 1.0), args=(r,), gradient="direct", **TIGHT).y1 for r in rate]
    wanted = torch.autograd.grad(torch.stack(ends).square().sum(), inputs)
    for a, b in zip(found, wanted, strict=True):
        assert relative_error(a, b) < (1e-5 if gradient == "adjoint" else 1e-10)


def test_members_may_share_control_inputs_or_have_their_own() -> None:
    times = torch.tensor([0.0, 0.5, 1.0]).double()
    volts = torch.tensor([[0.0, 1.0, -1.0], [1.0, 0.0, 2.0]]).double()
    shared, own = interpolate(times, volts[0], "step"), interpolate(times, volts, "step", rows=True)

    def f(t: Tensor, y: Tensor, rate: Tensor, u: Any = shared) -> Tensor:
        return rate * (u(t) - y)

    rate, y0 = torch.tensor([1.0, 3.0]).double(), torch.zeros(()).double()
    for args, path in (((rate,), volts[:1].expand(2, -1)), ((rate, own), volts)):
        sol = solve_ensemble(f, y0, (0.0, 1.5), args=args, **TIGHT)
        steps = solve_ensemble(f, y0, (0.0, 1.5), args=args, save="steps", **TIGHT).ts.tolist()
        assert all({0.5, 1.0} <= set(row) for row in steps)
        for member in range(2):
            wanted = 0.0
            for volt in path[member].tolist():
                wanted = volt + (wanted - volt) * float(torch.exp(-rate[member] / 2))
            assert sol.y1[member].item() == pytest.approx(wanted, abs=1e-8)


def test_a_failing_member_leaves_the_others_bit_identical() -> None:
    rate = torch.tensor([1.0, 40.0, 0.5]).double()
    y0 = torch.ones(1).double()
    sol = solve_ensemble(lambda t, y, r: r * y**2, y0, (0.0, 0.9), args=(rate,), on_failure="return", **TIGHT)
    assert (sol.status != 0).tolist() == [False, True, False]
    alone = solve_ensemble(lambda t, y, r: r * y**2, y0, (0.0, 0.9), args=(rate[[0, 2]],), **TIGHT)
    assert torch.equal(sol.y1[[0, 2]], alone.y1)


def test_options_of_solve_are_passed_on() -> None:
    falling = Event(lambda t, y, g: y[:, 0])
    sol = solve_ensemble(
        lambda t, y, g: torch.stack((y[1], -g)), torch.tensor([0.0, 5.0]).double(), (0.0, 20.0),
        args=(torch.tensor([9.81, 1.62], dtype=torch.float64),), events=falling, method="dopri5", **TIGHT,
    )  # fmt: skip
    assert sol.ts[:, -1].tolist() == pytest.approx([10 / 9.81, 10 / 1.62], rel=1e-9)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"args": (RHO, RHO[:3])}, ValueError, r"args\[0\] has 4 members along axis 0, args\[1\] has 3 along axis 0"),
        ({"args": (RHO,), "y0_dims": 0}, ValueError, r"y0 has 3 members along axis 0, args\[0\] has 4"),
        ({"args": ()}, ValueError, r"no argument has a member axis: wanted args with one"),
        ({"args": (RHO,), "args_dims": None}, ValueError, "no argument has a member axis: wanted args with one"),
        ({"args": (RHO,), "args_dims": (0, 0)}, ValueError, r"args_dims=\(0, 0\) for 1 args"),
        ({"args": (RHO[0],)}, ValueError, r"args\[0\] is shape \[\]; its dims give axis 0 as the member axis"),
        ({"args": ({"a": RHO},), "args_dims": ({"b": 0},)}, ValueError, r"args_dims for args\[0\] is {'b': 0}"),
        ({"args": RHO}, TypeError, "args is a Tensor; wanted a tuple"),
    ],
)
def test_bad_arguments_are_refused(options: dict, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        solve_ensemble(lambda t, y, *args: -y, Y0, (0.0, 1.0), **options)


def test_randomness_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).double()
    with pytest.raises(ValueError, match=r"f draws random numbers \(dropout in training\?\)"):
        solve_ensemble(lambda t, y, r: r * net(y), Y0, (0.0, 1.0), args=(RHO,))
