"""Figures 4 and 5 at toy size: files written, finished runs skipped, invalid input refused; and the process pool."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from neuralode.cli import app
from neuralode.data.densities import find_density
from neuralode.nn import CNF
from neuralode.reproduce import figure5
from neuralode.reproduce.figure4 import ENERGIES, _ring, divergence, figure4, log_normalizer, log_target
from neuralode.reproduce.figure5 import FlowConfig, build, compare_flows, evaluate, load
from neuralode.reproduce.flow_plots import pixel_centres
from neuralode.reproduce.process_pool import available_cores, run_in_processes
from neuralode.training.plain_loop import AdamOptions, minimize
from neuralode.training.run import Run

TINY = (
    FlowConfig("", "cnf", width=4, steps=3, batch=16),
    FlowConfig("", "planar", width=4, steps=60, batch=64),
)


@pytest.fixture(autouse=True)
def _few_test_points_and_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure5, "TEST_POINTS", 200)
    monkeypatch.setattr("neuralode.reproduce.figure4.TEST_SAMPLES", 200)
    for module in ("flow_plots", "figure4"):
        monkeypatch.setattr(f"neuralode.reproduce.{module}.PIXELS", 12)


def test_models_are_compared(tmp_path: Path) -> None:
    lines: list[str] = []
    rows = compare_flows("moons", (0, 1), tmp_path, log=lines.append, configs=TINY, processes=1)
    assert [(row["model"], row["width"]) for row in rows] == [("cnf", 4), ("planar", 4)]
    assert len(lines) == 4
    assert "planar of 4, seed 1: " in lines[-1]
    for row in rows:
        assert row["gap"] == pytest.approx((row["seed_0"] + row["seed_1"]) / 2, abs=1e-4)
        assert row["gap"] > 0
        assert row["entropy"] == 0.2892
        assert row["truth"] == pytest.approx(row["nats"] - row["gap"], abs=2e-4)
        assert row["truth"] == pytest.approx(0.2892, abs=4 * 0.73 / 200**0.5)
    assert (tmp_path / "moons.csv").read_text().count("\n") == 3
    assert (tmp_path / "moons.png").stat().st_size > 10_000


def test_finished_runs_are_not_repeated(tmp_path: Path) -> None:
    lines: list[str] = []
    first = compare_flows("circles", (0,), tmp_path, log=lines.append, configs=TINY, processes=1)
    summary = tmp_path / "planar-4-0" / "summary.json"
    (tmp_path / "cnf-4-0" / "summary.json").unlink()  # as if interrupted while being written
    before = summary.stat().st_mtime_ns
    again = compare_flows("circles", (0,), tmp_path, log=lines.append, configs=TINY, processes=1)
    assert [line.split(",")[0] for line in lines] == ["cnf of 4", "planar of 4", "cnf of 4"]
    assert summary.stat().st_mtime_ns == before
    assert [row["gap"] for row in again] == [row["gap"] for row in first]  # the seed determines the result


def test_widths_of_one_model_are_compared(tmp_path: Path) -> None:
    configs = (TINY[1], replace(TINY[1], width=2))
    rows = compare_flows("moons", (0,), tmp_path, configs=configs, processes=1)
    assert [(row["model"], row["width"]) for row in rows] == [("planar", 4), ("planar", 2)]
    assert rows[0]["parameters"] == 2 * rows[1]["parameters"]
    assert rows[0]["gap"] != rows[1]["gap"]


def test_configs_that_share_a_folder_are_refused(tmp_path: Path) -> None:
    configs = (TINY[1], replace(TINY[1], steps=61))
    with pytest.raises(ValueError, match="configs has two planar of 4, which would share a folder"):
        compare_flows("moons", (0,), tmp_path / "runs", configs=configs, processes=1)
    assert not (tmp_path / "runs").exists()


def test_a_run_with_another_config_is_refused(tmp_path: Path) -> None:
    compare_flows("moons", (0,), tmp_path, configs=TINY[1:], processes=1)
    other = replace(TINY[1], steps=61)
    with pytest.raises(ValueError, match="holds a run with another config"):
        compare_flows("moons", (0,), tmp_path, configs=(other,), processes=1)


def test_a_loaded_model_reproduces_its_test_loss(tmp_path: Path) -> None:
    compare_flows("moons", (3,), tmp_path, configs=TINY, processes=1)
    for name in ("cnf-4-3", "planar-4-3"):
        flow, summary = load(tmp_path / name), Run(tmp_path / name).summary
        assert evaluate(flow, "moons")["nats"] == summary["nats"]
        assert next(flow.parameters()).dtype == torch.float32  # evaluation converts a copy to double precision


def test_a_model_standardizes_its_data_and_its_density_accounts_for_the_scale() -> None:
    density = find_density("circles")
    flow = build(FlowConfig("circles", "planar", width=1))  # untrained, the flow is the identity and the density normal
    x = density.sample(5, torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(flow.mean, flow.deviation)
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(x).sum(-1))
    seen = density.sample(20_000)
    assert (flow.mean - seen.mean(0)).abs().max() < 0.03
    assert (flow.deviation - seen.std(0)).abs().max() < 0.03


def test_an_empty_comparison_and_unknown_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave nothing to train; wanted at least one of each"):
        compare_flows("moons", (), tmp_path)
    with pytest.raises(ValueError, match="model='plan' is unknown; did you mean 'planar'?"):
        build(FlowConfig("moons", "plan"))


def test_the_command_trains_and_prints_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure5, "default_configs", lambda density: TINY[1:])
    result = CliRunner().invoke(app, ["reproduce", "circles", "--seeds", "4", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "planar of 4, seed 4: " in result.output
    assert "0.7876" in result.output
    assert (tmp_path / "circles.csv").is_file()


def test_seeds_that_are_not_numbers_are_refused() -> None:
    result = CliRunner().invoke(app, ["reproduce", "moons", "--seeds", "0,x"])
    assert result.exit_code == 2
    assert "seeds='0,x'; wanted whole numbers, as in 0,1,2." in result.output


def test_flows_are_fitted_to_energies(tmp_path: Path) -> None:
    lines: list[str] = []
    descents = {"cnf": AdamOptions(2), "planar": AdamOptions(30)}
    options = {"targets": ("U2",), "sizes": (2, 3), "descents": descents, "processes": 1}
    rows = figure4(tmp_path, log=lines.append, **options)
    assert [(row["kind"], row["size"]) for row in rows] == [("planar", 2), ("planar", 3), ("cnf", 2), ("cnf", 3)]
    assert all(row["kl"] > 0 for row in rows)
    assert len(lines) == 4
    assert lines[0].startswith("U2, cnf of 3: KL ")  # the longest first
    assert (tmp_path / "figure4.png").stat().st_size > 10_000
    figure4(tmp_path, log=lines.append, **options)
    assert len(lines) == 4


@pytest.mark.parametrize("target", ENERGIES)
def test_a_target_is_a_density(target: str) -> None:
    # on another grid than the one used for the normalizer
    x = pixel_centres((-7.5, 7.5, -7.5, 7.5), 500).double()
    assert (log_target(target, x).exp().sum() * 0.03**2).item() == pytest.approx(1, abs=1e-4)


def test_the_normalizer_of_the_ring_equals_its_integral() -> None:
    """Integrate in polar coordinates, where the ring is a bump along the radius."""
    r = torch.linspace(0, 8, 2001, dtype=torch.float64)
    angle = torch.arange(720, dtype=torch.float64) * (2 * math.pi / 720)
    x = r[:, None, None] * torch.stack((angle.cos(), angle.sin()), -1)
    total = (torch.exp(-_ring(x)) * r[:, None]).sum() * (8 / 2000) * (2 * math.pi / 720)
    assert log_normalizer("U1") == pytest.approx(math.log(total.item()), abs=1e-6)


def test_the_divergence_from_an_energy_agrees_with_a_sum_over_a_grid() -> None:
    torch.manual_seed(0)
    flow = CNF(lambda t, x: 0.1 * torch.sin(x), 2)
    estimate, error = divergence(flow, "U1")
    x = pixel_centres((-6.0, 6.0, -6.0, 6.0), 300).double()
    with torch.no_grad():
        log_q = flow.log_prob(x)
    expected = (log_q.exp() * (log_q - log_target("U1", x))).sum().item() * 0.04**2
    assert abs(estimate - expected) < 4 * error


def test_a_descent_finds_a_minimum_and_reports_progress() -> None:
    reports: list[tuple[int, float]] = []
    torch.manual_seed(0)
    point = torch.nn.Linear(2, 1)

    def loss(remaining: float) -> torch.Tensor:
        assert 0 < remaining <= 1
        x = torch.randn(32, 2)
        return (point(x)[:, 0] - x[:, 0] + 2).square().mean()

    seconds = minimize(point, loss, AdamOptions(400, rate=0.05), on_progress=lambda *values: reports.append(values))
    torch.testing.assert_close(point.bias.data, torch.tensor([-2.0]), atol=0.1, rtol=0)
    assert [step for step, _ in reports] == list(range(40, 401, 40))
    assert reports[-1][1] < reports[0][1]
    assert seconds > 0


def test_an_interrupt_stops_a_descent_at_once() -> None:
    point, calls = torch.nn.Linear(1, 1), []

    def loss(remaining: float) -> torch.Tensor:
        calls.append(remaining)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return point.weight.square().sum()

    with pytest.raises(KeyboardInterrupt):
        minimize(point, loss, AdamOptions(10))
    assert len(calls) == 3


def test_jobs_run_in_this_process_with_processes_1() -> None:
    seen: list[int] = []
    assert list(run_in_processes(seen.append, [1, 2, 3], processes=1)) == seen == [1, 2, 3]
    assert list(run_in_processes(seen.append, [])) == []


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


@pytest.mark.slow  # each process imports Lightning
def test_jobs_run_in_two_processes(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    assert sorted(run_in_processes(os.mkdir, folders, processes=2)) == folders
    assert all(folder.is_dir() for folder in folders)


def test_a_failing_job_raises() -> None:
    done: Iterator[int] = run_in_processes(_fail, [1], processes=1)
    with pytest.raises(ArithmeticError):
        next(done)


def _fail(job: int) -> None:
    raise ArithmeticError(job)
