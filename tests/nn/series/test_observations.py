"""Batches of ragged series with gaps keep their series when padded, indexed, reversed or filtered."""

from dataclasses import fields, replace
from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuralode.nn import Observations

quickly = settings(max_examples=40, deadline=None)


@st.composite
def some_series(draw) -> list[tuple[list[float], list[list[float]]]]:
    """Draw pairs of times and values, with NaN for gaps."""
    channels = draw(st.integers(1, 3))
    number = st.sampled_from([nan, 0.0, -1.0, 2.5, 7.0])
    series = []
    for _ in range(draw(st.integers(1, 4))):
        steps = draw(st.integers(1, 5))
        since = draw(st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=steps, max_size=steps))
        times = [sum(since[: k + 1]) - 2 for k in range(steps)]
        row = st.lists(number, min_size=channels, max_size=channels)
        series.append((times, draw(st.lists(row, min_size=steps, max_size=steps))))
    return series


def gather(series, **options) -> Observations:
    count = len(series)
    static = torch.arange(2.0 * count, dtype=torch.float64).view(count, 2)
    return Observations.gather(series, start=-9.0, static=static, dtype=torch.float64, **options)


def ungather(observed: Observations) -> list[tuple[list[float], list[list[float]]]]:
    """Return the series of a batch, and check its padding."""
    series = []
    for row, n in enumerate(observed.lengths.tolist()):
        times, values, seen = observed.times[row], observed.values[row], observed.seen[row]
        assert not seen[n:].any()
        assert not values[~seen].any()
        assert (times[n:] == times[n - 1]).all()
        series.append((times[:n].tolist(), torch.where(seen, values, nan)[:n].tolist()))
    assert observed.times.shape[1] == max(observed.lengths)
    return series


def alike(a: Observations, b: Observations) -> bool:
    """Return whether all fields are equal bit by bit."""
    for field in fields(Observations):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if not (x is y is None or (x.dtype == y.dtype and torch.equal(x, y))):
            return False
    return True


def padded(observed: Observations, more: int) -> Observations:
    """Return the batch with further padding."""
    last = observed.times.gather(1, observed.lengths[:, None] - 1)
    pad = torch.nn.functional.pad
    return replace(
        observed,
        times=torch.cat((observed.times, last.expand(-1, more)), 1),
        values=pad(observed.values, (0, 0, 0, more)),
        seen=pad(observed.seen, (0, 0, 0, more)),
    )


def same(a: list, b: list) -> bool:
    return repr(a) == repr(b)  # compares NaN as equal


@quickly
@given(some_series())
def test_gather_keeps_every_series(series):
    observed = gather(series)
    assert same(ungather(observed), series)
    assert len(observed) == len(series)
    assert observed.channels == len(series[0][1][0])
    assert observed.inside.sum(1).tolist() == [len(times) for times, _ in series]
    assert observed.times.dtype == observed.start.dtype == torch.float64


@quickly
@given(some_series())
def test_reversed_reverses_every_series_and_is_its_own_inverse(series):
    observed = gather(series)
    assert same(ungather(observed.reversed()), [(times[::-1], values[::-1]) for times, values in series])
    assert alike(observed.reversed().reversed(), observed)


@quickly
@given(some_series(), st.data())
def test_indexed_rows_equal_a_batch_of_these_series(series, data):
    observed = gather(series)
    rows = data.draw(st.lists(st.integers(0, len(series) - 1), min_size=1, max_size=5))
    picked = observed[torch.tensor(rows)]
    assert same(ungather(picked), [series[row] for row in rows])
    assert observed.static is not None
    assert picked.static is not None
    assert torch.equal(picked.static, observed.static[rows])
    assert torch.equal(picked.start, observed.start[rows])
    mask = torch.zeros(len(series), dtype=torch.bool)
    mask[rows] = True
    assert alike(observed[mask], observed[torch.tensor(sorted(set(rows)))])


@quickly
@given(some_series(), st.data())
def test_kept_steps_stay_in_order_forwards_and_reversed(series, data):
    observed = gather(series)
    keep = [data.draw(st.lists(st.booleans(), min_size=len(t), max_size=len(t)).filter(any)) for t, _ in series]
    mask = torch.ones(observed.times.shape, dtype=torch.bool)  # also in the padding, which is never kept
    for row, kept in enumerate(keep):
        mask[row, : len(kept)] = torch.tensor(kept)
    chosen = [
        tuple([x for x, yes in zip(part, kept, strict=True) if yes] for part in pair)
        for pair, kept in zip(series, keep, strict=True)
    ]
    kept = observed.keeping(mask)
    assert same(ungather(kept), [tuple(pair) for pair in chosen])
    assert torch.equal(kept.start, observed.start)
    steps = torch.arange(mask.shape[1])
    reversed_mask = mask.gather(1, (observed.lengths[:, None] - 1 - steps).clamp(min=0))
    assert alike(observed.reversed().keeping(reversed_mask), kept.reversed())
    assert alike(observed.keeping(torch.ones_like(mask)), observed)


def carried_by_hand(observed: Observations) -> tuple[Tensor, Tensor]:
    values, since = torch.zeros_like(observed.values), torch.zeros_like(observed.values)
    for row, n in enumerate(observed.lengths.tolist()):
        for channel in range(observed.channels):
            last, when = 0.0, observed.start[row]
            for step in range(n):
                if observed.seen[row, step, channel]:
                    last, when = observed.values[row, step, channel], observed.times[row, step]
                values[row, step, channel] = last
                since[row, step, channel] = (observed.times[row, step] - when).abs()
    return values, since


@quickly
@given(some_series(), st.booleans(), st.integers(0, 2))
def test_carried_returns_the_last_value_and_its_age(series, reverse_time, more):
    observed = padded(gather(series), more)
    observed = observed.reversed() if reverse_time else observed
    for found, wanted in zip(observed.carried(), carried_by_hand(observed), strict=True):
        assert torch.equal(found[observed.inside], wanted[observed.inside])


@quickly
@given(some_series(), st.integers(1, 3))
def test_further_padding_changes_nothing(series, more):
    observed = gather(series)
    wide = padded(observed, more)
    assert alike(wide[:], observed)
    assert alike(wide.reversed()[:], observed.reversed())
    assert alike(wide.reversed().reversed(), wide)
    assert alike(wide.keeping(wide.inside), observed)
    assert torch.equal(wide.inside[:, :-more], observed.inside)
    assert not wide.inside[:, -more:].any()
    for found, wanted in zip(wide.carried(), observed.carried(), strict=True):
        assert torch.equal(found[:, :-more], wanted)


@quickly
@given(some_series())
def test_a_dtype_applies_to_values_and_covariates_only(series):
    observed = gather(series)
    single = observed.to(torch.float32)
    assert single.static is not None
    assert single.values.dtype == single.static.dtype == torch.float32
    assert single.times.dtype == single.start.dtype == torch.float64
    assert alike(single.to(torch.float64), observed)  # these values are exact in float32


def test_start_is_the_first_time_one_number_or_one_for_each_series():
    series = [([1.0, 2.0], [[0.0], [0.0]]), ([3.0], [[0.0]])]
    assert Observations.gather(series).start.tolist() == [1.0, 3.0]
    assert Observations.gather(series, start=1).start.tolist() == [1.0, 1.0]
    assert Observations.gather(series, start=[0.5, -1.0]).start.tolist() == [0.5, -1.0]


def test_gradients_reach_kept_values_only():
    observed = gather([([0.0, 1.0, 2.0], [[1.0], [nan], [3.0]]), ([0.0], [[4.0]])])
    values = observed.values.clone().requires_grad_()
    keep = torch.tensor([[True, True, False]] * 2)
    replace(observed, values=values).keeping(keep).reversed()[torch.tensor([1, 0])].values.sum().backward()
    assert values.grad is not None
    assert values.grad[..., 0].tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


ONE, TWO = ([0.0], [[1.0]]), ([0.0, 1.0], [[1.0], [2.0]])


@pytest.mark.parametrize(
    ("series", "options", "sentence"),
    [
        ([], {}, "series is empty; wanted at least one"),
        ([([], [])], {}, "series 0 has times [0] and values [0]; wanted [n] and [n, channels]"),
        ([ONE, ([0.0, 1.0], [[1.0]])], {}, "series 1 has times [2] and values [1, 1]"),
        ([([[0.0]], [[1.0]])], {}, "series 0 has times [1, 1]"),
        ([ONE, ([1.0, 1.0], [[1.0], [2.0]])], {}, "the times of series 1 do not increase"),
        ([([nan], [[1.0]])], {}, "the times of series 0 do not increase, or are not finite"),
        ([([0.0], [[1.0, 2.0]]), ONE], {}, "series 1 has 1 channels, series 0 has 2; wanted as many"),
        ([ONE, ([0.0], [[-inf]])], {}, "series 1 has an infinite value"),
        ([([0.0], [[1e300]])], {}, "series 0 has an infinite value in torch.float32"),
        ([ONE, TWO], {"start": 0.5}, "start=0.5 is not finite or lies after the first time"),
        ([ONE, TWO], {"start": nan}, "start=nan is not finite"),
        ([ONE, TWO], {"start": [0.0, 0.0, 0.0]}, "start has shape [3]; wanted a number, or one for each series"),
        ([ONE, TWO], {"static": torch.zeros(3, 1)}, "static has shape [3, 1]; wanted [2, covariates]"),
        ([ONE, TWO], {"static": torch.zeros(2)}, "static has shape [2]; wanted [2, covariates]"),
    ],
)
def test_invalid_series_are_refused_with_a_message(series, options, sentence):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        Observations.gather(series, **options)
    assert sentence in str(refused.value)


def test_a_series_without_kept_steps_is_refused():
    observed = Observations.gather([ONE, TWO])
    with pytest.raises(ValueError, match="keep leaves a series without any step"):
        observed.keeping(torch.tensor([[False, True], [True, True]]))  # the second step of the first is padding


def test_an_integer_index_gives_a_batch_of_one_and_batches_are_iterable():
    batch = Observations.gather([([0.0, 1.0], [[1.0], [2.0]]), ([0.5], [[3.0]])])
    assert [series.values.shape for series in batch] == [(1, 2, 1), (1, 1, 1)]
    assert batch[-1].times.tolist() == [[0.5]]
