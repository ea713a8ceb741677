"""Callbacks of func receive what torchdiffeq passes to them."""

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


class Recording(Field):
    """A field that records the arguments of its callbacks."""

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
def test_callbacks_receive_time_state_and_size_of_every_attempt(library: Any, tupled: bool) -> None:
    field = Recording(tupled)
    library.odeint(field, state(tupled), TIMES, method="dopri5", options={"first_step": 0.5}, rtol=1e-6)
    attempts, accepted, rejected = (field.named(name) for name in NAMES)
    assert len(attempts) == len(accepted) + len(rejected)
    assert len(rejected) >= 1  # the first attempt is far too long
    assert {shapes(y) for _, y, _ in attempts} == {((4, 3), ()) if tupled else (4, 3)}
    assert all(t.dim() == 0 and dt.dim() == 0 and t.dtype == dt.dtype == torch.float64 for t, _, dt in attempts)
    assert torch.allclose(attempts[0][2], torch.tensor(0.5, dtype=torch.float64))
    ends = [t + dt for t, _, dt in accepted]
    assert torch.allclose(torch.stack(ends[:-1]), torch.stack([t for t, _, _ in accepted[1:]]))


@BOTH
def test_callbacks_receive_the_users_times_and_positive_sizes_backwards(library: Any) -> None:
    field = Recording(False)
    library.odeint(field, state(False), TIMES.flip(0), rtol=1e-6, atol=1e-6)
    accepted = field.named("callback_accept_step")
    assert accepted[0][0] == 1.2
    assert all(dt > 0 for _, _, dt in accepted)
    assert all(b[0] < a[0] for a, b in pairwise(accepted))


@BOTH
def test_fixed_steps_call_one_callback_and_warn_about_the_others(library: Any) -> None:
    field = Recording(False)
    with pytest.warns(UserWarning, match="does not support callbacks") as warned:
        library.odeint(field, state(False), TIMES, method="rk4")
    [message] = [str(w.message) for w in warned if "callbacks" in str(w.message)]
    assert message.startswith("Solver 'rk4' does not support callbacks {")
    assert all(name in message for name in NAMES[1:])
    steps = field.named("callback_step")
    assert torch.allclose(torch.stack([t for t, _, _ in steps]), TIMES[:-1])
    assert torch.allclose(torch.stack([dt for _, _, dt in steps]), TIMES.diff())


def test_supported_callbacks_cause_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.odeint(Recording(False), state(False), TIMES, method="dopri5")
        ours.odeint(Recording(False, names=NAMES[:1]), state(False), TIMES, method="euler")


@BOTH
@pytest.mark.parametrize("tupled", [False, True], ids=["tensor", "tuple"])
def test_the_backward_solve_calls_the_adjoint_callbacks(library: Any, tupled: bool) -> None:
    field = Recording(tupled, "_adjoint")
    ys = library.odeint_adjoint(field, state(tupled), TIMES, method="dopri5", rtol=1e-6, atol=1e-6)
    assert field.calls == []
    flat(ys).sum().backward()
    attempts, accepted, rejected = (field.named(name + "_adjoint") for name in NAMES)
    assert len(attempts) == len(accepted) + len(rejected) > 3
    # ∂L/∂t, the state, its adjoint and ∂L/∂θ; a tuple state is flattened
    shape = (13,) if tupled else (4, 3)
    assert {shapes(y) for _, y, _ in attempts} == {((), shape, shape, (3, 3), (3,))}
    assert attempts[0][0] == 1.2
    assert all(dt > 0 for _, _, dt in attempts)


@BOTH
def test_adjoint_callbacks_of_a_fixed_step_method(library: Any) -> None:
    field = Recording(False, "", "_adjoint", names=NAMES[:1])
    ys = library.odeint_adjoint(field, state(False), TIMES, method="heun3")
    ys.sum().backward()
    assert len(field.named("callback_step")) == len(field.named("callback_step_adjoint")) == 3


def test_every_step_calls_its_callback_when_times_require_gradients() -> None:
    field = Recording(False, names=NAMES[:1])
    t = TIMES.clone().requires_grad_()
    ours.odeint(field, state(False), t, method="midpoint")
    assert torch.allclose(torch.stack([t for t, _, _ in field.named("callback_step")]), TIMES[:-1])
