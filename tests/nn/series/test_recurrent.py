"""Recurrent networks: each series is processed independently, with its own dynamics between observations."""

from collections.abc import Callable
from dataclasses import replace
from math import nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuralode.nn import ODERNN, RNN, Evolve, GRUDecay, Observations, Recurrent

KINDS: dict[str, Callable[[int, int], Recurrent]] = {
    "rnn": RNN,
    "gru-decay": GRUDecay,
    "odernn": ODERNN,
    "adaptive odernn": lambda channels, hidden: ODERNN(
        channels, hidden, method="tsit5", steps=None, rtol=1e-5, atol=1e-5
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)
LENGTHS = (3, 1, 5, 3, 2)


def ragged(lengths: tuple[int, ...] = LENGTHS, channels: int = 2) -> Observations:
    """Return random series with gaps that begin before their first observation."""
    series = []
    for n in lengths:
        values = torch.randn(n, channels, dtype=torch.float64)
        values[torch.rand(n, channels) < 0.4] = nan
        series.append((torch.rand(n, dtype=torch.float64).cumsum(0) + 0.1, values))
    return Observations.gather(series, start=0.0, dtype=torch.float64)


def with_invalid_padding(observed: Observations, more: int = 2) -> Observations:
    """Return the batch with further padding that holds NaN and wrong times."""
    series, steps, channels = observed.values.shape
    wide = torch.full((series, steps + more, channels), nan, dtype=torch.float64)
    inside = nn.functional.pad(observed.inside, (0, more))
    values = torch.where(inside[..., None], nn.functional.pad(observed.values, (0, 0, 0, more)), wide)
    times = nn.functional.pad(observed.times, (0, more), value=99.0)
    return replace(observed, times=times, values=values, seen=nn.functional.pad(observed.seen, (0, 0, 0, more)))


def of(kind: str, channels: int = 2, hidden: int = 4) -> Recurrent:
    return KINDS[kind](channels, hidden).double()


@kinds
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(len(LENGTHS))))
def test_outputs_are_in_the_order_of_the_batch(kind, order):
    torch.manual_seed(0)
    reader, observed = of(kind), ragged()
    shuffled = observed[torch.tensor(order)]
    torch.testing.assert_close(reader(shuffled), reader(observed)[order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(reader.states(shuffled), reader.states(observed)[order], rtol=1e-9, atol=1e-9)


@kinds
@pytest.mark.parametrize("reverse_time", [False, True])
def test_the_output_of_a_series_does_not_depend_on_the_batch(kind, reverse_time):
    reader, observed = of(kind), ragged()
    together = reader(observed.reversed() if reverse_time else observed)
    for row in range(len(observed)):
        alone = observed[row : row + 1]
        alone = reader(alone.reversed() if reverse_time else alone)
        torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-9, atol=1e-9)


@kinds
def test_padding_is_never_read(kind):
    reader, observed = of(kind), ragged()
    wide = with_invalid_padding(observed)
    assert torch.equal(reader(wide), reader(observed))
    states, steps = reader.states(wide), observed.times.shape[1]
    assert torch.equal(states[:, :steps], reader.states(observed))
    assert states.shape[:2] == wide.times.shape
    assert not states[:, steps:].any()


@kinds
def test_the_output_is_the_last_state_and_states_in_the_padding_are_zero(kind):
    reader, observed = of(kind), ragged()
    states = reader.states(observed)
    assert torch.equal(states[range(len(observed)), observed.lengths - 1], reader(observed))
    assert not states[~observed.inside].any()


@kinds
def test_intermediate_states_equal_those_of_truncated_series(kind):
    reader, observed = of(kind), ragged((5, 4))
    cut = observed.keeping(torch.arange(5).expand(2, -1) < 3)
    torch.testing.assert_close(reader.states(observed)[:, 2], reader(cut), rtol=1e-9, atol=1e-9)


@kinds
def test_shifting_all_times_changes_nothing(kind):
    reader, observed = of(kind), ragged()
    later = replace(observed, times=observed.times + 8.0, start=observed.start + 8.0)
    torch.testing.assert_close(reader(later), reader(observed), rtol=1e-9, atol=1e-9)


@kinds
@pytest.mark.parametrize("reverse_time", [False, True])
def test_the_output_equals_a_direct_loop(kind, reverse_time):
    reader, observed = of(kind), ragged()
    observed = observed.reversed() if reverse_time else observed
    rows = []
    for row, n in enumerate(observed.lengths.tolist()):
        h, before = torch.zeros(reader.hidden, dtype=torch.float64), observed.times[row, 0]
        held, when = [0.0] * reader.channels, [observed.start[row]] * reader.channels
        for step in range(n):
            t, values, seen = observed.times[row, step], observed.values[row, step], observed.seen[row, step]
            shown = [values, seen.double()]
            if isinstance(reader, RNN):
                shown.append((t - before)[None])
            if isinstance(reader, GRUDecay):
                filled = []
                for c in range(reader.channels):
                    if seen[c]:
                        held[c], when[c] = values[c], t
                    rate = reader.fade[c] * (t - when[c]).abs() + reader.delay[c]
                    filled.append(values[c] if seen[c] else held[c] * torch.exp(-rate.clamp(min=0)))
                shown[0] = torch.stack(filled)
                if step:
                    h = h * torch.exp(-reader.forget((t - before).abs()[None]).clamp(min=0))
            if isinstance(reader, ODERNN) and step:
                h = reader.evolve(h[None], before[None], t[None])[0]
            h, before = reader.cell(torch.cat(shown)[None], h[None])[0], t
        rows.append(h)
    torch.testing.assert_close(reader(observed), torch.stack(rows), rtol=1e-9, atol=1e-9)


class Linear(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(hidden, hidden, dtype=torch.float64))

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        return h @ self.matrix.T


@pytest.mark.parametrize("reverse_time", [False, True])
@pytest.mark.parametrize(
    "solver",
    [{"method": "rk4", "steps": 40}, {"method": "tsit5", "steps": None, "rtol": 1e-10, "atol": 1e-10}],
)
def test_a_linear_field_moves_the_state_by_the_matrix_exponential(solver, reverse_time):
    field = Linear(3)
    reader, observed = ODERNN(2, 3, field, **solver).double(), ragged()
    observed = observed.reversed() if reverse_time else observed
    shown, rows = reader.inputs(observed), []
    for row, n in enumerate(observed.lengths.tolist()):
        h = torch.zeros(1, 3, dtype=torch.float64)
        for step in range(n):
            if step:
                h = h @ torch.linalg.matrix_exp(field.matrix * observed.times[row, step - 1 : step + 1].diff()).T
            h = reader.cell(shown[row, step : step + 1], h)
        rows.append(h[0])
    torch.testing.assert_close(reader(observed), torch.stack(rows), rtol=1e-6, atol=1e-6)


@kinds
@pytest.mark.parametrize("reverse_time", [False, True])
def test_gradients_reach_every_parameter(kind, reverse_time):
    reader, observed = of(kind), ragged()
    reader(observed.reversed() if reverse_time else observed).square().sum().backward()
    missing = [name for name, p in reader.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert missing == []


@kinds
def test_gradients_are_those_of_finite_differences(kind):
    reader, observed = of(kind, hidden=2), ragged((3, 2))
    if isinstance(reader, ODERNN) and reader.evolve.steps is None:
        reader.evolve.rtol = reader.evolve.atol = 1e-9
    values = observed.values.requires_grad_()

    def answers(values, *parameters):
        return reader(replace(observed, values=values))

    # gradients of values in gaps are 0 either way
    assert torch.autograd.gradcheck(answers, (values, *reader.parameters()), rtol=1e-4, atol=1e-5)


def test_decay_rate_and_delay_can_be_learned():
    """A channel is observed once; its imputed values afterwards determine fade and delay."""
    reader = GRUDecay(1, 2).double()
    observed = Observations.gather([([0.0, 1.0, 2.0], [[1.0], [nan], [nan]])], dtype=torch.float64)
    wanted = torch.exp(-torch.tensor([0.7, 0.9]))  # a rate of 0.2, after a delay of 0.5
    optimizer = torch.optim.Adam(reader.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (reader.inputs(observed)[0, 1:, 0] - wanted).square().sum().backward()
        optimizer.step()
    assert reader.fade.item() == pytest.approx(0.2, abs=0.02)
    assert reader.delay.item() == pytest.approx(0.5, abs=0.03)


def test_an_odernn_passes_its_solver_settings_to_evolve():
    reader = ODERNN(1, 2, method="rk4", steps=3)
    assert isinstance(reader.evolve, Evolve)
    assert (reader.evolve.method, reader.evolve.steps) == ("rk4", 3)
    with pytest.raises(ValueError, match="does not adapt its steps"):
        ODERNN(1, 2, method="rk4", steps=None)
    assert ODERNN(1, 2, steps=None).evolve.method == "tsit5"


@kinds
def test_another_number_of_channels_is_refused(kind):
    with pytest.raises(ValueError, match="observed has 3 channels, the .* 2; wanted as many"):
        of(kind)(ragged(channels=3))
    with pytest.raises(ValueError, match="observed has 3 channels, the .* 2; wanted as many"):
        of(kind).states(ragged(channels=3))
