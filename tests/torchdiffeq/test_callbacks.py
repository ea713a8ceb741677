"""Functions that want to be told of steps are told what torchdiffeq tells them."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from both import TIMES, Field, flat, ours, state, theirs
from torch import Tensor

NAMES = ("callback_step", "callback_accept_step", "callback_reject_step")
BOTH = pytest.mark.parametrize("library", [ours, theirs], ids=["ours", "theirs"])


class Told(Field):
    """Keeps what its callbacks are given."""

    def __init__(self, tupled: bool, *suffixes: str, names: tuple[str, ...] = NAMES) -> None:
        super().__init__(tupled)
        self.calls: list[tuple[str, Tensor, Any, Tensor]] = []
        for name in names:
            for suffix in suffixes or ("",):
                setattr(self, name + suffix, lambda t, y, dt, name=name + suffix: self.calls.append((name, t, y, dt)))

    def named(self, name: str) -> list[tuple[Tensor, Any, Tensor]]:
        return [call[1:] for call in self.calls if call[0] == name]


def shapes(y: Any) -> Any:
    return tuple(tuple(part.shape) for part in y) if isinstance(y, tuple) else tuple(y.shape)


@BOTH
@pytest.mark.parametrize("tupled", [False, True], ids=["tensor", "tuple"])
def test_every_attempt_is_told_with_time_state_and_size(library: Any, tupled: bool) -> None:
    field = Told(tupled)
    library.odeint(field, state(tupled), TIMES, method="dopri5", options={"first_step": 0.5}, rtol=1e-6)
    attempts, accepted, rejected = (field.named(name) for name in NAMES)
    assert len(attempts) == len(accepted) + len(rejected)
    assert len(rejected) >= 1  # the first is far too long
    assert {shapes(y) for _, y, _ in attempts} == {((4, 3), ()) if tupled else (4, 3)}
    assert all(t.dim() == 0 and dt.dim() == 0 and t.dtype == dt.dtype == torch.float64 for t, _, dt in attempts)
    assert torch.allclose(attempts[0][2], torch.tensor(0.5, dtype=torch.float64))
    ends = [t + dt for t, _, dt in accepted]
    assert torch.allclose(torch.stack(ends[:-1]), torch.stack([t for t, _, _ in accepted[1:]]))


@BOTH
def test_a_solve_that_goes_backwards_tells_times_as_they_are_and_positive_sizes(library: Any) -> None:
    field = Told(False)
    library.odeint(field, state(False), TIMES.flip(0), rtol=1e-6, atol=1e-6)
    accepted = field.named("callback_accept_step")
    assert accepted[0][0] == 1.2
    assert all(dt > 0 for _, _, dt in accepted)
    assert all(b[0] < a[0] for a, b in pairwise(accepted))


@BOTH
def test_stated_steps_are_told_and_the_other_callbacks_are_warned_of(library: Any) -> None:
    field = Told(False)
    with pytest.warns(UserWarning, match="does not support callbacks") as warned:
        library.odeint(field, state(False), TIMES, method="rk4")
    [message] = [str(w.message) for w in warned if "callbacks" in str(w.message)]
    assert message.startswith("Solver 'rk4' does not support callbacks {")
    assert all(name in message for name in NAMES[1:])
    told = field.named("callback_step")
    assert torch.allclose(torch.stack([t for t, _, _ in told]), TIMES[:-1])
    assert torch.allclose(torch.stack([dt for _, _, dt in told]), TIMES.diff())


def test_callbacks_that_are_supported_raise_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.odeint(Told(False), state(False), TIMES, method="dopri5")
        ours.odeint(Told(False, names=NAMES[:1]), state(False), TIMES, method="euler")


@BOTH
@pytest.mark.parametrize("tupled", [False, True], ids=["tensor", "tuple"])
def test_the_way_back_is_told_to_the_twins(library: Any, tupled: bool) -> None:
    field = Told(tupled, "_adjoint")
    ys = library.odeint_adjoint(field, state(tupled), TIMES, method="dopri5", rtol=1e-6, atol=1e-6)
    assert field.calls == []
    flat(ys).sum().backward()
    attempts, accepted, rejected = (field.named(name + "_adjoint") for name in NAMES)
    assert len(attempts) == len(accepted) + len(rejected) > 3
    # ∂L/∂t, the state and its adjoint, of a tuple in a row, and those of the parameters
    whole = (13,) if tupled else (4, 3)
    assert {shapes(y) for _, y, _ in attempts} == {((), whole, whole, (3, 3), (3,))}
    assert attempts[0][0] == 1.2
    assert all(dt > 0 for _, _, dt in attempts)


@BOTH
def test_twins_of_a_method_with_stated_steps(library: Any) -> None:
    field = Told(False, "", "_adjoint", names=NAMES[:1])
    ys = library.odeint_adjoint(field, state(False), TIMES, method="heun3")
    ys.sum().backward()
    assert len(field.named("callback_step")) == len(field.named("callback_step_adjoint")) == 3


def test_callbacks_are_told_of_each_step_where_times_are_learned() -> None:
    field = Told(False, names=NAMES[:1])
    t = TIMES.clone().requires_grad_()
    ours.odeint(field, state(False), t, method="midpoint")
    assert torch.allclose(torch.stack([t for t, _, _ in field.named("callback_step")]), TIMES[:-1])
