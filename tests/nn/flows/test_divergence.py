"""Divergences are exact or unbiased, and the derivatives that fields declare are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from neuralode.nn.flows import (
    ConcatSquashField,
    ConvFlowField,
    Exact,
    Hutchinson,
    HutchPlusPlus,
    HyperPlanarField,
    Rates,
    products,
)
from neuralode.nn.flows.divergence import Divergence, find_divergence

ROWS = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states(*event: int) -> Tensor:
    return torch.randn(ROWS, *event, dtype=torch.float64, generator=generator())


class Without(nn.Module):
    """The same field without its own jvp."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor, *args: Tensor) -> Tensor:
        return self.field(t, x, *args)


Case = tuple[Callable[[], nn.Module], tuple[int, ...], int]
CASES: dict[str, Case] = {
    "concat-squash": (lambda: ConcatSquashField(3, 8, 2), (3,), 0),
    "concat-squash, softplus": (lambda: ConcatSquashField(3, 8, 1, activation="softplus"), (3,), 0),
    "concat-squash, silu": (lambda: ConcatSquashField(3, 8, 2, activation="silu"), (3,), 0),
    "concat-squash, sin": (lambda: ConcatSquashField(3, 8, 3, activation="sin"), (3,), 0),
    "concat-squash, context": (lambda: ConcatSquashField(3, 8, 2, context=2), (3,), 2),
    "hyper-planar": (lambda: HyperPlanarField(3, units=4, width=6), (3,), 0),
    "hyper-planar, context": (lambda: HyperPlanarField(3, units=4, width=6, context=2), (3,), 2),
    "convolutional": (lambda: ConvFlowField(2, 3, 2), (2, 3, 4), 0),
    "convolutional, context": (lambda: ConvFlowField(2, 3, 1, context=2, activation="tanh"), (2, 3, 4), 2),
}
FIELDS = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
OWN_TIMES = pytest.mark.parametrize("own_times", [False, True], ids=["one time", "one time per row"])


def made(case: Case, own_times: bool) -> tuple[nn.Module, Tensor, Tensor, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    build, event, context = case
    t = torch.linspace(0.1, 0.9, ROWS, dtype=torch.float64) if own_times else torch.tensor(0.3, dtype=torch.float64)
    args = (torch.randn(ROWS, context, dtype=torch.float64, generator=generator(1)),) if context else ()
    return build().double(), t, states(*event), args


def jacobians(field: Any, t: Tensor, x: Tensor, args: tuple) -> Tensor:
    """Return the Jacobian of each row by reverse mode: [rows, features, features]."""
    features = x[0].numel()
    whole = torch.autograd.functional.jacobian(lambda z: field(t, z, *args), x)
    assert isinstance(whole, Tensor)
    flat = whole.reshape(ROWS, features, ROWS, features)
    off = flat.clone()
    off[range(ROWS), :, range(ROWS)] = 0
    assert not off.any(), "rows of a field must not depend on each other"
    return flat[range(ROWS), :, range(ROWS)]


@FIELDS
@OWN_TIMES
def test_the_declared_jvp_of_a_field_equals_autograd(case: Case, own_times: bool) -> None:
    field, t, x, args = made(case, own_times)
    vectors = torch.randn(4, *x.shape, dtype=torch.float64, generator=generator(2))
    value, found = products(field, t, x, vectors, args)
    torch.testing.assert_close(value, field(t, x, *args), rtol=0, atol=1e-14)
    wanted = torch.einsum("bij,kbj->kbi", jacobians(field, t, x, args), vectors.flatten(2)).view_as(vectors)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@FIELDS
@OWN_TIMES
def test_declared_jvps_and_torch_func_have_the_same_gradients(case: Case, own_times: bool) -> None:
    field, t, x, args = made(case, own_times)
    x.requires_grad_()
    inputs = [x, *field.parameters()]
    found = []
    for way in (field, Without(field)):
        rates = Exact().rates(way, t, x, args, ())
        loss = (rates.value.sin().sum() + rates.divergence.exp().sum() + rates.frobenius.sum()).sum()
        found.append(torch.autograd.grad(loss, inputs))
    for own, general in zip(*found, strict=True):
        torch.testing.assert_close(own, general, rtol=1e-10, atol=1e-12)


@FIELDS
def test_a_shared_time_equals_the_same_time_for_each_row(case: Case) -> None:
    """A shared time takes another path: the gate multiplies the weights instead of the outputs."""
    field, t, x, args = made(case, own_times=False)
    torch.testing.assert_close(field(t, x, *args), field(t.expand(ROWS), x, *args), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@FIELDS
def test_exact_divergence_and_norm_equal_those_of_the_jacobian(case: Case, mode: Any) -> None:
    field, t, x, args = made(case, own_times=True)
    rates = Exact(mode).rates(field, t, x, args, ())
    jacobian = jacobians(field, t, x, args)
    torch.testing.assert_close(rates.divergence, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(rates.frobenius, jacobian.square().sum((1, 2)))


ESTIMATES: dict[str, Divergence] = {
    "signs": Hutchinson(),
    "normal numbers": Hutchinson(noise="gaussian"),
    "three probes": Hutchinson(probes=3),
    "reverse": Hutchinson(mode="reverse"),
    "hutch++": HutchPlusPlus(sketch=2),
    "hutch++, normal numbers": HutchPlusPlus(sketch=1, probes=2, noise="gaussian"),
    "hutch++, reverse": HutchPlusPlus(mode="reverse"),
}
ESTIMATED = pytest.mark.parametrize("way", ESTIMATES.values(), ids=ESTIMATES)


@ESTIMATED
def test_estimates_are_unbiased(way: Divergence) -> None:
    """The mean of 20,000 draws is within four standard errors of the trace, and of the squared norm."""
    draws, t = 20_000, torch.tensor(0.3, dtype=torch.float64)
    torch.manual_seed(0)
    field, one = ConcatSquashField(4, 16, 2).double(), torch.randn(1, 4, dtype=torch.float64)
    nn.init.normal_(field.linears[-1].weight)  # a Jacobian that is not close to 0
    x = one.expand(draws, -1)
    exact = Exact().rates(field, t, one, (), ())
    rates = way.rates(field, t, x, (), way.draw(field, t, x, (), generator(3)))
    for found, wanted in ((rates.divergence, exact.divergence), (rates.frobenius, exact.frobenius)):
        assert found.std() > 0.01 * abs(wanted), "nothing is random"
        assert abs(found.mean() - wanted) < 4 * found.std() / draws**0.5
    torch.testing.assert_close(rates.value[:1], exact.value)


@ESTIMATED
def test_the_gradient_of_an_estimate_is_an_estimate_of_the_gradient(way: Divergence) -> None:
    draws, t = 20_000, torch.tensor(0.3, dtype=torch.float64)
    torch.manual_seed(0)
    field, one = ConcatSquashField(4, 16, 2).double(), torch.randn(1, 4, dtype=torch.float64)
    nn.init.normal_(field.linears[-1].weight)
    wanted = _slope_by_state(Exact(), field, t, one)[0]
    found = _slope_by_state(way, field, t, one.expand(draws, -1))
    error = found.std(0) / draws**0.5
    assert ((found.mean(0) - wanted).abs() < 4 * error + 1e-9).all()


def _slope_by_state(way: Divergence, field: nn.Module, t: Tensor, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    drawn = way.draw(field, t, x.detach(), (), generator(4))
    (slope,) = torch.autograd.grad(way.rates(field, t, x, (), drawn).divergence.sum(), x)
    return slope


def test_hutch_plus_plus_has_less_variance_for_a_jacobian_of_low_rank() -> None:
    """The Jacobian has rank two plus a little noise; both methods take the same number of products."""
    torch.manual_seed(0)
    features, draws = 30, 500
    left, right = torch.randn(2, features, 2, dtype=torch.float64)
    matrix = left @ right.T + 0.01 * torch.randn(features, features, dtype=torch.float64)
    t, x = torch.tensor(0.0, dtype=torch.float64), torch.zeros(draws, features, dtype=torch.float64)

    def field(t: Tensor, x: Tensor) -> Tensor:
        return x @ matrix.T

    spread = []
    for way in (Hutchinson(probes=6), HutchPlusPlus(sketch=3, probes=3)):
        rates = way.rates(field, t, x, (), way.draw(field, t, x, (), generator(5)))
        spread.append(float(rates.divergence.std()))
    assert spread[1] < spread[0] / 20


def test_hutch_plus_plus_has_finite_gradients_for_a_zero_field() -> None:
    way, t, x = HutchPlusPlus(), torch.tensor(0.0), torch.ones(3, 2, requires_grad=True)
    scale = torch.zeros((), requires_grad=True)

    def field(t: Tensor, x: Tensor) -> Tensor:
        return scale * x

    rates = way.rates(field, t, x, (), way.draw(field, t, x, ()))
    slopes = torch.autograd.grad(rates.divergence.sum(), [scale, x])
    assert all(slope.isfinite().all() for slope in slopes)
    assert slopes[0].item() != 0


def test_a_generator_determines_the_random_numbers() -> None:
    x, t = torch.zeros(3, 2), torch.tensor(0.0)
    for way in (Hutchinson(), HutchPlusPlus()):
        field = ConcatSquashField(2, 4)
        state = torch.random.get_rng_state()
        first, second = (way.draw(field, t, x, (), generator(7)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert torch.equal(state, torch.random.get_rng_state())


def test_a_divergence_is_found_by_name_and_unknown_ones_are_refused() -> None:
    assert find_divergence("hutch++") == HutchPlusPlus()
    with pytest.raises(ValueError, match="divergence='exakt' is unknown; did you mean 'exact'?"):
        find_divergence("exakt")
    with pytest.raises(ValueError, match="probes=0; wanted a whole number of at least 1"):
        Hutchinson(probes=0)
    with pytest.raises(ValueError, match="noise='uniform' is unknown"):
        Hutchinson(noise="uniform")  # type: ignore[arg-type]


def test_a_subclass_that_overrides_forward_does_not_use_the_inherited_jvp() -> None:
    class Faster(ConcatSquashField):
        def forward(self, t: Tensor, x: Tensor, *context: Tensor) -> Tensor:
            return 3 * super().forward(t, x, *context)

    field, t, x = Faster(3, 8).double(), torch.tensor(0.3, dtype=torch.float64), states(3)
    rates = Exact().rates(field, t, x, (), ())
    torch.testing.assert_close(rates.value, field(t, x))
    torch.testing.assert_close(rates.divergence, jacobians(field, t, x, ()).diagonal(dim1=1, dim2=2).sum(1))


@pytest.mark.parametrize("way", [Exact(), *ESTIMATES.values()], ids=str)
def test_fields_without_a_hidden_layer_have_a_divergence_for_every_row(way: Divergence) -> None:
    field, t, x = ConcatSquashField(3, layers=0).double(), torch.tensor(0.3, dtype=torch.float64), states(3)
    assert way.rates(field, t, x, (), way.draw(field, t, x, ())).divergence.shape == (ROWS,)


def test_an_operation_without_forward_derivatives_raises_with_alternatives() -> None:
    def attending(t: Tensor, x: Tensor) -> Tensor:
        heads = x.view(len(x), 1, 2, 4)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads).reshape(x.shape)

    t, x = torch.tensor(0.0), torch.randn(ROWS, 8)
    with pytest.raises(NotImplementedError, match="cannot differentiate in forward mode.*sdpa_kernel"):
        Exact().rates(attending, t, x, (), ())
    with sdpa_kernel(SDPBackend.MATH):
        rates = Exact().rates(attending, t, x, (), ())
    trace = jacobians(attending, t, x, ()).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(rates.divergence, trace, rtol=1e-4, atol=1e-4)


def test_an_unknown_mode_is_refused() -> None:
    for make in (Exact, Hutchinson, HutchPlusPlus):
        with pytest.raises(ValueError, match="mode='backward' is unknown"):
            make(mode="backward")  # type: ignore[arg-type]


def test_any_object_with_draw_and_rates_is_a_divergence() -> None:
    class Zero:
        name = "zero"

        def draw(self, *_: Any) -> tuple[Tensor, ...]:
            return ()

        def rates(self, field: Any, t: Tensor, x: Tensor, args: tuple, drawn: tuple) -> Rates:
            return Rates(field(t, x), x.new_zeros(len(x)), x.new_zeros(len(x)))

    own = Zero()
    assert find_divergence(own) is own
    with pytest.raises(TypeError, match="divergence must be a name"):
        find_divergence(3)  # type: ignore[arg-type]
