"""Evolve moves each row over its own time interval, as solve does."""

import pytest
import torch
from torch import nn

import neuralode
from neuralode.nn import Evolve

DOUBLE = torch.float64
START = torch.tensor([0.0, 0.5, 1.0], dtype=DOUBLE)
END = torch.tensor([1.0, 0.75, 1.0], dtype=DOUBLE)  # the interval of the last row is empty


class Swing(nn.Module):
    """A field that depends on time; rows are independent."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[-0.3, 1.0], [-1.2, 0.1]], dtype=DOUBLE))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.tanh(y @ self.matrix.to(y.dtype).T) + torch.sin(t)[:, None]


@pytest.fixture
def field() -> Swing:
    return Swing()


@pytest.fixture
def y() -> torch.Tensor:
    return torch.randn(3, 2, dtype=DOUBLE)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2", "rk4"])
@pytest.mark.parametrize("back", [False, True])
def test_equal_steps_equal_those_of_solve_on_each_row(field, y, method, back):
    t0, t1 = (END, START) if back else (START, END)
    found = Evolve(field, method=method, steps=3)(y, t0, t1)
    for row in range(3):
        span = (t0[row].item(), t1[row].item())
        size = abs(span[1] - span[0]) / 3 or 1.0
        alone = neuralode.solve(field, y[row : row + 1], span, method=method, step_size=size, per_sample=True)
        torch.testing.assert_close(found[row : row + 1], alone.y1, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("method", ["tsit5", "dopri5", "bosh3"])
def test_adaptive_steps_meet_the_tolerance(field, y, back, method):
    t0, t1 = (END, START) if back else (START, END)
    found = Evolve(field, method=method, steps=None, rtol=1e-8, atol=1e-8)(y, t0, t1)
    torch.testing.assert_close(found, Evolve(field, method="rk4", steps=200)(y, t0, t1), rtol=1e-6, atol=1e-6)


def test_an_adaptive_method_may_take_equal_steps_too(field, y):
    few = Evolve(field, method="tsit5", steps=4)(y, START, END)
    torch.testing.assert_close(few, Evolve(field, method="rk4", steps=200)(y, START, END), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"method": "tsit5", "steps": None}])
def test_an_empty_interval_changes_nothing(field, y, options):
    evolve = Evolve(field, **options)
    assert torch.equal(evolve(y, START, END)[2], y[2])
    assert torch.equal(evolve(y, START, START), y)


@pytest.mark.parametrize(
    "options", [{"method": "rk4", "steps": 50}, {"method": "tsit5", "steps": None, "rtol": 1e-9, "atol": 1e-9}]
)
def test_solving_backwards_returns_to_the_start(field, y, options):
    evolve = Evolve(field, **options)
    back = evolve(evolve(y, START, END), END, START)
    torch.testing.assert_close(back, y, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("options", [{"steps": 2}, {"method": "tsit5", "steps": None}])
def test_a_float32_state_stays_float32_and_its_field_receives_float32_times(field, y, options):
    dtypes = set()

    def recording(t, y):
        dtypes.add(t.dtype)
        return field(t, y)

    assert Evolve(recording, **options)(y.float(), START, END).dtype == torch.float32
    assert dtypes == {torch.float32}


@pytest.mark.parametrize(
    "options",
    [
        {"method": "euler", "steps": 3},
        {"method": "rk4", "steps": 2},
        {"method": "tsit5", "steps": None, "rtol": 1e-9, "atol": 1e-9, "gradient": "replay"},
        {"method": "tsit5", "steps": None, "rtol": 1e-9, "atol": 1e-9, "gradient": "adjoint"},
    ],
)
def test_gradients_are_those_of_finite_differences(field, y, options):
    evolve = Evolve(field, **options)
    t0, t1 = START.clone().requires_grad_(), (END + 0.1).requires_grad_()

    def through(y, t0, t1, matrix):
        return evolve(y, t0, t1)

    assert torch.autograd.gradcheck(through, (y.requires_grad_(), t0, t1, field.matrix), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [0, -1, 1.0, True, "many"])
def test_an_invalid_number_of_steps_is_refused(field, steps):
    with pytest.raises(ValueError, match="wanted a whole number of at least 1, or None to adapt them"):
        Evolve(field, steps=steps)


def test_a_fixed_method_is_refused_with_adaptive_steps(field):
    with pytest.raises(ValueError, match="method 'rk4' does not adapt its steps; wanted steps=1 or more, or 'tsit5'"):
        Evolve(field, method="rk4", steps=None)


def test_an_unknown_method_is_refused_by_the_constructor(field):
    with pytest.raises(ValueError, match="'guess'"):
        Evolve(field, method="guess")


def test_the_default_methods_of_equal_and_adaptive_steps_agree():
    t0, t1 = torch.zeros(2, dtype=torch.float64), torch.tensor([0.5, 1.0], dtype=torch.float64)
    y = torch.ones(2, 1, dtype=torch.float64)
    adaptive = Evolve(lambda t, y: -y, steps=None, rtol=1e-8, atol=1e-8)(y, t0, t1)
    equal = Evolve(lambda t, y: -y, steps=200)(y, t0, t1)
    torch.testing.assert_close(adaptive, equal, rtol=1e-5, atol=0)
