"""Latent ODEs: trajectories of each series, encodings, the lower bound of the paper, and training."""

import math
from dataclasses import replace
from math import nan

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import softplus

import neuralode
from neuralode.nn import ODERNN, GRUDecay, LatentODE, Likelihood, Observations, PoissonProcess, Recurrent

DOUBLE = torch.float64
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
LENGTHS = (4, 1, 3)


def ragged(static: int = 0, channels: int = 2, starts: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Observations:
    """Return series with gaps; the second channel is binary, and the first observation is after the start."""
    series = []
    for begin, n in zip(starts, LENGTHS, strict=True):
        values = torch.randn(n, channels, dtype=DOUBLE)
        values[:, -1] = (values[:, -1] > 0).double()
        values[1::2, 0] = nan
        series.append((begin + 0.1 + torch.rand(n, dtype=DOUBLE).cumsum(0) / 2, values))
    covariates = torch.randn(3, static, dtype=DOUBLE) if static else None
    return Observations.gather(series, start=starts, static=covariates, dtype=DOUBLE)


def small(channels: int = 2, latent: int = 3, **options) -> LatentODE:
    return LatentODE(channels, latent, **{"hidden": 4, "width": 5, **options}).double()


@pytest.fixture
def mean_sampled(monkeypatch) -> None:
    """Make samples independent of the batch."""

    def rsample(self: Normal, shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        by_sample = torch.arange(1.0, 1 + math.prod(shape), dtype=DOUBLE).view(*shape, *[1] * self.mean.dim())
        return self.mean + self.scale * by_sample.sin()

    monkeypatch.setattr(Normal, "rsample", rsample)


def without_gradient(model: torch.nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]


# -- the trajectory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_sample", [True, False])
def test_the_trajectory_at_the_start_is_z0_itself(per_sample):
    model = small(per_sample=per_sample)
    z0, start = torch.randn(4, 3, 3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE)
    times = torch.cat((start[:, None], ragged().times), 1)
    z = model.follow(z0, start, times).z
    assert z.shape == (4, 3, 5, 3)
    assert torch.equal(z[:, :, 0], z0)
    assert torch.equal(model.decode(z)[:, :, 0], model.decode(z0))
    alone = model.follow(z0, start, start[:, None]).z  # an empty time span
    assert torch.equal(alone[:, :, 0], z0)


@pytest.mark.parametrize("per_sample", [True, False])
def test_every_sample_and_series_is_solved_to_its_own_times(per_sample):
    model, observed = small(per_sample=per_sample, **TIGHT), ragged()
    z0 = torch.randn(2, 3, 3, dtype=DOUBLE)
    z = model.follow(z0, observed.start, observed.times).z
    for row, n in enumerate(observed.lengths.tolist()):
        clock = torch.cat((observed.start[row : row + 1], observed.times[row, :n]))
        wanted = neuralode.solve(model.field, z0[:, row], clock, method="dopri5", **TIGHT).ys[1:]
        torch.testing.assert_close(z[:, row, :n], wanted.transpose(0, 1), rtol=1e-7, atol=1e-7)
        assert torch.equal(z[:, row, n:], z[:, row, n - 1 : n].expand(-1, 4 - n, -1))


def test_a_shared_clock_and_a_clock_for_each_series_agree(mean_sampled):
    model, observed = small(events=PoissonProcess(3, 2), likelihood=Likelihood(2, binary=[1]), **TIGHT), ragged()
    answers, gradients = [], []
    for per_sample in (True, False):
        model.per_sample = per_sample
        model.zero_grad()
        elbo = model.elbo(observed, samples=3)
        elbo.loss.backward()
        answers.append(torch.stack((elbo.log_likelihood, elbo.kl)))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*answers, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_shifting_time_does_not_change_the_bound_of_an_autonomous_field(mean_sampled):
    torch.manual_seed(3)
    together = ragged()
    torch.manual_seed(3)
    shifted = ragged(starts=(5.0, -2.0, 0.0))
    model = small(**TIGHT)
    a, b = model.elbo(together, samples=2), model.elbo(shifted, samples=2)
    torch.testing.assert_close(a.log_likelihood, b.log_likelihood, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(a.kl, b.kl, rtol=1e-9, atol=1e-9)


# -- encodings --------------------------------------------------------------------------------------------------------


def reader(name: str) -> str | Recurrent:
    return GRUDecay(2, 4) if name == "gru-decay" else name


readers = pytest.mark.parametrize("recognition", ["rnn", "odernn", "gru-decay"])


@readers
def test_later_encodings_equal_those_of_series_that_begin_there(recognition):
    model, observed = small(recognition=reader(recognition), static=1), ragged(static=1)
    later = model.encode_later(observed)
    for row, n in enumerate(observed.lengths.tolist()):
        for step in range(n):
            rest = observed[row : row + 1]
            rest = rest.keeping(torch.arange(n)[None] >= step)
            found = model.encode(replace(rest, start=rest.times[:, 0]))
            torch.testing.assert_close(later.mean[row, step], found.mean[0], rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(later.scale[row, step], found.scale[0], rtol=1e-10, atol=1e-10)


def test_the_encoding_depends_on_the_time_before_the_first_observation():
    observed = ragged()
    earlier = replace(observed, start=observed.start - 1.0)
    for recognition in ("rnn", "odernn"):
        model = small(recognition=recognition)
        assert (model.encode(earlier).mean - model.encode(observed).mean).abs().min() > 1e-6


def test_an_odernn_evolves_its_state_back_to_the_start():
    reader = ODERNN(2, 4, method="rk4", steps=20).double()
    model, observed = small(recognition=reader), ragged()
    first = observed.times[:, 0]
    read = reader.evolve(reader(observed.reversed()), first, observed.start)
    mean, raw = model.posterior(torch.cat((read, (first - observed.start)[:, None]), 1)).chunk(2, 1)
    torch.testing.assert_close(model.encode(observed).mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.encode(observed).scale, softplus(raw) + 1e-3, rtol=1e-12, atol=1e-12)


def test_covariates_reach_the_first_state_of_their_own_series():
    model, observed = small(static=2), ragged(static=2)
    assert observed.static is not None
    other = observed.static.clone()
    other[1, 0] += 1.0
    changed = model.encode(replace(observed, static=other)).mean != model.encode(observed).mean
    assert changed.any(1).tolist() == [False, True, False]


# -- the bound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 3])
def test_the_bound_equals_a_direct_computation(samples):
    model, observed = small(recognition="odernn", likelihood=Likelihood(2, binary=[1], scale=0.3), **TIGHT), ragged()
    torch.manual_seed(5)
    found = model.elbo(observed, samples=samples, kl_weight=0.7)
    q = model.encode(observed)
    torch.manual_seed(5)
    z0 = q.rsample(torch.Size((samples,)))
    log_likelihood = torch.zeros(3, dtype=DOUBLE)
    for row, n in enumerate(observed.lengths.tolist()):
        for sample in range(samples):
            clock = torch.cat((observed.start[row : row + 1], observed.times[row, :n]))
            z = neuralode.solve(model.field, z0[sample, row], clock, **TIGHT).ys[1:]
            for step, (level, logit) in enumerate(model.decoder(z)):
                x, y = observed.values[row, step]
                if observed.seen[row, step, 0]:
                    log_p = -0.5 * ((x - level) / 0.3) ** 2 - math.log(0.3) - 0.5 * math.log(2 * math.pi)
                    log_likelihood[row] += log_p.detach() / samples
                chance = logit.sigmoid()
                log_likelihood[row] += (y * chance.log() + (1 - y) * (1 - chance).log()).detach() / samples
    kl = 0.5 * (q.mean**2 + q.scale**2 - 1 - 2 * q.scale.log()).sum(1)
    torch.testing.assert_close(found.log_likelihood.detach(), log_likelihood, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.kl, kl, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.loss, (0.7 * kl - log_likelihood).mean(), rtol=1e-7, atol=1e-7)


def test_the_bound_of_a_batch_is_the_mean_of_its_members(mean_sampled):
    model = small(recognition="odernn", static=1, events=PoissonProcess(3, 2))
    observed = ragged(static=1, starts=(0.0, 1.0, -1.0))
    together = model.elbo(observed, samples=2)
    alone = [model.elbo(observed[row : row + 1], samples=2) for row in range(3)]
    torch.testing.assert_close(together.loss, torch.stack([x.loss for x in alone]).mean(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        together.log_likelihood, torch.cat([x.log_likelihood for x in alone]), rtol=1e-9, atol=1e-9
    )


def test_several_samples_are_averaged(mean_sampled):
    model, observed = small(), ragged()
    z0 = model.encode(observed).rsample(torch.Size((3,)))

    def explained(z0: Tensor) -> Tensor:
        z = model.follow(z0, observed.start, observed.times).z
        return model.likelihood.log_prob(model.decode(z), observed.values, observed.seen).sum((-1, -2)).mean(0)

    each = torch.stack([explained(z0[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(model.elbo(observed, samples=3).log_likelihood, each.mean(0), rtol=1e-9, atol=1e-9)


def test_kl_weight_scales_the_divergence_in_the_loss(mean_sampled):
    model, observed = small(), ragged()
    whole, none = model.elbo(observed), model.elbo(observed, kl_weight=0.0)
    torch.testing.assert_close(none.loss, -none.log_likelihood.mean())
    torch.testing.assert_close(whole.loss - none.loss, whole.kl.mean())
    assert torch.equal(whole.kl, none.kl)


def test_targets_may_have_more_observations_than_the_input(mean_sampled):
    model, observed = small(**TIGHT), ragged()
    read = observed.keeping(torch.arange(4).expand(3, -1) < 2)
    more = model.elbo(read, observed)
    z = model.follow(model.encode(read).rsample(torch.Size((1,))), read.start, observed.times).z
    wanted = model.likelihood.log_prob(model.decode(z)[0], observed.values, observed.seen).sum((1, 2))
    torch.testing.assert_close(more.log_likelihood, wanted, rtol=1e-7, atol=1e-7)
    assert torch.equal(more.kl, model.elbo(read).kl)


@pytest.mark.parametrize("per_sample", [True, False])
def test_times_without_values_do_not_change_the_likelihood(mean_sampled, per_sample):
    model, observed = small(per_sample=per_sample, **TIGHT), ragged()
    pad = torch.nn.functional.pad
    times = torch.cat((observed.start[:, None], observed.times, observed.times[:, -1:] + 1.0), 1)
    targets = replace(
        observed, times=times, values=pad(observed.values, (0, 0, 1, 1), value=nan),
        seen=pad(observed.seen, (0, 0, 1, 1)), lengths=torch.full((3,), 6),
    )  # fmt: skip
    found, wanted = model.elbo(observed, targets), model.elbo(observed)
    torch.testing.assert_close(found.log_likelihood, wanted.log_likelihood, rtol=1e-6, atol=1e-6)


@readers
def test_extra_padding_changes_nothing(mean_sampled, recognition):
    model, observed = small(recognition=reader(recognition)), ragged()
    pad = torch.nn.functional.pad
    wide = replace(
        observed, times=torch.cat((observed.times, observed.times[:, -1:]), 1),
        values=pad(observed.values, (0, 0, 0, 1)), seen=pad(observed.seen, (0, 0, 0, 1)),
    )  # fmt: skip
    for found, wanted in zip(model.elbo(wide, consistency=1.0), model.elbo(observed, consistency=1.0), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


# -- training ---------------------------------------------------------------------------------------------------------


@readers
@pytest.mark.parametrize("binary", [(), (1,), (0, 1)])
@pytest.mark.parametrize("scale", [0.1, "channel", "state"])
@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("static", [0, 2])
def test_gradients_reach_every_parameter(recognition, binary, scale, events, static):
    model = small(
        recognition=reader(recognition), likelihood=Likelihood(2, binary=binary, scale=scale),
        events=PoissonProcess(3, 2) if events else None, static=static,
    )  # fmt: skip
    model.elbo(ragged(static=static)).loss.backward()
    assert without_gradient(model) == []


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("events", [False, True])
def test_all_gradient_methods_agree(mean_sampled, per_sample, events):
    model = small(per_sample=per_sample, events=PoissonProcess(3, 2) if events else None, **TIGHT)
    observed, found = ragged(), {}
    for gradient in ("replay", "adjoint", "direct"):
        model.gradient = gradient
        model.zero_grad()
        model.elbo(observed, samples=2).loss.backward()
        assert without_gradient(model) == []
        found[gradient] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found["replay"], found["direct"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found["adjoint"], found["direct"], rtol=1e-6, atol=1e-6)


def test_the_loss_has_the_gradient_of_finite_differences(mean_sampled):
    model = small(latent=2, hidden=2, width=2, recognition="odernn", events=PoissonProcess(2, 2, width=2), **TIGHT)
    observed = ragged()
    model.elbo(observed).loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        aside, losses = torch.randn_like(parameter), []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(aside, alpha=step)
                losses.append(model.elbo(observed).loss)
                parameter.sub_(aside, alpha=step)
        slope = (losses[0] - losses[1]) / 2e-5
        torch.testing.assert_close((parameter.grad * aside).sum(), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_sample", [True, False])
def test_the_bound_rises_in_training(per_sample):
    series = []
    for phase in torch.linspace(0, 3, 8, dtype=DOUBLE):
        times = torch.linspace(0, 2, 9, dtype=DOUBLE)
        series.append((times, torch.sin(2 * times + phase)[:, None]))
    observed = Observations.gather(series, dtype=DOUBLE)
    model = small(channels=1, hidden=8, width=16, per_sample=per_sample, rtol=1e-2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def bound() -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return -model.elbo(observed, samples=20).loss.item()

    before = bound()
    for _ in range(30):
        optimizer.zero_grad()
        model.elbo(observed).loss.backward()
        optimizer.step()
    assert bound() > before + 1.0


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_another_number_of_channels_is_refused():
    model, three = small(), ragged(channels=3)
    for call in (model.elbo, model.encode, model.encode_later):
        with pytest.raises(ValueError, match="observed has 3 channels, the model 2; wanted as many"):
            call(three)
    with pytest.raises(ValueError, match="likelihood has 1 channels, observations 2; wanted as many"):
        small(likelihood=Likelihood(1))
    with pytest.raises(ValueError, match="observed has 2 channels, the ODERNN 3; wanted as many"):
        small(recognition=ODERNN(3, 4)).elbo(ragged())


def test_targets_of_other_series_or_channels_are_refused():
    observed = ragged()
    one = replace(observed, values=observed.values[..., :1], seen=observed.seen[..., :1])
    with pytest.raises(ValueError, match="targets has 3 series of 1 channels, observed 3 of 2; wanted as many"):
        small().elbo(observed, one)
    with pytest.raises(ValueError, match="targets has 1 series of 2 channels, observed 3 of 2; wanted as many"):
        small().elbo(observed, observed[:1])


@pytest.mark.parametrize(("given", "expected"), [(0, 2), (2, 0), (1, 2)])
def test_another_number_of_covariates_is_refused(given, expected):
    with pytest.raises(ValueError, match=f"observed has {given} static covariates, the model takes {expected}"):
        small(static=expected).elbo(ragged(static=given))


def test_different_starts_on_one_clock_are_refused():
    with pytest.raises(ValueError, match="one clock cannot serve; wanted per_sample=True"):
        small(per_sample=False).elbo(ragged(starts=(0.0, 0.5, 0.0)))


def test_events_of_another_number_of_kinds_are_refused():
    with pytest.raises(ValueError, match="events has 3 kinds, observations 2 channels; wanted as many"):
        small(events=PoissonProcess(3, 3))


def test_an_unknown_recognition_network_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="recognition='lstm' is unknown; Known: 'rnn', 'odernn'"):
        small(recognition="lstm")
