"""`resolve` turns the arguments of every front end into one checked configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fields import Counting
from torch import Tensor

import neuralode as node
from neuralode import PI, PID, Adjoint, Event, Fixed, Given, I, Replay, Scipy, Stepper, solve, solve_ensemble
from neuralode.engines.eager import Eager
from neuralode.nn import NeuralODE
from neuralode.solver.config import resolve

Y0 = torch.ones(3, 2, dtype=torch.float64)
SPAN = (0.0, 1.0)


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


class Silent:
    """An observer without the method ``rejected``."""

    def attempted(self, t: Any, y: Tensor, h: Any) -> None: ...

    def accepted(self, t: Any, y: Tensor, h: Any) -> None: ...


# ------------------------------------------------------------------------------------------------------- resolution


def test_the_defaults_are_tsit5_with_the_integral_controller_replay_and_the_eager_engine() -> None:
    problem, config = resolve(decay, Y0, SPAN)
    assert config.method is node.methods()["tsit5"]
    assert (config.controller, config.gradient) == (I(), Replay())
    assert isinstance(config.engine, Eager)
    assert (config.norm.rtol, config.norm.atol, config.norm.reduction) == (1e-4, 1e-6, "rms")
    assert (config.max_steps, config.dense, config.save, config.events) == (100_000, False, None, ())
    assert (config.observer, config.progress, config.on_progress) == (None, False, None)
    assert not config.stops
    assert (problem.times, problem.direction, problem.per_sample) == ([0.0, 1.0], 1.0, False)
    assert torch.equal(problem.y0, Y0)


@pytest.mark.parametrize(
    ("options", "controller"),
    [
        ({"controller": "pi"}, PI()),
        ({"controller": "pid"}, PID()),
        ({"method": "rk4", "step_size": 0.1}, Fixed(0.1)),
    ],
    ids=str,
)
def test_names_and_step_sizes_become_controllers(options: dict[str, Any], controller: Any) -> None:
    assert resolve(decay, Y0, SPAN, **options)[1].controller == controller


def test_objects_are_used_as_given() -> None:
    given: dict[str, Any] = {
        "method": node.methods()["bosh3"],
        "controller": PID(max_step=0.5),
        "gradient": Adjoint(rtol=1e-3),
        "engine": Eager(),
    }
    config = resolve(decay, Y0, SPAN, **given)[1]
    assert all(getattr(config, name) is value for name, value in given.items())


def test_tolerances_are_packed_as_the_state() -> None:
    y0 = {"a": torch.ones(2, dtype=torch.float64), "b": torch.ones(3, dtype=torch.float64)}
    norm = resolve(lambda t, y: y, y0, SPAN, rtol={"a": 1e-3, "b": 1e-2}, atol=1e-5)[1].norm
    assert isinstance(norm.rtol, Tensor)
    assert norm.rtol.tolist() == [[1e-3, 1e-3, 1e-2, 1e-2, 1e-2]]
    assert norm.atol == 1e-5


def test_one_event_and_a_list_of_events_become_a_tuple() -> None:
    event = Event(lambda t, y: y[0, 0] - 0.5)
    assert resolve(decay, Y0, SPAN, events=event)[1].events == (event,)
    assert resolve(decay, Y0, SPAN, events=[event, event])[1].events == (event, event)


def test_a_terminal_event_allows_an_infinite_last_time() -> None:
    event = Event(lambda t, y: y[0, 0] - 0.5)
    assert resolve(decay, Y0, (0.0, math.inf), events=event)[0].times == [0.0, math.inf]
    with pytest.raises(ValueError, match="not finite"):
        resolve(decay, Y0, (0.0, math.inf), events=dataclasses.replace(event, terminal=False))


def test_f_is_not_evaluated() -> None:
    f = Counting(decay)
    resolve(f, Y0, SPAN)
    assert f.calls == 0


def test_a_configuration_is_frozen() -> None:
    config = resolve(decay, Y0, SPAN)[1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.max_steps = 3  # type: ignore[misc]


# --------------------------------------------------------------------------------------------------------- refusals

SAME_AS_SOLVE = {
    "an unknown method": {"method": "dopri"},
    "no method": {"method": 3},
    "a fixed method without a step size": {"method": "rk4"},
    "a step size for an adaptive method": {"step_size": 0.1},
    "a negative step size": {"method": "rk4", "step_size": -0.1},
    "a step size that is text": {"method": "rk4", "step_size": "0.1"},
    "an unknown controller": {"controller": "pdi"},
    "a controller and a step size": {"method": "rk4", "step_size": 0.1, "controller": "pi"},
    "a controller of errors for a fixed method": {"method": "rk4", "controller": "pi"},
    "an unknown norm": {"controller": PID(norm="rsm")},  # type: ignore[arg-type]
    "an unknown engine": {"engine": "eagre"},
    "an engine without the members": {"engine": object()},
    "no attempts": {"max_steps": 0},
    "attempts that are no integer": {"max_steps": 1.5},
    "attempts that are a truth value": {"max_steps": True},
    "a negative rtol": {"rtol": -1.0},
    "an atol that is not finite": {"atol": math.nan},
    "an rtol of another shape": {"rtol": torch.ones(7)},
    "an rtol that is a truth value": {"rtol": True},
    "no tolerance": {"rtol": 0.0, "atol": 0.0},
    "integer times": {"t": torch.tensor([0, 1])},
    "times that are text": {"t": "01"},
    "no times": {"t": torch.tensor([])},
    "times there and back": {"t": torch.tensor([0.0, 1.0, 0.5])},
    "an infinite time": {"t": (0.0, math.inf)},
    "times of rows on a shared clock": {"t": torch.zeros(3, 2), "per_sample": False},
    "times of other rows": {"t": torch.zeros(2, 2), "per_sample": True},
    "an integer state": {"y0": torch.ones(3, 2, dtype=torch.int64)},
    "a method in one call on clocks by row": {"method": Scipy(), "per_sample": True},
}
NOT_BY_THE_LAYER: dict[str, dict[str, Any]] = {"args that are no tuple": {"args": [1.0]}}
NOT_BY_THE_STEPPER: dict[str, dict[str, Any]] = {
    "an unknown gradient": {"gradient": "repla"},
    "a gradient without the members": {"gradient": object()},
    "the full norm on clocks by row": {"gradient": Adjoint(norm="full"), "per_sample": True},
    "a backward method without a step size": {"gradient": Adjoint(method="rk4")},
    "a backward step size for an adaptive method": {"gradient": Adjoint(method="tsit5", step_size=0.1)},
}
BY_SOLVE_AND_ENSEMBLES: dict[str, dict[str, Any]] = {
    "an unknown save": {"save": "step"},
    "events that are no Event": {"events": [3]},
    "an observer without the members": {"observer": Silent()},
    "an observer that is a class": {"observer": type("Watch", (Silent,), {"rejected": Silent.accepted})},
    "stops given twice": {"step_t": [0.5], "jump_t": [0.5]},
    "stops that are not finite": {"step_t": [math.nan]},
    "integer stops": {"step_t": torch.tensor([0, 1])},
    "events among saved steps": {"events": Event(lambda t, y: y.sum()), "save": "steps"},
    "jumps by row with a multistep method": {"method": "adams", "jump_t": [0.5], "per_sample": True},
    "dense output of a method in one call": {"method": Scipy(), "dense": True, "per_sample": False},
    "saved steps of a method in one call": {"method": Scipy(), "save": "steps", "per_sample": False},
    "events of a method in one call": {
        "method": Scipy(),
        "events": Event(lambda t, y: y.sum()),
        "gradient": "adjoint",
        "per_sample": False,
    },
    "stops of a method in one call": {"method": Scipy(), "step_t": [0.5], "per_sample": False},
    "jumps of a method in one call": {"method": Scipy(), "jump_t": [0.5], "per_sample": False},
}


def by_layer(f: Any, y0: Any, t: Any, **options: Any) -> Any:
    return NeuralODE(f, **options)(y0, t=t)


def by_ensemble(f: Any, y0: Any, t: Any, **options: Any) -> Any:
    return solve_ensemble(f, y0, t, y0_dims=0, **options)


FRONT_ENDS: dict[str, Callable[..., Any]] = {
    "solve": solve,
    "Stepper": Stepper,
    "solve_ensemble": by_ensemble,
    "NeuralODE": by_layer,
}
ALL = SAME_AS_SOLVE | NOT_BY_THE_LAYER | NOT_BY_THE_STEPPER | BY_SOLVE_AND_ENSEMBLES
CASES = [
    (front_end, case)
    for cases, front_ends in (
        (SAME_AS_SOLVE, FRONT_ENDS),
        (NOT_BY_THE_LAYER, ("solve", "Stepper", "solve_ensemble")),
        (NOT_BY_THE_STEPPER, ("solve", "solve_ensemble", "NeuralODE")),
        (BY_SOLVE_AND_ENSEMBLES, ("solve", "solve_ensemble")),
    )
    for case in cases
    for front_end in front_ends
]


def refusal(front_end: Callable[..., Any], options: dict[str, Any]) -> tuple[type[Exception], str]:
    """The type and the text of the refusal of some arguments."""
    arguments = {"y0": Y0, "t": SPAN, "per_sample": False, **options}
    y0, t = arguments.pop("y0"), arguments.pop("t")
    with pytest.raises((TypeError, ValueError)) as error:
        front_end(decay, y0, t, **arguments)
    return type(error.value), str(error.value)


@pytest.mark.parametrize("case", ALL)
def test_a_refusal_names_the_argument(case: str) -> None:
    _, message = refusal(resolve, ALL[case])
    names = [name for name in ALL[case] if name != "per_sample"]
    assert any(name in message for name in (*names, "times", "norm", "Adjoint", "an event", "dense")), message


@pytest.mark.parametrize(("front_end", "case"), CASES)
def test_every_front_end_refuses_in_the_same_words(front_end: str, case: str) -> None:
    assert refusal(FRONT_ENDS[front_end], ALL[case]) == refusal(resolve, ALL[case])


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_every_front_end_takes_what_resolve_takes(front_end: str) -> None:
    options: dict[str, Any] = {"method": "bosh3", "rtol": 1e-3, "controller": Given(torch.linspace(0, 1, 5).double())}
    resolve(decay, Y0, SPAN, per_sample=False, **options)
    FRONT_ENDS[front_end](decay, Y0, SPAN, per_sample=False, **options)
