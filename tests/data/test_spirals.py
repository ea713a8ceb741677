"""The spirals of the paper: curves, windows and noise."""

import numpy as np
import pytest
import torch

from neuralode.data.spirals import NOISE, WINDOW, curves, spirals


def test_one_curve_turns_clockwise_and_the_other_counterclockwise():
    for curve, centre, sense in zip(curves(), (-5, 5), (-1, 1), strict=True):
        angle = np.unwrap(np.arctan2(curve[1:, 1], curve[1:, 0] - centre))
        # as in the published scripts, the angle of the first curve decreases
        assert np.all(sense * np.diff(angle) > 0)


def test_a_window_is_a_part_of_its_curve():
    drawn = spirals(10, 30, last=300, seed=0)
    both = curves()
    for row in range(10):
        begin = int(drawn.begin[row])
        part = both[0 if drawn.clockwise[row] else 1][begin : begin + 200]
        np.testing.assert_allclose(drawn.truth[row], part, atol=1e-5)


def test_observations_are_the_curve_with_noise():
    drawn = spirals(400, 50, last=300, seed=0)
    index = (drawn.observed.times * WINDOW).round().long()
    truth = drawn.truth.gather(1, index[..., None].expand(-1, -1, 2))
    noise = drawn.observed.values - truth
    assert float(noise.std()) == pytest.approx(NOISE, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)


def test_observations_are_distinct_and_sorted():
    drawn = spirals(50, 30, last=300, seed=0)
    assert drawn.observed.times.shape == (50, 30)
    assert bool((drawn.observed.times.diff() > 0).all())
    assert 0 <= float(drawn.observed.times.min()) <= float(drawn.observed.times.max()) < 1
    assert torch.equal(drawn.observed.start, torch.zeros(50, dtype=torch.float64))


def test_windows_begin_anywhere_up_to_the_last():
    drawn = spirals(200, 1, last=3, seed=0)
    assert drawn.begin.unique().tolist() == [0, 1, 2, 3]


def test_the_truth_is_nan_beyond_the_end_of_a_curve():
    drawn = spirals(200, 100, last=400, seed=0)
    steps = drawn.begin[:, None] + torch.arange(200)
    assert torch.equal(drawn.truth.isnan().any(-1), steps >= 500)
    assert bool(drawn.observed.values.isfinite().all())


def test_the_seed_decides_everything():
    one, again, other = (spirals(20, 30, last=300, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.observed.values, again.observed.values)
    assert torch.equal(one.observed.times, again.observed.times)
    assert not torch.equal(one.begin, other.begin)


@pytest.mark.parametrize("observed", [0, 101])
def test_more_observations_than_points_are_rejected(observed):
    with pytest.raises(ValueError, match="1 to 100"):
        spirals(4, observed, last=300, seed=0)
