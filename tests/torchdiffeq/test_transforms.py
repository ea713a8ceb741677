"""`torch.func` transforms, forward-mode differentiation and `torch.compile` work, or raise an error."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from both import Field, ours, state, theirs
from torch import Tensor
from torch.autograd import forward_ad

Y0 = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
T = torch.linspace(0, 1, 5, dtype=torch.float64)

FIXED_STEP: list[dict[str, Any]] = [
    {"method": "rk4"},
    {"method": "euler", "options": {"step_size": 0.15}},
    {"method": "heun3", "options": {"step_size": 0.15, "interp": "cubic", "perturb": False}},
    {"method": "explicit_adams", "options": {"step_size": 0.05, "max_order": 4}},
]
OURS_ALONE: list[dict[str, Any]] = [{"method": "implicit_midpoint"}]


def swirl(t: Tensor, y: Tensor) -> Tensor:
    return torch.sin(y.flip(-1) + t) - 0.1 * y


def solved(y0: Tensor, library: Any = ours, **arguments: Any) -> Tensor:
    return library.odeint(swirl, y0, T, **arguments)


@pytest.mark.parametrize("arguments", FIXED_STEP, ids=lambda arguments: arguments["method"])
def test_jacobians_of_both_modes_agree_with_autograd(arguments: dict[str, Any]) -> None:
    wanted = torch.autograd.functional.jacobian(lambda y: solved(y, **arguments), Y0)
    assert torch.allclose(wanted, torch.func.jacrev(lambda y: solved(y, theirs, **arguments))(Y0), rtol=1e-10)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(jacobian(lambda y: solved(y, **arguments))(Y0), wanted, rtol=1e-10)


@pytest.mark.parametrize("arguments", FIXED_STEP, ids=lambda arguments: arguments["method"])
def test_vmap_agrees_with_a_batched_solve(arguments: dict[str, Any]) -> None:
    found = torch.func.vmap(lambda y: solved(y, **arguments), out_dims=1)(Y0)
    assert torch.allclose(found, solved(Y0, **arguments), rtol=1e-12)


@pytest.mark.parametrize("arguments", FIXED_STEP + OURS_ALONE, ids=lambda arguments: arguments["method"])
def test_forward_mode_agrees_with_reverse_mode(arguments: dict[str, Any]) -> None:
    tangent = torch.cos(Y0)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(solved(forward_ad.make_dual(Y0, tangent), **arguments)).tangent
    wanted = torch.autograd.functional.jvp(lambda y: solved(y, **arguments), Y0, tangent)[1]
    assert torch.allclose(found, wanted, rtol=1e-9)


def test_parameters_passed_by_functional_call_receive_gradients() -> None:
    field, y0 = Field(True), tuple(part.detach() for part in state(True))
    params = {name: p.detach() for name, p in field.named_parameters()}

    def loss(params: dict[str, Tensor]) -> Tensor:
        rows, level = ours.odeint(lambda t, y: torch.func.functional_call(field, params, (t, y)), y0, T, method="rk4")
        return rows[-1].sum() + level[-1]

    found = torch.func.grad(loss)(params)
    rows, level = ours.odeint(field, y0, T, method="rk4")
    (rows[-1].sum() + level[-1]).backward()
    for name, p in field.named_parameters():
        assert torch.allclose(found[name], p.grad, rtol=1e-10)


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd, torch.func.vmap])
@pytest.mark.parametrize(
    "solve",
    [
        lambda y: ours.odeint(swirl, y, T),
        lambda y: ours.odeint(swirl, y, T, method="gl4"),
        lambda y: ours.odeint_adjoint(swirl, y, T, method="rk4", adjoint_params=()),
        lambda y: ours.odeint_dense(swirl, y, 0.0, 1.0)(0.5),
        lambda y: ours.odeint_event(swirl, y, T[0], event_fn=lambda t, y: t - 0.5)[0],
    ],
    ids=["adaptive", "implicit", "adjoint", "dense", "event"],
)
def test_unsupported_solves_raise_an_error_instead_of_zero_derivatives(transform: Any, solve: Any) -> None:
    with pytest.raises(RuntimeError, match="wanted odeint with an explicit fixed-step method|vmap|functorch"):
        transform(solve)(Y0)


def test_forward_mode_through_adaptive_steps_raises_an_error() -> None:
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="wanted odeint with an explicit fixed-step method"):
        solved(forward_ad.make_dual(Y0, Y0))


def test_activation_checkpointing_leaves_gradients_unchanged() -> None:
    found = []
    for checkpointed in (True, False):
        y0 = Y0.clone().requires_grad_()
        end = (
            torch.utils.checkpoint.checkpoint(lambda y: solved(y)[-1], y0, use_reentrant=False)
            if checkpointed
            else solved(y0)[-1]
        )
        end.sum().backward()
        found.append(y0.grad)
    assert torch.equal(*found)


@pytest.mark.slow  # loading the compiler takes ten seconds
def test_a_compiled_model_solves_outside_of_its_graph() -> None:
    code = """
        import torch
        import neuralode.torchdiffeq as torchdiffeq

        class Model(torch.nn.Module):
            def __init__(self, adjoint):
                super().__init__()
                self.encode, self.field = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
                self.adjoint = adjoint
            def forward(self, x, t):
                z = self.encode(x).relu()
                if self.adjoint:
                    ys = torchdiffeq.odeint_adjoint(lambda t, y: self.field(y).tanh(), z, t,
                                                    adjoint_params=tuple(self.field.parameters()))
                else:
                    ys = torchdiffeq.odeint(lambda t, y: self.field(y).tanh(), z, t, method="rk4")
                return ys[-1].sum() * 2

        x, t = torch.randn(4, 3), torch.linspace(0, 1, 3)
        for adjoint in (False, True):
            model = Model(adjoint)
            plain = model(x, t)
            plain.backward()
            wanted = [p.grad.clone() for p in model.parameters()]
            model.zero_grad()
            for _ in range(2):
                compiled = torch.compile(model, backend="eager")(x, t)
            compiled.backward()
            found = [p.grad for p in model.parameters()]
            print(torch.allclose(plain, compiled), all(map(torch.allclose, wanted, found)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 4
