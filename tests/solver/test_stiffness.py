"""The stiffness warning: when it is given, when not, and its cost."""

from __future__ import annotations

import warnings
from typing import Any

import problems
import pytest
import torch
from torch import Tensor

from neuralode import Dose, SolveError, StiffnessWarning, solve


def van_der_pol(t: Tensor, y: Tensor) -> Tensor:
    return problems.van_der_pol(t, y, 1000.0)


def robertson(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    first, second = -0.04 * a + 1e4 * b * c, 3e7 * b * b
    return torch.stack((first, -first - second, second), -1)


def hires(t: Tensor, y: Tensor) -> Tensor:
    """Schäfer's problem of plant physiology (Hairer & Wanner, Solving ODEs II, IV.10)."""
    a, b, c, d, e, g, h, i = y.unbind(-1)
    return torch.stack(
        [
            -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
            1.71 * a - 8.75 * b,
            -10.03 * c + 0.43 * d + 0.035 * e,
            8.32 * b + 1.71 * c - 1.12 * d,
            -1.745 * e + 0.43 * g + 0.43 * h,
            -280 * g * i + 0.69 * d + 1.71 * e - 0.43 * g + 0.69 * h,
            280 * g * i - 1.81 * h,
            -280 * g * i + 1.81 * h,
        ],
        -1,
    )


def tracking(t: Tensor, y: Tensor) -> Tensor:
    return -1000 * (y - torch.cos(t)[..., None] if t.dim() else y - torch.cos(t))


STIFF = {
    "van der Pol": (van_der_pol, [2.0, 0.0], 1.0),
    "Robertson": (robertson, [1.0, 0.0, 0.0], 1.0),
    "HIRES": (hires, [1.0, 0, 0, 0, 0, 0, 0, 0.0057], 20.0),
    "tracking": (tracking, [0.0], 3.0),
}


def state(numbers: list[float]) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


@pytest.mark.parametrize("name", STIFF)
@pytest.mark.parametrize("method", ["tsit5", "bosh3"])
def test_stiff_problems_warn(name: str, method: str) -> None:
    f, y0, end = STIFF[name]
    with pytest.warns(StiffnessWarning, match="kvaerno5"):
        sol = solve(f, state(y0), (0.0, end), method=method, atol=1e-8)
    assert sol.success


@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
def test_the_warning_names_the_method(method: str) -> None:
    with pytest.warns(StiffnessWarning, match=method):
        solve(tracking, state([0.0]), (0.0, 5.0), method=method)


def test_one_stiff_row_with_its_own_steps_warns() -> None:
    """Without that row there is no warning."""
    rates = torch.tensor([[1.0], [1000.0]], dtype=torch.float64)

    def f(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
        return -rates * (y - torch.cos(t)[:, None])

    how: dict[str, Any] = {"per_sample": True, "args_dims": 0}
    y0 = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.warns(StiffnessWarning):
        solve(f, y0, (0.0, 3.0), args=(rates,), **how)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(f, y0[:1], (0.0, 3.0), args=(rates[:1],), **how)


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
@pytest.mark.parametrize(
    "name", ["lorenz", "oscillator", "van der Pol 2", "brusselator", "arenstorf", "pleiades", "mlp"]
)
def test_long_solves_that_are_not_stiff_do_not_warn(name: str, rtol: float) -> None:
    ends = {"lorenz": 60.0, "oscillator": 600.0, "van der Pol 2": 200.0, "brusselator": 100.0, "mlp": 100.0}
    fields = {"van der Pol 2": problems.van_der_pol, "lorenz": problems.lorenz, "oscillator": problems.oscillator}
    starts = {"van der Pol 2": [2.0, 0.0], "lorenz": [1.0, 1.0, 1.0], "oscillator": [1.0, 0.0]}
    if name == "mlp":
        net = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Tanh(), torch.nn.Linear(64, 2)).double()
        f, y0 = (lambda t, y: 3 * net(y)), torch.randn(16, 2, dtype=torch.float64)
    elif name in fields:
        f, y0 = fields[name], state(starts[name])
    else:
        f, y0 = problems.PROBLEMS[name].f, problems.PROBLEMS[name].y0
        ends.setdefault(name, problems.PROBLEMS[name].t1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            sol = solve(f, y0, (0.0, ends[name]), rtol=rtol, atol=rtol * 1e-2)
    assert name not in fields or int(sol.stats.accepted.max()) > 450, "too short to be tested"


def test_implicit_methods_fixed_steps_and_short_solves_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(tracking, state([0.0]), (0.0, 3.0), method="kvaerno5")
        solve(tracking, state([0.0]), (0.0, 3.0), method="rk4", step_size=1e-3)
        assert solve(tracking, state([0.0]), (0.0, 0.5)).stats.accepted < 400


def test_one_caller_is_warned_once() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for end in (2.0, 3.0, 4.0):
            solve(tracking, state([0.0]), (0.0, end))
    assert [warning.category for warning in found] == [StiffnessWarning]
    assert found[0].filename == __file__


def test_the_test_for_stiffness_costs_few_calls_and_is_not_counted() -> None:
    calls = [0]

    def counted(t: Tensor, y: Tensor) -> Tensor:
        calls[0] += 1
        return tracking(t, y)

    with pytest.warns(StiffnessWarning):
        sol = solve(counted, state([0.0]), (0.0, 3.0))
    assert calls[0] - sol.stats.calls <= 3


def test_errors_name_implicit_methods_only_if_the_problem_looks_stiff() -> None:
    with pytest.raises(SolveError, match="(?s)looks stiff.*kvaerno5.*radauIIA5"):
        solve(tracking, state([0.0]), (0.0, 100.0), max_steps=400)
    for f, end, options in [
        (problems.lorenz, 100.0, {"max_steps": 400}),
        (lambda t, y: y * y, 2.0, {}),
        (tracking, 100.0, {"method": "kvaerno5", "max_steps": 10}),
    ]:
        with pytest.raises(SolveError) as raised:
            solve(f, state([1.0, 1.0, 1.0]), (0.0, end), **options)
        assert "stiff" not in str(raised.value)


def test_a_segment_between_doses_warns() -> None:
    with pytest.warns(StiffnessWarning):
        solve(tracking, state([0.0]), (0.0, 4.0), doses=Dose(0.5, 1.0))
