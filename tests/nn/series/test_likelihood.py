"""Log-probabilities equal those of torch where values are present, and are 0 elsewhere."""

from math import inf, nan

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal
from torch.nn.functional import softplus

from neuralode.nn import Likelihood

DOUBLE = torch.float64
SCALES = [0.5, "channel", "state"]
BINARY = [(), (1,), (0, 1, 2)]
kinds = [pytest.mark.parametrize("scale", SCALES), pytest.mark.parametrize("binary", BINARY)]


def every_kind(test):
    for mark in kinds:
        test = mark(test)
    return test


def made(scale, binary) -> tuple[Likelihood, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a likelihood of three channels, decoder outputs, values, and which values are present."""
    likelihood = Likelihood(3, binary=binary, scale=scale).double()
    if likelihood.log_scale is not None:
        torch.nn.init.normal_(likelihood.log_scale)
    decoded = torch.randn(2, 5, likelihood.outputs, dtype=DOUBLE, requires_grad=True)
    values = torch.randn(5, 3, dtype=DOUBLE)
    values[:, list(binary)] = (values[:, list(binary)] > 0).double()
    return likelihood, decoded, values, torch.rand(5, 3) < 0.7


def scales(likelihood: Likelihood, decoded: torch.Tensor) -> torch.Tensor:
    if likelihood.scale == "state":
        return softplus(decoded[..., 3:]) + 1e-3
    if likelihood.log_scale is not None:
        return (likelihood.log_scale.exp() + 1e-3).expand(2, 5, 3)
    return torch.full((2, 5, 3), 0.5, dtype=DOUBLE)


@every_kind
def test_present_values_have_the_log_probability_of_torch(scale, binary):
    likelihood, decoded, values, seen = made(scale, binary)
    found = likelihood.log_prob(decoded, values, seen)
    raw = decoded[..., :3]
    wanted = Normal(raw, scales(likelihood, decoded)).log_prob(values)
    for channel in binary:
        wanted[..., channel] = Bernoulli(logits=raw[..., channel]).log_prob(values[..., channel])
    torch.testing.assert_close(found, torch.where(seen, wanted, 0), rtol=1e-12, atol=1e-12)


@every_kind
@pytest.mark.parametrize("stored", [0.0, nan, inf, 1e308])
def test_a_gap_contributes_nothing_whatever_its_stored_value(scale, binary, stored):
    likelihood, decoded, values, seen = made(scale, binary)
    likelihood.log_prob(decoded, values, seen).sum().backward()
    assert decoded.grad is not None
    clean, decoded.grad = decoded.grad, None
    log_prob = likelihood.log_prob(decoded, torch.where(seen, values, stored), seen)
    assert not log_prob[:, ~seen].any()
    log_prob.sum().backward()
    assert torch.equal(decoded.grad, clean)
    assert not decoded.grad[..., :3][:, ~seen].any()


@every_kind
def test_gradients_are_those_of_finite_differences(scale, binary):
    likelihood, decoded, values, seen = made(scale, binary)

    def log_prob(decoded, *parameters):
        return likelihood.log_prob(decoded, values, seen)

    assert torch.autograd.gradcheck(log_prob, (decoded, *likelihood.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("scale", SCALES)
def test_a_binary_channel_that_is_certain_has_a_gradient(scale, dtype):
    likelihood = Likelihood(2, binary=[1], scale=scale).to(dtype)
    decoded = torch.full((1, likelihood.outputs), 40.0, dtype=dtype, requires_grad=True)
    seen = torch.tensor([[True, True]])
    likelihood.log_prob(decoded, torch.tensor([[40.0, 0.0]], dtype=dtype), seen).sum().backward()
    assert decoded.grad is not None
    assert decoded.grad.isfinite().all()
    assert decoded.grad[0, 1] == -1  # a logit of 40 for a value of 0


@every_kind
def test_samples_have_the_declared_mean_and_spread(scale, binary):
    likelihood, decoded, _, _ = made(scale, binary)
    count = 40_000
    many = decoded.detach().expand(count, *decoded.shape)
    drawn = likelihood.sample(many, torch.Generator().manual_seed(1))
    mean, spread = likelihood.mean(decoded).detach(), likelihood.spread(decoded).detach()
    assert ((drawn.mean(0) - mean).abs() < 5 * spread / count**0.5).all()
    torch.testing.assert_close(drawn.std(0), spread, rtol=0.1, atol=0)
    for channel in binary:
        assert set(drawn[..., channel].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(drawn, likelihood.sample(many, torch.Generator().manual_seed(1)))


def test_outputs_is_the_size_of_the_decoder_output():
    assert [Likelihood(3, scale=scale).outputs for scale in SCALES] == [3, 3, 6]


def test_there_is_a_scale_parameter_only_where_it_is_used():
    assert [len(list(Likelihood(2, scale=scale).parameters())) for scale in SCALES] == [0, 1, 0]
    assert list(Likelihood(2, binary=[0, 1]).parameters()) == []


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_a_constant_scale_may_be_any_kind_of_number(half):
    assert Likelihood(1, scale=half).spread(torch.zeros(4, 1)).tolist() == [[0.5]] * 4
    assert Likelihood(1, scale=1).spread(torch.zeros(1, 1)).item() == 1.0


@pytest.mark.parametrize("scale", [0, -1.0, inf, nan, "wide"])
def test_an_invalid_scale_is_refused(scale):
    with pytest.raises(ValueError, match="wanted a positive number, 'channel' or 'state'"):
        Likelihood(2, scale=scale)


@pytest.mark.parametrize("binary", [(2,), (-1,)])
def test_binary_channels_that_do_not_exist_are_refused(binary):
    with pytest.raises(ValueError, match="wanted channels from 0 to 1"):
        Likelihood(2, binary=binary)
