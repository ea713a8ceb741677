"""Methods, controllers, engines, gradients and observers of a user: accepted through every entry point, or refused.

Each is compared with the built-in object that it imitates (see tests/user_objects.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from user_objects import (
    Delegating,
    Elementary,
    Everywhere,
    Grid,
    H,
    Heun,
    Midpoint,
    Pullback,
    Recording,
    Rerun,
)

import neuralode
from neuralode import Adjoint, Dose, Event, GradientError, Stepper, solve, solve_ensemble
from neuralode.controllers.base import AttemptOutcome, Controller, StepDecision
from neuralode.core.registry import members
from neuralode.engines.base import Engine, Observer
from neuralode.gradients.base import Gradient
from neuralode.methods.base import Method
from neuralode.nn import NeuralODE
from neuralode.torchdiffeq import odeint, odeint_adjoint, odeint_dense, odeint_event

F64 = torch.float64
T = torch.tensor([0.0, 0.25, 1.0], dtype=F64)
ROUNDING = {"rtol": 1e-12, "atol": 1e-14}
EXACTLY = {"rtol": 0.0, "atol": 0.0}


class Field(nn.Module):
    """A small field that depends on time, of rows or of a single row, with a callback that records attempts."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(2, 2, generator=generator, dtype=F64))
        self.attempts: list[tuple[float, float]] = []

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.weight) + 3 * torch.sin(4 * (t[:, None] if t.dim() else t))


def initial() -> Tensor:
    return torch.tensor([[1.0, -0.5], [0.3, 2.0], [0.0, 0.1]], dtype=F64, requires_grad=True)


# ------------------------------------------------------------------------------------------------- entry points


@dataclass(frozen=True)
class Entry:
    """One way into the solver: the states at `T` from a field, an initial state and options of `solve`."""

    name: str
    call: Callable[..., Tensor]
    kinds: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


def _by_dropin(function: Any) -> Callable[..., Tensor]:
    def call(
        f: Any, y0: Tensor, *, method: Any = "dopri5", rtol: float = 1e-4, atol: float = 1e-6, **options: Any
    ) -> Any:
        how: dict[str, Any] = {"method": method, "rtol": rtol, "atol": atol, "options": options}
        if function is odeint_dense:
            return odeint_dense(f, y0, T[0], T[-1], **how)(T)
        if function is odeint_event:
            _, states = odeint_event(f, y0, T[0], event_fn=lambda t, y: t - 0.6, **how)
            return states
        return function(f, y0, T, **how)

    return call


def _dosed(f: Any, y0: Tensor, **options: Any) -> Tensor:
    return solve(f, y0, T, doses=Dose(torch.tensor([0.5], dtype=F64), torch.tensor([0.1], dtype=F64)), **options).ys


SOLVER, DROP_IN = ("method", "controller", "engine", "gradient"), ("method", "controller")
ENTRIES = [
    Entry("solve", lambda f, y0, **options: solve(f, y0, T, **options).ys, (*SOLVER, "observer")),
    Entry("doses", _dosed, (*SOLVER, "observer")),
    Entry("ensemble", lambda f, y0, **o: solve_ensemble(f, y0, T, y0_dims=0, **o).ys, (*SOLVER, "observer")),
    Entry("layer", lambda f, y0, **options: NeuralODE(f, **options)(y0, t=T), SOLVER),
    Entry("odeint", _by_dropin(odeint), DROP_IN),
    Entry("odeint_adjoint", _by_dropin(odeint_adjoint), DROP_IN),
    Entry("odeint_dense", _by_dropin(odeint_dense), DROP_IN),
    Entry("odeint_event", _by_dropin(odeint_event), DROP_IN),
]
STEPPER = Entry("stepper", lambda f, y0, **options: Stepper(f, y0, (0.0, 1.0), **options).step().y, SOLVER[:3])


def entries(kind: str) -> Any:
    return pytest.mark.parametrize("entry", [entry for entry in ENTRIES if kind in entry.kinds], ids=str)


def every_way(kind: str) -> Any:
    ways = [entry for entry in (*ENTRIES, STEPPER) if kind in entry.kinds]
    return pytest.mark.parametrize("entry", ways, ids=str)


def answers(entry: Entry, outputs: slice = slice(None), **options: Any) -> list[Tensor]:
    """Return some of the states, and the derivatives of a sum of their squares."""
    f, y0 = Field(), initial()
    ys = entry.call(f, y0, **options)[outputs]
    return [ys.detach(), *torch.autograd.grad((ys * ys).sum(), (y0, f.weight))]


def assert_equal(found: Any, wanted: Any, **tolerances: float) -> None:
    torch.testing.assert_close(found, wanted, **(tolerances or ROUNDING))


END = slice(-1, None)  # without the outputs within steps


# ------------------------------------------------------------------------------------------------- methods


@entries("method")
def test_a_method_without_a_base_class_takes_the_steps_of_the_built_in_one(entry: Entry) -> None:
    found, wanted = (answers(entry, method=method, step_size=H) for method in (Midpoint(), "midpoint"))
    assert_equal(found, wanted)


@entries("method")
def test_a_method_by_the_base_class_takes_the_steps_of_the_built_in_one(entry: Entry) -> None:
    found, wanted = (answers(entry, END, method=method, rtol=1e-5) for method in (Heun(), "adaptive_heun"))
    assert_equal(found, wanted, rtol=1e-8, atol=1e-10)  # the adjoint adapts its steps, which amplifies rounding


@pytest.mark.parametrize("gradient", ["replay", "adjoint", "direct"])
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per_sample"])
@pytest.mark.parametrize(("method", "built_in"), [(Midpoint(), "midpoint"), (Heun(), "adaptive_heun")])
def test_a_method_has_every_gradient(method: Any, built_in: str, per_sample: bool, gradient: str) -> None:
    how: dict[str, Any] = {"per_sample": per_sample, "gradient": gradient}
    how |= {"rtol": 1e-5} if method.adaptive else {"step_size": H}
    found, wanted = (answers(ENTRIES[0], END, method=name, **how) for name in (method, built_in))
    assert_equal(found, wanted, rtol=1e-8, atol=1e-10)  # the adjoint adapts its steps, which amplifies rounding


def test_a_stepper_takes_the_steps_of_a_method() -> None:
    found, wanted = (STEPPER.call(Field(), initial(), method=name, step_size=H) for name in (Midpoint(), "midpoint"))
    assert_equal(found, wanted)


def test_the_adjoint_solves_backwards_by_a_method() -> None:
    def how(method: Any) -> dict[str, Any]:
        return {"method": "rk4", "step_size": H, "gradient": Adjoint(method=method, step_size=H)}

    assert_equal(answers(ENTRIES[0], **how(Midpoint())), answers(ENTRIES[0], **how("midpoint")))
    f, y0, options = Field(), initial(), {"step_size": H}
    backward: dict[str, Any] = {"adjoint_options": options, "method": "rk4", "options": options}
    found, wanted = (
        torch.autograd.grad(odeint_adjoint(f, y0, T, adjoint_method=method, **backward)[-1].sum(), (y0, f.weight))
        for method in (Midpoint(), "midpoint")
    )
    assert_equal(found, wanted)


def test_a_tableau_and_scipys_methods_are_methods_of_the_drop_in() -> None:
    tableau = neuralode.methods()["bosh3"].tableau  # pyright: ignore[reportAttributeAccessIssue]
    assert_equal(answers(ENTRIES[4], method=tableau), answers(ENTRIES[4], method="bosh3"), **EXACTLY)
    f, y0 = Field(), initial()
    found = odeint(f, y0, T, method=neuralode.Scipy("RK45"), rtol=1e-8, atol=1e-8)
    wanted = odeint(f, y0, T, method="scipy_solver", options={"solver": "RK45"}, rtol=1e-8, atol=1e-8)
    assert_equal(found, wanted, **EXACTLY)


def test_options_that_a_method_object_does_not_support_cause_a_warning_by_its_name() -> None:
    with pytest.warns(UserWarning, match=r"own_midpoint: Unexpected arguments \{'safety': 0\.5\}"):
        odeint(Field(), initial(), T, method=Midpoint(), options={"safety": 0.5})


# ------------------------------------------------------------------------------------------------- controllers


@entries("controller")
def test_a_controller_chooses_the_steps_of_the_built_in_one(entry: Entry) -> None:
    found, wanted = (answers(entry, controller=controller, rtol=1e-6) for controller in (Elementary(), "i"))
    assert_equal(found, wanted, **EXACTLY)


@entries("controller")
def test_a_controller_of_given_steps_takes_those_of_a_step_size(entry: Entry) -> None:
    if entry.name == "odeint_adjoint":
        return  # which needs options of its own for the backward solve: see below
    found, wanted = (answers(entry, method="rk4", **how) for how in ({"controller": Everywhere()}, {"step_size": H}))
    assert_equal(found, wanted)


@pytest.mark.parametrize("gradient", ["replay", "adjoint", "direct"])
@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per_sample"])
def test_a_controller_serves_every_gradient(per_sample: bool, gradient: str) -> None:
    how: dict[str, Any] = {"per_sample": per_sample, "gradient": gradient, "rtol": 1e-6}
    found, wanted = (answers(ENTRIES[0], controller=controller, **how) for controller in (Elementary(), "i"))
    assert_equal(found, wanted, **EXACTLY)


def test_a_stepper_takes_the_steps_of_a_controller() -> None:
    found, wanted = (STEPPER.call(Field(), initial(), controller=name) for name in (Elementary(), "i"))
    assert_equal(found, wanted, **EXACTLY)


def test_the_adjoint_solves_backwards_with_the_controller_of_the_user() -> None:
    class Counted(Elementary):
        decisions = 0

        def decide(self, outcome: AttemptOutcome, history: Any) -> StepDecision:
            Counted.decisions += 1
            return super().decide(outcome, history)

        def resume(self, h: Any) -> Any:
            return self

    ys = ENTRIES[0].call(Field(), initial(), controller=Counted(), gradient="adjoint")
    forward = Counted.decisions
    ys.sum().backward()
    assert Counted.decisions > forward
    ys = ENTRIES[0].call(Field(), initial(), gradient=Adjoint(controller=Counted()))
    forward = Counted.decisions
    ys.sum().backward()
    assert Counted.decisions > forward


def test_given_steps_need_options_for_the_backward_solve_of_the_drop_in() -> None:
    f, y0 = Field(), initial()
    how: dict[str, Any] = {"method": "rk4", "options": {"controller": Everywhere()}}
    with pytest.raises(
        ValueError, match=r"options\['controller'\] takes given steps, .*; pass adjoint_options=\{\.\.\.\}"
    ):
        odeint_adjoint(f, y0, T, **how)
    ys = odeint_adjoint(f, y0, T, adjoint_options={"step_size": H}, **how)
    wanted = odeint_adjoint(f, y0, T, method="rk4", options={"step_size": H})
    assert_equal(*(torch.autograd.grad(x[-1].sum(), (y0, f.weight)) for x in (ys, wanted)))


def test_a_controller_and_its_settings_exclude_each_other_in_the_drop_in() -> None:
    message = r"options hold 'controller' and \['safety'\], which describe a controller; wanted one of them"
    with pytest.raises(ValueError, match=message):
        odeint(Field(), initial(), T, options={"controller": Elementary(), "safety": 0.5})


# ------------------------------------------------------------------------------------------------- engines


@entries("engine")
@pytest.mark.parametrize("gradient", ["replay", "adjoint", "direct"])
def test_an_engine_that_delegates_gives_the_answers_of_the_other(entry: Entry, gradient: str) -> None:
    engine = Delegating()
    found, wanted = (answers(entry, engine=x, gradient=gradient, rtol=1e-5) for x in (engine, "eager"))
    assert_equal(found, wanted, **EXACTLY)
    solves = 2 if entry.name == "doses" else 1
    if gradient == "adjoint":
        assert len(engine.trajectories) > solves  # the backward solves are its own too
    else:
        assert len(engine.trajectories) == solves
    assert sum(x.pulled for x in engine.trajectories) == (solves if gradient == "replay" else 0)


@pytest.mark.parametrize("gradient", ["replay", "adjoint", "direct"])
@entries("engine")
def test_an_engine_without_a_record_of_steps_gives_values_and_gradients(entry: Entry, gradient: str) -> None:
    how: dict[str, Any] = {"method": "rk4", "step_size": H, "gradient": gradient}
    how |= {"per_sample": False} if entry.name == "ensemble" else {}
    assert_equal(answers(entry, engine=Grid(), **how), answers(entry, **how))


@pytest.mark.parametrize("gradient", ["replay", "direct"])
def test_an_engine_without_a_record_of_steps_gives_second_derivatives(gradient: str) -> None:
    def second(engine: Any) -> Tensor:
        f, y0 = Field(), initial()
        y1 = solve(f, y0, T, method="rk4", step_size=H, gradient=gradient, engine=engine).y1
        (first,) = torch.autograd.grad((y1 * y1).sum(), y0, create_graph=True)
        return torch.autograd.grad((first * first).sum(), f.weight)[0]

    assert_equal(second(Grid()), second("eager"))


def test_a_stepper_advances_by_an_engine() -> None:
    engine = Delegating()
    assert_equal(STEPPER.call(Field(), initial(), engine=engine), STEPPER.call(Field(), initial()), **EXACTLY)
    assert engine.advanced == 1


def test_a_stepper_refuses_an_engine_that_cannot_advance() -> None:
    message = r"engine is a Grid, which has no 'advance'; wanted a name, or .*engines\.base\.StepwiseEngine"
    with pytest.raises(TypeError, match=message):
        STEPPER.call(Field(), initial(), engine=Grid())


class Reluctant(Delegating):
    """An engine that refuses everything from its second solve on."""

    def __init__(self, accepted: int = 0) -> None:
        super().__init__()
        self.accepted = accepted

    def supports(self, problem: Any, config: Any, plan: Any) -> str | None:
        self.accepted -= 1
        return None if self.accepted >= 0 else "not today; wanted engine='eager'."


@every_way("engine")
def test_the_reason_of_an_engine_is_the_error_of_the_solve(entry: Entry) -> None:
    with pytest.raises(ValueError, match=r"^not today; wanted engine='eager'\.$"):
        entry.call(Field(), initial(), engine=Reluctant())


def test_an_engine_may_refuse_the_adjoint_equation() -> None:
    ys = ENTRIES[0].call(Field(), initial(), engine=Reluctant(accepted=1), gradient="adjoint")
    with pytest.raises(GradientError, match=r"engine 'own_delegating' cannot solve the adjoint equation: not today;"):
        ys.sum().backward()


def test_events_need_a_trajectory_with_a_record_of_steps() -> None:
    event = Event(lambda t, y: t - 0.6)
    message = (
        r"engine 'own_delegating' located events in a Forwarded; wanted a .*\.RecordedTrajectory, or an engine whose"
    )
    with pytest.raises(TypeError, match=message):
        solve(Field(), initial(), T, engine=Delegating(), events=event)
    with pytest.raises(ValueError, match=r"engine 'own_grid' solves to given times"):
        solve(Field(), initial(), T, engine=Grid(), events=event, method="rk4", step_size=H)


@pytest.mark.parametrize(
    "how", [{"dense": True}, {"save": "steps"}, {"save": lambda t, y: y.sum(-1)}], ids=["dense", "steps", "save"]
)
def test_outputs_of_every_kind_come_from_the_trajectory_of_an_engine(how: dict[str, Any]) -> None:
    found, wanted = (solve(Field(), initial(), T, engine=engine, **how) for engine in (Delegating(), "eager"))
    assert_equal(found.ys, wanted.ys, **EXACTLY)
    assert_equal(found.ts, wanted.ts, **EXACTLY)
    if "dense" in how:
        assert_equal(found(0.7), wanted(0.7), **EXACTLY)


@pytest.mark.parametrize(("forward", "backward"), [(neuralode.Scipy(), "tsit5"), ("tsit5", neuralode.Scipy())])
def test_the_adjoint_equation_has_the_engine_of_its_own_method(forward: Any, backward: Any) -> None:
    how = {"rtol": 1e-9, "atol": 1e-9}
    found = answers(ENTRIES[0], END, method=forward, gradient=Adjoint(method=backward), **how)
    assert_equal(found, answers(ENTRIES[0], END, **how), rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------------- gradients


@entries("gradient")
@pytest.mark.parametrize(("own", "built_in"), [(Pullback(), "replay"), (Rerun(), "direct")], ids=["replay", "direct"])
def test_a_gradient_gives_the_derivatives_of_the_built_in_one(entry: Entry, own: Any, built_in: str) -> None:
    assert_equal(answers(entry, gradient=own), answers(entry, gradient=built_in), **EXACTLY)


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per_sample"])
@pytest.mark.parametrize(("own", "built_in"), [(Pullback(), "replay"), (Rerun(), "direct")], ids=["replay", "direct"])
@pytest.mark.parametrize(
    "how",
    [{}, {"dense": True}, {"save": "steps"}, {"events": Event(lambda t, y: t - 0.6)}],
    ids=["states", "dense", "steps", "events"],
)
def test_a_gradient_differentiates_outputs_of_every_kind(how: Any, own: Any, built_in: str, per_sample: bool) -> None:
    def found(gradient: Any) -> Any:
        f, y0, t = Field(), initial(), T.clone().requires_grad_()
        sol = solve(f, y0, t, gradient=gradient, per_sample=per_sample, **how)
        total = sol.ys.square().sum() + (sol(0.7).sum() if "dense" in how else 0) + sol.ts.square().sum()
        return [sol.ys.detach(), *torch.autograd.grad(total, (y0, f.weight, t))]

    assert_equal(found(own), found(built_in), **EXACTLY)


@pytest.mark.parametrize("own", [Pullback(), Rerun()], ids=["replay", "direct"])
def test_a_gradient_gives_second_derivatives(own: Any) -> None:
    def second(gradient: Any) -> Tensor:
        f, y0 = Field(), initial()
        y1 = solve(f, y0, T, gradient=gradient).y1
        (first,) = torch.autograd.grad((y1 * y1).sum(), y0, create_graph=True)
        return torch.autograd.grad((first * first).sum(), f.weight)[0]

    assert_equal(second(own), second("direct"))


def test_a_gradient_that_checks_the_configuration_refuses_it_before_the_solve() -> None:
    class OnlyAdaptive(Pullback):
        def check(self, config: Any, per_sample: bool) -> None:
            if not config.method.adaptive:
                raise ValueError(f"gradient 'own' with method {config.method.name!r}; wanted an adaptive method.")

    with pytest.raises(ValueError, match=r"^gradient 'own' with method 'rk4'; wanted an adaptive method\.$"):
        solve(Field(), initial(), T, method="rk4", step_size=H, gradient=OnlyAdaptive())


# ------------------------------------------------------------------------------------------------- observers


@entries("observer")
def test_an_observer_receives_every_attempt_and_changes_nothing(entry: Entry) -> None:
    observer, how = Recording(), {"per_sample": False, "rtol": 1e-6}
    assert_equal(answers(entry, observer=observer, **how), answers(entry, **how), **EXACTLY)
    taken = [attempt for attempt, accepted in zip(observer.attempts, observer.outcomes, strict=True) if accepted]
    assert len(taken) < len(observer.attempts)  # some are rejected
    ends = [t + h for t, h in taken]
    assert_equal(torch.tensor(ends[:-1]), torch.tensor([t for t, _ in taken[1:]]))
    assert (taken[0][0], ends[-1]) == (0.0, 1.0)


@pytest.mark.parametrize("interface", [odeint, odeint_adjoint])
def test_callbacks_of_the_drop_in_receive_what_an_observer_does(interface: Any) -> None:
    class Called(Field):
        def callback_step(self, t: Tensor, y: Tensor, h: Tensor) -> None:
            self.attempts.append((float(t), float(h)))

    f, observer = Called(), Recording()
    interface(f, initial(), T, rtol=1e-6, atol=1e-6)
    solve(Field(), initial(), T, rtol=1e-6, atol=1e-6, method="dopri5", observer=observer)
    assert f.attempts == observer.attempts


def test_an_observer_of_the_adjoint_receives_the_attempts_of_the_backward_solve() -> None:
    observer = Recording()
    ys = solve(Field(), initial(), T, gradient=Adjoint(observer=observer)).ys
    assert not observer.attempts
    ys.sum().backward()
    assert observer.attempts[0][0] == 1.0
    assert all(h < 0 for _, h in observer.attempts)


# ------------------------------------------------------------------------------------------------- together


@pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per_sample"])
def test_own_objects_of_every_kind_work_together(per_sample: bool) -> None:
    class Counting:
        count = 0

        def attempted(self, t: Any, y: Tensor, h: Any) -> None:
            Counting.count += 1

        def accepted(self, t: Any, y: Tensor, h: Any) -> None: ...

        def rejected(self, t: Any, y: Tensor, h: Any) -> None: ...

    own = {"method": Heun(), "controller": Elementary(), "engine": Delegating(), "gradient": Pullback()}
    found = answers(ENTRIES[0], END, per_sample=per_sample, observer=Counting(), **own)
    assert Counting.count
    assert_equal(found, answers(ENTRIES[0], END, per_sample=per_sample, method="adaptive_heun"), rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------------------------- refusals


KINDS: dict[str, tuple[type, Any]] = {
    "method": (Method, Midpoint),
    "controller": (Controller, Elementary),
    "engine": (Engine, Delegating),
    "gradient": (Gradient, Pullback),
    "observer": (Observer, Recording),
}


def lacking(kind: str, member: str) -> Any:
    """Return an object of a kind without one member."""

    class Incomplete(KINDS[kind][1]):
        def __getattribute__(self, name: str) -> Any:
            if name == member:
                raise AttributeError(name)
            return super().__getattribute__(name)

    return Incomplete()


def refusal(kind: str, member: str) -> str:
    protocol, named = KINDS[kind][0], "" if kind == "observer" else "a name, or "
    return (
        rf"^{kind} is a Incomplete, which has no '{member}'; wanted {named}an object with the members of "
        rf"{protocol.__module__}\.{protocol.__name__} \(docs/extending\.md\)\.$"
    )


def options(kind: str, value: Any) -> dict[str, Any]:
    return {kind: value, **({"step_size": H} if kind == "method" else {})}


@pytest.mark.parametrize(("kind", "member"), [(kind, name) for kind in KINDS for name in members(KINDS[kind][0])])
def test_every_member_of_a_contract_is_required(kind: str, member: str) -> None:
    with pytest.raises(TypeError, match=refusal(kind, member)):
        ENTRIES[0].call(Field(), initial(), **options(kind, lacking(kind, member)))


REFUSED = [
    (kind, member, entry)
    for kind, member in {
        "method": "retake", "controller": "decide", "engine": "integrate", "gradient": "attach", "observer": "rejected",
    }.items()
    for entry in (*ENTRIES, STEPPER)
    if kind in entry.kinds
]  # fmt: skip


@pytest.mark.parametrize(("kind", "member", "entry"), REFUSED, ids=str)
def test_every_entry_point_refuses_an_object_that_lacks_a_member(kind: str, member: str, entry: Entry) -> None:
    with pytest.raises(TypeError, match=refusal(kind, member)):
        entry.call(Field(), initial(), **options(kind, lacking(kind, member)))


@pytest.mark.parametrize(("kind", "member", "entry"), REFUSED, ids=str)
def test_every_entry_point_refuses_a_class(kind: str, member: str, entry: Entry) -> None:
    name = KINDS[kind][1].__name__
    with pytest.raises(TypeError, match=rf"^{kind} is the class {name}; wanted an instance, {name}\(\.\.\.\)\.$"):
        entry.call(Field(), initial(), **options(kind, KINDS[kind][1]))


@pytest.mark.parametrize("kind", ["method", "controller", "observer"])
def test_the_adjoint_refuses_an_object_that_lacks_a_member(kind: str) -> None:
    member = {"method": "retake", "controller": "decide", "observer": "rejected"}[kind]
    with pytest.raises(
        TypeError, match=rf"{kind} is a Incomplete, which has no '{member}'; wanted .*docs/extending\.md"
    ):
        ENTRIES[0].call(Field(), initial(), gradient=Adjoint(**{kind: lacking(kind, member)}))


def test_an_adaptive_controller_with_a_method_of_fixed_steps_is_refused() -> None:
    for entry in (ENTRIES[0], ENTRIES[4]):
        with pytest.raises(ValueError, match=r"method 'own_midpoint' has no error estimate; wanted step_size=\.\.\."):
            entry.call(Field(), initial(), method=Midpoint(), controller=Elementary())
