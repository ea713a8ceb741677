"""PhysioNet 2012 is read from a small folder of the same layout, and from the real one if it is available."""

import math
import os

import numpy as np
import pytest
import torch

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

from neuralode.data.physionet import MINUTES, physionet  # noqa: E402

# set, record, minute, parameter, value; record 3 has only covariates
ROWS = [
    ("a", 1, 0, "RecordID", 1.0), ("a", 1, 0, "Age", 60.0), ("a", 1, 0, "Gender", 1.0), ("a", 1, 0, "Height", 180.0),
    ("a", 1, 0, "ICUType", 2.0), ("a", 1, 0, "Weight", -1.0),
    ("a", 1, 7, "HR", 70.0), ("a", 1, 7, "HR", 80.0), ("a", 1, 11, "HR", 90.0), ("a", 1, 11, "Lactate", 3.0),
    ("a", 1, 60, "Weight", 75.0),
    ("a", 2, 0, "RecordID", 2.0), ("a", 2, 0, "Age", 40.0), ("a", 2, 0, "Gender", -1.0), ("a", 2, 0, "Height", -1.0),
    ("a", 2, 0, "ICUType", 4.0), ("a", 2, 2880, "HR", 100.0),
    ("a", 3, 0, "RecordID", 3.0), ("a", 3, 0, "Age", 50.0), ("a", 3, 0, "Gender", 0.0), ("a", 3, 0, "Height", 160.0),
    ("a", 3, 0, "ICUType", 1.0),
    ("b", 4, 0, "RecordID", 4.0), ("b", 4, 0, "Age", 90.0), ("b", 4, 0, "Gender", 0.0),
    ("b", 4, 0, "Height", 170.0), ("b", 4, 0, "ICUType", 3.0), ("b", 4, 5, "HR", 50.0),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _small_folder(tmp_path, monkeypatch):
    home = tmp_path / "physionet2012"
    home.mkdir()
    table = pd.DataFrame(ROWS, columns=["set", "record_id", "minute", "parameter", "value"])
    types = {"set": "category", "record_id": "int32", "minute": "int16", "parameter": "category", "value": "float32"}
    table.astype(types).to_parquet(home / "measurements.parquet")
    outcomes = {
        "set": list("aaab"), "record_id": [1, 2, 3, 4], "saps_i": [777] * 4, "sofa": [777] * 4,
        "length_of_stay": [777] * 4, "survival": [777] * 4, "in_hospital_death": [0, 1, 0, 1],
    }  # fmt: skip
    pd.DataFrame(outcomes).sample(frac=1, random_state=0).to_parquet(home / "outcomes.parquet")
    monkeypatch.setenv("NEURALODE_DATA", str(tmp_path))


def value(patients, patient, minute, channel):
    [step] = (patients.observed.times[patient] * MINUTES - minute).abs().argsort(stable=True)[:1].tolist()
    index = patients.channels.index(channel)
    return float(patients.observed.values[patient, step, index]), bool(patients.observed.seen[patient, step, index])


def test_times_are_rounded_down_and_simultaneous_values_averaged():
    exact, rounded = physionet("a", every=1), physionet("a", every=6)
    assert (exact.observed.times[0] * MINUTES).round().tolist() == [7, 11, 60]
    assert value(exact, 0, 7, "HR") == (75.0, True)
    assert (rounded.observed.times[0] * MINUTES).round().tolist() == [6, 60]
    assert (rounded.observed.times[1] * MINUTES).round().tolist() == [2880, 2880]  # padded with its last time
    assert rounded.observed.lengths.tolist() == [2, 1]
    assert value(rounded, 0, 6, "HR") == (80.0, True)


def test_a_whole_record_is_one_unit_of_time():
    assert physionet("a").observed.times.max() == 1


def test_skewed_channels_are_logged():
    found, seen = value(physionet("a"), 0, 11, "Lactate")
    assert seen
    assert found == pytest.approx(math.log1p(3))


def test_an_unknown_height_is_indicated_and_standardized_to_the_mean():
    static = physionet("a").observed.static
    assert static.shape == (2, 3 + 3 + 4)
    assert static[1, :3].tolist() == [40.0, 0.0, 0.0]
    patients = physionet("a")
    assert patients.standardized(patients).observed.static[1, 1:3].tolist() == [0.0, 0.0]
    assert static[:, 3:6].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert static[:, 6:].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


def test_an_unknown_weight_is_not_observed():
    patients = physionet("a")
    assert value(patients, 0, 60, "Weight") == (75.0, True)
    assert int(patients.observed.seen[..., patients.channels.index("Weight")].sum()) == 1


def test_covariates_and_outcomes_are_not_channels():
    patients = physionet("ab")
    assert patients.channels == ("HR", "Lactate", "Weight")
    assert not (patients.observed.values == 777).any()
    assert not (patients.observed.static == 777).any()


def test_patients_match_their_outcomes_and_those_without_measurements_are_dropped():
    patients = physionet("ab")
    assert patients.died.tolist() == [False, True, True]  # records 1, 2 and 4
    assert patients.observed.static[:, 0].tolist() == [60, 40, 90]


def test_only_requested_sets_are_loaded():
    assert len(physionet("b")) == 1


def test_standardization_uses_only_the_reference():
    patients = physionet("ab")
    scaled = patients.standardized(patients[torch.tensor([0, 1])])
    rate = scaled.channels.index("HR")
    first = scaled.observed.values[:2, :, rate][scaled.observed.seen[:2, :, rate]]
    again = patients[torch.tensor([0, 1])].standardized(patients[torch.tensor([0, 1])]).observed
    torch.testing.assert_close(first, again.values[..., rate][again.seen[..., rate]])
    assert scaled.observed.values.abs().max() <= 5
    assert (scaled.observed.values[~scaled.observed.seen] == 0).all()


def test_a_folder_without_the_files_is_rejected_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURALODE_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="should name a folder that holds physionet2012/measurements.parquet"):
        physionet()
    monkeypatch.delenv("NEURALODE_DATA")
    with pytest.raises(FileNotFoundError, match="NEURALODE_DATA is not set"):
        physionet()


REAL = os.environ.get("NEURALODE_DATA")  # before the fixture replaces it by the small folder


@pytest.mark.skipif(not REAL, reason="NEURALODE_DATA, the folder of the real records, is not set")
def test_almost_all_patients_of_the_real_sets_have_a_series(monkeypatch):
    monkeypatch.setenv("NEURALODE_DATA", str(REAL))
    patients = physionet("a", every=6)
    assert 3990 <= len(patients) <= 4000
    assert len(patients.channels) == 37
    assert float(patients.died.float().mean()) == pytest.approx(554 / 4000, abs=1e-3)
    assert bool(patients.observed.seen[patients.observed.inside].any(-1).all())
    assert np.isfinite(patients.observed.values.numpy()).all()
