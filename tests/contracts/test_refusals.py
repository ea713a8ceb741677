"""What is wrong is refused, early, in words that name the argument; what fails on the way says where and what helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fields import ADAPTIVE, FIXED, METHODS
from torch import Tensor, nn

import neuralode
from neuralode import PID, Adjoint, ExplicitRungeKutta, Field, Given, GradientError, Replay, SolveError, Status, solve

Y0 = torch.ones(3, 2, dtype=torch.float64)
SPAN = (0.0, 1.0)
REPLAYS = pytest.mark.parametrize(
    "gradient", ["replay", Replay(every=3), Replay(memory="stage"), Replay(every=3, memory="stage")], ids=str
)
CLOCKS = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


# ------------------------------------------------------------------------------------------------------ mixing rows


MIXERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a mean over rows": lambda t, y: y - y.mean(0),
    "attention across rows": lambda t, y: torch.softmax(y @ y.T, dim=-1) @ y,
    "the time of another row": lambda t, y: y * t.flip(0)[:, None],
    "a sum over times": lambda t, y: y * t.sum(),
    "rows in another order": lambda t, y: y.flip(0) * 0.5,
}


@pytest.mark.parametrize("name", MIXERS)
def test_a_field_that_mixes_rows_is_refused(name: str) -> None:
    y0 = torch.tensor([[1.0, 0.3], [-0.4, 2.0], [0.7, 0.9]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"mixes|t\[:, None\]"):
        solve(MIXERS[name], y0, SPAN, per_sample=True)


def test_time_that_broadcasts_along_the_wrong_axis_is_refused() -> None:
    """With as many features as rows, y * t has the right shape and the wrong meaning."""
    y0 = torch.tensor([[1.0, 0.3, 0.1], [-0.4, 2.0, 1.0], [0.7, 0.9, -2.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"t\[:, None\]"):
        solve(lambda t, y: y * t, y0, SPAN, per_sample=True)


def test_batch_normalisation_is_refused_in_training_and_taken_in_evaluation() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    y0 = torch.randn(6, 2)
    with pytest.raises(ValueError, match="mixes"):
        solve(lambda t, y: net(y), y0, SPAN, per_sample=True)
    net.eval()
    assert solve(lambda t, y: net(y), y0, SPAN, per_sample=True).success


def test_a_module_is_checked_again_when_it_is_put_into_training() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.net(y)

    f, y0 = Field().eval(), torch.randn(6, 2)
    assert solve(f, y0, SPAN, per_sample=True).success
    f.train()
    with pytest.raises(ValueError, match="mixes"):
        solve(f, y0, SPAN, per_sample=True)


def test_a_method_of_another_object_is_another_field() -> None:
    class Drift:
        def __init__(self, mixing: bool) -> None:
            self.mixing = mixing

        def slope(self, t: Tensor, y: Tensor) -> Tensor:
            return y - y.mean(0) if self.mixing else -y

    good, bad = Drift(False), Drift(True)
    assert solve(good.slope, Y0 * torch.arange(3.0).double()[:, None], SPAN, per_sample=True).success
    with pytest.raises(ValueError, match="mixes"):
        solve(bad.slope, Y0 * torch.arange(3.0).double()[:, None], SPAN, per_sample=True)


@pytest.mark.parametrize("name", ["a mean over rows", "attention across rows"])
def test_a_shared_clock_lets_a_field_mix_rows(name: str) -> None:
    assert solve(MIXERS[name], Y0, SPAN).success


# ---------------------------------------------------------------------------------------------- writing into inputs


def writes_into_y(t: Tensor, y: Tensor) -> Tensor:
    y.mul_(0.5)
    return -y


def writes_into_part_of_y(t: Tensor, y: Tensor) -> Tensor:
    y[..., 0] = 0
    return -y


def writes_into_t(t: Tensor, y: Tensor) -> Tensor:
    t.add_(1)
    return -y


def answers_in_y(t: Tensor, y: Tensor) -> Tensor:
    return y.neg_()


@pytest.mark.parametrize("f", [writes_into_y, writes_into_part_of_y, writes_into_t, answers_in_y])
@CLOCKS
@pytest.mark.parametrize("method", ["euler", "tsit5"])
def test_writing_into_the_inputs_is_refused(f: Any, per_sample: bool, method: str) -> None:
    options: dict[str, Any] = {"method": method, "per_sample": per_sample}
    options |= {"step_size": 0.1} if method == "euler" else {}
    y0 = Y0.clone()
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)writ|in-?place|modif"):
        solve(f, y0, SPAN, **options)


def test_writing_into_a_leaf_of_a_tree_is_refused() -> None:
    def f(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y[1].zero_()
        return -y[0], -y[1]

    with pytest.raises(ValueError, match=r"(?i)writ|in-?place|modif"):
        solve(f, (Y0.clone(), Y0.clone()), SPAN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_writing_into_a_state_of_any_dtype_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"(?i)writ|in-?place|modif"):
        solve(writes_into_y, torch.ones(3, 2, dtype=dtype), SPAN)


# -------------------------------------------------------------------------- f changed between forward and backward


@REPLAYS
def test_dropout_in_the_field_is_refused_in_backward(gradient: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 32), nn.Dropout(0.5), nn.Linear(32, 2)).double()
    y0 = torch.randn(3, 2, dtype=torch.float64)
    sol = solve(lambda t, y: net(y), y0, SPAN, gradient=gradient, method="rk4", step_size=0.1)
    with pytest.raises(GradientError, match=r"(?i)changed.*dropout"):
        sol.ys[-1].sum().backward()


def test_dropout_in_the_field_is_refused_with_clocks_by_row() -> None:
    """There the check that a row does not depend on the others already sees the noise."""
    net = nn.Sequential(nn.Linear(2, 32), nn.Dropout(0.5), nn.Linear(32, 2)).double()
    y0 = torch.randn(3, 2, dtype=torch.float64)
    with pytest.raises((ValueError, GradientError)):
        solve(lambda t, y: net(y), y0, SPAN, method="rk4", step_size=0.1, per_sample=True).ys[-1].sum().backward()


@REPLAYS
def test_noise_in_the_field_is_refused_in_backward(gradient: Any) -> None:
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    sol = solve(
        lambda t, y: -k * y + 1e-3 * torch.randn_like(y), Y0, SPAN, method="euler", step_size=0.1, gradient=gradient
    )
    with pytest.raises(GradientError, match=r"(?i)changed"):
        sol.ys[-1].sum().backward()


@REPLAYS
@CLOCKS
def test_parameters_updated_between_forward_and_backward_are_noticed(gradient: Any, per_sample: bool) -> None:
    net = nn.Linear(2, 2, dtype=torch.float64)
    sol = solve(lambda t, y: torch.tanh(net(y)), Y0, SPAN, gradient=gradient, per_sample=per_sample)
    with torch.no_grad():
        net.weight += 0.1
    with pytest.raises((GradientError, RuntimeError), match=r"(?i)changed|modified"):
        sol.ys[-1].sum().backward()


@REPLAYS
def test_a_field_that_stays_the_same_is_not_accused(gradient: Any) -> None:
    """The control to the tests above, in the precision where rounding would show first."""
    net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2))
    sol = solve(lambda t, y: net(y), torch.randn(64, 2), (0.0, 5.0), gradient=gradient, rtol=2e-6, atol=1e-6)
    sol.ys[-1].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@REPLAYS
@CLOCKS
def test_a_field_is_not_accused_after_rows_were_dropped(gradient: Any, per_sample: bool) -> None:
    """Kernels may sum in another order for another batch size: that is no change of f."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 256), nn.Tanh(), nn.Linear(256, 8))
    t = torch.stack([torch.zeros(32), torch.linspace(0.05, 4, 32)], dim=1) if per_sample else torch.tensor([0.0, 4.0])
    sol = solve(lambda t, y: net(y), torch.randn(32, 8), t, per_sample=per_sample, gradient=gradient)
    sol.ys[-1].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# ----------------------------------------------------------------------------------------------------- missing leaf


class Switching:
    """A field that is no Module, and picks its second weight only after a while."""

    def __init__(self) -> None:
        self.early = torch.full((2, 2), -0.3, dtype=torch.float64, requires_grad=True)
        self.late = torch.full((2, 2), 0.2, dtype=torch.float64, requires_grad=True)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return y @ (self.early if float(t.max()) < 0.55 else self.late)


@pytest.mark.parametrize("gradient", ["replay", Replay(every=3), Replay(memory="stage"), "adjoint"], ids=str)
@pytest.mark.parametrize("method", [{"method": "rk4", "step_size": 0.1}, {"method": "tsit5"}], ids=["rk4", "tsit5"])
def test_a_leaf_that_f_picks_only_later_is_not_silently_zero(gradient: Any, method: dict[str, Any]) -> None:
    f = Switching()
    sol = solve(f, Y0, SPAN, gradient=gradient, **method)
    with pytest.raises(GradientError, match=r"2, ?2"):
        sol.ys[-1].sum().backward()


def test_direct_reaches_a_leaf_that_f_picks_only_later() -> None:
    f = Switching()
    solve(f, Y0, SPAN, gradient="direct").ys[-1].sum().backward()
    assert f.late.grad.abs().sum() > 0


class SwitchingModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Linear(2, 2, dtype=torch.float64)
        self.late = nn.Linear(2, 2, dtype=torch.float64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.early(y) if float(t.max()) < 0.55 else self.late(y)

    def renamed(self, t: Tensor, y: Tensor) -> Tensor:
        return self.forward(t, y)


@pytest.mark.parametrize("gradient", ["replay", "adjoint", Replay(memory="stage")], ids=str)
def test_a_module_is_known_with_all_its_parameters(gradient: Any) -> None:
    net = SwitchingModule()
    for f in (net, net.renamed):
        net.zero_grad()
        solve(f, Y0, SPAN, gradient=gradient, rtol=1e-8, atol=1e-8).ys[-1].sum().backward()
        found = [p.grad.clone() for p in net.parameters()]
        net.zero_grad()
        solve(f, Y0, SPAN, gradient="direct", rtol=1e-8, atol=1e-8).ys[-1].sum().backward()
        torch.testing.assert_close(found, [p.grad for p in net.parameters()], rtol=1e-4, atol=1e-6)
        assert net.late.weight.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------------------ unsupported pairs


def test_parameters_in_the_error_norm_need_a_shared_clock() -> None:
    with pytest.raises(ValueError, match=r"(?s)norm.*(seminorm|shared)"):
        solve(decay, Y0.clone().requires_grad_(), SPAN, per_sample=True, gradient=Adjoint(norm="full"))


@pytest.mark.parametrize("method", ADAPTIVE)
def test_step_size_with_an_adaptive_method_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match=f"step_size.*{method}|{method}.*step_size"):
        solve(decay, Y0, SPAN, method=method, step_size=0.1)


@pytest.mark.parametrize("method", FIXED)
def test_a_fixed_method_without_step_size_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match=f"{method}.*step_size|step_size.*{method}"):
        solve(decay, Y0, SPAN, method=method)


@pytest.mark.parametrize("method", FIXED)
def test_a_controller_of_errors_with_a_fixed_method_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match=method):
        solve(decay, Y0, SPAN, method=method, controller="pi")


def test_step_size_beside_a_controller_is_refused() -> None:
    with pytest.raises(ValueError, match="step_size"):
        solve(decay, Y0, SPAN, method="rk4", step_size=0.1, controller=Given(torch.linspace(0, 1, 3)))


def test_an_adjoint_by_a_fixed_method_needs_a_step_size() -> None:
    with pytest.raises(ValueError, match="step_size"):
        solve(decay, Y0.clone().requires_grad_(), SPAN, gradient=Adjoint(method="rk4"))
    with pytest.raises(ValueError, match="step_size"):
        solve(decay, Y0.clone().requires_grad_(), SPAN, gradient=Adjoint(method="tsit5", step_size=0.1))


def test_given_steps_by_row_need_clocks_by_row() -> None:
    grid = torch.linspace(0, 1, 4, dtype=torch.float64).expand(3, 4)
    with pytest.raises(ValueError, match="per_sample"):
        solve(decay, Y0, SPAN, controller=Given(grid))
    with pytest.raises(ValueError, match=r"Given|rows"):
        solve(decay, Y0, SPAN, controller=Given(grid[:2]), per_sample=True)


# ---------------------------------------------------------------------------------------------------- unknown names


@pytest.mark.parametrize(
    ("argument", "wrong", "near"),
    [
        ("method", "dopri", "dopri5"),
        ("method", "tsit", "tsit5"),
        ("method", "RK4", "rk4"),
        ("controller", "pdi", "pid"),
        ("gradient", "repla", "replay"),
        ("gradient", "adjiont", "adjoint"),
        ("engine", "eagre", "eager"),
        ("on_failure", "rais", "raise"),
        ("save", "step", "steps"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(argument: str, wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}.*{wrong}.*{near}"):
        solve(decay, Y0, SPAN, **{argument: wrong})


@pytest.mark.parametrize(
    ("make", "near"),
    [
        (lambda: Adjoint(norm="semi"), "seminorm"),
        (lambda: Replay(memory="stages"), "stage"),
        (lambda: solve(decay, Y0, SPAN, gradient=Adjoint(method="dopri")), "dopri5"),
        (lambda: solve(decay, Y0, SPAN, controller=PID(norm="rsm")), "rms"),
    ],
)
def test_an_unknown_name_inside_an_object_suggests_the_nearest(make: Callable[[], Any], near: str) -> None:
    with pytest.raises(ValueError, match=near):
        make()


@pytest.mark.parametrize("argument", ["method", "controller", "gradient", "engine", "on_failure", "save"])
def test_an_option_of_the_wrong_type_is_refused(argument: str) -> None:
    with pytest.raises((TypeError, ValueError), match=argument):
        solve(decay, Y0, SPAN, **{argument: 3})


@pytest.mark.parametrize("every", [0, -1, 1.5, "2"])
def test_replay_keeps_every_whole_number_of_steps(every: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="every"):
        Replay(every=every)


def test_an_unknown_name_in_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="solv"):
        _ = neuralode.solv


# ------------------------------------------------------------------------------------------------------------ times


BAD_TIMES: dict[str, tuple[Any, type[Exception]]] = {
    "an integer tensor": (torch.tensor([0, 1]), TypeError),
    "integer tensors": ((torch.tensor(0), torch.tensor(1)), TypeError),
    "booleans": (torch.tensor([False, True]), TypeError),
    "complex": (torch.tensor([0j, 1j]), TypeError),
    "not monotone": (torch.tensor([0.0, 1.0, 0.5]), ValueError),
    "not monotone, decreasing": (torch.tensor([0.0, -1.0, -0.5]), ValueError),
    "there and back": (torch.tensor([0.0, 1.0, 0.0]), ValueError),
    "nan": (torch.tensor([0.0, torch.nan]), ValueError),
    "infinite": ((0.0, float("inf")), ValueError),
    "nan in between": (torch.tensor([0.0, torch.nan, 1.0]), ValueError),
    "empty": (torch.tensor([]), ValueError),
    "two axes on a shared clock": (torch.zeros(3, 2), ValueError),
    "text": ("01", TypeError),
    "one number": (1.0, TypeError),
    "a 0-d tensor": (torch.tensor(1.0), (TypeError, ValueError)),
    "text inside": ((0.0, "1"), TypeError),
    "nothing": (None, TypeError),
}


@pytest.mark.parametrize("name", BAD_TIMES)
def test_bad_times_are_refused(name: str) -> None:
    t, error = BAD_TIMES[name]
    with pytest.raises(error, match=r"\bt\b"):
        solve(decay, Y0, t)


def test_bad_times_of_one_row_are_refused() -> None:
    good = [0.0, 0.5, 1.0]
    for bad in ([0.0, 1.0, 0.5], [0.0, torch.nan, 1.0], [0.0, -0.5, -1.0]):
        with pytest.raises(ValueError, match=r"\bt\b"):
            solve(decay, Y0, torch.tensor([good, bad, good]), per_sample=True)
    with pytest.raises(ValueError, match=r"\bt\b.*2.*3|\bt\b.*rows"):
        solve(decay, Y0, torch.tensor([good, good]), per_sample=True)


# ------------------------------------------------------------------------------------------------- state, tolerances


@pytest.mark.parametrize(
    ("y0", "error"),
    [
        (torch.tensor([1, 2]), TypeError),
        (torch.tensor([True]), TypeError),
        (1.0, TypeError),
        ([1.0, 2.0], TypeError),
        ((torch.ones(2), 3), TypeError),
        ((torch.ones(2), torch.ones(2, dtype=torch.int64)), TypeError),
        ((), ValueError),
        (None, (TypeError, ValueError)),
    ],
)
def test_a_state_that_is_no_tree_of_floating_tensors_is_refused(y0: Any, error: Any) -> None:
    with pytest.raises(error, match="y0"):
        solve(lambda t, y: y, y0, SPAN)


def test_clocks_by_row_need_a_batch_axis() -> None:
    with pytest.raises(ValueError, match=r"y0.*per_sample|per_sample.*axis"):
        solve(decay, torch.tensor(1.0), SPAN, per_sample=True)
    with pytest.raises(ValueError, match=r"y0.*per_sample|per_sample.*axis"):
        solve(lambda t, y: y, (torch.ones(3, 2), torch.tensor(1.0)), SPAN, per_sample=True)
    with pytest.raises(ValueError, match=r"y0.*rows"):
        solve(lambda t, y: y, (torch.ones(3, 2), torch.ones(4, 2)), SPAN, per_sample=True)


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [-1e-3, float("nan"), float("inf"), "tight", torch.ones(7), None])
def test_bad_tolerances_are_refused(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        solve(decay, Y0, SPAN, **{name: value})


def test_no_tolerance_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="rtol"):
        solve(decay, Y0, SPAN, rtol=0.0, atol=0.0)


def test_a_tolerance_that_the_state_cannot_resolve_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="rtol"):
        solve(decay, torch.ones(3, 2), SPAN, rtol=1e-7, atol=1e-3)


def test_a_time_that_the_state_cannot_resolve_is_warned_of_once() -> None:
    """At t = 1e6 a float32 field is given the same t for sixteenths of a second."""
    with pytest.warns(UserWarning, match=r"(?i)resol|float32") as caught:
        solve(lambda t, y: -y, torch.ones(3, 2), (1e6, 1e6 + 1), method="rk4", step_size=0.005)
    assert len(caught) == 1


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), "0.1", True])
def test_a_bad_step_size_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="step_size"):
        solve(decay, Y0, SPAN, method="rk4", step_size=value)


@pytest.mark.parametrize("value", [0, -3, 2.5, "many"])
def test_a_bad_max_steps_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_steps"):
        solve(decay, Y0, SPAN, max_steps=value)


@pytest.mark.parametrize(
    "options",
    [{"first_step": -0.1}, {"min_step": 0.0}, {"max_step": -1.0}, {"safety": 0.0}, {"min_step": 0.2, "max_step": 0.1}],
)
def test_a_bad_controller_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="|".join(options)):
        PID(**options)


@pytest.mark.parametrize(
    "times", [torch.tensor([0, 1]), [0.0, 1.0], torch.tensor([0.0]), torch.tensor(1.0), torch.zeros(2, 2, 2)]
)
def test_bad_given_times_are_refused(times: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="Given"):
        Given(times)


def test_given_times_must_go_the_way_of_t() -> None:
    with pytest.raises(ValueError, match="Given"):
        solve(decay, Y0, (0.0, 1.0), controller=Given(torch.tensor([1.0, 0.5, 0.0])))
    with pytest.raises(ValueError, match="Given"):
        solve(decay, Y0, (0.0, 1.0), controller=Given(torch.tensor([0.0, 0.7, 0.5, 1.0])))


def test_args_must_be_a_tuple() -> None:
    with pytest.raises(TypeError, match="args"):
        solve(lambda t, y, k: -k * y, Y0, SPAN, args=torch.tensor(1.0))
    with pytest.raises(ValueError, match="args_dims"):
        solve(lambda t, y, k: -k * y, Y0, SPAN, args=(torch.tensor(1.0),), args_dims=(0, 1), per_sample=True)


# --------------------------------------------------------------------------------------------------- what f returns


ANSWERS: dict[str, tuple[Callable[[Tensor, Tensor], Any], type[Exception] | tuple[type[Exception], ...]]] = {
    "another shape": (lambda t, y: y[..., :1], ValueError),
    "another number of axes": (lambda t, y: y[None], ValueError),
    "a narrower float": (lambda t, y: y.float(), TypeError),
    "a wider float": (lambda t, y: y.to(torch.complex128), TypeError),
    "an integer": (lambda t, y: torch.ones_like(y, dtype=torch.int64), TypeError),
    "a number": (lambda t, y: 1.0, TypeError),
    "nothing": (lambda t, y: None, TypeError),
    "a tuple": (lambda t, y: (y,), TypeError),
    "another device": (lambda t, y: y.to("meta"), ValueError),
}


@pytest.mark.parametrize("name", ANSWERS)
@CLOCKS
def test_an_answer_that_is_not_like_the_state_is_refused(name: str, per_sample: bool) -> None:
    f, error = ANSWERS[name]
    with pytest.raises(error, match=r"\bf\b"):
        solve(f, Y0, SPAN, per_sample=per_sample)


def test_a_float64_answer_for_a_float32_state_is_refused() -> None:
    with pytest.raises(TypeError, match=r"\bf\b.*float64"):
        solve(lambda t, y: y.double(), Y0.float(), SPAN)


def test_an_answer_with_another_structure_is_refused() -> None:
    state = {"a": Y0, "b": Y0}
    for f in (lambda t, y: {"a": y["a"]}, lambda t, y: (y["a"], y["b"]), lambda t, y: y["a"]):
        with pytest.raises(TypeError, match=r"\bf\b"):
            solve(f, state, SPAN)


def test_a_narrower_answer_is_taken_under_autocast_or_by_request() -> None:
    net = nn.Linear(2, 2)
    y0 = torch.ones(3, 2)

    def narrow(t: Tensor, y: Tensor) -> Tensor:
        return -y.bfloat16()

    with pytest.raises(TypeError, match=r"\bf\b"):
        solve(narrow, y0, SPAN)
    assert solve(Field(narrow, dtype=torch.bfloat16), y0, SPAN, rtol=1e-2, atol=1e-2).ys.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sol = solve(lambda t, y: net(y), y0, SPAN, rtol=1e-2, atol=1e-2)
    assert sol.ys.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError, match=r"\bf\b"):
        solve(lambda t, y: y.double(), y0, SPAN)


def test_f_that_is_not_callable_is_refused() -> None:
    with pytest.raises(TypeError, match=r"\bf\b"):
        solve(torch.ones(2), Y0, SPAN)


@pytest.mark.parametrize("answer", [3.0, None, "energy"])
def test_a_saved_function_must_return_tensors(answer: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="save"):
        solve(decay, Y0, SPAN, save=lambda t, y: answer)


def test_an_error_in_f_is_the_users_own() -> None:
    class Mine(Exception):
        pass

    def f(t: Tensor, y: Tensor) -> Tensor:
        if float(t.max()) > 0.3:
            raise Mine
        return -y

    with pytest.raises(Mine):
        solve(f, Y0, SPAN)


# ------------------------------------------------------------------------------------------------ failures on the way


def test_max_steps_says_where_and_what_helps() -> None:
    with pytest.raises(SolveError, match=r"(?s)max_steps.*") as caught:
        solve(lambda t, y: -1000 * (y - torch.cos(t)), Y0, (0.0, 100.0), max_steps=50)
    assert caught.value.solution.status.tolist() == [Status.MAX_STEPS] * len(caught.value.solution.status)
    text = str(caught.value)
    assert "t=" in text.replace(" ", "")
    assert "step" in text


def test_a_stiff_looking_failure_names_an_implicit_method() -> None:
    with pytest.raises(SolveError, match=r"(?i)stiff|implicit"):
        solve(lambda t, y: -1e6 * (y - torch.cos(t)), Y0, (0.0, 100.0), max_steps=500)


@CLOCKS
@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_blow_up_in_finite_time_is_found(method: str, per_sample: bool) -> None:
    y0 = torch.full((2, 1), 2.0, dtype=torch.float64)
    rtol = 1e-6 if METHODS[method].order > 3 else 1e-4  # thousands of steps say no more
    with pytest.raises(SolveError, match=r"0\.(5|4999)") as caught:
        solve(lambda t, y: y * y, y0, (0.0, 1.0), method=method, per_sample=per_sample, rtol=rtol)
    sol = caught.value.solution
    assert set(sol.status.tolist()) <= {Status.STEP_UNDERFLOW, Status.NONFINITE}
    assert sol.ys[-1].isnan().all()


def test_the_error_names_the_rows() -> None:
    y0 = torch.tensor([[0.1], [2.0], [0.2], [4.0]], dtype=torch.float64)
    with pytest.raises(SolveError, match=r"(?s)\b1\b.*\b3\b") as caught:
        solve(lambda t, y: y * y, y0, (0.0, 1.0), per_sample=True)
    assert [s == Status.SUCCESS for s in caught.value.solution.status.tolist()] == [True, False, True, False]


@CLOCKS
@pytest.mark.parametrize("where", ["y0", "f(t0, y0)"])
def test_a_start_that_is_not_finite_is_nonfinite(where: str, per_sample: bool) -> None:
    y0 = Y0 * torch.nan if where == "y0" else Y0
    f = decay if where == "y0" else (lambda t, y: y / 0)
    sol = solve(f, y0, SPAN, on_failure="return", per_sample=per_sample)
    assert set(sol.status.tolist()) == {Status.NONFINITE}
    with pytest.raises(SolveError, match=r"(?i)finite"):
        solve(f, y0, SPAN, per_sample=per_sample)


@CLOCKS
@pytest.mark.parametrize("method", FIXED)
def test_a_fixed_step_to_a_state_that_is_not_finite_is_nonfinite(method: str, per_sample: bool) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t[..., None] > 0.45, torch.inf, -1.0) * y

    times = torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64)
    options: dict[str, Any] = {"method": method, "step_size": 0.1, "per_sample": per_sample}
    sol = solve(f, Y0, times, on_failure="return", **options)
    assert set(sol.status.tolist()) == {Status.NONFINITE}
    assert sol.ys[1].isfinite().all()
    assert sol.ys[2].isnan().all()


def test_a_wall_that_is_not_finite_is_met_with_smaller_steps() -> None:
    """A trial beyond the domain of f is a rejection, not the end."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return -torch.sqrt(y)  # nan below zero; y = (1 - t/2)²

    sol = solve(f, torch.ones(1, dtype=torch.float64), (0.0, 1.99), rtol=1e-6, atol=1e-9)
    assert sol.success
    torch.testing.assert_close(sol.ys[-1, 0], torch.tensor(0.005**2).double(), rtol=0.05, atol=0)


def test_a_trial_of_the_first_step_that_is_not_finite_is_made_smaller() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t > 1e-4, torch.where(y > 1.5, torch.inf, 1.0), 1.0).to(y.dtype)

    assert solve(f, torch.ones(1, dtype=torch.float64), (0.0, 0.3), rtol=1e-1, atol=1e1).success


def test_a_failure_that_is_returned_raises_nothing() -> None:
    sol = solve(lambda t, y: y * y, torch.full((1,), 2.0).double(), (0.0, 1.0), on_failure="return")
    assert not sol.success
    assert sol.status.tolist() != [Status.SUCCESS]


def test_a_method_may_be_an_object_or_a_tableau() -> None:
    named = solve(decay, Y0, SPAN, method="dopri5")
    method = neuralode.methods()["dopri5"]
    assert torch.equal(solve(decay, Y0, SPAN, method=method).ys, named.ys)
    assert torch.equal(solve(decay, Y0, SPAN, method=method.tableau).ys, named.ys)
    assert torch.equal(solve(decay, Y0, SPAN, method=ExplicitRungeKutta(method.tableau)).ys, named.ys)
