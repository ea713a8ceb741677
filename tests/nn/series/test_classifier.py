"""SeriesNet classifies each series independently, from its states and covariates."""

from dataclasses import replace
from math import nan

import pytest
import torch

from neuralode.nn import ODERNN, RNN, GRUDecay, Observations, SeriesNet

kinds = pytest.mark.parametrize("kind", [RNN, GRUDecay, ODERNN])


def batch(static: int = 0) -> Observations:
    series = []
    for n in (2, 4, 1):
        values = torch.randn(n, 2, dtype=torch.float64)
        values[0, 0] = nan
        values[1:, 1] = nan
        series.append((torch.rand(n, dtype=torch.float64).cumsum(0) + 0.1, values))
    covariates = torch.randn(3, static, dtype=torch.float64) if static else None
    return Observations.gather(series, static=covariates, dtype=torch.float64)


def net(kind=RNN, **options) -> SeriesNet:
    return SeriesNet(kind(2, 5), outputs=3, width=6, **options).double()


@kinds
def test_padding_is_never_read(kind):
    observed, network = batch(), net(kind)
    pad = torch.nn.functional.pad
    wide = replace(
        observed,
        times=pad(observed.times, (0, 2), value=50.0),
        values=pad(observed.values, (0, 0, 0, 2), value=nan),
        seen=pad(observed.seen, (0, 0, 0, 2)),
    )
    assert torch.equal(network(wide), network(observed))


@kinds
def test_the_output_of_a_series_does_not_depend_on_the_batch(kind):
    observed, network = batch(static=2), net(kind, static=2)
    together = network(observed)
    for row in range(3):
        torch.testing.assert_close(network(observed[row : row + 1]), together[row : row + 1], rtol=1e-12, atol=1e-12)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(network(observed[order]), together[order], rtol=1e-12, atol=1e-12)


def test_the_head_receives_the_last_mean_and_largest_state():
    observed, network = batch(static=1), net(static=1)
    rows = []
    for row, n in enumerate(observed.lengths.tolist()):
        states = network.reader.states(observed[row : row + 1])[0, :n]
        assert observed.static is not None
        rows.append(torch.cat((states[-1], states.mean(0), states.max(0).values, observed.static[row])))
    torch.testing.assert_close(network(observed), network.head(torch.stack(rows)))


def test_dropout_acts_in_training_only():
    observed, network = batch(), net(dropout=0.5)
    assert not torch.equal(network(observed), network(observed))
    network.eval()
    assert torch.equal(network(observed), network(observed))
    without = net(dropout=0.0)
    without.load_state_dict(network.state_dict())
    assert torch.equal(without(observed), network(observed))


def test_covariates_change_the_output_of_their_own_series():
    observed, network = batch(static=2), net(static=2)
    assert observed.static is not None
    other = observed.static.clone()
    other[1, 0] += 1.0
    changed = (network(replace(observed, static=other)) - network(observed)).abs().sum(1) > 1e-6
    assert changed.tolist() == [False, True, False]


@kinds
def test_gradients_reach_every_parameter(kind):
    network = net(kind, static=2)
    network(batch(static=2)).square().sum().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert missing == []


@pytest.mark.parametrize(("given", "expected"), [(0, 2), (2, 0), (3, 2)])
def test_another_number_of_covariates_is_refused(given, expected):
    with pytest.raises(ValueError, match=f"observed has {given} static covariates, the network takes {expected}"):
        net(static=expected)(batch(static=given))
