"""Probability paths, the flow matching loss, residual fields and guidance."""

import pytest
import torch
from torch import Tensor, nn

from neuralode.nn import CNF
from neuralode.nn.flows import (
    PATHS,
    ConcatSquashField,
    Cosine,
    Guided,
    Linear,
    ResidualField,
    VariancePreserving,
    drop_condition,
    flow_matching_loss,
    sample,
)

ALL = [*PATHS.values(), Linear(sigma_min=0.1), VariancePreserving(0.5, 5.0)]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- paths


@pytest.mark.parametrize("path", ALL, ids=str)
def test_slopes_are_the_derivatives(path):
    t = torch.linspace(0, 0.999, 50, dtype=torch.float64, requires_grad=True)
    found = path.slopes(t)
    for share, slope in zip((path.alpha, path.sigma), found, strict=True):
        [wanted] = torch.autograd.grad(share(t).sum(), t)
        torch.testing.assert_close(slope, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("path", ALL, ids=str)
def test_a_path_starts_at_the_noise_and_ends_at_the_data(path):
    start, end = torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    assert float(path.alpha(end)) == pytest.approx(1.0)
    assert float(path.sigma(end)) == pytest.approx(getattr(path, "sigma_min", 0.0), abs=1e-12)
    assert float(path.sigma(start)) == pytest.approx(1.0, abs=0.04)
    trace = float(torch.exp(-torch.tensor((path.beta_min + path.beta_max) / 4))) if hasattr(path, "beta_min") else 0.0
    assert float(path.alpha(start)) == pytest.approx(trace)


def test_slopes_are_finite_where_a_path_ends_with_infinite_slope():
    slopes = VariancePreserving().slopes(torch.tensor(1.0))
    assert all(bool(slope.isfinite()) for slope in slopes)
    assert float(slopes[1]) < -10


def test_each_row_may_have_its_own_time():
    x0, x1, t = normal(3, 2, 4), normal(3, 2, 4, seed=1), torch.tensor([0.0, 0.3, 0.9])
    together = Cosine().at(t, x0, x1)
    for row in range(3):
        alone = Cosine().at(t[row], x0[row : row + 1], x1[row : row + 1])
        torch.testing.assert_close(together.x[row], alone.x[0])
        torch.testing.assert_close(together.velocity[row], alone.velocity[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Linear(sigma_min=1.0), "sigma_min=1.0"),
        (lambda: VariancePreserving(beta_min=0.0), "beta_min=0.0"),
        (lambda: Linear().at(torch.tensor(0.5), torch.zeros(3, 2), torch.zeros(3, 1)), r"x0 has shape \[3, 2\]"),
        (lambda: Linear().at(torch.zeros(2), torch.zeros(3, 2), torch.zeros(3, 2)), r"t has shape \[2\]"),
        (lambda: flow_matching_loss(lambda t, x: x, torch.zeros(3, 2), path="liner"), "did you mean 'linear'"),
        (lambda: flow_matching_loss(lambda t, x: x[:, :1], torch.zeros(3, 2)), r"field gave shape \[3, 1\]"),
        (
            lambda: flow_matching_loss(lambda t, x: x, torch.zeros(3, 2), coupling=lambda x0, x1: torch.arange(2)),
            r"coupling gave shape \[2\]",
        ),
    ],
)
def test_invalid_arguments_are_refused_with_a_message(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# --- the loss

MEAN, DEVIATION = 2.0, 0.5


class Exact(nn.Module):
    """The exact mean velocity for normal data, plus an offset."""

    def __init__(self, path, off: float = 0.0) -> None:
        super().__init__()
        self.path, self.off = path, off

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        t = t.reshape(-1, 1)
        (da, ds), a, s = self.path.slopes(t), self.path.alpha(t), self.path.sigma(t)
        spread = a * a * DEVIATION**2 + s * s
        return da * MEAN + (da * a * DEVIATION**2 + ds * s) / spread * (x - a * MEAN) + self.off


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_mean_velocity_moves_the_noise_to_the_data(path):
    x0, (start, end) = normal(20, 1, dtype=torch.float64), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = sample(Exact(path), x0, grid="adaptive", rtol=1e-9, atol=1e-9).x

    def spread(t: Tensor) -> Tensor:
        return (path.alpha(t) ** 2 * DEVIATION**2 + path.sigma(t) ** 2).sqrt()

    wanted = path.alpha(end) * MEAN + spread(end) / spread(start) * (x0 - path.alpha(start) * MEAN)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_loss_is_minimal_at_the_mean_velocity(path):
    data = MEAN + DEVIATION * normal(200_000, 1, seed=1)

    def loss(off: float) -> float:
        drawing = torch.Generator().manual_seed(2)
        return float(flow_matching_loss(Exact(path, off), data, path=path, generator=drawing))

    least = loss(0.0)
    assert least > 0.1
    for off in (-0.5, 0.5):  # the mean of (residual + off)^2 where the residual has mean 0
        assert loss(off) - least == pytest.approx(off**2, rel=0.15)


def test_the_field_receives_states_of_any_shape_and_further_arguments():
    seen = {}

    def field(t, x, known):
        seen.update(t=t, x=x, known=known)
        return torch.zeros_like(x)

    x1, labels = normal(6, 3, 4, 4), torch.arange(6)
    loss = flow_matching_loss(field, x1, labels, generator=torch.Generator().manual_seed(0))
    assert loss.shape == ()
    assert (seen["t"].shape, seen["x"].shape) == ((6,), (6, 3, 4, 4))
    assert torch.equal(seen["known"], labels)
    again = flow_matching_loss(field, x1, labels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loss, again)
    assert not torch.equal(loss, flow_matching_loss(field, x1, labels, generator=torch.Generator().manual_seed(1)))


def test_given_noise_and_times_are_used():
    x0, x1, t = normal(5, 2), normal(5, 2, seed=1), torch.linspace(0, 1, 5)
    wanted = (x1 - x0).square().mean()
    torch.testing.assert_close(flow_matching_loss(lambda t, x: torch.zeros_like(x), x1, x0=x0, t=t), wanted)

    def check(at, x):
        torch.testing.assert_close(x, (1 - t)[:, None] * x0 + t[:, None] * x1)
        return x1 - x0

    assert float(flow_matching_loss(check, x1, x0=x0, t=t)) < 1e-12


def test_a_coupling_pairs_noise_with_data():
    x0, x1, t = normal(5, 2), normal(5, 2, seed=1), torch.rand(5)
    turned = flow_matching_loss(
        lambda t, x: torch.zeros_like(x), x1, x0=x0, t=t, coupling=lambda x0, x1: torch.arange(4, -1, -1)
    )
    torch.testing.assert_close(turned, (x1 - x0.flip(0)).square().mean())


def test_the_density_of_a_trained_field_integrates_to_one():
    torch.manual_seed(0)
    field, drawing = ConcatSquashField(2, width=48, activation="silu"), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(field.parameters(), 1e-2)
    for _ in range(300):
        side = torch.randint(2, (256, 1), generator=drawing) * 2 - 1
        data = torch.cat((1.5 * side + 0.0, torch.zeros(256, 1)), 1) + 0.4 * torch.randn(256, 2, generator=drawing)
        optimizer.zero_grad()
        flow_matching_loss(field, data, generator=drawing).backward()
        optimizer.step()
    step = 0.1
    axis = torch.arange(-5, 5, step) + step / 2
    points = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = CNF(field, base=2).log_prob(points).exp()
    assert float(density.sum()) * step**2 == pytest.approx(1.0, abs=2e-3)
    nearest = points[density.argmax()]
    assert abs(abs(float(nearest[0])) - 1.5) < 0.4  # two modes
    middle = density[points.norm(dim=1).argmin()]
    assert float(middle) < 0.2 * float(density.max())  # and a low density between them


# --- residual fields


def test_rows_of_a_residual_field_are_independent_with_one_time_or_several():
    torch.manual_seed(0)
    field, x, label = ResidualField((1, 4, 4), 16, 2, classes=3), normal(5, 1, 4, 4), torch.tensor([0, 1, 2, 3, 1])
    nn.init.normal_(field.leave.weight)
    t = torch.rand(5)
    together = field(t, x, label)
    for row in range(5):
        alone = field(t[row], x[row : row + 1], label[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)
    torch.testing.assert_close(field(t[0], x, label), field(t[:1].expand(5), x, label))
    assert not torch.allclose(field(t, x, label), field(1 - t, x, label))
    assert not torch.allclose(field(t, x, label), field(t, x, (label + 1) % 4))


def test_a_residual_field_starts_at_zero_and_requires_its_label():
    assert not ResidualField(2, 8)(torch.tensor(0.5), normal(3, 2)).any()
    with pytest.raises(ValueError, match=r"label is missing; wanted field\(t, x, label\) of 3 classes"):
        ResidualField(2, 8, classes=3)(torch.tensor(0.5), normal(3, 2))


# --- guidance


class Labelled(nn.Module):
    """A field conditioned on a class; the last one stands for no class."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.net, self.calls = nn.Embedding(classes + 1, 4), nn.Linear(7, 2), 0

    def forward(self, t: Tensor, x: Tensor, label: Tensor) -> Tensor:
        self.calls += 1
        time = t.reshape(-1, 1).expand(len(x), 1)
        return torch.tanh(self.net(torch.cat((x, time, self.embed(label)), 1)))


@pytest.mark.parametrize("times", [torch.tensor(0.3), torch.tensor([0.1, 0.5, 0.9, 0.2])], ids=["one", "each"])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_needs_one_call_and_equals_two(times, scale):
    field, x, label = Labelled(), normal(4, 2), torch.tensor([0, 1, 2, 1])
    known, unknown = field(times, x, label), field(times, x, torch.full((4,), 3))
    field.calls = 0
    found = Guided(field, scale, null=3)(times, x, label)
    assert field.calls == 1
    torch.testing.assert_close(found, unknown + scale * (known - unknown))


def test_guidance_replaces_a_whole_row_of_a_numeric_condition():
    field = ConcatSquashField(2, width=8, context=3)
    null, known, x, t = torch.tensor([9.0, 9.0, 9.0]), normal(4, 3), normal(4, 2, seed=1), torch.tensor(0.5)
    found = Guided(field, 2.0, null)(t, x, known)
    torch.testing.assert_close(found, 2 * field(t, x, known) - field(t, x, null.expand(4, 3)))


def test_a_guided_field_can_be_sampled_and_has_a_density():
    guided, label = Guided(Labelled(), 2.0, null=3), torch.tensor([0, 1, 2, 1])
    drawn = sample(guided, normal(4, 2), args=(label,), steps=20)
    assert guided.field.calls == drawn.calls == 20
    exact = sample(guided, normal(4, 2), args=(label,), grid="adaptive").x
    torch.testing.assert_close(drawn.x, exact, atol=0.1, rtol=0.1)
    flow = CNF(guided, base=2)
    torch.testing.assert_close(flow(normal(4, 2), label), exact, atol=1e-3, rtol=1e-3)
    assert bool(flow.log_prob(exact, label).isfinite().all())


def test_conditions_are_dropped_with_the_given_probability():
    label = torch.arange(10_000) % 3
    drawing = torch.Generator().manual_seed(0)
    dropped = drop_condition(label, 3, 0.2, drawing)
    lost = dropped == 3
    assert float(lost.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert torch.equal(dropped[~lost], label[~lost])
    assert torch.equal(drop_condition(label, 3, 0.0), label)
    assert label.max() == 2  # the input is unchanged
    rows = drop_condition(torch.ones(1000, 4), 0.0, 0.5, drawing)
    assert set(rows.sum(1).tolist()) == {0.0, 4.0}
    with pytest.raises(ValueError, match=r"probability=1.5; wanted a number from 0 to 1"):
        drop_condition(label, 3, 1.5)
