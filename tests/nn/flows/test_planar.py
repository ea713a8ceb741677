"""Planar flows: the closed form, root finding, and the derivatives of both."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from neuralode.nn.flows import PlanarFlow
from neuralode.nn.flows.planar import root

directions = pytest.mark.parametrize("direction", ["sampling", "density"])


def flow(direction: str = "sampling", layers: int = 5, features: int = 2, pull: float = 2.0) -> PlanarFlow:
    """Return a strongly nonlinear flow in double precision; some of its layers contract almost to a point."""
    generator = torch.Generator().manual_seed(7)
    made = PlanarFlow(features, layers, direction=direction).double()  # type: ignore[arg-type]
    for parameter in made.parameters():
        parameter.data = pull * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return made


def points(n: int = 40, features: int = 2) -> Tensor:
    return 3 * torch.randn(n, features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@directions
@pytest.mark.parametrize("features", [1, 2, 5])
def test_forward_and_inverse_undo_each_other(direction: str, features: int) -> None:
    model, x = flow(direction, features=features, layers=8, pull=1.0), points(200, features)
    z, into = model.inverse_and_log_det(x)
    back, out = model.forward_and_log_det(z)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(into, -out, rtol=1e-9, atol=1e-9)
    assert (z - x).abs().max() > 0.5


@directions
def test_the_log_determinant_is_that_of_the_jacobian(direction: str) -> None:
    model = flow(direction, features=3)
    for way in (model.forward_and_log_det, model.inverse_and_log_det):
        for y in points(6, 3):
            jacobian = torch.autograd.functional.jacobian(lambda z, way=way: way(z)[0], y)
            wanted = torch.linalg.slogdet(jacobian)
            assert wanted.sign == 1
            torch.testing.assert_close(way(y)[1], wanted.logabsdet)


@directions
def test_the_density_integrates_to_one(direction: str) -> None:
    model = flow(direction, layers=4, pull=0.7)
    side = torch.linspace(-12, 12, 601, dtype=torch.float64)
    with torch.no_grad():
        total = model.log_prob(torch.cartesian_prod(side, side)).exp().sum() * 0.04**2
    assert total.item() == pytest.approx(1, abs=1e-4)


@directions
def test_sample_with_log_prob_agrees_with_log_prob(direction: str) -> None:
    model = flow(direction)
    x, log_prob = model.sample_with_log_prob((7, 3), torch.Generator().manual_seed(0))
    assert x.shape == (7, 3, 2)
    torch.testing.assert_close(model.log_prob(x), log_prob)
    assert torch.equal(model.sample((7, 3), torch.Generator().manual_seed(0)), x)


@directions
def test_gradients_are_those_of_finite_differences(direction: str) -> None:
    model, x = flow(direction, layers=3, pull=1.0), points(4).requires_grad_()
    names = list(dict(model.named_parameters()))

    def ways(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        with_these = dict(zip(names, parameters, strict=True))
        log_prob, sampled = (
            torch.func.functional_call(Way(model, name), {f"model.{k}": v for k, v in with_these.items()}, (x,))
            for name in ("log_prob", "forward_and_log_det")
        )
        return log_prob, *sampled

    assert torch.autograd.gradcheck(ways, (x, *model.parameters()))
    assert torch.autograd.gradgradcheck(lambda *given: ways(*given)[0], (x, *model.parameters()))


class Way(torch.nn.Module):
    """Exposes a method as ``forward``, for `torch.func.functional_call`."""

    def __init__(self, model: PlanarFlow, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x: Tensor) -> object:
        return getattr(self.model, self.name)(x)


@pytest.mark.parametrize("excess", [1e-9, 1e-4, 0.3, 1.0, 5.0, 1e4])
def test_roots_are_accurate_to_rounding(excess: float) -> None:
    goal = torch.cat([torch.logspace(-9, 5, 300, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    goal = torch.cat([goal, -goal])
    v = root(goal, torch.tensor(excess, dtype=torch.float64))
    left = v + (excess - 1) * torch.tanh(v)
    assert ((left - goal).abs() <= 1e-15 * (v.abs() + abs(excess - 1) * torch.tanh(v).abs())).all()
    assert (v.sign() * goal.sign() >= 0).all()


def test_nan_stays_in_its_row() -> None:
    model, x = flow(), points(5)
    x[2] = torch.nan
    found = model.log_prob(x)
    assert found.isnan().tolist() == [False, False, True, False, False]


def test_a_new_flow_is_the_identity() -> None:
    x = torch.randn(9, 2)
    model = PlanarFlow(2, 16)
    torch.testing.assert_close(model(x), x)
    torch.testing.assert_close(model.log_prob(x), model.base.log_prob(x))


def test_layers_stay_invertible_for_any_parameters() -> None:
    model = flow(layers=1)
    model.u.data = -50 * model.w.data  # not invertible without the constraint
    line = torch.linspace(-3, 3, 2001, dtype=torch.float64)[:, None] * model.w.data / model.w.data.norm()
    along = model(line) @ model.w.data[0]
    assert (along.diff() >= 0).all()
    # a layer may contract strongly, but not to a point
    assert model.forward_and_log_det(line)[1].isfinite().all()


def test_the_base_may_be_a_distribution_of_torch() -> None:
    base = Independent(Normal(torch.tensor([5.0, -5.0]), torch.tensor([0.1, 0.2])), 1)
    model = PlanarFlow(2, 3, base)
    torch.manual_seed(0)
    assert (model.sample(100).mean(0) - torch.tensor([5.0, -5.0])).abs().max() < 0.2
    torch.testing.assert_close(model.log_prob(torch.zeros(2)), base.log_prob(torch.zeros(2)))
    with pytest.raises(ValueError, match="draws by torch's own random state"):
        model.sample(3, torch.Generator())


def test_it_is_copied_and_its_state_dict_loads_like_any_module() -> None:
    model = flow()
    x = points()
    assert torch.equal(copy.deepcopy(model).log_prob(x), model.log_prob(x))
    fresh = PlanarFlow(2, 5).double()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(x), model.log_prob(x))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": 0, "layers": 1}, "features=0; wanted a whole number"),
        ({"features": 2, "layers": 1.5}, "layers=1.5; wanted a whole number"),
        ({"features": 2, "layers": 1, "direction": "up"}, "direction='up'; wanted 'sampling' or 'density'"),
        ({"features": 2, "layers": 1, "base": 3}, "base has samples of shape [3]; wanted [2]"),
    ],
)
def test_invalid_arguments_are_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        PlanarFlow(**given)


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="samples have shape \\[4, 3\\]; wanted \\[..., 2\\]"):
        PlanarFlow(2, 1).log_prob(torch.zeros(4, 3))
