"""Continuous normalizing flows: densities against closed forms, maps against inverses, and all gradients."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from benchmarks.memory import peak_bytes
from sklearn.datasets import make_moons
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, TransformedDistribution

from neuralode import Adjoint, Given, Replay
from neuralode.nn import CNF
from neuralode.nn.flows import ConcatSquashField, ConvFlowField, Hutchinson, HutchPlusPlus, HyperPlanarField
from neuralode.tasks.flow_matching.metrics import two_sample_test

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
CLOCKS = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "per sample"])
DIVERGENCES = pytest.mark.parametrize(
    "divergence", ["exact", Hutchinson(probes=2), HutchPlusPlus()], ids=["exact", "hutchinson", "hutch++"]
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(rows: int = 6, features: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(rows, features, dtype=torch.float64, generator=generator(seed))


def small(features: int = 2, **options: Any) -> CNF:
    torch.manual_seed(0)
    field = ConcatSquashField(features, 8, 2, context=options.pop("context", 0))
    for linear in field.linears:
        nn.init.normal_(linear.weight, std=0.7)  # a flow that is not close to the identity
    return CNF(field, features, **{**TIGHT, **options}).double()


# closed forms


@CLOCKS
@pytest.mark.parametrize("t", [(0.0, 1.0), (2.0, 0.5)], ids=["forwards", "backwards"])
def test_a_linear_field_has_the_density_of_its_closed_form(t: tuple[float, float], per_sample: bool) -> None:
    """dx/dt = A x + b maps N(0, I) to a normal distribution given by a matrix exponential."""
    matrix, offset = points(4, 4, 2) / 2, points(1, 4, 3)[0]

    def field(time: Tensor, x: Tensor) -> Tensor:
        return x @ matrix.T + offset

    whole = torch.zeros(5, 5, dtype=torch.float64)
    whole[:4, :4], whole[:4, 4] = matrix, offset
    carried = torch.matrix_exp((t[1] - t[0]) * whole)
    wanted = MultivariateNormal(carried[:4, 4], carried[:4, :4] @ carried[:4, :4].T)
    flow = CNF(field, 4, t, per_sample=per_sample, **TIGHT).double()
    x = points(20, 4)
    assert (flow.log_prob(x) - wanted.log_prob(x)).abs().max() < 1e-8
    drawn, log_prob = flow.sample_with_log_prob(20, generator=generator())
    assert (log_prob - wanted.log_prob(drawn)).abs().max() < 1e-8


def test_a_field_that_depends_on_time_is_integrated() -> None:
    """dx/dt = 2 t x maps z to e z: log p(x) = log N(x / e) - 1."""
    flow = CNF(lambda t, x: 2 * t * x, 1, **TIGHT).double()
    x = points(5, 1)
    wanted = Normal(0.0, 1.0).log_prob(x / math.e)[:, 0] - 1
    torch.testing.assert_close(flow.log_prob(x), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("field", [ConcatSquashField(2, 16, 2), HyperPlanarField(2, units=8)], ids=["concat", "planar"])
def test_a_trained_density_integrates_to_one(field: nn.Module) -> None:
    data, _ = make_moons(256, noise=0.1, random_state=0)
    x = torch.tensor(data, dtype=torch.float32)
    torch.manual_seed(0)
    field.apply(lambda m: m.reset_parameters() if isinstance(m, nn.Linear) else None)
    flow = CNF(field, 2, method="rk4", step_size=0.2)
    optimizer = torch.optim.Adam(flow.parameters(), 2e-2)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    tight = CNF(copy.deepcopy(field), 2, rtol=2e-6, atol=2e-6)
    line = torch.linspace(-6, 6, 181)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        total = float(tight.log_prob(grid).double().exp().sum()) * float(line[1] - line[0]) ** 2
    assert abs(total - 1) < 1e-3


# the map and its inverse


@CLOCKS
@DIVERGENCES
def test_the_inverse_undoes_the_map(divergence: Any, per_sample: bool) -> None:
    flow = small(divergence=divergence, per_sample=per_sample)
    z = points()
    torch.testing.assert_close(flow.inverse(flow.forward(z)), z, rtol=0, atol=1e-8)
    there = flow.forward_and_log_det(z, generator=generator(5))
    torch.testing.assert_close(there.state, flow.forward(z), rtol=0, atol=1e-8)
    back = flow.inverse_and_log_det(there.state, generator=generator(5))
    torch.testing.assert_close(back.state, z, rtol=0, atol=1e-8)
    if divergence == "exact":
        torch.testing.assert_close(back.log_det, -there.log_det, rtol=0, atol=1e-8)


def test_sample_with_log_prob_agrees_with_log_prob() -> None:
    flow = small()
    x, log_prob = flow.sample_with_log_prob(50, generator=generator())
    torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=0, atol=1e-8)
    torch.testing.assert_close(flow.sample(50, generator=generator()), x, rtol=0, atol=1e-8)


def test_the_log_determinant_is_that_of_the_jacobian_of_the_map() -> None:
    flow = small(3)
    z = points(1, 3)
    jacobian = torch.autograd.functional.jacobian(lambda one: flow.forward(one[None])[0], z[0])
    assert isinstance(jacobian, Tensor)
    torch.testing.assert_close(flow.forward_and_log_det(z).log_det[0], torch.linalg.slogdet(jacobian).logabsdet)


def test_an_estimated_log_density_is_unbiased() -> None:
    flow, x = small(3, rtol=1e-6, atol=1e-6), points(1, 3)
    exact = flow.log_prob(x)
    flow.divergence = Hutchinson(noise="gaussian")
    with torch.no_grad():
        found = flow.log_prob(x.expand(5000, -1), generator=generator())
    assert found.std() > 0.05
    assert abs(found.mean() - exact) < 4 * found.std() / 5000**0.5


# gradients


class AsDrawn:
    """A divergence with its random numbers held constant, as finite differences need where they depend on the field."""

    name = "as drawn"

    def __init__(self, flow: CNF, x: Tensor) -> None:
        self.way = flow.divergence
        t = torch.tensor(1.0, dtype=x.dtype)
        self.held = self.way.draw(flow.field, t.expand(len(x)) if flow.per_sample else t, x, (), generator(6))
        self.rates = self.way.rates

    def draw(self, *_: Any) -> tuple[Tensor, ...]:
        return self.held


GRADIENTS = pytest.mark.parametrize(
    "gradient",
    [Replay(), Replay(every=3, memory="stage"), Adjoint(rtol=1e-9, atol=1e-9), "direct"],
    ids=["replay", "replay with checkpoints", "adjoint", "direct"],
)


@GRADIENTS
@DIVERGENCES
@CLOCKS
def test_gradients_of_likelihood_and_costs_are_those_of_finite_differences(
    divergence: Any, gradient: Any, per_sample: bool
) -> None:
    flow = small(divergence=divergence, gradient=gradient, per_sample=per_sample, rtol=1e-9, atol=1e-9)
    x = points(4)
    flow.divergence = AsDrawn(flow, x)

    def loss() -> Tensor:
        costs = flow.costs(x)
        return (-costs.log_prob + 0.3 * costs.kinetic + 0.2 * costs.frobenius).sum()

    loss().backward()
    for name in ("linears.1.weight", "gate.bias", "shift.weight"):
        parameter = flow.field.get_parameter(name)  # type: ignore[union-attr]
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator(7))
        slope = (parameter.grad * direction).sum()  # type: ignore[operator]
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-4 * direction
                values.append(float(loss()))
                parameter -= sign * 1e-4 * direction
        wanted = (values[0] - values[1]) / 2e-4
        assert abs(slope.item() - wanted) < 2e-6 * max(1, abs(wanted)), name


@GRADIENTS
def test_every_gradient_reaches_data_context_and_a_learned_base(gradient: Any) -> None:
    class Shifted(nn.Module):
        event_shape = torch.Size([2])

        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def log_prob(self, z: Tensor) -> Tensor:
            return Normal(self.mean, 1.0).log_prob(z).sum(-1)

        def sample(self, shape: Any = ()) -> Tensor:
            return self.mean + torch.randn(*shape, 2, dtype=torch.float64)

    flow = small(context=3, gradient=gradient)
    flow.base = base = Shifted()
    x, context = points().requires_grad_(), points(6, 3).requires_grad_()
    flow.log_prob(x, context).sum().backward()
    for tensor in (x, context, base.mean, *flow.field.parameters()):  # type: ignore[union-attr]
        assert tensor.grad is not None
        assert tensor.grad.abs().max() > 0
    (slope,) = torch.autograd.grad(flow.log_prob(x, context).sum(), x)
    step = 1e-5 * points(seed=9)
    change = (flow.log_prob(x + step, context) - flow.log_prob(x - step, context)).sum() / 2
    torch.testing.assert_close(change, (slope * step).sum(), rtol=1e-5, atol=1e-12)


def test_gradients_reach_samples_and_their_density() -> None:
    """Variational inference differentiates samples and their density by the parameters."""
    flow = small()
    x, log_prob = flow.sample_with_log_prob(8, generator=generator())
    (log_prob + x.square().sum(1)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in flow.field.parameters())  # type: ignore[union-attr]


# regularisers


def test_costs_equal_their_closed_form_integrals() -> None:
    """x = z e^t: the kinetic energy is ∫ |x|² dt = |z|² (e² - 1) / 2, and ‖∂f/∂x‖² = 2 at all times."""
    flow = CNF(lambda t, x: x, 2, **TIGHT).double()
    x = points(3)
    costs = flow.costs(x)
    z = x / math.e
    torch.testing.assert_close(costs.kinetic, z.square().sum(1) * (math.e**2 - 1) / 2, rtol=1e-8, atol=0)
    torch.testing.assert_close(costs.frobenius, torch.full((3,), 2.0, dtype=torch.float64), rtol=1e-8, atol=0)
    torch.testing.assert_close(costs.log_prob, flow.log_prob(x), rtol=1e-9, atol=1e-9)


def test_jitter_moves_the_end_in_training_only() -> None:
    flow = small(jitter=0.4)
    x = points()
    flow.eval()
    assert torch.equal(flow.log_prob(x), flow.log_prob(x))
    flow.train()
    first, second = flow.log_prob(x, generator=generator(1)), flow.log_prob(x, generator=generator(2))
    assert (first - second).abs().max() > 1e-4
    assert torch.equal(first, flow.log_prob(x, generator=generator(1)))
    torch.testing.assert_close(flow.inverse(flow.forward(x)), x, rtol=0, atol=1e-8)  # jitter does not change the maps


# shapes, batches, distributions of torch


@CLOCKS
def test_images_have_a_density(per_sample: bool) -> None:
    torch.manual_seed(0)
    flow = CNF(ConvFlowField(1, 4, 1), (1, 3, 3), per_sample=per_sample, **TIGHT).double()
    x = torch.randn(2, 4, 1, 3, 3, dtype=torch.float64, generator=generator())
    log_prob = flow.log_prob(x)
    assert log_prob.shape == (2, 4)
    torch.testing.assert_close(log_prob[1], flow.log_prob(x[1]), rtol=0, atol=1e-8)
    assert flow.sample((2, 3)).shape == (2, 3, 1, 3, 3)


def test_rows_of_a_context_are_matched_with_rows_of_samples() -> None:
    flow, context = small(context=3), points(4, 3)
    x = points(8).reshape(2, 4, 2)
    log_prob = flow.log_prob(x, context)
    alone = torch.stack([flow.log_prob(x[:, k], context[k].expand(2, -1)) for k in range(4)], 1)
    torch.testing.assert_close(log_prob, alone, rtol=0, atol=1e-8)
    assert flow.sample(7, context).shape == (7, 4, 2)
    assert not torch.allclose(log_prob, flow.log_prob(x, context.flip(0)))


def test_an_argument_without_rows_is_shared_by_all_samples() -> None:
    rate = torch.tensor([0.5], dtype=torch.float64)
    flow = CNF(lambda t, x, a: a * x, 2, args_dims=None, **TIGHT).double()
    log_prob = flow.log_prob(points(3), rate)
    torch.testing.assert_close(log_prob, Normal(0.0, rate.exp()).log_prob(points(3)).sum(1), rtol=1e-9, atol=1e-9)


def test_a_flow_is_a_transform_of_torch_and_solves_once() -> None:
    flow = small()
    base = Independent(Normal(torch.zeros(2, dtype=torch.float64), 1.0), 1)
    model, x, calls = TransformedDistribution(base, [flow.transform()]), points(), []
    flow._rates, rates = lambda *a: (calls.append(1), rates(*a))[1], flow._rates  # type: ignore[method-assign]
    torch.testing.assert_close(model.log_prob(x), flow.log_prob(x), rtol=0, atol=1e-9)
    transform_calls = len(calls)
    flow.log_prob(x)
    assert 2 * (len(calls) - transform_calls) == transform_calls, (
        "one solve each, without a second one for the determinant"
    )
    transform = flow.transform()
    z = transform.inv(x)  # type: ignore[operator]
    torch.testing.assert_close(transform(z), x, rtol=0, atol=1e-8)
    without_cache = flow.transform().log_abs_det_jacobian(z, x)
    torch.testing.assert_close(transform.log_abs_det_jacobian(z, x), without_cache, rtol=0, atol=1e-8)


def test_a_transform_solves_again_after_the_flow_was_trained() -> None:
    """Nothing is cached from other weights or from an old graph, even for the same tensor."""
    flow, x = small(), points()
    base = Independent(Normal(torch.zeros(2, dtype=torch.float64), 1.0), 1)
    model = TransformedDistribution(base, [flow.transform()])
    optimizer = torch.optim.SGD(flow.parameters(), 0.05)
    for _ in range(2):
        optimizer.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimizer.step()
        torch.testing.assert_close(model.log_prob(x), flow.log_prob(x), rtol=0, atol=1e-9)
    assert model.log_prob(model.sample((3,))).requires_grad
    copy.deepcopy(model)


def test_one_sample_has_a_density_under_each_condition() -> None:
    flow, context = small(context=3), points(4, 3)
    log_prob = flow.log_prob(points(1)[0], context)
    torch.testing.assert_close(log_prob, flow.log_prob(points(1).expand(4, -1), context), rtol=0, atol=1e-9)


def test_an_empty_batch_has_an_empty_log_prob() -> None:
    assert small().log_prob(points(0)).shape == (0,)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson", "hutch++"])
def test_a_flow_in_half_precision_accumulates_in_float32(divergence: str) -> None:
    flow = small(method="rk4", step_size=0.1, divergence=divergence).bfloat16()
    log_prob = flow.log_prob(points().bfloat16())
    assert log_prob.dtype == torch.float32
    flow.divergence = small().divergence
    torch.testing.assert_close(
        flow.log_prob(points().bfloat16()).double(), small().log_prob(points()), rtol=0.05, atol=0.1
    )


def test_a_flow_is_a_distribution_of_torch() -> None:
    flow, context = small(context=3), points(4, 3)
    model = flow.distribution(context)
    assert (model.batch_shape, model.event_shape) == ((4,), (2,))
    x = model.sample((5,))
    assert x.shape == (5, 4, 2)
    assert not x.requires_grad
    assert model.rsample().requires_grad
    torch.testing.assert_close(model.log_prob(x), flow.log_prob(x, context))
    assert model.support.check(x).all()

    plain = small().distribution().expand((3,))
    assert plain.sample((5,)).shape == (5, 3, 2)
    assert plain.log_prob(x[:, :3]).shape == (5, 3)
    assert small(context=3).distribution(context[:1]).expand((6,)).sample().shape == (6, 2)


def test_a_base_may_be_any_distribution_of_whole_samples() -> None:
    base = MultivariateNormal(torch.ones(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    flow = CNF(lambda t, x: x * 0, base, **TIGHT)
    torch.testing.assert_close(flow.log_prob(points()), base.log_prob(points()))
    assert flow.sample(3).shape == (3, 2)
    with pytest.raises(ValueError, match="draws by torch's own random state"):
        flow.sample(3, generator=generator())


def test_a_flow_moves_and_pickles_and_copies_whole() -> None:
    flow = small()
    flow.log_prob(points())
    twin = pickle.loads(pickle.dumps(flow))
    assert torch.equal(twin.log_prob(points()), flow.log_prob(points()))
    assert copy.deepcopy(flow).float().sample(3).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CNF(ConcatSquashField(2), "normal"), "base is a str; wanted a shape, or a distribution"),
        (lambda: CNF(ConcatSquashField(2), Normal(torch.zeros(2), 1.0)), "base has batch_shape (2,)"),
        (lambda: CNF(ConcatSquashField(2), 2, (1.0, 1.0)), "wanted two times that differ"),
        (lambda: CNF(ConcatSquashField(2), 2, jitter=2.0), "jitter=2.0; wanted at least 0 and less than the span"),
        (lambda: CNF(3, 2), "field must be a Module or a function"),  # type: ignore[arg-type]
        (lambda: small().log_prob(points(3, 4)), "x has shape [3, 4]; wanted samples [2] as its last axes"),
        (lambda: small().log_prob([1.0, 2.0]), "x is a list; wanted a tensor"),  # type: ignore[arg-type]
        (lambda: small(context=3).log_prob(points(), points(5, 3)), "wanted a row for each of the 6 samples"),
        (lambda: CNF(ConcatSquashField(2), 2, divergence="trace"), "divergence='trace' is unknown"),
        (lambda: CNF(ConcatSquashField(2), 0), "base=0; wanted the shape of one sample"),
        (lambda: CNF(ConcatSquashField(2), Normal(0.0, 1.0)), "base has samples without an axis"),
        (lambda: CNF(ConcatSquashField(2), 2, None), "t=None; wanted two times"),  # type: ignore[arg-type]
        (lambda: small().log_prob(points().long()), "x has dtype torch.int64; wanted floating samples"),
        (lambda: small().log_prob(points().float()), "samples and field differ; wanted both alike"),
        (lambda: small(context=3).log_prob(points()), "context of 0 numbers a row; wanted the 3"),
        (lambda: small().log_prob(points(), points()), "context of 2 numbers a row; wanted the 0"),
        (lambda: small().sample(5, 3.0), "args[0] is a float; wanted a tensor with a row for each sample"),
        (lambda: small(context=3).distribution(points(4, 3)).expand((3,)), "conditioned on 4 rows; wanted as many"),
        (lambda: CNF(ConcatSquashField(2), 2, args_dims=1).log_prob(points(), points()), "wanted 0 or None for each"),
    ],
)
def test_invalid_arguments_are_refused_with_a_message(make: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert sentence in str(caught.value)


# samples


def test_samples_of_a_trained_flow_pass_a_two_sample_test_against_new_data() -> None:
    """By energy distance and permutations, with a fixed seed; shifted samples are rejected."""

    def bent(rows: int, seed: int) -> Tensor:
        z = torch.randn(rows, 2, generator=generator(seed))
        return torch.stack((z[:, 0], z[:, 1] / 2 + z[:, 0].square() / 2), 1)

    torch.manual_seed(0)
    flow = CNF(ConcatSquashField(2, 32, 2), 2, method="midpoint", step_size=0.25)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
    for step in range(250):
        optimizer.zero_grad()
        (-flow.log_prob(bent(256, 10 + step)).mean()).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        flow.method, flow.step_size = "tsit5", None
        samples, data = flow.sample(600, generator=generator(1)), bent(600, 2)
    assert two_sample_test(samples, data)["p_value"] > 0.05
    assert two_sample_test(samples + 0.2, data)["p_value"] < 0.01


# memory


def peak(gradient: Any, steps: int) -> int:
    """Return the peak memory of a training step with this many solver steps."""
    torch.manual_seed(0)
    x, grid = torch.randn(2048, 2), Given(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    flow = CNF(ConcatSquashField(2, 32, 2), 2, method="rk4", controller=grid, gradient=gradient)
    return peak_bytes(lambda: (-flow.log_prob(x).mean()).backward())


def test_adjoint_memory_does_not_grow_with_the_number_of_steps() -> None:
    adjoint = Adjoint(method="rk4", step_size=0.1)
    few, many = peak(adjoint, 10), peak(adjoint, 40)
    assert many <= 1.05 * few


def test_replay_needs_a_tenth_of_the_memory_of_direct_at_forty_steps() -> None:
    assert 10 * peak("replay", 40) <= peak("direct", 40)
