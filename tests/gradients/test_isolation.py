"""Stand-ins for what f uses: they are looked for where a function of the user runs, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neuralode import Replay, Separable, solve
from neuralode.gradients.isolation import Substitute

OPERATIONS = 3  # of the f below


@pytest.fixture
def met(monkeypatch) -> list[Any]:
    """The torch functions that looked for stand-ins."""
    seen: list[Any] = []
    plain = Substitute.__torch_function__

    def note(self: Substitute, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        seen.append(func)
        return plain(self, func, types, args, kwargs)

    monkeypatch.setattr(Substitute, "__torch_function__", note)
    return seen


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("method", ["rk4", "kvaerno3"])
@pytest.mark.parametrize("gradient", ["replay", Replay(every=2, memory="stage"), "adjoint"], ids=str)
def test_only_operations_of_f_look_for_them(met: list[Any], gradient: Any, method: str, per_sample: bool) -> None:
    leaf = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    computed = leaf.exp()
    calls = 0

    def f(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.sin(torch.mul(torch.sub(y, computed), -1.0))

    stepping = {"step_size": 0.1} if method == "rk4" else {"rtol": 1e-3}
    y0 = torch.ones(3, 2, dtype=torch.float64)
    sol = solve(f, y0, (0.0, 1.0), method=method, gradient=gradient, per_sample=per_sample, **stepping)
    assert not met
    calls = 0
    sol.y1.sum().backward()
    assert leaf.grad is not None
    assert 0 < len(met) <= OPERATIONS * calls


@pytest.mark.parametrize("gradient", ["replay", "adjoint"])
def test_both_functions_of_a_pair_meet_them(met: list[Any], gradient: str) -> None:
    leaf = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    mass, stiffness = leaf.exp(), leaf.cos()
    f = Separable(lambda t, p: p / mass, lambda t, q: -stiffness * q)
    y0 = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    found = {}
    for choice in (gradient, "direct"):
        q, _ = solve(f, y0, (0.0, 1.0), method="yoshida4", step_size=0.01, gradient=choice).y1
        (found[choice],) = torch.autograd.grad(q.sum(), leaf, retain_graph=True)
    assert met
    torch.testing.assert_close(found[gradient], found["direct"], rtol=1e-7, atol=0)


def test_containers_and_keywords_are_looked_into() -> None:
    own, other = torch.ones(2), torch.zeros(2)
    mode = Substitute({id(own): other})
    with mode:
        assert torch.equal(torch.cat([own, own]), torch.zeros(4))
        assert torch.equal(torch.stack((own, torch.ones(2))), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        assert torch.equal(torch.add(torch.ones(2), other=own), torch.ones(2))
    swapped = mode.swap({"a": own, "b": [own, 1.5, None]})
    assert swapped["a"] is other
    assert swapped["b"][0] is other
    assert swapped["b"][1:] == [1.5, None]
