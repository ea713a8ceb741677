"""The comparisons of flows, at toy size: what they write, what they do again, what they refuse."""

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
from neuralode.reproduce import flows as comparison
from neuralode.reproduce.figure4 import ENERGIES, _ring, divergence, figure4, log_normaliser, log_target
from neuralode.reproduce.flows import build, compare_flows, judge, load
from neuralode.reproduce.flows_plots import pixel_centres
from neuralode.reproduce.pool import cores, side_by_side
from neuralode.training.plain_loop import Descent, descend
from neuralode.training.run import Run

TINY = (
    comparison.Fit("", "cnf", width=4, steps=3, batch=16),
    comparison.Fit("", "planar", width=4, steps=60, batch=64),
)


@pytest.fixture(autouse=True)
def _little_to_judge_or_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "HELD_OUT", 200)
    monkeypatch.setattr("neuralode.reproduce.figure4.JUDGED", 200)
    for place in ("flows_plots", "figure4"):
        monkeypatch.setattr(f"neuralode.reproduce.{place}.PIXELS", 12)


def test_models_are_set_beside_each_other(tmp_path: Path) -> None:
    told: list[str] = []
    rows = compare_flows("moons", (0, 1), tmp_path, told.append, recipes=TINY, processes=1)
    assert [(row["model"], row["width"]) for row in rows] == [("cnf", 4), ("planar", 4)]
    assert len(told) == 4
    assert "planar of 4, seed 1: " in told[-1]
    for row in rows:
        assert row["gap"] == pytest.approx((row["seed_0"] + row["seed_1"]) / 2, abs=1e-4)
        assert row["gap"] > 0
        assert row["entropy"] == 0.2892
        assert row["truth"] == pytest.approx(row["nats"] - row["gap"], abs=2e-4)
        assert row["truth"] == pytest.approx(0.2892, abs=4 * 0.73 / 200**0.5)
    assert (tmp_path / "moons.csv").read_text().count("\n") == 3
    assert (tmp_path / "moons.png").stat().st_size > 10_000


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    told: list[str] = []
    first = compare_flows("circles", (0,), tmp_path, told.append, recipes=TINY, processes=1)
    summary = tmp_path / "planar-4-0" / "summary.json"
    (tmp_path / "cnf-4-0" / "summary.json").unlink()  # as if it had been cut off
    before = summary.stat().st_mtime_ns
    again = compare_flows("circles", (0,), tmp_path, told.append, recipes=TINY, processes=1)
    assert [sentence.split(",")[0] for sentence in told] == ["cnf of 4", "planar of 4", "cnf of 4"]
    assert summary.stat().st_mtime_ns == before
    assert [row["gap"] for row in again] == [row["gap"] for row in first]  # a seed decides everything


def test_widths_of_one_model_are_set_beside_each_other(tmp_path: Path) -> None:
    recipes = (TINY[1], replace(TINY[1], width=2))
    rows = compare_flows("moons", (0,), tmp_path, print, recipes=recipes, processes=1)
    assert [(row["model"], row["width"]) for row in rows] == [("planar", 4), ("planar", 2)]
    assert rows[0]["parameters"] == 2 * rows[1]["parameters"]
    assert rows[0]["gap"] != rows[1]["gap"]


def test_recipes_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    recipes = (TINY[1], replace(TINY[1], steps=61))
    with pytest.raises(ValueError, match="recipes has two planar of 4, which would go into one folder"):
        compare_flows("moons", (0,), tmp_path / "runs", print, recipes=recipes, processes=1)
    assert not (tmp_path / "runs").exists()


def test_a_run_of_another_recipe_is_not_taken_for_this_one(tmp_path: Path) -> None:
    compare_flows("moons", (0,), tmp_path, print, recipes=TINY[1:], processes=1)
    other = replace(TINY[1], steps=61)
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        compare_flows("moons", (0,), tmp_path, print, recipes=(other,), processes=1)


def test_a_finished_model_is_loaded_as_it_was_judged(tmp_path: Path) -> None:
    compare_flows("moons", (3,), tmp_path, print, recipes=TINY, processes=1)
    for name in ("cnf-4-3", "planar-4-3"):
        flow, summary = load(tmp_path / name), Run(tmp_path / name).summary
        assert judge(flow, "moons")["nats"] == summary["nats"]
        assert next(flow.parameters()).dtype == torch.float32  # it is a copy that is judged in double precision


def test_a_model_is_told_the_scale_of_the_data_and_its_density_counts_it() -> None:
    density = find_density("circles")
    flow = build(comparison.Fit("circles", "planar", width=1))  # the identity so far: a normal distribution
    x = density.sample(5, torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(flow.mean, flow.deviation)
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(x).sum(-1))
    seen = density.sample(20_000)
    assert (flow.mean - seen.mean(0)).abs().max() < 0.03
    assert (flow.deviation - seen.std(0)).abs().max() < 0.03


def test_nothing_to_train_and_unknown_models_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ask for no training"):
        compare_flows("moons", (), tmp_path)
    with pytest.raises(ValueError, match="model='plan' is unknown; did you mean 'planar'?"):
        build(comparison.Fit("moons", "plan"))


def test_the_command_trains_and_says_what_came_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "recipes_for", lambda density: TINY[1:])
    result = CliRunner().invoke(app, ["reproduce", "circles", "--seeds", "4", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "planar of 4, seed 4: " in result.output
    assert "0.7876" in result.output
    assert (tmp_path / "circles.csv").is_file()


def test_seeds_that_are_no_numbers_are_told() -> None:
    result = CliRunner().invoke(app, ["reproduce", "moons", "--seeds", "0,x"])
    assert result.exit_code == 2
    assert "seeds='0,x'; wanted whole numbers, as in 0,1,2." in result.output


def test_flows_are_fitted_to_energies(tmp_path: Path) -> None:
    told: list[str] = []
    descents = {"cnf": Descent(2), "planar": Descent(30)}
    options = {"targets": ("U2",), "sizes": (2, 3), "descents": descents, "processes": 1}
    rows = figure4(tmp_path, told.append, **options)
    assert [(row["kind"], row["size"]) for row in rows] == [("planar", 2), ("planar", 3), ("cnf", 2), ("cnf", 3)]
    assert all(row["kl"] > 0 for row in rows)
    assert len(told) == 4
    assert told[0].startswith("U2, cnf of 3: KL ")  # the longest first
    assert (tmp_path / "figure4.png").stat().st_size > 10_000
    figure4(tmp_path, told.append, **options)
    assert len(told) == 4


@pytest.mark.parametrize("target", ENERGIES)
def test_a_target_is_a_density(target: str) -> None:
    # over another grid than the one that its normaliser was summed over
    x = pixel_centres((-7.5, 7.5, -7.5, 7.5), 500).double()
    assert (log_target(target, x).exp().sum() * 0.03**2).item() == pytest.approx(1, abs=1e-4)


def test_the_normaliser_of_the_ring_is_that_of_its_integral() -> None:
    """In polar coordinates, where the ring is a bump along the radius."""
    r = torch.linspace(0, 8, 2001, dtype=torch.float64)
    angle = torch.arange(720, dtype=torch.float64) * (2 * math.pi / 720)
    x = r[:, None, None] * torch.stack((angle.cos(), angle.sin()), -1)
    total = (torch.exp(-_ring(x)) * r[:, None]).sum() * (8 / 2000) * (2 * math.pi / 720)
    assert log_normaliser("U1") == pytest.approx(math.log(total.item()), abs=1e-6)


def test_the_divergence_from_an_energy_is_that_of_a_sum_over_a_grid() -> None:
    torch.manual_seed(0)
    flow = CNF(lambda t, x: 0.1 * torch.sin(x), 2)
    found, error = divergence(flow, "U1")
    x = pixel_centres((-6.0, 6.0, -6.0, 6.0), 300).double()
    with torch.no_grad():
        log_q = flow.log_prob(x)
    wanted = (log_q.exp() * (log_q - log_target("U1", x))).sum().item() * 0.04**2
    assert abs(found - wanted) < 4 * error


def test_a_descent_finds_a_minimum_and_tells_of_it() -> None:
    told: list[tuple[int, float]] = []
    torch.manual_seed(0)
    point = torch.nn.Linear(2, 1)

    def loss(left: float) -> torch.Tensor:
        assert 0 < left <= 1
        x = torch.randn(32, 2)
        return (point(x)[:, 0] - x[:, 0] + 2).square().mean()

    seconds = descend(point, loss, Descent(400, rate=0.05), lambda *figures: told.append(figures))
    torch.testing.assert_close(point.bias.data, torch.tensor([-2.0]), atol=0.1, rtol=0)
    assert [step for step, _ in told] == list(range(40, 401, 40))
    assert told[-1][1] < told[0][1]
    assert seconds > 0


def test_an_interrupt_ends_a_descent_at_once() -> None:
    point, calls = torch.nn.Linear(1, 1), []

    def loss(left: float) -> torch.Tensor:
        calls.append(left)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return point.weight.square().sum()

    with pytest.raises(KeyboardInterrupt):
        descend(point, loss, Descent(10))
    assert len(calls) == 3


def test_jobs_run_here_where_one_process_is_asked_for() -> None:
    here: list[int] = []
    assert list(side_by_side(here.append, [1, 2, 3], processes=1)) == here == [1, 2, 3]
    assert list(side_by_side(here.append, [])) == []


def test_cores_are_counted_where_the_system_does_not_tell_whose_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.slow  # two more processes load all of Lightning
def test_jobs_run_elsewhere_where_two_processes_are_asked_for(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    assert sorted(side_by_side(os.mkdir, places, processes=2)) == places
    assert all(place.is_dir() for place in places)


def test_a_job_that_fails_ends_the_others() -> None:
    done: Iterator[int] = side_by_side(_fail, [1], processes=1)
    with pytest.raises(ArithmeticError):
        next(done)


def _fail(job: int) -> None:
    raise ArithmeticError(job)
