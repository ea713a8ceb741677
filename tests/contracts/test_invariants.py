"""What holds for any state, any times and any options: counter-examples are looked for at random."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from fields import FIXED, METHODS, relative_error
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

import neuralode
from neuralode import PI, PID, Adjoint, Direct, Fixed, I, Replay, solve

quickly = settings(deadline=None, max_examples=40)

methods = some.sampled_from(sorted(METHODS))
dtypes = some.sampled_from([torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bfloat16])
shapes = some.lists(some.integers(0, 3), max_size=3).map(tuple)
ROWS = 3


@some.composite
def tensors(draw: Any) -> Tensor:
    draw_seed = torch.Generator().manual_seed(draw(some.integers(0, 1000)))
    return torch.randn(ROWS, *draw(shapes), dtype=torch.complex128, generator=draw_seed).to(torch.complex128)


@some.composite
def states(draw: Any) -> Any:
    """A pytree of tensors that share a leading axis of rows, of any dtypes."""

    def leaf() -> Tensor:
        x, dtype = draw(tensors()), draw(dtypes)
        return x.to(dtype) if dtype.is_complex else x.real.to(dtype)

    kind = draw(some.sampled_from(["leaf", "tuple", "dict", "nested"]))
    if kind == "leaf":
        return leaf()
    if kind == "tuple":
        return leaf(), leaf()
    if kind == "dict":
        return {"b": leaf(), "a": leaf()}
    return {"x": (leaf(), [leaf()])}


def stepping(method: str) -> dict[str, Any]:
    return {"method": method, "step_size": 0.21} if method in FIXED else {"method": method, "rtol": 1e-2, "atol": 1e-2}


@quickly
@given(y0=states(), per_sample=some.booleans(), method=methods, reverse=some.booleans())
def test_any_state_stays_where_it_is_without_a_slope(y0: Any, per_sample: bool, method: str, reverse: bool) -> None:
    def still(t: Tensor, y: Any) -> Any:
        assert [x.dtype for x in tree_flatten(y)[0]] == [x.dtype for x in tree_flatten(y0)[0]]
        return tree_map(torch.zeros_like, y)

    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64) * (-1 if reverse else 1)
    sol = solve(still, y0, times, per_sample=per_sample, dense=True, **stepping(method))
    leaves, spec = tree_flatten(sol.ys)
    wanted, wanted_spec = tree_flatten(y0)
    assert spec == wanted_spec
    for leaf, start in zip(leaves, wanted, strict=True):
        assert leaf.dtype == start.dtype
        torch.testing.assert_close(leaf, start.expand(3, *start.shape), rtol=0, atol=0)
    read = tree_flatten(sol(float(times[1])))[0]
    assert [x.shape for x in read] == [x.shape for x in wanted]


@quickly
@given(
    inner=some.lists(some.lists(some.floats(0.0, 1.0), min_size=2, max_size=2), min_size=3, max_size=3),
    method=methods,
    reverse=some.booleans(),
)
def test_rows_with_times_of_their_own_are_what_they_are_alone(
    inner: list[list[float]], method: str, reverse: bool
) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(3 * y) + 0.3 * t[..., None]

    sign = -1 if reverse else 1
    spans = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    t = sign * torch.tensor([[0.0, *sorted(row), 1.0] for row in inner], dtype=torch.float64) * spans[:, None]
    y0 = torch.tensor([[0.5], [-0.2], [1.0]], dtype=torch.float64)
    together = solve(f, y0, t, per_sample=True, **stepping(method))
    for i in range(3):
        alone = solve(f, y0[i : i + 1], t[i], **stepping(method))
        torch.testing.assert_close(together.ys[:, i], alone.ys[:, 0], rtol=1e-12, atol=1e-13)


@quickly
@given(
    points=some.lists(some.floats(0.0, 2.0), min_size=1, max_size=5),
    method=methods,
    per_sample=some.booleans(),
    every=some.sampled_from([1, 2, 5]),
    memory=some.sampled_from(["step", "stage"]),
    repeat=some.booleans(),
)
def test_replay_equals_direct_at_any_times(
    points: list[float], method: str, per_sample: bool, every: int, memory: Any, repeat: bool
) -> None:
    """Output times on top of each other, at the start, at the end, and in any step."""
    points = [*sorted(points), *([2.0, 2.0] if repeat else []), 2.0]
    t = torch.tensor([0.0, *points], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([[0.5], [-0.3]], dtype=torch.float64, requires_grad=True)
    k = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(t), 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def f(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
        return torch.sin(k * y) - t[..., None]

    def gradients(gradient: Any) -> tuple[Tensor, ...]:
        sol = solve(f, y0, t, args=(k,), per_sample=per_sample, gradient=gradient, **(stepping(method) | tight))
        return torch.autograd.grad((sol.ys * weights).sum(), [y0, k, t])

    # where Newton's iteration stops at a tolerance, the recorded steps and those taken again differ by that
    iterates = METHODS[method].inexact > 0 and METHODS[method].adaptive
    tight, bound = ({"rtol": 1e-7, "atol": 1e-9}, 1e-4) if iterates else ({}, 1e-10)
    assert max(map(relative_error, gradients(Replay(every=every, memory=memory)), gradients(Direct()))) <= bound


OPTIONS = [
    Replay(every=3, memory="stage"),
    Adjoint(rtol=1e-3, norm="full"),
    Direct(),
    I(),
    PI(max_step=0.1),
    PID(),
    Fixed(0.1),
]


@pytest.mark.parametrize("option", [*OPTIONS, *METHODS.values()], ids=str)
def test_an_option_copies_pickles_and_compares(option: Any) -> None:
    assert copy.deepcopy(option) == option
    assert pickle.loads(pickle.dumps(option)) == option
    assert hash(option) == hash(copy.deepcopy(option))


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_an_option_is_frozen(option: Any) -> None:
    with pytest.raises((AttributeError, TypeError)):
        option.every = 2


def test_a_solution_is_the_same_twice() -> None:
    """No hidden state: the second solve of anything is the first."""
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 4, dtype=torch.float64)
    y0 = torch.randn(5, 4, dtype=torch.float64)
    for options in ({}, {"per_sample": True}, {"method": "rk4", "step_size": 0.1}, {"dense": True}):
        first = solve(lambda t, y: torch.tanh(net(y)), y0, (0.0, 3.0), **options)
        again = solve(lambda t, y: torch.tanh(net(y)), y0, (0.0, 3.0), **options)
        assert torch.equal(first.ys, again.ys)
        assert torch.equal(first.stats.evaluations, again.stats.evaluations)


def test_a_solve_inside_f_of_another_is_no_matter() -> None:
    """Nested solves, and nested gradients."""
    k = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def outer(t: Tensor, y: Tensor) -> Tensor:
        inner = neuralode.solve(lambda s, z: -k * z, y, (0.0, 1.0), method="rk4", step_size=0.5)
        return -inner.ys[-1]

    def gradient(name: str) -> Tensor:
        sol = solve(outer, torch.ones(2, dtype=torch.float64), (0.0, 1.0), method="rk4", step_size=0.25, gradient=name)
        return torch.autograd.grad(sol.ys[-1].sum(), k)[0]

    assert relative_error(gradient("replay"), gradient("direct")) <= 1e-10
