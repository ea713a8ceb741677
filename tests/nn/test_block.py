"""NeuralODE is a layer like any other."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from neuralode.nn import NeuralODE, ode_blocks


class Linear(nn.Module):
    """dy/dt = A y, or A y + shift."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))

    def forward(self, t: torch.Tensor, y: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        rate = y @ self.matrix.T
        return rate if shift is None else rate + shift


def decay(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -y


@pytest.fixture
def layer() -> NeuralODE:
    return NeuralODE(Linear(), rtol=1e-5, atol=1e-7)


def test_the_output_is_the_state_at_the_final_time(layer):
    y0 = torch.tensor([[1.0, 0.0]])
    expected = y0 @ torch.linalg.matrix_exp(layer.f.matrix.detach()).T
    torch.testing.assert_close(layer(y0).detach(), expected, rtol=1e-5, atol=1e-5)


def test_output_times_return_the_states_at_all_of_them(layer):
    ys = layer(torch.ones(3, 2), t=torch.tensor([0.0, 0.5, 1.0]))
    assert ys.shape == (3, 3, 2)
    torch.testing.assert_close(ys[-1], layer(torch.ones(3, 2)), rtol=1e-4, atol=1e-4)


def test_arguments_reach_the_field_and_gradients_reach_the_arguments(layer):
    shift = torch.ones(2, requires_grad=True)
    layer(torch.zeros(1, 2), shift).sum().backward()
    assert shift.grad is not None
    assert shift.grad.abs().sum() > 0


def test_gradients_reach_the_parameters_of_the_field(layer):
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.f.matrix.grad.abs().sum() > 0


def test_the_state_dict_is_that_of_the_field_with_a_prefix(layer):
    own = layer.f.state_dict()
    assert list(layer.state_dict()) == [f"f.{name}" for name in own]
    layer(torch.ones(1, 2))
    assert list(layer.state_dict()) == [f"f.{name}" for name in own]


def test_the_state_dict_loads_strictly_into_another_layer(layer):
    other = NeuralODE(Linear(), method="rk4", step_size=0.1)
    nn.init.zeros_(other.f.matrix)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.f.matrix, layer.f.matrix)


def test_a_copy_has_its_own_parameters_and_no_statistics(layer):
    layer(torch.ones(1, 2)).sum().backward()
    twin = copy.deepcopy(layer)
    assert twin.stats is None
    assert layer.stats is not None
    with torch.no_grad():
        twin.f.matrix.zero_()
    assert layer.f.matrix.abs().sum() > 0


def test_pickling_gives_the_same_layer_after_it_has_run(layer):
    y = layer(torch.ones(1, 2))
    twin = pickle.loads(pickle.dumps(layer))
    assert torch.equal(twin(torch.ones(1, 2)), y)


def test_torch_saves_and_loads_the_whole_layer(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert repr(torch.load(file, weights_only=False)) == repr(layer)


def test_a_plain_function_makes_a_layer_without_parameters():
    layer = NeuralODE(decay, rtol=1e-5)
    assert list(layer.state_dict()) == []
    torch.testing.assert_close(layer(torch.ones(1)), torch.exp(torch.tensor([-1.0])), rtol=1e-4, atol=1e-4)


def test_the_layer_has_its_own_time_span_which_may_run_backwards():
    forward, backward = NeuralODE(decay, t=(0.0, 2.0), rtol=1e-5), NeuralODE(decay, t=(2.0, 0.0), rtol=1e-5)
    torch.testing.assert_close(backward(forward(torch.ones(2))), torch.ones(2), rtol=1e-4, atol=1e-4)


def test_statistics_of_the_last_solve_can_be_read(layer):
    assert layer.stats is None
    layer(torch.ones(4, 2))
    first = layer.stats.evaluations.double().mean()
    layer.rtol = layer.atol = 1e-2
    layer(torch.ones(4, 2))
    assert 0 < layer.stats.evaluations.double().mean() < first


@pytest.mark.parametrize("gradient", ["replay", "adjoint", "direct"])
def test_every_gradient_agrees_on_the_parameters(gradient):
    layer = NeuralODE(Linear().double(), rtol=1e-9, atol=1e-9, gradient=gradient)
    layer(torch.ones(1, 2, dtype=torch.float64))[:, 0].sum().backward()
    reference = NeuralODE(Linear().double(), method="rk4", step_size=0.01, gradient="direct")
    reference(torch.ones(1, 2, dtype=torch.float64))[:, 0].sum().backward()
    torch.testing.assert_close(layer.f.matrix.grad, reference.f.matrix.grad, rtol=1e-6, atol=1e-7)


def test_per_sample_gives_each_row_its_own_steps():
    layer = NeuralODE(decay, per_sample=True, rtol=1e-5)
    y = layer(torch.tensor([[1.0], [1000.0]]))
    torch.testing.assert_close(y / y[0], torch.tensor([[1.0], [1000.0]]), rtol=1e-3, atol=1e-3)


def test_repr_shows_the_settings_of_the_solver():
    assert repr(NeuralODE(decay, method="rk4", step_size=0.1)).startswith(
        "NeuralODE(t=(0.0, 1.0), method='rk4', step_size=0.1"
    )
    assert "rtol=0.01" in repr(NeuralODE(decay, rtol=1e-2))


def test_an_object_that_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="f must be a Module or a function"):
        NeuralODE(3.0)  # type: ignore[arg-type]


def test_ode_blocks_finds_nested_layers():
    inner = NeuralODE(decay)
    assert ode_blocks(nn.Sequential(nn.Identity(), nn.Sequential(inner))) == [inner]
