"""The comparison of two checkouts: its arithmetic on made-up reports, and a short run of a checkout against itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks import compare
from benchmarks.compare_cases import WORKLOADS
from benchmarks.compare_worker import digest, measure

SOURCE = Path(__file__).parents[2] / "src"


def report(milliseconds: float, result: str = "same") -> compare.Report:
    return {"w1": {"cases": {"forward": {"median": milliseconds, "low": milliseconds / 2, "digest": result}}}}


def test_the_ratio_is_that_of_the_medians_and_its_range_that_of_the_pairs():
    pairs = [(report(1.0), report(2.0)), (report(2.0), report(2.0)), (report(4.0), report(6.0))]
    [result] = compare.compare(pairs, "w1")
    assert (result.before, result.now, result.ratio) == (2.0, 2.0, 1.0)
    assert (result.ratio_low, result.ratio_high) == (1.0, 2.0)
    assert result.ratio_of_fastest == 2.0  # 1.0 over 0.5
    assert result.same_results
    assert "| forward | 2          | 2       | 1.00 (1.00–2.00)     | 2.00    | same" in str(
        compare.table("w1", [result])
    )


def test_different_results_are_reported():
    [result] = compare.compare([(report(1.0, "one"), report(1.0, "other"))], "w1")
    assert not result.same_results


def test_digests_depend_on_every_bit():
    x = torch.ones(3)
    assert digest([x]) == digest([x.clone()])
    assert digest([x]) != digest([x + 1e-7])


def test_a_workload_that_a_checkout_cannot_run_has_a_reason(monkeypatch: pytest.MonkeyPatch):
    def absent(device: torch.device) -> dict:
        raise ImportError("no module named sample")

    monkeypatch.setitem(WORKLOADS, "w1", absent)
    assert measure("w1", torch.device("cpu"), 1) == {"error": "ImportError: no module named sample"}


def test_every_case_before_the_first_step_has_a_timing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.timing.MIN_SAMPLE_SECONDS", 1e-5)
    cases = measure("startup", torch.device("cpu"), 1)["cases"]
    assert len(cases) == 10
    assert all(case["median"] > 0 for case in cases.values())


def test_a_folder_without_neuralode_is_refused(tmp_path: Path):
    with pytest.raises(SystemExit, match="no neuralode in this folder; wanted the src folder of a checkout"):
        compare.main(["--against", str(tmp_path)])


@pytest.mark.slow  # two processes
def test_a_checkout_has_the_results_of_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--against", str(SOURCE), "--only", "startup", "--repeats", "1", "--samples", "1"]
    compare.main([*arguments, "--save", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.count("| same") == 10
    assert "differ" not in printed
    assert (tmp_path / "compare-cpu.json").is_file()
