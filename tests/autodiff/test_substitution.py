"""Proxies for the tensors that f uses: they are substituted only while a function of the user runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuralode import GradientError, Replay, Separable, solve
from neuralode.autodiff.substitution import Substitute

OPERATIONS = 3  # of the f below


@pytest.fixture
def searched(monkeypatch) -> list[Any]:
    """The torch functions whose arguments were searched for proxies."""
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
def test_only_operations_of_f_are_searched(searched: list[Any], gradient: Any, method: str, per_sample: bool) -> None:
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
    assert not searched
    calls = 0
    sol.y1.sum().backward()
    assert leaf.grad is not None
    assert 0 < len(searched) <= OPERATIONS * calls


@pytest.mark.parametrize("gradient", ["replay", "adjoint"])
def test_both_functions_of_a_pair_are_searched(searched: list[Any], gradient: str) -> None:
    leaf = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    mass, stiffness = leaf.exp(), leaf.cos()
    f = Separable(lambda t, p: p / mass, lambda t, q: -stiffness * q)
    y0 = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    found = {}
    for choice in (gradient, "direct"):
        q, _ = solve(f, y0, (0.0, 1.0), method="yoshida4", step_size=0.01, gradient=choice).y1
        (found[choice],) = torch.autograd.grad(q.sum(), leaf, retain_graph=True)
    assert searched
    torch.testing.assert_close(found[gradient], found["direct"], rtol=1e-7, atol=0)


def test_containers_and_keywords_are_searched() -> None:
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


GRADIENTS = pytest.mark.parametrize("gradient", ["replay", Replay(memory="stage"), "adjoint"], ids=str)
ONES = torch.ones(2, dtype=torch.float64)


def computed_or_leaf(computed: bool) -> tuple[Tensor, Tensor]:
    """Return a leaf, and the tensor (it, or computed from it) that f returns unchanged."""
    leaf = torch.tensor([0.7, 0.4], dtype=torch.float64, requires_grad=True)
    return leaf, leaf * leaf if computed else leaf


@GRADIENTS
@pytest.mark.parametrize("computed", [True, False])
@pytest.mark.parametrize("inner", [(), (0.5,)])
def test_a_tensor_that_save_returns_unchanged_has_a_gradient(gradient: Any, computed: bool, inner: tuple) -> None:
    leaf, raw = computed_or_leaf(computed)
    found = []
    for choice in (gradient, "direct"):
        sol = solve(
            lambda t, y: -y * raw.sum(),
            ONES,
            (0.0, *inner, 1.0),
            save=lambda t, y: {"y": y, "raw": raw},
            gradient=choice,
        )
        loss = 10 * sol.ys["raw"].sum() + sol.ys["y"].sum()
        found += torch.autograd.grad(loss, leaf, retain_graph=True)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=0)
    assert found[1].abs().min() > 1


@GRADIENTS
@pytest.mark.parametrize("computed", [True, False])
def test_a_tensor_that_f_returns_unchanged_has_a_gradient(gradient: Any, computed: bool) -> None:
    leaf, raw = computed_or_leaf(computed)
    fields = [
        (lambda t, y: raw, ONES, {}),
        (lambda t, y: (y[1], raw), (ONES, ONES), {}),
        (lambda t, y: {"a": raw, "b": y["a"] * raw}, {"a": ONES, "b": ONES}, {}),
        (Separable(lambda t, p: p, lambda t, q: raw), (ONES, ONES), {"method": "leapfrog", "step_size": 0.1}),
    ]
    for f, y0, options in fields:
        found = []
        for choice in (gradient, "direct"):
            y1 = solve(f, y0, (0.0, 1.0), gradient=choice, **options).y1
            found += torch.autograd.grad(sum(x.sum() for x in tree_leaves(y1)), leaf, retain_graph=True)
        torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("computed", [True, False])
def test_a_tensor_that_f_returns_unchanged_has_second_derivatives(computed: bool) -> None:
    leaf, raw = computed_or_leaf(computed)
    found = []
    for choice in ("replay", "direct"):
        sol = solve(lambda t, y: (y[1] ** 2, raw), (ONES, ONES), (0.0, 1.0), gradient=choice)
        (first,) = torch.autograd.grad(sol.y1[0].sum(), leaf, create_graph=True)
        found += torch.autograd.grad(first.square().sum(), leaf, retain_graph=True)
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=0)


@pytest.mark.parametrize("gradient", ["replay", Replay(memory="stage")], ids=str)
@pytest.mark.parametrize("inner", [(), (0.7,)])
def test_a_tensor_that_save_uses_only_later_is_refused(gradient: Any, inner: tuple) -> None:
    rate, late = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.3, 2.0))
    sol = solve(
        lambda t, y: -rate * y,
        ONES,
        (0.0, *inner, 1.0),
        save=lambda t, y: y * late if t > 0.5 else y,
        gradient=gradient,
    )
    with pytest.raises(GradientError, match="did not use at the first evaluation"):
        sol.ys.sum().backward()


class Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return cotangents[0] * y, cotangents[0] * x


@GRADIENTS
def test_an_autograd_function_with_a_computed_tensor_is_refused_unless_it_is_in_args(gradient: Any) -> None:
    leaf, computed = computed_or_leaf(True)

    def f(t: Tensor, y: Tensor, by: Tensor) -> Tensor:
        return -Times.apply(y, by) * leaf

    known = torch.autograd.grad(solve(f, ONES, (0.0, 1.0), args=(computed,), gradient="direct").y1.sum(), leaf)
    computed = leaf * leaf
    sol = solve(f, ONES, (0.0, 1.0), args=(computed,), gradient=gradient)
    torch.testing.assert_close(torch.autograd.grad(sol.y1.sum(), leaf), known, rtol=1e-4, atol=0)
    computed = leaf * leaf
    sol = solve(lambda t, y: f(t, y, computed), ONES, (0.0, 1.0), gradient=gradient)
    with pytest.raises(GradientError, match=r"such as the apply of a torch.autograd.Function.*Pass it in args"):
        sol.y1.sum().backward()
