"""Reproduce Figure 5 of Chen et al.: a continuous flow of 64 hidden units against 64 planar layers.

Both are trained by maximum likelihood (section 4.1) on samples of a two-dimensional density. The paper shows images
[1]_; this comparison also reports held-out nats relative to the true density.

References
----------
.. [1] R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018,
   figure 5.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralode.core.registry import pick
from neuralode.data.densities import find_density
from neuralode.nn import CNF
from neuralode.nn.flows import HyperPlanarField, PlanarFlow
from neuralode.reproduce.finished_runs import is_finished, write_finished
from neuralode.reproduce.flow_plots import PlotData, plot_models
from neuralode.reproduce.process_pool import run_in_processes
from neuralode.training.plain_loop import AdamOptions, minimize
from neuralode.training.run import Run, write_csv

TEST_POINTS, TEST_SEED = 10_000, 10_000  # the same held-out points for every model
SCALE_POINTS = 100_000  # points that the mean and deviation of the data are estimated from
TRAIN_TOLERANCE, LOAD_TOLERANCE, TEST_TOLERANCE = 1e-3, 1e-5, 1e-6  # tests are in double precision
SPAN = 5.0  # integration time; fields start near zero and learn faster over a longer time

Row = dict[str, Any]
Log = Callable[[str], None]


@dataclass(frozen=True)
class FlowConfig:
    """Settings of one training.

    Parameters
    ----------
    density : str
        Name of a density in `neuralode.data.densities`.
    model : {"cnf", "planar"}
        A continuous flow with the paper's field, or planar layers.
    width : int, default=64
        Hidden units of the field, or number of planar layers.
    seed : int, default=0
        Seed of the initial weights and of the samples.
    steps : int, default=2500
        Steps of Adam.
    batch : int, default=512
        New samples per step.
    rate : float, default=5e-3
        Initial learning rate.
    """

    density: str
    model: str
    width: int = 64
    seed: int = 0
    steps: int = 2500
    batch: int = 512
    rate: float = 5e-3


# Planar layers are cheaper and get more steps. Fields that separate the circles are steeper: their solves are slower.
STEPS: Mapping[str, Mapping[str, int]] = {
    "moons": {"cnf": 2500, "planar": 6000},  # also used for every other density
    "circles": {"cnf": 1500, "planar": 6000},
}


def compare_flows(
    density: str,
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path | None = None,
    *,
    log: Log = print,
    configs: Sequence[FlowConfig] | None = None,
    processes: int | None = None,
) -> list[Row]:
    """Train each model once per seed and compare their losses on held-out points.

    The trainings run in parallel processes of one thread each. A script that calls this function must do so below
    ``if __name__ == "__main__":``. Runs that are already finished in ``folder`` are not repeated.

    Parameters
    ----------
    density : str
        "moons", "circles", or another name in `neuralode.data.densities`.
    seeds : sequence of int, default=(0, 1, 2)
        Each model is trained once per seed.
    folder : Path, default=None
        Folder for the runs, ``<density>.csv`` and ``<density>.png``. None is ``runs/<density>``.
    log : callable, default=print
        Called with one line when a training finishes.
    configs : sequence of FlowConfig, default=None
        One row of the table each; None is `default_configs`. Density and seed are filled in. No two may have both model
        and width in common.
    processes : int, default=None
        Number of parallel processes. None uses every available core.

    Returns
    -------
    list of dict
        One row per model, averaged over seeds. ``nats`` is the mean of −log q over the held-out points, ``truth`` that
        of −log p over the same points, which differs from the entropy by sampling error, and ``gap`` their difference.

    Raises
    ------
    ValueError
        If there is nothing to train, if two configs share a folder, or if a folder holds a run with another config.
    """
    truth = find_density(density)
    configs = default_configs(truth.name) if configs is None else configs
    if not seeds or not configs:
        raise ValueError(
            f"seeds={seeds!r} and configs={configs!r} leave nothing to train; wanted at least one of each."
        )
    names = [_name(config) for config in configs]
    if repeated := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise ValueError(
            f"configs has two {repeated}, which would share a folder; wanted one of them in a separate call."
        )
    folder = Path("runs") / truth.name if folder is None else folder
    jobs = [replace(config, density=truth.name, seed=seed) for config in configs for seed in seeds]
    unfinished = [job for job in jobs if not is_finished(_run_folder(folder, job), asdict(job))]
    for job in run_in_processes(partial(_train, folder=folder), unfinished, processes):
        log(f"{_name(job)}, seed {job.seed}: {_describe(Run(_run_folder(folder, job)).summary)}")
    runs = [{job.seed: Run(_run_folder(folder, job)) for job in jobs if _name(job) == name} for name in names]
    rows = [_row(runs_by_seed) for runs_by_seed in runs]
    write_csv(folder / f"{truth.name}.csv", rows)
    flows = {_name(job): load(_run_folder(folder, job)) for job in jobs if job.seed == seeds[0]}
    data = {name: PlotData.from_model(flow, truth.window) for name, flow in flows.items()}
    plot_models(truth, data, folder / f"{truth.name}.png")
    return rows


def default_configs(density: str) -> tuple[FlowConfig, ...]:
    """Return the configs for a density, the longest training first so that all processes finish together.

    Examples
    --------
    >>> [(config.model, config.steps) for config in default_configs("moons")]
    [('cnf', 2500), ('planar', 6000)]
    """
    return tuple(FlowConfig(density, model, steps=steps) for model, steps in STEPS.get(density, STEPS["moons"]).items())


class StandardizedFlow(nn.Module):
    """A flow on standardized data: mean 0 and standard deviation 1 along both axes.

    Parameters
    ----------
    flow : CNF or PlanarFlow
        Flow of the standardized data.
    mean, deviation : Tensor[2]
        Mean and standard deviation of the data.

    Examples
    --------
    >>> flow = StandardizedFlow(PlanarFlow(2, 4), mean=torch.tensor([1.0, 2.0]), deviation=torch.tensor([2.0, 2.0]))
    >>> round(flow.log_prob(torch.tensor([1.0, 2.0])).item(), 4)  # -log(2 π) - 2 log 2
    -3.2242
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, flow: CNF | PlanarFlow, mean: Float[Tensor, "2"], deviation: Float[Tensor, "2"]) -> None:
        super().__init__()
        self.flow = flow
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def log_prob(self, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Return the log-density in the units of the data."""
        return self.flow.log_prob((x - self.mean) / self.deviation) - self.deviation.log().sum()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
        """Draw n points."""
        return self.mean + self.deviation * self.flow.sample(n, generator=generator)


def build(config: FlowConfig) -> StandardizedFlow:
    """Return the untrained model of a config."""
    make = pick("model", config.model, table=MODELS, kind=())
    points = find_density(config.density).sample(SCALE_POINTS, torch.Generator().manual_seed(TEST_SEED - 1))
    return StandardizedFlow(make(config.width), points.mean(0), points.std(0))


def load(folder: Path) -> StandardizedFlow:
    """Return the trained model of a finished run."""
    run = Run.open(folder)
    config = {name: value for name, value in run.config.items() if name != "versions"}
    flow = build(FlowConfig(**config))
    run.read_weights(flow)
    if isinstance(flow.flow, CNF):
        flow.flow.rtol = flow.flow.atol = LOAD_TOLERANCE
    return flow.eval()


def evaluate(flow: StandardizedFlow, density: str) -> dict[str, float]:
    """Return the loss of a model on the held-out points, solved and averaged in double precision."""
    truth, flow = find_density(density), copy.deepcopy(flow).double()
    if isinstance(flow.flow, CNF):
        flow.flow.rtol = flow.flow.atol = TEST_TOLERANCE
    x = truth.sample(TEST_POINTS, torch.Generator().manual_seed(TEST_SEED)).double()
    with torch.no_grad():
        log_q = flow.log_prob(x)
    gap = truth.log_prob(x) - log_q
    return {
        "nats": -log_q.mean().item(),
        "gap": gap.mean().item(),
        "gap_error": gap.std().item() / math.sqrt(len(x)),
        "calls": float(flow.flow.stats.calls) if isinstance(flow.flow, CNF) and flow.flow.stats else 0.0,
    }


def _train(config: FlowConfig, folder: Path) -> None:
    torch.manual_seed(config.seed)
    density, flow = find_density(config.density), build(config)
    generator = torch.Generator().manual_seed(config.seed)

    def loss(remaining: float) -> Tensor:
        return -flow.log_prob(density.sample(config.batch, generator)).mean()

    seconds = minimize(flow, loss, AdamOptions(config.steps, config.rate))
    parameters = sum(parameter.numel() for parameter in flow.parameters())
    summary = {**evaluate(flow, config.density), "parameters": parameters, "seconds": seconds}
    write_finished(_run_folder(folder, config), flow, config=asdict(config), summary=summary)


def _continuous_flow(units: int) -> CNF:
    # Adaptive steps in training too: on a fixed grid the flow learns to exploit the discretization error, and the nats
    # gained that way vanish in an accurate solve.
    field = HyperPlanarField(2, units, width=64)
    return CNF(field, 2, (0.0, SPAN), rtol=TRAIN_TOLERANCE, atol=TRAIN_TOLERANCE, gradient="direct")


def _planar_flow(layers: int) -> PlanarFlow:
    return PlanarFlow(2, layers, direction="density")


MODELS: Mapping[str, Callable[[int], CNF | PlanarFlow]] = {"cnf": _continuous_flow, "planar": _planar_flow}


def _run_folder(folder: Path, config: FlowConfig) -> Path:
    return folder / f"{config.model}-{config.width}-{config.seed}"


def _name(config: FlowConfig) -> str:
    return f"{config.model} of {config.width}"


def _row(runs: Mapping[int, Run]) -> Row:
    summaries = {seed: run.summary for seed, run in runs.items()}
    gaps = torch.tensor([summary["gap"] for summary in summaries.values()], dtype=torch.float64)

    def mean(name: str, digits: int = 4) -> float:
        return round(sum(summary[name] for summary in summaries.values()) / len(summaries), digits)

    config = next(iter(runs.values())).config
    return {
        "density": config["density"],
        "model": config["model"],
        "width": config["width"],
        "entropy": round(find_density(config["density"]).entropy, 4),
        "truth": round(mean("nats", 8) - mean("gap", 8), 4),
        "nats": mean("nats"),
        "gap": mean("gap"),
        "spread": round(gaps.std(correction=1).item(), 4) if len(gaps) > 1 else "",
        **{f"seed_{seed}": round(summary["gap"], 4) for seed, summary in summaries.items()},
        "parameters": next(iter(summaries.values()))["parameters"],
        "calls": mean("calls", 1),
        "seconds": mean("seconds", 1),
    }


def _describe(summary: Mapping[str, float]) -> str:
    return (
        f"{summary['nats']:.4f} nats, {summary['gap']:.4f} ± {summary['gap_error']:.4f} above the truth's, "
        f"{summary['seconds']:.0f} s"
    )
