"""Poisson processes: expected counts along a trajectory, log-likelihoods, and latent ODEs with events."""

import math

import pytest
import torch
from scipy.integrate import simpson
from torch import Tensor

import neuralode
from neuralode.nn import LatentODE, Observations, PoissonProcess

DOUBLE = torch.float64
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
EVENTS = torch.tensor([0.3, 0.35, 1.1, 1.9], dtype=DOUBLE)
END = 2.0


def turning(t: Tensor, z: Tensor) -> Tensor:
    return torch.stack((z[..., 1], -2 * z[..., 0]), -1)


@pytest.fixture
def process() -> PoissonProcess:
    return PoissonProcess(features=2, kinds=2, width=8).double()


def constant(process: PoissonProcess, *rates: float) -> PoissonProcess:
    """Make the intensities independent of the state."""
    with torch.no_grad():
        process.log_intensity[-1].weight.zero_()
        process.log_intensity[-1].bias.copy_(torch.tensor(rates).log())
    return process


def log_likelihood(process: PoissonProcess, z0: Tensor, f=turning, times: Tensor = EVENTS, **options) -> Tensor:
    """Return the log-likelihood of events of both kinds at ``times``, and no other until END."""
    clock = torch.cat((torch.zeros(1, dtype=DOUBLE), times, torch.full((1,), END, dtype=DOUBLE)))
    z, expected = neuralode.solve(process.along(f), process.begin(z0), clock, **{**TIGHT, **options}).ys
    happened = torch.ones(len(times), process.kinds, dtype=torch.bool)
    return process.log_prob(z[1:-1].movedim(0, -2), happened, expected[-1])


@pytest.mark.parametrize("per_sample", [False, True])
def test_the_expected_count_is_the_integral_of_the_intensity(process, per_sample):
    z0 = torch.randn(3, 2, dtype=DOUBLE)
    grid = torch.linspace(0, END, 2001, dtype=DOUBLE)
    begin = process.begin(z0)
    z, expected = neuralode.solve(process.along(turning), begin, grid, per_sample=per_sample, **TIGHT).ys
    intensity = process.log_intensity(z).exp().detach()
    for until in (500, 2000):
        wanted = simpson(intensity[: until + 1].numpy(), x=grid[: until + 1].numpy(), axis=0)
        torch.testing.assert_close(expected[until].detach(), torch.as_tensor(wanted), rtol=1e-6, atol=1e-6)
    assert not expected[0].any()


def test_counting_does_not_change_the_trajectory(process):
    z0 = torch.randn(3, 2, dtype=DOUBLE)
    times = torch.linspace(0, END, 5, dtype=DOUBLE)
    z, _ = neuralode.solve(process.along(turning), process.begin(z0), times, **TIGHT).ys
    torch.testing.assert_close(z, neuralode.solve(turning, z0, times, **TIGHT).ys, rtol=1e-7, atol=1e-7)


def test_constant_rates_have_the_textbook_log_likelihood(process):
    found = log_likelihood(constant(process, 3.0, 0.25), torch.randn(5, 2, dtype=DOUBLE))
    wanted = sum(len(EVENTS) * math.log(rate) - rate * END for rate in (3.0, 0.25))
    torch.testing.assert_close(found, torch.full((5,), wanted, dtype=DOUBLE), rtol=1e-8, atol=1e-8)


def test_a_rate_that_depends_on_time_has_its_closed_form_log_likelihood():
    """With z = t and log λ = z it is Σ t_i − (e^T − 1)."""
    process = PoissonProcess(features=1).double()
    process.log_intensity = torch.nn.Identity()
    found = log_likelihood(process, torch.zeros(1, 1, dtype=DOUBLE), lambda t, z: torch.ones_like(z))
    assert found.item() == pytest.approx(EVENTS.sum().item() - (math.exp(END) - 1), abs=1e-6)


def test_events_that_did_not_happen_contribute_the_integral_only(process):
    z, expected = torch.randn(4, 3, 2, dtype=DOUBLE), torch.rand(4, 2, dtype=DOUBLE)
    happened = torch.tensor([[True, False], [False, False], [False, True]])
    logs = process.log_intensity(z)
    wanted = logs[:, 0, 0] + logs[:, 2, 1] - expected.sum(1)
    torch.testing.assert_close(process.log_prob(z, happened, expected), wanted)
    torch.testing.assert_close(process.log_prob(z, torch.zeros_like(happened), expected), -expected.sum(1))


@pytest.mark.parametrize("gradient", ["replay", "adjoint", "direct"])
def test_gradients_are_those_of_finite_differences(gradient):
    process = PoissonProcess(features=2, kinds=1, width=3).double()

    def found(z0, *parameters):
        return log_likelihood(process, z0, gradient=gradient)

    z0 = torch.randn(1, 2, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(found, (z0, *process.parameters()), rtol=1e-4, atol=1e-5)


def test_maximum_likelihood_recovers_a_constant_rate():
    rate, series = 4.0, 60
    process = PoissonProcess(features=1, width=4).double()
    counts = torch.poisson(torch.full((series,), rate * END), torch.Generator().manual_seed(0)).long()
    happened = (torch.arange(int(counts.max())) < counts[:, None])[..., None]
    z0 = torch.zeros(series, 1, dtype=DOUBLE)
    z = torch.zeros(series, happened.shape[1], 1, dtype=DOUBLE)  # constant, so that event times do not matter
    optimizer = torch.optim.Adam(process.parameters(), lr=0.05)
    for _ in range(80):
        optimizer.zero_grad()
        expected = neuralode.solve(process.along(lambda t, z: 0 * z), process.begin(z0), (0.0, END), rtol=1e-6).y1[1]
        (-process.log_prob(z, happened, expected).mean()).backward()
        optimizer.step()
    fitted = process.log_intensity(z0[0]).exp().item()
    assert fitted == pytest.approx(counts.sum().item() / (series * END), rel=0.01)
    assert fitted == pytest.approx(rate, rel=0.1)


def modelled(*rates: float) -> tuple[LatentODE, Observations]:
    """Return a latent ODE with events on two channels, and a batch with gaps."""
    nan = math.nan
    events = PoissonProcess(features=3, kinds=2)
    if rates:
        constant(events, *rates)
    model = LatentODE(2, 3, hidden=4, width=5, events=events, **TIGHT).double()
    series = [([0.5, 1.0, 2.0], [[1.0, nan], [0.0, 2.0], [nan, nan]]), ([0.25], [[nan, 1.0]])]
    return model, Observations.gather(series, start=0.0, dtype=DOUBLE)


@pytest.mark.parametrize("per_sample", [True, False])
def test_a_latent_ode_counts_events_up_to_the_last_time_of_each_series(per_sample):
    model, observed = modelled()
    model.per_sample = per_sample
    assert model.events is not None
    z0 = torch.randn(2, 2, 3, dtype=DOUBLE)
    expected = model.follow(z0, observed.start, observed.times).expected
    assert expected is not None
    for row, end in enumerate((2.0, 0.25)):
        grid = torch.linspace(0, end, 1001, dtype=DOUBLE)
        z = neuralode.solve(model.field, z0[:, row], grid, **TIGHT).ys
        wanted = simpson(model.events.log_intensity(z).exp().detach().numpy(), x=grid.numpy(), axis=0)
        torch.testing.assert_close(expected[:, row].detach(), torch.as_tensor(wanted), rtol=1e-6, atol=1e-6)


def test_the_events_of_a_latent_ode_are_the_times_of_present_values():
    model, observed = modelled(3.0, 0.5)
    torch.manual_seed(1)
    counting = model.elbo(observed).log_likelihood
    model.events = None
    torch.manual_seed(1)
    silent = model.elbo(observed).log_likelihood
    wanted = [
        2 * math.log(3.0) + math.log(0.5) - 3.5 * 2.0,  # two events and one event until 2.0
        math.log(0.5) - 3.5 * 0.25,
    ]
    torch.testing.assert_close(counting - silent, torch.tensor(wanted, dtype=DOUBLE), rtol=1e-6, atol=1e-6)
